"""Class ids: which are classes, and the values of arrays at them."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Integer

from .._arrays import (
    Shaped,
    Size,
    at_index,
    cast,
    is_below,
    is_split,
    over_classes,
    over_rows,
    select,
    sharded_like,
    sum_over_devices,
)
from .._platform import by_platform
from .bundles import Maybe
from .problem import Problem
from .resolved import NO_CLASS, is_class


def equal(
    labels: Integer[Array, "..."], index: Integer[Array, ""]
) -> Bool[Array, "..."]:
    """labels == index, in the labels' own integers: no cast can make them equal."""
    same = cast(index, labels.dtype)
    found = lax.eq(labels, lax.full_like(labels, same))
    if index.dtype == labels.dtype:
        return found
    fits = (cast(same, index.dtype) == index) & ((same < 0) == (index < 0))
    return found & fits


def class_ids(
    labels: Integer[Array, "..."], weighted: Maybe, classes: Size
) -> Integer[Array, "..."]:
    """int32 ids; one out of range is NO_CLASS, or 0 in a row that is not weighted."""
    if labels.dtype.itemsize < 4:  # the class count may not fit into 8 or 16 bits
        labels = cast(labels, jnp.int32)
    valid = is_below(labels, classes)
    ids = cast(select(valid, labels), jnp.int32)
    if weighted is not None:
        valid = lax.bitwise_or(valid, lax.bitwise_not(weighted))
    return select(valid, ids, NO_CLASS)


def is_label(ids: Array, axis: int, like: Shaped) -> Array:
    """Compares every class with its row's label: a one-hot that is never stored."""
    classes = lax.broadcasted_iota(jnp.int32, like.shape, axis)
    return lax.eq(sharded_like(classes, like), over_classes(ids, axis, like))


def at_ids(x: Array, ids: Array, axis: int) -> Array:
    """The values of `x` at several ids a row, (rows, k); 0 out of range.

    `x` is (…, classes, …), or (classes,) for what all rows share. Linear in it.
    """
    if not is_split(x):
        here = is_below(ids, x.shape[axis if x.ndim > 1 else 0])
        return select(here, at_index(x, select(here, ids), axis))

    # A gather along a split axis is refused.
    def at_one(id_of_row: Array) -> Array:
        picked = select(is_label(id_of_row, axis, x), x)
        return lax.reduce_sum(picked, (axis,))

    values = lax.map(at_one, jnp.moveaxis(ids, -1, 0))
    return jnp.moveaxis(values, 0, -1)


def of_ids(values: Maybe, ids: Array, axis: int, like: Array) -> Array:
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


def first_class(problem: Problem, start: Maybe = None) -> Maybe:
    """The number over all devices of a block's first class; None for 0.

    `start` counts from the first class of this device.
    """
    names = problem.settings.class_axis_name
    if not names:
        return start
    first = lax.axis_index(names) * problem.like.shape[problem.axis]
    return first if start is None else first + start


def ids_from(ids: Array, first: Maybe) -> Array:
    """Class ids counted from `first`, None for 0; out of range for other blocks'."""
    return ids if first is None else select(is_class(ids), ids - first, NO_CLASS)


def at_label(problem: Problem, x: Array, ids: Array) -> Array:
    """The value at each row's labels of `x`, (classes,) or of the logits' shape.

    0 where the id is NO_CLASS.
    """
    names = problem.settings.class_axis_name
    return sum_over_devices(_at_label_here(problem, x, ids), names)


def compared_at(x: Array, ids: Array, *, axis: int) -> Array:
    """What stands at each row's id, (rows,), 0 for an id that is not here: a sum over
    the classes, whose transpose writes no array of its own."""
    return lax.reduce_sum(select(is_label(ids, axis, x), x), (axis,))


def read_at(x: Array, ids: Array, *, axis: int) -> Array:
    """The same as a gather, in O(rows), whose transpose is a scatter."""
    return select(is_below(ids, x.shape[axis]), at_index(x, ids, axis))


def _at_label_here(problem: Problem, x: Array, ids: Array) -> Array:
    """`at_label`, 0 as well where the label is among another device's classes.

    A gather is dear on a TPU, and a one-hot that is summed as it is formed costs no
    memory.
    """
    axis, like = problem.axis, problem.like
    classes = like.shape[axis]

    def of_rows(x: Array) -> Array:
        if x.ndim == 1:
            return over_rows(x, axis, like)
        return sharded_like(jnp.broadcast_to(x, like.shape), like)

    def compared(x: Array, ids: Array) -> Array:
        return compared_at(of_rows(x), ids, axis=axis)

    def gathered(x: Array, ids: Array) -> Array:
        here = is_below(ids, classes)
        at = select(here, ids)
        return select(here, at_index(x, at, axis))

    ids = ids_from(ids, first_class(problem))
    if ids.ndim == like.ndim:
        return at_ids(of_rows(x) if is_split(like) else x, ids, axis)
    if is_split(like):
        return compared(x, ids)
    return by_platform(x, ids, cpu=gathered, default=compared)
