"""Divergences between two softmaxes a row: those of the logits and of their target."""

import functools
from typing import Any

import jax
from jax import Array

from .. import _checks
from .._arrays import is_moving, moving_of
from .._checks import ArrayLike
from .._formulas import jensen_shannon_divergence, kl_divergence
from .._mixture import mixture_of_block, mixture_tangent_of_block
from .._problem import Formula, Maybe, Resolved, Rows, Settings, Shared
from .._statistics import Totals
from .totals import as_points, over_all_classes, totals


def jensen_shannon_formula(function: str, beta: ArrayLike) -> tuple[Formula, bool]:
    """The formula for β, and whether logits and target are to be exchanged for it.

    A Python 0 or 1 stands for a KL divergence, where the formula itself tends to 0.
    """
    end = _checks.end_of_beta(function, beta)
    if end is None:
        parameters = {"beta": beta}
        return Formula(function=jensen_shannon_divergence, parameters=parameters), False
    return Formula(function=kl_divergence, parameters={}), end == 1


def divergences_of(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """The rows' divergences, (rows,), before weights and reduction."""
    t = totals(settings, rows, shared, resolved)
    assert t.target_sum is not None
    if settings.formula is kl_divergence:
        assert t.cross is not None
        return kl_divergence(t.cross / t.target_sum, t.target_sum / t.sum)
    return _jensen_shannon(settings, rows, shared, resolved, t)


# With q = softmax(z'), p = softmax(z) and m = βq + (1 − β)p,
#
#     JSD = β K' + (1 − β) K,   K' = Σ q log(q/m),   K = Σ p log(p/m)
#
# needs the normalizers of both, so that it is a second pass over the classes. As
# d log q = dz' − Σ q dz', d log p = dz − Σ p dz and Σ dm = 0,
#
#     dJSD = Σ β q (log(q/m) − K') dz' + Σ (1 − β) p (log(p/m) − K) dz + (K' − K) dβ
#
# which is one more pass, whatever has a tangent. The terms in K' and K come from the
# two means, the tangents of the normalizers: so the rule does not read those of `t`.
# JAX derives the derivatives of this rule, which go through K', K and `t`.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _jensen_shannon(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved, t: Totals
) -> Array:
    """The Jensen–Shannon divergences (rows,), from the finished totals `t` (rows,)."""
    return _from_mixture(settings, rows, shared, resolved, t, means=False)[0]


def _from_mixture(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    t: Totals,
    *,
    means: bool,
) -> tuple[Array, ...]:
    """The divergences, and with `means` KL(target ‖ m) and KL(logits ‖ m), (rows,)."""

    def of_block(
        settings: Settings, pair: Any, moving: Any, ids: Maybe, resolved: Any, t: Any
    ) -> tuple[Array, ...]:
        return mixture_of_block(settings, pair, resolved, t, means=means)

    nothing = Rows(), Shared()
    return over_all_classes(settings, of_block, rows, shared, resolved, t, *nothing)


@functools.partial(_jensen_shannon.defjvp, symbolic_zeros=True)
def _jensen_shannon_jvp(settings: Settings, primals: Any, tangents: Any) -> Any:
    rows, shared, resolved, t = primals
    moving = moving_of(tangents[:2])
    value, of_target, of_logits = _from_mixture(settings, *primals, means=True)
    (dbeta,) = tangents[1].parameters

    def of_block(
        settings: Settings, pair: Any, moving: Any, ids: Maybe, resolved: Any, t: Any
    ) -> Array:
        pair = as_points(pair, moving)
        return mixture_tangent_of_block(settings, pair, moving, resolved, *t)

    known = t, of_target, of_logits, value
    tangent = over_all_classes(
        settings, of_block, rows, shared, resolved, known, *moving
    )
    if is_moving(dbeta):
        tangent = tangent + (of_target - of_logits) * dbeta
    return value, tangent
