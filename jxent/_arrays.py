"""Small tools on arrays: axes, selects, and arrays split over a mesh by their types.

With explicit axes JAX asks that the operands of a select be split alike, and refuses a
gather along a split axis. With automatic axes, inside `shard_map` and on one device the
types say nothing, and `spread` returns its argument.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec


def is_split(x: Array) -> bool:
    return any(names is not None for names in jax.typeof(x).sharding.spec)


def spread(x: Array, like: Array) -> Array:
    """`x`, of the rank of `like`, ready for a select beside it."""
    if not is_split(like):
        return x
    full = jnp.broadcast_to(x, like.shape)
    return jax.sharding.reshard(full, jax.typeof(like).sharding)


def spread_rows(x: Array, like: Array, axis: int) -> Array:
    """`x`, of the rows of `like`, split as these are: all but `axis`."""
    if not is_split(like):
        return x
    sharding: Any = jax.typeof(like).sharding
    spec = tuple(sharding.spec)
    rows = PartitionSpec(*spec[:axis], *spec[axis + 1 :])
    shape = like.shape[:axis] + like.shape[axis + 1 :]
    full = jnp.broadcast_to(x, shape)
    return jax.sharding.reshard(full, NamedSharding(sharding.mesh, rows))


def masked(x: Array, where: Array, fill: int | float = 0) -> Array:
    """`x` where `where` holds, else `fill`, with gradient 0 there."""
    return jnp.where(spread(where, x), x, jnp.full_like(x, fill))


def rows_to_classes(x: Array, axis: int) -> Array:
    """Rows with an axis of size 1 in the classes' place."""
    return lax.expand_dims(x, (axis,))


def along_classes(x: Array, axis: int, ndim: int) -> Array:
    """A vector over classes, shaped to meet logits of rank `ndim`."""
    return lax.expand_dims(x, tuple(a for a in range(ndim) if a != axis))
