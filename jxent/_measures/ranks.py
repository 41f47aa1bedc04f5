"""Whether a label is among the k classes of the largest logits, without a sort.

A class is *ahead* of the label if its logit is larger, or equal with a smaller id. The
label is among the first k if fewer than k classes are ahead. A class of −inf, which is
impossible, is ahead of none.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    cast,
    is_split,
    over_classes,
    select,
    sharded_like,
    slices_along,
    vary,
    varying_of,
)
from .._chunks import CHUNK, max_along, maxima_of_chunks
from .._layouts.choice import FEWEST_ROWS
from .._layouts.mesh import enter, on_one_device, row_spec, specs_of
from .._problem import (
    Resolved,
    Rows,
    Settings,
    Shared,
    at_label,
    is_class,
    local_ids,
    one_axis_of_rows,
)
from .._statistics import inputs_of_block
from .._tiles import live_first, over_tiles


# Top 1 and top 5 do the same work, so that one program with both does it once.
_SHARED = 5


def is_among_first(
    k: int, settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """1 or 0 (rows,); NaN where the loss is NaN. Its derivative is 0."""
    assert resolved.ids is not None
    first = _first_or_nan(k, settings, *lax.stop_gradient((rows, shared)), resolved)
    return select(is_class(resolved.ids), first, jnp.nan)


def _first_or_nan(
    k: int, settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """As above, but for bad labels."""
    if rows.logits is not None:
        return _in_memory(k, settings, rows, shared, resolved)

    def on_device(rows: Rows, shared: Shared, resolved: Resolved) -> Array:
        assert rows.hidden is not None
        shape = rows.hidden.shape[:-1]
        rows = one_axis_of_rows(rows, shape)
        resolved = jax.tree.map(lambda x: x.reshape(math.prod(shape)), resolved)
        operands = rows, shared, resolved
        operands = vary(operands, varying_of(operands))
        local = on_one_device(settings)._replace(axis=1)
        return _of_tiles(k, local, *operands).reshape(shape)

    resolved = resolved._replace(classes=None)
    spec = row_spec(settings.sharding)
    specs = (
        specs_of(settings, rows),
        specs_of(settings, shared),
        jax.tree.map(lambda _: spec, resolved),
    )
    return enter(settings.sharding, on_device, (rows, shared, resolved), specs, spec)


def _of_tiles(
    k: int, settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """A tile of rows with the logits of all its classes at a time."""
    assert shared.kernel is not None
    classes = shared.kernel.shape[settings.vocab_axis]
    tile = settings.tile
    if isinstance(tile, int):  # as many logits as a block has; but a product needs rows
        tile = min(tile, max(tile * settings.block // classes, FEWEST_ROWS))

    def step(carry: None, part: tuple[Rows, Resolved]) -> tuple[None, Array]:
        rows, resolved = part
        return carry, _in_memory(k, settings, rows, shared, resolved)

    # Devices that meet in a sum must agree on which tiles they skip.
    live = None if settings.class_axis_name else resolved.keep
    part, live, unsorted = live_first((rows, resolved), live)
    return unsorted(over_tiles(step, None, part, tile, live)[1])


def _in_memory(
    k: int, settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    assert resolved.ids is not None
    axis, names, ids = settings.axis, settings.class_axis_name, resolved.ids
    z = inputs_of_block(settings, rows, shared).z
    label = at_label(settings, z, ids, z)
    here = local_ids(settings, ids, z.shape[axis])
    most = max(k, _SHARED)
    largest = max_along(z, axis)
    computable = lax.is_finite(largest)
    if names:
        bad = lax.psum(cast(largest != largest, jnp.int32), names)  # lost by pmax
        computable = lax.is_finite(lax.pmax(largest, names)) & (bad == 0)
        first = lax.psum(_count_ahead(axis, z, label, here), names) < k
    elif is_split(z) or most * _chunk_size(z.shape[axis], most) >= z.shape[axis]:
        first = _count_ahead(axis, z, label, here) < k
    else:
        ahead = lax.platform_dependent(
            z,
            label,
            here,
            cpu=functools.partial(_count_few_ahead, axis, most),
            default=functools.partial(_count_ahead, axis),
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
