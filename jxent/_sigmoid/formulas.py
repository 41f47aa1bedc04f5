"""Formulas of binary losses, element by element: log p = log σ(z), log q = log σ(−z).

Those `of_logits` are all that a layout needs: functions of logits z, of labels y and of
a loss's parameters.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import select
from .._times import times, varying_near_0


def binary(log_p: Array, log_q: Array, y: Array, pos_weight: Array | None) -> Array:
    """−(w⁺ y log p + (1 − y) log q), q = 1 − p"""
    return _of_label(-log_p, -log_q, y, pos_weight)


def _of_label(yes: Array, no: Array, y: Array, pos_weight: Array | None) -> Array:
    """w⁺ y · yes + (1 − y) · no, of the losses of labels 1 and 0"""
    positive = y if pos_weight is None else pos_weight * y
    return times(positive, yes) + times(1 - y, no)


def binary_of_logits(z: Array, y: Array, pos_weight: Array | None) -> Array:
    return binary(-jax.nn.softplus(-z), -jax.nn.softplus(z), y, pos_weight)


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
    return binary_focal(z, -jax.nn.softplus(-z), -jax.nn.softplus(z), y, gamma, alpha)


# log(1 − p_t) = log m, m = y σ(−z) + (1 − y) σ(z). With u = σ(−z)/m, d = σ(z)/m and the
# shares y u + (1 − y) d = 1 of the two terms,
#
#     d log m = ((1 − y) d σ(−z) − y u σ(z)) dz + (u − d) dy
#     d u     = −u ((1 − y) d dz + (u − d) dy)
#     d d     = d (y u dz − (u − d) dy)
#
# u and d are formed from logarithms: m itself underflows for a confident z.
@jax.custom_jvp
def _log_miss(z: Array, y: Array) -> Array:
    of_1 = jnp.log(y) - jax.nn.softplus(z)
    return jnp.logaddexp(of_1, jnp.log1p(-y) - jax.nn.softplus(-z))


@_log_miss.defjvp
def _log_miss_jvp(primals: Any, tangents: Any) -> Any:
    (z, y), (dz, dy) = primals, tangents
    u, d = _ratios(z, y)
    slope_z = (1 - y) * d * jax.nn.sigmoid(-z) - y * u * jax.nn.sigmoid(z)
    return _log_miss(z, y), slope_z * dz + (u - d) * dy


@jax.custom_jvp
def _ratios(z: Array, y: Array) -> tuple[Array, Array]:
    """u and d, at most a huge number (see finite_slope)."""
    largest = jnp.finfo(z.dtype).max
    z = jnp.clip(z, -largest, largest)  # −∞ + z is −∞
    log_y, log_not_y = jnp.log(y), jnp.log1p(-y)
    u = jnp.exp(-jnp.logaddexp(log_y, log_not_y + z))
    d = jnp.exp(-jnp.logaddexp(log_y - z, log_not_y))
    return jnp.minimum(u, _huge(u)), jnp.minimum(d, _huge(d))


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
    log_p, log_q = -jax.nn.softplus(-z), -jax.nn.softplus(near)
    log_p_m, log_q_m = _log_of_shifted(near, -clip), _log_of_shifted(-z, clip)
    yes = times(jnp.exp(times(gamma_pos, log_q)), -log_p)
    no = times(jnp.exp(times(gamma_neg, log_p_m)), -log_q_m)
    return _of_label(yes, no, y, pos_weight)


def _log_of_shifted(z: Array, m: Array) -> Array:
    """log(p + m), p = σ(z); see `_log_sum`"""
    # The derivative p (1 − p) of σ is exact where p is small.
    small_p, small_q = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    p = jnp.where(z < 0, small_p, 1 - small_q)
    q = jnp.where(z < 0, 1 - small_p, small_q)
    return _log_sum(p, q, -jax.nn.softplus(-z), m)


def _log_sum(p: Array, q: Array, log_p: Array, m: Array) -> Array:
    """log(p + m), p = 1 − q; the constant 0 where p + m is not between 0 and 1.

    There the loss of a label 0 is 0, whatever its weight.
    """
    total, rest = p + m, q - m
    shifted = m != 0
    inside = shifted & ~((total <= 0) | (rest <= 0))
    small = total < 0.5
    of_total = jnp.log(select(inside & small, total, 1))
    of_rest = jnp.log1p(-select(inside & ~small, rest))
    # Where m is 0 the logarithm stays: p itself underflows for a confident z.
    inverse = jnp.exp(jnp.minimum(-log_p, jnp.log(_huge(p)) - 1))
    at_0 = log_p + jnp.log1p(times(select(~shifted, m), inverse))
    return jnp.where(shifted, of_total + of_rest, at_0)
