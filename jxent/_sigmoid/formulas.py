"""Formulas of binary losses, element by element: log p = log σ(z), log q = log σ(−z).

Those `of_logits` are all that a layout needs: functions of logits z, of labels y and of
a loss's parameters.
"""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import like_moving, moving_of, replaced, select
from .._checks import Number
from .._compute.apart import constant, held_apart
from .._compute.slopes import with_slopes
from .._compute.times import times, times_loss, varying_near_0
from .sides import (
    Exponent,
    OfElements,
    against,
    common_loss,
    exponent_array,
    log_p_and_log_q,
    power,
    shares,
    sigmoids,
    with_derivatives_of,
)


def binary(log_p: Array, log_q: Array, y: Array, pos_weight: Array | None) -> Array:
    """−(w⁺ y log p + (1 − y) log q), q = 1 − p"""
    return _of_label(-log_p, -log_q, y, pos_weight)


def _of_label(yes: Array, no: Array, y: Array, pos_weight: Array | None) -> Array:
    """w⁺ y · yes + (1 − y) · no, of the losses of labels 1 and 0"""
    share_of_yes, share_of_no = shares(y, pos_weight)
    return times(share_of_yes, yes) + times(share_of_no, no)


# d loss = ((1 − y) p − w⁺ y q) dz, beside the derivatives in y and w⁺.
@jax.custom_jvp
def binary_of_logits(z: Array, y: Array, pos_weight: Array | None) -> Array:
    """`binary` of log σ(z) and log σ(−z)"""
    # XLA on a CPU makes selects of products with what were booleans.
    y = held_apart(y)
    rest = common_loss(z)
    if pos_weight is None:
        wrong = against(z, y)
    else:
        yes, no = shares(y, pos_weight, constant(1.0, z))
        wrong, rest = against(z, yes, no), (yes + no) * rest
    return times_loss(wrong, jnp.abs(z)) + rest


@functools.partial(binary_of_logits.defjvp, symbolic_zeros=True)
def _binary_of_logits_jvp(primals: Any, tangents: Any) -> Any:
    (z, *label), (dz, *moving) = held_apart(primals), moving_of(tangents)
    terms = []
    if dz is not None:
        (yes, no), (p, q) = shares(*label), sigmoids(z)
        terms.append((no * p - yes * q) * dz)
    if jax.tree.leaves(moving):
        log_p, log_q = log_p_and_log_q(z)
        of_label = lambda given: binary(log_p, log_q, *replaced(label, given))
        terms.append(jax.jvp(of_label, (like_moving(moving, label),), (moving,))[1])
    return binary_of_logits(*primals), functools.reduce(jnp.add, terms)


def binary_focal(
    z: Array, log_p: Array, log_q: Array, y: Array, gamma: Array, alpha: Array | None
) -> Array:
    """α_t (1 − p_t)^γ · binary, p_t = y p + (1 − y) q, α_t = y α + (1 − y)(1 − α)"""
    loss = binary(log_p, log_q, y, None)
    weight = jnp.exp(times(gamma, _log_miss(varying_near_0(z), y)))
    loss = times(weight, loss)
    if alpha is None:
        return loss
    return times(alpha * y + (1 - alpha) * (1 - y), loss)


def _focal_in_logs(
    z: Array, y: Array, _: Array | None, gamma: Array | Exponent, alpha: Array | None
) -> Array:
    return binary_focal(z, *log_p_and_log_q(z), y, exponent_array(gamma, z), alpha)


def _focal_slope(
    z: Array, y: Array, _: Array | None, gamma: Array | Exponent, alpha: Array | None
) -> Array:
    """α_t (m^γ ((1 − y) p − y q) + γ m^(γ − 1) (1 − 2y) p q · binary)

    of m = 1 − p_t = y q + (1 − y) p.
    """
    (p, q), no = sigmoids(z), 1 - y
    miss = y * q + no * p
    loss = against(z, y) * jnp.minimum(jnp.abs(z), jnp.finfo(z.dtype).max)
    loss += jnp.log1p(jnp.minimum(p, q) / jnp.maximum(p, q))  # `common_loss`
    weight, of_weight = _power_and_slope(miss, gamma)
    slope = weight * (no * p - y * q) + of_weight * (p * q * (no - y)) * loss
    return slope if alpha is None else slope * (alpha * y + (1 - alpha) * no)


@with_derivatives_of(_focal_in_logs, _focal_slope)
def focal_of_logits(
    z: Array,
    y: Array,
    pos_weight: Array | None,
    gamma: Annotated[Array | Exponent, Number(low=0)],
    alpha: Annotated[Array | None, Number(low=0, high=1)] = None,
) -> Array:
    """`binary_focal` of log σ(z) and log σ(−z)"""
    del pos_weight  # α takes its place
    one, e, wrong = constant(1.0, z), jnp.exp(-jnp.abs(z)), against(z, y)
    miss = (wrong + (one - wrong) * e) / (one + e)
    weight = power(miss, gamma)
    if alpha is not None:
        weight *= alpha * y + (1 - alpha) * (one - y)
    return weight * (times_loss(wrong, jnp.abs(z)) + jnp.log1p(e))


# log(1 − p_t) = log m, m = y σ(−z) + (1 − y) σ(z). With u = σ(−z)/m, d = σ(z)/m and the
# shares y u + (1 − y) d = 1 of the two terms,
#
#     d log m = ((1 − y) d σ(−z) − y u σ(z)) dz + (u − d) dy
#     d u     = −u ((1 − y) d dz + (u − d) dy)
#     d d     = d (y u dz − (u − d) dy)
#
# Of e = exp(−|z|) and the share of y on the side of 0 that z is not on, which is wrong,
#
#     m (1 + e) = wrong + (1 − wrong) e,
#
# and so u and d are e and 1, or 1 and e, divided by that. Where nothing is wrong it is
# e, which underflows for a confident z.
@with_slopes(
    lambda z, y: _slope_of_log_miss(z, y, *_ratios(z, y)),
    lambda z, y: jnp.subtract(*_ratios(z, y)),
)
def _log_miss(z: Array, y: Array) -> Array:
    e, wrong, mixed = _mixed(z, y)
    log_mixed = jnp.where(wrong == 0, -jnp.abs(z), jnp.log(mixed))
    return log_mixed - jnp.log1p(e)


def _mixed(z: Array, y: Array) -> tuple[Array, Array, Array]:
    """e, wrong, and m (1 + e)"""
    e, wrong = jnp.exp(-jnp.abs(z)), jnp.where(z > 0, 1 - y, y)
    return e, wrong, wrong + (1 - wrong) * e


def _slope_of_log_miss(z: Array, y: Array, u: Array, d: Array) -> Array:
    return (1 - y) * d * jax.nn.sigmoid(-z) - y * u * jax.nn.sigmoid(z)


@jax.custom_jvp
def _ratios(z: Array, y: Array) -> tuple[Array, Array]:
    """u and d, at most a huge number (see finite_slope)."""
    e, wrong, mixed = _mixed(z, y)
    near = jnp.where(wrong == 0, 1, e / mixed)
    far = jnp.minimum(1 / mixed, _huge(mixed))
    return jnp.where(z > 0, near, far), jnp.where(z > 0, far, near)


@_ratios.defjvp
def _ratios_jvp(primals: Any, tangents: Any) -> Any:
    (z, y), (dz, dy) = primals, tangents
    u, d = _ratios(z, y)
    du = -u * ((1 - y) * d * dz + (u - d) * dy)
    dd = d * (y * u * dz - (u - d) * dy)
    return (u, d), (select(u != _huge(u), du), select(d != _huge(d), dd))


def _huge(x: Array) -> Array:
    return jnp.sqrt(jnp.asarray(jnp.finfo(x.dtype).max, x.dtype))


def asymmetric_of_logits(
    z: Array,
    y: Array,
    pos_weight: Array | None,
    gamma_pos: Annotated[Array | Exponent, Number(low=0)],
    gamma_neg: Annotated[Array | Exponent, Number(low=0)],
    clip: Annotated[Array, Number(low=0, high=1)],
) -> Array:
    """−(w⁺ y (1 − p)^γ₊ log p + (1 − y) p_m^γ₋ log(1 − p_m)), p_m = max(p − m, 0)"""
    gamma_pos, gamma_neg = exponent_array(gamma_pos, z), exponent_array(gamma_neg, z)
    near = varying_near_0(z)
    log_p, _ = log_p_and_log_q(z)
    _, log_q = log_p_and_log_q(near)
    log_p_m, _ = _logs_of_shifted(near, clip)
    _, log_q_m = _logs_of_shifted(z, clip)
    yes = times(jnp.exp(times(gamma_pos, log_q)), -log_p)
    no = times(jnp.exp(times(gamma_neg, log_p_m)), -log_q_m)
    return _of_label(yes, no, y, pos_weight)


@functools.cache
def asymmetric_of_elements(*, clipped: bool) -> OfElements:
    """`asymmetric_of_logits` without a select, see `against`.

    `clipped` is whether m is known not to be 0 in its dtype.
    """

    @with_derivatives_of(asymmetric_of_logits, functools.partial(_slope, clipped))
    def function(
        z: Array,
        y: Array,
        pos_weight: Array | None,
        gamma_pos: Array | Exponent,
        gamma_neg: Array | Exponent,
        clip: Array,
    ) -> Array:
        zero, one, minus_z = constant(0.0, z), constant(1.0, z), -z
        # p and q are normal numbers, but q for a confident yes: 0 · ∞ would be NaN. Not
        # by `sigmoids`: XLA on a CPU would store constants that a slope shares.
        largest = constant(-math.log(jnp.finfo(z.dtype).tiny) - 1, z)
        odds = jnp.exp(jnp.minimum(largest, minus_z))  # of no
        p = one / (one + odds)
        q = odds * p
        p_m = jnp.maximum(zero, p - clip)
        yes, no = shares(y, pos_weight, one)
        yes, no = yes * power(q, gamma_pos), no * power(p_m, gamma_neg)
        # −log(1 − p_m) = log(1 + p_m / (1 − p_m)) keeps the digits of p_m near 0 and 1.
        if clipped:
            loss_of_yes = jnp.log1p(odds) + jnp.maximum(zero, minus_z - largest)
            return times_loss(yes, loss_of_yes) + no * jnp.log1p(p_m / (q + clip))
        # Of m = 0 the last product is 0.
        no_margin = _is_0(clip)
        of_q, least = no_margin.astype(z.dtype) * no, jnp.where(no_margin, jnp.inf, 0)
        loss = times_loss(against(z, yes, of_q), jnp.abs(z))
        loss += (yes + of_q) * common_loss(z)
        loss += (no - of_q) * jnp.log1p(p_m / (q + (clip + least)))
        # Where all is off this is the binary loss, to the bit.
        off = (exponent_array(x, z) == 0 for x in (gamma_pos, gamma_neg))
        off = functools.reduce(jnp.logical_and, off, no_margin)
        return jnp.where(off, binary_of_logits(z, y, pos_weight), loss)

    return function


def _slope(
    clipped: bool,
    z: Array,
    y: Array,
    pos_weight: Array | None,
    gamma_pos: Array | Exponent,
    gamma_neg: Array | Exponent,
    clip: Array,
) -> Array:
    """With q_m = 1 − p_m, and 0 for the second term where p_m is:

    −w⁺ y q^γ₊ (q − γ₊ p log p) + (1 − y) p_m^γ₋ p q (1/q_m − γ₋ log q_m / p_m)
    """
    (yes, no), (p, q) = shares(y, pos_weight), sigmoids(z)
    p_m, q_m = jnp.maximum(p - clip, 0), q + clip
    loss, of_loss, of_yes = jnp.log1p(p_m / q_m), q / q_m, q
    if not clipped:
        loss = jnp.where(_is_0(clip), _finite_loss_of_no(z), loss)
        of_loss = jnp.where(_is_0(clip), 1, of_loss)
    if not (isinstance(gamma_pos, Exponent) and gamma_pos.number == 0):
        of_weight = exponent_array(gamma_pos, z) * p * _finite_loss_of_no(-z)
        of_yes = power(q, gamma_pos) * (q + of_weight)
    weight, of_weight = _power_and_slope(p_m, gamma_neg)
    of_no = jnp.ceil(p_m) * p * (weight * of_loss + of_weight * q * loss)
    return no * of_no - yes * of_yes


def _power_and_slope(x: Array, gamma: Array | Exponent) -> tuple[Array, Array]:
    """x^γ and γ x^(γ − 1), which is 0 at x = 0 if γ is an array."""
    value = power(x, gamma)
    if isinstance(gamma, Exponent):
        less = Exponent(max(gamma.number - 1, 0))
        return value, gamma.number * power(x, less)
    least = constant(float(jnp.finfo(x.dtype).tiny), x)
    return value, gamma * value / jnp.maximum(least, x)


def _finite_loss_of_no(z: Array) -> Array:
    """−log σ(−z), at most the largest number, so that 0 times it is 0."""
    largest = constant(float(jnp.finfo(z.dtype).max), z)
    return common_loss(z) + jnp.minimum(largest, jnp.maximum(z, 0))


# d log(p − m) = (p q dz − dm) / (p − m), d log(q + m) = −(p q dz − dm) / (q + m). Where
# m is 0 the logarithms stay those of p and q, which underflow for a confident z, and so
# ratios to them are differences of logarithms.
@jax.custom_jvp
def _logs_of_shifted(z: Array, m: Array) -> tuple[Array, Array]:
    """log(p − m) and log(q + m); the constants 0 where that is not between 0 and 1.

    There the loss of a label 0 is 0, whatever its weight.
    """
    p, q, inside = _shifted(z, m)
    of_p = jnp.log(select(inside, p, 1))
    small = p < 0.5
    of_small = jnp.log1p(-select(inside & small, p))
    of_q = of_small + jnp.log(select(inside & ~small, q, 1))
    log_p, log_q = log_p_and_log_q(z)
    return jnp.where(_is_0(m), log_p, of_p), jnp.where(_is_0(m), log_q, of_q)


def _is_0(m: Array) -> Array:
    """Whether m is 0, or so small that devices may round it to 0."""
    return m < jnp.finfo(m.dtype).tiny


def _shifted(z: Array, m: Array) -> tuple[Array, Array, Array]:
    """p − m, q + m, and whether both are above 0"""
    e = jnp.exp(-jnp.abs(z))
    near, far = 1 / (1 + e), e / (1 + e)
    p, q = jnp.where(z < 0, far, near) - m, jnp.where(z < 0, near, far) + m
    return p, q, ~((p <= 0) | (q <= 0))  # where it is NaN, too


@functools.partial(_logs_of_shifted.defjvp, symbolic_zeros=True)
def _logs_of_shifted_jvp(primals: Any, tangents: Any) -> Any:
    (z, m), (dz, dm) = primals, moving_of(tangents)
    *_, inside = _shifted(z, m)
    inside |= _is_0(m)
    logs, logs_m = log_p_and_log_q(z), _logs_of_shifted(z, m)
    slopes = []
    for x, log, log_m in zip((-z, z), logs, logs_m, strict=True):
        terms = []
        if dz is not None:
            ratio = jnp.exp(select(jnp.isfinite(log), log - log_m))
            terms.append(jax.nn.sigmoid(x) * ratio * dz)
        if dm is not None:
            terms.append(-jnp.exp(jnp.minimum(-log_m, jnp.log(_huge(z)) - 1)) * dm)
        slopes.append(select(inside, functools.reduce(jnp.add, terms)))
    return logs_m, (slopes[0], -slopes[1])
