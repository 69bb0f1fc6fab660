"""Changes to sound that make a training set larger: augmentations of waveforms and of spectrograms."""
