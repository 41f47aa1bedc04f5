"""Whether probabilities are what they say: reliability bins, and calibration errors."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jaxtyping import Float

from .. import _checks
from .._arrays import is_split, select, sum_over_devices
from .._checks import ArrayLike, Axis, AxisName
from .._linear_logits import Logits
from .._measures.batch import measured, metric_problem, weighed_rows
from .._measures.rows import confidence
from .._problem.problem import Problem
from .._reduction import divided


Norm: TypeAlias = Literal["l1", "l2", "max"]
Strategy: TypeAlias = Literal["uniform", "quantile"]

NORMS = ("l1", "l2", "max")
STRATEGIES = ("uniform", "quantile")


class ReliabilityBins(NamedTuple):
    """What a reliability diagram draws. Bin i holds edges[i] < confidence ≤ edges[i+1].

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


class CalibrationErrorSums(NamedTuple):
    """Sums over the rows of each bin, (bins,). r is everything that multiplies a row.

    Sums of batches and devices are added field by field, `jax.tree.map(jnp.add, a, b)`,
    if their bins have the same edges.

    Attributes:
      confidence: Σ r · the probability of what is predicted, with axis=() of yes.
      correct: Σ r over right predictions, with axis=() over yes labels.
      weight: Σ r.
    """

    confidence: Array
    correct: Array
    weight: Array

    def compute(self, norm: Norm = "l1") -> Array:
        """The calibration error; see `calibration_error`."""
        _one_of("compute", "norm", norm, NORMS)
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
    r = weighed_rows(batch, lax.full_like(p, 1))
    sums = CalibrationErrorSums(
        confidence=weighed_rows(batch, p), correct=weighed_rows(batch, right), weight=r
    )
    p = lax.stop_gradient(p)
    if edges is None:
        edges = _quantiles(p, lax.stop_gradient(r), quantiles)
    # The first and the last bin have what lies beyond them.
    low, high = edges[:-1].at[0].set(-jnp.inf), edges[1:].at[-1].set(jnp.inf)

    def of_bin(between: tuple[Array, Array]) -> CalibrationErrorSums:
        low, high = between
        inside = ~((p <= low) | (p > high))  # a NaN is inside of all bins
        return jax.tree.map(lambda x: jnp.sum(select(inside, x)), sums)

    names = batch.settings.batch_axis_name
    return edges, sum_over_devices(lax.map(of_bin, (low, high)), names)


def _quantiles(p: Array, r: Array, bins: int) -> Array:
    """(bins + 1,) edges between which lie equal shares of the weight, as far as equal
    probabilities allow; from the smallest one of a row that counts to the largest."""
    if is_split(p):
        p, r = (jax.sharding.reshard(x, PartitionSpec()) for x in (p, r))
    if isinstance(p.size, int) and not p.size:
        return jnp.zeros(bins + 1, p.dtype)
    p, r = select(r != 0, p, jnp.inf).reshape(-1), r.reshape(-1)
    order = jnp.argsort(p)
    p, weight = p[order], jnp.cumsum(r[order])
    total = weight[-1]
    share = jnp.arange(1, bins + 1, dtype=p.dtype) * total / bins
    # As jnp.searchsorted, of a number of rows that may be symbolic.
    at = lax.map(lambda s: jnp.sum(weight < s, dtype=jnp.int32), share)
    edges = jnp.concatenate([p[:1], p[jnp.minimum(at, p.size - 1)]])
    return select(jnp.broadcast_to(total != 0, edges.shape), edges)


def _bins_of(batch: Problem, quantiles: int, *edges: Array) -> ReliabilityBins:
    found, sums = _in_bins(batch, quantiles, *edges)
    return ReliabilityBins(
        edges=found,
        confidence=divided(sums.confidence, sums.weight),
        accuracy=divided(sums.correct, sums.weight),
        weight=sums.weight,
    )


def _sums_of(batch: Problem, quantiles: int, *edges: Array) -> CalibrationErrorSums:
    return _in_bins(batch, quantiles, *edges)[1]


def _error_of(batch: Problem, norm: Norm, quantiles: int, *edges: Array) -> Array:
    return _error(_sums_of(batch, quantiles, *edges), norm)


# Arguments ----------------------------------------------------------------------------


def _one_of(function: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        _checks.fail(
            function,
            f"expected {name} to be one of {allowed}, got {_checks.shown(value)}.",
        )


def _edges(
    function: str, problem: Problem, bins: Any, strategy: str = "uniform"
) -> tuple[int, tuple[Array, ...]]:
    """The number of quantiles, 0 for none, and edges where they are known."""
    _one_of(function, "strategy", strategy, STRATEGIES)
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
    if _fall(bins):
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


def _fall(edges: Any) -> bool:
    """Whether edges that are known when the program is traced do not increase."""
    known = isinstance(edges, list | tuple | np.ndarray)
    if not known or any(isinstance(edge, Tracer) for edge in edges):
        return False
    return not np.all(np.diff(np.asarray(edges)) >= 0)


# The public functions -----------------------------------------------------------------


def calibration_error(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    bins: SupportsIndex | ArrayLike = 15,
    norm: Norm = "l1",
    strategy: Strategy = "uniform",
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, ""]:
    """How far the probabilities of predictions are from the share that is right.

        Σ_b W_b/W · |accuracy_b − confidence_b|     norm="l1", the expected error
        √(Σ_b W_b/W · (accuracy_b − confidence_b)²)     norm="l2"
        max_b |accuracy_b − confidence_b|     norm="max", over bins that hold a row

    Rows are sorted into bins by confidence, the probability of the predicted class. W_b
    is the weight of a bin's rows, accuracy_b and confidence_b are their means. With
    axis=() the probability is that of yes, and accuracy_b the share of yes labels.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
        With axis=() any shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
        () is for binary labels: every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      bins: how many bins, between 0 and 1; or their edges, (bins + 1,), increasing. A
        bin has its upper edge and not its lower one; the first and the last bin have
        what lies beyond them, too.
      norm: "l1", "l2" or "max".
      strategy: "uniform" for bins of equal width, "quantile" for bins that hold equal
        weights of rows, as far as equal probabilities allow. Inside `jax.shard_map`
        quantiles are those of the device's rows.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the sums run over them too.

    Returns:
      A number between 0 and 1; float32, or float64 where the logits are.

    Numerics:
      As in `accuracy`. An empty bin counts 0.

    Raises:
      As `accuracy`; and where bins, norm or strategy are none of those above.

    Example:
      >>> probs = jnp.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.25, 0.75]])
      >>> logits = jnp.log(probs)
      >>> labels = jnp.array([0, 1, 1, 1])
      >>> print(jxent.metrics.calibration_error(logits, labels, bins=5))
      0.3375
      >>> print(jxent.metrics.calibration_error(logits, labels, bins=5, norm="max"))
      0.4

    Source:
      Naeini et al. (2015), "Obtaining Well Calibrated Probabilities Using Bayesian
      Binning"; Guo et al. (2017), "On Calibration of Modern Neural Networks",
      https://arxiv.org/abs/1706.04599; quantiles as in Nixon et al. (2019),
      https://arxiv.org/abs/1904.01685.

    See also:
      `calibration_error_sums`, for more than one batch; `reliability_bins`,
      `jxent.fit_temperature`.
    """
    name = "calibration_error"
    problem = metric_problem(
        name,
        logits,
        labels,
        axis,
        where,
        weights=weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        argmax_of_head=True,
    )
    _one_of(name, "norm", norm, NORMS)
    quantiles, edges = _edges(name, problem, bins, strategy)
    return measured(_error_of, problem, norm, quantiles, arrays=edges)


def calibration_error_sums(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    bins: SupportsIndex | ArrayLike = 15,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> CalibrationErrorSums:
    """The sums, bin by bin, that the calibration error is made of.

        confidence_b = Σ r · confidence   correct_b = Σ r · [right]   weight_b = Σ r

    They are added up, inside `jax.shard_map` too, as those of `accuracy_sums` are, and
    `compute(norm="l1")` gives the error. Quantiles of a part of the rows are none of
    all rows: give edges for bins of equal weight, those of a `reliability_bins`, say.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
        With axis=() any shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
        () is for binary labels: every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      bins: how many bins, between 0 and 1; or their edges, (bins + 1,), increasing. A
        bin has its upper edge and not its lower one; the first and the last bin have
        what lies beyond them, too.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the sums run over them too.

    Returns:
      `CalibrationErrorSums`, a NamedTuple of arrays (bins,), in float32, or float64
      where the logits are.

    Numerics:
      As in `calibration_error`.

    Raises:
      As `calibration_error`.

    Example:
      >>> probs = jnp.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.25, 0.75]])
      >>> logits = jnp.log(probs)
      >>> labels = jnp.array([0, 1, 1, 1])
      >>> sums = jxent.metrics.calibration_error_sums(logits, labels, bins=5)
      >>> print(sums.weight, sums.compute(), sums.compute("max"))
      [0. 0. 0. 2. 2.] 0.3375 0.4

    Source:
      As `calibration_error` and `accuracy_sums`.

    See also:
      `calibration_error`, `reliability_bins`.
    """
    name = "calibration_error_sums"
    problem = metric_problem(
        name,
        logits,
        labels,
        axis,
        where,
        weights=weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        argmax_of_head=True,
    )
    quantiles, edges = _edges(name, problem, bins)
    return measured(_sums_of, problem, quantiles, arrays=edges)


def reliability_bins(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    bins: SupportsIndex | ArrayLike = 15,
    strategy: Strategy = "uniform",
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> ReliabilityBins:
    """What a reliability diagram draws: accuracy against confidence, bin by bin.

        confidence_b = Σ r · confidence / W_b   accuracy_b = Σ r · [right] / W_b

    over the rows of bin b, W_b = Σ r. With axis=() the confidence is the probability of
    yes, and the accuracy the share of yes labels.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
        With axis=() any shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
        () is for binary labels: every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      bins: how many bins, between 0 and 1; or their edges, (bins + 1,), increasing. A
        bin has its upper edge and not its lower one; the first and the last bin have
        what lies beyond them, too.
      strategy: "uniform" for bins of equal width, "quantile" for bins that hold equal
        weights of rows, as far as equal probabilities allow. Inside `jax.shard_map`
        quantiles are those of the device's rows.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the sums run over them too.

    Returns:
      `ReliabilityBins`, a NamedTuple of edges (bins + 1,), and confidence, accuracy and
      weight (bins,); float32, or float64 where the logits are. The quantiles' edges go
      from the smallest confidence to the largest.

    Numerics:
      As in `calibration_error`. An empty bin is 0.

    Raises:
      As `calibration_error`.

    Example:
      >>> probs = jnp.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.25, 0.75]])
      >>> logits = jnp.log(probs)
      >>> bins = jxent.metrics.reliability_bins(logits, jnp.array([0, 1, 1, 1]), bins=5)
      >>> print(bins.confidence, bins.accuracy, bins.weight)
      [0.    0.    0.    0.725 0.9  ] [0.  0.  0.  1.  0.5] [0. 0. 0. 2. 2.]

    Source:
      As `calibration_error`; the diagram is that of DeGroot and Fienberg (1983).

    See also:
      `calibration_error`.
    """
    name = "reliability_bins"
    problem = metric_problem(
        name,
        logits,
        labels,
        axis,
        where,
        weights=weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        argmax_of_head=True,
    )
    quantiles, edges = _edges(name, problem, bins, strategy)
    return measured(_bins_of, problem, quantiles, arrays=edges)
