"""The fused head's losses that weigh easy rows otherwise: focal loss and poly-1."""

from __future__ import annotations

from typing import Literal, SupportsIndex, Unpack, overload

from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike, AxisName, SparseLabels
from .._formulas import SoftmaxStatistics, focal, poly
from .._layouts import BlockSizes, HeadOptions, Implementation, head_solution
from .._problem import Formula
from .._reduction import Reduction


@overload
def linear_softmax_focal_loss(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    gamma: ArrayLike = ...,
    return_statistics: Literal[False] = ...,
    **options: Unpack[HeadOptions],
) -> Float[Array, "..."]: ...


@overload
def linear_softmax_focal_loss(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    gamma: ArrayLike = ...,
    return_statistics: Literal[True],
    **options: Unpack[HeadOptions],
) -> tuple[Float[Array, "..."], SoftmaxStatistics]: ...


def linear_softmax_focal_loss(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    gamma: ArrayLike = 2.0,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    z_loss: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    margin: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    return_statistics: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."] | tuple[Float[Array, "..."], SoftmaxStatistics]:
    """Softmax focal loss of logits = hidden @ kernel + bias, which are never held.

        loss = −Σ_c q_c (1 − p_c)^γ log p_c,   p = softmax(hidden @ kernel + bias)

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: the rank decides. Integer class ids of hidden's shape without its last
        axis, or distributions of shape (..., classes), any dtype; they need not sum to
        1. Labels never broadcast.
      gamma: γ, at least 0. At 0 this is cross-entropy.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that exist and are not masked, the label's own included. None for no
        smoothing.
      z_loss: adds z_loss · lse², lse = log Σ_c exp(z_c), times the row's class weight.
        None for no z-loss.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where, weights, and the label's class weight (Σ_c q_c w_c
        for a distribution).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      return_statistics: also return the row statistics, entropy and argmax included.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes: the least memory. "tiled", for
        a mean or a sum, takes tiles of rows and forms gradients with the value: no
        product twice. "materialized" holds the logits. None plans. With label smoothing
        or distributions the loss needs every log p of a row, so that it cannot be
        streamed.

    Returns:
      As `linear_softmax_cross_entropy`.

    Numerics:
      As in `linear_softmax_cross_entropy` and `softmax_focal_loss`.

    Raises:
      As `linear_softmax_cross_entropy`.
      ValueError: also for a negative Python number as gamma, and for label smoothing or
        distributions where the logits are streamed.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> print(jxent.linear_softmax_focal_loss(hidden, kernel, jnp.array([0, 2])))
      [0.01087 0.00078]

    Source:
      Lin et al. (2017), "Focal Loss for Dense Object Detection",
      https://arxiv.org/abs/1708.02002, with a softmax.

    See also:
      `softmax_focal_loss`, `linear_softmax_cross_entropy`.
    """
    _checks.in_range("linear_softmax_focal_loss", "gamma", gamma, low=0)
    return head_solution(
        "linear_softmax_focal_loss",
        hidden,
        kernel,
        labels,
        where,
        formula=Formula(function=focal, parameters={"gamma": gamma}),
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        margin=margin,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        return_statistics=return_statistics,
        block_sizes=block_sizes,
        implementation=implementation,
    )


@overload
def linear_poly_loss_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    epsilon: ArrayLike = ...,
    return_statistics: Literal[False] = ...,
    **options: Unpack[HeadOptions],
) -> Float[Array, "..."]: ...


@overload
def linear_poly_loss_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    epsilon: ArrayLike = ...,
    return_statistics: Literal[True],
    **options: Unpack[HeadOptions],
) -> tuple[Float[Array, "..."], SoftmaxStatistics]: ...


def linear_poly_loss_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    epsilon: ArrayLike = 2.0,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    z_loss: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    margin: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    return_statistics: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."] | tuple[Float[Array, "..."], SoftmaxStatistics]:
    """Poly-1 loss of logits = hidden @ kernel + bias, which are never held.

        loss = Σ_c q_c (−log p_c + ε (1 − p_c)),   p = softmax(hidden @ kernel + bias)

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: the rank decides. Integer class ids of hidden's shape without its last
        axis, or distributions of shape (..., classes), any dtype; they need not sum to
        1. Labels never broadcast.
      epsilon: ε; at 0 this is cross-entropy.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that exist and are not masked, the label's own included. None for no
        smoothing.
      z_loss: adds z_loss · lse², lse = log Σ_c exp(z_c), times the row's class weight.
        None for no z-loss.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where, weights, and the label's class weight (Σ_c q_c w_c
        for a distribution).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      return_statistics: also return the row statistics, entropy and argmax included.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes: the least memory. "tiled", for
        a mean or a sum, takes tiles of rows and forms gradients with the value: no
        product twice. "materialized" holds the logits. None plans. With label smoothing
        or distributions the loss needs every log p of a row, so that it cannot be
        streamed.

    Returns:
      As `linear_softmax_cross_entropy`.

    Numerics:
      As in `linear_softmax_cross_entropy` and `poly_loss_cross_entropy`.

    Raises:
      As `linear_softmax_cross_entropy`.
      ValueError: also for label smoothing or distributions where the logits are
        streamed.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> print(jxent.linear_poly_loss_cross_entropy(hidden, kernel, jnp.array([0, 2])))
      [0.66557 0.27604]

    Source:
      Leng et al. (2022), "PolyLoss", https://arxiv.org/abs/2204.12511.

    See also:
      `poly_loss_cross_entropy`, `linear_softmax_cross_entropy`.
    """
    return head_solution(
        "linear_poly_loss_cross_entropy",
        hidden,
        kernel,
        labels,
        where,
        formula=Formula(function=poly, parameters={"epsilon": epsilon}),
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        margin=margin,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        return_statistics=return_statistics,
        block_sizes=block_sizes,
        implementation=implementation,
    )
