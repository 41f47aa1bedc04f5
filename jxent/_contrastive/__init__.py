"""Losses of pairs and of batches: a matrix of similarities, a block at a time."""
