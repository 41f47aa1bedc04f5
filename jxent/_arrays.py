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


def is_split(x: Array | jax.ShapeDtypeStruct) -> bool:
    """Whether explicit axes of a mesh split an array, by its type."""
    if isinstance(x, jax.ShapeDtypeStruct):  # logits that are never formed
        return False
    return any(names is not None for names in jax.typeof(x).sharding.spec)


def spread(x: Array, like: Array | jax.ShapeDtypeStruct) -> Array:
    """`x`, of the rank of `like`, ready for a select beside it."""
    if not is_split(like):
        return x
    full = jnp.broadcast_to(x, like.shape)
    return jax.sharding.reshard(full, jax.typeof(like).sharding)


def spread_rows(x: Array, like: Array | jax.ShapeDtypeStruct, axis: int) -> Array:
    """`x`, of the rows of `like`, split as these are: all but `axis`."""
    if not is_split(like):
        return x
    sharding: Any = jax.typeof(like).sharding
    spec = tuple(sharding.spec)
    rows = PartitionSpec(*spec[:axis], *spec[axis + 1 :])
    shape = like.shape[:axis] + like.shape[axis + 1 :]
    full = jnp.broadcast_to(x, shape)
    return jax.sharding.reshard(full, NamedSharding(sharding.mesh, rows))


def moves(dot: Any) -> bool:
    """Whether a tangent may be other than zero: not by its kind."""
    symbolic = isinstance(dot, jax.custom_derivatives.SymbolicZero)
    return dot is not None and not symbolic and dot.dtype != jax.dtypes.float0


def varying(x: Any) -> frozenset[str]:
    """The mesh axes of an enclosing `shard_map` along which an array (type) differs."""
    kind: Any = jax.typeof(x) if isinstance(x, Array) else x
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset(kind.vma if manual is None else manual.varying)


def varying_of(tree: Any) -> frozenset[str]:
    """The mesh axes along which any array of a tree differs."""
    return frozenset().union(*map(varying, jax.tree.leaves(tree)))


def vary(tree: Any, names: frozenset[str]) -> Any:
    """Arrays that may differ along these axes, whether or not they do.

    For the operands of a loop, so that the sums over devices that JAX puts into its
    derivative stand outside of it.
    """

    def one(x: Array) -> Array:
        missing = tuple(sorted(names - varying(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(one, tree)


def masked(x: Array, where: Array, fill: jax.typing.ArrayLike = 0) -> Array:
    """`x` where `where` holds, else `fill`, with gradient 0 there."""
    return jnp.where(spread(where, x), x, jnp.full_like(x, fill))


def rows_to_classes(x: Array, axis: int) -> Array:
    """Rows with an axis of size 1 in the classes' place."""
    return lax.expand_dims(x, (axis,))


def along_classes(x: Array, axis: int, ndim: int) -> Array:
    """A vector over classes, shaped to meet logits of rank `ndim`."""
    return lax.expand_dims(x, tuple(a for a in range(ndim) if a != axis))
