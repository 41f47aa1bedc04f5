"""Generalized cross-entropy, between −log p (q → 0) and 1 − p (q = 1)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._times import finite_slope


# d/dp = −p^(q − 1), infinite at p = 0; d/dq = −(p^q log p + loss)/q
@jax.custom_jvp
def generalized(p: Array, q: Array) -> Array:
    """(1 − p^q)/q of the label's probability p."""
    return (1 - jnp.power(p, q)) / q


@generalized.defjvp
def _generalized_jvp(primals: Any, tangents: Any) -> Any:
    (p, q), (dp, dq) = primals, tangents
    value = generalized(p, q)
    slope_q = -(_power_log(1, p, q) + value) / q
    return value, -_power_log(0, p, q - 1) * dp + slope_q * dq


# d/dp = a p^(a − 1) logᵏ p + k p^(a − 1) logᵏ⁻¹ p; d/da = p^a logᵏ⁺¹ p
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _power_log(k: int, p: Array, a: Array) -> Array:
    """p^a logᵏ p, finite at p = 0: 0 for a > 0, 1 for a = k = 0, else a huge number."""
    power = jnp.power(p, a)
    value = power if k == 0 else jnp.where(power == 0, 0, power * jnp.log(p) ** k)
    return finite_slope(value)


@_power_log.defjvp
def _power_log_jvp(k: int, primals: Any, tangents: Any) -> Any:
    (p, a), (dp, da) = primals, tangents
    slope_p = a * _power_log(k, p, a - 1)
    if k:
        slope_p = slope_p + k * _power_log(k - 1, p, a - 1)
    return _power_log(k, p, a), slope_p * dp + _power_log(k + 1, p, a) * da
