"""Cross-entropy within a batch of labelled examples: SupCon and NT-Xent."""

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
from .._problem import both
from .._reduction import Reduction, divided
from .arguments import BlockSizes, Options, Plan, checked, integers_of, vectors
from .matrix import negatives, others, positives
from .sides import Batch, kept, on_devices, reduced, sides, statistics_of
from .sigmoid import PairSums, sigmoid_form
from .softmax import LogSum, log_sum_of, shift_of, softmax_form


LOGS = ("outside", "inside")


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
) -> Float[Array, "..."]:
    """TODO"""
    name = "supervised_contrastive_cross_entropy"
    x = vectors(name, "x", x)
    ids = integers_of(name, "labels", labels, x.shape[0])
    dtype = compute_dtype(x)
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
    temperature = _checks.number(name, "temperature", temperature, dtype, above=0)
    if log not in LOGS:
        _checks.one_of(name, "log", log, LOGS)
    return _supervised(plan, log == "inside", options, x, ids, temperature)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _supervised(
    plan: Plan,
    inside: bool,
    options: Options,
    x: Array,
    labels: Array,
    temperature: Array,
) -> Array:
    batch = Batch(x, x, keep=kept(options, x.shape[0]), groups=labels)
    sums = [LogSum(others, target=positives)]
    if inside:
        sums.append(LogSum(positives))
    form = softmax_form(tuple(sums))

    def losses(here: Plan, batch: Batch, temperature: Array) -> tuple[Array, Array]:
        """The losses, and of how many positives they are."""
        rows, columns = sides(here, batch)
        scale = 1 / temperature
        (t, *of_positives), _ = statistics_of(form, here, rows, columns, scale)
        count = select(t.mass > 0, t.mass, 1)
        # The mean of the positives' logits, or the log of the mean of their
        # exponentials, relative to the shift of all.
        mean = t.target / count
        for p in of_positives:
            mean = shift_of(p) - shift_of(t) + log_sum_of(p) - lax.log(count)
        return cross_entropy(mean - log_sum_of(t)), t.mass

    losses, count = on_devices(plan, losses, batch, temperature)
    return reduced(plan, options, losses, both(batch.keep, count > 0))


def ntxent(
    embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07
) -> Float[Array, ""]:
    """TODO"""
    name = "ntxent"
    x = vectors(name, "embeddings", embeddings)
    ids = integers_of(name, "labels", labels, x.shape[0])
    dtype = compute_dtype(x)
    plan, _ = checked(name, x, dtype)
    temperature = _checks.number(name, "temperature", temperature, dtype, above=0)
    return _ntxent(plan, x, ids, temperature)


@functools.partial(jax.jit, static_argnums=0)
def _ntxent(plan: Plan, x: Array, labels: Array, temperature: Array) -> Array:
    x = _unit(x.astype(compute_dtype(x)))
    log_sum, pair_sums = softmax_form((LogSum(negatives),)), sigmoid_form(positives)

    # −log of exp z / (exp z + Σ exp of the negatives) = −log σ(z − lse of these)
    def losses(here: Plan, batch: Batch, temperature: Array) -> PairSums:
        rows, columns = sides(here, batch)
        scale = 1 / temperature
        (t,), _ = statistics_of(log_sum, here, rows, columns, scale)
        lse = t.maximum + log_sum_of(t)  # −∞ without negatives
        rows = rows._replace(bias=-lse)
        return statistics_of(pair_sums, here, rows, columns, scale)[0]

    sums = on_devices(plan, losses, Batch(x, x, groups=labels), temperature)
    return divided(jnp.sum(sums.total), jnp.sum(sums.count))


def _unit(x: Array) -> Array:
    """x / ‖x‖ of each row; 0, with derivative 0, for the row 0."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    x = x / select(largest > 0, largest, 1)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * lax.rsqrt(select(square > 0, square, 1))
