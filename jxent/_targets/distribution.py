"""A distribution over the classes a row: q is t times the class weights."""

from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array, lax

from .. import _checks
from .._arrays import Leaf, cast, over_classes, select, sum_over_devices
from .._compute.times import times
from .._formulas import is_linear, log_above
from .._layouts.mesh import of_parts
from .._problem.bundles import ROWS_AND_CLASSES, Maybe, bundle
from .._problem.ids import at_label
from .._problem.problem import Problem
from .._problem.resolve import class_factors, possible_classes
from .._problem.resolved import computable
from .._statistics.statistic import Statistic
from .._statistics.totals import Totals
from .._statistics.under_labels import UnderLabels
from .labels import EveryLogP, Labels, OfLogP, log_p_of
from .target import Scored, evenly_if


@bundle
class Distribution(Labels):
    labels: Annotated[Leaf, ROWS_AND_CLASSES]

    of_every_class = True

    def ignore_index(self, function: str, index: Any) -> Maybe:
        return _checks.ignorable(function, index, self.labels, ids=False)

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        return (UnderLabels(), *evenly_if(problem.shared.label_smoothing))

    def factor(self, problem: Problem) -> Array:
        return of_parts(_mass, problem)

    def score(self, problem: Problem, t: Totals) -> Scored:
        under = t[UnderLabels]
        return Scored(label=under.sum, mass=under.mass, factor=under.mass)

    def under(self, formula: OfLogP, scored: Scored, every: EveryLogP) -> Array:
        if is_linear(every.problem.settings.formula):
            return formula(log_p_of(scored.label, scored.mass, every.log_sum))
        return every.over(every.inputs.of(UnderLabels), formula)

    def reverse(
        self, scored: Scored, every: EveryLogP, kept: Array, share: Array
    ) -> Array:
        problem, inputs = every.problem, every.inputs
        q = times(kept, inputs.of(UnderLabels))
        q = q + over_classes(share, problem.axis, inputs.z)
        log_q = log_above(q, problem.shared.parameters[-1])
        return every.over(log_q, lambda log_p: -lax.exp(log_p))

    def is_right(self, problem: Problem, predicted: Array) -> Array:
        resolved = problem.resolved._replace(ids=predicted)
        own, most = of_parts(_own_and_most, problem.replace(resolved=resolved))
        return lax.ge(own, most)


def _own_and_most(problem: Problem) -> tuple[Array, Array]:
    """The mass of the class of each row's id, and the most of any class, (rows,)."""
    t, possible = cast(problem.target.labels, problem.dtype), possible_classes(problem)
    t = t if possible is None else select(possible, t, -jnp.inf)
    most, names = lax.reduce_max(t, (problem.axis,)), problem.settings.class_axis_name
    most = lax.pmax(most, names) if names else most
    assert problem.resolved.ids is not None
    return at_label(problem, t, problem.resolved.ids), most


def _mass(problem: Problem) -> Array:
    """Σ_c w_c t_c, (rows,)."""
    axis = problem.axis
    t = cast(problem.target.labels, problem.dtype)
    t = computable(problem.resolved, t, axis)
    possible = possible_classes(problem)
    t = t if possible is None else select(possible, t)
    weights = class_factors(problem, possible, t)
    t = t if weights is None else t * weights
    total = lax.reduce_sum(t, (axis,))
    total = sum_over_devices(total, problem.settings.class_axis_name)
    return computable(problem.resolved, total)
