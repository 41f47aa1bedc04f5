"""The public functions of the fused head."""

from typing import Any

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, AxisName
from .._reduction import Reduction
from .._statistics import SoftmaxStatistics
from .plan import BlockSizes, Implementation
from .problem import loss_of, statistics_of


def linear_softmax_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    z_loss: ArrayLike = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    return_statistics: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Any:
    return loss_of("linear_softmax_cross_entropy", locals())


def linear_softmax_log_prob(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: int = -1,
    where: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    return statistics_of("linear_softmax_log_prob", locals(), ids_only=True).log_prob


def linear_softmax_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: int = -1,
    where: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    options = {**locals(), "labels": None, "entropy": True}
    of = statistics_of("linear_softmax_entropy", options, labels_optional=True)
    return of.entropy


def linear_softmax_statistics(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: int = -1,
    where: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    entropy: bool = False,
    argmax: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> SoftmaxStatistics:
    return statistics_of("linear_softmax_statistics", locals(), labels_optional=True)
