"""The sum of a loss over tiles of rows, and its derivatives."""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import moves, vary, varying, varying_of
from .._checks import ArrayLike
from .kept import Traced, kept
from .loop import along, live_first, over_tiles, zeros_of


class _Sum(NamedTuple):
    """What is static. `losses` are for whole tiles, and for the smaller last one."""

    losses: tuple[Traced, ...]
    tile: int


class _Operands(NamedTuple):
    params: Any
    closed_over: tuple[list[Any], ...]  # by each of the losses
    rows: Any
    live: Array | None


def sum_over_tiles(
    loss: Callable[[Any, Any], Any],
    params: Any,
    rows: Any,
    *,
    tile: SupportsIndex,
    where: ArrayLike | None = None,
) -> Any:
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
    shapes = [x.shape for x in jax.tree.leaves(rows)]
    if not shapes:
        _checks.fail(
            name,
            f"expected rows that hold at least one array, got {rows!r}. Give what each "
            "row has as rows (hidden states, labels), and what all share as params.",
        )
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        _checks.fail(
            name,
            "expected rows with the same number of rows along their first axis, got "
            f"shapes {shapes}.",
        )
    tile = _tile_size(name, tile)
    count = shapes[0][0]
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
    total = known.compiled(_sum_of_live, _Sum(tuple(losses), tile))
    return total(_Operands(params, tuple(closed_over), rows, live))


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
    if operands.live is not None:
        rows, live, _ = live_first(operands.rows, operands.live)
        operands = operands._replace(rows=rows, live=live)
    return _sum(static, operands)


def _call(static: _Sum, operands: _Operands, part: Any) -> Any:
    size = jax.tree.leaves(part)[0].shape[0]
    which = 0 if size == static.tile else -1
    closed_over = operands.closed_over[which]
    return static.losses[which](closed_over, operands.params, part)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum(static: _Sum, operands: _Operands) -> Any:
    def step(total: Any, part: Any) -> tuple[Any, None]:
        here = _call(static, operands, part)
        return jax.tree.map(jnp.add, total, here), None

    first = jax.tree.map(lambda x: x[: static.tile], operands.rows)
    total = zeros_of(functools.partial(_call, static), operands, first)
    return over_tiles(step, total, operands.rows, static.tile, operands.live)[0]


# With G_k = ∂ sum_k / ∂ operands, formed tile by tile, the tangent is Σ ⟨G_k, tangent⟩.
# Its transpose scales G_k by a cotangent.
@functools.partial(_sum.defjvp, symbolic_zeros=True)
def _sum_jvp(static: _Sum, primals: Any, tangents: Any) -> Any:
    (operands,), (dots,) = primals, tangents
    leaves, tree = jax.tree.flatten(operands)
    dots = tree.flatten_up_to(dots)
    moved = tuple(i for i, dot in enumerate(dots) if moves(dot))
    sums, slopes = _slopes(static, moved, operands)
    sums, out_tree = jax.tree.flatten(sums)
    _refuse_shared([leaves[i] for i in moved], sums)
    out_dots = [jax.custom_derivatives.zero_from_primal(s) for s in sums]
    kinds = [k for k, s in enumerate(sums) if differentiable(s)]
    for k, slope in zip(kinds, slopes, strict=True):
        out_dots[k] = along(slope, {i: dots[i] for i in moved}, sums[k])
    return out_tree.unflatten(sums), out_tree.unflatten(out_dots)


def _row_indices(operands: _Operands) -> list[int]:
    """Which leaves are rows."""
    leaves, tree = jax.tree.flatten(operands)
    return jax.tree.leaves(tree.unflatten(list(range(len(leaves)))).rows)


def _refuse_shared(moved: list[Array], sums: list[Array]) -> None:
    """Refuses a derivative in an array that devices share where their sums differ.

    The tangent of a device's sum needs the gradient of that device's rows; for such an
    array JAX gives the gradients' sum over the devices. Params are made varying before
    the loss is traced, but what the loss closes over cannot be.
    """
    for x in moved:
        names = sorted(varying_of(sums) - varying(x))
        if names:
            _checks.fail(
                "sum_over_tiles",
                f"expected no derivative in an array of shape {x.shape} that is the "
                f"same on all devices along {names}, where the sums differ. If the "
                "loss closes over it, give it as one of params.",
            )


def _of_tile(
    static: _Sum, moved: tuple[int, ...], operands: _Operands, part: Any
) -> Any:
    """A tile's sums, and their slopes in what is moved: of params, and of its rows."""
    leaves, tree = jax.tree.flatten(operands)
    of_rows = _row_indices(operands)
    parts = dict(zip(of_rows, jax.tree.leaves(part), strict=True))
    row_tree = jax.tree.structure(operands.rows)

    def loss(values: dict[int, Array]) -> Any:
        rows = row_tree.unflatten([values.get(i, parts[i]) for i in of_rows])
        shared = tree.unflatten([values.get(i, x) for i, x in enumerate(leaves)])
        sums = _call(static, shared, rows)
        return [s for s in jax.tree.leaves(sums) if differentiable(s)], sums

    points = {i: parts.get(i, leaves[i]) for i in moved}
    values, pull, sums = jax.vjp(loss, points, has_aux=True)
    shared, per_row = [], []
    for k in range(len(values)):
        basis = [jnp.full_like(v, float(k == n)) for n, v in enumerate(values)]
        slopes = pull(basis)[0]
        slopes = {i: x.astype(_checks.compute_dtype(x)) for i, x in slopes.items()}
        shared.append({i: x for i, x in slopes.items() if i not in parts})
        per_row.append({i: x for i, x in slopes.items() if i in parts})
    return (sums, shared), per_row


def _nothing(static: _Sum, moved: tuple[int, ...], operands: _Operands) -> Any:
    first = jax.tree.map(lambda x: x[: static.tile], operands.rows)
    return zeros_of(lambda: _of_tile(static, moved, operands, first)[0])


def _joined(shared: Any, per_row: Any) -> list[dict[int, Array]]:
    return [a | b for a, b in zip(shared, per_row, strict=True)]


# The derivative of a slope is its derivative in each tile, formed there as well.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _slopes(static: _Sum, moved: tuple[int, ...], operands: _Operands) -> Any:
    def step(carry: Any, part: Any) -> Any:
        here, per_row = _of_tile(static, moved, operands, part)
        return jax.tree.map(jnp.add, carry, here), per_row

    (sums, shared), per_row = over_tiles(
        step,
        _nothing(static, moved, operands),
        operands.rows,
        static.tile,
        operands.live,
        remember=False,
    )
    return sums, _joined(shared, per_row)


@functools.partial(_slopes.defjvp, symbolic_zeros=True)
def _slopes_jvp(
    static: _Sum, moved: tuple[int, ...], primals: Any, tangents: Any
) -> Any:
    (operands,), (dots,) = primals, tangents
    leaves, tree = jax.tree.flatten(operands)
    of_rows = _row_indices(operands)
    dots = {i: x for i, x in enumerate(tree.flatten_up_to(dots)) if moves(x)}
    dots = {i: x.astype(leaves[i].dtype) for i, x in dots.items()}
    row_tree = jax.tree.structure(operands.rows)
    sums, slopes = _slopes(static, moved, operands)

    def step(carry: Any, part: Any) -> Any:
        rows, row_dots = part
        parts = dict(zip(of_rows, jax.tree.leaves(rows), strict=True))

        def of_tile(values: dict[int, Array]) -> Any:
            here = tree.unflatten([values.get(i, x) for i, x in enumerate(leaves)])
            rows = row_tree.unflatten([values.get(i, parts[i]) for i in of_rows])
            return _of_tile(static, moved, here, rows)

        points = {i: parts.get(i, leaves[i]) for i in dots}
        steps = {i: row_dots.get(i, x) for i, x in dots.items()}
        _, (here, per_row) = jax.jvp(of_tile, (points,), (steps,))
        return jax.tree.map(add, carry, here), per_row

    def add(a: Array, b: Array) -> Array:
        return a if b.dtype == jax.dtypes.float0 else a + b

    row_dots = {i: x for i, x in dots.items() if i in of_rows}
    (sum_dots, shared), per_row = over_tiles(
        step,
        _nothing(static, moved, operands),
        (operands.rows, row_dots),
        static.tile,
        operands.live,
        remember=False,
    )
    sum_dots = jax.tree.map(
        lambda s, d: (
            d
            if differentiable(s)
            else jax.custom_derivatives.zero_from_primal(s, symbolic_zeros=False)
        ),
        sums,
        sum_dots,
    )
    return (sums, slopes), (sum_dots, _joined(shared, per_row))


def differentiable(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
