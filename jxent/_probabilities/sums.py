"""Sums of formulas over classes, element by element."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from .._arrays import cast, compute_dtype
from .._compute.elements import element_by_element
from .._compute.slopes import tangent_apart


@tangent_apart(static=2)
def sum_of_terms(
    term: Callable[..., Array], axes: tuple[int, ...], *arrays: Array
) -> Array:
    """Σ term(*arrays) over the axes, in float32 or better."""
    dtype = compute_dtype(*arrays)
    wide = lambda *arrays: term(*(cast(x, dtype) for x in arrays))
    return jnp.sum(element_by_element(wide, *arrays), axes)
