"""Σ_c w_c (z_c − shift) and the mass Σ_c w_c, for weights w of the classes.

moved to a larger shift:  sum + step · mass,   step = shift − new shift
tangents:                 Σ w dz + Σ dw (z − shift)   and   Σ dw
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import over_rows, select, sharded_like
from .._compute.times import finite_slope, times
from .._problem.bundles import Maybe
from .statistic import Block, Classes, Move, Point, Statistic, relative


class WeightedSum(NamedTuple):
    sum: Any
    mass: Any


class Weighted(Statistic[WeightedSum]):
    """A subclass gives the weights: of the logits' shape, or (classes,)."""

    def of_block(self, block: Block, given: Array) -> WeightedSum:
        axis, z, shift = block.axis, block.z, block.shift
        shared = given.ndim == 1
        full = over_rows(given, axis, z) if shared else given
        mass = _mass_of(axis, given, shift) if shared else given
        return WeightedSum(sum=times(full, relative(z, shift, axis)), mass=mass)

    def of_class(self, classes: Classes, given: Array) -> WeightedSum:
        zero = classes.zero
        full = over_rows(given, classes.axis, zero) if given.ndim == 1 else given
        return WeightedSum(sum=zero, mass=lax.add(zero, full))

    def rescaled(self, state: WeightedSum, move: Move) -> WeightedSum:
        no_mass = lax.eq(state.mass, lax.full_like(state.mass, 0))
        moved = state.sum + lax.mul(state.mass, move.step)
        moved = select(lax.bitwise_or(move.possible, no_mass), moved, -jnp.inf)
        return state._replace(sum=moved)

    def tangent(self, at: Point, given: Array, moved: Maybe, state: Any) -> WeightedSum:
        def full(w: Maybe) -> Maybe:
            return over_rows(w, at.axis, at.z) if w is not None and w.ndim == 1 else w

        slope = None if moved is None else finite_slope(at.rel)
        return WeightedSum(
            sum=at.sum((full(given), at.dz), (full(moved), slope)),
            mass=None if moved is None else _mass_of(at.axis, moved, at.poison),
        )


def _mass_of(axis: int, w: Array, rows: Array) -> Array:
    """Σ_c w_c, of the shape of `rows`; w is (classes,), or of the logits' shape."""
    if w.ndim == 1 and rows.ndim != 0:
        total = lax.reduce_sum(w, (0,))
        return sharded_like(lax.broadcast(total, rows.shape), rows)
    return lax.reduce_sum(w, (axis if w.ndim > 1 else 0,))
