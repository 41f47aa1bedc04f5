"""Top-k accuracy: the label is among the k classes of the largest logits."""

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
from .._targets.given import ClassIds
from ._accuracy import AccuracySums, share_of_right, sums_of_right


def top_k_accuracy(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    k: SupportsIndex = 5,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, ""]:
    """The share of rows whose label is among the k classes of the largest logits.

        top_k_accuracy = Σ r · [fewer than k classes are ahead of y] / Σ r

    A class is ahead of the label if its logit is larger, or equal with a smaller id.
    Nothing is sorted.

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
      k: how many classes may be named, at least 1; with all of them every row is right.
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
      A number between 0 and 1; float32, or float64 where the logits are. Its gradient
      in the logits is 0.

    Numerics:
      As in `accuracy`. A class of −inf is impossible, and ahead of none.

    Raises:
      As `accuracy`; and where k is not an integer of at least 1.

    Example:
      >>> logits = jnp.array([[3.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.metrics.top_k_accuracy(logits, jnp.array([1, 1]), k=2))
      0.5

    Source:
      Russakovsky et al. (2015), "ImageNet Large Scale Visual Recognition Challenge",
      https://arxiv.org/abs/1409.0575.

    See also:
      `top_k_accuracy_sums`, `accuracy`.
    """
    name = "top_k_accuracy"
    k = _checks.positive_integer(name, "k", k)
    problem = metric_problem(
        name,
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        ranks=True,
    )
    return measured(share_of_right, problem, k)


def top_k_accuracy_sums(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    k: SupportsIndex = 5,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> AccuracySums:
    """The two sums whose quotient is the top-k accuracy, to be added over batches.

        correct = Σ r · [fewer than k classes are ahead of y]   weight = Σ r

    They are added up, inside `jax.shard_map` too, as those of `accuracy_sums` are.

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
      k: how many classes may be named, at least 1; with all of them every row is right.
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
      `AccuracySums`, a NamedTuple of scalars, float32, or float64 where the logits are.

    Numerics:
      As in `top_k_accuracy` and `accuracy_sums`.

    Raises:
      As `top_k_accuracy`.

    Example:
      >>> logits = jnp.array([[3.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.metrics.top_k_accuracy_sums(logits, jnp.array([1, 1]), k=2))
      AccuracySums(correct=Array(1., dtype=float32), weight=Array(2., dtype=float32))

    Source:
      As `top_k_accuracy` and `accuracy_sums`.

    See also:
      `top_k_accuracy`.
    """
    name = "top_k_accuracy_sums"
    k = _checks.positive_integer(name, "k", k)
    problem = metric_problem(
        name,
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights, batch_axis_name),
        ranks=True,
    )
    return measured(sums_of_right, problem, k)
