"""Σ_{c ≠ y} e_c², e = exp(z − shift), of the classes that are not the label's id y.

moved to a larger shift, by step:  exp(step)² · the sum
tangent:                           2 Σ_{c ≠ y} e_c² dz_c
"""

import dataclasses
from typing import Any

from jax import Array, lax

from .._arrays import cast, select
from .._compute.reading import is_label
from .._problem.bundles import Maybe
from .statistic import Block, Classes, Move, Point, Statistic, relative


@dataclasses.dataclass(frozen=True)
class SquaresOfOthers(Statistic[Array]):
    def given(self, part: Any) -> Array:
        return part.ids

    def of_block(self, block: Block, given: Array) -> Array:
        e = lax.exp(relative(block.z, block.shift, block.axis))
        return _squares(e, given, block.axis)

    def of_class(self, classes: Classes, given: Array) -> Array:
        others = lax.bitwise_not(is_label(given, classes.axis, classes.z))
        return classes.zero + cast(others, classes.zero.dtype)

    def rescaled(self, state: Array, move: Move) -> Array:
        return lax.mul(state, lax.square(move.factor))

    def tangent(self, at: Point, given: Array, moved: Any, state: Array) -> Maybe:
        squares = _squares(at.e, given, at.axis)
        return at.poisoned(at.sum((2 * squares, at.dz)))


def _squares(e: Array, ids: Array, axis: int) -> Array:
    """e_c², and 0 at the label."""
    return lax.square(select(lax.bitwise_not(is_label(ids, axis, e)), e))
