"""Sums of formulas over classes, element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import (
    cast,
    compute_dtype,
    element_by_element,
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
    dtype = compute_dtype(*arrays)
    wide = lambda *arrays: term(*(cast(x, dtype) for x in arrays))
    return jnp.sum(element_by_element(wide, *arrays), axes)
