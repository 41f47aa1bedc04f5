"""What a call returns: one kind an object, with the statistics that it needs."""

import dataclasses
from typing import Any, ClassVar, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import _checks
from .._arrays import Size, cast, over_last_axis, select, sum_over_devices
from .._compute.times import times
from .._problem.problem import Problem
from .._problem.resolved import Resolved
from .._reduction import combine, weighed
from .._statistics.argmax import Argmax
from .._statistics.expected import Expected
from .._statistics.softmax_statistics import SoftmaxStatistics
from .._statistics.statistic import Statistic
from .._statistics.top_k import TopK
from .._sums import AddsUp
from .._targets.labels import lse_squared, statistics_of
from .._targets.target import Losses


@dataclasses.dataclass(frozen=True)
class Result:
    reduces: ClassVar[bool] = False  # whether `reduction` applies to it
    is_sum: ClassVar[bool] = False  # whether, reduced, it is a sum that tiles can form
    whole_rows: ClassVar[bool] = False  # are read at a time, whatever the layout

    def statistics(self, function: str, classes: Size) -> tuple[Statistic, ...]:
        """The statistics that it needs beside the target's.

        `classes` is the number of classes over all devices.
        """
        return ()

    def of(self, problem: Problem) -> Any:
        """A tree of arrays of the rows, or of scalars."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Loss(Result):
    reduces = True
    is_sum = True

    def of(self, problem: Problem) -> Any:
        return reduced_loss(problem)[0]


LOSS = Loss()
ENTROPY_AND_ARGMAX = Expected(), Argmax()


@dataclasses.dataclass(frozen=True)
class RowStatistics(Result):
    """The public statistics, of the rows' shape."""

    entropy: bool = False
    argmax: bool = False
    more: tuple[Statistic, ...] = ()  # beside the public ones

    def statistics(self, function: str, classes: Size) -> tuple[Statistic, ...]:
        entropy = _checks.flag(function, "entropy", self.entropy)
        argmax = _checks.flag(function, "argmax", self.argmax)
        return (Expected(),) * entropy + (Argmax(),) * argmax + self.more

    def of(self, problem: Problem) -> SoftmaxStatistics:
        return zero_where_dropped(statistics_of(problem)[0], problem.resolved)


@dataclasses.dataclass(frozen=True)
class WholeRows(RowStatistics):
    """For ranks of labels among all classes of a row, which no statistics tell."""

    whole_rows = True


@dataclasses.dataclass(frozen=True)
class LogProbsAt(Result):
    """The log-probabilities of several ids, (…, k, …) at the classes' axis."""

    def of(self, problem: Problem) -> Array:
        statistics = zero_where_dropped(statistics_of(problem)[0], problem.resolved)
        log_probs = _log_probs(statistics.label_logit, statistics.log_sum)
        if problem.resolved.scored is not None:
            log_probs = select(problem.resolved.scored, log_probs)
        return _at_classes(log_probs, problem)


@dataclasses.dataclass(frozen=True)
class LogProbAmong(Result):
    """The log-probability of the first of several ids, among those that are scored.

    log p_0 − log Σ_k p_k = z_0 − log Σ_k exp(z_k)
    """

    def of(self, problem: Problem) -> Array:
        statistics = zero_where_dropped(statistics_of(problem)[0], problem.resolved)
        z, scored = statistics.label_logit, problem.resolved.scored
        assert scored is not None
        z, last = select(scored, z, -jnp.inf), z.ndim - 1
        largest = lax.stop_gradient(lax.reduce_max(z, (last,)))
        z = lax.sub(z, over_last_axis(largest, z))
        return lax.sub(z[..., 0], lax.log(lax.reduce_sum(lax.exp(z), (last,))))


@dataclasses.dataclass(frozen=True)
class LargestClasses(Result):
    """The log-probabilities and ids of the k largest logits, (…, k, …) each."""

    k: SupportsIndex

    def statistics(self, function: str, classes: Size) -> tuple[Statistic, ...]:
        return (TopK(_checks.top_k(function, self.k, classes)),)

    def of(self, problem: Problem) -> tuple[Array, Array]:
        statistics, t = statistics_of(problem)
        found = statistics.log_sum, t[TopK]
        log_sum, top = zero_where_dropped(found, problem.resolved)
        log_probs = _log_probs(top.logits, log_sum)
        return _at_classes(log_probs, problem), _at_classes(top.ids, problem)


class _LossFields(NamedTuple):
    loss: Array
    z_loss: Array
    entropy: Array
    correct: Array
    weight: Array


class LossSums(AddsUp, _LossFields):
    """A batch's losses, entropies, hits and weights, each summed over rows: scalars.

    r is everything that multiplies a row. Sums of micro-batches or devices are added
    field by field, `a + b` or `sum([a, b])`. What is divided by `weight` is a mean
    over all rows: loss / weight is `softmax_cross_entropy` with reduction="mean" and no
    z-loss.

    Attributes:
      loss: Σ r · cross-entropy, smoothing included and z-loss left out, in nats.
      z_loss: Σ r · z_loss · lse².
      entropy: Σ r · the entropy of the row's softmax, in nats.
      correct: Σ r over the rows whose largest logit is that of their label; of a
        distribution, of one of its classes of most mass.
      weight: Σ r, what a mean divides by; `total_weight`.
    """

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class BatchSums(Result):
    """The sums of labels' losses, over all devices that split the rows."""

    def statistics(self, function: str, classes: Size) -> tuple[Statistic, ...]:
        return ENTROPY_AND_ARGMAX

    def of(self, problem: Problem) -> LossSums:
        rows, shared, resolved = problem.rows, problem.shared, problem.resolved
        without = problem.replace(shared=shared._replace(z_loss=None))
        unreduced = problem.target.losses(without)
        statistics, factor = unreduced.statistics, unreduced.class_factor
        known = lax.eq(unreduced.losses, unreduced.losses)
        right = problem.target.is_right(problem, statistics.argmax)
        right = select(known, cast(right, unreduced.losses.dtype), jnp.nan)
        z_loss = lax.full_like(unreduced.losses, 0)
        if shared.z_loss is not None:
            z_loss = lse_squared(statistics, problem, factor)
            z_loss = times(shared.z_loss, z_loss)

        def scaled(x: Array) -> Array:
            return x if factor is None else times(factor, x)

        sums = LossSums(
            loss=unreduced.losses,
            z_loss=z_loss,
            entropy=scaled(statistics.entropy),
            correct=scaled(right),
            weight=scaled(lax.full_like(unreduced.losses, 1)),
        )
        sums = jax.tree.map(
            lambda x: jnp.sum(weighed(x, resolved.keep, rows.weights)), sums
        )
        return sum_over_devices(sums, problem.settings.batch_axis_name)


def reduced_loss(problem: Problem) -> tuple[Array, Losses]:
    """The loss, a scalar or of the rows' shape, and what it is reduced from."""
    normalizer = problem.shared.normalizer
    without = problem.shared._replace(normalizer=None)
    unreduced = problem.target.losses(problem.replace(shared=without))
    loss = combine(
        unreduced.losses,
        keep=problem.resolved.keep,
        weights=problem.rows.weights,
        class_factor=unreduced.class_factor,
        reduction=problem.settings.reduction,
        normalizer=normalizer,
        batch_axis_name=problem.settings.batch_axis_name,
    )
    return loss, unreduced


def _log_probs(label: Any, log_sum: Array) -> Array:
    return lax.sub(label, over_last_axis(log_sum, label))


def _at_classes(x: Array, problem: Problem) -> Array:
    """(rows, k) with k at the axis of the classes."""
    return jnp.moveaxis(x, -1, problem.axis)


def zero_where_dropped(tree: Any, resolved: Resolved) -> Any:
    """Sets every array (rows, …) to 0 in rows that are dropped."""
    keep = resolved.keep
    if keep is None:
        return tree
    return jax.tree.map(lambda x: select(over_last_axis(keep, x), x), tree)
