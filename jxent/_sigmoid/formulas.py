"""Formulas of binary losses, element by element: log p = log σ(z), log q = log σ(−z).

Those `of_logits` are all that a layout needs: functions of logits z, of labels y and of
a loss's parameters.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import held_apart, like_moving, moving_of, replaced, select
from .._times import times, varying_near_0
from .sides import (
    Exponent,
    exponent_array,
    log_p_and_log_q,
    of_sides,
    p_and_q,
    power,
    shares,
    sides_of_slope,
    sides_of_value,
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
    y, s = held_apart(y, "cpu"), sides_of_value(z)
    yes, no = shares(y, pos_weight, s.one)
    return of_sides(yes, no, s, None if pos_weight is None else yes + no)


@functools.partial(binary_of_logits.defjvp, symbolic_zeros=True)
def _binary_of_logits_jvp(primals: Any, tangents: Any) -> Any:
    (z, *label), (dz, *moving) = held_apart(primals, "cpu"), moving_of(tangents)
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
    """α_t m^γ ((1 − y) p − y q + γ (1 − 2y) p q / m · binary), m = y q + (1 − y) p"""
    (p, q), s, no = sigmoids(z), sides_of_slope(z), 1 - y
    miss, loss = y * q + no * p, y * s.below + no * s.above + s.rest
    weight = power(miss, gamma)
    if alpha is not None:
        weight *= alpha * y + (1 - alpha) * no
    of_weight = select(miss != 0, p * q / miss) * (exponent_array(gamma, z) * (no - y))
    return weight * (no * p - y * q + of_weight * loss)


@with_derivatives_of(_focal_in_logs, _focal_slope)
def focal_of_logits(
    z: Array,
    y: Array,
    pos_weight: Array | None,
    gamma: Array | Exponent,
    alpha: Array | None = None,
) -> Array:
    """`binary_focal` of log σ(z) and log σ(−z)"""
    del pos_weight  # α takes its place
    s = sides_of_value(z)
    y, no = shares(y, None, s.one)
    p, q = p_and_q(s)
    weight = power(y * q + no * p, gamma)
    if alpha is not None:
        weight *= alpha * y + (1 - alpha) * no
    return weight * (y * s.below + no * s.above) * s.growth + weight * s.rest


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
@jax.custom_jvp
def _log_miss(z: Array, y: Array) -> Array:
    e, wrong, mixed = _mixed(z, y)
    log_mixed = jnp.where(wrong == 0, -jnp.abs(z), jnp.log(mixed))
    return log_mixed - jnp.log1p(e)


def _mixed(z: Array, y: Array) -> tuple[Array, Array, Array]:
    """e, wrong, and m (1 + e)"""
    e, wrong = jnp.exp(-jnp.abs(z)), jnp.where(z > 0, 1 - y, y)
    return e, wrong, wrong + (1 - wrong) * e


@_log_miss.defjvp
def _log_miss_jvp(primals: Any, tangents: Any) -> Any:
    (z, y), (dz, dy) = primals, tangents
    u, d = _ratios(z, y)
    slope_z = (1 - y) * d * jax.nn.sigmoid(-z) - y * u * jax.nn.sigmoid(z)
    return _log_miss(z, y), slope_z * dz + (u - d) * dy


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
    gamma_pos: Array | Exponent,
    gamma_neg: Array | Exponent,
    clip: Array,
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


def _asymmetric_slope(
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
    (yes, no), (p, q), s = shares(y, pos_weight), sigmoids(z), sides_of_slope(z)
    of_weight = exponent_array(gamma_pos, z) * p * (s.rest + s.below)
    of_yes = power(q, gamma_pos) * (q + of_weight)
    p_m, q_m, off = jnp.maximum(p - clip, 0), q + clip, clip == 0
    loss = jnp.where(off, s.rest + s.above, jnp.log1p(p_m / q_m))
    of_loss, of_weight = p * jnp.where(off, 1, q / q_m), q * loss * (p / p_m)
    of_no = power(p_m, gamma_neg) * (of_loss + exponent_array(gamma_neg, z) * of_weight)
    return no * select(~(p_m <= 0), of_no) - yes * of_yes


@with_derivatives_of(asymmetric_of_logits, _asymmetric_slope)
def asymmetric_of_elements(
    z: Array,
    y: Array,
    pos_weight: Array | None,
    gamma_pos: Array | Exponent,
    gamma_neg: Array | Exponent,
    clip: Array,
) -> Array:
    """`asymmetric_of_logits` without a select; see `Sides`."""
    s = sides_of_value(z)
    (yes, no), (p, q) = shares(y, pos_weight, s.one), p_and_q(s)
    p_m = jnp.maximum(p - clip, 0)
    # −log(1 − p_m) = log(1 + p_m / (1 − p_m)) keeps the digits of p_m near 0 and 1. Of
    # m = 0 it is −log q.
    clipped = jnp.log1p(p_m / (q + clip))
    yes *= power(q, gamma_pos)
    no *= power(p_m, gamma_neg)
    of_q = (clip == 0).astype(z.dtype) * no
    return of_sides(yes, of_q, s, yes + of_q) + (no - of_q) * clipped


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
    return jnp.where(m == 0, log_p, of_p), jnp.where(m == 0, log_q, of_q)


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
    inside |= m == 0
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
