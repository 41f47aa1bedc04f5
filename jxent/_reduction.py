"""From one loss a row to one number: where, weights, the mean's denominator."""

from __future__ import annotations

import functools
from typing import Any, Literal, TypeAlias

import jax
from jax import Array, lax
from jaxtyping import Bool, Float

from . import _checks
from ._arrays import broadcast_like, compute_dtype, select, sum_over_devices
from ._checks import ArrayLike, Axis, AxisName
from ._compute.apart import unseen
from ._compute.times import times


Reduction: TypeAlias = Literal["none", "mean", "sum"]


def combine(
    losses: Float[Array, "*rows"],
    *,
    keep: Bool[Array, "..."] | None,
    weights: Float[Array, "..."] | None,
    class_factor: Float[Array, "..."] | None = None,
    reduction: str,
    normalizer: Array | None,
    batch_axis_name: tuple[str, ...] = (),
    axis: tuple[int, ...] | None = None,
) -> Float[Array, "..."]:
    """Masks, weights and reduces losses in which `class_factor` is already a factor.

        mean = Σ r · loss / Σ r,   r = keep · weights · class_factor

    With `batch_axis_name` both sums run over these mesh axes too: the global mean, not
    a mean of means. Nothing left to average gives 0, with gradient 0.
    """
    losses = weighed(losses, keep, weights)
    if reduction == "none":
        return losses
    axes = tuple(range(losses.ndim)) if axis is None else axis
    total = sum_over_devices(lax.reduce_sum(losses, axes), batch_axis_name)
    if reduction == "sum":
        return total
    if normalizer is None:
        r = lax.full_like(losses, 1)
        if class_factor is not None:
            r = broadcast_like(class_factor, losses)
        weight = lax.reduce_sum(weighed(r, keep, weights), axes)
        normalizer = sum_over_devices(weight, batch_axis_name)
    return divided(total, normalizer)


def weighed(
    losses: Float[Array, "..."], keep: Array | None, weights: Array | None
) -> Float[Array, "..."]:
    """keep · weights · loss, exactly 0 in a row that is dropped, whatever it holds."""
    if keep is not None:
        losses = select(keep, losses)
    if weights is None:
        return losses
    weights = broadcast_like(weights, losses)
    if keep is not None:
        weights = select(keep, weights)
    return times(weights, losses)


def divided(total: Array, weight: Array) -> Array:
    """total / weight, 0 where nothing has a weight."""
    # Of a constant XLA would form the reciprocal, and n times that is not always 1.
    weight = unseen(weight)
    something = lax.ne(weight, lax.full_like(weight, 0))
    return select(something, total / select(something, weight, 1))


@functools.partial(jax.jit, static_argnames=("reduction", "batch_axis_name", "axis"))
def _reduce(losses: Array, **options: Any) -> Array:
    return combine(losses, **options)


def reduce(
    losses: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    axis: Axis = None,
    reduction: Reduction = "mean",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Masks, weights and reduces losses of any shape, as every loss here does.

        mean = Σ r · loss / Σ r        sum = Σ r · loss        r = where · weights

    Args:
      losses: floating, any shape, in nats.
      where: boolean, a scalar or of the losses' rank (axes of size 1 allowed). False
        drops an element, whatever it holds.
      weights: floating, shaped like `where`. A weight of exactly 0 drops as well.
      axis: the axes to reduce over; None for all.
      reduction: "none" keeps every element (weighted, 0 where dropped), "mean" or
        "sum".
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      batch_axis_name: mesh axes that the losses are split over, inside `jax.shard_map`:
        both sums of the mean run over them.

    Returns:
      The reduced losses: float32, or float64 for float64 losses.

    Numerics:
      Sums are in float32 or better. A dropped element is exactly 0, NaN and infinities
      too, and so is its gradient. Nothing left to average gives 0 with gradient 0.
      Note that a NaN *inside* the computation of a dropped loss can still poison
      gradients there: give the loss function itself the same `where`.

    Raises:
      TypeError: losses are not floating, or where is floating.
      ValueError: a shape, the reduction or an axis name does not fit.

    Example:
      >>> losses = jnp.array([[1.0, 3.0], [5.0, jnp.nan]])
      >>> print(jxent.reduce(losses, where=jnp.array([[True, True], [True, False]])))
      3.0
      >>> print(jxent.reduce(losses, where=losses < 4, axis=-1))
      [2. 0.]

    See also:
      `total_weight`, the denominator alone.
    """
    name = "reduce"
    x = _checks.floating(name, "losses", losses)
    _checks.reduction(name, reduction, normalizer)
    dtype = compute_dtype(x)
    axes = None
    if axis is not None:
        axes = _checks.class_axis(name, "losses", x, axis)
        axes = axes if isinstance(axes, tuple) else (axes,)
    left = tuple(n for a, n in enumerate(x.shape) if axes is not None and a not in axes)
    return _reduce(
        x.astype(dtype),
        keep=_checks.mask_of_rows(name, where, x.shape),
        weights=_checks.weights_of_rows(name, weights, x.shape, dtype),
        reduction=reduction,
        normalizer=_checks.normalizer(name, normalizer, dtype, left),
        batch_axis_name=_checks.bound_axis_names(
            name, "batch_axis_name", batch_axis_name, x
        ),
        axis=axes,
    )
