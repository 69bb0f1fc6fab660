"""Pretrained audio networks as functional Keras models, and where their weights come from."""

# First of all: Keras's import registers every layer of the package, and no module of this folder may be half-way then.
import keras  # noqa: F401
