"""The sum of a loss over tiles of rows, and its derivatives."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex, TypeVar

import jax
from jax import Array

from .. import _checks
from .._arrays import vary, varying_of
from .._checks import ArrayLike
from .kept import Traced, kept
from .rule import Tiling, tiled_sum


class _Sum(NamedTuple):
    """What is static. `losses` are for whole tiles, and for the smaller last one."""

    losses: tuple[Traced, ...]
    tile: int


class _Operands(NamedTuple):
    params: Any
    closed_over: tuple[list[Any], ...]  # by each of the losses
    rows: Any
    live: Array | None


Params = TypeVar("Params")
Rows = TypeVar("Rows")
Sums = TypeVar("Sums")


def sum_over_tiles(
    loss: Callable[[Params, Rows], Sums],
    params: Params,
    rows: Rows,
    *,
    tile: SupportsIndex,
    where: ArrayLike | None = None,
) -> Sums:
    """Sums a loss over tiles of rows, and forms each tile's gradient with its value.

        Σ_t loss(params, rows[t · tile : (t + 1) · tile])

    What the loss needs for a tile, such as logits, exists for one tile at a time, in
    the derivative too. The work is that of the plain loss: nothing is computed twice.

    Args:
      loss: a function of (params, a tile of rows) that returns a scalar, or a pytree of
        scalars, each a sum over the tile's rows: a sum of losses, a count. It is called
        with `tile` rows, and once with what is left over. Arrays that it closes over
        count as params.
      params: a pytree of arrays that every tile shares: kernels, scales.
      rows: a pytree of arrays with the same number of rows along their first axis:
        hidden states, labels, weights.
      tile: rows in a tile, an integer.
      where: boolean (rows,). False promises that the loss gives 0 for a row, because it
        ignores its label, say. Such rows are moved to the end, and tiles of nothing
        else are skipped when the program runs.

    Returns:
      The sums, as `loss` returns them.

    Numerics:
      Gradients of params are summed over tiles in float32 or better, and their error
      does not grow with the number of tiles. Every derivative exists: forward mode, and
      reverse mode of any order, each with one tile's intermediate results at a time.
      Each floating sum has a gradient of its own, in memory as large as params; under
      `jax.jit` those that nobody differentiates are dropped.

      Outside of jit a call is one compiled call. As under `jax.jit`, the loss is traced
      once for a function object and the shapes of params and rows, and what it reads
      from outside then (a global, an attribute, an array that it closes over) is what
      later calls use: give what changes as params or rows. A lambda made anew for each
      call, or a bound method, is traced anew.

    Raises:
      TypeError: the loss is not a function, or returns something that is not a scalar;
        tile is not an integer.
      ValueError: there are no rows, their first axes differ, or tile is not positive.
        Inside `jax.shard_map`: a derivative in an array that the loss closes over and
        that all devices share; give it as one of params.

    Example:
      >>> def loss(kernel, rows):
      ...     hidden, labels = rows
      ...     logits = hidden @ kernel
      ...     return jxent.softmax_cross_entropy(logits, labels, reduction="sum")
      >>> hidden, labels = jnp.eye(4), jnp.array([0, 1, 1, 0])
      >>> print(jxent.sum_over_tiles(loss, jnp.eye(4, 3), (hidden, labels), tile=2))
      3.75295

    Source:
      Tiles of tokens as in Liger Kernel, Hsu et al. (2024),
      https://arxiv.org/abs/2410.10989, for any loss and in every mode of
      differentiation.

    See also:
      `linear_softmax_cross_entropy`, which needs no function of yours.
    """
    name = "sum_over_tiles"
    if not callable(loss):
        raise TypeError(
            f"{name}: expected a loss that can be called with (params, a tile of "
            f"rows), got {type(loss).__name__}. Give the function first."
        )
    params, rows = jax.tree.map(_checks.array, (params, rows))
    count = _count_rows(name, rows)
    tile = _tile_size(name, tile)
    tile = max(min(tile, count), 1)
    live = None
    if where is not None:
        live = _checks.boolean(name, "where", where)
        if live.shape != (count,):
            _checks.fail(
                name,
                f"expected where of shape {(count,)}, one for each row, "
                f"got {live.shape}.",
            )
    given = params, rows, live
    params, rows, live = vary(given, varying_of(given))
    losses, closed_over = [], []
    known = kept(loss)
    for size in _sizes(count, tile):
        traced, arrays, sums = known.trace(params, _first.eval_shape(rows, size))
        if any(x.shape for x in jax.tree.leaves(sums)):
            raise TypeError(
                f"{name}: expected a loss that returns scalars, sums over the tile's "
                f"rows, got shapes {[x.shape for x in jax.tree.leaves(sums)]}."
            )
        losses.append(traced)
        closed_over.append(arrays)
    total = known.compiled(_sum_of_live, _Sum(losses=tuple(losses), tile=tile))
    return total(
        _Operands(params=params, closed_over=tuple(closed_over), rows=rows, live=live)
    )


def _count_rows(function: str, rows: Any) -> int:
    shapes = [x.shape for x in jax.tree.leaves(rows)]
    if not shapes:
        _checks.fail(
            function,
            f"expected rows that hold at least one array, got {rows!r}. Give what each "
            "row has as rows (hidden states, labels), and what all share as params.",
        )
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        _checks.fail(
            function,
            "expected rows with the same number of rows along their first axis, got "
            f"shapes {shapes}.",
        )
    count = shapes[0][0]
    if not isinstance(count, int):
        _checks.fail(
            function,
            f"expected a number of rows that is known when the program is traced, got "
            f"{count}. Export for a batch size, or give a fused loss of jxent's own.",
        )
    return count


def _sizes(count: int, tile: int) -> list[int]:
    """How many rows the tiles have: whole ones, and the smaller last one."""
    whole, rest = divmod(count, tile)
    return [tile] * (whole > 0) + [rest] * (rest > 0 or not count)


@functools.partial(jax.jit, static_argnums=1)
def _first(rows: Any, size: int) -> Any:
    return jax.tree.map(lambda x: x[:size], rows)


def _tile_size(function: str, tile: Any) -> int:
    try:
        if isinstance(tile, bool):
            raise TypeError
        size = operator.index(tile)
    except TypeError:  # a float, or a number that is known only when the program runs
        raise TypeError(
            f"{function}: expected tile to be an integer, known when the program is "
            f"traced, got {tile!r}."
        ) from None
    if size < 1:
        _checks.fail(function, f"expected a tile of at least one row, got {size}.")
    return size


def _sum_of_live(static: _Sum, operands: _Operands) -> Any:
    def loss(params: Any, rows: Any) -> Any:
        params, closed_over = params
        rows, _ = rows
        size = jax.tree.leaves(rows)[0].shape[0]
        which = 0 if size == static.tile else -1
        return static.losses[which](closed_over[which], params, rows)

    tiling = Tiling(loss=loss, tile=static.tile, live=lambda rows, _: rows[1])
    params = operands.params, operands.closed_over
    return tiled_sum(tiling, (params, (operands.rows, operands.live)))
