"""Binary cross-entropy of all pairs of a batch: SigLIP."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._arrays import compute_dtype
from .._checks import ArrayLike, AxisName
from .._problem import Maybe
from .._reduction import Reduction
from .arguments import (
    BlockSizes,
    Options,
    Plan,
    both_of_pairs,
    checked,
    integers_of,
)
from .matrix import candidates, own
from .sides import Batch, kept, on_devices, reduced, sides, statistics_of
from .sigmoid import sigmoid_form


def sigmoid_contrastive_loss(
    x: ArrayLike,
    y: ArrayLike,
    *,
    logit_scale: ArrayLike = 1.0,
    logit_bias: ArrayLike = 0.0,
    groups: ArrayLike | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
) -> Float[Array, "..."]:
    """TODO"""
    name = "sigmoid_contrastive_loss"
    x, y = both_of_pairs(name, x, y)
    dtype = compute_dtype(x, y)
    plan, options = checked(
        name,
        x,
        dtype,
        where=where,
        weights=weights,
        reduction=reduction,
        normalizer=normalizer,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
    )
    scale = _checks.number(name, "logit_scale", logit_scale, dtype)
    bias = _checks.number_or_off(name, "logit_bias", logit_bias, dtype, off=0)
    groups = integers_of(name, "groups", groups, x.shape[0])
    return _sigmoid_contrastive(plan, options, x, y, scale, bias, groups)


@functools.partial(jax.jit, static_argnums=0)
def _sigmoid_contrastive(
    plan: Plan,
    options: Options,
    x: Array,
    y: Array,
    scale: Array,
    bias: Maybe,
    groups: Maybe,
) -> Array:
    batch = Batch(x, y, keep=kept(options, x.shape[0]), groups=groups)
    form = sigmoid_form(candidates, positive=own)

    def losses(here: Plan, batch: Batch, shared: tuple[Array, Maybe]) -> Array:
        scale, bias = shared
        rows, columns = sides(here, batch)
        if bias is not None:
            rows = rows._replace(bias=jnp.broadcast_to(bias, rows.place.shape))
        sums, _ = statistics_of(form, here, rows, columns, scale)
        return sums.total

    return reduced(
        plan, options, on_devices(plan, losses, batch, (scale, bias)), batch.keep
    )
