"""Files for deployment: written, opened again, and compared with the Keras model."""
