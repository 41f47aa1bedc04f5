"""Softmax losses as formulas in log p: Σ_c q_c f(log p_c) over a row's target q.

Cross-entropy alone is linear in log p, which is why its whole sum is a function of the
row statistics.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _labels
from .._arrays import along_classes, masked, spread
from .._reduction import finite_slope, times
from .._statistics import CLASS_SCALE, SoftmaxStatistics


def cross_entropy(log_p: Array) -> Array:
    """f = −log p"""
    return -log_p


def focal(log_p: Array, gamma: Array) -> Array:
    """f = −(1 − p)^γ log p"""
    # In log space: (1 − p)^γ itself has no finite slope at p = 1 where γ < 1. Where p
    # rounds to 1, the weight is the constant 0^γ.
    certain = log_p >= 0
    safe = masked(log_p, ~certain, -1)
    log_miss = jnp.log(-jnp.expm1(safe))
    log_miss = masked(log_miss, ~certain, -jnp.inf)
    weight = jnp.exp(times(gamma, log_miss))
    return times(weight, -log_p)


def poly(log_p: Array, epsilon: Array) -> Array:
    """f = −log p + ε (1 − p)"""
    return -log_p - epsilon * jnp.expm1(log_p)


def row_losses(
    formula: Callable[..., Array],
    parameters: tuple[Array, ...],
    target: _labels.Target,
    statistics: SoftmaxStatistics,
    label_weight: Array | None,
    log_probabilities: Callable[[], Array],
    axis: int,
    class_axis_name: tuple[str, ...],
) -> Float[Array, "..."]:
    """Σ_c q_c f(log p_c), from the statistics where they tell it."""

    def over_classes(factors: Array) -> Array:
        log_p = log_probabilities()
        factors = spread(factors, log_p)
        log_p = jnp.where(factors == 0, finite_slope(log_p), log_p)
        total = jnp.sum(times(factors, formula(log_p, *parameters)), axis)
        return lax.psum(total, class_axis_name) if class_axis_name else total

    if target.labels is None:
        if formula is cross_entropy:
            return -statistics.log_prob
        assert target.distribution is not None
        return over_classes(target.distribution)
    loss = formula(statistics.log_prob, *parameters)
    if label_weight is not None:
        loss = times(label_weight, loss)
    if target.smoothing is None or target.share is None:
        return loss
    if formula is cross_entropy:
        assert target.total_class_weight is not None
        assert statistics.weighted_logit is not None
        even = times(CLASS_SCALE * target.total_class_weight, statistics.log_sum)
        even = even - statistics.weighted_logit
    else:
        ndim = loss.ndim + 1
        if target.class_weights is None:
            weights = jnp.ones((1,) * ndim, loss.dtype)
        else:
            weights = target.class_weights.astype(loss.dtype)
            weights = along_classes(weights, axis, ndim)
        if target.mask is not None:
            weights = jnp.where(target.mask, weights, 0)
        even = over_classes(CLASS_SCALE * weights)
    bad = masked(loss, jnp.isnan(loss))  # NaN, which a factor of 0 would hide
    share = target.share / CLASS_SCALE
    return times(1 - target.smoothing, loss) + times(share, even) + bad
