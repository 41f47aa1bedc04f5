"""The Jensen–Shannon divergence of a block of classes, and its derivative.

With q = softmax(z'), p = softmax(z) and their mixture m = βq + (1 − β)p, the sums over
a block of classes

    K' = Σ q log(q/m)        K = Σ p log(p/m)

are the block's shares of KL(q ‖ m) and KL(p ‖ m). Both are written with the logarithm
of the ratio of q and p alone, log(q/m) = −log(β + (1 − β) p/q), which is exact where q
and p are nearly equal.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ._arrays import (
    like_moving,
    moving_of,
    over_classes,
    replaced,
    select,
    vary,
    varying_of,
)
from ._chunks import sum_along
from ._problem import Maybe, Resolved, Rows, Settings, Shared
from ._statistics import Inputs, Totals, computed_rows, inputs_of_block, origin
from ._times import times


def mixture_of_block(
    settings: Settings,
    pair: tuple[Rows, Shared],
    resolved: Resolved,
    t: Totals,
) -> tuple[Array, Array]:
    """K' and K of a block, (rows,); plain JAX, which its own derivatives follow."""
    _, shared = pair
    (beta,) = shared.parameters
    computed = computed_rows(resolved, t)
    inputs = inputs_of_block(settings, *pair, None, computed)
    q, log_q_ratio, p, log_p_ratio = _terms(settings, inputs, beta, computed, t)
    terms = q * log_q_ratio, p * log_p_ratio
    of_target, of_logits = (sum_along(x, settings.axis) for x in terms)
    return of_target, of_logits


def mixture_tangent_of_block(
    settings: Settings,
    pair: tuple[Rows, Shared],
    moving: tuple[Rows, Shared],
    resolved: Resolved,
    t: Totals,
    of_target: Array,
    of_logits: Array,
    divergence: Array,
) -> Array:
    """The block's share of the tangent of β K' + (1 − β) K, (rows,), for a fixed β:

        Σ β q (log(q/m) − K') dz' + Σ (1 − β) p (log(p/m) − K) dz

    `of_target` and `of_logits` are K' and K of all classes, `divergence` is what they
    make.
    """
    computed = computed_rows(resolved, t)
    (beta,) = pair[1].parameters
    fixed = beta, computed, t, of_target, of_logits, divergence
    pair, moving = (
        (rows, shared._replace(parameters=())) for rows, shared in (pair, moving)
    )

    def divergence_at(values: tuple[Rows, Shared]) -> Array:
        rows, shared = replaced(pair, values)
        inputs = inputs_of_block(settings, rows, shared, None, computed)
        return _divergence(settings, inputs, fixed)

    return jax.jvp(divergence_at, (like_moving(moving, pair),), (moving,))[1]


def _terms(
    settings: Settings, inputs: Inputs, beta: Array, computed: Maybe, t: Totals
) -> tuple[Array, Array, Array, Array]:
    """q, log(q/m), p and log(p/m) of the logits' shape; 0 where q, or p, is 0."""
    axis = settings.axis
    assert inputs.target_z is not None
    assert t.target_maximum is not None
    assert t.target_sum is not None

    def log_softmax(z: Array, maximum: Array, total: Array) -> Array:
        rel = lax.sub(z, over_classes(origin(maximum), axis, z))
        log_p = lax.sub(rel, over_classes(lax.log(total), axis, z))
        where = None if computed is None else over_classes(computed, axis, z)
        return log_p if where is None else select(where, log_p)

    log_q = log_softmax(inputs.target_z, t.target_maximum, t.target_sum)
    log_p = log_softmax(inputs.z, t.maximum, t.sum)
    log_beta, log_rest = lax.log(beta), lax.log1p(-beta)

    def ratio(own: Array, other: Array, log_own: Array, log_other: Array) -> Array:
        possible = lax.ne(own, lax.full_like(own, -jnp.inf))
        own, other = select(possible, own), select(possible, other)
        return select(possible, -jnp.logaddexp(log_own, log_other + (other - own)))

    return (
        lax.exp(log_q),
        ratio(log_q, log_p, log_beta, log_rest),
        lax.exp(log_p),
        ratio(log_p, log_q, log_rest, log_beta),
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _divergence(settings: Settings, inputs: Inputs, fixed: Any) -> Array:
    """The divergence of all classes, here for its derivative in the inputs alone."""
    return vary(fixed[-1], varying_of((inputs, fixed)))


@functools.partial(_divergence.defjvp, symbolic_zeros=True)
def _divergence_jvp(settings: Settings, primals: Any, tangents: Any) -> Any:
    inputs, fixed = primals
    beta, computed, t, of_target, of_logits, _ = fixed
    axis = settings.axis
    q, log_q_ratio, p, log_p_ratio = _terms(settings, inputs, beta, computed, t)
    moved: Inputs = moving_of(tangents[0])

    def total(share: Array, p: Array, ratio: Array, mean: Array, dz: Array) -> Array:
        # A β of 0 or 1 is a share of 0, beside which the ratio may be infinite.
        factor = times(share * p, ratio - over_classes(mean, axis, p))
        return lax.reduce_sum(factor * dz, (axis,))

    value = _divergence(settings, *primals)
    sums = []
    if moved.target_z is not None:
        sums.append(total(beta, q, log_q_ratio, of_target, moved.target_z))
    if moved.z is not None:
        sums.append(total(1 - beta, p, log_p_ratio, of_logits, moved.z))
    tangent = functools.reduce(lax.add, sums)
    return value, vary(tangent, varying_of(primals))
