"""Loops over tiles of rows, and over blocks of classes or rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import zeros_of
from .._compute.apart import unseen


def over_blocks(
    step: Callable[[Any, Array | int, int], Any], carry: Any, total: int, block: int
) -> Any:
    """`step(carry, start, size) -> carry` over blocks of `total` classes, or rows.

    The last one may be smaller: nothing is padded.
    """
    full = total // block
    if full > 1:
        starts = jnp.arange(full, dtype=jnp.int32) * block
        carry, _ = lax.scan(lambda c, s: (step(c, s, block), None), carry, starts)
    elif full:
        carry = step(carry, 0, block)
    if total % block:
        # Were it a constant, XLA would pad the last block's gradient to all classes and
        # add whole arrays, where it updates the sum of the others in place.
        start = unseen(jnp.int32(full * block))
        carry = step(carry, start, total % block)
    return carry


def over_tiles(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    rows: Any,
    tile: Any,  # an int, or the symbolic count of all rows
    live: Array | None = None,
    *,
    remember: bool = True,
) -> tuple[Any, Any]:
    """`step(carry, tile) -> (carry, per-row results)` over tiles of `rows`, in order.

    Tiles without a live row are skipped when the program runs: their results are 0. The
    last tile may be smaller than the others. With `remember=False` each tile is
    checkpointed: its derivative computes the intermediate results again.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    # JAX keeps its trace: the one that shows the shapes of results is the loop's, too.
    step = jax.jit(step, inline=True)

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
    if count == tile:  # a symbolic count, too
        return guarded(carry, (rows, live))
    full, parts = count // tile * tile, []
    if full:
        stacked = jax.tree.map(
            lambda x: x[:full].reshape(full // tile, tile, *x.shape[1:]), (rows, live)
        )
        carry, many = lax.scan(guarded, carry, stacked)
        parts.append(jax.tree.map(lambda x: x.reshape(full, *x.shape[2:]), many))
    if full < count or not count:
        rest = jax.tree.map(lambda x: x[full:], (rows, live))
        carry, one = guarded(carry, rest)
        parts.append(one)
    return carry, jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)


def first_tile(rows: Any, tile: Any) -> Any:
    """The first tile of rows, for uses that need only its shapes."""
    count = jax.tree.leaves(rows)[0].shape[0]
    return rows if count == tile else jax.tree.map(lambda x: x[:tile], rows)


def live_first(
    rows: Any, live: Array | None
) -> tuple[Any, Array | None, Callable[[Any], Any]]:
    """Moves live rows to the front.

    Returns the rows, the mask in their new order, and a function that takes results of
    rows back to the old one. All are unchanged if `live` is None.
    """
    if live is None:
        return rows, None, lambda results: results
    order = jnp.argsort(~live, stable=True)

    def take(tree: Any, order: Array) -> Any:
        return jax.tree.map(lambda x: jnp.take(x, order, 0, unique_indices=True), tree)

    back = jnp.argsort(order)
    return take(rows, order), live[order], lambda results: take(results, back)
