"""From a batch to the two sides of its matrix, on one device or split over several.

Split over devices, each has the rows of its own part of the batch and all columns,
which are gathered. What blocks give to columns is merged over devices: a number or two
for each column.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, compute_dtype, is_below, select, vary, varying_of
from .._problem import Maybe, both
from .._reduction import combine
from .arguments import Options, Plan
from .matrix import NOWHERE, Side
from .statistics import Form, Matrix, in_blocks, statistics


# What what a loop over blocks saves would not pay for.
SMALL = 8 * 2**20  # bytes of a matrix that is one block


def kept(options: Options, count: Any) -> Maybe:
    """The rows (count,) that neither `where` nor a weight of 0 drops; None: all."""
    weights = options.weights
    weighted = None if weights is None else lax.ne(weights, lax.full_like(weights, 0))
    keep = both(options.where, weighted)
    return None if keep is None else jnp.broadcast_to(keep, (count,))


def reduced(plan: Plan, options: Options, losses: Array, keep: Maybe) -> Array:
    return combine(
        losses,
        keep=keep,
        weights=options.weights,
        reduction=plan.reduction,
        normalizer=options.normalizer,
        batch_axis_name=plan.batch_axis_name,
    )


def without_dropped(x: Array, keep: Maybe) -> Array:
    """`x` (count, …), 0 for what is dropped, which may hold anything."""
    if keep is None:
        return x
    return select(lax.broadcast_in_dim(keep, x.shape, (0,)), x)


def over_devices(plan: Plan, tree: Any) -> Any:
    """Arrays (count, …) of all devices, one after the other."""
    names = plan.batch_axis_name
    if not names:
        return tree
    tree = vary(tree, frozenset(names))
    return jax.tree.map(lambda x: lax.all_gather(x, names, tiled=True), tree)


def sides(plan: Plan, x: Array, y: Array, keep: Maybe, groups: Maybe) -> tuple[Side, Side]:
    """The sides of x, of this device, and of y, of all; pair i is (x_i, y_i)."""
    count = x.shape[0]
    x, y = (without_dropped(vectors, keep) for vectors in (x, y))
    here = lax.iota(jnp.int32, count)
    rows = Side(vectors=x, place=here, keep=keep, groups=groups)
    columns = over_devices(plan, rows._replace(vectors=y))
    names = plan.batch_axis_name
    if not names:
        return rows, columns
    first = lax.axis_index(names) * count
    there = lax.iota(jnp.int32, columns.place.shape[0]) - first
    return (
        rows._replace(place=here + first),
        columns._replace(place=select(is_below(there, count), there, NOWHERE)),
    )


def with_extra(columns: Side, extra: Array) -> Side:
    """The columns, and behind them those that belong to no row and no group."""
    count, more = columns.place.shape[0], extra.shape[0]

    def longer(x: Maybe, fill: Any) -> Maybe:
        if x is None:
            return None
        return lax.pad(x, lax.full_like(x, fill, shape=()), [(0, more, 0)])

    vectors = columns.vectors
    dtype = extra.dtype if extra.dtype == vectors.dtype else compute_dtype(vectors, extra)
    grouped = None
    if columns.groups is not None:
        grouped = lax.lt(lax.iota(jnp.int32, count + more), jnp.int32(count))
    return Side(
        vectors=lax.concatenate([cast(vectors, dtype), cast(extra, dtype)], 0),
        place=lax.pad(columns.place, jnp.int32(NOWHERE), [(0, more, 0)]),
        keep=longer(columns.keep, True),
        groups=longer(columns.groups, 0),
        grouped=grouped,
    )


def statistics_of(
    form: Form, plan: Plan, rows: Side, columns: Side, scale: Array
) -> tuple[Any, Any]:
    """Statistics of the rows, and of the columns that are their partners: (count,)."""
    count, names = rows.place.shape[0], plan.batch_axis_name
    row_size, column_size = block_shape(plan, rows, columns)
    matrix = Matrix(
        rows=in_blocks(rows, row_size),
        columns=in_blocks(columns, column_size),
        scale=cast(scale, compute_dtype(rows.vectors, columns.vectors)),
    )
    matrix = vary(matrix, varying_of(matrix))
    first = lax.axis_index(names) * count if names else 0

    def own(blocks: Array) -> Array:
        flat = blocks.reshape(blocks.shape[0] * blocks.shape[1])
        return lax.dynamic_slice_in_dim(flat, first, count)

    of_rows, of_columns = statistics(form, names, matrix)
    flat = jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1])[:count], of_rows)
    return flat, jax.tree.map(own, of_columns)


def block_shape(plan: Plan, rows: Side, columns: Side) -> tuple[Any, Any]:
    """(rows, columns) of a block."""
    counts = rows.place.shape[0], columns.place.shape[0]
    # On a CPU a block is to fit its cache, with what is formed of it.
    limits = 512 if jax.default_backend() == "cpu" else 1024, 4096
    width = compute_dtype(rows.vectors, columns.vectors).itemsize
    symbolic = not all(isinstance(n, int) for n in counts)
    if symbolic or counts[0] * counts[1] * width <= SMALL:
        limits = counts
    triples = zip(plan.block_sizes, counts, limits, strict=True)
    row_size, column_size = (
        _even(count, limit) if size is None else min(size, count)
        for size, count, limit in triples
    )
    return row_size, column_size


def _even(count: Any, limit: Any) -> Any:
    """The size of equal blocks of at most `limit`, or a few more."""
    if limit is count or count <= limit:
        return count
    blocks = -(-count // limit)
    return -(-count // (8 * blocks)) * 8
