"""Binary cross-entropy of all pairs of a batch: SigLIP."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._arrays import compute_dtype
from .._checks import ArrayLike, AxisName
from .._problem.bundles import Maybe
from .._reduction import Reduction
from .._solve.call import RowOptions
from .arguments import (
    BlockSizes,
    ContrastiveSettings,
    Implementation,
    Options,
    both_of_pairs,
    called_elsewhere,
    checked_pairs,
    integers_of,
)
from .matrix import candidates, own
from .sides import Batch, by_parts, kept_rows, reduced, sides, statistics_of_matrix
from .sigmoid import sigmoid_form


@called_elsewhere(temperature="logit_scale=1 / temperature")
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
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Binary cross-entropy of all pairs of a batch, does y_j belong to x_i: SigLIP.

        loss_i = −log σ(z_ii) − Σ_{j ≠ i} log σ(−z_ij),   z_ij = s ⟨x_i, y_j⟩ + b

    No matrix of all pairs is held: one block of it exists at a time, in the derivative
    too.

    Args:
      x: floating, shape (batch, features). Similarities are those of the vectors as
        they come: give them unit length if they are to be cosines.
      y: floating, of x's shape. Pair i is x[i] and y[i].
      logit_scale: s, one number that multiplies all similarities, or 1/temperature. To
        learn it as CLIP does, keep its logarithm and give jnp.exp of that.
      logit_bias: b, one number. SigLIP starts from −10, and from a scale of 10: at
        first nearly all pairs are negatives.
      groups: integers, shape (batch,). Pairs of one group are not each other's
        negatives: images of one caption, say.
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
      vectors. Their mean is SigLIP's loss: a sum over all pairs, divided by the batch.

    Numerics:
      As in `contrastive_cross_entropy`. Finite for logits of any size.

    Raises:
      As `contrastive_cross_entropy`.

    Example:
      >>> images = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
      >>> texts = jnp.array([[0.8, 0.6], [0.0, 1.0], [0.0, 1.0]])
      >>> print(jxent.sigmoid_contrastive_loss(
      ...     images, texts, logit_scale=10.0, logit_bias=-10.0))
      [2.12702 1.40444 2.76687]

    Source:
      Zhai et al. (2023), "Sigmoid Loss for Language Image Pre-Training",
      https://arxiv.org/abs/2303.15343; open_clip's `SigLipLoss`.

    See also:
      `contrastive_cross_entropy`, `sigmoid_binary_cross_entropy`.
    """
    name = "sigmoid_contrastive_loss"
    x, y = both_of_pairs(name, x, y)
    dtype = compute_dtype(x, y)
    settings, options = checked_pairs(
        name,
        x,
        dtype,
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        block_sizes,
        implementation,
    )
    scale = _checks.number(name, "logit_scale", logit_scale, dtype)
    bias = _checks.number_or_off(name, "logit_bias", logit_bias, dtype, off=0)
    groups = integers_of(name, "groups", groups, x.shape[0])
    return _sigmoid_contrastive(settings, options, x, y, scale, bias, groups)


@functools.partial(jax.jit, static_argnums=0)
def _sigmoid_contrastive(
    settings: ContrastiveSettings,
    options: Options,
    x: Array,
    y: Array,
    scale: Array,
    bias: Maybe,
    groups: Maybe,
) -> Array:
    batch = Batch(x=x, y=y, keep=kept_rows(options, x.shape[0]), groups=groups)
    form = sigmoid_form(candidates, positive=own)

    def of_batch(
        here: ContrastiveSettings, batch: Batch, shared: tuple[Array, Maybe]
    ) -> Array:
        scale, bias = shared
        rows, columns = sides(here, batch)
        if bias is not None:
            rows = rows._replace(bias=jnp.broadcast_to(bias, rows.vectors.shape[:1]))
        sums, _ = statistics_of_matrix(form, here, rows, columns, scale)
        return sums.total

    return reduced(
        settings,
        options,
        by_parts(settings, of_batch, batch, (scale, bias)),
        batch.keep,
    )
