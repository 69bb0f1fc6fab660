"""Classifiers: a backbone cut at a layer, and a head; their anatomy."""
