"""Another softmax a row: the target of divergences, from logits of its own."""

import functools
from typing import Any

import jax
from jax import Array

from .. import _checks
from .._arrays import moving_of
from .._checks import ArrayLike
from .._formulas import jensen_shannon_divergence, kl_divergence
from .._layouts.totals import over_all_classes, totals
from .._problem import Maybe, Problem
from .._statistics import (
    Part,
    SecondSoftmax,
    Statistic,
    Totals,
    effective_logits,
)
from .mixture import mixture_of_block, mixture_tangent_of_block
from .target import Losses, Target, bundle


@bundle
class Softmax(Target):
    """Its logits are the second ones of the rows, and need no field here."""

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        return (SecondSoftmax(compared=problem.settings.formula is kl_divergence),)

    def logits(self, part: Part) -> tuple[Array, Maybe]:
        own = effective_logits(part.problem, part.computed)
        return own, effective_logits(part.problem, part.computed, index=1)

    def losses(self, problem: Problem) -> Losses:
        t = totals(problem)
        if problem.settings.formula is not kl_divergence:
            return Losses(losses=_jensen_shannon(problem, t))
        second = t[SecondSoftmax]
        mean_gap, ratio = second.cross / second.sum, second.sum / t.sum
        return Losses(losses=kl_divergence(mean_gap, ratio))


def jensen_shannon_formula(
    function: str, beta: ArrayLike
) -> tuple[Any, dict[str, ArrayLike], bool]:
    """The formula for β, its parameters, and whether logits and target are to be
    exchanged for it.

    A Python 0 or 1 stands for a KL divergence, where the formula itself tends to 0.
    """
    end = _checks.end_of_beta(function, beta)
    if end is None:
        return jensen_shannon_divergence, {"beta": beta}, False
    return kl_divergence, {}, end == 1


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
@jax.custom_jvp
def _jensen_shannon(problem: Problem, t: Totals) -> Array:
    """The Jensen–Shannon divergences (rows,), from the finished totals `t` (rows,)."""
    (beta,) = problem.shared.parameters
    return jensen_shannon_divergence(*_from_mixture(problem, t), beta)


def _from_mixture(problem: Problem, t: Totals) -> tuple[Array, Array]:
    """KL(target ‖ m) and KL(logits ‖ m), (rows,)."""

    def of_block(problem: Problem, _: Any, first: Maybe, t: Totals) -> Any:
        return mixture_of_block(problem, t)

    return over_all_classes(of_block, problem, per_row=t)


@functools.partial(_jensen_shannon.defjvp, symbolic_zeros=True)
def _jensen_shannon_jvp(primals: Any, tangents: Any) -> Any:
    problem, t = primals
    moving = moving_of(tangents[0].pair)
    of_target, of_logits = _from_mixture(problem, t)
    (beta,), (dbeta,) = problem.shared.parameters, moving[1].parameters
    value = jensen_shannon_divergence(of_target, of_logits, beta)

    def of_block(problem: Problem, moving: Any, first: Maybe, known: Any) -> Array:
        return mixture_tangent_of_block(problem, moving, *known)

    known = t, of_target, of_logits, value
    tangent = over_all_classes(of_block, problem, moving, known)
    if dbeta is not None:
        tangent = tangent + (of_target - of_logits) * dbeta
    return value, tangent
