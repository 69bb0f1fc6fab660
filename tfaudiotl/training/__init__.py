"""Training recipes over plain Keras ``fit``: heads on cached embeddings, checkpoints, folds."""
