"""Σ_c w_c (z_c − shift) and the mass Σ_c w_c, for weights w of the classes.

moved to a larger shift:  sum + step · mass,   step = shift − new shift
tangents:                 Σ w dz + Σ dw (z − shift)   and   Σ dw
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import is_split, over_rows, select, sharded_like
from .._chunks import sum_unstored, sums_of_both
from .._problem.bundles import Maybe
from .._times import finite_slope
from .statistic import (
    Block,
    Classes,
    Move,
    Point,
    Statistic,
    relative,
)


class WeightedSum(NamedTuple):
    sum: Any
    mass: Any


class Weighted(Statistic[WeightedSum]):
    """A subclass gives the weights: of the logits' shape, or (classes,)."""

    def of_block(self, block: Block, given: Array) -> WeightedSum:
        axis, z, shift = block.axis, block.z, block.shift
        total, mass = _weighted_sum(axis, z, given, shift, block.exempt)
        return WeightedSum(sum=total, mass=mass)

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


def _weighted_sum(
    axis: int, z: Array, w: Array, start: Array, exempt: Maybe
) -> tuple[Array, Array]:
    """Σ_c w_c (z_c − start) and Σ_c w_c, (rows,), without a temporary.

    z has the logits' shape, w that or (classes,); `start` and `exempt` are (rows,).

    For one w in all rows the product Σ_c w_c z_c − start · Σ_c w_c is the fastest form
    on a CPU, but where logits lie far from 0 it cancels, and its parts may overflow
    where the sum of the terms does not. It is kept where it is finite and no row loses
    more than two bits, which is so unless logits share a large offset; else the terms
    are formed one by one. `exempt` are rows that get no statistics; in others, those of
    weight 0 too, the derivatives in weights and smoothing see these sums.
    """

    def terms_and_weights() -> tuple[Array, Array]:
        # The barrier keeps XLA from storing z − start to share it with the exponents.
        full = over_rows(w, axis, z) if w.ndim == 1 else w
        rel = relative(z, lax.optimization_barrier(start), axis)
        # Of two finite logits the difference may be −∞, too.
        possible = lax.ne(rel, lax.full_like(rel, -jnp.inf))
        zero = lax.full_like(full, 0)
        lost = lax.select(lax.eq(full, zero), zero, lax.full_like(full, -jnp.inf))
        return lax.select(possible, lax.mul(rel, full), lost), full

    if w.ndim > 1 or is_split(z):
        return sums_of_both(axis, *terms_and_weights(), z)

    def one_by_one() -> Array:
        terms, _ = terms_and_weights()
        return sum_unstored(terms, axis)

    mass = _mass_of(axis, w, start)
    offset = lax.mul(start, mass)
    # Without a precision a GPU may round the factors to 10 bits.
    whole = lax.dot_general(
        z, w, (((axis,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    product = lax.sub(whole, offset)
    fine = lax.bitwise_and(lax.is_finite(whole), lax.is_finite(product))
    four = lax.full_like(product, 4)
    close = lax.le(lax.abs(offset), lax.mul(four, lax.abs(product)))
    fine = lax.bitwise_and(fine, close)
    if exempt is not None:
        fine = lax.bitwise_or(fine, exempt)
    every_row = lax.reduce_and(fine, range(fine.ndim))
    return lax.cond(every_row, lambda: product, one_by_one), mass
