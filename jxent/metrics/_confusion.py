"""The confusion matrix."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float

from .._arrays import Size, is_split, select, sum_over_devices
from .._checks import ArrayLike, Axis, AxisName
from .._linear_logits import Logits
from .._measures.batch import ids_of, is_binary, measured, metric_problem, weighed_rows
from .._measures.rows import known_and_prediction
from .._problem.problem import Problem
from .._problem.resolved import is_class
from .._solve.call import RowOptions, Scores
from .._statistics.argmax import Argmax
from .._targets.given import ClassIds


def _confusion(batch: Problem, classes: Size) -> Array:
    # NaN where a row's loss is: in every entry, as no entry is known to be right.
    known, prediction = known_and_prediction(batch)
    r = weighed_rows(batch, known)
    rows = r, select(is_class(ids_of(batch)), ids_of(batch)), prediction
    if is_split(r):
        rows = tuple(jax.sharding.reshard(x, PartitionSpec()) for x in rows)
    r, label, prediction = (x.reshape(-1) for x in rows)
    # Two indices: int32 does not count all entries of 2^16 classes.
    counts = jnp.zeros((classes, classes), r.dtype)
    counts = counts.at[label, prediction].add(select(r == r, r))
    counts = select(jnp.all(r == r), counts, jnp.nan)
    return sum_over_devices(counts, batch.settings.batch_axis_name)


def confusion_matrix(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "classes classes"]:
    """How often rows of each class are predicted to be of each class.

        matrix[i, j] = Σ r over the rows of label i whose largest logit is that of j

    Matrices of batches, micro-batches or devices are added. Inside `jax.shard_map` the
    matrix is that of the device's rows: batch_axis_name, or `jax.lax.psum(matrix,
    names)`, adds them up.

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
      (classes, classes), label by prediction, with axis=() (2, 2), no before yes;
      float32, or float64 where the logits are. Divide rows by their sums for recall,
      columns by theirs for precision.

    Numerics:
      As in `accuracy`; a row whose loss is NaN makes every entry NaN. Weights that are
      whole numbers are added exactly, up to 2^24 in float32; others on a GPU in an
      order that differs from run to run.

    Raises:
      As `accuracy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
      >>> print(jxent.metrics.confusion_matrix(logits, jnp.array([0, 1, 1])))
      [[1. 0. 0.]
       [0. 1. 1.]
       [0. 0. 0.]]

    Source:
      scikit-learn's function of this name, of logits.

    See also:
      `accuracy`, its trace divided by its sum.
    """
    problem = metric_problem(
        "confusion_matrix",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        statistics=(Argmax(),),
    )
    classes = 2 if is_binary(problem) else problem.classes
    return measured(_confusion, problem, classes)
