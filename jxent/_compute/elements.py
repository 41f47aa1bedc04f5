"""Functions of each element, and formulas of arrays with many short rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import Shape, is_split, zeros_of
from .apart import constant, unseen
from .platform import by_platform


def sign(x: Array) -> Array:
    """−1, 0 or 1. A CPU forms `lax.sign` number by number."""
    huge, one = (lax.full_like(x, value) for value in (jnp.finfo(x.dtype).max, 1))
    return lax.clamp(lax.neg(one), lax.mul(huge, x), one)


def rounded(x: Array) -> Array:
    """`x`, which is not negative: a product that is rounded before it is subtracted."""
    return jnp.maximum(constant(0.0, x), x)


def _have_many_short_rows(*arrays: Array) -> bool:
    """Whether the last two axes of all can be one, where a loop over the last is slow.

    XLA on a CPU forms each step of a formula row by row.
    """
    shape = arrays[0].shape
    if len(shape) < 2 or not all(isinstance(n, int) for n in shape):
        return False
    alike = all(x.shape == shape and not is_split(x) for x in arrays)
    return alike and shape[-1] < 128 and arrays[0].size > 2**15


def element_by_element(
    function: Callable[..., Array], *arguments: Any, shape: Shape | None = None
) -> Array:
    """A function of arrays element by element; on a CPU many short rows are one.

    `shape` is that of the result, if it is not the arrays' own.
    """
    arrays = [x for x in jax.tree.leaves(arguments) if x.ndim]
    if not arrays or not _have_many_short_rows(*arrays):
        return function(*arguments)
    shape = arrays[0].shape if shape is None else shape
    # Without the barrier XLA would move the reshape behind the function.
    held = lambda x: unseen(x.reshape(-1)) if x.ndim else x

    def merged(*arguments: Any) -> Array:
        return function(*jax.tree.map(held, arguments)).reshape(shape)

    return by_platform(*arguments, cpu=merged, default=function)


def apart_on_a_line(slope: Callable[..., Array]) -> Callable[..., Array]:
    """`slope`, of arrays of one axis in a branch by itself.

    Where these are merged rows, XLA on a CPU would form it row by row, with the reshape
    of the gradient. `unseen` does not keep them apart.
    """

    def apart(*arguments: Any) -> Array:
        nothing = lambda *arguments: zeros_of(slope, *arguments)
        always = unseen(jnp.array(True))
        return lax.cond(always, slope, nothing, *arguments)

    def function(z: Array, *more: Any) -> Array:
        if z.ndim != 1:
            return slope(z, *more)
        return by_platform(z, *more, cpu=apart, default=slope)

    return function
