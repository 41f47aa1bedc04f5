"""Row statistics of logits, in memory or streamed, with one derivative rule.

In memory one block is all classes. Streamed, a scan merges the statistics of blocks of
hidden @ kernel, so that one block of logits exists at a time.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    as_computed,
    moving_of,
    sum_over_devices,
    vary,
    varying,
    varying_of,
    zeros_of,
)
from .._compute.platform import by_platform
from .._problem.bundles import Maybe, class_block
from .._problem.ids import first_class
from .._problem.problem import Problem, Rows, Shared
from .._problem.resolved import Resolved
from .._statistics.block import totals_of_block
from .._statistics.inputs import Inputs, inputs_of_block
from .._statistics.tangent import or_zeros, tangent_of_block
from .._statistics.totals import Totals, finish, merge, merge_devices, of_nothing
from .._tiles.loop import live_first, over_blocks, over_tiles
from .in_memory import OfBlock, Tangents, sum_in_memory, totals_in_memory, with_one_axis
from .mesh import of_parts


@jax.custom_jvp
def totals(problem: Problem) -> Totals:
    """The finished statistics (rows,), over all devices that split the classes."""
    if problem.has_head:
        t = of_parts(with_one_axis(_totals_streamed), problem)
    else:
        t = totals_in_memory(problem)
    return finish(t, problem.resolved)


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
def _totals_jvp(primals: Any, tangents: Any) -> Any:
    (problem,), (moved,) = primals, tangents
    t, moving = totals(problem), moving_of(moved.pair)
    sums = over_all_classes(tangent_of_block, problem, moving, t)
    zeros = jax.tree.map(jax.custom_derivatives.zero_from_primal, t)
    varied = jax.tree.map(
        lambda x, y: None if x is None else vary(x, varying(y)),
        sums,
        t,
        is_leaf=lambda x: x is None,
    )
    return t, or_zeros(varied, zeros)


def over_all_classes(
    of_block: OfBlock,
    problem: Problem,
    moving: Tangents | None = None,
    per_row: Any = (),
    *,
    shares_nothing: bool = False,
) -> Any:
    """Σ `of_block` over the blocks of all classes, on all devices that split them.

    `per_row` is a tree of arrays (rows,). The sum may be linear in what moves.
    `shares_nothing` is said of `of_block`: in memory it then needs no groups of rows.
    """
    if not problem.has_head:
        return sum_in_memory(of_block, problem, moving, per_row, shares_nothing)
    nothing: Tangents = jax.tree.map(lambda _: None, problem.pair)
    operands = problem, nothing if moving is None else moving, per_row
    body = functools.partial(_sum_for_platform, of_block)
    return of_parts(with_one_axis(body), *operands)


# Streamed -----------------------------------------------------------------------------


def _live(problem: Problem) -> Maybe:
    """Boolean (rows,), False for rows that tiles may skip; None where none may be.

    A row of weight 0 may not: its statistics are the derivative in that weight, and the
    tangents of its statistics those of the logits' gradient in that weight.
    """
    one_tile = problem.settings.tile >= problem.like.shape[0]
    return None if one_tile or not problem.settings.skips else problem.resolved.keep


def _totals_streamed(problem: Problem) -> Totals:
    """The totals (rows,) of hidden (rows, features) @ kernel, before `finish`.

    Tiles of rows are the outer loop here, blocks of classes the inner one.
    """
    settings, total = problem.settings, problem.like.shape[problem.axis]
    size = min(settings.block, total)

    def of_tile(carry: None, part: tuple[Rows, Resolved]) -> tuple[None, Totals]:
        tile = problem.replace(rows=part[0], resolved=part[1])

        def inputs_at(start: Maybe, size: int) -> Inputs:
            at = 0 if start is None else start
            rows, shared = (class_block(x, at, size) for x in tile.pair)
            block = tile.with_pair((rows, shared))
            return inputs_of_block(block, first_class(tile, start))

        @functools.partial(jax.jit, static_argnums=1, inline=True)
        def of_block(start: Maybe, size: int) -> Totals:
            if settings.piece:
                inputs = _by_pieces(settings.piece, inputs_at, start, size)
                inputs = dataclasses.replace(inputs, first=first_class(tile, start))
            else:
                inputs = inputs_at(start, size)
            return totals_of_block(tile.axis, inputs)

        if size == total:
            return carry, of_block(None, size)
        nothing: Totals = zeros_of(lambda: of_block(jnp.int32(0), size))
        nothing = jax.tree.map(jnp.full_like, nothing, of_nothing(nothing))
        merged = over_blocks(
            lambda t, start, size: merge(t, of_block(start, size)), nothing, total, size
        )
        return carry, merged

    part = problem.rows, problem.resolved
    part, live, unsorted = live_first(part, _live(problem))
    _, t = over_tiles(of_tile, None, part, settings.tile, live)
    t, names = unsorted(t), settings.class_axis_name
    return merge_devices(t, names) if names else t


def _by_pieces(
    piece: int, inputs_at: Callable[[Any, int], Inputs], start: Maybe, size: int
) -> Inputs:
    """A block's inputs, a piece of its classes at a time: on a CPU each product copies
    its part of the kernel. Nothing but logits is given there."""

    def step(z: Array, at: Any, size: int) -> Array:
        here = inputs_at(at if start is None else start + at, size).z
        return lax.dynamic_update_slice_in_dim(z, here, at, 1)

    inputs: Inputs = zeros_of(lambda: inputs_at(start, size))
    return dataclasses.replace(inputs, z=over_blocks(step, inputs.z, size, piece))


def _sum_for_platform(
    of_block: OfBlock, problem: Problem, moving: Tangents, per_row: Any
) -> Any:
    """`_sum_streamed`, on a CPU with a kernel's tangent in float32.

    Its transpose adds each block's gradient to that of the whole kernel. In bfloat16
    XLA on a CPU would do so by casting the whole, for every block.
    """

    def of(operands: Any) -> Any:
        return _sum_streamed(of_block, *operands)

    def of_wide(operands: Any) -> Any:
        problem, (rows, shared), per_row = operands
        return of((problem, (rows, as_computed(shared)), per_row))

    operands = problem, moving, per_row
    kernels = [head.kernel for head in moving[1].heads]
    if all(as_computed(kernel) is kernel for kernel in kernels):
        return of(operands)
    return by_platform(operands, cpu=of_wide, default=of)


def _sum_streamed(
    of_block: OfBlock, problem: Problem, moving: Tangents, per_row: Any
) -> Any:
    """`over_all_classes` of hidden (rows, features) @ kernel: a tree of sums (rows,).

    Blocks of classes are the outer loop, tiles of rows the inner one.
    """
    settings, shared = problem.settings, problem.shared
    total = problem.like.shape[problem.axis]
    size = min(settings.block, total)
    # The sum over blocks is in float32.
    row_tangents, tangents = as_computed(moving[0]), moving[1]
    everything = problem.rows, problem.resolved, per_row, row_tangents
    everything, live, unsorted = live_first(everything, _live(problem))

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
        block = functools.partial(class_block, start=start, size=size)
        tangent_block = functools.partial(block, linear=True)
        shared, tangents = block(shared), as_computed(tangent_block(tangents))
        first = first_class(problem, start)

        def of_tile(carry: None, part: Any) -> tuple[None, Any]:
            rows, resolved, per_row, row_tangents = part
            here = Problem(settings, block(rows), shared, resolved)
            moving = tangent_block(row_tangents), tangents
            return carry, of_block(here, moving, first, per_row)

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
