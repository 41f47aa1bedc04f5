"""Small tools on arrays: axes, selects, and arrays split over a mesh by their types.

With explicit axes JAX asks that the operands of a select be split alike, and refuses a
gather along a split axis. With automatic axes, inside `shard_map` and on one device the
types say nothing, and `sharded_like` returns its argument.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax


Tree = TypeVar("Tree")

# A size may be symbolic, as `jax.export` has it.
Size: TypeAlias = int | Any
Shape: TypeAlias = tuple[Size, ...]
# An array, or whatever JAX or a user has in its place in a tree like this one: a shape,
# a spec, an axis, None.
Leaf: TypeAlias = Any
# An array, or the shape and dtype of logits that are never formed.
Shaped: TypeAlias = Array | jax.ShapeDtypeStruct


def is_split(x: Shaped, axis: int | None = None) -> bool:
    """Whether explicit axes of a mesh split an array, or an axis of it, by its type."""
    sharding = _sharding_of(x)
    spec = () if sharding is None else sharding.spec
    parts = spec if axis is None else spec[axis:][:1]
    return any(names is not None for names in parts)


def _sharding_of(x: Shaped) -> Any:
    """The type of an array says it; logits that do not exist may say it, too."""
    absent = isinstance(x, jax.ShapeDtypeStruct)
    return x.sharding if absent else jax.typeof(x).sharding


def is_moving(tangent: Any) -> bool:
    """True unless the tangent is None, a symbolic zero, or has dtype float0."""
    symbolic = isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    return tangent is not None and not symbolic and tangent.dtype != jax.dtypes.float0


def _is_none(x: Any) -> bool:
    return x is None


def moving_of(tangents: Any) -> Any:
    """The same tree of tangents, None for symbolic zeros and for float0."""
    return jax.tree.map(lambda t: t if is_moving(t) else None, tangents)


def like_moving(moving: Any, tree: Any) -> Any:
    """The leaves of `tree` that have a tangent in `moving`, None for the others."""
    return jax.tree.map(
        lambda m, x: None if m is None else x, moving, tree, is_leaf=_is_none
    )


def replaced(tree: Any, values: Any) -> Any:
    """`tree` with the leaves that `values` has; None in it leaves the tree's own."""
    return jax.tree.map(
        lambda v, x: x if v is None else v, values, tree, is_leaf=_is_none
    )


def as_computed(tree: Any) -> Any:
    """Floating leaves in float32 or better, in which gradients are summed."""

    def one(x: Array) -> Array:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return cast(x, compute_dtype(x)) if floating else x

    return jax.tree.map(one, tree)


_FLOAT32, _FLOAT64 = jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)


def compute_dtype(*arrays: Any) -> jnp.dtype:
    """float32, or float64 where an input has it."""
    return _FLOAT64 if any(x.dtype == _FLOAT64 for x in arrays) else _FLOAT32


def row_shape(shape: Shape, axis: int) -> Shape:
    """The shape of the rows: that of the logits without their class axis."""
    return shape[:axis] + shape[axis + 1 :]


def cast(x: Array, dtype: Any) -> Array:
    return x if x.dtype == dtype else lax.convert_element_type(x, dtype)


def zeros_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Zeros for what the function returns, varying over a mesh as that does."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    leaves = [
        vary(jnp.zeros(kind.shape, kind.dtype), varying(kind))
        for kind in traced.out_avals
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


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


def sum_over_devices(tree: Tree, names: tuple[str, ...]) -> Tree:
    """The sum of each array over these bound mesh axes; the tree itself for none."""
    return lax.psum(tree, names) if names else tree


def count_over_devices(count: Size, names: tuple[str, ...]) -> Size:
    """The count of all devices along these bound mesh axes, `count` on each of them."""
    return count * lax.axis_size(names) if names else count


# lax primitives: jax.numpy's wrappers cost several times as much to trace.


def sharded_like(x: Array, like: Shaped) -> Array:
    """`x`, of the shape of `like`, with the explicit sharding of `like`."""
    if not is_split(like):
        return x
    return jax.sharding.reshard(x, _sharding_of(like))


def whole_along(x: Array, axis: int) -> Array:
    """`x` with an axis that no explicit mesh axis splits."""
    spec = [*_sharding_of(x).spec]
    if spec[axis] is None:
        return x
    spec[axis] = None
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(*spec))


def over_classes(rows: Array, axis: int, like: Shaped) -> Array:
    """Repeats a value of each row along the axis of classes, to the shape of `like`."""
    kept = tuple(a for a in range(like.ndim) if a != axis)
    return sharded_like(lax.broadcast_in_dim(rows, like.shape, kept), like)


def over_last_axis(rows: Array, like: Array) -> Array:
    """Repeats a value of each row along the last axis of `like`, (rows, k).

    Unchanged where `like` is (rows,).
    """
    if rows.ndim == like.ndim:
        return rows
    kept = tuple(range(rows.ndim))
    return sharded_like(lax.broadcast_in_dim(rows, like.shape, kept), like)


def over_rows(classes: Array, axis: int, like: Shaped) -> Array:
    """Repeats a value of each class (classes,) in every row of `like`."""
    return sharded_like(lax.broadcast_in_dim(classes, like.shape, (axis,)), like)


def is_below(ids: Array, count: Any) -> Array:
    """Whether 0 ≤ id < count, for ids of any integer dtype that holds `count`."""
    at_least = lax.ge(ids, lax.full_like(ids, 0))
    return lax.bitwise_and(at_least, lax.lt(ids, lax.full_like(ids, count)))


def broadcast_like(x: Array, like: Shaped) -> Array:
    """`x`, whose axes may have size 1, in the shape and sharding of `like`."""
    if x.shape != like.shape:
        x = jnp.broadcast_to(x, like.shape)
    return sharded_like(x, like)


def select(where: Array, x: Array, otherwise: Array | Size | float = 0) -> Array:
    """`x` where `where` holds, else `otherwise`; the derivative of the rest is 0.

    `where` and `otherwise` may have axes of size 1, or none.
    """
    fill: Any = otherwise
    if not isinstance(fill, Array) or fill.shape != x.shape:
        fill = lax.full_like(x, fill)
    return lax.select(broadcast_like(where, x), x, fill)
