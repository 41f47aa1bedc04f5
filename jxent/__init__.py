"""Cross-entropy losses for JAX: exact, complete under every transformation, fast."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import (
    TYPE_CHECKING as _TYPE_CHECKING,
    Any as _Any,
)

from ._labels import (
    next_token_labels as next_token_labels,
    smooth_labels as smooth_labels,
    total_weight as total_weight,
)
from ._linear import (
    LinearSoftmaxPlan as LinearSoftmaxPlan,
    linear_softmax_cross_entropy as linear_softmax_cross_entropy,
    linear_softmax_entropy as linear_softmax_entropy,
    linear_softmax_log_prob as linear_softmax_log_prob,
    linear_softmax_plan as linear_softmax_plan,
    linear_softmax_statistics as linear_softmax_statistics,
)
from ._probabilities import (
    binary_cross_entropy as binary_cross_entropy,
    categorical_cross_entropy as categorical_cross_entropy,
    entropy as entropy,
    generalized_kl_divergence as generalized_kl_divergence,
    kl_divergence as kl_divergence,
    kl_divergence_with_log_targets as kl_divergence_with_log_targets,
)
from ._reduction import reduce as reduce
from ._sigmoid import (
    sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy,
    sigmoid_focal_loss as sigmoid_focal_loss,
)
from ._softmax import (
    poly_loss_cross_entropy as poly_loss_cross_entropy,
    safe_softmax_cross_entropy as safe_softmax_cross_entropy,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,  # noqa: E501
    softmax_entropy as softmax_entropy,
    softmax_focal_loss as softmax_focal_loss,
    softmax_log_prob as softmax_log_prob,
    softmax_statistics as softmax_statistics,
)
from ._statistics import SoftmaxStatistics as SoftmaxStatistics
from ._tiles import sum_over_tiles as sum_over_tiles


__version__ = _version("jxent")

__all__ = [
    "LinearSoftmaxPlan",
    "SoftmaxStatistics",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "entropy",
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "linear_softmax_cross_entropy",
    "linear_softmax_entropy",
    "linear_softmax_log_prob",
    "linear_softmax_plan",
    "linear_softmax_statistics",
    "next_token_labels",
    "poly_loss_cross_entropy",
    "reduce",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_entropy",
    "softmax_focal_loss",
    "softmax_log_prob",
    "softmax_statistics",
    "sum_over_tiles",
    "total_weight",
]


if _TYPE_CHECKING:
    from . import (
        keras as keras,
        torch as torch,
    )


def __getattr__(name: str) -> _Any:
    """The facades, loaded when they are first asked for."""
    if name in ("keras", "torch"):
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
