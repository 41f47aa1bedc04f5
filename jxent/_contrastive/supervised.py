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
from .sides import kept, reduced, sides, statistics_of
from .sigmoid import sigmoid_form
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
        x.shape[:1],
        dtype,
        x,
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
    keep = kept(options, x.shape[0])
    rows, columns = sides(plan, x, x, keep, labels)
    forms = [LogSum(others, target=positives)]
    if inside:
        forms.append(LogSum(positives))
    of_rows, _ = statistics_of(
        softmax_form(tuple(forms)), plan, rows, columns, 1 / temperature
    )
    t, *of_positives = of_rows
    some = t.mass > 0
    count = select(some, t.mass, 1)
    mean = t.target / count
    for p in of_positives:
        # log of the mean of exp, relative to the shift of all others
        mean = shift_of(p) - shift_of(t) + log_sum_of(p) - lax.log(count)
    losses = cross_entropy(mean - log_sum_of(t))
    return reduced(plan, options, losses, both(keep, some))


def ntxent(
    embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07
) -> Float[Array, ""]:
    """TODO"""
    name = "ntxent"
    x = vectors(name, "embeddings", embeddings)
    ids = integers_of(name, "labels", labels, x.shape[0])
    temperature = _checks.number(
        name, "temperature", temperature, compute_dtype(x), above=0
    )
    return _ntxent(x, ids, temperature)


@jax.jit
def _ntxent(x: Array, labels: Array, temperature: Array) -> Array:
    plan = Plan(reduction="none", batch_axis_name=(), block_sizes=(None, None))
    x = _unit(x.astype(compute_dtype(x)))
    rows, columns = sides(plan, x, x, None, labels)
    form = softmax_form((LogSum(negatives),))
    (t,), _ = statistics_of(form, plan, rows, columns, 1 / temperature)
    lse = lax.stop_gradient(t.maximum) + log_sum_of(t)  # −∞ without negatives
    rows = rows._replace(bias=-lse)
    sums, _ = statistics_of(
        sigmoid_form(positives), plan, rows, columns, 1 / temperature
    )
    return divided(jnp.sum(sums.total), jnp.sum(sums.count))


def _unit(x: Array) -> Array:
    """x / ‖x‖ of each row; 0, with derivative 0, for the row 0."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    x = x / select(largest > 0, largest, 1)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * lax.rsqrt(select(square > 0, square, 1))
