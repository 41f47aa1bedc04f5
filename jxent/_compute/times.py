"""Products in which 0 · ∞ is 0, and what keeps their derivatives so."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._arrays import broadcast_like, is_moving, select
from .apart import constant
from .slopes import with_slopes


def huge_of(x: Float[Array, "..."]) -> float:
    """√max of its dtype, 1.8e19 in float32"""
    return math.sqrt(jnp.finfo(x.dtype).max)


def finite_slope(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Clips ±∞ to ±√max, 1.8e19 in float32, so that 0 times it is 0 and not NaN.

    For derivatives that are truly infinite. A tangent of 0 in that direction then adds
    0, and the chain rule has room to multiply.
    """
    huge = lax.full_like(x, huge_of(x))
    infinite = lax.eq(lax.abs(x), lax.full_like(x, jnp.inf))
    return lax.select(infinite, lax.mul(lax.sign(x), huge), x)


def varying_near_0(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, with a derivative of 0 where |x| > √max, 1.8e19 in float32.

    For a factor that is constant there, beside a loss as large as x. The chain rule
    forms a multiple of that loss first, which may be infinite, and times the factor's
    slope of 0 would be NaN.
    """
    far = lax.gt(lax.abs(x), lax.full_like(x, huge_of(x)))
    return lax.select(far, lax.stop_gradient(x), x)


def times(factor: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """factor · x, where 0 times anything is 0: infinities and NaN too.

    What has no mass, or no weight, counts for nothing. The derivative in `factor` stays
    x even at factor = 0, and where x is finite so does the derivative of that. Either
    may have axes of size 1, or none, where the other is larger.
    """
    if factor.shape != x.shape:
        shape = jnp.broadcast_shapes(factor.shape, x.shape)
        full = x if x.shape == shape else factor
        factor, x = broadcast_like(factor, full), broadcast_like(x, full)
    return _times(factor, x)


@jax.custom_jvp
def _times(factor: Array, x: Array) -> Array:
    return select(lax.ne(factor, lax.full_like(factor, 0)), lax.mul(factor, x))


@functools.partial(_times.defjvp, symbolic_zeros=True)
def _times_jvp(primals: Any, tangents: Any) -> Any:
    (factor, x), (dfactor, dx) = primals, tangents
    counts = lax.ne(factor, lax.full_like(factor, 0))
    terms = []
    if is_moving(dfactor):
        terms.append(lax.mul(dfactor, _slope_in_factor(factor, x)))
    if is_moving(dx):
        known = lax.bitwise_or(counts, lax.is_finite(x))
        terms.append(select(known, lax.mul(factor, dx)))
    return _times(factor, x), functools.reduce(lax.add, terms)


def _slope_in_factor(factor: Array, x: Array) -> Array:
    counts = lax.ne(factor, lax.full_like(factor, 0))
    return select(lax.bitwise_or(counts, lax.eq(x, x)), finite_slope(x))


@with_slopes(_slope_in_factor, lambda factor, x: factor)
def times_loss(
    factor: Float[Array, "..."], x: Float[Array, "..."]
) -> Float[Array, "..."]:
    """`times` for x ≥ 0, which may be +∞ and where NaN stays NaN, of one shape.

    Without a select, whose result XLA on a CPU stores before it sums.
    """
    largest = constant(float(jnp.finfo(x.dtype).max), x)
    # Three times: the factor may be the least number that is not 0.
    infinite_or_0 = jnp.abs(factor) * largest * largest * largest
    return factor * jnp.minimum(infinite_or_0, x)  # in this order: see `constant`


def exp_times(x: Float[Array, "..."], y: Float[Array, "..."]) -> Array:
    """eˣ y, 0 where eˣ is 0, whatever y is there."""
    e = lax.exp(x)
    return lax.mul(e, select(lax.ne(e, lax.full_like(e, 0)), y))
