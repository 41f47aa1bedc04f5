"""The fused head's cross-entropy of a batch as sums that add up."""

from __future__ import annotations

from typing import SupportsIndex

from jax import lax

from .._checks import ArrayLike, AxisName
from .._formulas import cross_entropy
from .._layouts import BlockSizes, Implementation, LossSums, head_solution
from .._problem import Formula


def linear_softmax_cross_entropy_sums(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
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
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> LossSums:
    """Sums of what a training loop logs, of hidden @ kernel, which is never held.

        loss = Σ r · cross-entropy   z_loss = Σ r · z_loss · lse²   weight = Σ r

    One pass over blocks of logits gives them all, each differentiable on its own: train
    on (loss + z_loss) / weight, and add the sums of micro-batches field by field.

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
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "materialized" holds the logits. None plans.

    Returns:
      `LossSums`, a NamedTuple of scalars in float32, or float64 where hidden or kernel
      is.

    Numerics:
      As in `linear_softmax_cross_entropy` and `softmax_cross_entropy_sums`.

    Raises:
      As `linear_softmax_cross_entropy`.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> sums = jxent.linear_softmax_cross_entropy_sums(
      ...     hidden, kernel, jnp.array([0, 1]))
      >>> print(sums.loss / sums.weight, sums.correct)
      1.66723 1.0

    Source:
      What T5X, MaxText and EasyDeL log beside their losses.

    See also:
      `linear_softmax_cross_entropy`, which takes less time where the loss alone is
      needed; `softmax_cross_entropy_sums`.
    """
    return head_solution(
        "linear_softmax_cross_entropy_sums",
        hidden,
        kernel,
        labels,
        where,
        ids_only=True,
        formula=Formula(function=cross_entropy, parameters={}),
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
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
        sums=True,
    )
