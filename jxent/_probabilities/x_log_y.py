"""−x log y with 0 log 0 = 0, and its slopes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._reduction import times


# −x log y, with 0 log 0 = 0. The slope in y is −x/y, which is 0 where x is 0, at y = 0
# too; the slope in x is −log y, at y = 0 the largest finite number (see times).
@jax.custom_jvp
def minus_x_log_y(x: Array, y: Array) -> Array:
    return times(x, -jnp.log(y))


@minus_x_log_y.defjvp
def _minus_x_log_y_jvp(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    largest = jnp.finfo(y.dtype).max
    nothing = (x == 0) & (y == 0)
    slope = jnp.where(nothing, jnp.zeros_like(x), x / jnp.where(nothing, x + 1, y))
    return minus_x_log_y(x, y), jnp.minimum(-jnp.log(y), largest) * dx - slope * dy


# The same for y = 1 − p, where log(1 − p) keeps what 1 − p would round away.
@jax.custom_jvp
def minus_x_log_1_minus(x: Array, p: Array) -> Array:
    return times(x, -jnp.log1p(-p))


@minus_x_log_1_minus.defjvp
def _minus_x_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (x, p), (dx, dp) = primals, tangents
    largest = jnp.finfo(p.dtype).max
    nothing = (x == 0) & (p == 1)
    slope = jnp.where(nothing, jnp.zeros_like(x), x / jnp.where(nothing, p, 1 - p))
    value = minus_x_log_1_minus(x, p)
    return value, jnp.minimum(-jnp.log1p(-p), largest) * dx + slope * dp
