"""Loops over tiles of rows, and what their derivatives are made of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import vary, varying


def zeros_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Zeros for what the function returns, varying over a mesh as that does."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    leaves = [
        vary(jnp.zeros(kind.shape, kind.dtype), varying(kind))
        for kind in traced.out_avals
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def over_tiles(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    rows: Any,
    tile: int,
    live: Array | None = None,
    *,
    remember: bool = True,
) -> tuple[Any, Any]:
    """`step(carry, tile) -> (carry, per-row results)` over tiles of `rows`, in order.

    Tiles without a live row are skipped when the program runs: their results are 0. The
    last tile may be smaller than the others. What does not remember its intermediate
    results forms them again for its derivative.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    full = count // tile * tile

    def guarded(carry: Any, here: tuple[Any, Array | None]) -> tuple[Any, Any]:
        part, alive = here
        if alive is None:
            return step(carry, part)
        _, nothing = zeros_of(step, carry, part)
        return lax.cond(
            jnp.any(alive), step, lambda carry, _: (carry, nothing), carry, part
        )

    if not remember:  # around the condition too, which has residuals of its own
        guarded = jax.checkpoint(guarded, prevent_cse=False)
    parts = []
    if full:
        stacked = jax.tree.map(
            lambda x: x[:full].reshape(full // tile, tile, *x.shape[1:]), (rows, live)
        )
        if full == tile:
            carry, one = guarded(carry, jax.tree.map(lambda x: x[0], stacked))
            parts.append(one)
        else:
            carry, many = lax.scan(guarded, carry, stacked)
            parts.append(jax.tree.map(lambda x: x.reshape(full, *x.shape[2:]), many))
    if full < count or not count:
        rest = jax.tree.map(lambda x: x[full:], (rows, live))
        carry, one = guarded(carry, rest)
        parts.append(one)
    return carry, jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)


def live_first(rows: Any, live: Array) -> tuple[Any, Array, Array]:
    """Rows with the live ones in front, which of them live, and the way back."""
    order = jnp.argsort(~live, stable=True)
    rows = jax.tree.map(lambda x: jnp.take(x, order, 0, unique_indices=True), rows)
    return rows, live[order], jnp.argsort(order)


def along(slopes: dict[Any, Array], dots: dict[Any, Array], value: Array) -> Array:
    """⟨slopes, dots⟩, the tangent of `value`: summed over devices where that is."""
    parts: dict[tuple[str, ...], Array] = {}
    for i, slope in slopes.items():
        part = jnp.sum(slope * dots[i].astype(slope.dtype)).astype(value.dtype)
        names = tuple(sorted(varying(part) - varying(value)))
        parts[names] = parts[names] + part if names in parts else part
    total = jnp.zeros_like(value)
    for names, part in parts.items():
        total = total + (lax.psum(part, names) if names else part)
    return total
