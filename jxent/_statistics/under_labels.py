"""Σ_c t_c (z_c − shift) and the mass Σ_c t_c of a distribution t as labels.

t is the distribution times the class weights, 0 where a class is impossible.
"""

import dataclasses

from jax import Array, lax

from .._arrays import cast, over_classes, select
from .._problem.bundles import Maybe
from .._problem.resolve import class_factors
from .._problem.resolved import Resolved
from .inputs import Part
from .weighted import Weighted, WeightedSum


@dataclasses.dataclass(frozen=True)
class UnderLabels(Weighted):
    def given(self, part: Part) -> Array:
        axis, z = part.problem.axis, part.z
        target = cast(part.problem.target.labels, z.dtype)
        if part.computed is not None:
            target = select(over_classes(part.computed, axis, z), target)
        if part.possible is not None:
            target = select(part.possible, target)
        weights = class_factors(part.problem, part.possible, z)
        return target if weights is None else lax.mul(target, weights)

    def flaw(self, state: WeightedSum, resolved: Resolved) -> Maybe:
        if resolved.weighted is None:
            return None
        zero = lax.full_like(state.sum, 0)
        flaw = lax.add(lax.mul(state.sum, zero), lax.mul(state.mass, zero))
        return lax.select(resolved.weighted, zero, flaw)
