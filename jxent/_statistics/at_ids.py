"""z_y − shift of a class id y, or of several ids a row, (rows, k).

While blocks are merged it is z_y itself, 0 where y lies in another block: the states of
blocks add up. A bad id makes its own state NaN.

    tangent:  dz_y
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.interpreters import ad, batching, mlir

from .._arrays import (
    is_below,
    is_split,
    over_classes,
    over_last_axis,
    select,
    value_at_index,
    vary,
    varying_of,
)
from .._platform import by_platform
from .._problem.bundles import Maybe
from .._problem.ids import at_ids, compared_at, is_label, read_at
from .._problem.resolved import is_class
from .statistic import Classes, Finished, Move, Point, Statistic


@dataclasses.dataclass(frozen=True)
class AtIds(Statistic[Array]):
    reads_as_given = True

    def given(self, part: Any) -> Array:
        """Ids counted from the block's first class; out of range for other blocks'."""
        return part.ids

    def read(self, axis: int, z: Array, given: Array) -> tuple[Array, Maybe]:
        several = given.ndim == z.ndim
        if is_split(z):  # a gather along a split axis is refused
            if several:
                return at_ids(z, given, axis), None
            return compared_at(z, given, axis=axis), None
        # Whatever the id, what is read is one of the logits and changes no maximum.
        own = value_at_index(z, given, axis)
        label = select(is_below(given, z.shape[axis]), own)
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
        if at.dz is None:
            return None
        if given.ndim == at.z.ndim:
            return at_ids(at.dz, given, at.axis)
        if is_split(at.z):
            return compared_at(at.dz, given, axis=at.axis)
        operands = vary((at.dz, given), varying_of((at.dz, given)))
        return _at_id.bind(*operands, axis=at.axis)


# dz_y is read on a CPU, where XLA would store a one-hot that is multiplied by dz before
# it sums that. But the transpose of what reads is a scatter, which writes an array of
# its own: that of a one-hot joins the gradient as that is written. JAX has no way to
# give a linear function another transpose that `vmap` knows too, hence a primitive.


def _at_id_by_platform(dz: Array, ids: Array, *, axis: int) -> Array:
    read, compared = (functools.partial(f, axis=axis) for f in (read_at, compared_at))
    return by_platform(dz, ids, cpu=read, default=compared)


# The class is jax.extend.core.Primitive, whose import takes a quarter of jxent's time.
_at_id = type(lax.exp_p)("at_id")
_at_id.def_impl(jax.jit(_at_id_by_platform, static_argnames="axis"))
_at_id.def_abstract_eval(
    lambda dz, ids, *, axis: ids.update(dtype=dz.dtype, weak_type=False)
)
mlir.register_lowering(
    _at_id, mlir.lower_fun(_at_id_by_platform, multiple_results=False)
)


def _at_id_jvp(primals: Any, tangents: Any, *, axis: int) -> tuple[Any, Any]:
    (_, ids), (dot, _) = primals, tangents
    value = _at_id.bind(*primals, axis=axis)
    if isinstance(dot, ad.Zero):
        return value, ad.Zero(jax.typeof(value))
    return value, _at_id.bind(dot, ids, axis=axis)


def _at_id_transpose(cotangent: Any, dz: Any, ids: Array, *, axis: int) -> list[Any]:
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(dz.aval), None]
    like = jax.ShapeDtypeStruct(dz.aval.shape, dz.aval.dtype)
    own = over_classes(cotangent, axis, like)
    return [select(is_label(ids, axis, like), own), None]


def _at_id_batched(operands: Any, axes: Any, *, axis: int) -> tuple[Array, int]:
    (size,) = {x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None}
    dz, ids = (
        jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
        for x, a in zip(operands, axes, strict=True)
    )
    return _at_id.bind(dz, ids, axis=axis + 1), 0


ad.primitive_jvps[_at_id] = _at_id_jvp
ad.primitive_transposes[_at_id] = _at_id_transpose
batching.primitive_batchers[_at_id] = _at_id_batched
