"""−x log y with 0 log 0 = 0, and derivatives without NaN at y = 0, to every order.

    d(−x log y) = −log y dx − x/y dy        d(x/y) = 1/y dx − (x/y)/y dy

Both are infinite at y = 0 where x is not 0. A huge number stands for that (see
finite_slope), and the derivatives of the quotient are quotients again.

What is summed has no select: XLA on a CPU would store its result first.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import moving_of, select
from .._times import constant, finite_slope, huge_of, times_loss


@jax.custom_jvp
def quotient(x: Array, y: Array) -> Array:
    """x/y, finite at y = 0: 0 where x is 0, whatever y is, else a huge number."""
    return finite_slope(select(x != 0, x / y))


@quotient.defjvp
def _quotient_jvp(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    value = quotient(x, y)
    return value, quotient(jnp.ones_like(x), y) * dx - quotient(value, y) * dy


@jax.custom_jvp
def _share(x: Array, y: Array) -> Array:
    """x/y, finite at y = 0: x times a huge number. NaN for y < 0, as the loss is."""
    is_0 = 1 - jnp.ceil(jnp.sqrt(y))  # 1 at y = 0, elsewhere 0 or less
    # Not the number that a value is made of: XLA on a CPU would store what both have.
    largest = float(jnp.finfo(y.dtype).max) / 2
    x_over_y = _at_most(largest, x / jnp.maximum(y, is_0 / huge_of(y)))
    return jnp.maximum(constant(-largest, x), x_over_y)


@_share.defjvp
def _share_jvp(primals: Any, tangents: Any) -> Any:
    return _share(*primals), jax.jvp(quotient, primals, tangents)[1]


@jax.custom_jvp
def minus_x_log_x(x: Array) -> Array:
    return x * _at_most(jnp.finfo(x.dtype).max, -jnp.log(x))


@minus_x_log_x.defjvp
def _minus_x_log_x_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return minus_x_log_x(x), (_minus_log(x) - 1) * dx


@jax.custom_jvp
def minus_x_log_y(x: Array, y: Array) -> Array:
    return times_loss(x, -jnp.log(y))


@functools.partial(minus_x_log_y.defjvp, symbolic_zeros=True)
def _minus_x_log_y_jvp(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, moving_of(tangents)
    terms = []
    if dx is not None:
        terms.append(_minus_log(y) * dx)
    if dy is not None:
        terms.append(-_share(x, y) * dy)
    return minus_x_log_y(x, y), functools.reduce(jnp.add, terms)


@jax.custom_jvp
def _minus_log(y: Array) -> Array:
    return _at_most(huge_of(y), -jnp.log(y))


@_minus_log.defjvp
def _minus_log_jvp(primals: Any, tangents: Any) -> Any:
    (y,), (dy,) = primals, tangents
    return _minus_log(y), -quotient(jnp.ones_like(y), y) * dy


# The same for y = 1 − p, where log(1 − p) keeps what 1 − p would round away.
@jax.custom_jvp
def minus_x_log_1_minus(x: Array, p: Array) -> Array:
    return times_loss(x, -jnp.log1p(-p))


@functools.partial(minus_x_log_1_minus.defjvp, symbolic_zeros=True)
def _minus_x_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (x, p), (dx, dp) = primals, moving_of(tangents)
    terms = []
    if dx is not None:
        terms.append(_minus_log_1_minus(p) * dx)
    if dp is not None:
        terms.append(_share(x, 1 - p) * dp)
    return minus_x_log_1_minus(x, p), functools.reduce(jnp.add, terms)


@jax.custom_jvp
def _minus_log_1_minus(p: Array) -> Array:
    return _at_most(huge_of(p), -jnp.log1p(-p))


@_minus_log_1_minus.defjvp
def _minus_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (p,), (dp,) = primals, tangents
    return _minus_log_1_minus(p), quotient(jnp.ones_like(p), 1 - p) * dp


def _at_most(limit: Any, x: Array) -> Array:
    return jnp.minimum(constant(limit, x), x)
