"""The entry of each row at its label's class."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from .._arrays import masked, rows_to_classes
from .._problem import NO_CLASS, class_ids, is_label


def at_label(
    x: Float[Array, "..."],
    labels: Integer[Array, "..."],
    axis: int,
    keep: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """x_y of every row; NaN, gradient too, for an id that names no class.

    A row that is not kept is 0 with gradient 0, whatever it holds.
    """
    ids = class_ids(labels, keep, x.shape[axis])
    bad = rows_to_classes(ids == NO_CLASS, axis)
    picked = is_label(ids, axis, x)
    if keep is not None:
        picked &= rows_to_classes(keep, axis)
    factor = masked(jnp.ones_like(x, shape=bad.shape), ~bad, jnp.nan)
    return jnp.sum(masked(factor * x, picked | bad), axis)
