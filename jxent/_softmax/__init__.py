"""Softmax losses: formulas in the log-probability, on the statistics of a layout."""

from .cross_entropy import (
    safe_softmax_cross_entropy as safe_softmax_cross_entropy,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,  # noqa: E501
)
from .divergence import (
    softmax_jensen_shannon_divergence as softmax_jensen_shannon_divergence,
    softmax_kl_divergence as softmax_kl_divergence,
)
from .focal_and_poly import (
    poly_loss_cross_entropy as poly_loss_cross_entropy,
    softmax_focal_loss as softmax_focal_loss,
)
from .generalized_and_taylor import (
    generalized_cross_entropy as generalized_cross_entropy,
    taylor_cross_entropy as taylor_cross_entropy,
)
from .several_ids import (
    softmax_log_prob_at as softmax_log_prob_at,
    softmax_top_k as softmax_top_k,
)
from .statistics import (
    softmax_entropy as softmax_entropy,
    softmax_log_prob as softmax_log_prob,
    softmax_statistics as softmax_statistics,
)
from .sums import softmax_cross_entropy_sums as softmax_cross_entropy_sums
from .symmetric import symmetric_cross_entropy as symmetric_cross_entropy
from .zlpr import zlpr_loss as zlpr_loss
