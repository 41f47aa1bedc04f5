"""The Jensen–Shannon divergence of a block of classes, and its derivative.

With q = softmax(z'), p = softmax(z) and their mixture m = βq + (1 − β)p, the sums over
a block of classes

    K' = Σ q log(q/m)        K = Σ p log(p/m)        J = β K' + (1 − β) K

are the block's shares of KL(q ‖ m), of KL(p ‖ m) and of the divergence. They are
written with the ratio of q and p alone, d = log(p/q):

    log(q/m) = −log(β + (1 − β) eᵈ)        log(p/m) = −log(1 − β + β e⁻ᵈ)

Where q and p are nearly equal, d is the difference of the logits themselves, and J,
which is of the second order in d, is summed from terms of that order: see
`jensen_shannon_divergence`.
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
from ._formulas import expm1_near_0, jensen_shannon_divergence
from ._problem import Maybe, Resolved, Rows, Settings, Shared
from ._statistics import Inputs, Totals, computed_rows, inputs_of_block, origin


def mixture_of_block(
    settings: Settings,
    pair: tuple[Rows, Shared],
    resolved: Resolved,
    t: Totals,
    *,
    means: bool,
) -> tuple[Array, ...]:
    """J of a block, and with `means` K' and K, (rows,); plain JAX, which its own
    derivatives follow."""
    _, shared = pair
    (beta,) = shared.parameters
    computed = computed_rows(resolved, t)
    inputs = inputs_of_block(settings, *pair, None, computed)
    if not means:  # the barrier keeps XLA from storing exponentials that `t` is made of
        t = lax.optimization_barrier(t)
    q, log_q_ratio, p, log_p_ratio = _terms(settings, inputs, beta, computed, t)
    summands = jensen_shannon_divergence(q, log_q_ratio, p, log_p_ratio, beta)
    divergence = sum_along(summands, settings.axis)
    if not means:
        return (divergence,)
    products = lax.mul(q, log_q_ratio), lax.mul(p, log_p_ratio)
    return divergence, *_two_sums(settings.axis, *products)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _two_sums(axis: int, a: Array, b: Array) -> tuple[Array, Array]:
    """Sums along an axis by one reduction, for which XLA on a CPU stores neither."""
    zero = jnp.zeros((), a.dtype)

    def add(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
        return lax.add(x[0], y[0]), lax.add(x[1], y[1])

    total_a, total_b = lax.reduce((a, b), (zero, zero), add, (axis,))
    return total_a, total_b


@_two_sums.defjvp
def _two_sums_jvp(axis: int, primals: Any, tangents: Any) -> Any:
    a, b = (lax.reduce_sum(x, (axis,)) for x in tangents)
    return _two_sums(axis, *primals), (a, b)


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
    z, target_z = inputs.z, inputs.target_z

    def over(rows: Array) -> Array:
        return over_classes(rows, axis, z)

    def of_computed(x: Array) -> Array:
        return x if computed is None else select(over(computed), x)

    def log_softmax(z: Array, shift: Array, total: Array) -> Array:
        return of_computed(lax.sub(lax.sub(z, over(shift)), over(lax.log(total))))

    shift, target_shift = origin(t.maximum), origin(t.target_maximum)
    log_q = log_softmax(target_z, target_shift, t.target_sum)
    log_p = log_softmax(z, shift, t.sum)
    # d = (z − a) − (z' − a') − constant. Logits relative to their maximum are rounded,
    # and the difference of nearly equal ones is not; but other offsets of two rows
    # would round that, and leave first.
    apart = lax.sub(shift, target_shift)
    close = lax.lt(lax.abs(apart), lax.full_like(apart, 1))
    constant = lax.log(lax.div(t.sum, t.target_sum)) + select(close, apart)
    a, target_a = (select(lax.bitwise_not(close), x) for x in (shift, target_shift))
    d = lax.sub(lax.sub(z, over(a)), lax.sub(target_z, over(target_a)))
    d = of_computed(lax.sub(d, over(constant)))
    log_q_ratio, log_p_ratio = _log_ratios(d, log_q, log_p, beta)
    return lax.exp(log_q), log_q_ratio, lax.exp(log_p), log_p_ratio


# With b the smaller of β and 1 − β and r the other one, and δ = d or −d the log of the
# ratio of the softmax whose share is b to the other, the logarithms are
#
#     −log(r + b e^δ) = −max(log r, log b + δ) − L         of the softmax with share r
#     δ − log(r + b e^δ) = −max(log r − δ, log b) − L      of that with share b
#
# with one L = log(1 + exp −|log r − log b − δ|). Near δ = 0, −log1p(b (e^δ − 1)) stands
# in place of the first, which then is small beside δ, and δ added to it is the second.
def _log_ratios(
    d: Array, log_q: Array, log_p: Array, beta: Array
) -> tuple[Array, Array]:
    """log(q/m) and log(p/m), of the logits' shape; 0 where q, or p, is impossible."""
    lowest = lax.full_like(d, -(jnp.finfo(d.dtype).max ** 0.5))  # d itself is finite
    has_q, has_p = lax.gt(log_q, lowest), lax.gt(log_p, lowest)
    infinite = lax.full_like(d, jnp.inf)
    infinite = lax.select(has_p, infinite, lax.neg(infinite))
    d = lax.select(lax.bitwise_and(has_q, has_p), d, infinite)
    log_beta, log_rest = lax.log(beta), lax.log1p(-beta)
    small = lax.le(beta, lax.full_like(beta, 0.5))  # β is b, and δ = log(q/p)
    share = lax.min(beta, 1 - beta)
    log_b, log_r = (
        lax.select(small, log_beta, log_rest),
        lax.select(small, log_rest, log_beta),
    )
    sign = select(small, lax.full_like(beta, -1), 1)
    delta = lax.mul(lax.full_like(d, sign), d)
    near = lax.lt(lax.abs(d), lax.full_like(d, 1 / 4))
    log_b, log_r = lax.full_like(d, log_b), lax.full_like(d, log_r)
    gap = lax.sub(lax.sub(log_r, log_b), delta)
    gap = lax.abs(select(lax.eq(gap, gap), gap))
    excess = lax.mul(lax.full_like(d, share), expm1_near_0(select(near, delta)))
    log_1p = lax.log1p(lax.select(near, excess, lax.exp(lax.neg(gap))))
    larger = lax.max(log_r, lax.add(log_b, delta))
    of_r = lax.add(select(lax.bitwise_not(near), larger), log_1p)
    larger = lax.max(lax.sub(log_r, delta), log_b)
    of_b = lax.add(lax.select(near, lax.neg(delta), larger), log_1p)
    small = lax.full_like(d, small, dtype=bool)
    return (
        select(has_q, lax.neg(lax.select(small, of_b, of_r))),
        select(has_p, lax.neg(lax.select(small, of_r, of_b))),
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
        counts = lax.full_like(p, lax.ne(share, lax.full_like(share, 0)), dtype=bool)
        centered = select(counts, lax.sub(ratio, over_classes(mean, axis, p)))
        factor = lax.mul(p, centered)
        return lax.mul(share, lax.reduce_sum(lax.mul(factor, dz), (axis,)))

    value = _divergence(settings, *primals)
    sums = []
    if moved.target_z is not None:
        sums.append(total(beta, q, log_q_ratio, of_target, moved.target_z))
    if moved.z is not None:
        sums.append(total(1 - beta, p, log_p_ratio, of_logits, moved.z))
    tangent = functools.reduce(lax.add, sums)
    return value, vary(tangent, varying_of(primals))
