"""−x log y with 0 log 0 = 0, and derivatives without NaN at y = 0, to every order.

    d(−x log y) = −log y dx − x/y dy        d(x/y) = 1/y dx − (x/y)/y dy

Both are infinite at y = 0 where x is not 0. A huge number stands for that (see
finite_slope), and the derivatives of the quotient are quotients again.

What is summed has no select: XLA on a CPU would store its result first.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from .._arrays import select
from .._compute.apart import constant
from .._compute.slopes import with_slopes
from .._compute.times import finite_slope, huge_of, times_loss


def _slope_of_quotient(x: Array, y: Array) -> Array:
    return quotient(jnp.ones_like(x), y)


def _slope_in_divisor(x: Array, y: Array) -> Array:
    return -quotient(quotient(x, y), y)


@with_slopes(_slope_of_quotient, _slope_in_divisor)
def quotient(x: Array, y: Array) -> Array:
    """x/y, finite at y = 0: 0 where x is 0, whatever y is, else a huge number."""
    return finite_slope(select(x != 0, x / y))


@with_slopes(_slope_of_quotient, _slope_in_divisor)
def _share(x: Array, y: Array) -> Array:
    """x/y, finite at y = 0: x times a huge number. NaN for y < 0, as the loss is."""
    is_0 = 1 - jnp.ceil(jnp.sqrt(y))  # 1 at y = 0, elsewhere 0 or less
    # Not the number that a value is made of: XLA on a CPU would store what both have.
    largest = float(jnp.finfo(y.dtype).max) / 2
    x_over_y = _at_most(largest, x / jnp.maximum(y, is_0 / huge_of(y)))
    return jnp.maximum(constant(-largest, x), x_over_y)


@with_slopes(lambda y: -quotient(jnp.ones_like(y), y))
def _minus_log(y: Array) -> Array:
    return _at_most(huge_of(y), -jnp.log(y))


@with_slopes(lambda x: _minus_log(x) - 1)
def minus_x_log_x(x: Array) -> Array:
    return x * _at_most(jnp.finfo(x.dtype).max, -jnp.log(x))


@with_slopes(lambda x, y: _minus_log(y), lambda x, y: -_share(x, y))
def minus_x_log_y(x: Array, y: Array) -> Array:
    return times_loss(x, -jnp.log(y))


# The same for y = 1 − p, where log(1 − p) keeps what 1 − p would round away.
@with_slopes(lambda p: quotient(jnp.ones_like(p), 1 - p))
def _minus_log_1_minus(p: Array) -> Array:
    return _at_most(huge_of(p), -jnp.log1p(-p))


@with_slopes(lambda x, p: _minus_log_1_minus(p), lambda x, p: _share(x, 1 - p))
def minus_x_log_1_minus(x: Array, p: Array) -> Array:
    return times_loss(x, -jnp.log1p(-p))


def _at_most(limit: Any, x: Array) -> Array:
    return jnp.minimum(constant(limit, x), x)
