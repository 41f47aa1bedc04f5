"""Row statistics of logits, in memory or streamed, with one derivative rule.

In memory one block is all classes. Streamed, a scan merges the statistics of blocks of
hidden @ kernel, so that one block of logits exists at a time.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    as_computed,
    cast,
    moving_of,
    select,
    sum_over_devices,
    vary,
    varying,
    varying_of,
    zeros_of,
)
from .._problem import (
    NO_CLASS,
    Maybe,
    Resolved,
    Rows,
    Settings,
    Shared,
    class_block,
    class_count,
    has_head,
    is_class,
    local_ids,
    one_axis_of_rows,
    rows_of_head,
)
from .._statistics import (
    Inputs,
    Totals,
    finish,
    inputs_of_block,
    merge,
    merge_devices,
    of_no_class,
    tangent_of_block,
    totals_of_block,
)
from .._tiles import live_first, over_blocks, over_tiles
from .mesh import enter, on_one_device, row_spec, specs_of


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def totals(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Totals:
    """The finished statistics (rows,), over all devices that split the classes."""
    if has_head(rows):
        t = _enter(settings, _totals_streamed, rows, shared, _per_row(resolved))
    else:
        t = _totals_in_memory(settings, rows, shared, resolved)
    return finish(t, resolved)


# The tangent is the sum of the blocks' tangents, each linear in the tangents of rows
# and shared operands (see _statistics/tangent.py), which JAX transposes.
#
# In memory it is one block. The checkpoint makes the raw inputs the only residuals:
# without it a bfloat16 loss would keep float32 arrays of the logits' shape from forward
# to backward. prevent_cse=False lets XLA still share the exponentials of value and
# gradient.
#
# Streamed, the logits z of a block are a function of hidden h, of the block's part K of
# the kernel and, if there is one, b of the bias. With g = ∂loss/∂z of the block,
#
#     z  = h K + b
#     dz = dh K + h dK + db
#     ∂/∂h += g Kᵀ        ∂/∂K = hᵀ g        ∂/∂b = Σ g over the rows
#
# are the function, its differential, and the transpose of that.
#
# Classes are the outer loop, so that a block's share of the kernel's gradient is
# complete when it is left: one product over all rows, or a sum over tiles of them in
# float32. ∂/∂hidden is carried from block to block, in float32. The checkpoint of a
# block makes the transpose form its logits again, too: four products of the logits'
# size where logits in memory need three.
@functools.partial(totals.defjvp, symbolic_zeros=True)
def _totals_jvp(settings: Settings, primals: Any, tangents: Any) -> Any:
    rows, shared, resolved = primals
    moving = moving_of(tangents[:2])
    t = totals(settings, rows, shared, resolved)
    if t.top is not None:  # from here on these ids are fixed
        resolved = resolved._replace(ids=t.top)
    operands = rows, shared, resolved, t, *moving
    sums = over_all_classes(settings, _tangent_of_block, *operands)
    zeros = jax.tree.map(jax.custom_derivatives.zero_from_primal, t)
    moved = {
        name: vary(x, varying(getattr(t, name)))
        for name, x in sums._asdict().items()
        if x is not None
    }
    return t, zeros._replace(**moved)


# of_block(settings, pair, moving, ids, resolved, per row) -> a tree of arrays (rows,)
OfBlock: TypeAlias = Callable[..., Any]


def over_all_classes(
    settings: Settings,
    of_block: OfBlock,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    per_row: Any,
    row_tangents: Rows,
    tangents: Shared,
) -> Any:
    """Σ `of_block` over the blocks of all classes, on all devices that split them.

    `per_row` is a tree of arrays (rows,). The tangents are None where nothing moves;
    the sum may be linear in them.
    """
    operands = per_row, row_tangents, tangents
    if not has_head(rows):
        return _sum_in_memory(settings, of_block, rows, shared, resolved, *operands)
    body = functools.partial(_sum_for_platform, of_block)
    return _enter(settings, body, rows, shared, _per_row(resolved), *operands)


def _per_row(resolved: Resolved) -> Resolved:
    """`resolved` without `classes`, which may be one number for all rows."""
    return resolved._replace(classes=None)


def as_points(pair: Any, moving: Any) -> Any:
    """The pair, with each array that has a tangent cast to the tangent's dtype."""
    return jax.tree.map(
        lambda m, x: x if m is None else cast(x, m.dtype),
        moving,
        pair,
        is_leaf=lambda m: m is None,
    )


def _tangent_of_block(
    settings: Settings,
    pair: tuple[Rows, Shared],
    moving: tuple[Rows, Shared],
    ids: Maybe,
    resolved: Resolved,
    t: Totals,
) -> Totals:
    """`tangent_of_block`, (rows,), in float32 or better.

    `ids`, (rows,) or (rows, places), are counted from the block's first class.
    """
    moving = as_computed(moving)
    pair = as_points(pair, moving)
    return tangent_of_block(settings, pair, moving, ids, resolved, t)


# In memory ----------------------------------------------------------------------------


def _local(settings: Settings, resolved: Resolved, classes: int) -> Maybe:
    """The class ids, (rows,) or (rows, places), as this device counts them."""
    ids = resolved.ids
    return None if ids is None else local_ids(settings, ids, classes)


def _totals_in_memory(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Totals:
    """The totals (rows,) of logits (…, classes, …) in memory, before `finish`."""
    assert rows.logits is not None
    classes = rows.logits.shape[settings.axis]
    ids = _local(settings, resolved, classes)
    inputs = inputs_of_block(settings, rows, shared, ids)
    t = totals_of_block(settings, inputs, ids, resolved.weighted)
    if settings.class_axis_name:
        t = merge_devices(t, classes, settings.class_axis_name, settings.top_k)
    return t


def _sum_in_memory(
    settings: Settings,
    of_block: OfBlock,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    per_row: Any,
    row_tangents: Rows,
    tangents: Shared,
) -> Any:
    """`over_all_classes` of logits (…, classes, …) in memory, which are one block."""
    assert rows.logits is not None
    ids = _local(settings, resolved, rows.logits.shape[settings.axis])

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_all(*operands: Any) -> Any:
        return of_block(settings, *operands)

    moving = row_tangents, tangents
    sums = of_all((rows, shared), moving, ids, resolved, per_row)
    return sum_over_devices(sums, settings.class_axis_name)


# Streamed -----------------------------------------------------------------------------


def _enter(
    settings: Settings,
    body: Callable[..., Any],
    rows: Rows,
    shared: Shared,
    *more: Any,
) -> Any:
    """`body` of each device's part of the operands, with one axis of rows.

    `more` are bundles, or trees of arrays (rows,) such as totals.
    """
    spec = row_spec(settings.sharding)

    def specs(tree: Any) -> Any:
        if isinstance(tree, Rows | Shared):
            return specs_of(settings, tree)
        return jax.tree.map(lambda _: spec, tree)

    def on_device(*operands: Any) -> Any:
        shape = rows_of_head(operands[0])
        operands = tuple(one_axis_of_rows(tree, shape) for tree in operands)
        operands = vary(operands, varying_of(operands))
        results = body(on_one_device(settings)._replace(axis=1), *operands)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), results)

    operands = (rows, shared, *more)
    in_specs = tuple(map(specs, operands))
    return enter(settings.sharding, on_device, operands, in_specs, spec)


def _block_ids(
    settings: Settings, resolved: Resolved, classes: int, start: Array | int
) -> Maybe:
    """Class ids as a block counts them; out of range for labels of other blocks."""
    ids = _local(settings, resolved, classes)
    return None if ids is None else select(is_class(ids), ids - start, NO_CLASS)


def _live(settings: Settings, rows: Rows, resolved: Resolved) -> Maybe:
    """Boolean (rows,), False for rows that tiles may skip; None where none may be.

    A row of weight 0 may not: its statistics are the derivative in that weight, and the
    tangents of its statistics those of the logits' gradient in that weight.
    """
    one_tile = settings.tile >= rows_of_head(rows)[0]
    return None if one_tile or not settings.skips else resolved.keep


def _totals_streamed(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Totals:
    """The totals (rows,) of hidden (rows, features) @ kernel, before `finish`.

    Tiles of rows are the outer loop here, blocks of classes the inner one.
    """
    total = class_count(settings, rows, shared)
    size = min(settings.block, total)

    def of_tile(carry: None, part: tuple[Rows, Resolved]) -> tuple[None, Totals]:
        rows, resolved = part

        def inputs_at(start: Array, size: int) -> Inputs:
            ids = _block_ids(settings, resolved, total, start)
            here, block = (
                class_block(settings, x, start, size) for x in (rows, shared)
            )
            return inputs_of_block(settings, here, block, ids)

        @functools.partial(jax.jit, static_argnums=1, inline=True)
        def of_block(start: Array, size: int) -> Totals:
            ids = _block_ids(settings, resolved, total, start)
            if settings.piece:
                inputs = _by_pieces(settings.piece, inputs_at, start, size)
            else:
                inputs = inputs_at(start, size)
            t = totals_of_block(settings, inputs, ids, resolved.weighted)
            return t._replace(
                argmax=None if t.argmax is None else t.argmax + start,
                top=None if t.top is None else t.top + start,
            )

        if size == total:
            return carry, of_block(0, size)
        first: Totals = zeros_of(lambda: of_block(0, size))
        first = jax.tree.map(jnp.full_like, first, of_no_class(first))
        merged = over_blocks(
            lambda t, start, size: merge(t, of_block(start, size)), first, total, size
        )
        return carry, merged

    live = _live(settings, rows, resolved)
    (rows, resolved), live, unsorted = live_first((rows, resolved), live)
    _, t = over_tiles(of_tile, None, (rows, resolved), settings.tile, live)
    t = unsorted(_without_zero_sums(t))
    names = settings.class_axis_name
    return merge_devices(t, total, names, settings.top_k) if names else t


def _without_zero_sums(t: Totals) -> Totals:
    """Sets the sums of skipped rows to 1, because `log` of them follows."""

    def one(x: Maybe) -> Maybe:
        return None if x is None else select(x != 0, x, 1)

    return t._replace(sum=one(t.sum), target_sum=one(t.target_sum))


def _by_pieces(
    piece: int, inputs_at: Callable[[Any, int], Inputs], start: Array, size: int
) -> Inputs:
    """A block's logits, a piece of its classes at a time: on a CPU each product copies
    its part of the kernel."""
    z = zeros_of(lambda: inputs_at(start, size).z)

    def step(z: Array, first: Any, size: int) -> Array:
        here = inputs_at(start + first, size).z
        return lax.dynamic_update_slice_in_dim(z, here, first, 1)

    return Inputs(z=over_blocks(step, z, size, piece))


def _sum_for_platform(of_block: OfBlock, settings: Settings, *operands: Any) -> Any:
    """`_sum_streamed`, on a CPU with a kernel's tangent in float32.

    Its transpose adds each block's gradient to that of the whole kernel. In bfloat16
    XLA on a CPU would do so by casting the whole, for every block.
    """

    def of(operands: Any) -> Any:
        return _sum_streamed(settings, of_block, *operands)

    def of_wide(operands: Any) -> Any:
        return of((*operands[:-1], as_computed(operands[-1])))

    tangents: Shared = operands[-1]
    kernels = tangents.kernel, tangents.target_kernel
    if all(as_computed(kernel) is kernel for kernel in kernels):
        return of(operands)
    return lax.platform_dependent(operands, cpu=of_wide, default=of)


def _sum_streamed(
    settings: Settings,
    of_block: OfBlock,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    per_row: Any,
    row_tangents: Rows,
    tangents: Shared,
) -> Any:
    """`over_all_classes` of hidden (rows, features) @ kernel: a tree of sums (rows,).

    Blocks of classes are the outer loop, tiles of rows the inner one.
    """
    total = class_count(settings, rows, shared)
    size = min(settings.block, total)
    row_tangents = as_computed(row_tangents)  # the sum over blocks is in float32
    everything = (rows, resolved, per_row, row_tangents)
    live = _live(settings, rows, resolved)
    everything, live, unsorted = live_first(everything, live)

    @functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(5,))
    def of_classes(
        fixed: Any,
        row_tangents: Rows,
        shared: Shared,
        tangents: Shared,
        start: Any,
        size: int,
    ) -> Any:
        rows, resolved, per_row, live = fixed
        block = functools.partial(class_block, settings, start=start, size=size)
        tangent_block = functools.partial(block, linear=True)
        shared, tangents = block(shared), as_computed(tangent_block(tangents))

        def of_tile(carry: None, part: Any) -> tuple[None, Any]:
            rows, resolved, per_row, row_tangents = part
            ids = _block_ids(settings, resolved, total, start)
            pair = block(rows), shared
            moving = tangent_block(row_tangents), tangents
            return carry, of_block(settings, pair, moving, ids, resolved, per_row)

        part = (rows, resolved, per_row, row_tangents)
        return over_tiles(of_tile, None, part, settings.tile, live, remember=False)[1]

    rows, resolved, per_row, row_tangents = everything
    fixed = (rows, resolved, per_row, live)
    # vmap makes the condition on live rows a select, of its operands too: all of them
    # must vary as the rows do.
    everywhere = varying_of((fixed, shared, row_tangents, tangents))

    def at(start: Any, size: int) -> Any:
        start = vary(jnp.asarray(start, jnp.int32), everywhere)
        return of_classes(fixed, row_tangents, shared, tangents, start, size)

    sums = over_blocks(
        lambda sums, start, size: jax.tree.map(lax.add, sums, at(start, size)),
        zeros_of(lambda: at(0, size)),
        total,
        size,
    )
    return sum_over_devices(unsorted(sums), settings.class_axis_name)
