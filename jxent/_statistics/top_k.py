"""The k largest logits, relative to the shift, and their ids; of equals the smaller id.

merged:   the k largest of both
tangent:  dz at these ids, which are fixed
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from .._arrays import is_split, over_last_axis
from .._compute.platform import by_platform
from .._compute.reading import at_index, tangent_at_ids
from .._problem.bundles import Maybe
from .statistic import Finished, Move, Point, Statistic


_LAST = 2**31 - 1  # above all classes


class Largest(NamedTuple):
    logits: Any  # (rows, k)
    ids: Any  # int32 (rows, k)


@dataclasses.dataclass(frozen=True)
class TopK(Statistic[Largest]):
    k: int

    @property
    def shares_nothing(self) -> bool:
        return True

    @property
    def fewest_classes(self) -> int:
        return self.k

    def read(self, axis: int, z: Array, given: Any) -> tuple[Largest, Maybe]:
        return _largest(axis, z, self.k), None

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
        return _largest_of_devices(state, names, self.k)

    def finish(self, state: Largest, finished: Finished) -> Largest:
        shift = over_last_axis(finished.shift, state.logits)
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
        return Largest(logits=tangent_at_ids(at.dz, ids, at.axis), ids=None)


def _largest_of_devices(here: Largest, names: tuple[str, ...], k: int) -> Largest:
    """On each device the k largest of all; ids are counted over all devices."""
    device, rows, count = lax.axis_index(names), here.ids.ndim - 1, here.ids.shape[-1]

    def gathered(x: Array) -> Array:
        slots = jnp.zeros((*x.shape[:-1], lax.axis_size(names) * count), x.dtype)
        # A sum, not a gather: of that JAX does not know that all have the same.
        slots = lax.dynamic_update_slice_in_dim(slots, x, device * count, rows)
        return lax.psum(slots, names)

    logits, order = lax.top_k(gathered(here.logits), k)
    return Largest(logits=logits, ids=at_index(gathered(here.ids), order, rows))


def _largest(axis: int, z: Array, k: int) -> Largest:
    """The k largest logits and their ids, (rows, k), of equals the smaller id first."""
    z = jnp.moveaxis(z, axis, -1)
    if not is_split(z):
        return _largest_on_device(z, k)
    sharding: Any = jax.typeof(z).sharding
    *rows, classes = sharding.spec

    def on_device(z: Array) -> Largest:
        here = _largest_on_device(z, k)
        if classes is None:
            return here
        names = classes if isinstance(classes, tuple) else (classes,)
        ids = here.ids + lax.axis_index(names) * z.shape[-1]
        return _largest_of_devices(here._replace(ids=ids), names, k)

    return jax.shard_map(
        on_device,
        mesh=sharding.mesh,
        in_specs=PartitionSpec(*rows, classes),
        out_specs=PartitionSpec(*rows, None),
    )(z)


def _largest_on_device(z: Array, k: int) -> Largest:
    """Those of logits (rows, classes) that nothing splits: k of them, or all.

    The k largest lie in the k chunks of classes whose largest are the largest. To look
    for these chunks first, and then among their classes, is faster where classes are
    many: on a CPU `lax.top_k` takes some ten times as long for a logit as a maximum. A
    TPU would copy the logits into chunks.
    """
    classes = z.shape[-1]
    if not isinstance(classes, int):  # symbolic
        return _plain(k, z)
    k = min(k, classes)
    size = 1 << (math.isqrt(classes // k).bit_length() - 1) if classes >= k else 1
    while classes % size:
        size //= 2
    plain = functools.partial(_plain, k)
    by_chunks = functools.partial(_by_chunks, k, size)
    if size < 4:
        return plain(z)
    return by_platform(z, tpu=plain, default=by_chunks)


def _plain(k: int, z: Array) -> Largest:
    logits, ids = lax.top_k(z, k)
    return Largest(logits=logits, ids=ids)


def _by_chunks(k: int, size: int, z: Array) -> Largest:
    *rows, classes = z.shape
    chunks = z.reshape(*rows, classes // size, size)
    last = len(rows)
    _, chosen = lax.top_k(lax.reduce_max(chunks, (last + 1,)), k)
    # In the order of their classes: `lax.top_k` takes the first of equals.
    chosen = lax.sort(chosen, dimension=last)
    found = jnp.take_along_axis(chunks, chosen[..., None], last, mode="clip")
    logits, place = lax.top_k(found.reshape(*rows, k * size), k)
    # `lax` takes a Python integer for one of 64 bits, where these are on.
    width = lax.full_like(place, size)
    chunk = at_index(chosen, lax.div(place, width), last)
    ids = lax.add(lax.mul(chunk, width), lax.rem(place, width))
    return Largest(logits=logits, ids=ids)
