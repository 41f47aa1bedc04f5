"""`with_statistics`: a loss together with the statistics that it is a formula on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, ParamSpec

import jax
from jax import Array

from .._arrays import Size
from .._checks import shown
from .._problem.problem import Problem
from .._statistics.softmax_statistics import SoftmaxStatistics
from .._statistics.statistic import Statistic
from .._targets.given import Given
from .results import ENTROPY_AND_ARGMAX, LOSS, Result, reduced_loss, zero_where_dropped


Arguments = ParamSpec("Arguments")
# A value of a user context is a part of the key by which JAX keeps traces: what is
# jitted, and has been traced without statistics, is traced again.
_asked_for = jax.make_user_context(False)


def with_statistics(
    loss: Callable[Arguments, Array],
) -> Callable[Arguments, tuple[Array, SoftmaxStatistics]]:
    """A softmax loss that returns the statistics of its rows beside the loss.

        loss, rows = jxent.with_statistics(jxent.softmax_focal_loss)(logits, labels)

    Both come from one pass over the logits. The statistics have entropy and argmax.

    Args:
      loss: a loss of one softmax a row: `softmax_cross_entropy`, `softmax_focal_loss`,
        `poly_loss_cross_entropy`, `generalized_cross_entropy`, `taylor_cross_entropy`
        or `symmetric_cross_entropy`; or a function of yours, jitted or not, that
        returns what one of them returns.

    Returns:
      A function of the arguments of `loss`, which returns a pair (loss,
      `SoftmaxStatistics`): the loss reduced as its arguments say, the statistics of the
      rows' shape. `jax.value_and_grad` of it takes has_aux=True.

    Numerics:
      As in `softmax_cross_entropy` and `softmax_statistics`. A dropped row has
      statistics of 0. `LinearLogits` are streamed or materialized: tiles of rows keep
      no statistics.

    Raises:
      TypeError: a row of the loss has no softmax or two, or the function returns
        something else than one loss.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> loss_of = jxent.with_statistics(jxent.softmax_cross_entropy)
      >>> loss, rows = loss_of(logits, jnp.array([0, 1]), reduction="mean")
      >>> print(loss, rows.argmax, rows.entropy)
      1.66723 [0 2] [0.66557 0.36659]

    Source:
      The statistics are those of `softmax_statistics`.

    See also:
      `softmax_statistics` without a loss, `softmax_cross_entropy_sums` for what a
      training loop logs.
    """
    if not callable(loss):
        raise TypeError(
            "with_statistics: expected a loss, such as jxent.softmax_cross_entropy, "
            f"got {shown(loss)}. Its arguments follow: "
            "with_statistics(loss)(*arguments)."
        )

    @functools.wraps(loss)
    def both(
        *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> tuple[Array, SoftmaxStatistics]:
        with _asked_for(True):
            result: Any = loss(*args, **kwargs)
        if not isinstance(result, LossWithStatistics):
            name = getattr(loss, "__name__", shown(loss))
            _refuse(f"{name}, which returns something else")
        return result.loss, result.statistics

    return both


def _refuse(came: str) -> NoReturn:
    raise TypeError(
        "with_statistics: expected a function that returns one loss of one softmax, "
        f"got {came}. Call it with the loss itself, loss, rows = "
        "jxent.with_statistics(jxent.softmax_cross_entropy)(logits, labels); "
        "jxent.softmax_statistics(logits) gives the statistics of any logits."
    )


class LossWithStatistics(NamedTuple):
    """What a loss returns inside of `with_statistics`; no arithmetic is defined."""

    loss: Array
    statistics: SoftmaxStatistics

    def _no_number(self, *others: Any) -> Any:
        _refuse("one that computes with a loss")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _no_number
    __truediv__ = __rtruediv__ = __neg__ = __jax_array__ = _no_number


class LossAndStatistics(Result):
    reduces = True

    def statistics(self, function: str, classes: Size) -> tuple[Statistic, ...]:
        return ENTROPY_AND_ARGMAX

    def of(self, problem: Problem) -> LossWithStatistics:
        loss, unreduced = reduced_loss(problem)
        statistics = zero_where_dropped(unreduced.statistics, problem.resolved)
        return LossWithStatistics(loss=loss, statistics=statistics)


_LOSS_AND_STATISTICS = LossAndStatistics()


def result_of_loss(function: str, label: Given) -> Result:
    """What a loss returns: itself alone, but for the inside of `with_statistics`."""
    if not _asked_for.value:
        return LOSS
    if label.more_logits:
        _refuse(f"{function}, whose rows have two")
    if not label.one_softmax:
        _refuse(f"{function}, whose rows have none")
    return _LOSS_AND_STATISTICS
