"""Maxima, sums and counts of rows, in the forms that are fast on a CPU.

A long row goes by way of its chunks, and several sums of short rows by one reduction.

A chunk is 32 numbers that stand side by side on the last axis, the last chunk filled up
with the identity. Elsewhere than on a CPU these are `lax.reduce_max` and
`lax.reduce_sum`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    Shaped,
    cast,
    is_split,
    over_classes,
    select,
    sharded_like,
    vary,
    varying,
)
from .apart import constant, held_apart, unseen
from .forms import on_cpu
from .platform import by_platform
from .reading import slices_along


CHUNK = 32
SHORTEST = 32  # classes; a loop over groups would take longer to copy shorter rows
_MANY = 8 * CHUNK


def max_along(x: Array, axis: int) -> Array:
    """The maximum along an axis.

    A long row on a CPU goes by way of its chunks, which is as fast: where ranks look at
    the same chunks, XLA reads the array only once. Not if the last chunk must be filled
    up, which costs time.
    """
    plain = lambda x: lax.reduce_max(x, (axis,))
    if not _is_longer(x, axis, _MANY) or x.shape[axis] % CHUNK:
        return plain(x)
    by_chunks = lambda x: plain(maxima_of_chunks(x, axis))
    return by_platform(x, cpu=by_chunks, default=plain)


def sum_along(x: Array, axis: int) -> Array:
    """The sum along an axis.

    On a CPU XLA takes six to eight times as long for each number where more than 2^15
    exponentials are summed. The sum of the chunks' sums is fast, and rounds less.
    """
    plain = lambda x: lax.reduce_sum(x, (axis,))
    if not _is_longer(x, axis, 2**15):
        return plain(x)
    by_chunks = lambda x: plain(_of_chunks(lax.add, x, 0.0, axis, CHUNK))
    # The plain sum has the better transpose.
    return on_cpu(x, form=by_chunks, default=plain)


def held_apart_if_short(tree: Any, like: Shaped, axis: int) -> Any:
    """`held_apart`, for rows that are not in groups, and on a GPU along other axes."""
    return held_apart(tree, "cpu", "gpu") if are_short(like, axis) else tree


def are_short(like: Shaped, axis: int) -> bool:
    """Whether rows have few classes, or classes that do not stand side by side."""
    count = like.shape[axis]
    return axis != like.ndim - 1 or (isinstance(count, int) and count < SHORTEST)


def summed(axis: int, tree: Any, *, shares_nothing: bool) -> Any:
    """The tree with sums along an axis in place of all arrays that have it.

    The arrays that have it have the most axes. XLA on a CPU stores them, unless they
    share nothing. Of short rows one reduction reads them once, and nothing is stored.
    """
    leaves, structure = jax.tree.flatten(tree)
    most = max(x.ndim for x in leaves)
    terms = [x for x in leaves if x.ndim == most]
    short = are_short(terms[0], axis) and not is_split(terms[0])
    if len(terms) > 1 and short and not shares_nothing:
        one = functools.partial(_in_one, axis)
        many = functools.partial(_one_by_one, axis)
        sums = iter(on_cpu(*terms, form=one, default=many))
    else:
        sums = iter(_one_by_one(axis, *terms))
    return structure.unflatten([next(sums) if x.ndim == most else x for x in leaves])


def _one_by_one(axis: int, *terms: Array) -> tuple[Array, ...]:
    return tuple(sum_along(x, axis) for x in terms)


def _in_one(axis: int, *terms: Array) -> tuple[Array, ...]:
    zeros = tuple(jnp.zeros((), x.dtype) for x in terms)
    add = lambda a, b: tuple(map(lax.add, a, b))
    return tuple(lax.reduce(terms, zeros, add, (axis,)))


def count_along(axis: int, mask: Array) -> Array:
    """How many are True along an axis, int32."""
    ones = cast(mask, jnp.int32)
    if is_split(mask):
        return lax.reduce_sum(ones, (axis,))
    # A 0 that XLA does not see: it takes minutes to sum two arrays of constants.
    zeros = lax.full_like(ones, 0) + unseen(jnp.zeros((), jnp.int32))
    return lax.add(*_in_one(axis, ones, zeros))


def zeros_from(z: Array) -> Array:
    """Zeros of z's shape that depend on z.

    jax 0.10 may differentiate a reduction of several operands (second order through a
    scan), and then needs a tangent of each.
    """
    return lax.min(lax.abs(z), lax.full_like(z, 0))


def first_along(x: Array, maximum: Array, axis: int) -> Array:
    """The first index, int32 (rows,), where x has its maximum; the last for a NaN.

    XLA on a CPU would store a comparison of all of x: only chunks' maxima are compared
    with their maximum, and what stands in the first chunk that has it.
    """
    plain = functools.partial(_first_along, axis)
    if not _is_longer(x, axis, _MANY):
        return plain(x, maximum)
    by_chunks = functools.partial(_first_by_chunks, axis)
    return on_cpu(x, maximum, form=by_chunks, default=plain, alone=True)


def holds_nan(x: Array, axis: int) -> Array:
    """Whether there is a NaN along an axis, (rows,).

    XLA on a CPU loses a NaN in a maximum, as pmax does. This sum is NaN for no other.
    """
    total = sum_along(jnp.maximum(constant(-1.0, x), x), axis)
    return lax.ne(total, total)


def largest_along(x: Array, axis: int) -> tuple[Array, Array]:
    """The maximum and the first index, int32 (rows,), where it stands; NaN and any
    index for a row that holds NaN.

    One reduction reads the row once; a long row on a CPU goes by way of its chunks. The
    two are constants under differentiation.
    """
    x = lax.stop_gradient(x)

    def plain(x: Array) -> tuple[Array, Array]:
        maximum = max_along(x, axis)
        index = first_along(x, maximum, axis)
        return select(
            holds_nan(x, axis), lax.full_like(maximum, jnp.nan), maximum
        ), index

    def in_one(x: Array) -> tuple[Array, Array]:
        ids = vary(lax.broadcasted_iota(jnp.int32, x.shape, axis), varying(x))
        start = jnp.asarray(-jnp.inf, x.dtype), jnp.int32(x.shape[axis] - 1)
        return tuple(lax.reduce((x, ids), start, _larger, (axis,)))

    if is_split(x):
        return plain(x)
    of_cpu = plain if _is_longer(x, axis, _MANY) else in_one
    return by_platform(x, cpu=of_cpu, default=in_one)


def _larger(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Of two pairs of a number and its index: the larger, the first of equals."""
    (x, i), (y, j) = a, b
    first = lax.bitwise_or(lax.gt(x, y), lax.ne(x, x))
    first = lax.bitwise_or(first, lax.bitwise_and(lax.eq(x, y), lax.lt(i, j)))
    return lax.select(first, x, y), lax.select(first, i, j)


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
    return known and count > size and not is_split(x, axis)
