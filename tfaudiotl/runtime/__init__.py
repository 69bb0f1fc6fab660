"""Using a trained classifier, in whatever form it was saved."""
