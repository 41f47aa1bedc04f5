"""Logarithms of probabilities that stop at a floor, for the peers that have one.

A floor keeps the loss of p = 0 finite. Its own derivative is 0, which would stop a
model that is confidently wrong from learning; here the derivative stays that of the
logarithm.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .x_log_y import quotient


@jax.custom_jvp
def floored_log(p: Array, floor: Array) -> Array:
    """max(log p, floor), with the derivative 1/p."""
    return jnp.maximum(jnp.log(p), floor)


@floored_log.defjvp
def _floored_log_jvp(primals: Any, tangents: Any) -> Any:
    (p, floor), (dp, _) = primals, tangents
    return floored_log(p, floor), quotient(jnp.ones_like(p), p) * dp


# The same for 1 − p, where log(1 − p) keeps what 1 − p would round away.
@jax.custom_jvp
def floored_log_1_minus(p: Array, floor: Array) -> Array:
    """max(log(1 − p), floor), with the derivative −1/(1 − p)."""
    return jnp.maximum(jnp.log1p(-p), floor)


@floored_log_1_minus.defjvp
def _floored_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (p, floor), (dp, _) = primals, tangents
    return floored_log_1_minus(p, floor), -quotient(jnp.ones_like(p), 1 - p) * dp
