"""Measurements, as ratios within one run; results are in RESULTS.md."""
