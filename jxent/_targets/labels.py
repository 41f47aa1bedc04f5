"""Labels of a softmax: the recipe of their losses, Σ_c q_c f(log p_c) and its options.

A kind of labels says what its rows' q is, and how a formula is summed under it. Class
weights, smoothing and z-loss are the same for all.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

from jax import Array, lax

from .._arrays import over_classes, over_rows, select, sum_over_devices
from .._compute.chunks import sum_along
from .._compute.times import finite_slope, times
from .._formulas import is_linear, symmetric
from .._layouts.totals import totals
from .._problem.bundles import Maybe
from .._problem.ids import first_class
from .._problem.problem import Problem
from .._statistics.argmax import Argmax
from .._statistics.at_ids import AtIds
from .._statistics.evenly import CLASS_SCALE, Evenly
from .._statistics.expected import Expected
from .._statistics.inputs import Inputs, inputs_of_block, over_classes_if
from .._statistics.softmax_statistics import SoftmaxStatistics
from .._statistics.statistic import Statistic
from .._statistics.totals import Totals, computed_rows, filled
from .target import Losses, Scored, Target, evenly_if


OfLogP: TypeAlias = Callable[[Array], Array]  # a formula with its parameters


class Labels(Target):
    # Of each kind -----------------------------------------------------------------

    def under(self, formula: OfLogP, scored: Scored, every: "EveryLogP") -> Array:
        """Σ_c q_c f(log p_c), (rows,)."""
        raise NotImplementedError

    def reverse(
        self, scored: Scored, every: "EveryLogP", kept: Array, share: Array
    ) -> Array:
        """−Σ_c p_c max(log q_c, A) of the smoothed labels kept · q + share, (rows,)."""
        raise NotImplementedError

    # Of all -----------------------------------------------------------------------

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        shared = problem.shared
        if problem.settings.formula is None:
            return (AtIds(), *evenly_if(shared.class_weights))
        return (AtIds(), *evenly_if(shared.label_smoothing))

    def needs_every_log_p(self, problem: Problem) -> bool:
        """So it is where a formula that is not linear in log p is summed over the
        classes, with the weights that smoothing or a distribution gives them."""
        formula, smoothing = problem.settings.formula, problem.shared.label_smoothing
        if formula is symmetric:  # its reverse term alone is not linear in log p
            return self.of_every_class
        if formula is None or is_linear(formula):
            return False
        return self.of_every_class or smoothing is not None

    def losses(self, problem: Problem) -> Losses:
        settings, shared, t = problem.settings, problem.shared, totals(problem)
        scored, every = self.score(problem, t), EveryLogP(problem, t)
        statistics = public(t, problem, scored)

        def formula(log_p: Array) -> Array:
            assert settings.formula is not None
            return settings.formula(log_p, *shared.parameters)

        losses = self.under(formula, scored, every)
        if shared.label_smoothing is not None:
            even = self._evenly(formula, every)
            # NaN, which a factor of 0 would hide
            bad = select(lax.ne(losses, losses), losses)
            losses = times(1 - shared.label_smoothing, losses)
            losses = lax.add(losses, times(smoothing_share(problem), even))
            losses = lax.add(losses, bad)
        if settings.formula is symmetric:
            reverse = self._reverse(scored, every)
            if scored.factor is not None:
                reverse = times(scored.factor, reverse)
            losses = lax.add(losses, times(shared.parameters[1], reverse))
        if shared.z_loss is not None:
            square = lse_squared(statistics, problem, scored.factor)
            losses = losses + times(shared.z_loss, square)
        return Losses(losses=losses, class_factor=scored.factor, statistics=statistics)

    def _evenly(self, formula: OfLogP, every: "EveryLogP") -> Array:
        """The formula's sum over all possible classes, times CLASS_SCALE."""
        if is_linear(every.problem.settings.formula):
            evenly = every.t[Evenly]
            return formula(evenly.sum - times(evenly.mass, every.log_sum))
        return every.over(every.inputs.of(Evenly), formula)

    def _reverse(self, scored: Scored, every: "EveryLogP") -> Array:
        shared, problem = every.problem.shared, every.problem
        smoothing, log_zero = shared.label_smoothing, shared.parameters[-1]
        kept, share = lax.full_like(log_zero, 1), lax.full_like(every.t.sum, 0)
        if smoothing is not None:
            kept, share = 1 - smoothing, share + smoothing_share(problem, scale=1.0)
        unweighted = problem.replace(shared=shared._replace(class_weights=None))
        return self.reverse(scored, EveryLogP(unweighted, every.t), kept, share)


class EveryLogP:
    """Every log p of a row, from logits in memory that are read once more."""

    def __init__(self, problem: Problem, t: Totals):
        self.problem, self.t = problem, t
        self.computed = computed_rows(problem.resolved, t)

    @functools.cached_property
    def log_sum(self) -> Array:
        return lax.log(self.t.sum)

    @functools.cached_property
    def inputs(self) -> Inputs:
        return inputs_of_block(self.problem, first_class(self.problem), self.computed)

    @functools.cached_property
    def log_p(self) -> Array:
        z, axis = self.inputs.z, self.problem.axis
        shift = filled(self.t, self.t.maximum, self.problem.resolved)
        log_p = z - over_classes(shift, axis, z) - over_classes(self.log_sum, axis, z)
        where = over_classes_if(self.computed, axis, z)
        return log_p if where is None else select(where, log_p)

    def over(self, q: Array, formula: OfLogP) -> Array:
        """Σ_c q_c f(log p_c), (rows,); q is (classes,) or has the logits' shape."""
        axis, log_p = self.problem.axis, self.log_p
        q = over_rows(q, axis, log_p) if q.ndim == 1 else q
        safe = lax.select(q == 0, finite_slope(log_p), log_p)
        total = sum_along(times(q, formula(safe)), axis)
        return sum_over_devices(total, self.problem.settings.class_axis_name)


def public(t: Totals, problem: Problem, scored: Scored) -> SoftmaxStatistics:
    """The public statistics, smoothing left out."""
    evenly, expected = t.of(Evenly), t.of(Expected)
    weighted = None
    if evenly is not None and scored.mass is None:
        weighted = lax.div(evenly.sum, lax.full_like(evenly.sum, CLASS_SCALE))
    return SoftmaxStatistics(
        shift=filled(t, t.maximum, problem.resolved),
        log_sum=lax.log(t.sum),
        label_logit=scored.label,
        label_mass=scored.mass,
        weighted_logit=weighted,
        expected_logit=None if expected is None else lax.div(expected, t.sum),
        argmax=t.of(Argmax),
    )


def statistics_of(problem: Problem) -> tuple[SoftmaxStatistics, Totals]:
    """The public statistics, and the totals that they come from."""
    t = totals(problem)
    return public(t, problem, problem.target.score(problem, t)), t


def of_known(masses: Maybe, label: Array) -> Maybe:
    """The masses of labels, 1 where the label is NaN: a mass of 0 would hide that."""
    return None if masses is None else select(lax.eq(label, label), masses, 1)


def smoothing_share(problem: Problem, *, scale: float = CLASS_SCALE) -> Array:
    """ε/K, divided by `scale`: what smoothing gives each of the K possible classes.

    A scalar, or (rows,) where the number of possible classes differs between rows.
    """
    smoothing, count = problem.shared.label_smoothing, problem.resolved.classes
    assert smoothing is not None
    if count is None:
        return smoothing / (scale * problem.classes)
    count = lax.max(count, lax.full_like(count, 1)).astype(smoothing.dtype)
    return smoothing / (scale * count)


def lse_squared(
    statistics: SoftmaxStatistics, problem: Problem, factor: Maybe
) -> Array:
    """lse² (rows,), times `factor` (rows,) if there is one.

    It is 0 in a row that is not weighted and whose lse² is not finite.
    """
    lse, weighted = statistics.lse, problem.resolved.weighted
    if weighted is not None:  # the square of another row may overflow
        lse = select(weighted | lax.is_finite(lax.square(lse)), lse)
    square = lax.mul(lse, lse)  # 2 lse, in the slope of lax.square, may overflow
    return square if factor is None else times(factor, square)


def log_p_of(label: Array, mass: Maybe, log_sum: Array) -> Array:
    """`log_prob`, but −0 where p is 1: a loss of −log p is 0 there, and not −0."""
    log_sum = log_sum if mass is None else times(mass, log_sum)
    return lax.neg(lax.sub(log_sum, label))
