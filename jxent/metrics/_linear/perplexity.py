"""Perplexity of hidden @ kernel, which is never held."""

from __future__ import annotations

from typing import SupportsIndex

from jax import Array, lax
from jaxtyping import Float

from ..._checks import ArrayLike, AxisName
from ..._layouts import BlockSizes, Implementation, planned_head
from ..._measures import measured
from .._scores import PerplexitySums, perplexity_of, sums_of_loss


def linear_perplexity(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, ""]:
    """The exponential of the mean cross-entropy of hidden @ kernel, never held.

        perplexity = exp(Σ r · (−log p_y) / Σ r),   p = softmax(hidden @ kernel + bias)

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: integer class ids, of hidden's shape without its last axis.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes: the least memory.
        "materialized" holds the logits. None plans.

    Returns:
      A number of at least 1; float32, or float64 where hidden or kernel is.
      Differentiable.

    Numerics:
      As in `perplexity` and `jxent.linear_softmax_cross_entropy`.

    Raises:
      As `jxent.linear_softmax_cross_entropy`.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> print(jxent.metrics.linear_perplexity(hidden, kernel, jnp.array([0, 2])))
      1.18203

    Source:
      As `perplexity`.

    See also:
      `linear_perplexity_sums`, `perplexity`.
    """
    problem = planned_head(
        "linear_perplexity",
        hidden,
        kernel,
        labels,
        where,
        ids_only=True,
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )
    return measured(perplexity_of, problem)


def linear_perplexity_sums(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> PerplexitySums:
    """The sums of loss and weight that the fused head's perplexity is made of.

        loss = Σ r · (−log p_y)   weight = Σ r,   p = softmax(hidden @ kernel + bias)

    They are added up as those of `linear_accuracy_sums` are.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: integer class ids, of hidden's shape without its last axis.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes: the least memory.
        "materialized" holds the logits. None plans.

    Returns:
      `PerplexitySums`, a NamedTuple of scalars in float32, or float64 where hidden or
      kernel is.

    Numerics:
      As in `linear_perplexity`.

    Raises:
      As `jxent.linear_softmax_cross_entropy`.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> sums = jxent.metrics.linear_perplexity_sums(
      ...     hidden, kernel, jnp.array([0, 2]))
      >>> print(sums.loss, sums.weight, sums.compute())
      0.33447 2.0 1.18203

    Source:
      As `perplexity` and `accuracy_sums`.

    See also:
      `linear_perplexity`, `perplexity_sums`.
    """
    problem = planned_head(
        "linear_perplexity_sums",
        hidden,
        kernel,
        labels,
        where,
        ids_only=True,
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )
    return measured(sums_of_loss, problem)
