"""Pretrained audio networks as functional Keras models, and where their weights come from."""
