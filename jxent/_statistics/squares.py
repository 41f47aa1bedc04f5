"""Σ_{c ≠ y} e_c², e = exp(z − shift), of the classes that are not the label's id y.

moved to a larger shift, by step:  exp(step)² · the sum
tangent:                           2 Σ_{c ≠ y} e_c² dz_c
"""

import dataclasses
from typing import Any

from jax import Array, lax

from .._arrays import cast, over_classes, sharded_like
from .._chunks import sum_along
from .._problem.bundles import Maybe
from .._reading import is_label
from .statistic import Block, Classes, Move, Point, Statistic, relative


@dataclasses.dataclass(frozen=True)
class SquaresOfOthers(Statistic[Array]):
    def given(self, part: Any) -> Array:
        return part.ids

    def of_block(self, block: Block, given: Array) -> Array:
        # The barrier keeps XLA from storing what this shares with sums and derivatives.
        shift, ids = lax.optimization_barrier((block.shift, given))
        e = lax.exp(relative(block.z, shift, block.axis))
        return sum_along(_squares(e, ids, block.axis), block.axis)

    def of_class(self, classes: Classes, given: Array) -> Array:
        others = lax.bitwise_not(is_label(given, classes.axis, classes.z))
        return classes.zero + cast(others, classes.zero.dtype)

    def rescaled(self, state: Array, move: Move) -> Array:
        return lax.mul(state, lax.square(move.factor))

    def tangent(self, at: Point, given: Array, moved: Any, state: Array) -> Maybe:
        squares = _squares(at.e, given, at.axis)
        return at.poisoned(at.sum((2 * squares, at.dz)))


def _squares(e: Array, ids: Array, axis: int) -> Array:
    """e_c², and 0 at the label: in numbers, as XLA on a CPU would store a mask."""
    classes = sharded_like(lax.broadcasted_iota(e.dtype, e.shape, axis), e)
    distance = lax.abs(classes - over_classes(cast(ids, e.dtype), axis, e))
    return lax.square(lax.min(distance * e, e))
