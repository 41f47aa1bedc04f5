"""The similarity matrix, of which one block exists at a time.

Two *sides*, the rows' vectors x and the columns' y, make logits

    z_ij = scale · ⟨x_i, y_j⟩

A *pair* is a row and the column that belongs to it, its own. Which pairs (i, j) a sum
runs over is a *relation* of what the two sides have: no array of the matrix's shape
holds it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, compute_dtype
from .._compute.product import ROUNDED, dot
from .._problem.bundles import Maybe
from .._problem.resolved import both


# The place of a vector that has no partner on the other side.
NO_PARTNER = -(2**30)


class Side(NamedTuple):
    """What the vectors of one side have: arrays (n, …), or (blocks, size, …)."""

    vectors: Array  # (n, features)
    place: Maybe = (
        None  # int32 (n,): the partner's place on the other side, or NO_PARTNER
    )
    keep: Maybe = None  # boolean (n,): False for a vector that is not there; None: all
    groups: Maybe = None  # integers (n,)
    grouped: Maybe = None  # boolean (n,): False for a vector of no group; None: all
    bias: Maybe = None  # (n,), in the logits' dtype: of the rows' statistics alone
    start: Maybe = None  # int32 (), or (blocks,): the index of a block's first vector


def apart(side: Side) -> Side:
    """The side without places, to be combined with one without its partners."""
    return side._replace(place=None, start=None)


class MatrixBlock(NamedTuple):
    """A block of the matrix: its rows and its columns, as parts of the two sides."""

    rows: Side
    columns: Side


class BlockLogits(NamedTuple):
    """The logits (rows, columns) of a block, without the biases and with them."""

    plain: Array
    biased: Array


Relation: TypeAlias = Callable[[MatrixBlock], Maybe]


def precision_of(x: Array, y: Array) -> Any:
    """The precision of products of the sides' vectors, in either order."""
    return ROUNDED if x.dtype == y.dtype == jnp.bfloat16 else None


def similarities(precision: Any, x: Array, y: Array) -> Array:
    """⟨x_i, y_j⟩, (rows, columns), in float32 or better."""
    dtype = compute_dtype(x, y)
    return dot(cast(x, dtype), cast(y, dtype), 1, 1, precision)


def with_bias(z: Array, of_rows: Maybe, of_columns: Maybe) -> BlockLogits:
    """Logits from those without biases; and so of their tangents."""
    biased = z
    for bias, axis in ((of_rows, 0), (of_columns, 1)):
        if bias is not None:
            biased = lax.add(biased, lax.broadcast_in_dim(bias, z.shape, (axis,)))
    return BlockLogits(plain=z, biased=biased)


# Relations ----------------------------------------------------------------------------


def _over(block: MatrixBlock, of_rows: Maybe, of_columns: Maybe) -> tuple[Maybe, Maybe]:
    """A value of each row and one of each column, both in the block's shape."""
    shape = (block.rows.vectors.shape[0], block.columns.vectors.shape[0])
    pair = ((of_rows, 0), (of_columns, 1))
    over_rows, over_columns = (
        None if x is None else lax.broadcast_in_dim(x, shape, (axis,))
        for x, axis in pair
    )
    return over_rows, over_columns


def places_in(side: Side, other: Side) -> Array:
    """Where a block of the other side has the partners; out of its range for others."""
    if side.place is None or other.start is None:
        return lax.full(side.vectors.shape[:1], NO_PARTNER, jnp.int32)
    return lax.sub(side.place, other.start)


def own(block: MatrixBlock) -> Array:
    """Boolean (rows, columns): True for a row and its own column."""
    places, _ = _over(block, places_in(block.rows, block.columns), None)
    assert places is not None
    return lax.eq(places, lax.broadcasted_iota(jnp.int32, places.shape, 1))


def _there(block: MatrixBlock) -> Maybe:
    return both(*_over(block, block.rows.keep, block.columns.keep))


def _same_group(block: MatrixBlock) -> Maybe:
    groups, of_columns = _over(block, block.rows.groups, block.columns.groups)
    if groups is None or of_columns is None:
        return None
    _, grouped = _over(block, None, block.columns.grouped)
    return both(lax.eq(groups, of_columns), grouped)


def candidates(block: MatrixBlock) -> Maybe:
    """The own column, and those of other groups."""
    allowed, same = _there(block), _same_group(block)
    if same is None:
        return allowed
    return both(allowed, lax.bitwise_or(own(block), lax.bitwise_not(same)))


def others(block: MatrixBlock) -> Maybe:
    """All columns but the own."""
    return both(_there(block), lax.bitwise_not(own(block)))


def positives(block: MatrixBlock) -> Maybe:
    """The others of the same group."""
    return both(others(block), _same_group(block))


def negatives(block: MatrixBlock) -> Maybe:
    """The columns of other groups."""
    same = _same_group(block)
    assert same is not None
    return both(_there(block), lax.bitwise_not(same))
