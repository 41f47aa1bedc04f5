"""A batch as every metric reads it: checked once, resolved once, summed in one way."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import broadcast_like, cast, compute_dtype, select, sharded_like
from .._checks import ArrayLike
from .._linear_logits import LinearLogits, Logits
from .._problem.ids import class_ids, equal
from .._problem.problem import Problem, RowLogits, Rows, Settings, Shared
from .._problem.resolved import Resolved, both
from .._reduction import combine, divided
from .._solve.call import RowOptions, Scores, asked
from .._solve.layout import planned_problem
from .._solve.results import RowStatistics, WholeRows
from .._solve.solve import prepared
from .._statistics.statistic import Statistic
from .._targets.given import ClassIds
from .._targets.ids import Ids


# In place of an axis of classes: every logit is a row, and above 0 says yes.
NO_CLASSES = -1


def is_binary(batch: Problem) -> bool:
    return batch.axis == NO_CLASSES


def ids_of(batch: Problem) -> Array:
    """int32 (rows,): the labels, NO_CLASS where bad, 0 where a row is dropped."""
    assert batch.resolved.ids is not None
    return batch.resolved.ids


# Outside of jit -----------------------------------------------------------------------


def metric_problem(
    function: str,
    logits: Scores,
    label: ClassIds,
    rows: RowOptions,
    *,
    whole_logits: bool = False,
    ranks: bool = False,
    statistics: tuple[Statistic, ...] = (),
    statistics_of_head: tuple[Statistic, ...] = (),
) -> Problem:
    """The checked arguments of a metric; with axis=() those of binary labels.

    `whole_logits` cannot be LinearLogits. With `ranks` these have no statistics, but
    whole rows. `statistics` are what every row has beside its own, and
    `statistics_of_head` those of LinearLogits.
    """
    x, axis = logits.logits, logits.axis
    linear = isinstance(x, LinearLogits) and not whole_logits
    x = x if linear else _checks.as_array(function, "logits", x)
    if isinstance(axis, tuple) and not axis:
        _checks.without_classes(function, logits.of_classes(), x)
        return _binary_problem(function, x, label, rows)
    if isinstance(x, Array):
        _no_predictions(function, x, label.labels)
    if isinstance(x, Array) and x.ndim and not isinstance(axis, tuple | None):
        front = _checks.class_axis(function, "logits", x, axis)
        if isinstance(front, int) and x.shape[front] == 1:
            _checks.fail(
                function,
                f"expected at least two classes, got logits of shape {x.shape} with 1 "
                f"along axis {axis}. For one logit per binary label give axis=(), and "
                "logits and labels of one shape.",
            )
    more = statistics + (statistics_of_head if linear else ())
    result = WholeRows() if linear and ranks else RowStatistics(more=more)
    options = asked(logits, label, rows)
    return planned_problem(function, x, label, result=result, **options)


# What to do about predicted classes in place of logits.
_OF_PREDICTIONS = {
    "accuracy": (
        "Of predicted classes in place of logits the accuracy is "
        "jnp.mean(predicted == labels)."
    ),
    "confusion_matrix": (
        "Of predicted classes in place of logits it is "
        "jnp.zeros((classes, classes)).at[labels, predicted].add(1)."
    ),
}
_OF_PROBABILITIES = (
    "Predicted classes have no probabilities: give the logits that they came from."
)


def _no_predictions(function: str, x: Array, labels: ArrayLike) -> None:
    """Refuses predicted classes in place of logits."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return
    if x.shape == _checks.label_array(function, "labels", labels).shape:
        advice = _OF_PREDICTIONS.get(function.removesuffix("_sums"), _OF_PROBABILITIES)
        raise TypeError(
            f"{function}: expected floating logits, got dtype {x.dtype} and the shape "
            f"of the labels, {x.shape}. {advice}"
        )


def _binary_problem(
    function: str, logits: Logits, label: ClassIds, rows: RowOptions
) -> Problem:
    order = "logits, labels"
    x = _checks.as_array(function, "logits", logits)
    _no_predictions(function, x, label.labels)
    x = _checks.floating(function, "logits", x, beside=label.labels, order=order)
    y = _checks.label_array(function, "labels", label.labels)
    if y.ndim:
        _checks.same_shape(function, "logits", x, y)
    if jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"{function}: expected binary labels as booleans or as the integers 0 and "
            f"1, got dtype {y.dtype}. Compare them, labels > 0.5."
        )
    if y.dtype == jnp.bool_:
        y = y.astype(jnp.int32)
    index = _checks.ignorable(function, label.ignore_index, y, ids=True)
    shape, of = x.shape, "the logits' shape"
    names = _checks.bound_axis_names(
        function, "batch_axis_name", rows.batch_axis_name, x, y
    )
    return Problem(
        settings=Settings(axis=NO_CLASSES, batch_axis_name=names),
        rows=Rows(
            logits=(RowLogits(array=x),),
            target=Ids(labels=jnp.broadcast_to(y, shape)),
            where=_checks.mask_of_rows(function, rows.where, shape, of),
            weights=_checks.weights_of_rows(
                function, rows.weights, shape, compute_dtype(x), of
            ),
        ),
        shared=Shared(ignore_index=index),
    )


def measured(
    measure: Callable[..., Any],
    problem: Problem,
    *options: Hashable,
    arrays: tuple[Array, ...] = (),
) -> Any:
    """measure(batch, *options, *arrays), in one compiled call."""
    return _measured(measure, options, problem, arrays)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measured(
    measure: Callable[..., Any],
    options: tuple[Hashable, ...],
    problem: Problem,
    arrays: tuple[Array, ...],
) -> Any:
    return measure(batch_of(problem), *options, *arrays)


# Inside -------------------------------------------------------------------------------


def batch_of(problem: Problem) -> Problem:
    """The rows of a batch and what follows from their labels and masks."""
    return _binary_batch(problem) if is_binary(problem) else prepared(problem)


def _binary_batch(problem: Problem) -> Problem:
    rows, target, index = problem.rows, problem.target, problem.shared.ignore_index
    (logits,) = rows.logits
    assert logits.array is not None
    z = cast(logits.array, problem.dtype)
    labels = sharded_like(target.labels, z)
    where, weights = (
        None if x is None else broadcast_like(x, z) for x in (rows.where, rows.weights)
    )
    keep = where
    if index is not None:
        keep = both(keep, ~equal(labels, index))
    weighted = keep if weights is None else both(keep, weights != 0)
    resolved = Resolved(
        ids=class_ids(labels, weighted, 2), keep=keep, weighted=weighted
    )
    if weighted is not None:
        z = select(weighted, z)
    rows = rows._replace(
        logits=(RowLogits(array=z),),
        target=Ids(labels=labels),
        where=where,
        weights=weights,
    )
    return problem.replace(rows=rows, resolved=resolved)


def weighed_rows(batch: Problem, x: Array) -> Array:
    """r · x (rows,), r what multiplies a row: exactly 0 where that is dropped."""
    return _combined(batch, x, "none")


def total(batch: Problem, x: Array) -> Array:
    """Σ r · x over the rows, those of all devices that `batch_axis_name` names."""
    return _combined(batch, x, "sum")


def _combined(batch: Problem, x: Array, reduction: str) -> Array:
    return combine(
        x,
        keep=batch.resolved.keep,
        weights=batch.rows.weights,
        reduction=reduction,
        normalizer=None,
        batch_axis_name=batch.settings.batch_axis_name,
    )


quotient_of_sums = jax.jit(divided)  # of sums, outside of jit in one call
