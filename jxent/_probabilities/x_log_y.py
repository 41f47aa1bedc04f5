"""−x log y with 0 log 0 = 0, and its slopes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import masked
from .._reduction import finite_slope, times


# −x log y, with 0 log 0 = 0. The slope in y is −x/y, which is 0 where x is 0, at y = 0
# too; the slope in x is −log y, at y = 0 a huge number (see finite_slope).
@jax.custom_jvp
def minus_x_log_y(x: Array, y: Array) -> Array:
    return times(x, -jnp.log(y))


@minus_x_log_y.defjvp
def _minus_x_log_y_jvp(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    nothing = (x == 0) & (y == 0)
    slope = masked(x / jnp.where(nothing, x + 1, y), ~nothing)
    return minus_x_log_y(x, y), finite_slope(-jnp.log(y)) * dx - slope * dy


# The same for y = 1 − p, where log(1 − p) keeps what 1 − p would round away.
@jax.custom_jvp
def minus_x_log_1_minus(x: Array, p: Array) -> Array:
    return times(x, -jnp.log1p(-p))


@minus_x_log_1_minus.defjvp
def _minus_x_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (x, p), (dx, dp) = primals, tangents
    nothing = (x == 0) & (p == 1)
    slope = masked(x / jnp.where(nothing, p, 1 - p), ~nothing)
    value = minus_x_log_1_minus(x, p)
    return value, finite_slope(-jnp.log1p(-p)) * dx + slope * dp
