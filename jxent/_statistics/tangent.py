"""The derivative of the statistics of a block: one linear function, whatever moves.

With e = exp(z − shift) and the other factor of each product held fixed at the point of
differentiation, and the shift a constant, the statistics are linear in z and in what
else they are given (see `tangent` of each):

    d sum = Σ e dz

`_statistics` below is that function of the tangents of the block's inputs, and the
inputs are a function of the pair (Rows, Shared). The jvp of both at the pair, along the
tangents of whatever moves, is the tangent: no field is named, so none can be forgotten.
JAX transposes it for reverse mode, into one elementwise pass over the logits, and
differentiates it again for higher orders, in e and in the fixed factors, too.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import moving_of, over_classes, select, vary, varying_of
from .._problem.bundles import Maybe
from .._problem.problem import Problem, Rows, Shared
from .inputs import Inputs, inputs_of_block
from .statistic import Point, exp_of_computed, origin, relative
from .totals import Totals, computed_rows


def tangent_of_block(
    problem: Problem, moving: tuple[Rows, Shared], first: Maybe, t: Totals
) -> Totals:
    """The tangents (rows,) of a block's totals, linear in those of the pair; None for
    what is constant.

    `moving` is the pair of tangents, None where nothing moves. `first` is the block's
    first class, None for 0, and `t` are the finished totals of all classes, whose
    maximum has no tangent.
    """
    # A row that may hold anything has no tangent.
    computed = computed_rows(problem.resolved, t)
    fixed = problem.resolved.weighted, computed, first, t

    def statistics_at(problem: Problem) -> Totals:
        inputs = inputs_of_block(problem, first, computed)
        return _statistics(problem.axis, inputs, fixed)

    return problem.along(moving, statistics_at)


def _moving(t: Totals) -> Totals:
    """The totals, None for what has no tangent."""
    constant: Any = None
    states = tuple(s.moving(x) for s, x in t.each())
    return dataclasses.replace(t, maximum=constant, states=states, flaw=None)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _statistics(axis: int, inputs: Inputs, fixed: Any) -> Totals:
    """The totals in `fixed`: the rule is their derivative in the inputs alone."""
    return vary(_moving(fixed[-1]), varying_of((inputs, fixed)))


@functools.partial(_statistics.defjvp, symbolic_zeros=True)
def _statistics_jvp(axis: int, primals: Any, tangents: Any) -> Any:
    inputs, fixed = primals
    t: Totals = fixed[-1]
    moved: Inputs = moving_of(tangents[0])
    at = _point(axis, inputs.z, moved.z, fixed)
    values = _statistics(axis, inputs, fixed)
    zeros = jax.tree.map(jax.custom_derivatives.zero_from_primal, values)
    states = tuple(
        s.tangent(at, given, dgiven, x)
        for s, given, dgiven, x in inputs.each(moved.given, t.states)
    )
    constant: Any = None
    total: Any = at.poisoned(at.sum((at.e, at.dz)))
    sums = Totals(statistics=t.statistics, maximum=constant, sum=total, states=states)
    return values, or_zeros(vary(sums, varying_of(primals)), zeros)


def or_zeros(tangents: Any, zeros: Any) -> Any:
    """The tangents, or zeros in place of a None, which may stand for a whole state."""
    return jax.tree.map(
        lambda x, zero: zero if x is None else x,
        tangents,
        zeros,
        is_leaf=lambda x: x is None,
    )


def _point(axis: int, z: Array, dz: Maybe, fixed: Any) -> Point:
    _, computed, first, t = fixed
    rel = relative(z, origin(t.maximum), axis)
    if computed is None:
        e = lax.exp(rel)
    else:
        where = over_classes(computed, axis, z)
        e, rel = exp_of_computed(rel, where), select(where, rel)
        dz = None if dz is None else select(where, dz)
    return Point(
        axis=axis,
        z=z,
        rel=rel,
        e=e,
        dz=dz,
        computed=computed,
        poison=_poison(fixed),
        first=first,
    )


def _poison(fixed: Any) -> Array:
    """NaN (rows,) where a row's statistics are, else 1; so e times it is NaN, too."""
    weighted, _, _, t = fixed
    good = t.computable
    if weighted is not None:
        good = lax.bitwise_or(good, lax.bitwise_not(weighted))
    for statistic, state in t.each():
        known = statistic.is_known(state)
        if known is not None:
            if known.ndim > good.ndim:
                known = lax.reduce_and(known, (known.ndim - 1,))
            good = lax.bitwise_and(good, known)
    return select(good, lax.full_like(t.sum, 1), jnp.nan)
