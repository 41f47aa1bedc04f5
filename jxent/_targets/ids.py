"""One class id a row: q is 1 at the label, times its class weight w_y."""

from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array, lax

from .. import _checks
from .._arrays import Leaf, Size, over_rows
from .._compute.reading import is_label
from .._compute.times import times
from .._formulas import log_above, reverse_of_id
from .._layouts.mesh import of_parts
from .._problem.bad_labels import reported
from .._problem.bundles import ROWS, Maybe, bundle
from .._problem.ids import at_label, class_ids, equal
from .._problem.problem import Problem, Shared
from .._problem.resolve import without_masked
from .._problem.resolved import Resolved, is_class
from .._statistics.at_ids import AtIds
from .._statistics.inputs import Part, effective_logits
from .._statistics.totals import Totals
from .labels import EveryLogP, Labels, OfLogP, log_p_of, of_known
from .target import Scored


@bundle
class Ids(Labels):
    labels: Annotated[Leaf, ROWS]

    drops = True

    def ignore_index(self, function: str, index: Any) -> Maybe:
        return _checks.ignorable(function, index, self.labels, ids=True)

    def check_margin(self, function: str, margin: Any) -> None:
        pass

    def kept(self, shared: Shared) -> Maybe:
        if shared.ignore_index is None:
            return None
        return lax.bitwise_not(equal(self.labels, shared.ignore_index))

    def resolve(self, problem: Problem) -> Resolved:
        """A label on a masked class is none."""
        weighted = problem.resolved.weighted
        ids = class_ids(self.labels, weighted, problem.classes)
        return problem.resolved._replace(ids=without_masked(problem, ids, weighted))

    def bad(self, problem: Problem) -> tuple[Array, Array, Size]:
        assert problem.resolved.ids is not None
        bad = lax.bitwise_not(is_class(problem.resolved.ids))
        return self.labels, bad, problem.classes

    def logits(self, part: Part) -> tuple[Array, Maybe]:
        """With the margin subtracted from the label's."""
        axis, margin, ids = part.problem.axis, part.problem.shared.margin, part.ids

        def less(z: Array) -> Array:
            assert margin is not None
            assert ids is not None
            full = (
                over_rows(margin, axis, z) if margin.ndim else jnp.full_like(z, margin)
            )
            return lax.select(is_label(ids, axis, z), lax.sub(z, full), z)

        adjusted = None if margin is None else less
        return effective_logits(part, adjusted), None

    def factor(self, problem: Problem) -> Maybe:
        """The class weight of the label, w_y; None for 1."""
        if problem.shared.class_weights is None:
            return None
        return of_parts(_weights_of_labels, problem)

    def score(self, problem: Problem, t: Totals) -> Scored:
        label = reported(t[AtIds], problem)
        return Scored(label=label, factor=of_known(self.factor(problem), label))

    def under(self, formula: OfLogP, scored: Scored, every: EveryLogP) -> Array:
        losses = formula(log_p_of(scored.label, None, every.log_sum))
        return losses if scored.factor is None else times(scored.factor, losses)

    def reverse(
        self, scored: Scored, every: EveryLogP, kept: Array, share: Array
    ) -> Array:
        log_zero = every.problem.shared.parameters[-1]
        own, other = log_above(kept + share, log_zero), log_above(share, log_zero)
        return reverse_of_id(scored.label - every.log_sum, own, other)

    def is_right(self, problem: Problem, predicted: Array) -> Array:
        assert problem.resolved.ids is not None
        return lax.eq(predicted, problem.resolved.ids)


def _weights_of_labels(problem: Problem) -> Array:
    assert problem.shared.class_weights is not None
    assert problem.resolved.ids is not None
    return at_label(problem, problem.shared.class_weights, problem.resolved.ids)
