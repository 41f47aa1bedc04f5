"""Σ_c e_c (z_c − shift), e = exp(z − shift): with Σ e the expected logit, for entropy.

moved to a larger shift, by step:  exp(step) (expected + step Σ e)
tangent:                           Σ e (1 + z − shift) dz
"""

import dataclasses
from typing import Any

from jax import Array, lax

from .._arrays import select
from .._chunks import sum_along
from .._problem.bundles import Maybe
from .statistic import Block, Classes, Move, Point, Statistic, relative


@dataclasses.dataclass(frozen=True)
class Expected(Statistic[Array]):
    def of_block(self, block: Block, given: Any) -> Array:
        # The barrier keeps XLA from storing what the sums share.
        rel = relative(block.z, lax.optimization_barrier(block.shift), block.axis)
        # In place of a select, which XLA on a CPU would store: 0 · −∞ = 0, as exp is 0
        # long before.
        e = lax.exp(rel)
        terms = lax.mul(e, lax.max(rel, lax.sub(e, lax.full_like(e, 1e6))))
        return sum_along(terms, block.axis)

    def of_class(self, classes: Classes, given: Any) -> Array:
        return classes.zero

    def rescaled(self, state: Array, move: Move) -> Array:
        return lax.mul(state + lax.mul(move.sum, move.step), move.factor)

    def tangent(self, at: Point, given: Any, moved: Any, state: Array) -> Maybe:
        factor = at.e * (1 + select(at.e != 0, at.rel))
        return at.poisoned(at.sum((factor, at.dz)))
