"""Sums of formulas over classes, element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    cast,
    compute_dtype,
    have_many_short_rows,
    tangent_held_apart,
)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def sum_of_terms(
    term: Callable[..., Array], axes: tuple[int, ...], *arrays: Array
) -> Array:
    """Σ term(*arrays) over the axes, in float32 or better."""
    return _sum_in_one_pass(term, axes, *arrays)


@functools.partial(sum_of_terms.defjvp, symbolic_zeros=True)
def _sum_in_one_pass_jvp(term: Any, axes: Any, primals: Any, tangents: Any) -> Any:
    of = functools.partial(_sum_in_one_pass, term, axes)
    tangent = tangent_held_apart(of, primals, tangents, "cpu")
    return sum_of_terms(term, axes, *primals), tangent


def _sum_in_one_pass(
    term: Callable[..., Array], axes: tuple[int, ...], *arrays: Array
) -> Array:
    shape, dtype = arrays[0].shape, compute_dtype(*arrays)

    def plain(*arrays: Array) -> Array:
        return jnp.sum(term(*(cast(x, dtype) for x in arrays)), axes)

    def flat(*arrays: Array) -> Array:
        held = [lax.optimization_barrier(x.reshape(-1)) for x in arrays]
        terms = term(*(cast(x, dtype) for x in held))
        return jnp.sum(terms.reshape(shape), axes)

    if not have_many_short_rows(*arrays):
        return plain(*arrays)
    return lax.platform_dependent(*arrays, cpu=flat, default=plain)
