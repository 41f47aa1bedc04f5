"""Softmax losses: formulas in the log-probability, on the statistics of a layout."""
