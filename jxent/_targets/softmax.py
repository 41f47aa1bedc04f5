"""Another softmax a row: the target of divergences, from logits of its own."""

from typing import Any

from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .._formulas import jensen_shannon_divergence, kl_divergence
from .._layouts.totals import totals
from .._problem.bundles import Maybe, bundle
from .._problem.problem import Problem
from .._statistics.inputs import Part, effective_logits
from .._statistics.second_softmax import SecondSoftmax
from .._statistics.statistic import Statistic
from .second_pass import divergence_of
from .target import Losses, Target


@bundle
class Softmax(Target):
    """Its logits are the second ones of the rows, and need no field here."""

    has_terms = True

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        return (SecondSoftmax(compared=problem.settings.formula is kl_divergence),)

    def logits(self, part: Part) -> tuple[Array, Maybe]:
        return effective_logits(part), effective_logits(part, index=1)

    def losses(self, problem: Problem) -> Losses:
        t = totals(problem)
        if problem.settings.formula is not kl_divergence:
            return Losses(losses=divergence_of(problem, t))
        second = t[SecondSoftmax]
        mean_gap, ratio = second.cross / second.sum, second.sum / t.sum
        return Losses(losses=kl_divergence(mean_gap, ratio))


def jensen_shannon_formula(
    beta: ArrayLike,
) -> tuple[Any, dict[str, ArrayLike], bool]:
    """The formula for β, its parameters, and whether it is that of the reverse: with
    logits and target exchanged.

    A Python 0 or 1 stands for a KL divergence, where the formula itself tends to 0.
    """
    end = _checks.end_of_beta(beta)
    if end is None:
        return jensen_shannon_divergence, {"beta": beta}, False
    return kl_divergence, {}, end == 1
