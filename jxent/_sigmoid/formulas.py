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


def binary(log_p: Array, log_q: Array, y: Array, pos_weight: Array | None) -> Array:
    """−(w⁺ y log p + (1 − y) log q), q = 1 − p"""
    return _of_label(-log_p, -log_q, y, pos_weight)


def _of_label(yes: Array, no: Array, y: Array, pos_weight: Array | None) -> Array:
    """w⁺ y · yes + (1 − y) · no, of the losses of labels 1 and 0"""
    share_of_yes, share_of_no = _shares(y, pos_weight)
    return times(share_of_yes, yes) + times(share_of_no, no)


@jax.custom_jvp
def log_p_and_log_q(z: Array) -> tuple[Array, Array]:
    """log σ(z) and log σ(−z), of one exponential and one logarithm."""
    rest = jnp.log1p(jnp.exp(-jnp.abs(z)))
    return jnp.minimum(z, 0) - rest, jnp.minimum(-z, 0) - rest


@log_p_and_log_q.defjvp
def _log_p_and_log_q_jvp(primals: Any, tangents: Any) -> Any:
    (z,), (dz,) = primals, tangents
    return log_p_and_log_q(z), (jax.nn.sigmoid(-z) * dz, -jax.nn.sigmoid(z) * dz)


# d loss = ((1 − y) p − w⁺ y q) dz, beside the derivatives in y and w⁺.
@jax.custom_jvp
def binary_of_logits(z: Array, y: Array, pos_weight: Array | None) -> Array:
    """`binary` of log σ(z) and log σ(−z)"""
    # XLA on a CPU would store a constant that the derivative has too, and makes selects
    # of products with what were booleans.
    y, one = held_apart((y, jnp.ones((), z.dtype)), "cpu")
    (yes, no), (log_p, log_q) = _shares(y, pos_weight, one), log_p_and_log_q(z)
    return _bounded(yes, -log_p) + _bounded(no, -log_q)


@functools.partial(binary_of_logits.defjvp, symbolic_zeros=True)
def _binary_of_logits_jvp(primals: Any, tangents: Any) -> Any:
    (z, *label), (dz, *moving) = held_apart(primals, "cpu"), moving_of(tangents)
    terms = []
    if dz is not None:
        yes, no = _shares(*label)
        terms.append((no * jax.nn.sigmoid(z) - yes * jax.nn.sigmoid(-z)) * dz)
    if jax.tree.leaves(moving):
        log_p, log_q = log_p_and_log_q(z)
        of_label = lambda given: binary(log_p, log_q, *replaced(label, given))
        terms.append(jax.jvp(of_label, (like_moving(moving, label),), (moving,))[1])
    return binary_of_logits(*primals), functools.reduce(jnp.add, terms)


def _shares(
    y: Array, pos_weight: Array | None, one: Array | int = 1
) -> tuple[Array, Array]:
    """w⁺ y and 1 − y"""
    return y if pos_weight is None else pos_weight * y, one - y


def _bounded(share: Array, x: Array) -> Array:
    """share · x for x ≥ 0, where 0 · ∞ is 0.

    A minimum in place of a select, whose result XLA on a CPU stores before it sums.
    """
    largest, some = jnp.finfo(x.dtype).max, jnp.abs(share)
    # Of a product with two constants XLA would multiply these first: 0 · ∞ is NaN.
    infinite_or_0 = jnp.maximum(some * largest, some) * largest
    return share * jnp.minimum(x, infinite_or_0)


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


def focal_of_logits(
    z: Array,
    y: Array,
    pos_weight: Array | None,
    gamma: Array,
    alpha: Array | None = None,
) -> Array:
    del pos_weight  # α takes its place
    return binary_focal(z, *log_p_and_log_q(z), y, gamma, alpha)


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
    gamma_pos: Array,
    gamma_neg: Array,
    clip: Array,
) -> Array:
    """−(w⁺ y (1 − p)^γ₊ log p + (1 − y) p_m^γ₋ log(1 − p_m)), p_m = max(p − m, 0)"""
    near = varying_near_0(z)
    log_p, _ = log_p_and_log_q(z)
    _, log_q = log_p_and_log_q(near)
    log_p_m, _ = _logs_of_shifted(near, clip)
    _, log_q_m = _logs_of_shifted(z, clip)
    yes = times(jnp.exp(times(gamma_pos, log_q)), -log_p)
    no = times(jnp.exp(times(gamma_neg, log_p_m)), -log_q_m)
    return _of_label(yes, no, y, pos_weight)


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
