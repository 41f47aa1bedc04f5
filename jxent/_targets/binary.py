"""Several labels a row: each class is a binary question by itself.

Most losses are sums over the classes of a formula in one logit and its label. Such a
sum needs no maximum, and is one pass over the blocks of classes, as is its derivative.
"""

import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import _checks
from .._arrays import (
    Leaf,
    Size,
    cast,
    is_below,
    moving_of,
    over_rows,
    select,
    sum_over_devices,
)
from .._compute.apart import held_apart
from .._compute.chunks import count_along
from .._compute.elements import element_by_element
from .._compute.reading import spread
from .._compute.times import times
from .._formulas import zlpr
from .._layouts.mesh import of_parts
from .._layouts.totals import over_all_classes, totals
from .._problem.bad_labels import reported
from .._problem.bundles import (
    ROWS_AND_CLASSES,
    ROWS_AND_PLACES,
    Maybe,
    after_merged,
    bundle,
)
from .._problem.ids import class_ids, equal
from .._problem.problem import Problem, Shared
from .._problem.resolve import class_factors, possible_classes
from .._problem.resolved import NOWHERE, Resolved, both, is_class
from .._statistics.inputs import Part, effective_logits, over_classes_if, part_of
from .._statistics.second_softmax import SecondSoftmax
from .._statistics.statistic import Statistic
from .several_ids import Places
from .target import Losses, Target


class Binary(Target):
    has_terms = True

    def labels_of(self, part: Part, z: Array) -> Array:
        """The labels of a block's classes, of the shape of its logits z."""
        raise NotImplementedError

    def answered(self, shared: Shared) -> Maybe:
        """False where a class has no label in a row, of the logits' shape; None for
        nowhere."""
        return None

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        two_sides = problem.settings.formula is zlpr
        return (SecondSoftmax(may_be_empty=True),) if two_sides else ()

    def logits(self, part: Part) -> tuple[Array, Maybe]:
        """For ZLPR its two sides: z + log(1 − y), and log y − z.

        They are −inf where 1 − y, or y, is 0, and where a class is not possible.
        """
        z = effective_logits(part)
        if part.problem.settings.formula is not zlpr:
            return z, None
        where = _where(part, z)
        y = _smoothed(part, z, where)

        def side(share: Array, z: Array) -> Array:
            some = both(where, lax.ne(share, lax.full_like(share, 0)))
            assert some is not None
            return select(some, lax.add(z, lax.log(select(some, share, 1))), -jnp.inf)

        return side(1 - y, z), side(y, lax.neg(z))

    def known(self, problem: Problem) -> Maybe:
        """False in rows (rows,) with a label that is none; None for no such row."""
        return None

    def losses(self, problem: Problem) -> Losses:
        """A bad label makes the row's loss NaN, and as a factor its gradient too."""
        if problem.settings.formula is zlpr:
            t = totals(problem)
            high = t[SecondSoftmax]
            losses = zlpr(t.maximum, t.sum, high.maximum, high.sum)
        else:
            losses = _sum_over_classes(problem)
        known = self.known(problem)
        if known is None:
            return Losses(losses=losses)
        factor = select(known, lax.full_like(losses, 1), jnp.nan)
        return Losses(losses=reported(lax.mul(losses, factor), problem))


@bundle
class BinaryLabels(Binary):
    """A label for every class; of integers only 0 and 1 are labels."""

    labels: Annotated[Leaf, ROWS_AND_CLASSES]

    def ignore_index(self, function: str, index: Any) -> Maybe:
        return _checks.ignorable_binary(function, index, self.labels)

    def labels_of(self, part: Part, z: Array) -> Array:
        return cast(self.labels, z.dtype)

    def answered(self, shared: Shared) -> Maybe:
        if shared.ignore_index is None:
            return None
        return lax.bitwise_not(equal(self.labels, shared.ignore_index))

    def known(self, problem: Problem) -> Maybe:
        if not jnp.issubdtype(self.labels.dtype, jnp.integer):
            return None
        count = of_parts(_count_bad, problem)
        return lax.eq(count, lax.full_like(count, 0))

    def bad(self, problem: Problem) -> tuple[Array, Array, Size] | None:
        if not jnp.issubdtype(self.labels.dtype, jnp.integer):
            return None
        return self.labels, _bad_labels(problem), 2


def _bad_labels(problem: Problem) -> Array:
    """True where a label is none and counts, of the logits' shape."""
    target = problem.target
    bad = lax.bitwise_not(is_below(target.labels, 2))
    computed = over_classes_if(problem.resolved.weighted, problem.axis, bad)
    for counts in (
        possible_classes(problem),
        target.answered(problem.shared),
        computed,
    ):
        bad = bad if counts is None else lax.bitwise_and(bad, counts)
    return bad


def _count_bad(problem: Problem) -> Array:
    """How many labels of a row are none, over all devices, (rows,)."""
    count = count_along(problem.axis, _bad_labels(problem))
    return sum_over_devices(count, problem.settings.class_axis_name)


@bundle
class BinaryIds(Binary, Places):
    """The ids of the classes whose label is yes, and values in place of 1."""

    ids: Annotated[Leaf, ROWS_AND_PLACES]
    values: Annotated[Leaf, after_merged(ROWS_AND_PLACES)] = None

    def resolve(self, problem: Problem) -> Resolved:
        scored, weighted = self.counting(problem)
        ids = class_ids(self.ids, weighted, problem.classes)
        ids = ids if scored is None else select(scored, ids, NOWHERE)
        return problem.resolved._replace(ids=ids)

    def labels_of(self, part: Part, z: Array) -> Array:
        assert part.ids is not None
        values = part.problem.target.values
        return cast(spread(values, part.ids, part.problem.axis, z), z.dtype)

    def known(self, problem: Problem) -> Array:
        ids = problem.resolved.ids
        assert ids is not None
        return lax.reduce_and(is_class(ids), (ids.ndim - 1,))


def _smoothed(part: Part, z: Array, where: Maybe) -> Array:
    """The labels after smoothing, of 0 in place of one that may be anything."""
    smoothing = part.problem.shared.label_smoothing
    y = part.problem.target.labels_of(part, z)
    y = y if where is None else select(where, y)
    if smoothing is None:
        return y
    return lax.add(times(1 - smoothing, y), lax.full_like(y, smoothing / 2))


def _where(part: Part, z: Array) -> Maybe:
    """False where a class is not possible or has no label, or a row is not computed;
    None for nowhere."""
    problem = part.problem
    where = over_classes_if(part.computed, problem.axis, z)
    for mask in (possible_classes(problem), problem.target.answered(problem.shared)):
        where = both(where, mask)
    return where


# A pass over the blocks of classes is a sum, and the tangent of that is the sum of the
# blocks' tangents, which JAX transposes.
@jax.custom_jvp
def _sum_over_classes(problem: Problem) -> Array:
    """Σ_c w_c f(z_c, y_c), (rows,); 0 in a row that is not weighted and not finite."""
    return _computed_sum(problem)[0]


def _computed_sum(problem: Problem) -> tuple[Array, Maybe]:
    """The sum (rows,), and boolean (rows,): where it is computed; None for all."""

    def of_block(problem: Problem, _: Any, first: Maybe, __: Any) -> Array:
        return _sum_of_block(problem, first, None)

    # Of the formulas only cross-entropy, which has no parameters, needs no select.
    nothing = not problem.shared.parameters
    total = over_all_classes(of_block, problem, shares_nothing=nothing)
    weighted = problem.resolved.weighted
    if weighted is None:
        return total, None
    computed: Any = both(
        problem.resolved.keep, lax.bitwise_or(weighted, lax.is_finite(total))
    )
    return select(computed, total), computed


@functools.partial(_sum_over_classes.defjvp, symbolic_zeros=True)
def _sum_over_classes_jvp(primals: Any, tangents: Any) -> Any:
    (problem,), (moved,) = primals, tangents
    total, computed = _computed_sum(problem)

    def of_block(problem: Problem, moving: Any, first: Maybe, computed: Maybe) -> Array:
        if problem.rows.logits[0].array is not None:
            problem = held_apart(problem)
        at = functools.partial(_sum_of_block, first=first, computed=computed)
        return problem.along(moving, at)

    moving = moving_of(moved.pair)
    return total, over_all_classes(of_block, problem, moving, computed)


def _sum_of_block(problem: Problem, first: Maybe, computed: Maybe) -> Array:
    """The sum over a block's classes, (rows,); plain JAX, which its derivatives follow.

    `computed`, (rows,), is False for rows that may hold anything.
    """
    axis, shared, formula = problem.axis, problem.shared, problem.settings.formula
    part = part_of(problem, first, computed)
    z = effective_logits(part)
    where = _where(part, z)
    y = _smoothed(part, z, where)
    z = z if where is None else select(where, z)
    pos_weight, weights = shared.pos_weight, class_factors(problem, where, z)
    if pos_weight is not None and pos_weight.ndim:
        pos_weight = over_rows(pos_weight, axis, z)
        pos_weight = pos_weight if where is None else select(where, pos_weight)
    assert formula is not None
    losses = element_by_element(formula, z, y, pos_weight, *shared.parameters)
    if where is not None:
        losses = select(where, losses)
    losses = losses if weights is None else times(weights, losses)
    return lax.reduce_sum(losses, (axis,))
