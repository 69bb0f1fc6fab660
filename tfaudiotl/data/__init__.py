"""Labelled sound: tables of clips, readers of folders and files of labels, splits, tf.data pipelines."""
