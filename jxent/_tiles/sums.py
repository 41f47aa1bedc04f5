"""The sum of a loss over tiles of rows, and its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex, TypeVar

import jax

from .._checks import ArrayLike
from .arguments import Operands, Tiled, checked_operands
from .rule import Tiling, tiled_sum


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
      `map_over_tiles` for results of rows; `LinearLogits`, for the losses here.
    """
    name = "sum_over_tiles"

    def returns(sums: Any, size: int) -> None:
        shapes = [x.shape for x in jax.tree.leaves(sums)]
        if any(shapes):
            raise TypeError(
                f"{name}: expected a loss that returns scalars, sums over the tile's "
                f"rows, got shapes {shapes}."
            )

    known, tiled, operands = checked_operands(
        name, "loss", loss, params, rows, tile=tile, where=where, returns=returns
    )
    return known.compiled(_sum_of_live, tiled)(operands)


def _sum_of_live(tiled: Tiled, operands: Operands) -> Any:
    def loss(params: Any, rows: Any) -> Any:
        return tiled(params, rows[0])

    tiling = Tiling(loss=loss, tile=tiled.tile, live=lambda rows, _: rows[1])
    params = operands.params, operands.closed_over
    return tiled_sum(tiling, (params, (operands.rows, operands.live)))
