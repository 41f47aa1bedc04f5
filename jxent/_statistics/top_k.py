"""The k largest logits, relative to the shift, and their ids; of equals the smaller id.

merged:   the k largest of both
tangent:  dz at these ids, which are fixed
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import at_index, over_places
from .._problem.bundles import Maybe
from .._problem.ids import at_places
from .statistic import Finished, Move, Point, Statistic


_LAST = 2**31 - 1  # above all classes


class Largest(NamedTuple):
    logits: Any  # (rows, k)
    ids: Any  # int32 (rows, k)


@dataclasses.dataclass(frozen=True)
class TopK(Statistic[Largest]):
    k: int

    @property
    def fewest_classes(self) -> int:
        return self.k

    def read(self, axis: int, z: Array, given: Any) -> tuple[Largest, Maybe]:
        logits, ids = _largest(axis, z, self.k)
        return Largest(logits=logits, ids=ids), None

    def numbered_from(self, state: Largest, first: Maybe) -> Largest:
        return state if first is None else state._replace(ids=state.ids + first)

    def of_nothing(self, state: Largest) -> Largest:
        return Largest(
            logits=jnp.asarray(-jnp.inf, state.logits.dtype),
            ids=jnp.asarray(_LAST, state.ids.dtype),
        )

    def merge(self, a: Largest, b: Largest, from_a: Move, from_b: Move) -> Largest:
        """Of equals those of `a` come first."""
        k, rows = a.ids.shape[-1], a.ids.ndim - 1
        logits, order = lax.top_k(lax.concatenate((a.logits, b.logits), rows), k)
        ids = at_index(lax.concatenate((a.ids, b.ids), rows), order, rows)
        if b.ids.shape[-1] == k:
            # The identity holds no classes, and loses to −inf, too.
            nothing = lax.eq(a.ids, lax.full_like(a.ids, _LAST))
            logits = lax.select(nothing, b.logits, logits)
            ids = lax.select(nothing, b.ids, ids)
        return Largest(logits=logits, ids=ids)

    def merge_devices(
        self, state: Largest, move: Move, names: tuple[str, ...]
    ) -> Largest:
        """On each device the k largest of all."""
        device, rows = lax.axis_index(names), state.ids.ndim - 1
        count = state.ids.shape[-1]

        def gathered(x: Array) -> Array:
            slots = jnp.zeros((*x.shape[:-1], lax.axis_size(names) * count), x.dtype)
            # A sum, not a gather: of that JAX does not know that all have the same.
            here = lax.dynamic_update_slice_in_dim(slots, x, device * count, rows)
            return lax.psum(here, names)

        logits, order = lax.top_k(gathered(state.logits), self.k)
        return Largest(logits=logits, ids=at_index(gathered(state.ids), order, rows))

    def finish(self, state: Largest, finished: Finished) -> Largest:
        shift = over_places(finished.shift, state.logits)
        relative = finished.filled(lax.sub(state.logits, shift))
        return state._replace(logits=relative)

    def moving(self, state: Largest) -> Largest:
        return state._replace(ids=None)

    def is_known(self, state: Largest) -> Array:
        return lax.eq(state.logits, state.logits)

    def tangent(self, at: Point, given: Any, moved: Any, state: Largest) -> Any:
        if at.dz is None:
            return None
        ids = state.ids if at.first is None else state.ids - at.first
        return Largest(logits=at_places(at.dz, ids, at.axis), ids=None)


def _largest(axis: int, z: Array, k: int) -> tuple[Array, Array]:
    """The k largest logits and their ids, (rows, k), of equals the smaller id first.

    The k largest lie in the k chunks of classes whose largest are the largest. To look
    for these chunks first, and then among their classes, is faster where classes are
    many: on a CPU `lax.top_k` takes some ten times as long for a logit as a maximum.
    """
    z = jnp.moveaxis(z, axis, -1)
    *rows, classes = z.shape
    k = min(k, classes)
    size = 1 << (math.isqrt(classes // k).bit_length() - 1) if classes >= k else 1
    while classes % size:
        size //= 2
    if size < 4:
        return lax.top_k(z, k)
    chunks = z.reshape(*rows, classes // size, size)
    last = len(rows)
    _, chosen = lax.top_k(lax.reduce_max(chunks, (last + 1,)), k)
    # In the order of their classes: `lax.top_k` takes the first of equals.
    chosen = lax.sort(chosen, dimension=last)
    found = jnp.take_along_axis(chunks, chosen[..., None], last, mode="clip")
    logits, place = lax.top_k(found.reshape(*rows, k * size), k)
    chunk = at_index(chosen, lax.div(place, lax.full_like(place, size)), last)
    return logits, chunk * size + lax.rem(place, lax.full_like(place, size))
