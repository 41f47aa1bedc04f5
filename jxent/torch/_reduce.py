"""PyTorch's means, where they are not jxent's."""

import jax.numpy as jnp
from jax import Array

from .. import _reduction
from .._arrays import select


def or_nan(mean: Array, total: Array | None) -> Array:
    """PyTorch's mean of nothing is NaN, jxent's is 0; the gradient is 0 in both."""
    return mean if total is None else select(total != 0, mean, jnp.nan)


def over_elements(losses: Array, weight: Array | None, reduction: str) -> Array:
    """PyTorch's mean of elements divides by their number, whatever their weights."""
    count = jnp.asarray(losses.size, losses.dtype) if reduction == "mean" else None
    reduced = _reduction.reduce(
        losses,
        weights=weight,
        reduction=reduction,  # pyright: ignore[reportArgumentType]
        normalizer=count,
    )
    return or_nan(reduced, count)
