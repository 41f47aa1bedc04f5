"""Results of rows, a tile at a time, and their derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, SupportsIndex, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import (
    as_computed,
    like_moving,
    moving_of,
    over_rows,
    replaced,
    select,
    varying_of,
)
from .._checks import ArrayLike
from .arguments import Operands, Tiled, checked_operands
from .loop import live_first, over_tiles
from .rule import refuse_shared


Params = TypeVar("Params")
Rows = TypeVar("Rows")
Results = TypeVar("Results")


def map_over_tiles(
    fn: Callable[[Params, Rows], Results],
    params: Params,
    rows: Rows,
    *,
    tile: SupportsIndex,
    where: ArrayLike | None = None,
) -> Results:
    """Computes results of rows, and their derivatives, one tile of rows at a time.

        results[t · tile : (t + 1) · tile] = fn(params, rows[t · tile : (t + 1) · tile])

    The results exist for all rows. What `fn` needs for a tile on its way to them, such
    as logits, exists for one tile at a time: the derivative computes it again.

    Args:
      fn: a function of (params, a tile of rows) that returns an array, or a pytree of
        arrays, whose first axis is that of the tile's rows: log-probabilities,
        entropies. A row's results must not depend on other rows. It is called with
        `tile` rows, and once with what is left over. Arrays that it closes over count
        as params.
      params: a pytree of arrays that every tile shares: a kernel, the state of a model.
      rows: a pytree of arrays with the same number of rows along their first axis:
        hidden states, labels, weights.
      tile: rows in a tile, an integer.
      where: boolean (rows,). The results of the other rows are 0, and so are their
        derivatives, whatever these rows hold: in their place `fn` gets a row that
        counts. They are moved to the end, and tiles of nothing else are skipped when
        the program runs.

    Returns:
      The results, as `fn` returns them, with all rows along their first axis.

    Numerics:
      Gradients of params are summed over tiles in float32 or better, whatever their
      dtype, and their error does not grow with the number of tiles. Every derivative
      exists: forward mode, and reverse mode of any order, each with one tile's
      intermediate results at a time.

      Outside of jit a call is one compiled call, and `fn` is traced once for a function
      object and the shapes, as in `sum_over_tiles`.

    Raises:
      TypeError: fn is not a function, or returns something without the tile's rows
        along its first axis; tile is not an integer.
      ValueError: there are no rows, their first axes differ, or tile is not positive.
        Inside `jax.shard_map`: a derivative in an array that fn closes over and that
        all devices share; give it as one of params.

    Example:
      >>> def log_prob(kernel, rows):
      ...     hidden, labels = rows
      ...     return jxent.softmax_log_prob(hidden @ kernel, labels)
      >>> hidden, labels = jnp.eye(4), jnp.array([0, 1, 1, 0])
      >>> print(jxent.map_over_tiles(log_prob, jnp.eye(4, 3), (hidden, labels), tile=2))
      [-0.55144 -0.55144 -1.55144 -1.09861]

    Source:
      `jax.lax.map` over `jax.checkpoint`, as post-training code in JAX writes it by
      hand, with gradients that are summed in float32.

    See also:
      `sum_over_tiles`, which computes nothing twice where sums are all that is needed;
      `LinearLogits`, for the losses here.
    """
    name = "map_over_tiles"

    def returns(results: Any, size: int) -> None:
        shapes = [x.shape for x in jax.tree.leaves(results)]
        if any(shape[:1] != (size,) for shape in shapes):
            raise TypeError(
                f"{name}: expected a function that returns arrays with the tile's "
                f"{size} rows along their first axis, got shapes {shapes}."
            )

    known, tiled, operands = checked_operands(
        name, "function", fn, params, rows, tile=tile, where=where, returns=returns
    )
    return known.compiled(_map_of_live, tiled)(operands)


def _map_of_live(tiled: Tiled, operands: Operands) -> Any:
    params = operands.params, operands.closed_over
    return _mapped(tiled, params, operands.rows, operands.live)


def _of_tile(tiled: Tiled, params: Any, rows: Any, live: Array | None) -> Any:
    """The results of a tile; 0, with no derivative, for rows that do not count.

    NaN in a row that does not count would enter the gradient of params. The tile's
    first row takes the place of such a row; it counts if any row of the tile does.
    """
    if live is None:
        return tiled(params, rows)

    def counted(x: Array, otherwise: Any) -> Array:
        return select(over_rows(live, 0, x), x, otherwise)

    rows = jax.tree.map(lambda x: counted(x, jnp.broadcast_to(x[:1], x.shape)), rows)
    return jax.tree.map(lambda x: counted(x, 0), tiled(params, rows))


# r_t = fn(params, rows_t). The tangent of tile t is that of fn,
#
#     dr_t = ∂fn/∂params dparams + ∂fn/∂rows_t drows_t,
#
# formed tile by tile, each in a checkpoint, so that its transpose computes a tile's
# intermediate results again. dparams passes through the loop in float32: the transpose
# of that is a sum over tiles in float32, and one cast at its end.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mapped(tiled: Tiled, params: Any, rows: Any, live: Array | None) -> Any:
    rows, live, unsorted = live_first(rows, live)

    def step(carry: None, part: Any) -> tuple[None, Any]:
        return carry, _of_tile(tiled, params, *part)

    _, results = over_tiles(step, None, (rows, live), tiled.tile, live)
    return unsorted(results)


@functools.partial(_mapped.defjvp, symbolic_zeros=True)
def _mapped_jvp(tiled: Tiled, primals: Any, tangents: Any) -> Any:
    params, rows, live = primals
    results = _mapped(tiled, *primals)
    dparams, drows, _ = map(moving_of, tangents)
    moved = jax.tree.leaves(like_moving(dparams, params))
    refuse_shared("map_over_tiles", "function", moved, varying_of((rows, live)))
    wide = as_computed(dparams)
    (rows, drows, moving_rows), live, unsorted = live_first(
        (rows, drows, like_moving(drows, rows)), live
    )

    def step(carry: None, part: Any) -> tuple[None, Any]:
        (rows, drows, points), live = part
        given = like_moving(dparams, params), points
        tangents = jax.tree.map(lambda d, x: d.astype(x.dtype), (wide, drows), given)

        def of_moving(values: Any) -> list[Array]:
            shared, part = replaced((params, rows), values)
            return _floating_leaves(_of_tile(tiled, shared, part, live))

        return carry, jax.jvp(of_moving, (given,), (tangents,))[1]

    leaves, tree = jax.tree.flatten(results)
    _, moved = over_tiles(
        step,
        None,
        ((rows, drows, moving_rows), live),
        tiled.tile,
        live,
        remember=False,
    )
    moved = iter(unsorted(moved))
    return results, tree.unflatten(
        [
            next(moved)
            if jnp.issubdtype(x.dtype, jnp.inexact)
            else jax.custom_derivatives.zero_from_primal(x)
            for x in leaves
        ]
    )


def _floating_leaves(results: Any) -> list[Array]:
    leaves = jax.tree.leaves(results)
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
