"""Perplexity: e to the mean cross-entropy."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName
from .._linear_logits import Logits
from .._measures.batch import measured, metric_problem, total
from .._measures.rows import log_prob
from .._problem.problem import Problem
from .._reduction import divided
from .._solve.call import RowOptions, Scores
from .._sums import AddsUp
from .._targets.given import ClassIds


class _PerplexityFields(NamedTuple):
    loss: Array
    weight: Array


class PerplexitySums(AddsUp, _PerplexityFields):
    """A batch's losses and weights, each summed over rows: two scalars.

    r is everything that multiplies a row. Sums of batches and devices are added field
    by field, `a + b` or `sum([a, b])`.

    Attributes:
      loss: Σ r · (−log p_y), the cross-entropy in nats.
      weight: Σ r.
    """

    __slots__ = ()

    def compute(self) -> Array:
        """exp(loss / weight), 1 where nothing has a weight."""
        return _perplexity(self.loss, self.weight)


@jax.jit
def _perplexity(loss: Array, weight: Array) -> Array:
    return jnp.exp(divided(loss, weight))


def sums_of_loss(batch: Problem) -> PerplexitySums:
    loss = lax.neg(log_prob(batch))
    ones = lax.full_like(loss, 1)
    return PerplexitySums(loss=total(batch, loss), weight=total(batch, ones))


def perplexity_of(batch: Problem) -> Array:
    return sums_of_loss(batch).compute()


def perplexity(
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
    """The exponential of the mean cross-entropy.

        perplexity = exp(Σ r · (−log p_y) / Σ r),   p = softmax(z)

    It is the number of equally likely classes that would be as hard to guess.

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
      A number of at least 1; float32, or float64 where the logits are. Differentiable.

    Numerics:
      As in `accuracy`, and the loss as in `jxent.softmax_cross_entropy`: a label of
      probability 0 gives +inf. Nothing left gives 1.

    Raises:
      As `accuracy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
      >>> print(jxent.metrics.perplexity(logits, jnp.array([0, 2, 1])))
      1.34354

    Source:
      Jelinek et al. (1977), "Perplexity—a measure of the difficulty of speech
      recognition tasks".

    See also:
      `perplexity_sums`, for more than one batch; `jxent.softmax_cross_entropy`.
    """
    problem = metric_problem(
        "perplexity",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
    )
    return measured(perplexity_of, problem)


def perplexity_sums(
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
) -> PerplexitySums:
    """The sums of loss and weight that the perplexity is made of.

        loss = Σ r · (−log p_y)   weight = Σ r   r = where · weights

    They are added up, inside `jax.shard_map` too, as those of `accuracy_sums` are. The
    mean of the perplexities of batches is no perplexity; that of their sums is.

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
      `PerplexitySums`, a NamedTuple of scalars in float32, or float64 where the
      logits are. loss / weight is the mean cross-entropy in nats.

    Numerics:
      As in `perplexity`.

    Raises:
      As `accuracy`.

    Example:
      >>> sums = jxent.metrics.perplexity_sums(jnp.zeros((3, 8)), jnp.array([0, 5, 7]))
      >>> print(sums.weight, sums.compute())
      3.0 8.0

    Source:
      As `perplexity` and `accuracy_sums`.

    See also:
      `perplexity`, `jxent.softmax_cross_entropy_sums`.
    """
    problem = metric_problem(
        "perplexity_sums",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
    )
    return measured(sums_of_loss, problem)
