"""The derivative of the statistics of a block: one linear function, whatever moves.

With e = exp(z − shift) and the other factor of each product held fixed at the point of
differentiation, and the shift a constant, the statistics are linear in (z, t, w):

    d sum      = Σ e dz
    d label    = dz_y
    d target   = Σ t dz + Σ dt (z − shift)        d mass      = Σ dt
    d even     = Σ w dz + Σ dw (z − shift)        d even_mass = Σ dw
    d expected = Σ e (1 + z − shift) dz

and with a target softmax, e' = exp(z' − shift') and g = (z' − shift') − (z − shift),

    d target_sum = Σ e' dz'
    d cross      = Σ e' (1 + g) dz' − Σ e' dz

`_linear` below is that function of the tangents of the block's inputs, and the inputs
are a function of the pair (Rows, Shared). The jvp of both at the pair, along the
tangents of whatever moves, is the tangent: no field is named, so none can be forgotten.
JAX transposes it for reverse mode, into one elementwise pass over the logits,

    dz = e (g_sum + g_expected (1 + z − shift))
         + [c = y] g_label + t g_target + w g_even

and differentiates it again for higher orders, in e and in the fixed factors, too.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    like_moving,
    moving_of,
    over_classes,
    over_rows,
    replaced,
    select,
    vary,
    varying_of,
)
from .._problem import (
    Maybe,
    Resolved,
    Rows,
    Settings,
    Shared,
    at_places,
    is_label,
)
from .._times import finite_slope
from .block import mass_of
from .inputs import Inputs, inputs_of_block
from .totals import Totals, computed_rows, origin


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
    computed = computed_rows(resolved, t)  # a row that may hold anything has no tangent

    def statistics_at(values: tuple[Rows, Shared]) -> Totals:
        rows, shared = replaced(pair, values)
        inputs = inputs_of_block(settings, rows, shared, ids, computed)
        return _statistics(settings, inputs, ids, resolved.weighted, computed, t)

    points = like_moving(moving, pair)
    tangents = jax.jvp(statistics_at, (points,), (moving,))[1]
    return tangents._replace(maximum=None, target_maximum=None)  # constants


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _statistics(
    settings: Settings,
    inputs: Inputs,
    ids: Maybe,
    weighted: Maybe,
    computed: Maybe,
    t: Totals,
) -> Totals:
    """`t`, less what has no tangent: its rule is the derivative in the inputs alone."""
    everywhere = varying_of((inputs, ids, weighted, computed, t))
    return vary(t._replace(argmax=None, top=None, computable=None), everywhere)


@functools.partial(_statistics.defjvp, symbolic_zeros=True)
def _statistics_jvp(settings: Settings, primals: Any, tangents: Any) -> Any:
    at, ids, weighted, computed, t = primals
    ids = None if settings.several_labels else ids
    axis = settings.axis
    moved: Inputs = moving_of(tangents[0])
    rel = lax.sub(at.z, over_classes(origin(t.maximum), axis, at.z))
    if computed is None:
        e = lax.exp(rel)
    else:
        where = over_classes(computed, axis, at.z)
        e, rel = _exp_of_computed(rel, where), select(where, rel)
        if moved.z is not None:
            moved = moved._replace(z=select(where, moved.z))
    # NaN in the whole row where its statistics are: e times it is NaN everywhere.
    good = t.computable
    if weighted is not None:
        good = lax.bitwise_or(good, lax.bitwise_not(weighted))
    if t.label is not None:
        known = lax.eq(t.label, t.label)
        if known.ndim > good.ndim:
            known = lax.reduce_and(known, (known.ndim - 1,))
        good = lax.bitwise_and(good, known)
    poison = select(good, lax.full_like(t.sum, 1), jnp.nan)
    everywhere = varying_of(primals)
    values = vary(t._replace(argmax=None, top=None, computable=None), everywhere)
    zeros = jax.tree.map(jax.custom_derivatives.zero_from_primal, values)
    sums = _linear(settings, moved, at, e, rel, ids, poison)
    if at.target_z is not None:
        sums |= _linear_of_target(settings, moved, at, t, rel, computed, poison)
    moved_sums = {n: vary(x, everywhere) for n, x in sums.items() if x is not None}
    return values, zeros._replace(**moved_sums)


def _linear(
    settings: Settings,
    moved: Inputs,
    at: Inputs,
    e: Array,
    rel: Array,
    ids: Maybe,
    poison: Array,
) -> dict[str, Maybe]:
    """The statistics' tangents (rows,), None for 0: linear in what moved.

    `moved` are the tangents of the inputs, None where nothing moved, and `at` the
    inputs, which are held fixed. `e` and `rel` = z − shift have the logits' shape.
    `poison` (rows,) is NaN for rows whose statistics are, else 1.
    """
    axis = settings.axis
    dz = moved.z

    def product_sum(*pairs: tuple[Maybe, Maybe]) -> Maybe:
        """Σ_c of the products of those pairs that are there."""
        terms = [
            lax.mul(over_rows(w, axis, at.z) if w.ndim == 1 else w, x)
            for w, x in pairs
            if w is not None and x is not None
        ]
        if not terms:
            return None
        return lax.reduce_sum(functools.reduce(lax.add, terms), (axis,))

    out: dict[str, Maybe] = {}
    if dz is not None:
        out["sum"] = lax.mul(poison, lax.reduce_sum(lax.mul(e, dz), (axis,)))
        if ids is not None and ids.ndim == dz.ndim:
            out["label"] = at_places(dz, ids, axis)
        elif ids is not None:
            own = select(is_label(ids, axis, at.z), dz)
            out["label"] = lax.reduce_sum(own, (axis,))
        if settings.expected:
            factor = e * (1 + select(e != 0, rel))
            total = lax.reduce_sum(lax.mul(factor, dz), (axis,))
            out["expected"] = lax.mul(poison, total)
    for name, mass in (("target", "mass"), ("even", "even_mass")):
        w, dw = getattr(at, name), getattr(moved, name)
        slope = None if dw is None else finite_slope(rel)
        out[name] = product_sum((w, dz), (dw, slope))
        out[mass] = None if dw is None else mass_of(axis, dw, poison)
    return out


def _linear_of_target(
    settings: Settings,
    moved: Inputs,
    at: Inputs,
    t: Totals,
    rel: Array,
    computed: Maybe,
    poison: Array,
) -> dict[str, Maybe]:
    """The tangents (rows,) of target_sum and cross; no entry where one is 0.

    `t` are the finished totals, `rel` = z − shift has the logits' shape, `computed` and
    `poison` are (rows,).
    """
    assert at.target_z is not None
    assert t.target_maximum is not None
    axis, z = settings.axis, at.target_z
    target_rel = lax.sub(z, over_classes(origin(t.target_maximum), axis, z))
    dz, target_dz = moved.z, moved.target_z
    if computed is None:
        e = lax.exp(target_rel)
    else:
        where = over_classes(computed, axis, z)
        e, target_rel = _exp_of_computed(target_rel, where), select(where, target_rel)
        if target_dz is not None:
            target_dz = select(where, target_dz)
        if dz is not None:
            dz = select(where, dz)

    def total(factor: Array, x: Array) -> Array:
        return lax.mul(poison, lax.reduce_sum(lax.mul(factor, x), (axis,)))

    out: dict[str, Maybe] = {}
    cross = []
    if target_dz is not None:
        out["target_sum"] = total(e, target_dz)
    if target_dz is not None and t.cross is not None:
        gap = select(lax.ne(e, lax.full_like(e, 0)), lax.sub(target_rel, rel))
        slope = lax.add(lax.full_like(e, 1), finite_slope(gap))
        cross.append(total(lax.mul(e, slope), target_dz))
    if dz is not None and t.cross is not None:
        cross.append(lax.neg(total(e, dz)))
    if cross:
        out["cross"] = functools.reduce(lax.add, cross)
    return out
