"""Weights of classes from how often they occur."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._arrays import compute_dtype, select
from .._checks import ArrayLike


def class_weights_of_counts(
    counts: ArrayLike, *, beta: ArrayLike | None = None
) -> Float[Array, " classes"]:
    """Returns class weights that make up for how rare a class is.

        w_c = N / (K n_c)                          beta=None: inverse frequency
        w_c = K e_c / Σ_c e_c,   e_c = (1 − β) / (1 − β^n_c)      effective number

    where N = Σ_c n_c and K is the number of classes that occur.

    Args:
      counts: n, shape (classes,): how many examples each class has, integers or
        floating.
      beta: β, at least 0 and below 1: between no weights, 0, and inverse frequency, 1.
        0.9, 0.99, 0.999 and 0.9999 are usual. None for inverse frequency itself.

    Returns:
      Weights (classes,), for the losses' `class_weights`; in the default floating
      dtype, or float64 for float64 counts. A class that does not occur has weight 0.
      Over all examples inverse frequencies have the mean 1; over the classes that
      occur effective numbers have.

    Numerics:
      1 − β^n is formed as −expm1(n log β), which keeps its digits for a β near 1; with
      β a Python number so does log β. Without any example all weights are 0.

    Raises:
      TypeError: counts or beta are not numbers.
      ValueError: counts have another shape, or beta, a Python number, is not in [0, 1).

    Example:
      >>> print(jxent.class_weights_of_counts([6, 3, 0]))
      [0.75 1.5  0.  ]
      >>> print(jxent.class_weights_of_counts([900, 90, 10], beta=0.99))
      [0.22837 0.38359 2.38804]

    Source:
      scikit-learn's `compute_class_weight("balanced")`; Cui et al. (2019),
      "Class-Balanced Loss Based on Effective Number of Samples",
      https://arxiv.org/abs/1901.05555.

    See also:
      `softmax_cross_entropy`, whose `class_weights` these are.
    """
    name = "class_weights_of_counts"
    n = _checks.as_array(name, "counts", counts)
    dtype = jnp.result_type(float)
    if jnp.issubdtype(n.dtype, jnp.floating):
        dtype = compute_dtype(n)
    n = _checks.real(name, "counts", n, dtype)
    if n.ndim != 1:
        _checks.fail(name, f"expected counts of shape (classes,), got {n.shape}.")
    log_beta = None
    number: Any = beta
    if _checks.is_number(number):
        if not 0 <= number < 1:
            _checks.fail(name, f"expected beta in [0, 1), got {number!r}.")
        log_beta = jnp.asarray(math.log(number) if number else -math.inf, dtype)
    elif beta is not None:
        log_beta = jnp.log(_checks.number(name, "beta", beta, dtype))
    return _class_weights_of_counts(n, log_beta)


@jax.jit
def _class_weights_of_counts(n: Array, log_beta: Array | None) -> Array:
    occurs = n != 0
    safe = select(occurs, n, 1)
    count = jnp.sum(occurs, dtype=n.dtype)
    if log_beta is None:
        total = lax.max(count, lax.full_like(count, 1)) * safe
        return select(occurs, jnp.sum(n) / total)
    inverse = select(occurs, -1 / jnp.expm1(safe * log_beta))
    total = jnp.sum(inverse)
    return select(occurs, count / select(occurs.any(), total, 1) * inverse)
