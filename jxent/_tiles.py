"""Sums over tiles of rows: each tile's gradient is formed together with its value.

A sum of losses over rows whose intermediate results are large, logits above all, need
never hold them for all rows: take a tile of rows, form value and gradient, keep the
gradient, forget the rest. What the sum's cotangent will be is not known then, but it is
one number, and a gradient is linear in it: it is multiplied on at the end.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from . import _checks
from ._arrays import varying, vary, vary_alike
from ._checks import ArrayLike


def zeros_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Zeros for what the function returns, varying over a mesh as that does."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    leaves = [
        vary(jnp.zeros(kind.shape, kind.dtype), varying(kind))
        for kind in traced.out_avals
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def over_tiles(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    rows: Any,
    tile: int,
    live: Array | None = None,
) -> tuple[Any, Any]:
    """`step(carry, tile) -> (carry, per-row results)` over tiles of `rows`, in order.

    Tiles without a live row are skipped when the program runs: their results are 0. The
    last tile may be smaller than the others.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    full = count // tile * tile

    def guarded(carry: Any, here: tuple[Any, Array | None]) -> tuple[Any, Any]:
        part, alive = here
        if alive is None:
            return step(carry, part)
        _, nothing = zeros_of(step, carry, part)
        return lax.cond(
            jnp.any(alive), step, lambda carry, _: (carry, nothing), carry, part
        )

    parts = []
    if full:
        stacked = jax.tree.map(
            lambda x: x[:full].reshape(full // tile, tile, *x.shape[1:]), (rows, live)
        )
        if full == tile:
            carry, one = guarded(carry, jax.tree.map(lambda x: x[0], stacked))
            parts.append(one)
        else:
            carry, many = lax.scan(guarded, carry, stacked)
            parts.append(
                jax.tree.map(lambda x: x.reshape(full, *x.shape[2:]), many)
            )
    if full < count or not count:
        rest = jax.tree.map(lambda x: x[full:], (rows, live))
        carry, one = guarded(carry, rest)
        parts.append(one)
    return carry, jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)


def live_first(rows: Any, live: Array) -> tuple[Any, Array, Array]:
    """Rows with the live ones in front, which of them live, and the way back."""
    order = jnp.argsort(~live, stable=True)
    rows = jax.tree.map(lambda x: jnp.take(x, order, 0, unique_indices=True), rows)
    return rows, live[order], jnp.argsort(order)


class _Sum(NamedTuple):
    """What is static. `losses` are for whole tiles and for the smaller last one."""

    losses: tuple[Callable[..., Any], Callable[..., Any]]
    tile: int


class _Operands(NamedTuple):
    params: Any
    closed_over: tuple[list[Array], list[Array]]
    rows: Any
    live: Array | None


def sum_over_tiles(
    loss: Callable[[Any, Any], Any],
    params: Any,
    rows: Any,
    *,
    tile: int,
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
      tile: rows in a tile.
      where: boolean (rows,). False promises that the loss gives 0 for a row, because it
        ignores its label, say. Such rows are moved to the end, and tiles of nothing
        else are skipped when the program runs.

    Returns:
      The sums, as `loss` returns them.

    Numerics:
      Gradients of params are summed in float32 or better and rounded once, to their own
      dtype. Every derivative exists: forward mode, and reverse mode of any order, each
      with one tile's intermediate results at a time. Each floating sum has a gradient
      of its own, in memory as large as params; under `jax.jit` those that nobody
      differentiates are dropped.

    Raises:
      TypeError: the loss returns something that is not a scalar.
      ValueError: the rows' first axes differ, or tile is not positive.

    Example:
      >>> def loss(kernel, rows):
      ...     hidden, labels = rows
      ...     return jxent.softmax_cross_entropy(hidden @ kernel, labels, reduction="sum")
      >>> hidden, labels = jnp.eye(4), jnp.array([0, 1, 1, 0])
      >>> print(jxent.sum_over_tiles(loss, jnp.eye(4, 3), (hidden, labels), tile=2))
      3.8511

    Source:
      Tiles of tokens as in Liger Kernel, Hsu et al. (2024),
      https://arxiv.org/abs/2410.10989, for any loss and in every mode of
      differentiation.

    See also:
      `linear_softmax_cross_entropy`, which needs no function of yours.
    """
    name = "sum_over_tiles"
    params, rows = jax.tree.map(_checks.array, (params, rows))
    leaves = jax.tree.leaves(rows)
    counts = {x.shape[0] if x.ndim else None for x in leaves}
    if len(counts) != 1 or None in counts:
        _checks.fail(
            name,
            "expected rows with the same number of rows along their first axis, got "
            f"shapes {[x.shape for x in leaves]}.",
        )
    if tile < 1:
        _checks.fail(name, f"expected a tile of at least one row, got {tile}.")
    (count,) = counts
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
        rows, live, _ = live_first(rows, live)

    def converted(size: int) -> tuple[Callable[..., Any], list[Array]]:
        part = jax.tree.map(lambda x: x[:size], rows)
        return jax.closure_convert(loss, params, part)

    whole, rest = converted(tile), converted(count % tile)
    operands = _Operands(params, (whole[1], rest[1]), rows, live)
    shapes = jax.eval_shape(loss, params, jax.tree.map(lambda x: x[:tile], rows))
    if any(x.shape for x in jax.tree.leaves(shapes)):
        raise TypeError(
            f"{name}: expected a loss that returns scalars, sums over the tile's rows, "
            f"got shapes {[x.shape for x in jax.tree.leaves(shapes)]}."
        )
    return _sum(_Sum((whole[0], rest[0]), tile), vary_alike(operands))


def _call(static: _Sum, operands: _Operands, part: Any) -> Any:
    size = jax.tree.leaves(part)[0].shape[0]
    which = 0 if size == static.tile else 1
    return static.losses[which](
        operands.params, part, *operands.closed_over[which]
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum(static: _Sum, operands: _Operands) -> Any:
    def step(total: Any, part: Any) -> tuple[Any, None]:
        here = _call(static, operands, part)
        return jax.tree.map(jnp.add, total, here), None

    first = jax.tree.map(lambda x: x[: static.tile], operands.rows)
    total = zeros_of(functools.partial(_call, static), operands, first)
    return over_tiles(step, total, operands.rows, static.tile, operands.live)[0]


# With G_k = ∂ sum_k / ∂ operands, formed tile by tile, the tangent is Σ ⟨G_k, tangent⟩.
# Its transpose scales G_k by a cotangent, and its own derivative is that of the loop.
@functools.partial(_sum.defjvp, symbolic_zeros=True)
def _sum_jvp(static: _Sum, primals: Any, tangents: Any) -> Any:
    (operands,), (dots,) = primals, tangents
    leaves, tree = jax.tree.flatten(operands)
    dots = tree.flatten_up_to(dots)
    moved = [i for i, dot in enumerate(dots) if moves(dot)]
    row_tree = jax.tree.structure(operands.rows)
    marked = tree.unflatten(list(range(len(leaves))))
    of_rows = jax.tree.leaves(marked.rows)
    shared = [i for i in moved if i not in of_rows]
    in_rows = [i for i in moved if i in of_rows]

    def at(values: dict[int, Array]) -> _Operands:
        return tree.unflatten([values.get(i, x) for i, x in enumerate(leaves)])

    # prevent_cse is for a checkpoint outside of a loop
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(carry: Any, part: Any) -> Any:
        total, gradients = carry
        parts = dict(zip(of_rows, jax.tree.leaves(part), strict=True))

        def loss(shared_values: list[Array], row_values: list[Array]) -> Any:
            here = parts | dict(zip(in_rows, row_values, strict=True))
            rows = row_tree.unflatten([here[i] for i in of_rows])
            operands = at(dict(zip(shared, shared_values, strict=True)))
            sums = jax.tree.leaves(_call(static, operands, rows))
            return [s for s in sums if differentiable(s)], sums

        points = [leaves[i] for i in shared], [parts[i] for i in in_rows]
        values, pull, sums = jax.vjp(loss, *points, has_aux=True)
        slopes = []
        for k in range(len(values)):
            basis = [jnp.full_like(v, float(k == n)) for n, v in enumerate(values)]
            slopes.append(pull(basis))
        total = [a + b for a, b in zip(total, sums, strict=True)]
        gradients = jax.tree.map(
            lambda a, b: a + b.astype(a.dtype), gradients, [s[0] for s in slopes]
        )
        per_row = jax.tree.map(lambda x: x.astype(_checks.compute_dtype(x)), [s[1] for s in slopes])
        return (total, gradients), per_row

    first = jax.tree.map(lambda x: x[: static.tile], operands.rows)
    shapes = zeros_of(functools.partial(_call, static), operands, first)
    total, out_tree = jax.tree.flatten(shapes)
    kinds = [k for k, s in enumerate(total) if differentiable(s)]
    accumulators = [
        [jnp.zeros_like(leaves[i], dtype=_checks.compute_dtype(leaves[i])) for i in shared]
        for _ in kinds
    ]
    (total, gradients), per_row = over_tiles(
        step, (total, accumulators), operands.rows, static.tile, operands.live
    )
    slopes_of = [
        dict(zip(shared, g, strict=True)) | dict(zip(in_rows, r, strict=True))
        for g, r in zip(gradients, per_row, strict=True)
    ]
    out_dots = [jax.custom_derivatives.zero_from_primal(s) for s in total]
    for k, slopes in zip(kinds, slopes_of, strict=True):
        out_dots[k] = along(slopes, {i: dots[i] for i in moved}, total[k])
    return out_tree.unflatten(total), out_tree.unflatten(out_dots)


def along(slopes: dict[Any, Array], dots: dict[Any, Array], value: Array) -> Array:
    """⟨slopes, dots⟩, the tangent of `value`: summed over devices where that is."""
    total = jnp.zeros_like(value)
    for i, slope in slopes.items():
        total = total + jnp.sum(slope * dots[i].astype(slope.dtype)).astype(value.dtype)
    extra = tuple(sorted(varying(total) - varying(value)))
    return lax.psum(total, extra) if extra else total


def moves(dot: Any) -> bool:
    zero = isinstance(dot, jax.custom_derivatives.SymbolicZero)
    return not zero and dot.dtype != jax.dtypes.float0


def differentiable(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
