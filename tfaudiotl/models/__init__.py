"""Classifiers and embedding models: a backbone cut at a layer, and a head."""
