"""Resolves masks, ignored labels and weights, once for each row, before statistics."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, over_rows, row_shape, select, sharded_like, sum_over_devices
from .._compute.chunks import count_along
from .bundles import Axes, Maybe, map_fields
from .ids import at_label
from .problem import Problem
from .resolved import NO_CLASS, Resolved, both


def with_full_rows(problem: Problem) -> Problem:
    """With the fields (rows,) broadcast to all rows.

    A `class_where` that is the same in all rows becomes a part of `class_mask`, and
    factors of classes that this excludes become 0, whatever they were.
    """
    like, axis, shared = problem.like, problem.axis, problem.shared
    shape = row_shape(like.shape, axis)

    def full(axes: Axes, x: Any) -> Any:
        return jnp.broadcast_to(x, shape) if axes.order == ("rows",) else x

    rows = map_fields(full, problem.rows)
    where = rows.class_where
    if where is not None and where.size == where.shape[axis]:
        classes = jnp.broadcast_to(where.reshape(-1), (like.shape[axis],))
        rows = rows._replace(class_where=None)
        shared = shared._replace(class_mask=both(shared.class_mask, classes))
    mask = shared.class_mask
    for name in ("class_weights", "pos_weight"):
        x = getattr(shared, name)
        if mask is not None and x is not None and x.ndim:
            shared = shared._replace(**{name: select(mask, x)})
    return problem.replace(rows=rows, shared=shared)


def resolve(problem: Problem) -> Resolved:
    """Resolves masks, ignored labels, weights of 0 and labels out of range."""
    rows, shared = problem.pair
    keep, classes = rows.where, None
    if rows.class_where is not None:
        possible = possible_classes(problem)
        assert possible is not None
        classes = count_along(problem.axis, possible)
    elif shared.class_mask is not None:
        classes = lax.reduce_sum(cast(shared.class_mask, jnp.int32), (0,))
    if classes is not None:
        classes = sum_over_devices(classes, problem.settings.class_axis_name)
        shape = row_shape(problem.like.shape, problem.axis)
        # A row without a possible class is dropped.
        keep = both(keep, jnp.broadcast_to(classes > 0, shape))
    keep = both(keep, problem.target.kept(shared))
    weighted = keep
    if rows.weights is not None:
        weighted = both(keep, rows.weights != 0)
    resolved = Resolved(keep=keep, weighted=weighted, classes=classes)
    return problem.target.resolve(problem.replace(resolved=resolved))


def possible_classes(problem: Problem) -> Maybe:
    """False where a class is masked, of the logits' shape; None for all."""
    mask, like = None, problem.like
    if problem.shared.class_mask is not None:
        mask = over_rows(problem.shared.class_mask, problem.axis, like)
    if problem.rows.class_where is not None:
        where = jnp.broadcast_to(problem.rows.class_where, like.shape)
        mask = both(mask, sharded_like(where, like))
    return mask


def class_factors(problem: Problem, where: Maybe, like: Array) -> Maybe:
    """The class weights in every row of `like`, 0 where `where` of its shape is False:
    no product may meet what stands there."""
    weights = problem.shared.class_weights
    if weights is None:
        return None
    weights = over_rows(weights, problem.axis, like)
    return weights if where is None else select(where, weights)


def without_masked(problem: Problem, ids: Array, weighted: Maybe) -> Array:
    """The ids, with NO_CLASS for a label on a masked class.

    `weighted` is of the ids' shape. Where it is False, as for ids that are padding,
    an id stays as it is.
    """
    allowed = None
    for mask in (problem.shared.class_mask, problem.rows.class_where):
        if mask is not None:
            if mask.ndim > 1:
                mask = jnp.broadcast_to(mask, problem.like.shape)
            found = at_label(problem, mask.astype(jnp.int32), ids) > 0
            allowed = both(allowed, found)
    if allowed is None:
        return ids
    if weighted is not None:
        allowed = lax.bitwise_or(allowed, lax.bitwise_not(weighted))
    return select(allowed, ids, NO_CLASS)
