"""Arrays and numbers of which XLA does not see where they come from."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._arrays import like_moving, moving_of, replaced
from .platform import by_platform


def held_apart(tree: Any, *platforms: str) -> Any:
    """The same arrays; on a CPU, or the platforms named, XLA does not see where they
    come from.

    It would store what is made of them for several uses: a value and its derivative.
    """
    platforms = platforms or ("cpu",)
    held = functools.partial(jax.tree.map, unseen)
    return by_platform(tree, default=lambda x: x, **dict.fromkeys(platforms, held))


def unseen(tree: Any) -> Any:
    """The same arrays, known together; no compiler sees where they come from, nor
    that they are constants."""
    return lax.optimization_barrier(tree)


def tangent_held_apart(
    function: Callable[..., Any], primals: Any, tangents: Any, *platforms: str
) -> Any:
    """The tangent of `function`, which shares nothing with its value there."""
    moving, held = moving_of(tangents), held_apart(primals, *platforms)
    along = lambda given: function(*replaced(held, given))
    return jax.jvp(along, (like_moving(moving, held),), (moving,))[1]


def constant(value: float, x: Float[Array, "..."]) -> Float[Array, ""]:
    """A number beside `x` that XLA does not know to be a constant.

    In a minimum or maximum it stands first: of NaN and a number XLA on a CPU gives the
    second in what it sums, and moves to that place what it knows to be a constant. One
    that several sums share it would store. Of a product with two constants it would
    multiply these first, which may be infinite.
    """
    return unseen(jnp.asarray(value, x.dtype))
