"""Cross-entropy of pairs: CLIP and InfoNCE."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._arrays import compute_dtype
from .._checks import ArrayLike, AxisName
from .._formulas import cross_entropy
from .._problem.bundles import Maybe
from .._reduction import Reduction
from .._solve.call import RowOptions
from .._statistics.at_ids import AtIds
from .._statistics.statistic import origin
from .._statistics.totals import Totals
from .arguments import (
    BlockSizes,
    ContrastiveSettings,
    Implementation,
    Options,
    both_of_pairs,
    called_elsewhere,
    checked_pairs,
    extra_vectors,
    integers_of,
)
from .matrix import candidates
from .sides import (
    Batch,
    Extra,
    by_parts,
    extra_here,
    kept_rows,
    reduced,
    sides,
    statistics_of_matrix,
    with_extra,
)
from .softmax import LogSum, log_sum_of, softmax_form


_OWN = (LogSum(over=candidates, label=True),)


@called_elsewhere(temperature="logit_scale=1 / temperature")
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
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy of pairs, each against the others of its batch: CLIP and InfoNCE.

        loss_i = ½ (log Σ_j exp(z_ij + b_j) − (z_ii + b_i) + log Σ_j exp(z_ji) − z_ii)
        z_ij = s ⟨x_i, y_j⟩

    Its first half finds y_i among all y, its second half x_i among all x. Without
    `symmetric` the loss is the first half alone, and no half is taken. No matrix of all
    pairs is held: one block of it exists at a time, in the derivative too, and serves
    both directions.

    Args:
      x: floating, shape (batch, features). Similarities are those of the vectors as
        they come: give them unit length if they are to be cosines.
      y: floating, of x's shape. Pair i is x[i] and y[i].
      logit_scale: s, one number that multiplies all similarities, or 1/temperature. To
        learn it as CLIP does, keep its logarithm and give jnp.exp of that.
      candidate_bias: b, one number for each y, (batch,), and behind them one for each
        of extra_candidates. It acts on the candidates for x alone. Minus the log of a
        candidate's sampling probability corrects for how often it is drawn (logQ).
      extra_candidates: floating, shape (extra, features): more candidates for every x,
        which belong to none. They act on the first half alone.
      groups: integers, shape (batch,). Pairs of one group are not each other's
        negatives: images of one caption, say.
      symmetric: whether the loss has both halves.
      where: boolean, a scalar or of shape (batch,), (1,) allowed. False drops the row,
        which is then no candidate for others either.
      weights: factors of the losses, shaped like where. A weight of exactly 0 drops the
        row as well. Booleans count as 0 and 1.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r = where · weights.
      normalizer: what the mean divides by in place of Σ r.
      batch_axis_name: the mesh axes that the batch is split over: each row is compared
        with those of all devices, and the mean and the sum run over all. Inside of
        `jax.shard_map` each device gives its part of every array. Outside of it arrays
        are given whole, and explicit axes need no name.
      block_sizes: (rows, columns) of a block of similarities; chosen where None.
      implementation: where devices split the batch, "gathered" gives each of them the
        vectors of all, and so does None. "ring" sends the vectors of each from device
        to device, and their gradient with them: no device holds those of all. It needs
        axes that split the batch: bound or named ones, or explicit ones of x.

    Returns:
      The losses in nats, (batch,), or a scalar; float32, or float64 for float64
      vectors.

    Numerics:
      Similarities of bfloat16 and float16 are summed and kept in float32; each gradient
      has its input's dtype and is summed over blocks in float32. Exponentials are taken
      relative to the largest of their row or column. A dropped row is exactly 0 with
      gradient 0, whatever it holds; so is the derivative in a weight of 0. Every
      derivative exists, in forward mode and of second order too, a block at a time.

      Split over devices, "gathered" sends a device's share of y to all others, and of
      their gradient. In a "ring" the shares of y travel twice, for the value and for
      the derivative, and their gradient in float32. A device holds its own share and
      one that is passing through, in derivatives of every order.

    Raises:
      TypeError: x, y or extra_candidates are not floating, groups are not integers,
        where is floating, or a bool stands for a number.
      ValueError: a shape does not fit, or the reduction, block_sizes or an axis name.

    Example:
      >>> images = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
      >>> texts = jnp.array([[0.8, 0.6], [0.0, 1.0], [0.0, 1.0]])
      >>> print(jxent.contrastive_cross_entropy(images, texts, logit_scale=10.0))
      [0.90353 0.41462 2.03307]

      The second and third have one caption; neither is the other's negative:

      >>> captions = jnp.array([0, 1, 1])
      >>> print(jxent.contrastive_cross_entropy(
      ...     images, texts, logit_scale=10.0, groups=captions, reduction="mean"))
      0.60158

    Source:
      Radford et al. (2021), https://arxiv.org/abs/2103.00020; van den Oord et al.
      (2018), https://arxiv.org/abs/1807.03748; open_clip's `ClipLoss`.

    See also:
      `sigmoid_contrastive_loss`, `supervised_contrastive_cross_entropy`, `ntxent`;
      `LinearLogits`, where all candidates are classes.
    """
    name = "contrastive_cross_entropy"
    x, y = both_of_pairs(name, x, y)
    extra = extra_vectors(name, extra_candidates, y)
    dtype = compute_dtype(x, y) if extra is None else compute_dtype(x, y, extra)
    settings, options = checked_pairs(
        name,
        x,
        dtype,
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        block_sizes,
        implementation,
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
    return _contrastive(settings, symmetric, options, x, y, scale, bias, extra, groups)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _contrastive(
    settings: ContrastiveSettings,
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
    batch = Batch(x=x, y=y, keep=kept_rows(options, count), groups=groups)
    more = None if extra is None else Extra(vectors=extra)
    if bias is not None:
        batch = batch._replace(bias=bias[:count])
        more = None if more is None else more._replace(bias=bias[count:])
    form = softmax_form(_OWN, _OWN if symmetric else ())

    def of_batch(here: ContrastiveSettings, batch: Batch, shared: Any) -> Array:
        scale, more = shared
        rows, columns = sides(here, batch)
        if more is not None:
            columns = with_extra(columns, extra_here(settings, here, more))
        (t,), of_columns = statistics_of_matrix(form, here, rows, columns, scale)
        losses = _loss_of_rows(t)
        for partner in of_columns:
            losses = (losses + _loss_of_rows(partner)) / 2
        return losses

    return reduced(
        settings,
        options,
        by_parts(settings, of_batch, batch, (scale, more)),
        batch.keep,
    )


def _loss_of_rows(t: Totals) -> Array:
    """−log p of the own pair."""
    return cross_entropy(t[AtIds] - origin(t.maximum) - log_sum_of(t))
