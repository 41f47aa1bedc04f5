"""z_y − shift of a class id y, or of several ids a row, (rows, k).

While blocks are merged it is z_y itself, 0 where y lies in another block: the states of
blocks add up. A bad id makes its own state NaN.

    tangent:  dz_y
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import is_below, is_split, over_last_axis, select
from .._compute.reading import at_ids, at_index, is_label, tangent_at_ids
from .._problem.bundles import Maybe
from .._problem.resolved import is_class
from .statistic import Classes, Finished, Move, Point, Statistic


@dataclasses.dataclass(frozen=True)
class AtIds(Statistic[Array]):
    @property
    def shares_nothing(self) -> bool:
        return True

    def given(self, part: Any) -> Array:
        """Ids counted from the block's first class; out of range for other blocks'."""
        return part.ids

    def read(self, axis: int, z: Array, given: Array) -> tuple[Array, Maybe]:
        if is_split(z):  # a gather along a split axis is refused
            return at_ids(z, given, axis, z), None
        # Whatever the id, what is read is one of the logits and changes no maximum.
        own = at_index(z, given, axis)
        label = select(is_below(given, z.shape[axis]), own)
        several = given.ndim == z.ndim
        return label, lax.reduce_max(own, (own.ndim - 1,)) if several else own

    def of_class(self, classes: Classes, given: Array) -> Maybe:
        axis, z = classes.axis, classes.z
        if given.ndim == z.ndim:
            return None
        return select(is_label(given, axis, z), z)

    def rescaled(self, state: Array, move: Move) -> Array:
        return state

    def finish(self, state: Array, finished: Finished) -> Array:
        shift = over_last_axis(finished.shift, state)
        label = finished.filled(lax.sub(state, shift))
        ids = finished.resolved.ids
        if ids is None:
            return label
        if ids.ndim > finished.flaw.ndim:
            return select(is_class(ids), label, jnp.nan)
        # A number in place of a select, see `flaw_of`.
        return lax.add(label, select(is_class(ids), lax.full_like(label, 0), jnp.nan))

    def is_known(self, state: Array) -> Array:
        return lax.eq(state, state)

    def tangent(self, at: Point, given: Array, moved: Any, state: Array) -> Maybe:
        return None if at.dz is None else tangent_at_ids(at.dz, given, at.axis)
