"""The derivative of the statistics of a block: one linear function, whatever moves.

With e = exp(z − shift) and the other factor of each product held fixed at the point of
differentiation, and the shift a constant, the statistics are linear in (z, t, w):

    d sum      = Σ e dz
    d label    = dz_y
    d target   = Σ t dz + Σ dt (z − shift)        d mass      = Σ dt
    d even     = Σ w dz + Σ dw (z − shift)        d even_mass = Σ dw
    d expected = Σ e (1 + z − shift) dz

`linear` below is that function of the block's inputs, and the inputs are a function of
the pair (Rows, Shared). Its jvp at the pair, along the tangents of whatever moves, is
the tangent: no field is named, so none can be forgotten. JAX transposes it for reverse
mode, into one elementwise pass over the logits,

    dz = e (g_sum + g_expected (1 + z − shift))
         + [c = y] g_label + t g_target + w g_even

and differentiates it again for higher orders, in e and in the fixed factors, too.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import like_moving, over_classes, over_rows, replaced, select
from .._problem import Maybe, Resolved, Rows, Settings, Shared, is_label
from .._reduction import finite_slope
from .block import mass_of
from .inputs import Inputs, inputs_of_block
from .totals import Totals, origin


@jax.custom_jvp
def _exp_of_computed(rel: Array, computed: Array) -> Array:
    """exp(rel) in computed rows, else 0 with derivatives of 0, whatever is there.

    The mask stands after the exponential, so that this is the exponential of the value
    and XLA computes both once. Its derivative must not be that of such a select: a row
    that holds NaN would turn it into 0 · NaN.
    """
    return select(computed, lax.exp(rel))


@_exp_of_computed.defjvp
def _exp_of_computed_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (rel, computed), (drel, _) = primals, tangents
    e = _exp_of_computed(rel, computed)
    return e, lax.mul(e, select(computed, drel))


def tangent_of_block(
    settings: Settings,
    pair: tuple[Rows, Shared],
    moving: tuple[Rows, Shared],
    ids: Maybe,
    resolved: Resolved,
    t: Totals,
) -> Totals:
    """The tangents (rows,) of a block's totals, linear in those of the pair.

    `moving` is the pair of tangents, None where nothing moves; where something does, it
    and its point are float32 or better, so that gradients are summed in that. `ids`
    (rows,) are counted from the block's first class, and `t` are the finished totals of
    all classes, whose maximum has no tangent.
    """
    axis = settings.axis
    assert t.computable is not None
    computed = None
    if resolved.weighted is not None:  # what may hold anything has no tangent
        computed = lax.bitwise_or(resolved.weighted, t.computable)

    def inputs_at(values: tuple[Rows, Shared]) -> Inputs:
        rows, shared = replaced(pair, values)
        return inputs_of_block(settings, rows, shared, ids, computed)

    points = like_moving(moving, pair)
    at = inputs_at(points)
    rel = lax.sub(at.z, over_classes(origin(t.maximum), axis, at.z))
    e, where = lax.exp(rel), None
    if computed is not None:
        where = over_classes(computed, axis, at.z)
        e, rel = _exp_of_computed(rel, where), select(where, rel)
    # NaN in the whole row where its statistics are: e times it is NaN everywhere.
    good = t.computable
    if resolved.weighted is not None:
        good = lax.bitwise_or(good, lax.bitwise_not(resolved.weighted))
    if t.label is not None:
        good = lax.bitwise_and(good, lax.eq(t.label, t.label))
    poison = select(good, lax.full_like(t.sum, 1), jnp.nan)
    is_own = None if ids is None else is_label(ids, axis, at.z)

    def linear(values: tuple[Rows, Shared]) -> Totals:
        x = inputs_at(values)
        if where is not None:
            x = x._replace(z=select(where, x.z))
        return _linear(settings, x, at, e, rel, is_own, poison)

    tangents = jax.jvp(linear, (points,), (moving,))[1]
    return tangents._replace(maximum=None)  # a constant


def _linear(
    settings: Settings,
    x: Inputs,
    at: Inputs,
    e: Array,
    rel: Array,
    is_own: Maybe,
    poison: Array,
) -> Totals:
    """The statistics as a linear function of `x`, with what is held fixed at `at`.

    `e` and `rel` = z − shift have the logits' shape, and so has `is_own`, which is True
    at a row's own label. `poison` (rows,) is NaN for rows whose statistics are, else 1.
    """
    axis = settings.axis

    def over_class_axis(*terms: Array) -> Array:
        return lax.reduce_sum(functools.reduce(lax.add, terms), (axis,))

    def full(w: Array) -> Array:
        return over_rows(w, axis, at.z) if w.ndim == 1 else w

    zero = lax.full_like(poison, 0)
    total = lax.mul(poison, over_class_axis(lax.mul(e, x.z)))
    out = Totals(maximum=zero, sum=total)
    if is_own is not None:
        out = out._replace(label=over_class_axis(select(is_own, x.z)))
    if x.target is not None and at.target is not None:
        in_z, in_target = lax.mul(at.target, x.z), lax.mul(x.target, finite_slope(rel))
        mass = over_class_axis(x.target)
        out = out._replace(target=over_class_axis(in_z, in_target), mass=mass)
    if x.even is not None and at.even is not None:
        in_z = lax.mul(full(at.even), x.z)
        in_even = lax.mul(full(x.even), finite_slope(rel))
        mass = mass_of(axis, x.even, poison)
        out = out._replace(even=over_class_axis(in_z, in_even), even_mass=mass)
    if settings.expected:
        factor = e * (1 + select(e != 0, rel))
        terms = lax.mul(factor, x.z)
        out = out._replace(expected=lax.mul(poison, over_class_axis(terms)))
    return out
