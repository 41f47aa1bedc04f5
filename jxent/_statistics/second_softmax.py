"""A second softmax of the row, of logits z' in the same blocks, and what both share.

With e' = exp(z' − shift') of its own shift,

    sum     Σ_c e'_c
    cross   Σ_c e'_c ((z'_c − shift') − (z_c − shift)),   for a divergence

    moved to larger shifts, by step' and step:
            exp(step') (cross + (step' − step) sum)
    tangents, with g = (z' − shift') − (z − shift):
            d sum = Σ e' dz'        d cross = Σ e' (1 + g) dz' − Σ e' dz
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import over_classes, select
from .._compute.chunks import held_apart_if_short
from .._compute.times import exp_times, finite_slope
from .._problem.bundles import Maybe
from .._problem.resolved import Resolved
from .inputs import Part
from .statistic import (
    Block,
    Classes,
    Finished,
    Move,
    Point,
    Statistic,
    exp_of_computed,
    flaw_of,
    gap_of,
    origin,
    relative,
)


class Second(NamedTuple):
    maximum: Any
    sum: Any
    cross: Any = None


@dataclasses.dataclass(frozen=True)
class SecondSoftmax(Statistic[Second]):
    compared: bool = False  # whether there is a cross
    may_be_empty: bool = False

    @property
    def shares_nothing(self) -> bool:
        return not self.compared

    def given(self, part: Part) -> Maybe:
        return part.second

    def other_logits(self, given: Array) -> Array:
        return given

    def of_block(self, block: Block, given: Array) -> Second:
        axis, cross = block.axis, None
        maximum = lax.reduce_max(given, (axis,))
        rel = relative(given, origin(maximum), axis)
        if self.compared:
            shift = held_apart_if_short(origin(maximum), given, axis)
            again = relative(given, shift, axis)
            own = relative(block.z, block.shift, axis)
            cross = exp_times(again, lax.sub(again, own))
        return Second(maximum=maximum, sum=lax.exp(rel), cross=cross)

    def of_class(self, classes: Classes, given: Array) -> Second:
        return Second(
            maximum=lax.add(given, classes.zero),
            sum=lax.add(classes.zero, lax.full_like(classes.zero, 1)),
            cross=classes.zero if self.compared else None,
        )

    def of_nothing(self, state: Second) -> Second:
        zeros = super().of_nothing(state)
        return zeros._replace(maximum=lax.full_like(zeros.maximum, -jnp.inf))

    def _moved(self, state: Second, maximum: Array, move: Move) -> Second:
        """The sums, moved to a larger maximum of its own and to that of the row."""
        step = gap_of(state.maximum, maximum)
        factor = lax.exp(step)
        total, cross = lax.mul(state.sum, factor), None
        if state.cross is not None:
            # What is impossible there adds nothing, 0 · ∞ = 0.
            some = lax.ne(state.maximum, lax.full_like(step, -jnp.inf))
            some &= lax.ne(total, lax.full_like(total, 0))
            # The derivative of the product must not be 0 · ∞ either.
            apart = select(some, step - move.gap)
            cross = lax.mul(state.cross, factor) + lax.mul(total, apart)
            cross = select(some, cross)
        return Second(maximum=None, sum=total, cross=cross)

    def merge(self, a: Second, b: Second, from_a: Move, from_b: Move) -> Second:
        maximum = lax.max(a.maximum, b.maximum)
        a, b = self._moved(a, maximum, from_a), self._moved(b, maximum, from_b)
        cross = None if a.cross is None else lax.add(a.cross, b.cross)
        return Second(maximum=maximum, sum=lax.add(a.sum, b.sum), cross=cross)

    def merge_devices(
        self, state: Second, move: Move, names: tuple[str, ...]
    ) -> Second:
        maximum = lax.pmax(state.maximum, names)
        sums = lax.psum(self._moved(state, maximum, move), names)
        return sums._replace(maximum=maximum)

    def flaw(self, state: Second, resolved: Resolved) -> Array:
        return flaw_of(state.maximum, state.sum, empty=self.may_be_empty)

    def finish(self, state: Second, finished: Finished) -> Second:
        cross = state.cross
        return state._replace(
            sum=finished.filled(state.sum, 1),
            cross=None if cross is None else finished.filled(cross),
        )

    def moving(self, state: Second) -> Second:
        return state._replace(maximum=None)

    def tangent(self, at: Point, given: Array, moved: Maybe, state: Second) -> Second:
        dz, rel = at.dz, relative(given, origin(state.maximum), at.axis)
        if at.computed is None:
            e = lax.exp(rel)
        else:
            where = over_classes(at.computed, at.axis, given)
            e, rel = exp_of_computed(rel, where), select(where, rel)
            moved = None if moved is None else select(where, moved)
            dz = None if dz is None else select(where, dz)
        cross = []
        if self.compared and moved is not None:
            gap = select(lax.ne(e, lax.full_like(e, 0)), lax.sub(rel, at.rel))
            slope = lax.add(lax.full_like(e, 1), finite_slope(gap))
            cross.append(at.poisoned(at.sum((lax.mul(e, slope), moved))))
        if self.compared and dz is not None:
            less: Any = at.poisoned(at.sum((e, dz)))
            cross.append(lax.neg(less))
        return Second(
            maximum=None,
            sum=at.poisoned(at.sum((e, moved))),
            cross=functools.reduce(lax.add, cross) if cross else None,
        )
