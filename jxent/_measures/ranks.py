"""Whether a label is among the k classes of the largest logits, without a sort.

A class is *ahead* of the label if its logit is larger, or equal with a smaller id. The
label is among the first k if fewer than k classes are ahead. A class of −inf, which is
impossible, is ahead of none.
"""

import functools

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    Size,
    cast,
    is_split,
    over_classes,
    select,
    sharded_like,
    vary,
    varying_of,
)
from .._compute.chunks import (
    CHUNK,
    holds_nan,
    largest_along,
    max_along,
    maxima_of_chunks,
)
from .._compute.forms import on_cpu
from .._compute.platform import by_platform
from .._compute.reading import slices_along
from .._layouts.choice import FEWEST_ROWS
from .._layouts.mesh import of_parts
from .._problem.ids import at_label, first_class, ids_from
from .._problem.problem import Problem, Rows, one_axis_of_rows
from .._problem.resolved import Resolved, is_class
from .._statistics.inputs import inputs_of_block
from .._tiles.loop import live_first, over_tiles


# Top 1 and top 5 do the same work, so that one program with both does it once.
_SHARED = 5


def is_among_first(k: int, batch: Problem) -> Array:
    """1 or 0 (rows,); NaN where the loss is NaN. Its derivative is 0."""
    assert batch.resolved.ids is not None
    k = min(k, 2**31 - 1)  # which counts of classes are compared with
    first = _first_or_nan(k, batch.with_pair(lax.stop_gradient(batch.pair)))
    return select(is_class(batch.resolved.ids), first, jnp.nan)


def _first_or_nan(k: int, batch: Problem) -> Array:
    """As above, but for bad labels."""
    if not batch.has_head:
        return _in_memory(k, batch)

    def on_device(problem: Problem) -> Array:
        shape = problem.like.shape[:-1]
        problem = one_axis_of_rows(problem, shape).with_settings(axis=1)
        problem = vary(problem, varying_of(problem))
        return _of_tiles(k, problem).reshape(shape)

    return of_parts(on_device, batch)


def _of_tiles(k: int, batch: Problem) -> Array:
    """A tile of rows with the logits of all its classes at a time."""
    settings, classes = batch.settings, batch.like.shape[batch.axis]
    tile = settings.tile
    if isinstance(tile, int):  # as many logits as a block has; but a product needs rows
        tile = min(tile, max(tile * settings.block // classes, FEWEST_ROWS))

    def step(carry: None, part: tuple[Rows, Resolved]) -> tuple[None, Array]:
        rows, resolved = part
        return carry, _in_memory(k, batch.replace(rows=rows, resolved=resolved))

    # Devices that meet in a sum must agree on which tiles they skip.
    live = None if settings.class_axis_name else batch.resolved.keep
    part, live, unsorted = live_first((batch.rows, batch.resolved), live)
    return unsorted(over_tiles(step, None, part, tile, live)[1])


def _in_memory(k: int, batch: Problem) -> Array:
    ids, axis, names = batch.resolved.ids, batch.axis, batch.settings.class_axis_name
    assert ids is not None
    z = inputs_of_block(batch, first_class(batch)).z
    counted = functools.partial(_by_count, k, batch)
    if k > 1 or names or is_split(z):
        return counted(z, ids)
    predicted = functools.partial(_by_prediction, axis)
    classes = z.shape[axis]  # which may be symbolic
    many = isinstance(classes, int) and classes > CHUNK
    of_cpu = counted if many else predicted
    return by_platform(z, ids, cpu=of_cpu, default=predicted)


def _by_prediction(axis: int, z: Array, ids: Array) -> Array:
    """Whether the label is the class of the largest logit, read once."""
    largest, predicted = largest_along(z, axis)
    first = cast(lax.eq(predicted, ids), z.dtype)
    return select(lax.is_finite(largest), first, jnp.nan)


def _by_count(k: int, batch: Problem, z: Array, ids: Array) -> Array:
    """Whether fewer than k classes are ahead of the label."""
    axis, names = batch.axis, batch.settings.class_axis_name
    label = at_label(batch, z, ids)
    here = ids_from(ids, first_class(batch))
    most = max(k, _SHARED)
    largest = max_along(z, axis)
    nan = holds_nan(z, axis)
    computable = lax.is_finite(largest) & ~nan
    if names:
        bad = lax.psum(cast(nan, jnp.int32), names)
        computable = lax.is_finite(lax.pmax(largest, names)) & (bad == 0)
        first = lax.psum(_count_ahead(axis, z, label, here), names) < k
    elif is_split(z) or not _has_more_chunks(z.shape[axis], most):
        first = _count_ahead(axis, z, label, here) < k
    else:
        ahead = on_cpu(
            z,
            label,
            here,
            form=functools.partial(_count_few_ahead, axis, most),
            default=functools.partial(_count_ahead, axis),
            alone=True,
        )
        first = ahead < k
    return select(computable, cast(first, z.dtype), jnp.nan)


def _is_ahead(z: Array, classes: Array, label: Array, ids: Array) -> Array:
    lowest = lax.full_like(label, jnp.finfo(label.dtype).min)
    label = lax.max(label, lowest)  # −inf is ahead of none
    return (z > label) | ((z == label) & (classes < ids))


def _count_ahead(axis: int, z: Array, label: Array, ids: Array) -> Array:
    classes = sharded_like(lax.broadcasted_iota(jnp.int32, z.shape, axis), z)
    label, ids = (over_classes(x, axis, z) for x in (label, ids))
    return jnp.sum(_is_ahead(z, classes, label, ids), axis, dtype=jnp.int32)


def _has_more_chunks(classes: Size, most: int) -> bool:
    """Whether the classes make more than `most` chunks; not if they are symbolic."""
    known = isinstance(classes, int)
    return known and most * _chunk_size(classes, most) < classes


def _chunk_size(classes: int, most: int) -> int:
    """The classes of a chunk: `most` chunks hold as many as there are chunks, or more,
    so that neither the chunks nor the classes that are compared are very many."""
    size = CHUNK
    while most * size**2 < classes:
        size *= 2
    return size


def _count_few_ahead(axis: int, most: int, z: Array, label: Array, ids: Array) -> Array:
    """The number of classes ahead, or if they are `most` or more any such number.

    XLA on a CPU would store a comparison of all logits. Classes ahead lie in chunks
    whose maximum is ahead. Of such chunks, the label's own apart, `most` are enough;
    if there are fewer, they are all that is compared. There must be more chunks.
    """
    classes = z.shape[axis]
    size = _chunk_size(classes, most)
    # In two steps: the maximum of the row has taken the first.
    largest = maxima_of_chunks(maxima_of_chunks(z, axis), axis, size // CHUNK)
    largest = jnp.moveaxis(largest, axis, -1)
    chunks = lax.broadcasted_iota(jnp.int32, largest.shape, largest.ndim - 1)
    label, ids = label[..., None], ids[..., None]
    ahead = _is_ahead(largest, chunks, label, ids // size + 1)  # the own one, too
    # As floats: XLA would sort integers.
    order = select(ahead, -cast(chunks, z.dtype), -jnp.inf)
    first = -lax.top_k(order, most + 1)[0]
    found = lax.is_finite(first)
    enough = select(found[..., most], jnp.full_like(ids[..., 0], most))
    found = found[..., :most]
    first = cast(select(found, first[..., :most]), jnp.int32) * size
    start = lax.min(first, lax.full_like(first, classes - size))
    here = slices_along(z, start, size, axis)
    at = start[..., None] + lax.broadcasted_iota(jnp.int32, here.shape, here.ndim - 1)
    ahead = _is_ahead(here, at, label[..., None], ids[..., None])
    ahead &= found[..., None] & (at >= first[..., None])
    return enough + jnp.sum(ahead, (-2, -1), dtype=jnp.int32)
