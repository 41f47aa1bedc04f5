"""Entropy, cross-entropy and divergences of probabilities, as the textbook has them.

For a model's outputs, prefer the losses on logits: a probability that has been rounded
to 0 or 1 has lost what they still know.
"""
