"""The Brier score: the squared error of the probabilities."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import NamedTuple

from jax import Array, lax
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName
from .._measures.batch import measured, metric_problem, quotient_of_sums, total
from .._measures.rows import squared_error
from .._problem.problem import Problem
from .._solve.call import RowOptions, Scores
from .._statistics.squares import SquaresOfOthers
from .._sums import AddsUp
from .._targets.given import ClassIds


class _BrierScoreFields(NamedTuple):
    squared_error: Array
    weight: Array


class BrierScoreSums(AddsUp, _BrierScoreFields):
    """A batch's squared errors and weights, each summed over rows: two scalars.

    r is everything that multiplies a row. Sums of batches and devices are added field
    by field, `a + b` or `sum([a, b])`.

    Attributes:
      squared_error: Σ r · Σ_c (p_c − y_c)², y the one-hot of the label.
      weight: Σ r.
    """

    __slots__ = ()

    def compute(self) -> Array:
        """squared_error / weight, 0 where nothing has a weight."""
        return quotient_of_sums(self.squared_error, self.weight)


def _brier_sums(batch: Problem) -> BrierScoreSums:
    error = squared_error(batch)
    ones = lax.full_like(error, 1)
    return BrierScoreSums(squared_error=total(batch, error), weight=total(batch, ones))


def _brier(batch: Problem) -> Array:
    return _brier_sums(batch).compute()


def brier_score(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, ""]:
    """The mean squared distance of the probabilities from the one-hot label.

        brier_score = Σ r · Σ_c (p_c − [c = y])² / Σ r,   p = softmax(z)

    With axis=() a row's term is (p − y)², p = σ(z): half of what two classes give.

    Args:
      logits: floating, (..., classes, ...), at least two classes. With axis=() any
        shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis. A tuple names several that are the classes together, an id
        counts through them in order; None stands for all. () is for binary labels:
        every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      batch_axis_name: the mesh axes that the rows are split over, inside
        `jax.shard_map`: the sums run over them too.

    Returns:
      A number between 0 and 2, with axis=() between 0 and 1; float32, or float64 where
      the logits are. Differentiable.

    Numerics:
      As in `accuracy`. No softmax is held. The label's term is formed from log p_y, and
      keeps its digits where p_y is near 1.

    Raises:
      As `accuracy`.

    Example:
      >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
      >>> print(jxent.metrics.brier_score(logits, jnp.array([0, 1])))
      0.5075

    Source:
      Brier (1950), "Verification of forecasts expressed in terms of probability".
      scikit-learn's `brier_score_loss` is that of axis=().

    See also:
      `brier_score_sums`, for more than one batch; `calibration_error`.
    """
    problem = metric_problem(
        "brier_score",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        whole_logits=True,
        statistics=(SquaresOfOthers(),),
    )
    return measured(_brier, problem)


def brier_score_sums(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> BrierScoreSums:
    """The two sums whose quotient is the Brier score, to be added over batches.

        squared_error = Σ r · Σ_c (p_c − [c = y])²   weight = Σ r   r = where · weights

    They are added up, inside `jax.shard_map` too, as those of `accuracy_sums` are.

    Args:
      logits: floating, (..., classes, ...), at least two classes. With axis=() any
        shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis. A tuple names several that are the classes together, an id
        counts through them in order; None stands for all. () is for binary labels:
        every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      batch_axis_name: the mesh axes that the rows are split over, inside
        `jax.shard_map`: the sums run over them too.

    Returns:
      `BrierScoreSums`, a NamedTuple of scalars in float32, or float64 where the
      logits are.

    Numerics:
      As in `brier_score`.

    Raises:
      As `accuracy`.

    Example:
      >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
      >>> sums = jxent.metrics.brier_score_sums(logits, jnp.array([0, 1]))
      >>> print(sums.squared_error, sums.weight, sums.compute())
      1.015 2.0 0.5075

    Source:
      As `brier_score` and `accuracy_sums`.

    See also:
      `brier_score`.
    """
    problem = metric_problem(
        "brier_score_sums",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        whole_logits=True,
        statistics=(SquaresOfOthers(),),
    )
    return measured(_brier_sums, problem)
