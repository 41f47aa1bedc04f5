"""−x log y with 0 log 0 = 0, and derivatives without NaN at y = 0, to every order.

    d(−x log y) = −log y dx − x/y dy        d(x/y) = 1/y dx − (x/y)/y dy

Both are infinite at y = 0 where x is not 0. A huge number stands for that (see
finite_slope), and the derivatives of the quotient are quotients again.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import select
from .._times import finite_slope, times


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
def minus_x_log_y(x: Array, y: Array) -> Array:
    return times(x, 0 - jnp.log(y))  # 0 where y is 1, and not −0


@minus_x_log_y.defjvp
def _minus_x_log_y_jvp(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    return minus_x_log_y(x, y), _minus_log(y) * dx - quotient(x, y) * dy


@jax.custom_jvp
def _minus_log(y: Array) -> Array:
    return finite_slope(-jnp.log(y))


@_minus_log.defjvp
def _minus_log_jvp(primals: Any, tangents: Any) -> Any:
    (y,), (dy,) = primals, tangents
    return _minus_log(y), -quotient(jnp.ones_like(y), y) * dy


# The same for y = 1 − p, where log(1 − p) keeps what 1 − p would round away.
@jax.custom_jvp
def minus_x_log_1_minus(x: Array, p: Array) -> Array:
    return times(x, 0 - jnp.log1p(-p))


@minus_x_log_1_minus.defjvp
def _minus_x_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (x, p), (dx, dp) = primals, tangents
    value = minus_x_log_1_minus(x, p)
    return value, _minus_log_1_minus(p) * dx + quotient(x, 1 - p) * dp


@jax.custom_jvp
def _minus_log_1_minus(p: Array) -> Array:
    return finite_slope(-jnp.log1p(-p))


@_minus_log_1_minus.defjvp
def _minus_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (p,), (dp,) = primals, tangents
    return _minus_log_1_minus(p), quotient(jnp.ones_like(p), 1 - p) * dp
