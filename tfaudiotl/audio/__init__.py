"""Sound: decoding and writing files (``files``), and arrays of samples (``waveform``). Needs no TensorFlow."""
