"""Σ_c e_c (z_c − shift), e = exp(z − shift): with Σ e the expected logit, for entropy.

moved to a larger shift, by step:  exp(step) (expected + step Σ e)
tangent:                           Σ e (1 + z − shift) dz
"""

import dataclasses
from typing import Any

from jax import Array, lax

from .._arrays import select
from .._compute.times import exp_times
from .._problem.bundles import Maybe
from .statistic import Block, Classes, Move, Point, Statistic, relative


@dataclasses.dataclass(frozen=True)
class Expected(Statistic[Array]):
    def of_block(self, block: Block, given: Any) -> Array:
        rel = relative(block.z, block.shift, block.axis)
        return exp_times(rel, rel)

    def of_class(self, classes: Classes, given: Any) -> Array:
        return classes.zero

    def rescaled(self, state: Array, move: Move) -> Array:
        return lax.mul(state + lax.mul(move.sum, move.step), move.factor)

    def tangent(self, at: Point, given: Any, moved: Any, state: Array) -> Maybe:
        factor = at.e * (1 + select(at.e != 0, at.rel))
        return at.poisoned(at.sum((factor, at.dz)))
