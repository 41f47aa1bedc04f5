"""Accuracy of hidden @ kernel, which is never held."""

from __future__ import annotations

from typing import SupportsIndex

from jax import Array, lax
from jaxtyping import Float

from ..._checks import ArrayLike, AxisName
from ..._layouts import BlockSizes, Implementation, planned_head
from ..._measures import measured
from .._accuracy import AccuracySums, share_of_right, sums_of_right


def linear_accuracy(
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
    """The share of rows whose largest logit of hidden @ kernel is their label's.

        accuracy = Σ r · [argmax_c z_c = y] / Σ r,   z = hidden @ kernel + bias

    One pass over blocks of logits.

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
      A number between 0 and 1; float32, or float64 where hidden or kernel is.

    Numerics:
      As in `accuracy`, and as in `jxent.linear_softmax_cross_entropy`.

    Raises:
      As `jxent.linear_softmax_cross_entropy`.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> print(jxent.metrics.linear_accuracy(hidden, kernel, jnp.array([0, 1])))
      0.5

    Source:
      As `accuracy`.

    See also:
      `linear_accuracy_sums`, `accuracy`; `jxent.linear_softmax_cross_entropy_sums` for
      loss and hits from one pass.
    """
    problem = planned_head(
        "linear_accuracy",
        hidden,
        kernel,
        labels,
        where,
        ids_only=True,
        argmax=True,
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
    return measured(share_of_right, problem)


def linear_accuracy_sums(
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
) -> AccuracySums:
    """The two sums whose quotient is the fused head's accuracy.

        correct = Σ r · [argmax_c z_c = y]   weight = Σ r,   z = hidden @ kernel + bias

    Micro-batches are added field by field. Inside `jax.shard_map` the sums run over the
    axes that batch_axis_name names, and are those of the device's rows without it.

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
      `AccuracySums`, a NamedTuple of scalars in float32, or float64 where hidden or
      kernel is.

    Numerics:
      As in `linear_accuracy` and `accuracy_sums`.

    Raises:
      As `jxent.linear_softmax_cross_entropy`.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> sums = jxent.metrics.linear_accuracy_sums(hidden, kernel, jnp.array([0, 1]))
      >>> print(sums.correct, sums.weight, sums.compute())
      1.0 2.0 0.5

    Source:
      As `accuracy_sums`.

    See also:
      `linear_accuracy`, `accuracy_sums`.
    """
    problem = planned_head(
        "linear_accuracy_sums",
        hidden,
        kernel,
        labels,
        where,
        ids_only=True,
        argmax=True,
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
    return measured(sums_of_right, problem)
