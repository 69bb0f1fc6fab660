"""Changes to sound that make a training set larger: augmentations of waveforms and of spectrograms."""

# First of all: Keras's import registers every layer of the package, and no module of this folder may be half-way then.
import keras  # noqa: F401
