"""A batch as every metric reads it: checked once, resolved once, summed in one way."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import (
    broadcast_like,
    cast,
    compute_dtype,
    select,
    sharded_like,
)
from .._checks import ArrayLike, Axis
from .._layouts import prepared
from .._problem import (
    Problem,
    Resolved,
    Rows,
    Settings,
    Shared,
    both,
    class_ids,
    equal,
    logits_problem,
)
from .._reduction import combine, divided


# In place of an axis of classes: every logit is a row, and above 0 says yes.
NO_CLASSES = -1


class Batch(NamedTuple):
    """The rows of a batch and what follows from their labels and masks, inside jit."""

    settings: Settings
    rows: Rows
    shared: Shared
    resolved: Resolved

    @property
    def is_binary(self) -> bool:
        return self.settings.axis == NO_CLASSES

    @property
    def ids(self) -> Array:
        """int32 (rows,): the labels, NO_CLASS where bad, 0 where a row is dropped."""
        assert self.resolved.ids is not None
        return self.resolved.ids


# Outside of jit -----------------------------------------------------------------------


def metric_problem(
    function: str,
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore_index: ArrayLike | None,
    **asked: Any,
) -> Problem:
    """The checked arguments of a metric; with axis=() those of binary labels."""
    if isinstance(axis, tuple) and not axis:
        return _binary_problem(function, logits, labels, where, weights, ignore_index)
    x = _checks.as_array(function, "logits", logits)
    _no_predictions(function, x, labels)
    if x.ndim and not isinstance(axis, tuple | None):
        front = _checks.class_axis(function, "logits", x, axis)
        if isinstance(front, int) and x.shape[front] == 1:
            _checks.fail(
                function,
                f"expected at least two classes, got logits of shape {x.shape} with 1 "
                f"along axis {axis}. For one logit per binary label give axis=(), and "
                "logits and labels of one shape.",
            )
    return logits_problem(
        function,
        x,
        labels,
        axis,
        where,
        ids_only=True,
        weights=weights,
        ignore_index=ignore_index,
        **asked,
    )


def _no_predictions(function: str, x: Array, labels: ArrayLike) -> None:
    """Refuses predicted classes in place of logits."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return
    if x.shape == _checks.label_array(function, "labels", labels).shape:
        raise TypeError(
            f"{function}: expected floating logits, got dtype {x.dtype} and the shape "
            f"of the labels, {x.shape}. Of predicted classes in place of logits the "
            "accuracy is jnp.mean(predicted == labels)."
        )


def _binary_problem(
    function: str,
    logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore_index: ArrayLike | None,
) -> Problem:
    order = "logits, labels"
    x = _checks.as_array(function, "logits", logits)
    _no_predictions(function, x, labels)
    x = _checks.floating(function, "logits", x, beside=labels, order=order)
    y = _checks.label_array(function, "labels", labels)
    if y.ndim:
        _checks.same_shape(function, "logits", x, y)
    if jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"{function}: expected binary labels as booleans or as the integers 0 and "
            f"1, got dtype {y.dtype}. Compare them, labels > 0.5."
        )
    if y.dtype == jnp.bool_:
        y = y.astype(jnp.int32)
    index = _checks.ignorable(function, ignore_index, y, ids=True)
    if where is not None:
        where = _checks.boolean(function, "where", where)
        where = _checks.per_row(function, "where", where, x.shape, "the logits' shape")
    if weights is not None:
        dtype = compute_dtype(x)
        weights = _checks.real(function, "weights", weights, dtype, booleans=True)
        weights = _checks.per_row(
            function, "weights", weights, x.shape, "the logits' shape"
        )
    return Problem(
        settings=Settings(axis=NO_CLASSES, ids=True),
        rows=Rows(
            logits=x,
            labels=jnp.broadcast_to(y, x.shape),
            where=where,
            weights=weights,
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
    return _measured(measure, options, *problem, arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _measured(
    measure: Callable[..., Any],
    options: tuple[Hashable, ...],
    settings: Settings,
    rows: Rows,
    shared: Shared,
    arrays: tuple[Array, ...],
) -> Any:
    return measure(batch_of(settings, rows, shared), *options, *arrays)


# Inside -------------------------------------------------------------------------------


def batch_of(settings: Settings, rows: Rows, shared: Shared) -> Batch:
    if settings.axis == NO_CLASSES:
        return _binary_batch(settings, rows, shared)
    settings, rows, shared, resolved = prepared(settings, rows, shared)
    return Batch(settings=settings, rows=rows, shared=shared, resolved=resolved)


def _binary_batch(settings: Settings, rows: Rows, shared: Shared) -> Batch:
    assert rows.logits is not None
    assert rows.labels is not None
    z = cast(rows.logits, compute_dtype(rows.logits))
    labels = sharded_like(rows.labels, z)
    where, weights = (
        None if x is None else broadcast_like(x, z) for x in (rows.where, rows.weights)
    )
    keep = where
    if shared.ignore_index is not None:
        keep = both(keep, ~equal(labels, shared.ignore_index))
    weighted = keep if weights is None else both(keep, weights != 0)
    resolved = Resolved(
        ids=class_ids(labels, weighted, 2), keep=keep, weighted=weighted
    )
    if weighted is not None:
        z = select(weighted, z)
    rows = rows._replace(logits=z, labels=labels, where=where, weights=weights)
    return Batch(settings=settings, rows=rows, shared=shared, resolved=resolved)


def weighed(batch: Batch, x: Array) -> Array:
    """r · x (rows,), r what multiplies a row: exactly 0 where that is dropped."""
    return _combined(batch, x, "none")


def total(batch: Batch, x: Array) -> Array:
    """Σ r · x over the rows, those of all devices that `batch_axis_name` names."""
    return _combined(batch, x, "sum")


def _combined(batch: Batch, x: Array, reduction: str) -> Array:
    return combine(
        x,
        keep=batch.resolved.keep,
        weights=batch.rows.weights,
        reduction=reduction,
        normalizer=None,
        batch_axis_name=batch.settings.batch_axis_name,
    )


quotient = jax.jit(divided)  # of sums, outside of jit in one call
