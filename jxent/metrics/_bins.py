"""Bins of confidence: the sums of the rows in each, and the errors made of them."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec

from .. import _checks
from .._arrays import is_split, select, sum_over_devices
from .._measures.batch import weighed_rows
from .._measures.rows import confidence
from .._problem.problem import Problem
from .._reduction import divided
from .._sums import AddsUp


Norm: TypeAlias = Literal["l1", "l2", "max"]
Strategy: TypeAlias = Literal["uniform", "quantile"]

NORMS = ("l1", "l2", "max")
STRATEGIES = ("uniform", "quantile")


class ReliabilityBins(NamedTuple):
    """The edges of a reliability diagram's bins, each bin's confidence and accuracy.

    Bin i holds edges[i] < confidence ≤ edges[i+1].

    Attributes:
      edges: (bins + 1,), increasing.
      confidence: (bins,), the mean probability of what is predicted, with axis=() of
        yes; 0 in an empty bin.
      accuracy: (bins,), the share of right predictions, with axis=() of yes labels; 0
        in an empty bin.
      weight: (bins,), Σ r, r what multiplies a row: the number of rows.
    """

    edges: Array
    confidence: Array
    accuracy: Array
    weight: Array

    def __add__(self, other: Any) -> Any:
        raise TypeError(
            "ReliabilityBins: expected sums to be added, got means of bins. What adds "
            "up is calibration_error_sums(…, bins=edges)."
        )


class _CalibrationErrorFields(NamedTuple):
    confidence: Array
    correct: Array
    weight: Array


class CalibrationErrorSums(AddsUp, _CalibrationErrorFields):
    """A batch's confidence, right predictions and weights, summed in each bin: (bins,).

    r is everything that multiplies a row. Sums of batches and devices are added field
    by field, `a + b` or `sum([a, b])`, if their bins have the same edges.

    Attributes:
      confidence: Σ r · the probability of what is predicted, with axis=() of yes.
      correct: Σ r over right predictions, with axis=() over yes labels.
      weight: Σ r.
    """

    __slots__ = ()

    def compute(self, norm: Norm = "l1") -> Array:
        """The calibration error; see `calibration_error`."""
        _checks.one_of("compute", "norm", norm, NORMS, optional=False)
        return _error(self, norm)


@functools.partial(jax.jit, static_argnums=1)
def _error(sums: CalibrationErrorSums, norm: Norm) -> Array:
    gap = jnp.abs(divided(sums.confidence - sums.correct, sums.weight))
    if norm == "max":
        return jnp.max(gap, -1)
    total = jnp.sum(sums.weight, -1)
    if norm == "l1":
        return divided(jnp.sum(sums.weight * gap, -1), total)
    square = divided(jnp.sum(sums.weight * lax.square(gap), -1), total)
    # The root of 0 is 0 with derivative 0, where its own would be infinite.
    return select(square != 0, jnp.sqrt(select(square != 0, square, 1)), square)


# Bins ---------------------------------------------------------------------------------


def _in_bins(
    batch: Problem, quantiles: int, edges: Array | None = None
) -> tuple[Array, CalibrationErrorSums]:
    """Edges, and the sums of the rows between them, bin by bin: no array of rows times
    bins is held. Without edges they are `quantiles` + 1 quantiles."""
    p, right = confidence(batch)
    # The bin of a NaN is not known, so no bin's weight is.
    r = weighed_rows(batch, select(p == p, lax.full_like(p, 1), jnp.nan))
    sums = CalibrationErrorSums(
        confidence=weighed_rows(batch, p), correct=weighed_rows(batch, right), weight=r
    )
    p = lax.stop_gradient(p)
    if edges is None:
        counted = batch.rows.weights is None
        edges = _quantiles(p, lax.stop_gradient(r), quantiles, counted)
        rise = jnp.array(True)
    else:
        rise = jnp.all(edges[1:] >= edges[:-1])
    # The first and the last bin have what lies beyond them.
    low, high = edges[:-1].at[0].set(-jnp.inf), edges[1:].at[-1].set(jnp.inf)

    def of_bin(between: tuple[Array, Array]) -> CalibrationErrorSums:
        low, high = between
        inside = ~((p <= low) | (p > high))  # a NaN is inside of all bins
        found = jax.tree.map(lambda x: jnp.sum(select(inside, x)), sums)
        return jax.tree.map(lambda x: select(rise, x, jnp.nan), found)

    names = batch.settings.batch_axis_name
    return edges, sum_over_devices(lax.map(of_bin, (low, high)), names)


def _quantiles(p: Array, r: Array, bins: int, counted: bool) -> Array:
    """(bins + 1,) edges between which lie equal shares of the weight, as far as equal
    probabilities allow; from the smallest one of a row that counts to the largest.

    `counted`: r is 0, 1 or NaN. Integers count more rows than floats do.
    """
    if is_split(p):
        p, r = (jax.sharding.reshard(x, PartitionSpec()) for x in (p, r))
    if isinstance(p.size, int) and not p.size:
        return jnp.zeros(bins + 1, p.dtype)
    p, r = p.reshape(-1), r.reshape(-1)
    known, weight = jnp.all(r == r), r
    if counted and bins < 2**15:  # whose square is an int32
        weight = lax.convert_element_type(r != 0, jnp.int32)
    order = jnp.argsort(select(r != 0, p, jnp.inf))
    p, r, weight = p[order], r[order], jnp.cumsum(weight[order])
    total, k = weight[-1], jnp.arange(1, bins, dtype=weight.dtype)
    if jnp.issubdtype(weight.dtype, jnp.integer):
        whole, rest = total // bins, total % bins
        share = k * whole + (k * rest + bins - 1) // bins
    else:
        share = k * total / bins
    # As jnp.searchsorted, of a number of rows that may be symbolic.
    at = lax.map(lambda s: jnp.sum(weight < s, dtype=jnp.int32), share)
    largest = jnp.max(select(r != 0, p, -jnp.inf))
    edges = jnp.concatenate([p[:1], p[at], largest[None]])
    edges = select(jnp.broadcast_to(total != 0, edges.shape), edges)
    return select(jnp.broadcast_to(known, edges.shape), edges, jnp.nan)


def bins_of(batch: Problem, quantiles: int, *edges: Array) -> ReliabilityBins:
    found, sums = _in_bins(batch, quantiles, *edges)
    return ReliabilityBins(
        edges=found,
        confidence=divided(sums.confidence, sums.weight),
        accuracy=divided(sums.correct, sums.weight),
        weight=sums.weight,
    )


def sums_of_bins(batch: Problem, quantiles: int, *edges: Array) -> CalibrationErrorSums:
    return _in_bins(batch, quantiles, *edges)[1]


def error_of_bins(batch: Problem, norm: Norm, quantiles: int, *edges: Array) -> Array:
    return _error(sums_of_bins(batch, quantiles, *edges), norm)


# Arguments ----------------------------------------------------------------------------


def edges_of(
    function: str, problem: Problem, bins: Any, strategy: str = "uniform"
) -> tuple[int, tuple[Array, ...]]:
    """The number of quantiles, 0 for none, and edges where they are known."""
    _checks.one_of(function, "strategy", strategy, STRATEGIES, optional=False)
    dtype = problem.dtype
    if _checks.is_integer(bins):
        count = _checks.positive_integer(function, "bins", bins)
        if strategy == "quantile":
            _refuse_parts_of_rows(function, problem.settings.batch_axis_name)
            return count, ()
        return 0, (jnp.asarray(np.arange(count + 1) / count, dtype),)
    edges = _checks.real(function, "bins", bins, dtype)
    if edges.ndim != 1 or edges.shape[0] < 2:
        _checks.fail(
            function,
            "expected bins to be their number, an int, or their edges, of shape "
            f"(bins + 1,), got {_checks.shown(bins)}.",
        )
    known = _checks.known_values(bins)
    if known is not None and not np.all(np.diff(known) >= 0):
        _checks.fail(
            function,
            f"expected edges of bins that do not fall, got {_checks.shown(bins)}. "
            "Sort them, np.sort(bins).",
        )
    if strategy == "quantile":
        _checks.fail(
            function,
            "strategy='quantile' finds the edges itself: expected bins to be their "
            f"number, got {_checks.shown(bins)}.",
        )
    return 0, (edges,)


def _refuse_parts_of_rows(function: str, names: tuple[str, ...]) -> None:
    if names:
        _checks.fail(
            function,
            f"strategy='quantile' needs all rows, and each device along {names} has a "
            "part of them. Give bins their edges, those of reliability_bins, say.",
        )
