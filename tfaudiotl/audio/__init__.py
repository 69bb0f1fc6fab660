"""Sound in: files and arrays, tables of labelled clips, tf.data pipelines.

Import from the modules: ``files`` (decode, resample, write), ``clips`` (labelled spans, splits and folds); and, with
TensorFlow, ``pipeline`` (clips to batches), ``records`` (TFRecord files), ``augment``, ``distort`` and ``masking``.
"""
