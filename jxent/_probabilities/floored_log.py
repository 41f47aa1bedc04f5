"""Logarithms of probabilities that stop at a floor, for the peers that have one.

A floor keeps the loss of p = 0 finite. Its own derivative is 0, which would stop a
model that is confidently wrong from learning; here the derivative stays that of the
logarithm.
"""

import jax.numpy as jnp
from jax import Array

from .._compute.slopes import with_slopes
from .x_log_y import quotient


@with_slopes(lambda p, floor: quotient(jnp.ones_like(p), p), None)
def floored_log(p: Array, floor: Array) -> Array:
    """max(log p, floor), with the derivative 1/p."""
    return jnp.maximum(jnp.log(p), floor)


# The same for 1 − p, where log(1 − p) keeps what 1 − p would round away.
@with_slopes(lambda p, floor: -quotient(jnp.ones_like(p), 1 - p), None)
def floored_log_1_minus(p: Array, floor: Array) -> Array:
    """max(log(1 − p), floor), with the derivative −1/(1 − p)."""
    return jnp.maximum(jnp.log1p(-p), floor)
