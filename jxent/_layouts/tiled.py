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
from typing import Any, TypeAlias

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
from .._compute.apart import unseen
from .._compute.platform import by_platform
from .._compute.product import dot, product
from .._problem.bad_labels import reported
from .._problem.bundles import Maybe, replace_fields
from .._problem.problem import (
    Head,
    Problem,
    RowLogits,
    Rows,
    Settings,
    Shared,
    one_axis_of_rows,
)
from .._problem.resolved import Resolved
from .._reduction import divided, weighed
from .._statistics.inputs import with_logits
from .._tiles.loop import over_blocks
from .._tiles.rule import Moving, Tiling, tiled_sum
from .mesh import (
    enter,
    gradients_over_devices,
    on_one_device,
    row_spec,
    specs_of,
    vary_fields,
)


Tile: TypeAlias = tuple[Rows, Resolved]
AddGroup: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]


def tiled_total(problem: Problem) -> Array:
    """Σ r · loss over the rows, divided by the normalizer if there is one.

    Each tile's sum is divided, not the total. The total's cotangent is then usually 1,
    and a compiler leaves out the product with it, and a copy of the kernel's gradient.
    """
    settings, resolved = problem.settings, problem.resolved
    everywhere = varying_of(problem.pair)
    rows, shared = (vary_fields(x, everywhere, settings) for x in problem.pair)
    if resolved.classes is not None:
        classes = jnp.broadcast_to(resolved.classes, problem.like.shape[:-1])
        resolved = resolved._replace(classes=classes)
    local = on_one_device(settings)._replace(axis=1)

    def value(shared: Shared, rows: Tile) -> Array:
        return _divided_total(_problem(settings, shared, rows))

    tiling = Tiling(
        loss=functools.partial(_loss_of_tile, local),
        tile=settings.tile,
        live=functools.partial(_live, local),
        value=None if problem.target.needs_every_log_p(problem) else value,
        add_gradients=functools.partial(_add_gradients, local),
        on_devices=functools.partial(_on_devices, settings),
    )
    return reported(tiled_sum(tiling, (shared, (rows, resolved))), problem)


def _problem(settings: Settings, shared: Shared, tile: Tile) -> Problem:
    rows, resolved = tile
    return Problem(settings, rows, shared, resolved)


def _loss_of_tile(settings: Settings, shared: Shared, tile: Tile) -> Array:
    """The sum of a tile's losses, a scalar, from its rows and all classes."""
    problem = with_logits(_problem(settings, shared, tile), bias=False)
    return _divided_total(_unreported(problem))


def _unreported(problem: Problem) -> Problem:
    """Bad labels are reported once, outside of the loop."""
    return problem.with_settings(reports=False)


def _divided_total(problem: Problem) -> Array:
    """Σ r · loss over the rows, a scalar, divided by the normalizer if there is one."""
    normalizer, rows = problem.shared.normalizer, problem.rows
    problem = problem.replace(shared=problem.shared._replace(normalizer=None))
    losses = problem.target.losses(problem).losses
    total = jnp.sum(weighed(losses, problem.resolved.keep, rows.weights))
    return total if normalizer is None else divided(total, normalizer)


def _live(settings: Settings, tile: Tile, moving: Any) -> Maybe:
    """Boolean (rows,): the rows that add something to a sum; None for all.

    A row of weight 0 adds something only if the weights have a tangent.
    """
    _, resolved = tile
    weights_move = moving is not None and moving[0].weights is not None
    live = resolved.keep if weights_move else resolved.weighted
    names = settings.class_axis_name
    if live is None or settings.tile >= live.shape[0] or not settings.skips:
        return None
    if names and varying(live):
        # Devices that meet in a sum must agree on whether to take part.
        count = jnp.sum(live, dtype=jnp.int32)
        missing = lax.pmax(count, tuple(varying(live))) - count
        live |= jnp.cumsum(~live, dtype=jnp.int32) <= missing
    return live


def _add_gradients(
    settings: Settings, moving: Moving, shared: Shared, tile: Tile, carry: Any
) -> tuple[Any, Any]:
    """Adds a tile's value and gradients to `carry`; also returns its rows' gradients.

    `carry` is (total (), [gradients of shared operands]), these in the operands' shapes
    and float32 or better; the gradients of rows are (tile, …).
    """
    rows, resolved = tile
    _, (moving_rows, unmoved) = moving((shared, tile))
    total, (gradients,) = carry
    moved = [
        x.hidden is not None or head.kernel is not None
        for x, head in zip(moving_rows.logits, gradients.heads, strict=True)
    ]
    in_memory, headless = with_logits(_problem(settings, shared, tile), bias=False).pair

    def logits(*, of_moved: bool) -> tuple[RowLogits, ...]:
        pairs = zip(in_memory.logits, moved, strict=True)
        return tuple(x if moves == of_moved else RowLogits() for x, moves in pairs)

    def add_group(sums: Any, here: tuple[Rows, Rows, Resolved]) -> tuple[Any, Any]:
        """Adds the value and the gradients of some rows; g, and those of their options.

        `here` are the logits whose heads move, but for their bias, and the rows.
        """
        z, rows, resolved = here
        of_shared, (of_options, _) = moving((headless, (rows, resolved)))

        def loss(z: Rows, values: Any) -> Array:
            some_shared, some_rows = replaced((headless, rows), values)
            tile = replaced(some_rows, z), resolved
            return _divided_total(_unreported(_problem(settings, some_shared, tile)))

        value, pull = jax.vjp(loss, z, (of_shared, of_options))
        g, (of_shared, of_options) = pull(jnp.ones_like(value))
        of_shared, of_options = as_computed((of_shared, of_options))
        return jax.tree.map(jnp.add, sums, (value, of_shared)), (g, of_options)

    without = tuple(replace_fields(head, kernel=None) for head in gradients.heads)
    sums = total, gradients._replace(heads=without)
    z = Rows(logits=logits(of_moved=True))
    here = z, in_memory._replace(logits=logits(of_moved=False)), resolved
    scattered = rows.target.scattered
    sums, (g, of_options) = _of_rows(add_group, settings.group, scattered, sums, here)
    total, added = sums
    heads, of_logits = list(added.heads), list(of_options.logits)
    for k, head in enumerate(shared.heads):
        if moving_rows.logits[k].hidden is not None:
            factors = g.logits[k].array, head.kernel, head.vocab_axis, head.precision
            of_hidden = product(*factors, transpose=True)
            of_logits[k] = of_logits[k]._replace(hidden=of_hidden)
        of_kernel = gradients.heads[k].kernel
        if of_kernel is not None:
            operands = of_kernel, rows.logits[k].hidden, g.logits[k].array
            of_kernel = _add_product(settings.block, head, *operands)
            heads[k] = replace_fields(heads[k], kernel=of_kernel)
    added = added._replace(heads=tuple(heads))
    of_options = of_options._replace(logits=tuple(of_logits))
    return (total, [added]), [(of_options, unmoved)]


def _of_rows(
    add_group: AddGroup, group: int, scattered: bool, sums: Any, here: Any
) -> tuple[Any, Any]:
    """What `add_group` returns for all rows of a tile; it takes `group` at a time."""

    def in_place(sums: Any, here: Any) -> tuple[Any, Any]:
        sums, (g, of_options) = _by_groups(add_group, group, sums, here)
        return sums, (unseen(g), of_options)

    if group:
        grouped = {"cpu": in_place}
        if scattered:  # g is, which a TPU does into a copy of its array
            grouped["tpu"] = in_place
        return by_platform(sums, here, **grouped, default=add_group)
    sums, (g, of_options) = add_group(sums, here)
    # On a CPU the barrier lets g take the place of the logits in memory; elsewhere it
    # would keep compilers from forming g inside of the products.
    g = by_platform(g, cpu=unseen, default=lambda g: g)
    return sums, (g, of_options)


def _by_groups(
    add_group: AddGroup, group: int, sums: Any, here: Any
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
    end = unseen(jnp.int32(count))
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


def _add_product(block: int, head: Head, total: Array, hidden: Any, g: Array) -> Array:
    """total + hiddenᵀ g, a block of classes at a time: so it takes no memory.

    total is (features, classes) or its transpose, hidden (rows, features), g (rows,
    classes).
    """
    hidden = cast(hidden, total.dtype)
    axis, precision = head.vocab_axis, head.precision
    transposed = hidden.T

    def step(total: Array, start: Any, size: int) -> Array:
        here = lax.dynamic_slice_in_dim(g, start, size, 1)
        if axis:
            here = dot(transposed, here, 1, 0, precision)
        else:
            here = dot(here, hidden, 0, 0, precision)
        old = lax.dynamic_slice_in_dim(total, start, size, axis)
        return lax.dynamic_update_slice_in_dim(total, old + here, start, axis)

    classes = g.shape[1]
    rest = classes % block
    start = classes - rest
    total = over_blocks(step, total, start, block)
    if not rest:
        return total
    # A loop of one step, whose end the compiler does not know: else XLA on a CPU forms
    # the last block of g a second time, and keeps what it is made of beside g.
    end = unseen(jnp.int32(start + 1))
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
        shape = _problem(settings, *trees[0]).like.shape[:-1]
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
