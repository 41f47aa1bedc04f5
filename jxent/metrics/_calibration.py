"""Calibration: whether probabilities are what they say."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import SupportsIndex

from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike, Axis, AxisName
from .._linear_logits import Logits
from .._measures.batch import measured, metric_problem
from .._solve.call import RowOptions, Scores
from .._statistics.argmax import Argmax
from .._targets.given import ClassIds
from ._bins import (
    NORMS,
    CalibrationErrorSums,
    Norm,
    ReliabilityBins,
    Strategy,
    bins_of,
    edges_of,
    error_of_bins,
    sums_of_bins,
)


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
        what lies beyond them, too. Edges that fall are an error; in a JAX array they
        make the result NaN.
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
      As in `accuracy`. An empty bin counts 0. A row whose confidence is NaN may be in
      any bin: all of them are NaN, their weights too.

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
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        statistics_of_head=(Argmax(),),
    )
    _checks.one_of(name, "norm", norm, NORMS, optional=False)
    quantiles, edges = edges_of(name, problem, bins, strategy)
    return measured(error_of_bins, problem, norm, quantiles, arrays=edges)


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
        what lies beyond them, too. Edges that fall are an error; in a JAX array they
        make the result NaN.
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
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        statistics_of_head=(Argmax(),),
    )
    quantiles, edges = edges_of(name, problem, bins)
    return measured(sums_of_bins, problem, quantiles, arrays=edges)


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
        what lies beyond them, too. Edges that fall are an error; in a JAX array they
        make the result NaN.
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
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        statistics_of_head=(Argmax(),),
    )
    quantiles, edges = edges_of(name, problem, bins, strategy)
    return measured(bins_of, problem, quantiles, arrays=edges)
