"""Entropy, cross-entropy and divergences of probabilities, as the textbook has them.

For a model's outputs, prefer the losses on logits: a probability that has been rounded
to 0 or 1 has lost what they still know.
"""

from .cross_entropy import (
    binary_cross_entropy as binary_cross_entropy,
    categorical_cross_entropy as categorical_cross_entropy,
)
from .divergence import (
    entropy as entropy,
    generalized_kl_divergence as generalized_kl_divergence,
    kl_divergence as kl_divergence,
    kl_divergence_with_log_targets as kl_divergence_with_log_targets,
)
