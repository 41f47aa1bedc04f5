"""The entry of each row at its label's class."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from .._arrays import over_classes, select
from .._compute.reading import is_label
from .._problem.ids import class_ids
from .._problem.resolved import NO_CLASS


def entry_at_label(
    x: Float[Array, "..."],
    labels: Integer[Array, "..."],
    axis: int,
    keep: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """x_y of each row, (rows,); for an id that names no class, NaN with NaN gradients.

    A row that is not kept is 0 with gradient 0, whatever it holds.
    """
    ids = class_ids(labels, keep, x.shape[axis])
    bad = over_classes(ids == NO_CLASS, axis, x)
    picked = is_label(ids, axis, x)
    if keep is not None:
        picked &= over_classes(keep, axis, x)
    factor = select(~bad, jnp.ones_like(x), jnp.nan)
    return jnp.sum(select(picked | bad, factor * x), axis)
