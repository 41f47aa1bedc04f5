"""Generalized cross-entropy, between −log p (q → 0) and 1 − p (q = 1)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._reduction import finite_slope


@jax.custom_jvp
def generalized(p: Array, q: Array) -> Array:
    """(1 − p^q)/q of the label's probability p."""
    return (1 - jnp.power(p, q)) / q


# d/dp = −p^(q − 1), infinite at p = 0; d/dq = −(p^q log p + loss)/q
@generalized.defjvp
def _generalized_jvp(primals: Any, tangents: Any) -> Any:
    (p, q), (dp, dq) = primals, tangents
    value = generalized(p, q)
    slope_p = -finite_slope(jnp.power(p, q - 1))
    p_log_p = jax.scipy.special.xlogy(jnp.power(p, q), p)
    return value, slope_p * dp - (p_log_p + value) / q * dq
