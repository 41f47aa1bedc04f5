"""Small tools on arrays: axes, selects, and arrays split over a mesh by their types.

With explicit axes JAX asks that the operands of a select be split alike, and refuses a
gather along a split axis. With automatic axes, inside `shard_map` and on one device the
types say nothing, and `sharded_like` returns its argument.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax


# A size may be symbolic, as `jax.export` has it.
Shape: TypeAlias = tuple[Any, ...]
# An array, or the shape and dtype of logits that are never formed.
Shaped: TypeAlias = Array | jax.ShapeDtypeStruct


# Numbers of which a CPU forms the maximum or the sum first, where there are many.
CHUNK = 32
_MANY = 8 * CHUNK


def is_split(x: Array | jax.ShapeDtypeStruct) -> bool:
    """Whether explicit axes of a mesh split an array, by its type."""
    if isinstance(x, jax.ShapeDtypeStruct):  # logits that are never formed
        return False
    return any(names is not None for names in jax.typeof(x).sharding.spec)


def is_moving(tangent: Any) -> bool:
    """True unless the tangent is None, a symbolic zero, or has dtype float0."""
    symbolic = isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    return tangent is not None and not symbolic and tangent.dtype != jax.dtypes.float0


def _is_none(x: Any) -> bool:
    return x is None


def moving_of(tangents: Any) -> Any:
    """The same tree of tangents, None for those that are zero by their kind."""
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


def compute_dtype(*arrays: Any) -> jnp.dtype:
    """float32, or float64 where an input has it."""
    wide = any(x.dtype == jnp.float64 for x in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


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


# lax primitives: jax.numpy's wrappers cost several times as much to trace.


def sharded_like(x: Array, like: Shaped) -> Array:
    """`x`, of the shape of `like`, with the explicit sharding of `like`."""
    if not is_split(like):
        return x
    return jax.sharding.reshard(x, jax.typeof(like).sharding)


def over_classes(rows: Array, axis: int, like: Shaped) -> Array:
    """Repeats a value of each row along the axis of classes, to the shape of `like`."""
    kept = tuple(a for a in range(like.ndim) if a != axis)
    return sharded_like(lax.broadcast_in_dim(rows, like.shape, kept), like)


def over_places(rows: Array, like: Array) -> Array:
    """Repeats a value of each row along the last axis of `like`, (rows, places).

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


def max_along(x: Array, axis: int) -> Array:
    """The maximum along an axis.

    Of many numbers on a CPU by way of chunks, which is as fast: where ranks look at
    these chunks, too, XLA reads the array only once.
    """
    plain = lambda x: lax.reduce_max(x, (axis,))
    if not _is_longer(x, axis, _MANY):
        return plain(x)
    by_chunks = lambda x: plain(maxima_of_chunks(x, axis))
    return lax.platform_dependent(x, cpu=by_chunks, default=plain)


def sum_along(x: Array, axis: int) -> Array:
    """The sum along an axis.

    XLA's loop on a CPU for more than 2^15 exponentials takes six to eight times as long
    for each as for fewer. A sum of sums of chunks does not, and rounds less.
    """
    if not _is_longer(x, axis, 2**15):
        return lax.reduce_sum(x, (axis,))
    return _sum_of_many(axis, x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_of_many(axis: int, x: Array) -> Array:
    plain = lambda x: lax.reduce_sum(x, (axis,))
    by_chunks = lambda x: plain(_of_chunks(lax.add, x, 0, axis, CHUNK))
    return lax.platform_dependent(x, cpu=by_chunks, default=plain)


# The plain sum has the better transpose.
@_sum_of_many.defjvp
def _sum_of_many_jvp(axis: int, primals: Any, tangents: Any) -> Any:
    (tangent,) = tangents
    return _sum_of_many(axis, *primals), lax.reduce_sum(tangent, (axis,))


def first_along(x: Array, maximum: Array, axis: int) -> Array:
    """The first index, int32 (rows,), where x has its maximum; the last for a NaN.

    XLA on a CPU would store a comparison of all of x: only chunks' maxima are compared
    with their maximum, and what stands in the first chunk that has it.
    """
    plain = functools.partial(_first_along, axis)
    if not _is_longer(x, axis, _MANY):
        return plain(x, maximum)
    by_chunks = functools.partial(_first_by_chunks, axis)
    return lax.platform_dependent(x, maximum, cpu=by_chunks, default=plain)


def _first_along(axis: int, x: Array, maximum: Array) -> Array:
    indices = sharded_like(lax.broadcasted_iota(jnp.int32, x.shape, axis), x)
    found = lax.eq(x, over_classes(maximum, axis, x))
    return lax.reduce_min(select(found, indices, x.shape[axis] - 1), (axis,))


def _first_by_chunks(axis: int, x: Array, maximum: Array) -> Array:
    chunk = _first_along(axis, maxima_of_chunks(x, axis), maximum)
    start = lax.min(chunk * CHUNK, lax.full_like(chunk, x.shape[axis] - CHUNK))
    here = lax.squeeze(slices_along(x, start[..., None], CHUNK, axis), (axis,))
    return start + _first_along(axis, here, maximum)


def maxima_of_chunks(x: Array, axis: int, size: int = CHUNK) -> Array:
    """The maximum of each `size` numbers along an axis, and of the rest."""
    return _of_chunks(lax.max, x, -jnp.inf, axis, size)


def _of_chunks(
    function: Callable[..., Any], x: Array, identity: float, axis: int, size: int
) -> Array:
    window = tuple(size if a == axis else 1 for a in range(x.ndim))
    missing = -x.shape[axis] % size
    padding = [(0, missing if a == axis else 0) for a in range(x.ndim)]
    start = lax.full_like(x, identity, shape=())
    return lax.reduce_window(x, start, function, window, window, padding)


def _is_longer(x: Array, axis: int, size: int) -> bool:
    """Whether the last axis is longer, where it may be cut in chunks."""
    count = x.shape[axis]
    known = axis == x.ndim - 1 and isinstance(count, int)
    return known and count > size and not is_split(x)


def slices_along(x: Array, start: Array, size: int, axis: int) -> Array:
    """x[…, start : start + size, …] along an axis, (rows, k, size) for each (rows, k)
    start."""
    rows = tuple(a for a in range(x.ndim) if a != axis)
    return lax.gather(
        x,
        start[..., None],
        lax.GatherDimensionNumbers(
            offset_dims=(start.ndim,),
            collapsed_slice_dims=(),
            start_index_map=(axis,),
            operand_batching_dims=rows,
            start_indices_batching_dims=tuple(range(len(rows))),
        ),
        slice_sizes=tuple(size if a == axis else 1 for a in range(x.ndim)),
        mode="clip",
    )


def at_index(x: Array, index: Array, axis: int) -> Array:
    """The entries of `x` at one index of `axis` for each row, or at several.

    `x` is (…, classes, …), or (classes,) for what all rows share; `index` is (rows,) or
    (rows, places), int32 in range.
    """
    axis = axis if x.ndim > 1 else 0
    rows = tuple(a for a in range(x.ndim) if a != axis)
    return lax.gather(
        x,
        lax.expand_dims(index, (index.ndim,)),
        lax.GatherDimensionNumbers(
            offset_dims=(),
            collapsed_slice_dims=(axis,),
            start_index_map=(axis,),
            operand_batching_dims=rows,
            start_indices_batching_dims=tuple(range(len(rows))),
        ),
        slice_sizes=(1,) * x.ndim,
        mode="clip",
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def block_along(x: Array, start: Array | int, size: int, axis: int) -> Array:
    """`lax.dynamic_slice_in_dim`.

    XLA on a CPU would cast all of a bfloat16 array to float32 to slice it: there the
    slice is one of its bits.
    """

    def of(x: Array, start: Array | int) -> Array:
        return lax.dynamic_slice_in_dim(x, start, size, axis)

    def of_bits(x: Array, start: Array | int) -> Array:
        # The barrier keeps all bits where they are: else they are copied before a loop.
        x, start = lax.optimization_barrier((x, start))
        bits = lax.bitcast_convert_type(x, jnp.uint16)
        return lax.bitcast_convert_type(of(bits, start), x.dtype)

    if x.dtype.itemsize != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        return of(x, start)
    return lax.platform_dependent(x, start, cpu=of_bits, default=of)


@functools.partial(block_along.defjvp, symbolic_zeros=True)
def _block_along_jvp(size: int, axis: int, primals: Any, tangents: Any) -> Any:
    (x, start), (dx, _) = primals, tangents
    dx = lax.dynamic_slice_in_dim(dx, start, size, axis)
    return block_along(x, start, size, axis), dx


def broadcast_like(x: Array, like: Shaped) -> Array:
    """`x`, whose axes may have size 1, in the shape and sharding of `like`."""
    if x.shape != like.shape:
        x = jnp.broadcast_to(x, like.shape)
    return sharded_like(x, like)


def select(where: Array, x: Array, otherwise: Array | int | float = 0) -> Array:
    """`x` where `where` holds, else `otherwise`; the derivative of the rest is 0.

    `where` and `otherwise` may have axes of size 1, or none.
    """
    fill: Any = otherwise
    if not isinstance(fill, Array) or fill.shape != x.shape:
        fill = lax.full_like(x, fill)
    return lax.select(broadcast_like(where, x), x, fill)
