"""Generalized cross-entropy, between −log p (q → 0) and 1 − p (q = 1)."""

import jax.numpy as jnp
from jax import Array

from .._compute.slopes import with_slopes
from .._compute.times import finite_slope


def _slope_in_p(p: Array, q: Array) -> Array:
    """−p^(q − 1), infinite at p = 0"""
    return -_power_log(0, p, q - 1)


def _slope_in_q(p: Array, q: Array) -> Array:
    return -(_power_log(1, p, q) + generalized(p, q)) / q


@with_slopes(_slope_in_p, _slope_in_q)
def generalized(p: Array, q: Array) -> Array:
    """(1 − p^q)/q of the label's probability p."""
    return (1 - jnp.power(p, q)) / q


def _slope_of_power_log(k: int, p: Array, a: Array) -> Array:
    """a p^(a − 1) logᵏ p + k p^(a − 1) logᵏ⁻¹ p"""
    slope = a * _power_log(k, p, a - 1)
    return slope + k * _power_log(k - 1, p, a - 1) if k else slope


def _slope_in_power(k: int, p: Array, a: Array) -> Array:
    return _power_log(k + 1, p, a)


@with_slopes(_slope_of_power_log, _slope_in_power, static=1)
def _power_log(k: int, p: Array, a: Array) -> Array:
    """p^a logᵏ p, finite at p = 0: 0 for a > 0, 1 for a = k = 0, else a huge number."""
    power = jnp.power(p, a)
    value = power if k == 0 else jnp.where(power == 0, 0, power * jnp.log(p) ** k)
    return finite_slope(value)
