"""The softmax cross-entropy of a batch as sums that add up."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._formulas import cross_entropy
from .._linear_logits import Logits
from .._solve.call import Formula, RowOptions, Scores
from .._solve.results import BatchSums, LossSums
from .._solve.solve import solution
from .._targets.given import RowLabels


def softmax_cross_entropy_sums(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
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
) -> LossSums:
    """Sums of what a training loop logs: loss, z-loss, entropy, hits and weight.

        loss = Σ r · cross-entropy   z_loss = Σ r · z_loss · lse²   weight = Σ r

    One pass over the logits gives them all, each differentiable on its own. Train on
    (loss + z_loss) / weight. Micro-batches and devices with different numbers of rows
    are added field by field, `a + b`, and divided by their weight once.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids, of the logits' shape without `axis`; or distributions,
        of the logits' shape and any dtype, which need not sum to 1; or `SparseLabels`,
        distributions that are given at a few classes. Labels never broadcast.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that are not masked, the label's own included. None for no smoothing.
      z_loss: adds z_loss · lse² times the row's class weight, lse = log Σ_c exp(z_c).
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the sums run over them too.

    Returns:
      `LossSums`, a NamedTuple of scalars in float32, or float64 where the logits are.

    Numerics:
      As in `softmax_cross_entropy`; sums are in float32 or better. A bad label makes
      loss and correct NaN. A dropped row adds 0 to every sum.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
      >>> labels = jnp.array([0, 1, -100])
      >>> sums = jxent.softmax_cross_entropy_sums(
      ...     logits, labels, ignore_index=-100, z_loss=1e-4)
      >>> print(sums.loss / sums.weight, sums.correct / sums.weight)
      1.66723 0.5
      >>> print((sums + sums).weight)
      4.0

    Source:
      What T5X, MaxText and EasyDeL log beside their losses.

    See also:
      `softmax_cross_entropy`, `total_weight`, `jxent.metrics`.
    """
    return solution(
        "softmax_cross_entropy_sums",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabels(labels, class_weights, ignore_index, margin, label_smoothing, z_loss),
        RowOptions(where, weights, batch_axis_name),
        formula=Formula(function=cross_entropy),
        result=BatchSums(),
    )
