"""Losses of rows with several labels: each class is a binary question by itself.

Most are sums over the classes of a formula in one logit and its label. Such a sum
needs no maximum, and is one pass over the blocks of classes, as is its derivative.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    as_computed,
    like_moving,
    moving_of,
    over_classes,
    over_rows,
    replaced,
    select,
)
from .._formulas import zlpr
from .._problem import (
    Maybe,
    Resolved,
    Rows,
    Settings,
    Shared,
    both,
    dtype_of,
    is_class,
    possible_classes,
)
from .._statistics import effective_logits, labels_of_block, origin
from .._times import times
from .totals import as_points, over_all_classes, totals


def losses_of_several_labels(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """The rows' losses, (rows,), before weights and reduction."""
    operands = rows, shared, resolved
    if settings.formula is zlpr:
        t = totals(settings, *operands)
        low = _log_sum(t.maximum, t.sum)
        losses = zlpr(low, _log_sum(t.target_maximum, t.target_sum))
    else:
        losses = _sum_over_classes(settings, *operands)
    if resolved.ids is None:
        return losses
    # A bad id makes the loss NaN, and as a factor its gradient too.
    known = lax.reduce_and(is_class(resolved.ids), (resolved.ids.ndim - 1,))
    return lax.mul(losses, select(known, lax.full_like(losses, 1), jnp.nan))


def _log_sum(maximum: Maybe, total: Maybe) -> Array:
    """log Σ exp of the classes of one side; −inf if it has none."""
    assert maximum is not None
    assert total is not None
    some = lax.ne(maximum, lax.full_like(maximum, -jnp.inf))
    log_sum = origin(maximum) + lax.log(select(some, total, 1))
    return select(some, log_sum, -jnp.inf)


# A pass over the blocks of classes is a sum, and the tangent of that is the sum of the
# blocks' tangents, which JAX transposes.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_over_classes(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """Σ_c w_c f(z_c, y_c), (rows,); 0 in a row that is not weighted and not finite."""
    return _computed_sum(settings, rows, shared, resolved)[0]


def _computed_sum(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> tuple[Array, Maybe]:
    """The sum (rows,), and boolean (rows,): where it is computed; None for all."""

    def of_block(
        settings: Settings, pair: Any, moving: Any, ids: Maybe, resolved: Any, _: Any
    ) -> Array:
        return _sum_of_block(settings, pair, ids, None)

    nothing = Rows(), Shared()
    total = over_all_classes(settings, of_block, rows, shared, resolved, (), *nothing)
    if resolved.weighted is None:
        return total, None
    computed = lax.bitwise_or(resolved.weighted, lax.is_finite(total))
    return select(computed, total), computed


@functools.partial(_sum_over_classes.defjvp, symbolic_zeros=True)
def _sum_over_classes_jvp(settings: Settings, primals: Any, tangents: Any) -> Any:
    rows, shared, resolved = primals
    total, computed = _computed_sum(settings, rows, shared, resolved)

    def of_block(
        settings: Settings,
        pair: Any,
        moving: Any,
        ids: Maybe,
        resolved: Any,
        computed: Maybe,
    ) -> Array:
        moving = as_computed(moving)
        pair = as_points(pair, moving)
        if pair[0].logits is not None:
            # Else XLA on a CPU keeps for the derivative what the value was made of.
            pair, ids = lax.platform_dependent(
                (pair, ids), cpu=_apart, default=lambda operands: operands
            )

        def sum_at(values: tuple[Rows, Shared]) -> Array:
            return _sum_of_block(settings, replaced(pair, values), ids, computed)

        return jax.jvp(sum_at, (like_moving(moving, pair),), (moving,))[1]

    operands = rows, shared, resolved, computed, *moving_of(tangents[:2])
    return total, over_all_classes(settings, of_block, *operands)


def _apart(operands: Any) -> Any:
    """The operands, of which a compiler does not see what it has formed already."""
    return jax.tree.map(lax.optimization_barrier, operands)


def _sum_of_block(
    settings: Settings, pair: tuple[Rows, Shared], ids: Maybe, computed: Maybe
) -> Array:
    """The sum over a block's classes, (rows,); plain JAX, which its derivatives follow.

    `computed`, (rows,), is False for rows that may hold anything.
    """
    (rows, shared), axis = pair, settings.axis
    dtype = dtype_of(rows, shared)
    z = effective_logits(settings, rows, shared, None, computed, dtype)
    y = labels_of_block(settings, rows, shared, ids, z)
    where = None if computed is None else over_classes(computed, axis, z)
    where = both(where, possible_classes(rows, shared, axis, z))
    if where is not None:
        z, y = select(where, z), select(where, y)
    pos_weight = shared.pos_weight
    if pos_weight is not None and pos_weight.ndim:
        pos_weight = over_rows(pos_weight, axis, z)
    assert settings.formula is not None
    losses = settings.formula(z, y, pos_weight, *shared.parameters)
    if where is not None:
        losses = select(where, losses)
    if shared.class_weights is not None:
        losses = times(over_rows(shared.class_weights, axis, z), losses)
    return lax.reduce_sum(losses, (axis,))
