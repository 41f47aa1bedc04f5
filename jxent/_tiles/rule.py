"""The one rule for sums over tiles of rows: gradients formed together with values."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import (
    as_computed,
    is_moving,
    moving_of,
    replaced,
    sum_over_devices,
    varying,
    varying_of,
    zeros_of,
)
from .loop import first_tile, live_first, over_tiles


class Tiling(NamedTuple):
    """A sum over tiles of rows: static under jit.

    `loss(params, rows) -> sums` is a pytree of scalars, each a sum over the rows. The
    other functions are None for the default.
    """

    loss: Callable[[Any, Any], Any]
    tile: int
    # (rows, the tangents of rows) -> (rows,), False for rows that add nothing
    live: Callable[[Any, Any], Array | None] | None = None
    # (params, rows) -> sums: a cheaper way to the value, and to second derivatives
    value: Callable[[Any, Any], Any] | None = None
    # (moving, params, tile, carry) -> (carry, gradients of the tile's rows)
    add_gradients: Callable[..., tuple[Any, Any]] | None = None
    # (body, moving, trees of (params, rows)) -> body's result of each device's part,
    # which is sums and a list of gradients in what moves
    on_devices: Callable[..., Any] | None = None


class Moving(NamedTuple):
    """Which leaves of a tree have a tangent: static under jit."""

    leaves: tuple[bool, ...]

    def __call__(self, tree: Any) -> Any:
        """The leaves that move, None for the others."""
        leaves, form = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
        pairs = zip(leaves, self.leaves, strict=True)
        return form.unflatten([x if moves else None for x, moves in pairs])


# S_k = Σ_t loss_k(params, rows_t). With G_k = ∂S_k/∂(params, rows), formed tile by tile
# while the tile's intermediate results exist, the tangent is
#
#     dS_k = ⟨G_k, (dparams, drows)⟩
#
# and its transpose scales G_k by a cotangent. G_k is held as a whole: the size of what
# moves, in float32 or better. Nothing else is kept from forward to backward.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def tiled_sum(tiling: Tiling, operands: tuple[Any, Any]) -> Any:
    """The sums over all tiles; `operands` are (params, rows)."""
    if tiling.value is not None:
        return tiling.value(*operands)

    def body(operands: Any) -> tuple[Any, list[Any]]:
        params, rows = operands

        def step(total: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, tiling.loss(params, part)), None

        rows, live, _ = live_rows_first(tiling, rows, None)
        first = first_tile(rows, tiling.tile)
        total = zeros_of(tiling.loss, params, first)
        return over_tiles(step, total, rows, tiling.tile, live)[0], []

    return on_each_device(tiling, body, None, operands)[0]


@functools.partial(tiled_sum.defjvp, symbolic_zeros=True)
def _tiled_sum_jvp(tiling: Tiling, primals: Any, tangents: Any) -> Any:
    (operands,), (dots,) = primals, tangents
    leaves, tree = jax.tree.flatten(operands, is_leaf=lambda x: x is None)
    dots = tree.flatten_up_to(dots)
    moving = Moving(leaves=tuple(map(is_moving, dots)))
    sums, gradients = gradients_of_sums(tiling, moving, operands)
    sums, out_tree = jax.tree.flatten(sums)
    moved = [x for x, d in zip(leaves, dots, strict=True) if is_moving(d)]
    refuse_shared("sum_over_tiles", "loss", moved, varying_of(sums))
    tangents = [jax.custom_derivatives.zero_from_primal(s) for s in sums]
    for k, gradient in zip(_floating_indices(sums), gradients, strict=True):
        gradient = tree.flatten_up_to(gradient)
        pairs = [(g, d) for g, d in zip(gradient, dots, strict=True) if g is not None]
        tangents[k] = _inner_product(pairs, sums[k])
    return out_tree.unflatten(sums), out_tree.unflatten(tangents)


def refuse_shared(
    function: str, kind: str, moved: list[Array], axes: frozenset[str]
) -> None:
    """Refuses a derivative in an array that devices share where their results differ.

    The tangent of a device's sum needs the gradient of that device's rows; for such an
    array JAX gives the gradients' sum over the devices. Params are made varying before
    the loss is traced, but what the loss closes over cannot be.
    """
    results = {"loss": "sums", "function": "results"}[kind]
    for x in moved:
        names = sorted(axes - varying(x))
        if names:
            _checks.fail(
                function,
                f"expected no derivative in an array of shape {x.shape} that is the "
                f"same on all devices along {names}, where the {results} differ. If "
                f"the {kind} closes over it, give it as one of params.",
            )


def _inner_product(pairs: list[tuple[Array, Array]], value: Array) -> Array:
    """⟨gradient, tangent⟩, the tangent of `value`: summed over devices as that is."""
    parts: dict[tuple[str, ...], Array] = {}
    for gradient, tangent in pairs:
        part = jnp.sum(gradient * tangent.astype(gradient.dtype)).astype(value.dtype)
        names = tuple(sorted(varying(part) - varying(value)))
        parts[names] = parts[names] + part if names in parts else part
    total = jnp.zeros_like(value)
    for names, part in parts.items():
        total = total + sum_over_devices(part, names)
    return total


def _floating_indices(sums: list[Array]) -> list[int]:
    """The indices of the sums that have gradients: those that are not integers."""
    return [k for k, s in enumerate(sums) if jnp.issubdtype(s.dtype, jnp.inexact)]


def on_each_device(
    tiling: Tiling, body: Callable[..., Any], moving: Moving | None, *operands: Any
) -> Any:
    """`body(*operands)`; of each device's part if the tiling has `on_devices`."""
    if tiling.on_devices is None:
        return body(*operands)
    return tiling.on_devices(body, moving, *operands)


def live_rows_first(tiling: Tiling, rows: Any, tangents: Any) -> Any:
    """Rows with the live ones in front, the mask of these, the inverse permutation."""
    live = None if tiling.live is None else tiling.live(rows, tangents)
    return live_first(rows, live)


def gradients_of_tile(
    tiling: Tiling, moving: Moving, params: Any, part: Any
) -> tuple[Any, list[Any], list[Any]]:
    """A tile's sums, and the gradients of each: of params, and of the tile's rows."""

    def loss(values: Any) -> Any:
        sums = tiling.loss(*replaced((params, part), values))
        leaves = jax.tree.leaves(sums)
        return [leaves[k] for k in _floating_indices(leaves)], sums

    values, pull, sums = jax.vjp(loss, moving((params, part)), has_aux=True)
    of_params, of_rows = [], []
    for k in range(len(values)):
        cotangents = [jnp.full_like(v, float(k == n)) for n, v in enumerate(values)]
        shared, per_row = as_computed(pull(cotangents)[0])
        of_params.append(shared)
        of_rows.append(per_row)
    return sums, of_params, of_rows


def _with_gradients(
    tiling: Tiling, moving: Moving, params: Any, part: Any, carry: Any
) -> tuple[Any, Any]:
    """Adds a tile's sums and gradients of params to `carry`; returns those of rows too.

    `carry` is (sums, a tree of gradients of params for each floating sum).
    The gradients of rows are trees of arrays (tile, …), one for each floating sum.
    """
    sums, of_params, of_rows = gradients_of_tile(tiling, moving, params, part)
    return jax.tree.map(jnp.add, carry, (sums, of_params)), of_rows


def _start(tiling: Tiling, moving: Moving, params: Any, rows: Any) -> Any:
    """Zeros for the sums, and for the gradient of each in params."""
    part = first_tile(rows, tiling.tile)
    sums = zeros_of(tiling.loss, params, part)
    gradient = as_computed(jax.tree.map(jnp.zeros_like, moving((params, rows))[0]))
    return sums, [gradient for _ in _floating_indices(jax.tree.leaves(sums))]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def gradients_of_sums(
    tiling: Tiling, moving: Moving, operands: tuple[Any, Any]
) -> tuple[Any, list[Any]]:
    """The sums, and the gradient of each floating one in what moves."""

    def body(operands: Any) -> tuple[Any, list[Any]]:
        params, rows = operands
        rows, live, unsorted = live_rows_first(tiling, rows, moving((params, rows))[1])

        def step(carry: Any, part: Any) -> tuple[Any, Any]:
            if tiling.add_gradients is not None:
                return tiling.add_gradients(moving, params, part, carry)
            return _with_gradients(tiling, moving, params, part, carry)

        (sums, of_params), of_rows = over_tiles(
            step,
            _start(tiling, moving, params, rows),
            rows,
            tiling.tile,
            live,
            remember=False,
        )
        return sums, list(zip(of_params, unsorted(of_rows), strict=True))

    return on_each_device(tiling, body, moving, operands)


# Gradients are in what moves, m: G_k = ∂S_k/∂m. Along tangents dv of the operands v,
# which may be others than m,
#
#     dS_k = ⟨∂S_k/∂v, dv⟩
#     dG_k = ∂G_k/∂v dv = Σ_t ∂²loss_k(params, rows_t)/∂m∂v dv
#
# The second one is a product of the Hessian with dv, formed as the jvp of the gradients
# and never as a matrix: tile by tile, where a row has a part in its own tile alone, or
# for all rows as the jvp of the gradients of `value`, the cheaper way. Both are linear
# in dv, and JAX transposes and differentiates them. By tiles each is in a checkpoint.
@functools.partial(gradients_of_sums.defjvp, symbolic_zeros=True)
def _gradients_jvp(tiling: Tiling, moving: Moving, primals: Any, tangents: Any) -> Any:
    (operands,), (dots,) = primals, tangents
    dots = moving_of(dots)
    sums, gradients = gradients_of_sums(tiling, moving, operands)
    tangents = (_tangents_by_tiles if tiling.value is None else _tangents_by_value)(
        tiling, moving, operands, dots
    )
    sum_dots, gradient_dots = tangents

    def zero_of_integers(s: Array, d: Array) -> Array:
        if jnp.issubdtype(s.dtype, jnp.inexact):
            return d
        return jax.custom_derivatives.zero_from_primal(s, symbolic_zeros=False)

    return (sums, gradients), (
        jax.tree.map(zero_of_integers, sums, sum_dots),
        gradient_dots,
    )


def _tangents_by_tiles(
    tiling: Tiling, moving: Moving, operands: Any, dots: Any
) -> tuple[Any, list[Any]]:
    """The tangents of `gradients_of_sums`, by a jvp of each tile's gradients.

    `dots` are the tangents of the operands, in their shapes, None where there is none.
    The results have the shapes of the sums and of their gradients.
    """
    leaves = jax.tree.leaves(dots, is_leaf=lambda d: d is None)
    second = Moving(leaves=tuple(d is not None for d in leaves))

    def body(operands: Any, tangents: Any) -> tuple[Any, list[Any]]:
        (params, rows), (dots, row_dots) = operands, tangents
        either = replaced(moving(operands), tangents)[1]
        together = rows, row_dots
        live = None if tiling.live is None else tiling.live(rows, either)
        (rows, row_dots), live, unsorted = live_first(together, live)

        def step(carry: Any, part: Any) -> tuple[Any, Any]:
            part, part_dots = part

            def of_tile(values: Any) -> Any:
                return gradients_of_tile(
                    tiling, moving, *replaced((params, part), values)
                )

            points = second((params, part))
            _, (sum_dots, of_params, of_rows) = jax.jvp(
                of_tile, (points,), ((dots, part_dots),)
            )
            return jax.tree.map(add, carry, (sum_dots, of_params)), of_rows

        def add(a: Array, b: Array) -> Array:
            return a if b.dtype == jax.dtypes.float0 else a + b

        (sum_dots, of_params), of_rows = over_tiles(
            step,
            _start(tiling, moving, params, rows),
            (rows, row_dots),
            tiling.tile,
            live,
            remember=False,
        )
        return sum_dots, list(zip(of_params, unsorted(of_rows), strict=True))

    points = second(operands)
    dots = jax.tree.map(lambda d, x: d.astype(x.dtype), dots, points)
    return on_each_device(tiling, body, moving, operands, dots)


def _tangents_by_value(
    tiling: Tiling, moving: Moving, operands: Any, dots: Any
) -> tuple[Any, list[Any]]:
    """What `_tangents_by_tiles` gives, by a jvp of the gradients of `tiling.value`."""
    assert tiling.value is not None
    value = tiling.value

    def gradients(operands: Any) -> Any:
        sums, pull = jax.vjp(
            lambda values: value(*replaced(operands, values)), moving(operands)
        )
        leaves, tree = jax.tree.flatten(sums)
        of_each = []
        for k in range(len(leaves)):
            basis = [jnp.full_like(v, float(k == n)) for n, v in enumerate(leaves)]
            of_each.append(as_computed(pull(tree.unflatten(basis))[0]))
        return sums, of_each

    points = jax.tree.map(
        lambda d, x: None if d is None else x,
        dots,
        operands,
        is_leaf=lambda d: d is None,
    )
    return jax.jvp(
        lambda values: gradients(replaced(operands, values)), (points,), (dots,)
    )[1]
