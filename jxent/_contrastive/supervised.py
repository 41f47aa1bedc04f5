"""Cross-entropy within a batch of labelled examples: SupCon and NT-Xent."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._arrays import compute_dtype, select
from .._checks import ArrayLike, AxisName
from .._formulas import cross_entropy
from .._problem.resolved import both
from .._reduction import Reduction, divided
from .._solve.call import RowOptions
from .._statistics.statistic import origin
from .._statistics.under_labels import UnderLabels
from .arguments import (
    BlockSizes,
    ContrastiveSettings,
    Implementation,
    Options,
    called_elsewhere,
    checked_pairs,
    integers_of,
    vectors,
)
from .matrix import negatives, others, positives
from .sides import Batch, by_parts, kept_rows, reduced, sides, statistics_of_matrix
from .sigmoid import PairSums, sigmoid_form
from .softmax import LogSum, log_sum_of, softmax_form


LOGS = ("outside", "inside")


@called_elsewhere(logit_scale="temperature=1 / logit_scale")
def supervised_contrastive_cross_entropy(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    log: Literal["outside", "inside"] = "outside",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy of each example with the others of its label: SupCon.

        outside  loss_i = −mean_p log (exp z_ip / Σ_{j ≠ i} exp z_ij)
        inside   loss_i = −log mean_p (exp z_ip / Σ_{j ≠ i} exp z_ij)

    with z_ij = ⟨x_i, x_j⟩ / T, where p runs over the examples with i's label but i: its
    positives. No matrix of all examples is held: one block of it exists at a time, in
    the derivative too.

    Args:
      x: floating, shape (batch, features). Similarities are those of the vectors as
        they come: give them unit length if they are to be cosines. Several views of an
        example are several rows.
      labels: integers, shape (batch,). For views without classes, which example they
        are of.
      temperature: T, one number, above 0.
      log: "outside" or "inside" of the mean over positives.
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
      vectors. An example without positives is dropped from them, but remains a negative
      for others.

    Numerics:
      As in `contrastive_cross_entropy`.

    Raises:
      As `contrastive_cross_entropy`.
      ValueError: also for a log or a temperature out of range.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
      >>> labels = jnp.array([0, 0, 1, 2])
      >>> print(jxent.supervised_contrastive_cross_entropy(x, labels, temperature=0.5))
      [0.62712 1.1143  0.      0.     ]

    Source:
      Khosla et al. (2020), https://arxiv.org/abs/2004.11362, L_out and L_in, without
      the factor T/T₀ of the authors' code; pytorch-metric-learning's `SupConLoss` has
      the mean of "outside".

    See also:
      `ntxent`, `contrastive_cross_entropy`.
    """
    name = "supervised_contrastive_cross_entropy"
    x = vectors(name, "x", x, labels=labels)
    ids = integers_of(name, "labels", labels, x.shape[0])
    dtype = compute_dtype(x)
    settings, options = checked_pairs(
        name,
        x,
        dtype,
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        block_sizes,
        implementation,
    )
    temperature = _checks.number(name, "temperature", temperature, dtype, above=0)
    _checks.one_of(name, "log", log, LOGS, optional=False)
    return _supervised(settings, log == "inside", options, x, ids, temperature)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _supervised(
    settings: ContrastiveSettings,
    inside: bool,
    options: Options,
    x: Array,
    labels: Array,
    temperature: Array,
) -> Array:
    batch = Batch(x=x, y=x, keep=kept_rows(options, x.shape[0]), groups=labels)
    sums = [LogSum(over=others, target=positives)]
    if inside:
        sums.append(LogSum(over=positives))
    form = softmax_form(tuple(sums))

    def of_batch(
        here: ContrastiveSettings, batch: Batch, temperature: Array
    ) -> tuple[Array, Array]:
        """The losses, and of how many positives they are."""
        rows, columns = sides(here, batch)
        scale = 1 / temperature
        (t, *of_positives), _ = statistics_of_matrix(form, here, rows, columns, scale)
        of_mean = t[UnderLabels]
        count = select(of_mean.mass > 0, of_mean.mass, 1)
        # The mean of the positives' logits, or the log of the mean of their
        # exponentials, relative to the shift of all.
        mean = of_mean.sum / count
        for p in of_positives:
            mean = (
                origin(p.maximum) - origin(t.maximum) + log_sum_of(p) - lax.log(count)
            )
        return cross_entropy(mean - log_sum_of(t)), of_mean.mass

    losses, count = by_parts(settings, of_batch, batch, temperature)
    return reduced(settings, options, losses, both(batch.keep, count > 0))


@called_elsewhere(logit_scale="temperature=1 / logit_scale")
def ntxent(
    embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07
) -> Float[Array, ""]:
    """The mean normalized, temperature-scaled cross-entropy of positives: NT-Xent.

        loss = mean_ip log(1 + Σ_n exp(z_in) / exp(z_ip)),   z_ij = cos(x_i, x_j) / T

    over all ordered pairs (i, p) of two examples with one label, n being those with
    another label than i. In SimCLR each example has one positive, its other view; then
    this is the mean of `supervised_contrastive_cross_entropy` of vectors of unit
    length. No matrix of all examples is held.

    Args:
      embeddings: x, floating, shape (batch, features), of any length.
      labels: integers, shape (batch,).
      temperature: T, one number, above 0.

    Returns:
      A scalar, in nats; float32, or float64 for float64 embeddings.

    Numerics:
      As in `contrastive_cross_entropy`. Without any positives the loss is 0, where
      Optax divides by 0. A vector of zeros has similarities of 0 and the gradient 0.

    Raises:
      TypeError: embeddings are not floating, or labels are not integers.
      ValueError: a shape or the temperature does not fit.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
      >>> print(jxent.ntxent(x, jnp.array([0, 0, 1, 1]), temperature=0.5))
      0.87071

    Source:
      Chen et al. (2020), "A Simple Framework for Contrastive Learning of Visual
      Representations", https://arxiv.org/abs/2002.05709; `optax.losses.ntxent`, whose
      numbers these are, and pytorch-metric-learning's `NTXentLoss`.

    See also:
      `supervised_contrastive_cross_entropy`, with every option.
    """
    name = "ntxent"
    x = vectors(name, "embeddings", embeddings, labels=labels)
    ids = integers_of(name, "labels", labels, x.shape[0])
    dtype = compute_dtype(x)
    settings, _ = checked_pairs(name, x, dtype, RowOptions(None))
    temperature = _checks.number(name, "temperature", temperature, dtype, above=0)
    return _ntxent(settings, x, ids, temperature)


@functools.partial(jax.jit, static_argnums=0)
def _ntxent(
    settings: ContrastiveSettings, x: Array, labels: Array, temperature: Array
) -> Array:
    x = _unit(x.astype(compute_dtype(x)))
    log_sum = softmax_form((LogSum(over=negatives),))
    pair_sums = sigmoid_form(positives)

    # −log of exp z / (exp z + Σ exp of the negatives) = −log σ(z − lse of these)
    def of_batch(
        here: ContrastiveSettings, batch: Batch, temperature: Array
    ) -> PairSums:
        rows, columns = sides(here, batch)
        scale = 1 / temperature
        (t,), _ = statistics_of_matrix(log_sum, here, rows, columns, scale)
        lse = t.maximum + log_sum_of(t)  # −∞ without negatives
        rows = rows._replace(bias=-lse)
        return statistics_of_matrix(pair_sums, here, rows, columns, scale)[0]

    sums = by_parts(settings, of_batch, Batch(x=x, y=x, groups=labels), temperature)
    return divided(jnp.sum(sums.total), jnp.sum(sums.pairs))


def _unit(x: Array) -> Array:
    """x / ‖x‖ of each row; 0, with derivative 0, for the row 0."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    some = largest != 0
    x = select(some, x, 1) / select(some, largest, 1)  # whose square is a number
    return select(some, x * lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True)))
