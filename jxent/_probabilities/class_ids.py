"""Cross-entropy of probabilities with class ids: of the label's probability alone."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    cast,
    is_split,
    over_classes,
    select,
    sum_over_devices,
)
from .._problem.bad_labels import reported
from .._problem.bundles import Maybe
from .._problem.ids import at_label, at_label_here, first_class, ids_from, is_label
from .._problem.problem import Problem
from .._problem.resolved import is_class
from .x_log_y import minus_x_log_y


def one_of_ids(problem: Problem, dtype: Any) -> Array:
    """1 in each row, (rows,), and NaN where the id names no class."""
    ids = problem.resolved.ids
    assert ids is not None
    one = lax.full_like(ids, 1, dtype=dtype)
    return reported(select(is_class(ids), one, jnp.nan), problem)


def one_hot(problem: Problem, one: Array, like: Array) -> Array:
    """`one` at each row's class, 0 elsewhere; in the whole row where it is NaN."""
    ids, axis = problem.resolved.ids, problem.axis
    assert ids is not None
    here = ids_from(ids, first_class(problem))
    bad = over_classes(lax.bitwise_not(is_class(ids)), axis, like)
    picked = lax.bitwise_or(is_label(here, axis, like), bad)
    return select(picked, over_classes(one, axis, like))


def _label_prob(problem: Problem, probs: Array) -> Array:
    """The probability of each row's class id, (rows,).

    For an id that names no class it is NaN, and so is the gradient of the whole row.
    """
    ids, names = problem.resolved.ids, problem.settings.class_axis_name
    assert ids is not None
    good = is_class(ids)

    def of_good(p: Array) -> Array:
        return at_label_here(problem, p, ids)

    # A sum over all classes, so that all of a bad row's gradient is NaN. The others'
    # factor is 0, since NaN times their cotangent of 0 would be NaN.
    def of_all(p: Array) -> Array:
        nan = lax.full_like(ids, jnp.nan, dtype=p.dtype)
        total = lax.reduce_sum(p, (problem.axis,))
        spoiled = lax.mul(select(~good, nan), total)
        return lax.add(of_good(p), select(~good, spoiled))

    def on_cpu(p: Array) -> Array:
        every = lax.reduce_and(good, tuple(range(good.ndim)))
        return lax.cond(every, of_good, of_all, p)

    if is_split(probs):
        p = of_all(probs)
    else:
        p = lax.platform_dependent(probs, cpu=on_cpu, default=of_all)
    return reported(sum_over_devices(cast(p, problem.dtype), names), problem)


def class_weight(problem: Problem) -> Maybe:
    """The class weight of each row's id, (rows,); 1 where that names no class."""
    weights, ids = problem.shared.class_weights, problem.resolved.ids
    if weights is None:
        return None
    assert ids is not None
    return select(is_class(ids), at_label(problem, weights, ids), 1)


def losses_of_ids(problem: Problem, probs: Array) -> tuple[Array, Maybe]:
    """The losses, and the class weights in them.

    One logarithm a row, of the label's probability alone: the gradient of the other
    classes must not meet its derivative, which may be infinite.
    """
    p, weighted = _label_prob(problem, probs), problem.resolved.weighted
    if weighted is not None:  # whatever a dropped row holds
        p = select(weighted | (lax.is_finite(p) & (p > 0)), p, 1)
    factor = class_weight(problem)
    return minus_x_log_y(lax.full_like(p, 1) if factor is None else factor, p), factor
