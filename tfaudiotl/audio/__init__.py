"""Sound in: files and arrays, tables of labelled clips, tf.data pipelines.

Import from the modules: ``files`` (decode, resample, write), ``clips`` (labelled spans, splits and
folds) and ``pipeline`` (clips to batches, the only one that needs TensorFlow).
"""
