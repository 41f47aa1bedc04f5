"""Metrics of the fused head."""

from .accuracy import (
    linear_accuracy as linear_accuracy,
    linear_accuracy_sums as linear_accuracy_sums,
)
from .perplexity import (
    linear_perplexity as linear_perplexity,
    linear_perplexity_sums as linear_perplexity_sums,
)
from .top_k_accuracy import (
    linear_top_k_accuracy as linear_top_k_accuracy,
    linear_top_k_accuracy_sums as linear_top_k_accuracy_sums,
)
