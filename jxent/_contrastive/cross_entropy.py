"""Cross-entropy of pairs: CLIP and InfoNCE."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._arrays import compute_dtype
from .._checks import ArrayLike, AxisName
from .._formulas import cross_entropy
from .._problem import Maybe
from .._reduction import Reduction
from .._statistics import Totals
from .arguments import (
    BlockSizes,
    Options,
    Plan,
    both_of_pairs,
    checked,
    extra_vectors,
    integers_of,
)
from .matrix import candidates
from .sides import (
    Batch,
    Extra,
    kept,
    on_devices,
    over_devices,
    reduced,
    sides,
    statistics_of,
    with_extra,
)
from .softmax import LogSum, log_sum_of, shift_of, softmax_form


_OWN = (LogSum(candidates, label=True),)


def contrastive_cross_entropy(
    x: ArrayLike,
    y: ArrayLike,
    *,
    logit_scale: ArrayLike = 1.0,
    candidate_bias: ArrayLike | None = None,
    extra_candidates: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    symmetric: bool = True,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
) -> Float[Array, "..."]:
    """TODO"""
    name = "contrastive_cross_entropy"
    x, y = both_of_pairs(name, x, y)
    extra = extra_vectors(name, "extra_candidates", extra_candidates, y)
    dtype = compute_dtype(x, y) if extra is None else compute_dtype(x, y, extra)
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
    bias = None
    if candidate_bias is not None:
        bias = _checks.real(name, "candidate_bias", candidate_bias, dtype)
        count = x.shape[0] + (0 if extra is None else extra.shape[0])
        if bias.shape != (count,):
            _checks.fail(
                name,
                f"expected candidate_bias of shape {(count,)}, one number for each y "
                f"and each of extra_candidates, got {bias.shape}.",
            )
    groups = integers_of(name, "groups", groups, x.shape[0])
    symmetric = _checks.flag(name, "symmetric", symmetric)
    return _contrastive(
        plan, symmetric, options, x, y, scale, bias, extra, groups
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _contrastive(
    plan: Plan,
    symmetric: bool,
    options: Options,
    x: Array,
    y: Array,
    scale: Array,
    bias: Maybe,
    extra: Maybe,
    groups: Maybe,
) -> Array:
    count = x.shape[0]
    batch = Batch(x, y, keep=kept(options, count), groups=groups)
    more = None if extra is None else Extra(extra)
    if bias is not None:
        batch = batch._replace(bias=bias[:count])
        more = None if more is None else more._replace(bias=bias[count:])
    form = softmax_form(_OWN, _OWN if symmetric else ())

    def losses(here: Plan, batch: Batch, shared: Any) -> Array:
        scale, more = shared
        rows, columns = sides(here, batch)
        if more is not None:
            more = over_devices(plan.batch_axis_name, more)
            columns = with_extra(columns, more)
        (t,), of_columns = statistics_of(form, here, rows, columns, scale)
        losses = _loss(t)
        for partner in of_columns:
            losses = (losses + _loss(partner)) / 2
        return losses

    return reduced(
        plan, options, on_devices(plan, losses, batch, (scale, more)), batch.keep
    )


def _loss(t: Totals) -> Array:
    """−log p of the own pair."""
    assert t.label is not None
    return cross_entropy(t.label - shift_of(t) - log_sum_of(t))
