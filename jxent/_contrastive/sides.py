"""From a batch to the two sides of its matrix, on one device or split over several.

Split over devices, each has the rows of its own part of the batch. *Gathered*, it has
all columns as well, and what blocks give to columns is merged over devices: a number or
two for each column. In a *ring* it has the columns of its own part, and these travel.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AxisType, PartitionSpec

from .._arrays import cast, compute_dtype, is_below, select, vary, varying_of
from .._layouts.mesh import enter, resharded, row_spec
from .._problem.bundles import Maybe
from .._problem.resolved import both
from .._reduction import combine
from .arguments import ContrastiveSettings, Options
from .matrix import NO_PARTNER, Side
from .statistics import Devices, Form, Matrix, in_blocks, statistics


SMALL = 8 * 2**20  # bytes of a matrix that is one block: nothing is faster


class Batch(NamedTuple):
    """What each pair of a batch has: arrays (count, …)."""

    x: Array
    y: Array
    keep: Maybe = None
    groups: Maybe = None
    bias: Maybe = None  # of y as a candidate


class Extra(NamedTuple):
    """Candidates without a partner: arrays (count, …)."""

    vectors: Array
    bias: Maybe = None
    keep: Maybe = None


def kept_rows(options: Options, count: Any) -> Maybe:
    """The rows (count,) that neither `where` nor a weight of 0 drops; None: all."""
    weights = options.weights
    weighted = None if weights is None else lax.ne(weights, lax.full_like(weights, 0))
    keep = both(options.where, weighted)
    return None if keep is None else jnp.broadcast_to(keep, (count,))


def reduced(
    settings: ContrastiveSettings, options: Options, losses: Array, keep: Maybe
) -> Array:
    return combine(
        losses,
        keep=keep,
        weights=options.weights,
        reduction=settings.reduction,
        normalizer=options.normalizer,
        batch_axis_name=settings.batch_axis_name,
    )


def without_dropped(x: Array, keep: Maybe) -> Array:
    """`x` (count, …), 0 for what is dropped, which may hold anything."""
    if keep is None:
        return x
    return select(lax.broadcast_in_dim(keep, x.shape, (0,)), x)


def by_parts(
    settings: ContrastiveSettings,
    losses: Callable[[ContrastiveSettings, Batch, Any], Any],
    batch: Batch,
    shared: Any,
) -> Any:
    """`losses(settings, batch, shared)`, (count,); by parts where a mesh splits it.

    `batch` are arrays (count, …). A batch that is seen whole, though devices have parts
    of it, is taken apart here.
    """
    mesh, entered = settings.sharding.mesh, settings.sharding.row_names
    if mesh is None:
        return losses(settings, batch, shared)
    of_batch = row_spec(settings.sharding)
    specs = tuple(
        jax.tree.map(lambda _, spec=spec: spec, tree)
        for tree, spec in ((batch, of_batch), (shared, PartitionSpec()))
    )
    names = settings.batch_axis_name + entered
    body = functools.partial(losses, settings._replace(batch_axis_name=names))
    operands = resharded(mesh, (batch, shared), specs)
    if not entered or AxisType.Manual in mesh.axis_types:
        # Within a `shard_map` of the caller's JAX can keep no intermediate results, and
        # the derivative forms the statistics again: five products.
        return enter(settings.sharding, body, operands, specs, of_batch)
    return jax.shard_map(
        body, mesh=mesh, in_specs=specs, out_specs=of_batch, axis_names={*entered}
    )(*operands)


def over_devices(names: tuple[str, ...], tree: Any) -> Any:
    """Arrays (count, …) of all devices, one after the other."""
    if not names:
        return tree
    return jax.tree.map(lambda x: lax.all_gather(x, names, tiled=True), tree)


def sides(settings: ContrastiveSettings, batch: Batch) -> tuple[Side, Side]:
    """The sides of x, of this device, and of y, of all; pair i is (x_i, y_i)."""
    names, count = settings.batch_axis_name, batch.x.shape[0]
    x, y = (without_dropped(vectors, batch.keep) for vectors in (batch.x, batch.y))
    bias = batch.bias
    if bias is not None:
        bias = without_dropped(bias, batch.keep)
    here = lax.iota(jnp.int32, count)
    rows = Side(vectors=x, place=here, keep=batch.keep, groups=batch.groups)
    columns = rows._replace(vectors=y, bias=bias)
    if not names or settings.ring:
        return rows, columns
    columns = over_devices(names, columns)
    first = lax.axis_index(names) * count
    there = lax.iota(jnp.int32, columns.vectors.shape[0]) - first
    return (
        rows._replace(place=here + first),
        columns._replace(place=select(is_below(there, count), there, NO_PARTNER)),
    )


def extra_here(
    settings: ContrastiveSettings, here: ContrastiveSettings, extra: Extra
) -> Extra:
    """The extra candidates among the columns of a device: all, or in a ring its share.

    Devices along the axes of `settings` bring different ones. Those along other axes of
    `here` all have the same, of which each takes a part in a ring.
    """
    if not here.ring:
        return over_devices(settings.batch_axis_name, extra)
    entered = here.batch_axis_name[len(settings.batch_axis_name) :]
    if not entered:
        return extra
    count = extra.vectors.shape[0]
    size = -(-count // lax.axis_size(entered))
    missing = size * lax.axis_size(entered) - count
    first = lax.axis_index(entered) * size

    def part(x: Array) -> Array:
        edges = [(0, missing, 0)] + [(0, 0, 0)] * (x.ndim - 1)
        x = lax.pad(x, lax.full_like(x, 0, shape=()), edges)
        return lax.dynamic_slice_in_dim(x, first, size)

    extra = extra._replace(keep=jnp.ones(count, bool))
    return jax.tree.map(part, extra)


def with_extra(columns: Side, extra: Extra) -> Side:
    """The columns, and behind them those that belong to no row and no group."""
    count, more = columns.vectors.shape[0], extra.vectors.shape[0]

    def longer(x: Maybe, fill: Any) -> Maybe:
        if x is None:
            return None
        return lax.pad(x, lax.full_like(x, fill, shape=()), [(0, more, 0)])

    def both_of(a: Array, b: Array) -> Array:
        dtype = a.dtype if a.dtype == b.dtype else compute_dtype(a, b)
        return lax.concatenate([cast(a, dtype), cast(b, dtype)], 0)

    grouped = bias = None
    if columns.groups is not None:
        grouped = lax.lt(lax.iota(jnp.int32, count + more), jnp.int32(count))
    if columns.bias is not None and extra.bias is not None:
        bias = both_of(columns.bias, extra.bias)
    assert columns.place is not None
    keep = longer(columns.keep, True)
    if extra.keep is not None:
        of_batch = jnp.ones(count, bool) if columns.keep is None else columns.keep
        keep = lax.concatenate([of_batch, extra.keep], 0)
    return Side(
        vectors=both_of(columns.vectors, extra.vectors),
        place=lax.pad(columns.place, jnp.int32(NO_PARTNER), [(0, more, 0)]),
        keep=keep,
        groups=longer(columns.groups, 0),
        grouped=grouped,
        bias=bias,
    )


def statistics_of_matrix(
    form: Form, settings: ContrastiveSettings, rows: Side, columns: Side, scale: Array
) -> tuple[Any, Any]:
    """Statistics of the rows, and of the columns that are their partners: (count,)."""
    count, names = rows.vectors.shape[0], settings.batch_axis_name
    devices = Devices(names=names, ring=settings.ring)
    row_size, column_size = block_shape(settings, rows, columns)
    matrix = Matrix(
        rows=in_blocks(rows, row_size),
        columns=in_blocks(columns, column_size),
        scale=cast(scale, compute_dtype(rows.vectors, columns.vectors)),
    )
    here = lax.axis_index(names) if names else jnp.int32(0)
    matrix = vary(matrix, varying_of((matrix, here)))
    first = 0 if settings.ring else here * count

    def own(blocks: Array) -> Array:
        flat = blocks.reshape(blocks.shape[0] * blocks.shape[1])
        return lax.dynamic_slice_in_dim(flat, first, count)

    of_rows, of_columns = statistics(form, devices, matrix)
    flat = jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1])[:count], of_rows)
    return flat, jax.tree.map(own, of_columns)


def block_shape(
    settings: ContrastiveSettings, rows: Side, columns: Side
) -> tuple[Any, Any]:
    """(rows, columns) of a block."""
    counts = rows.vectors.shape[0], columns.vectors.shape[0]
    # On a CPU a block is to fit its cache, with what is formed of it.
    limits = 512 if settings.platform == "cpu" else 1024, 4096
    width = compute_dtype(rows.vectors, columns.vectors).itemsize
    symbolic = not all(isinstance(n, int) for n in counts)
    if symbolic or counts[0] * counts[1] * width <= SMALL:
        limits = counts
    triples = zip(settings.block_sizes, counts, limits, strict=True)
    row_size, column_size = (
        max(_even(count, limit) if size is None else min(size, count), 1)
        for size, count, limit in triples
    )
    return row_size, column_size


def _even(count: Any, limit: Any) -> Any:
    """The size of equal blocks of at most `limit`, or a few more."""
    if limit is count or count <= limit:
        return count
    blocks = -(-count // limit)
    return -(-count // (8 * blocks)) * 8
