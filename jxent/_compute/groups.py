"""Rows in groups that fit a CPU's cache.

XLA on a CPU stores what it selects, casts, or uses twice, before it sums it. In a group
that costs little: what is stored stays in the cache. So a formula may be written as
mathematics, and no sum needs a form of its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._arrays import Shaped, is_split, vary, varying, zeros_of
from .chunks import are_short
from .reading import block_along


SIZE = 2**19  # of a group, in numbers: 2 MiB of float32
SHARE = 32  # a group is at most this part of all logits
LEAST = 2**17  # numbers that are cut in groups: fewer are in the cache as they are


def rows_of_a_group(like: Shaped, axis: int) -> int:
    """How many rows of logits (rows, …, classes) are a group; 0 for all of them."""
    classes = like.shape[-1]
    known = all(isinstance(n, int) for n in like.shape)
    if not known or is_split(like) or are_short(like, axis) or like.size < LEAST:
        return 0
    count = like.size // classes
    size = max(min(SIZE // classes, count // SHARE), 2)
    return size if count >= 2 * size else 0


def over_groups(of_rows: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """`of_rows(rows)` of a tree of arrays (rows, …): a tree of arrays (rows, …), `size`
    rows at a time.

    The last group has rows of the one before, too, where `size` does not divide them.
    """
    count = jax.tree.leaves(rows)[0].shape[0]

    def at(start: Any) -> Any:
        return of_rows(jax.tree.map(lambda x: block_along(x, start, size, 0), rows))

    def step(results: Any, index: Any) -> Any:
        start = lax.min(index * size, jnp.int32(count - size))
        return jax.tree.map(
            lambda all_rows, here: lax.dynamic_update_slice_in_dim(
                all_rows, here, start, 0
            ),
            results,
            at(start),
        ), None

    nothing = zeros_of(lambda: at(jnp.int32(0)))
    results = jax.tree.map(
        lambda x: vary(jnp.zeros((count, *x.shape[1:]), x.dtype), varying(x)), nothing
    )
    return lax.scan(step, results, jnp.arange(-(-count // size), dtype=jnp.int32))[0]
