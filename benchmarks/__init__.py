"""Measurements of jxent beside its peers: `python -m benchmarks --help`."""
