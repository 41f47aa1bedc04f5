"""The fused head: losses of hidden @ kernel that never hold the logits."""

from .losses import (
    linear_softmax_cross_entropy as linear_softmax_cross_entropy,
    linear_softmax_entropy as linear_softmax_entropy,
    linear_softmax_log_prob as linear_softmax_log_prob,
    linear_softmax_statistics as linear_softmax_statistics,
)
from .plan import (
    LinearSoftmaxPlan as LinearSoftmaxPlan,
    linear_softmax_plan as linear_softmax_plan,
)
