"""The fused head: losses of hidden @ kernel that never hold the logits."""

from .cross_entropy import (
    linear_softmax_cross_entropy as linear_softmax_cross_entropy,
)
from .divergence import (
    linear_softmax_jensen_shannon_divergence as linear_softmax_jensen_shannon_divergence,  # noqa: E501
    linear_softmax_kl_divergence as linear_softmax_kl_divergence,
)
from .focal_and_asymmetric import (
    linear_asymmetric_loss as linear_asymmetric_loss,
    linear_sigmoid_focal_loss as linear_sigmoid_focal_loss,
)
from .focal_and_poly import (
    linear_poly_loss_cross_entropy as linear_poly_loss_cross_entropy,
    linear_softmax_focal_loss as linear_softmax_focal_loss,
)
from .multi_label import (
    linear_sigmoid_binary_cross_entropy as linear_sigmoid_binary_cross_entropy,
    linear_zlpr_loss as linear_zlpr_loss,
)
from .several_ids import (
    linear_softmax_log_prob_at as linear_softmax_log_prob_at,
    linear_softmax_top_k as linear_softmax_top_k,
)
from .statistics import (
    linear_softmax_entropy as linear_softmax_entropy,
    linear_softmax_log_prob as linear_softmax_log_prob,
    linear_softmax_statistics as linear_softmax_statistics,
)
from .sums import (
    linear_softmax_cross_entropy_sums as linear_softmax_cross_entropy_sums,
)
