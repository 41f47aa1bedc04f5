"""What the formulas of binary losses are made of, and how they are differentiated."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._arrays import like_moving, moving_of, replaced
from .._compute.apart import constant, held_apart
from .._compute.elements import apart_on_a_line
from .._compute.slopes import with_slopes


def common_loss(z: Array) -> Array:
    """log(1 + exp(−|z|)), which either label loses: −log max(σ(z), σ(−z))"""
    return jnp.log1p(jnp.exp(-jnp.abs(z)))


def _slopes_of_sigmoids(z: Array) -> tuple[Array, Array]:
    p, q = sigmoids(z)
    slope = p * q
    return slope, -slope


@with_slopes(_slopes_of_sigmoids)
def sigmoids(z: Array) -> tuple[Array, Array]:
    """p = σ(z) and q = σ(−z), of one exponential and without a select."""
    odds = jnp.exp(-z)
    p = 1 / (1 + odds)
    # q = odds · p, and 1 where the odds of no are infinite or nearly so.
    large = 2.0 ** (jnp.finfo(z.dtype).maxexp - 4)
    of_p = jnp.maximum(constant(1 / large, z), p)
    return p, jnp.minimum(constant(large, z), odds) * of_p


def _slopes_of_logs(z: Array) -> tuple[Array, Array]:
    p, q = sigmoids(z)
    return q, -p


@with_slopes(_slopes_of_logs)
def log_p_and_log_q(z: Array) -> tuple[Array, Array]:
    """log σ(z) and log σ(−z), of one exponential and one logarithm."""
    rest = common_loss(z)
    return jnp.minimum(z, 0) - rest, jnp.minimum(-z, 0) - rest


def shares(
    y: Array, pos_weight: Array | None, one: Array | int = 1
) -> tuple[Array, Array]:
    """w⁺ y and 1 − y"""
    return y if pos_weight is None else pos_weight * y, one - y


def against(z: Array, yes: Array, no: Array | None = None) -> Array:
    """The share that loses |z| more: `no` where z > 0, `yes` where z < 0.

    `no` is 1 − yes if it is None. Without a select, as all that values are made of: XLA
    on a CPU forms a sum of such arithmetic as it goes, and stores what it selects.
    """
    sign = jnp.sign(z)
    above = jnp.maximum(constant(0.0, z), sign)
    return above - sign * yes if no is None else above * no + (above - sign) * yes


OfElements: TypeAlias = Callable[..., Array]


def with_derivatives_of(
    formula: OfElements, slope: OfElements | None = None
) -> Callable[[OfElements], OfElements]:
    """Decorates a function of z and more that has the value of `formula`.

    `slope` is its derivative in z in closed form, so that XLA stores less.
    """
    if slope is not None:
        slope = with_derivatives_of(_slope_of(formula))(apart_on_a_line(slope))

    def decorated(value: OfElements) -> OfElements:
        function = jax.custom_jvp(value)

        def rule(primals: Any, tangents: Any) -> Any:
            held, moving = held_apart(primals), moving_of(tangents)
            terms = []
            if slope is not None and moving[0] is not None:
                terms.append(slope(*held) * moving[0])
                moving = (None, *moving[1:])
            if jax.tree.leaves(moving):
                along = lambda given: formula(*replaced(held, given))
                terms.append(jax.jvp(along, (like_moving(moving, held),), (moving,))[1])
            return function(*primals), functools.reduce(jnp.add, terms)

        function.defjvp(rule, symbolic_zeros=True)
        return function

    return decorated


def _slope_of(formula: OfElements) -> OfElements:
    """The derivative in z: element by element, the tangent along 1."""

    def slope(z: Array, *more: Any) -> Array:
        return jax.jvp(lambda z: formula(z, *more), (z,), (jnp.ones_like(z),))[1]

    return slope


# Powers -------------------------------------------------------------------------------


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Exponent:
    """A small whole number, static, so that its power is a few products."""

    number: int


def exponent(value: Any, otherwise: Array) -> Exponent | Array:
    """An `Exponent`, if `value` is a Python number that can be one."""
    is_small = type(value) in (int, float) and value in range(5)
    return Exponent(int(value)) if is_small else otherwise


def power(x: Float[Array, "..."], exponent: Any) -> Float[Array, "..."]:
    """x^exponent of an `Exponent` or an array, for x ≥ 0; 0^0 is 1."""
    if isinstance(exponent, Exponent):
        return lax.integer_pow(x, exponent.number)
    return jnp.exp(exponent * jnp.maximum(-jnp.finfo(x.dtype).max, jnp.log(x)))


def exponent_array(exponent: Any, like: Array) -> Array:
    """An `Exponent` as an array; an array unchanged."""
    if isinstance(exponent, Exponent):
        return jnp.asarray(exponent.number, like.dtype)
    return exponent
