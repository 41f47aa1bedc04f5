"""Accuracy, as a number and as sums that add up."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import NamedTuple

from jax import Array, lax
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName
from .._linear_logits import Logits
from .._measures.batch import measured, metric_problem, quotient_of_sums, total
from .._measures.rows import is_right
from .._problem.problem import Problem
from .._solve.call import RowOptions, Scores
from .._statistics.argmax import Argmax
from .._sums import AddsUp
from .._targets.given import ClassIds


class _AccuracyFields(NamedTuple):
    correct: Array
    weight: Array


class AccuracySums(AddsUp, _AccuracyFields):
    """The weight of a batch's right rows, and that of all its rows: two scalars.

    r is everything that multiplies a row. Sums of batches and devices are added field
    by field, `a + b` or `sum([a, b])`.

    Attributes:
      correct: Σ r over the rows that are right.
      weight: Σ r.
    """

    __slots__ = ()

    def compute(self) -> Array:
        """correct / weight, 0 where nothing has a weight."""
        return quotient_of_sums(self.correct, self.weight)


def sums_of_right(batch: Problem, k: int = 1) -> AccuracySums:
    right = is_right(batch, k)
    ones = lax.full_like(right, 1)
    return AccuracySums(correct=total(batch, right), weight=total(batch, ones))


def share_of_right(batch: Problem, k: int = 1) -> Array:
    return sums_of_right(batch, k).compute()


def accuracy(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, ""]:
    """The share of rows whose largest logit is that of their label.

        accuracy = Σ r · [argmax_c z_c = y] / Σ r,   r = where · weights

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
        With axis=() any shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
        () is for binary labels: every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the sums run over them too.

    Returns:
      A number between 0 and 1; float32, or float64 where the logits are. Its gradient
      in the logits is 0.

    Numerics:
      Of equal logits the first class is predicted; a binary logit of 0 is a no. A row
      whose loss is NaN (a label outside of the classes, NaN or +inf among the logits)
      makes the result NaN. A dropped row adds nothing, whatever it holds. Nothing left
      gives 0. Sums are in float32 or better.

    Raises:
      TypeError: logits are not floating, labels are floating (or boolean, but for
        axis=()), or where is floating.
      ValueError: a shape does not fit, there is one class, or axis=() comes with
        class_mask, logit_soft_cap, temperature or class_axis_name.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
      >>> print(jxent.metrics.accuracy(logits, jnp.array([0, 1, 1])))
      0.66667
      >>> print(jxent.metrics.accuracy(
      ...     jnp.array([3.0, -1.0]), jnp.array([True, True]), axis=()))
      0.5

    Source:
      scikit-learn's `accuracy_score`, of logits.

    See also:
      `accuracy_sums`, for more than one batch; `top_k_accuracy`;
      `jxent.softmax_cross_entropy_sums` for loss and hits from one pass.
    """
    problem = metric_problem(
        "accuracy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        statistics_of_head=(Argmax(),),
    )
    return measured(share_of_right, problem)


def accuracy_sums(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> AccuracySums:
    """The two sums whose quotient is the accuracy, to be added over batches.

        correct = Σ r · [argmax_c z_c = y]   weight = Σ r   r = where · weights

    Add the sums of batches, micro-batches or devices field by field, and divide once,
    with `compute()`. Inside `jax.shard_map` the sums are those of the device's rows:
    batch_axis_name, or `jax.lax.psum(sums, names)`, adds them up. Outside of it nothing
    is to be done.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
        With axis=() any shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
        () is for binary labels: every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the sums run over them too.

    Returns:
      `AccuracySums`, a NamedTuple of scalars, float32, or float64 where the logits are.

    Numerics:
      As in `accuracy`. Counts, and weights that are whole numbers, are added exactly up
      to 2^24 in float32, in whatever order.

    Raises:
      As `accuracy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
      >>> labels = jnp.array([0, 1, 1])
      >>> first = jxent.metrics.accuracy_sums(logits[:2], labels[:2])
      >>> second = jxent.metrics.accuracy_sums(logits[2:], labels[2:])
      >>> sums = first + second
      >>> print(sums.correct, sums.weight, sums.compute())
      2.0 3.0 0.66667

    Source:
      `flax.nnx.metrics` and `clu.metrics`, which add up in the same way.

    See also:
      `accuracy`, `jxent.softmax_cross_entropy_sums`.
    """
    problem = metric_problem(
        "accuracy_sums",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        statistics_of_head=(Argmax(),),
    )
    return measured(sums_of_right, problem)
