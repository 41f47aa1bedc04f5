"""From a call to its result: `solve` goes through each part once."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer

from .._arrays import Shape, row_shape, select, sum_over_devices
from .._compute.platform import platform_of
from .._layouts.mesh import like_logits_on_mesh, of_parts, on_devices
from .._layouts.tiled import tiled_total
from .._linear_logits import LinearLogits
from .._problem.bundles import Maybe
from .._problem.problem import HeadSharding, Problem, one_axis_of_rows
from .._problem.resolve import resolve, with_full_rows
from .._problem.resolved import Resolved, both
from .._reduction import weighed
from .._statistics.inputs import with_logits
from .._targets.given import Given
from .call import STATIC_OPTIONS, Formula, RowOptions, Scores, asked
from .layout import planned_problem
from .results import Result
from .with_statistics import result_of_loss


def solution(
    function: str,
    logits: Scores,
    label: Given,
    rows: RowOptions,
    *,
    formula: Formula | None = None,
    result: Result | None = None,
) -> Any:
    """The result of a call: what every loss and statistic of logits returns."""
    known = asked(logits, label, rows)
    arrays = {name: known.pop(name) for name in known.keys() - STATIC_OPTIONS}
    known["result"] = result_of_loss(function, label) if result is None else result
    static = tuple(known.items())
    names = function, type(label), static
    operands = logits.logits, label.operands, formula, arrays
    several = logits.logits, *label.more_logits.values()
    heads = [x for x in several if isinstance(x, LinearLogits)]
    # Where the arrays lie is not seen once they are traced.
    platform = platform_of(operands) if heads else None
    key = platform, *map(_key, (*known.values(), *several))
    if _is_hashable((key, names)) and _are_arrays(jax.tree.leaves(operands)):
        return _checked_once(key, names, operands)
    return _solution(key, names, operands)


def _key(x: Any) -> Any:
    """What is no array in `x`, with its types: 1 is equal to True, and to 1.0."""
    if isinstance(x, tuple):
        return (type(x), *map(_key, x))
    if dataclasses.is_dataclass(x):
        fields = dataclasses.fields(x)
        return (type(x), *(_key(getattr(x, field.name)) for field in fields))
    return type(x), None if isinstance(x, Array) else x


def _is_hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True


def _are_arrays(leaves: list[Any]) -> bool:
    """Whether all are arrays of JAX, outside of any transformation."""
    return all(isinstance(x, Array) and not isinstance(x, Tracer) for x in leaves)


def _solution(key: Any, names: tuple[Any, ...], operands: tuple[Any, ...]) -> Any:
    function, kind, static = names
    logits, labels, formula, arrays = operands
    options = dict(static) | arrays
    options["platform"] = key[0]
    label = kind(*labels)
    problem = planned_problem(function, logits, label, formula=formula, **options)
    return solve(problem)


# The checks of a call take longer than a small loss. None reads an array of JAX, so a
# call of these alone is checked when it is traced: once for its shapes and names.
_checked_once = jax.jit(_solution, static_argnums=(0, 1))


def solve(problem: Problem) -> Any:
    """The result of a problem."""
    # JAX keeps the traces of jitted functions by the mesh in use, and names an empty
    # one where it traces derivatives: named here, value and derivative share theirs.
    with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
        return _result(problem)


@jax.jit
def _result(problem: Problem) -> Any:
    """The result, a tree of scalars or of arrays with the rows' axes of the caller."""
    settings, shape = problem.settings, None
    if problem.has_head:
        shape = problem.like.shape[:-1]
    problem = prepared(problem)
    if settings.implementation == "tiled":
        return _tiled(problem)
    result = settings.result.of(problem)
    return result if shape is None else _with_row_axes(problem.axis, result, shape)


def _tiled(problem: Problem) -> Array:
    """The loss as one number, from tiles of rows."""
    settings, shared = problem.settings, problem.shared
    if settings.reduction == "mean" and shared.normalizer is None:
        shared = shared._replace(normalizer=total_weight_of(problem))
    total = tiled_total(problem.replace(shared=shared))
    return sum_over_devices(total, settings.batch_axis_name)


def _with_row_axes(axes: int, tree: Any, shape: Shape) -> Any:
    """A tree of arrays with so many axes of rows as (*shape, …)."""
    return jax.tree.map(
        lambda x: x.reshape(*shape, *x.shape[axes:]) if x.ndim else x, tree
    )


def prepared(problem: Problem) -> Problem:
    """Prepares the problem for its layout, and resolves labels and masks.

    Rows of a head keep their axes where a mesh may split each of them. Else they become
    one axis: with several, XLA on a CPU keeps a second copy of the logits.
    """
    problem = with_full_rows(problem)
    if not problem.has_head:
        problem = like_logits_on_mesh(problem)
        return problem.replace(resolved=resolve(problem))
    problem = _with_full_class_where(problem)
    if problem.settings.sharding.mesh is None:
        pair = one_axis_of_rows(problem.pair, problem.like.shape[:-1])
        problem = problem.with_pair(pair).with_settings(axis=1)
    else:
        problem = on_devices(problem)
    problem = problem.replace(resolved=of_parts(_resolved, problem))
    problem = _without_dropped(problem)
    if problem.settings.implementation == "materialized":
        problem = with_logits(problem).with_settings(sharding=HeadSharding())
        problem = like_logits_on_mesh(problem)
    return problem


def _with_full_class_where(problem: Problem) -> Problem:
    """With `class_where` broadcast to all rows, its last axis excepted."""
    where = problem.rows.class_where
    if where is None:
        return problem
    where = jnp.broadcast_to(where, (*problem.like.shape[:-1], where.shape[-1]))
    return problem.replace(rows=problem.rows._replace(class_where=where))


def _resolved(problem: Problem) -> Resolved:
    """With every field broadcast to all rows."""
    shape = problem.like.shape[:-1]
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x, (*shape, *x.shape[len(shape) :])),
        resolve(problem),
    )


def _without_dropped(problem: Problem) -> Problem:
    """Sets the hidden states of dropped rows to 0: products would spread their NaN.

    A row of weight 0 stays, for the derivative in that weight, if it is finite, and so
    small that its products with a kernel and the kernel's tangents are, too.
    """

    def small(hidden: Array) -> Array:
        largest = float(jnp.finfo(problem.dtype).max) ** 0.5
        largest = min(largest, float(jnp.finfo(hidden.dtype).max))
        return jnp.all(lax.le(lax.abs(hidden), lax.full_like(hidden, largest)), -1)

    rows, resolved = problem.rows, problem.resolved
    keep: Maybe = resolved.keep
    if rows.weights is not None:
        assert resolved.weighted is not None
        states = [small(x.hidden) for x in rows.logits if x.hidden is not None]
        keep = both(keep, resolved.weighted | functools.reduce(lax.bitwise_and, states))
    if keep is None:
        return problem
    where = lax.expand_dims(keep, (keep.ndim,))
    logits = tuple(
        x if x.hidden is None else x._replace(hidden=select(where, x.hidden))
        for x in rows.logits
    )
    resolved = resolved._replace(keep=keep)
    return problem.replace(rows=rows._replace(logits=logits), resolved=resolved)


def total_weight_of(problem: Problem) -> Array:
    """Σ r over the rows of all devices, r everything that multiplies one."""
    factor, keep = problem.target.factor(problem), problem.resolved.keep
    if factor is None:
        shape, dtype = row_shape(problem.like.shape, problem.axis), problem.dtype
        # As `keep` is split over explicit axes, where there is one.
        ones = jnp.ones(shape, dtype)
        factor = ones if keep is None else lax.full_like(keep, 1, dtype)
    weight = jnp.sum(weighed(factor, keep, problem.rows.weights))
    return sum_over_devices(weight, problem.settings.batch_axis_name)
