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
from .._compute.slopes import with_slopes
from .._compute.times import finite_slope, times


def class_weights_of_counts(
    counts: ArrayLike, *, beta: ArrayLike | None = None
) -> Float[Array, " classes"]:
    """Returns class weights that make up for how rare a class is.

        w_c = N / (K n_c)                          beta=None: inverse frequency
        w_c = K e_c / Σ_c e_c,   e_c = (1 − β) / (1 − β^n_c)      effective number

    where N = Σ_c n_c and K is the number of classes that occur.

    Args:
      counts: n, shape (classes,): how many examples each class has, integers or
        floating. Without ignored labels (see the example), and below 2³¹ as integers
        where 64 bits are off.
      beta: β, at least 0 and below 1: between no weights, 0, and inverse frequency, 1.
        0.9, 0.99, 0.999 and 0.9999 are usual. None for inverse frequency itself.

    Returns:
      Weights (classes,), for the losses' `class_weights`; in the default floating
      dtype, or float64 for float64 counts. A class that does not occur has weight 0,
      and a loss drops every row of that label: where there may be one, give
      jnp.maximum(counts, 1). Over all examples inverse frequencies have the mean 1;
      over the classes that occur effective numbers have.

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

      Labels that mark ignored rows are no class. `jnp.bincount` counts −100 as class 0,
      and what is past its length nowhere; `np.bincount(y[y != -100])` in NumPy:

      >>> y, classes = jnp.array([0, 0, 1, -100, 2, -100]), 3
      >>> print(jnp.bincount(jnp.where(y == -100, classes, y), length=classes))
      [2 1 1]

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
    power = None
    number: Any = beta
    if _checks.is_number(number):
        if not 0 <= number < 1:
            _checks.fail(name, f"expected beta in [0, 1), got {number!r}.")
        log_beta = math.log(number) if number else -math.inf
        power = jnp.asarray(number, dtype), jnp.asarray(log_beta, dtype)
    elif beta is not None:
        traced = _checks.number(name, "beta", beta, dtype)
        power = traced, jnp.log(traced)
    return _class_weights_of_counts(n, power)


@jax.jit
def _class_weights_of_counts(n: Array, beta: tuple[Array, Array] | None) -> Array:
    """`beta` is β and its logarithm, which may have more digits than β lets it."""
    occurs = n != 0
    safe = select(occurs, n, 1)
    count = jnp.sum(occurs, dtype=n.dtype)
    if beta is None:
        total = lax.max(count, lax.full_like(count, 1)) * safe
        return select(occurs, jnp.sum(n) / total)
    inverse = select(occurs, 1 / _rest_of_power(safe, *beta))
    total = jnp.sum(inverse)
    return select(occurs, count / select(occurs.any(), total, 1) * inverse)


# With ∂βⁿ/∂β = n βⁿ⁻¹ and ∂βⁿ/∂n = βⁿ log β, derivatives of every order are right at
# β = 0, where those of exp(n log β) would be 0 · ∞. The logarithm comes beside β, and
# has no derivative of its own.
@with_slopes(lambda *of: -_slope_in_count(*of), lambda *of: -_slope_in_beta(*of), None)
def _rest_of_power(n: Array, beta: Array, log_beta: Array) -> Array:
    """1 − βⁿ"""
    return -jnp.expm1(n * log_beta)


def _slope_in_count(n: Array, beta: Array, log_beta: Array) -> Array:
    return finite_slope(times(_power(n, beta, log_beta), _log(beta, log_beta)))


def _slope_in_beta(n: Array, beta: Array, log_beta: Array) -> Array:
    return times(n, finite_slope(_power(n - 1, beta, log_beta)))


@with_slopes(_slope_in_count, _slope_in_beta, None)
def _power(n: Array, beta: Array, log_beta: Array) -> Array:
    """βⁿ, 1 where n is 0"""
    return jnp.exp(times(n, log_beta))


@with_slopes(lambda beta, log_beta: finite_slope(1 / beta), None)
def _log(beta: Array, log_beta: Array) -> Array:
    return log_beta
