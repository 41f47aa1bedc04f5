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
    held_apart,
    is_split,
    like_moving,
    moving_of,
    replaced,
)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def sum_of_terms(
    term: Callable[..., Array], axes: tuple[int, ...], *arrays: Array
) -> Array:
    """Σ term(*arrays) over the axes, in float32 or better."""
    return _sum_in_one_pass(term, axes, *arrays)


@functools.partial(sum_of_terms.defjvp, symbolic_zeros=True)
def _sum_in_one_pass_jvp(term: Any, axes: Any, primals: Any, tangents: Any) -> Any:
    moving, held = moving_of(tangents), held_apart(primals, "cpu")
    along = lambda given: _sum_in_one_pass(term, axes, *replaced(held, given))
    _, tangent = jax.jvp(along, (like_moving(moving, held),), (moving,))
    return sum_of_terms(term, axes, *primals), tangent


def _sum_in_one_pass(
    term: Callable[..., Array], axes: tuple[int, ...], *arrays: Array
) -> Array:
    shape, dtype = arrays[0].shape, compute_dtype(*arrays)

    def plain(*arrays: Array) -> Array:
        return jnp.sum(term(*(cast(x, dtype) for x in arrays)), axes)

    # XLA on a CPU forms each step of a formula row by row, which takes up to three
    # times as long where rows are short.
    def flat(*arrays: Array) -> Array:
        held = [lax.optimization_barrier(x.reshape(-1)) for x in arrays]
        terms = term(*(cast(x, dtype) for x in held))
        return jnp.sum(terms.reshape(shape), axes)

    known = bool(shape) and all(isinstance(n, int) for n in shape)
    if not known or shape[-1] >= 128 or arrays[0].size <= 2**15:
        return plain(*arrays)
    if any(map(is_split, arrays)):
        return plain(*arrays)
    return lax.platform_dependent(*arrays, cpu=flat, default=plain)
