"""Tiles of rows: `tiled_sum` of the loss in memory, with the head's own products.

A tile's logits z = hidden kernel exist once, and with g = ∂loss/∂z, which the loss in
memory gives,

    ∂/∂hidden = g kernelᵀ        ∂/∂kernel += hiddenᵀ g

are formed with the value: three products of the logits' size, none of them twice. On a
CPU g takes the place of z, where options act on logits a group of rows at a time; on a
TPU it does so for several ids a row. The gradient of the kernel is the only thing of
its size; it is summed in float32, a block of classes at a time, so that no product of
its size stands beside it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from .._arrays import (
    as_computed,
    cast,
    replaced,
    sum_over_devices,
    vary,
    varying,
    varying_of,
    zeros_of,
)
from .._problem import (
    Head,
    Maybe,
    Resolved,
    Rows,
    Settings,
    Shared,
    heads_of,
    one_axis_of_rows,
    rows_of_head,
)
from .._product import dot, product
from .._reduction import divided
from .._statistics import with_logits
from .._tiles import Moving, Tiling, over_blocks, tiled_sum
from .losses import needs_every_log_p, reported, total_of
from .mesh import (
    enter,
    gradients_over_devices,
    on_one_device,
    row_spec,
    specs_of,
    vary_fields,
)


def tiled_total(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """Σ r · loss over the rows, divided by the normalizer if there is one.

    Each tile's sum is divided, not the total. The total's cotangent is then usually 1,
    and a compiler leaves out the product with it, and a copy of the kernel's gradient.
    """
    everywhere = varying_of((rows, shared))
    rows, shared = (vary_fields(x, everywhere, settings) for x in (rows, shared))
    if resolved.classes is not None:
        classes = jnp.broadcast_to(resolved.classes, rows_of_head(rows))
        resolved = resolved._replace(classes=classes)
    local = on_one_device(settings)._replace(axis=1)

    def value(shared: Shared, rows: Any) -> Array:
        return _divided_total(settings, rows[0], shared, rows[1])

    tiling = Tiling(
        loss=functools.partial(_loss, local),
        tile=settings.tile,
        live=functools.partial(_live, local),
        value=None if needs_every_log_p(settings, rows, shared) else value,
        add_gradients=functools.partial(_add_gradients, local),
        on_devices=functools.partial(_on_devices, settings),
    )
    total = tiled_sum(tiling, (shared, (rows, resolved)))
    return reported(total, settings, rows, shared, resolved)


def _loss(settings: Settings, shared: Shared, tile: tuple[Rows, Resolved]) -> Array:
    """The sum of a tile's losses, a scalar, from its rows and all classes."""
    rows, resolved = tile
    pair = with_logits(settings, rows, shared, bias=False)
    return _divided_total(_unreported(settings), *pair, resolved)


def _divided_total(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """`total_of` the rows, a scalar, divided by the normalizer if there is one."""
    normalizer, shared = shared.normalizer, shared._replace(normalizer=None)
    total = total_of(settings, rows, shared, resolved)
    return total if normalizer is None else divided(total, normalizer)


def _unreported(settings: Settings) -> Settings:
    """Bad labels are reported once, outside of the loop."""
    return settings._replace(reports=False)


def _live(settings: Settings, tile: tuple[Rows, Resolved], moving: Any) -> Maybe:
    """Boolean (rows,): the rows that add something to a sum; None for all.

    A row of weight 0 adds something only if the weights have a tangent.
    """
    rows, resolved = tile
    weights_move = moving is not None and moving[0].weights is not None
    live = resolved.keep if weights_move else resolved.weighted
    names = settings.class_axis_name
    one_tile = settings.tile >= rows_of_head(rows)[0]
    if live is None or one_tile or not settings.skips:
        return None
    if names and varying(live):
        # Devices that meet in a sum must agree on whether to take part.
        count = jnp.sum(live, dtype=jnp.int32)
        missing = lax.pmax(count, tuple(varying(live))) - count
        live |= jnp.cumsum(~live, dtype=jnp.int32) <= missing
    return live


def _add_gradients(
    settings: Settings,
    moving: Moving,
    shared: Shared,
    tile: tuple[Rows, Resolved],
    carry: Any,
) -> tuple[Any, Any]:
    """Adds a tile's value and gradients to `carry`; also returns its rows' gradients.

    `carry` is (total (), [gradients of shared operands]), these in the operands' shapes
    and float32 or better; the gradients of rows are (tile, …).
    """
    rows, resolved = tile
    _, (moving_rows, unmoved) = moving((shared, tile))
    total, (gradients,) = carry
    heads = [
        head
        for head in heads_of(settings)
        if getattr(moving_rows, head.hidden) is not None
        or getattr(gradients, head.kernel) is not None
    ]
    in_memory, headless = with_logits(settings, rows, shared, bias=False)
    z = Rows(**{head.logits: getattr(in_memory, head.logits) for head in heads})
    fixed = in_memory._replace(**dict.fromkeys(head.logits for head in heads))

    def add_group(sums: Any, here: tuple[Rows, Rows, Resolved]) -> tuple[Any, Any]:
        """Adds the value and the gradients of some rows; g, and those of their options.

        `here` are the logits whose heads move, but for their bias, and the rows.
        """
        z, rows, resolved = here
        of_shared, (of_options, _) = moving((headless, (rows, resolved)))

        def loss(z: Rows, values: Any) -> Array:
            some_shared, some_rows = replaced((headless, rows), values)
            pair = replaced(some_rows, z), some_shared
            return _divided_total(_unreported(settings), *pair, resolved)

        value, pull = jax.vjp(loss, z, (of_shared, of_options))
        g, (of_shared, of_options) = pull(jnp.ones_like(value))
        of_shared, of_options = as_computed((of_shared, of_options))
        return jax.tree.map(jnp.add, sums, (value, of_shared)), (g, of_options)

    def in_place(sums: Any, here: Any) -> tuple[Any, Any]:
        sums, (g, of_options) = _by_groups(add_group, settings.group, sums, here)
        return sums, (lax.optimization_barrier(g), of_options)

    sums = total, gradients._replace(kernel=None, target_kernel=None)
    here = z, fixed, resolved
    if settings.group:
        grouped = {"cpu": in_place}
        if rows.label_ids is not None:  # a TPU scatters into a copy of its array
            grouped["tpu"] = in_place
        sums, made = lax.platform_dependent(sums, here, **grouped, default=add_group)
        g, of_options = made
    else:
        sums, (g, of_options) = add_group(sums, here)
        # On a CPU the barrier lets g take the place of the logits in memory; elsewhere
        # it would keep compilers from forming g inside of the products.
        g = lax.platform_dependent(g, cpu=lax.optimization_barrier, default=lambda g: g)
    total, added = sums
    for head in heads:
        added, of_options = _with_products(
            settings, head, moving_rows, (rows, shared), gradients, g, added, of_options
        )
    return (total, [added]), [(of_options, unmoved)]


def _with_products(
    settings: Settings,
    head: Head,
    moving: Rows,
    pair: tuple[Rows, Shared],
    gradients: Shared,
    g: Rows,
    added: Shared,
    of_rows: Rows,
) -> tuple[Shared, Rows]:
    """Adds a head's share to the gradients: hiddenᵀ g and g kernelᵀ.

    `g` holds the gradients of its logits, (rows, classes). hiddenᵀ g is added to the
    kernel's in `gradients`, (features, classes) or its transpose, and put in `added`;
    g kernelᵀ, (rows, features), in `of_rows`.
    """
    rows, shared = pair
    of_logits, kernel = getattr(g, head.logits), getattr(shared, head.kernel)
    if getattr(moving, head.hidden) is not None:
        axis, precision = head.vocab_axis, head.precision
        of_hidden = product(of_logits, kernel, axis, precision, transpose=True)
        of_rows = of_rows._replace(**{head.hidden: of_hidden})
    of_kernel = getattr(gradients, head.kernel)
    if of_kernel is not None:
        hidden = getattr(rows, head.hidden)
        of_kernel = _add_product(settings, head, of_kernel, hidden, of_logits)
        added = added._replace(**{head.kernel: of_kernel})
    return added, of_rows


def _by_groups(
    add_group: Callable[[Any, Any], tuple[Any, Any]], group: int, sums: Any, here: Any
) -> tuple[Any, Any]:
    """Calls `add_group` on `group` rows at a time, and writes g in place of the logits.

    `here` are the logits (rows, classes) and trees of arrays (rows, …). Returns what
    `add_group` of all of them would.

    What is formed between the two is as large as a group, whatever the options, and
    stays in a CPU's cache or a TPU's vector memory.
    """
    count = jax.tree.leaves(here)[0].shape[0]
    # More than any start, which a compiler does not know. Were the work not behind a
    # condition, XLA would read logits in several places, not see that all of these come
    # before g is written, and copy the logits of the tile for every group.
    end = lax.optimization_barrier(jnp.int32(count))
    _, (_, unwritten) = zeros_of(add_group, sums, here)

    def step(state: Any, start: Any, size: int) -> Any:
        sums, z, written = state
        part = jax.tree.map(
            lambda x: lax.dynamic_slice_in_dim(x, start, size), (z, *here[1:])
        )
        nothing = zeros_of(lambda: add_group(sums, part)[1])
        sums, new = lax.cond(
            start < end, add_group, lambda sums, _: (sums, nothing), sums, part
        )
        z, written = jax.tree.map(
            lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, 0),
            (z, written),
            new,
        )
        return sums, z, written

    sums, g, written = over_blocks(step, (sums, here[0], unwritten), count, group)
    return sums, (g, written)


def _add_product(
    settings: Settings, head: Head, total: Array, hidden: Any, g: Array
) -> Array:
    """total + hiddenᵀ g, a block of classes at a time: so it takes no memory.

    total is (features, classes) or its transpose, hidden (rows, features), g (rows,
    classes).
    """
    hidden = cast(hidden, total.dtype)
    axis, precision = head.vocab_axis, head.precision
    transposed = hidden.T

    def step(total: Array, start: Any, size: int) -> Array:
        block = lax.dynamic_slice_in_dim(g, start, size, 1)
        if axis:
            here = dot(transposed, block, 1, 0, precision)
        else:
            here = dot(block, hidden, 0, 0, precision)
        old = lax.dynamic_slice_in_dim(total, start, size, axis)
        return lax.dynamic_update_slice_in_dim(total, old + here, start, axis)

    classes = g.shape[1]
    rest = classes % settings.block
    start = classes - rest
    total = over_blocks(step, total, start, settings.block)
    if not rest:
        return total
    # A loop of one step, whose end the compiler does not know: else XLA on a CPU forms
    # the last block of g a second time, and keeps what it is made of beside g.
    end = lax.optimization_barrier(jnp.int32(start + 1))
    return lax.fori_loop(start, end, lambda at, total: step(total, at, rest), total)


def _on_devices(
    settings: Settings, body: Any, moving: Moving | None, *trees: Any
) -> tuple[Array, list[Any]]:
    """Calls `body` on each device's part, with one axis of rows, and sums over devices.

    Each of `trees` is (shared, (rows, resolved)). Returns what `body` returns: the sum,
    and gradients in the shapes of the operands, or [] where nothing has a tangent.
    """
    sharding = settings.sharding
    spec = row_spec(sharding)

    def specs(tree: Any) -> Any:
        shared, (rows, resolved) = tree
        of_resolved = jax.tree.map(
            lambda x: spec if x.ndim else PartitionSpec(), resolved
        )
        return specs_of(settings, shared), (specs_of(settings, rows), of_resolved)

    in_specs = tuple(map(specs, trees))

    def on_device(*trees: Any) -> tuple[Array, list[Any]]:
        shape = rows_of_head(trees[0][1][0])
        operands = trees[0]

        def flat(tree: Any) -> Any:
            shared, (rows, resolved) = tree
            of_rows = one_axis_of_rows(rows, shape), one_axis_of_rows(resolved, shape)
            return shared, of_rows

        trees = tuple(map(flat, trees))
        everywhere = varying_of(trees)
        few = everywhere - set(on_one_device(settings).class_axis_name)

        def varied(tree: Any) -> Any:
            shared, (rows, resolved) = tree
            shared, rows = (
                vary_fields(x, everywhere, on_one_device(settings))
                for x in (shared, rows)
            )
            return shared, (rows, vary(resolved, few))

        sums, gradients = body(*map(varied, trees))
        names = sharding.row_names
        total = sum_over_devices(sums, names)

        def summed(gradient: Any) -> Any:
            of_shared, (of_rows, unmoved) = gradient
            of_rows = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), of_rows)
            shared, (rows, _) = operands
            shared_specs, (specs_of_rows, _) = in_specs[0]
            of_shared = gradients_over_devices(
                settings, of_shared, shared, shared_specs
            )
            of_rows = gradients_over_devices(settings, of_rows, rows, specs_of_rows)
            return of_shared, (of_rows, unmoved)

        return total, [summed(g) for g in gradients]

    out_specs = (PartitionSpec(), [] if moving is None else [moving(in_specs[0])])
    return enter(sharding, on_device, trees, in_specs, out_specs)
