"""Derivatives by declaration: a slope for each argument, or a tangent by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import is_moving
from .apart import tangent_held_apart


Differentiable = TypeVar("Differentiable", bound=Callable[..., Any])


def with_slopes(
    *slopes: Callable[..., Any] | None, static: int = 0
) -> Callable[[Differentiable], Differentiable]:
    """Decorates a function f, element by element, with its derivatives.

        d f = Σ_k slopes[k](*arguments) · dx_k

    None stands for a slope of 0. Of several results a slope gives as many. What does
    not move costs nothing. A slope is differentiated in turn. The first `static`
    arguments are no arrays and have no slope.
    """

    def decorated(function: Differentiable) -> Differentiable:
        value: Any = jax.custom_jvp(function, nondiff_argnums=tuple(range(static)))

        def rule(*given: Any) -> Any:
            *fixed, primals, tangents = given
            terms = [
                jax.tree.map(lambda s, dx=dx: _product(s, dx), slope(*fixed, *primals))
                for slope, dx in zip(slopes, tangents, strict=True)
                if slope is not None and is_moving(dx)
            ]
            values = value(*fixed, *primals)
            if not terms:
                return values, jax.tree.map(jnp.zeros_like, values)
            return values, jax.tree.map(lambda *x: functools.reduce(lax.add, x), *terms)

        value.defjvp(rule, symbolic_zeros=True)
        return value

    return decorated


def _product(slope: Array, tangent: Array) -> Array:
    # An operator costs several times as much to trace, and is needed to broadcast.
    if slope.shape != tangent.shape:
        return slope * tangent
    return lax.mul(slope, tangent)


def tangent_apart(
    *platforms: str, static: int = 0
) -> Callable[[Differentiable], Differentiable]:
    """Decorates a function, whose tangent on a CPU, or the platforms named, shares
    nothing with its value: XLA would store what it makes for both.

    The first `static` arguments are no arrays.
    """

    def decorated(function: Differentiable) -> Differentiable:
        value: Any = jax.custom_jvp(function, nondiff_argnums=tuple(range(static)))

        def rule(*given: Any) -> Any:
            *fixed, primals, tangents = given
            of = functools.partial(function, *fixed)
            tangent = tangent_held_apart(of, primals, tangents, *platforms)
            return value(*fixed, *primals), tangent

        value.defjvp(rule, symbolic_zeros=True)
        return value

    return decorated
