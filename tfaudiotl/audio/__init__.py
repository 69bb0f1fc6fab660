"""Load audio, build labelled datasets, and feed them to Keras.

Import from the modules: ``files`` (decode, write), ``waveform`` (resample, cut), ``clips`` (labelled spans, splits and
folds); and, with TensorFlow, ``dataset`` (clips to batches), ``tfrecords``, and the augmentations: ``waveforms``,
``mixup_specaugment`` and ``chain``.
"""
