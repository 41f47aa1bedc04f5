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

from .._arrays import moving_of, over_classes, select, vary, varying_of
from .._chunks import sum_along
from .._problem import Maybe, Problem, Rows, Shared
from .._statistics import (
    Inputs,
    SecondSoftmax,
    Totals,
    computed_rows,
    inputs_of_block,
    origin,
)
from .._times import times


def mixture_of_block(problem: Problem, t: Totals) -> tuple[Array, Array]:
    """K' and K of a block, (rows,); plain JAX, which its own derivatives follow."""
    (beta,) = problem.shared.parameters
    computed = computed_rows(problem.resolved, t)
    inputs = inputs_of_block(problem, None, computed)
    q, log_q_ratio, p, log_p_ratio = _terms(problem.axis, inputs, beta, computed, t)
    terms = q * log_q_ratio, p * log_p_ratio
    of_target, of_logits = (sum_along(x, problem.axis) for x in terms)
    return of_target, of_logits


def mixture_tangent_of_block(
    problem: Problem,
    moving: tuple[Rows, Shared],
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
    computed = computed_rows(problem.resolved, t)
    (beta,) = problem.shared.parameters
    fixed = beta, computed, t, of_target, of_logits, divergence
    (rows, shared), without = moving, problem.shared._replace(parameters=())

    def divergence_at(problem: Problem) -> Array:
        inputs = inputs_of_block(problem, None, computed)
        return _divergence(problem.axis, inputs, fixed)

    moving = rows, shared._replace(parameters=())
    return problem.replace(shared=without).along(moving, divergence_at)


def _terms(
    axis: int, inputs: Inputs, beta: Array, computed: Maybe, t: Totals
) -> tuple[Array, Array, Array, Array]:
    """q, log(q/m), p and log(p/m) of the logits' shape; 0 where q, or p, is 0."""
    target_z, target = inputs.of(SecondSoftmax), t[SecondSoftmax]

    def log_softmax(z: Array, maximum: Array, total: Array) -> Array:
        rel = lax.sub(z, over_classes(origin(maximum), axis, z))
        log_p = lax.sub(rel, over_classes(lax.log(total), axis, z))
        where = None if computed is None else over_classes(computed, axis, z)
        return log_p if where is None else select(where, log_p)

    log_q = log_softmax(target_z, target.maximum, target.sum)
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
def _divergence(axis: int, inputs: Inputs, fixed: Any) -> Array:
    """The divergence of all classes, here for its derivative in the inputs alone."""
    return vary(fixed[-1], varying_of((inputs, fixed)))


@functools.partial(_divergence.defjvp, symbolic_zeros=True)
def _divergence_jvp(axis: int, primals: Any, tangents: Any) -> Any:
    inputs, fixed = primals
    beta, computed, t, of_target, of_logits, _ = fixed
    q, log_q_ratio, p, log_p_ratio = _terms(axis, inputs, beta, computed, t)
    moved: Inputs = moving_of(tangents[0])

    def total(share: Array, p: Array, ratio: Array, mean: Array, dz: Array) -> Array:
        # A β of 0 or 1 is a share of 0, beside which the ratio may be infinite.
        factor = times(share * p, ratio - over_classes(mean, axis, p))
        return lax.reduce_sum(factor * dz, (axis,))

    value = _divergence(axis, *primals)
    sums, target_dz = [], moved.of(SecondSoftmax)
    if target_dz is not None:
        sums.append(total(beta, q, log_q_ratio, of_target, target_dz))
    if moved.z is not None:
        sums.append(total(1 - beta, p, log_p_ratio, of_logits, moved.z))
    tangent = functools.reduce(lax.add, sums)
    return value, vary(tangent, varying_of(primals))
