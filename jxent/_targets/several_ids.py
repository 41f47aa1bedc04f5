"""Several class ids a row, with values: q is v_k at the k-th of them, times w_k.

Equal ids in a row add up. Places of `ignore_index` are padding; mass on a masked class
is dropped, as that of a distribution.
"""

from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array, lax

from .. import _checks
from .._arrays import Leaf, Size, cast, is_below, over_last_axis, select
from .._compute.times import times
from .._formulas import log_above
from .._layouts.mesh import of_parts
from .._problem.bad_labels import report_bad_labels, reported
from .._problem.bundles import ROWS, ROWS_AND_PLACES, Maybe, after_merged, bundle
from .._problem.ids import at_label, class_ids, equal
from .._problem.problem import Problem, Shared
from .._problem.resolve import without_masked
from .._problem.resolved import NOWHERE, Resolved, both, computable, is_class
from .._statistics.at_ids import AtIds
from .._statistics.statistic import Statistic
from .._statistics.totals import Totals
from .labels import EveryLogP, Labels, OfLogP, of_known
from .target import Scored, Target


class Places(Target):
    """What all targets of several ids share."""

    scattered = True

    ids: Any

    def ignore_index(self, function: str, index: Any) -> Maybe:
        return _checks.ignorable(function, index, self.ids, ids=True)

    def counting(self, problem: Problem) -> tuple[Maybe, Maybe]:
        """Two masks (rows, places), None for all: False for padding, and for that and
        all places of rows that are not weighted."""
        index, scored = problem.shared.ignore_index, None
        if index is not None:
            scored = lax.bitwise_not(equal(self.ids, index))
        weighted = problem.resolved.weighted
        if weighted is None:
            return scored, scored
        return scored, both(scored, over_last_axis(weighted, self.ids))

    def bad(self, problem: Problem) -> tuple[Array, Array, Size]:
        assert problem.resolved.ids is not None
        bad = lax.bitwise_not(is_class(problem.resolved.ids))
        return self.ids, bad, problem.classes


@bundle
class SeveralIds(Places, Labels):
    ids: Annotated[Leaf, ROWS_AND_PLACES]
    values: Annotated[Leaf, after_merged(ROWS_AND_PLACES)] = None  # None: 1 each

    def resolve(self, problem: Problem) -> Resolved:
        scored, weighted = self.counting(problem)
        ids = class_ids(self.ids, weighted, problem.classes)
        allowed = without_masked(problem, ids, weighted)
        if allowed is not ids:
            masked = lax.bitwise_and(is_class(ids), lax.bitwise_not(is_class(allowed)))
            scored = both(scored, lax.bitwise_not(masked))
        return problem.resolved._replace(ids=ids, scored=scored)

    def factor(self, problem: Problem) -> Array:
        return _sum_of_places(of_parts(_masses, problem))

    def score(self, problem: Problem, t: Totals) -> Scored:
        label = reported(t[AtIds], problem)
        masses = of_known(of_parts(_masses, problem), label)
        assert masses is not None
        mass = _sum_of_places(masses)
        return Scored(
            label=_sum_of_places(times(masses, label)),
            mass=mass,
            factor=mass,
            at_ids=label,
            masses=masses,
        )

    def under(self, formula: OfLogP, scored: Scored, every: EveryLogP) -> Array:
        label, masses = scored.at_ids, scored.masses
        log_p = lax.sub(label, over_last_axis(every.log_sum, label))
        return _sum_of_places(times(masses, formula(log_p)))

    def reverse(
        self, scored: Scored, every: EveryLogP, kept: Array, share: Array
    ) -> Array:
        log_zero = every.problem.shared.parameters[-1]
        masses, places = _of_equal_ids(every.problem)
        shares, log_sum = (over_last_axis(x, masses) for x in (share, every.log_sum))
        own, other = times(kept, masses) + shares, log_above(share, log_zero)
        gain = log_above(own, log_zero) - over_last_axis(other, masses)
        p = lax.exp(scored.at_ids - log_sum)
        return -other - _sum_of_places(gain * p / places)

    def is_right(self, problem: Problem, predicted: Array) -> Array:
        unweighted = problem.shared._replace(class_weights=None)
        masses, _ = _of_equal_ids(problem.replace(shared=unweighted))
        assert problem.resolved.ids is not None
        here = lax.eq(problem.resolved.ids, over_last_axis(predicted, masses))
        own = lax.reduce_max(select(here, masses, -jnp.inf), (masses.ndim - 1,))
        return lax.ge(own, lax.reduce_max(masses, (masses.ndim - 1,)))


@bundle
class AskedIds(Places):
    """Several ids whose log-probabilities are asked for: they have no mass.

    One on a masked class is NaN, as that of a label.
    """

    ids: Annotated[Leaf, ROWS_AND_PLACES]

    def resolve(self, problem: Problem) -> Resolved:
        scored, weighted = self.counting(problem)
        ids = class_ids(self.ids, weighted, problem.classes)
        ids = without_masked(problem, ids, weighted)
        return problem.resolved._replace(ids=ids, scored=scored)

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        return (AtIds(),)

    def score(self, problem: Problem, t: Totals) -> Scored:
        return Scored(label=reported(t[AtIds], problem))


@bundle
class AmongIds(Target):
    """One id a row among several others: in `Resolved` it stands before these.

    A place is scored if its class is a candidate: each class once, however often it is
    listed, and the row's own always.
    """

    ids: Annotated[Leaf, ROWS]
    others: Annotated[Leaf, ROWS_AND_PLACES]

    scattered = True
    drops = True

    def ignore_index(self, function: str, index: Any) -> Maybe:
        return _checks.ignorable(function, index, self.others, ids=True)

    def kept(self, shared: Shared) -> Maybe:
        if shared.ignore_index is None:
            return None
        return lax.bitwise_not(equal(self.ids, shared.ignore_index))

    def resolve(self, problem: Problem) -> Resolved:
        weighted, listed = problem.resolved.weighted, self._listed(problem)
        own = class_ids(self.ids, weighted, problem.classes)
        own = without_masked(problem, own, weighted)
        others = class_ids(self.others, listed, problem.classes)
        allowed = without_masked(problem, others, listed)
        if allowed is not others:
            masked = lax.bitwise_and(
                is_class(others), lax.bitwise_not(is_class(allowed))
            )
            listed = both(listed, lax.bitwise_not(masked))
        if listed is not None:
            others = select(listed, others, NOWHERE)
        # Sorted, equal ids are neighbours.
        others, last = lax.sort(others), others.ndim - 1
        nowhere = lax.full_like(others, NOWHERE)
        before = lax.concatenate([nowhere[..., :1], others[..., :-1]], last)
        first = lax.bitwise_and(lax.ne(others, nowhere), lax.ne(others, before))
        first = lax.bitwise_and(first, lax.ne(others, over_last_axis(own, others)))
        ids = lax.concatenate([own[..., None], select(first, others)], last)
        scored = lax.concatenate([lax.full_like(first[..., :1], True), first], last)
        return problem.resolved._replace(ids=ids, scored=scored)

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        return (AtIds(),)

    def score(self, problem: Problem, t: Totals) -> Scored:
        label, classes, ids = t[AtIds], problem.classes, problem.resolved.ids
        assert ids is not None
        if problem.settings.reports:
            bad = lax.bitwise_not(is_class(ids[..., 0]))
            label = report_bad_labels(label, self.ids, bad, classes)
            listed = self._listed(problem)
            bad = lax.bitwise_not(is_below(self.others, classes))
            bad = bad if listed is None else lax.bitwise_and(listed, bad)
            label = report_bad_labels(label, self.others, bad, classes)
        return Scored(label=label)

    def _listed(self, problem: Problem) -> Maybe:
        """False for padding, and in rows that are dropped; (rows, places)."""
        index, weighted = problem.shared.ignore_index, problem.resolved.weighted
        if weighted is not None:
            weighted = over_last_axis(weighted, self.others)
        if index is None:
            return weighted
        return both(weighted, lax.bitwise_not(equal(self.others, index)))


def _masses(problem: Problem) -> Array:
    """v_k w_k (rows, places): values times class weights, each 1 if there are none.

    They are 0 in dropped rows and in places that are not scored.
    """
    resolved, weights = problem.resolved, problem.shared.class_weights
    ids, values, dtype = resolved.ids, problem.target.values, problem.dtype
    assert ids is not None
    masses = lax.full_like(ids, 1, dtype=dtype)
    if values is not None:
        masses = computable(resolved, cast(values, dtype), ids.ndim - 1)
    if weights is not None:
        weights = at_label(problem, weights, ids)
        if resolved.scored is not None:  # that of another place may be anything
            weights = select(resolved.scored, weights)
        masses = masses * weights
    for mask in (resolved.keep, resolved.scored):
        if mask is not None:
            masses = select(over_last_axis(mask, masses), masses)
    if values is not None and resolved.weighted is not None:  # their sum may overflow
        finite = lax.is_finite(_sum_of_places(lax.abs(masses)))
        finite = lax.bitwise_or(resolved.weighted, finite)
        masses = select(over_last_axis(finite, masses), masses)
    return masses


def _of_equal_ids(problem: Problem) -> tuple[Array, Array]:
    """Two arrays (rows, places): the total mass of the place's class over all places of
    the row, and how many places of the row have that class."""
    masses, ids = of_parts(_masses, problem), problem.resolved.ids
    assert ids is not None
    same = ids[..., None] == ids[..., None, :]
    total = jnp.sum(jnp.where(same, masses[..., None, :], 0), -1)
    return total, jnp.sum(same, -1, dtype=masses.dtype)


def _sum_of_places(x: Array) -> Array:
    """Sums (rows, places) to (rows,)."""
    return lax.reduce_sum(x, (x.ndim - 1,))
