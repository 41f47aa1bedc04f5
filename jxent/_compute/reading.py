"""Reading parts of arrays: what stands at an id of each row, and blocks of classes.

A gather is dear on a TPU, and a one-hot that is summed as it is formed costs no memory
there; a CPU reads in place. The transpose of a gather is a scatter, which writes an
array of its own; that of a one-hot joins the gradient as that is written.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.interpreters import ad, batching, mlir

from .._arrays import (
    Shaped,
    broadcast_like,
    cast,
    is_below,
    is_split,
    over_classes,
    over_rows,
    select,
    sharded_like,
    vary,
    varying_of,
)
from .platform import by_platform


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
    (rows, k), int32. One that is out of range counts as the nearest that is not.
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


def _is_half(x: Array) -> bool:
    return x.dtype.itemsize == 2 and jnp.issubdtype(x.dtype, jnp.floating)


def _of_bits(read: Callable[[Array, Any], Array]) -> Callable[[Array, Any], Array]:
    """A function that reads a part of an array in half precision, by its bits.

    XLA on a CPU would cast the whole array to float32.
    """

    def of_bits(x: Array, place: Any) -> Array:
        # The barrier keeps all bits where they are: else they are copied before a loop.
        x, place = lax.optimization_barrier((x, place))
        bits = lax.bitcast_convert_type(x, jnp.uint16)
        return lax.bitcast_convert_type(read(bits, place), x.dtype)

    return of_bits


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def block_along(x: Array, start: Array | int, size: int, axis: int) -> Array:
    """`lax.dynamic_slice_in_dim`, in half precision on a CPU one of bits."""

    def of(x: Array, start: Array | int) -> Array:
        return lax.dynamic_slice_in_dim(x, start, size, axis)

    if not _is_half(x):
        return of(x, start)
    return by_platform(x, start, cpu=_of_bits(of), default=of)


@functools.partial(block_along.defjvp, symbolic_zeros=True)
def _block_along_jvp(size: int, axis: int, primals: Any, tangents: Any) -> Any:
    (x, start), (dx, _) = primals, tangents
    dx = lax.dynamic_slice_in_dim(dx, start, size, axis)
    return block_along(x, start, size, axis), dx


# One id a row, or several ------------------------------------------------------------


def is_label(ids: Array, axis: int, like: Shaped) -> Array:
    """Compares every class with its row's label: a one-hot that is never stored."""
    classes = lax.broadcasted_iota(jnp.int32, like.shape, axis)
    return lax.eq(sharded_like(classes, like), over_classes(ids, axis, like))


def at_ids(x: Array, ids: Array, axis: int, like: Shaped) -> Array:
    """The values of `x` at the ids (rows,) or (rows, k); 0 for an id out of range.

    `x` has the shape of `like`, or that but for axes of size 1, or is (classes,).
    """

    def of_rows(x: Array) -> Array:
        return over_rows(x, axis, like) if x.ndim == 1 else broadcast_like(x, like)

    def compared(x: Array, ids: Array) -> Array:
        return _compared(of_rows(x), ids, axis=axis)

    def read(x: Array, ids: Array) -> Array:
        here = is_below(ids, like.shape[axis])
        return select(here, at_index(x, select(here, ids), axis))

    several = ids.ndim == like.ndim
    if is_split(like):  # a gather along a split axis is refused
        if not several:
            return compared(x, ids)
        values = lax.map(functools.partial(compared, x), jnp.moveaxis(ids, -1, 0))
        return jnp.moveaxis(values, 0, -1)
    if several:
        return read(x, ids)
    return by_platform(x, ids, cpu=read, default=compared)


def tangent_at_ids(dz: Array, ids: Array, axis: int) -> Array:
    """`at_ids` of a tangent of the logits; its transpose is a one-hot."""
    if is_split(dz) or ids.ndim == dz.ndim:
        return at_ids(dz, ids, axis, dz)
    operands = vary((dz, ids), varying_of((dz, ids)))
    return _at_id.bind(*operands, axis=axis)


def _compared(x: Array, ids: Array, *, axis: int) -> Array:
    return lax.reduce_sum(select(is_label(ids, axis, x), x), (axis,))


def _gathered(x: Array, ids: Array, *, axis: int) -> Array:
    return select(is_below(ids, x.shape[axis]), at_index(x, ids, axis))


def spread(values: Array | None, ids: Array, axis: int, like: Array) -> Array:
    """Σ_k values_k [c = ids_k], of the logits' shape; integers where values are None.

    `like` are the logits. An id that is out of range adds nothing.
    """
    if values is None:  # XLA stores the result: as bytes, where these count so far
        integer = jnp.int8 if ids.shape[-1] < 2**7 else jnp.int32
        values = lax.full_like(ids, 1, dtype=integer)
    else:
        values = cast(values, like.dtype)
    if is_split(like):  # a scatter along a split axis is refused

        def add(y: Array, entry: tuple[Array, Array]) -> tuple[Array, None]:
            index, value = entry
            here = over_classes(value, axis, like)
            return y + select(is_label(index, axis, like), here), None

        zeros = lax.full_like(like, 0, dtype=values.dtype)
        entries = jnp.moveaxis(ids, -1, 0), jnp.moveaxis(values, -1, 0)
        return lax.scan(add, zeros, entries)[0]
    classes, rows = like.shape[axis], range(ids.ndim - 1)
    index = [lax.broadcasted_iota(jnp.int32, ids.shape, a) for a in rows]
    index.append(select(is_below(ids, classes), ids, classes))
    y = lax.full((*ids.shape[:-1], classes), 0, values.dtype)
    return jnp.moveaxis(y.at[tuple(index)].add(values, mode="drop"), -1, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_id_or_nan(axis: int, probs: Array, ids: Array, bad: Array) -> Array:
    """What stands at each row's id, (rows,); 0 where that is not among the classes, and
    NaN where it is bad."""
    own = _compared if is_split(probs) else _gathered
    return select(lax.bitwise_not(bad), own(probs, ids, axis=axis), jnp.nan)


@at_id_or_nan.defjvp
def _at_id_or_nan_jvp(axis: int, primals: Any, tangents: Any) -> Any:
    (probs, ids, bad), (moved, *_) = primals, tangents

    # All of a bad row counts, so that the cotangent, which is NaN, reaches all of it.
    def of_all(dx: Array) -> Array:
        picked = lax.bitwise_or(is_label(ids, axis, dx), over_classes(bad, axis, dx))
        return lax.reduce_sum(select(picked, dx), (axis,))

    def on_cpu(dx: Array) -> Array:
        read = functools.partial(_gathered, ids=ids, axis=axis)
        some = lax.reduce_or(bad, tuple(range(bad.ndim)))
        whole = lambda dx: select(bad, lax.reduce_sum(dx, (axis,)), read(dx))
        return lax.cond(some, whole, read, dx)

    if is_split(probs):
        tangent = of_all(moved)
    else:
        tangent = by_platform(moved, cpu=on_cpu, default=of_all)
    return at_id_or_nan(axis, *primals), tangent


# dz_y is read on a CPU, where XLA would store a one-hot that is multiplied by dz before
# it sums that, and its transpose is a one-hot. JAX has no way to give a linear function
# another transpose that `vmap` knows too, hence a primitive.


def _at_id_by_platform(dz: Array, ids: Array, *, axis: int) -> Array:
    read, compared = (functools.partial(f, axis=axis) for f in (_gathered, _compared))
    return by_platform(dz, ids, cpu=read, default=compared)


# The class is jax.extend.core.Primitive, whose import takes a quarter of jxent's time.
_at_id = type(lax.exp_p)("at_id")
_at_id.def_impl(jax.jit(_at_id_by_platform, static_argnames="axis"))
_at_id.def_abstract_eval(
    lambda dz, ids, *, axis: ids.update(dtype=dz.dtype, weak_type=False)
)
mlir.register_lowering(
    _at_id, mlir.lower_fun(_at_id_by_platform, multiple_results=False)
)


def _at_id_jvp(primals: Any, tangents: Any, *, axis: int) -> tuple[Any, Any]:
    (_, ids), (dot, _) = primals, tangents
    value = _at_id.bind(*primals, axis=axis)
    if isinstance(dot, ad.Zero):
        return value, ad.Zero(jax.typeof(value))
    return value, _at_id.bind(dot, ids, axis=axis)


def _at_id_transpose(cotangent: Any, dz: Any, ids: Array, *, axis: int) -> list[Any]:
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(dz.aval), None]
    like = jax.ShapeDtypeStruct(dz.aval.shape, dz.aval.dtype)
    own = over_classes(cotangent, axis, like)
    return [select(is_label(ids, axis, like), own), None]


def _at_id_batched(operands: Any, axes: Any, *, axis: int) -> tuple[Array, int]:
    (size,) = {x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None}
    dz, ids = (
        jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
        for x, a in zip(operands, axes, strict=True)
    )
    return _at_id.bind(dz, ids, axis=axis + 1), 0


ad.primitive_jvps[_at_id] = _at_id_jvp
ad.primitive_transposes[_at_id] = _at_id_transpose
batching.primitive_batchers[_at_id] = _at_id_batched
