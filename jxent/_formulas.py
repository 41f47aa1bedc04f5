"""Softmax losses as formulas in log p: Σ_c q_c f(log p_c) over a row's target q.

A formula is a function of a log-probability. Of a class id it needs the statistics of
the row alone. Cross-entropy is linear in log p, so that its sum over a distribution, or
over all classes for smoothing, is one of the statistics, too; of other formulas such a
sum needs every log p. The reverse cross-entropy exchanges p and q, Σ_c p_c f(q_c).

A divergence is a formula in the statistics of two softmaxes.

A parameter's annotation declares the check of the argument of that name.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, get_type_hints

import jax.numpy as jnp
from jax import Array, lax

from ._arrays import broadcast_like, select
from ._checks import Number
from ._compute.elements import rounded, sign
from ._compute.slopes import with_slopes
from ._compute.times import times, varying_near_0


@with_slopes(lax.exp)
def expm1(x: Array) -> Array:
    """eˣ − 1, with the derivative eˣ.

    JAX forms that as (eˣ − 1) + 1, which loses the digits of a small p = eˣ.
    """
    return lax.expm1(x)


def cross_entropy(log_p: Array) -> Array:
    """f = −log p"""
    return -log_p


def focal(log_p: Array, gamma: Annotated[Array, Number(low=0)]) -> Array:
    """f = −(1 − p)^γ log p"""
    # In log space: (1 − p)^γ itself has no finite derivative at p = 1 where γ < 1.
    # Where p rounds to 1, the weight is the constant 0^γ.
    certain = log_p >= 0
    near = varying_near_0(log_p)
    log_miss = lax.log(-expm1(select(~certain, near, -1)))
    log_miss = select(~certain, log_miss, -jnp.inf)
    weight = lax.exp(times(gamma, log_miss))
    return times(weight, -log_p)


def poly(log_p: Array, epsilon: Annotated[Array, Number()]) -> Array:
    """f = −log p + ε (1 − p)"""
    return -log_p - epsilon * expm1(log_p)


def generalized(log_p: Array, q: Annotated[Array, Number(low=0, high=1)]) -> Array:
    """f = (1 − p^q)/q, which is −log p where q = 0"""
    q = broadcast_like(q, log_p)
    x = times(q, log_p)
    # Near x = 0 the derivatives of the quotient in q cancel. There f is −log p times
    # (eˣ − 1)/x = 1 + x/2 (1 + x/3 (…)).
    near = lax.lt(lax.abs(x), lax.full_like(x, 1 / 8))
    small, series = select(near, x), lax.full_like(x, 1)
    for k in range(12, 1, -1):
        series = 1 + small / k * series
    far = expm1(select(~near, x, -1)) / select(~near, q, 1)
    return lax.select(near, times(series, 0 - select(near, log_p)), -far)


@functools.cache  # one function an order, whose program JAX then keeps
def taylor(order: int) -> Callable[[Array], Array]:
    """f = Σ_i (1 − p)^i / i over i = 1, …, order: −log p up to that order in 1 − p"""

    def formula(log_p: Array) -> Array:
        miss = 0 - expm1(log_p)
        total = lax.full_like(miss, 0)
        for i in range(order, 0, -1):
            total = miss * (1 / i + total)
        return total

    return formula


def symmetric(
    log_p: Array,
    alpha: Annotated[Array, Number(low=0)],
    beta: Annotated[Array, Number(low=0)],
    log_zero: Annotated[Array, Number(high=0)],
) -> Array:
    """f = −α log p, beside β times the row's reverse cross-entropy"""
    return times(alpha, cross_entropy(log_p))


def reverse_of_id(log_p: Array, own: Array, other: Array) -> Array:
    """−Σ_c p_c a_c, where a is `own` at the label and `other` at all other classes."""
    return other * expm1(log_p) - own * lax.exp(log_p)


def log_above(q: Array, log_zero: Array) -> Array:
    """max(log q, log_zero), whose derivative in q is 0 where that is log_zero."""
    floor = broadcast_like(lax.exp(log_zero), q)
    at_floor = lax.le(q, floor)
    log_q = lax.log(select(~at_floor, q, 1))
    return lax.select(at_floor, broadcast_like(log_zero, q), log_q)


def kl_divergence(mean_gap: Array, sum_ratio: Array) -> Array:
    """Σ_c q_c (log q_c − log p_c), of a target softmax q of logits z'.

    `mean_gap` is Σ_c q_c ((z'_c − shift') − (z_c − shift)), and `sum_ratio` is the
    target's Σ_c exp(z'_c − shift') divided by the other's. Its logarithm is exact where
    the two are nearly equal.
    """
    return lax.sub(mean_gap, lax.log(sum_ratio))


class Pair(NamedTuple):
    """Two softmaxes q and p of each class, of the logits' shape."""

    q: Array
    p: Array
    log_q: Array
    log_p: Array
    log_ratio: Array  # log(p/q), exact where the two are nearly equal


class OfTwo(NamedTuple):
    """A divergence D = Σ_c w' q_c a_c + w p_c b_c of two softmaxes q and p.

    Attributes:
      weights: (parameters) → (w', w).
      ratios: (pair, parameters) → (a, b), of the logits' shape, such that
        Σ w' q da + w p db = 0; a is finite where q is 0, and b where p is.
      summands: (pair, a, b, parameters) → w' q a + w p b, none of them negative.
      shares_nothing: Whether the summands are formed without a select.
    """

    weights: Callable[..., tuple[Any, Any]]
    ratios: Callable[..., tuple[Array, Array]]
    summands: Callable[..., Array]
    shares_nothing: bool = False


def _ratios_to_mixture(pair: Pair, beta: Array) -> tuple[Array, Array]:
    """log(q/m) and log(p/m), m = β q + (1 − β) p; 0 where q, or p, is impossible.

    They are written with the ratio of q and p alone, d = log(p/q):

        log(q/m) = −log(β + (1 − β) eᵈ)        log(p/m) = −log(1 − β + β e⁻ᵈ)

    With b the smaller of β and 1 − β and r the other one, and δ = d or −d the log of
    the ratio of the softmax whose share is b to the other, the logarithms are

        −log(r + b e^δ) = −max(log r, log b + δ) − L       of the softmax with share r
        δ − log(r + b e^δ) = −max(log r − δ, log b) − L    of that with share b

    with one L = log(1 + exp −|log r − log b − δ|). Near δ = 0, −log1p(b (e^δ − 1))
    stands in place of the first, which then is small beside δ, and δ added to it is the
    second.
    """
    d = pair.log_ratio
    lowest = lax.full_like(d, -(jnp.finfo(d.dtype).max ** 0.5))  # d itself is finite
    has_q, has_p = lax.gt(pair.log_q, lowest), lax.gt(pair.log_p, lowest)
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
    excess = lax.mul(lax.full_like(d, share), _expm1_near_0(select(near, delta)))
    log_1p = _log1p_up_to_1(lax.select(near, excess, lax.exp(lax.neg(gap))))
    larger = lax.max(log_r, lax.add(log_b, delta))
    of_r = lax.add(select(lax.bitwise_not(near), larger), log_1p)
    larger = lax.max(lax.sub(log_r, delta), log_b)
    of_b = lax.add(lax.select(near, lax.neg(delta), larger), log_1p)
    small = lax.full_like(d, small, dtype=bool)
    return (
        select(has_q, lax.neg(lax.select(small, of_b, of_r))),
        select(has_p, lax.neg(lax.select(small, of_r, of_b))),
    )


def _of_mixture(
    pair: Pair, log_q_ratio: Array, log_p_ratio: Array, beta: Array
) -> Array:
    """β q log(q/m) + (1 − β) p log(p/m), m = β q + (1 − β) p, of each class.

    `log_q_ratio` is log(q/m), and `log_p_ratio` log(p/m). The sum over the classes is
    the divergence.
    """
    # As β q + (1 − β) p = m, it is m (β f(log(q/m)) + (1 − β) f(log(p/m))), where
    # f(x) = eˣ (x − 1) + 1 = Σ_n xⁿ (n − 1)/n!, which is never negative. Near 0, where
    # the products cancel, the series does not.
    largest = lax.max(lax.abs(log_q_ratio), lax.abs(log_p_ratio))
    near = lax.lt(largest, lax.full_like(largest, 1 / 4))

    def f(x: Array) -> Array:
        x = select(near, x)
        coefficients = [(n - 1) / math.factorial(n) for n in range(2, 9 + _more(x))]
        return lax.mul(lax.mul(x, x), _polynomial(coefficients, x))

    q, p = pair.q, pair.p
    beta, rest = (lax.full_like(q, x) for x in (beta, 1 - beta))
    m = lax.add(lax.mul(beta, q), lax.mul(rest, p))
    series = lax.add(lax.mul(beta, f(log_q_ratio)), lax.mul(rest, f(log_p_ratio)))
    products = lax.add(
        times(beta, lax.mul(q, log_q_ratio)), times(rest, lax.mul(p, log_p_ratio))
    )
    return lax.select(near, lax.mul(m, series), products)


def _expm1_near_0(x: Array) -> Array:
    """eˣ − 1 by its series, for |x| < ½"""
    terms = range(1, 9 + _more(x))
    return lax.mul(x, _polynomial([1 / math.factorial(n) for n in terms], x))


def _log1p_up_to_1(x: Array) -> Array:
    """log(1 + x) by its series in y = x/(2 + x), for −½ < x ≤ 1

    It is 2 artanh y = 2 y Σ y²ⁿ/(2n + 1), |y| ≤ ⅓. Beside polynomials XLA on a CPU
    forms `lax.log1p` one number at a time, ten times as slowly.
    """
    y = lax.div(x, lax.add(x, lax.full_like(x, 2)))
    coefficients = [2 / (2 * n + 1) for n in range(8 + 2 * _more(x))]
    return lax.mul(y, _polynomial(coefficients, lax.mul(y, y)))


def _more(x: Array) -> int:
    """How many more terms of a series double precision needs than single."""
    return 6 if x.dtype == jnp.float64 else 0


def _polynomial(coefficients: list[float], x: Array) -> Array:
    """Σ_n coefficients[n] xⁿ"""
    *rest, last = coefficients
    total = lax.full_like(x, last)
    for c in reversed(rest):
        total = lax.add(lax.mul(total, x), lax.full_like(x, c))
    return total


def _shares(beta: Annotated[Array, Number(low=0, high=1)]) -> tuple[Array, Array]:
    return beta, 1 - beta


# β KL(q ‖ m) + (1 − β) KL(p ‖ m), where m = β q + (1 − β) p. As Σ dm = 0, the terms in
# d log(q/m) and d log(p/m) add up to 0.
jensen_shannon_divergence = OfTwo(
    weights=_shares,
    ratios=_ratios_to_mixture,
    summands=_of_mixture,
)


def _signs(pair: Pair) -> tuple[Array, Array]:
    """The signs of q − p and of p − q, which are 0 where q = p."""
    of_p = sign(lax.stop_gradient(pair.log_ratio))
    return lax.neg(of_p), of_p


def _half_of_difference(pair: Pair, a: Array, b: Array) -> Array:
    """½ |q − p|, which is 0 for equal rows."""
    d = lax.abs(lax.sub(rounded(pair.q), rounded(pair.p)))
    return lax.mul(lax.full_like(d, 0.5), d)


# ½ Σ |q − p| = ½ Σ q a + p b, with the signs a of q − p and b of p − q.
total_variation = OfTwo(
    weights=lambda: (0.5, 0.5),
    ratios=_signs,
    summands=_half_of_difference,
    shares_nothing=True,
)


def zlpr(low_shift: Array, low: Array, high_shift: Array, high: Array) -> Array:
    """log(1 + exp(low_shift) low) + log(1 + exp(high_shift) high)

    exp(low_shift) low = Σ_c (1 − y_c) exp(z_c) of the classes whose logits are to be
    below 0, and exp(high_shift) high = Σ_c y_c exp(−z_c) of those whose logits are to
    be above. A sum of 0 is that of no class; any other is at least 1.
    """

    def log_of_1_and(shift: Array, total: Array) -> Array:
        # 1 + exp(s) t = exp(a) (exp(−a) + exp(s − a) t) for any a, which therefore has
        # no derivative: with a = max(s, 0) nothing overflows.
        a = lax.stop_gradient(lax.max(shift, lax.full_like(shift, 0)))
        moved = lax.mul(lax.exp(lax.sub(shift, a)), total)
        return lax.add(a, lax.log1p(lax.add(moved, lax.expm1(lax.neg(a)))))

    return lax.add(log_of_1_and(low_shift, low), log_of_1_and(high_shift, high))


@functools.cache
def checks_of_parameters(formula: Callable[..., Any] | OfTwo) -> dict[str, Number]:
    function = formula.weights if isinstance(formula, OfTwo) else formula
    hints = get_type_hints(function, include_extras=True)
    annotated = {n: x for n, x in hints.items() if hasattr(x, "__metadata__")}
    return {name: x.__metadata__[0] for name, x in annotated.items()}


def is_linear(formula: Callable[..., Any] | None) -> bool:
    """Whether a sum of the formula over classes is a function of the statistics."""
    return formula in (cross_entropy, symmetric)
