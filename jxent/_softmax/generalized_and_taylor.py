"""Losses for noisy labels, between cross-entropy and the mean absolute error."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import SupportsIndex

from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._formulas import generalized, taylor
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._solve.solve import solution
from .._targets.given import RowLabels


def generalized_cross_entropy(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    q: ArrayLike = 0.7,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    z_loss: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    margin: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Generalized cross-entropy, which learns less from labels it finds unlikely.

        loss = Σ_c t_c (1 − p_c^q)/q,   p = softmax(logits)

    where t is onehot(y) for a class id y. For labels of which some are wrong: with q
    between 0 and 1 it lies between cross-entropy, to which it tends as q tends to 0,
    and the mean absolute error 1 − p_y, which it is at q = 1. A row's gradient is
    p_y^q times that of cross-entropy, and the loss is at most 1/q.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids, of the logits' shape without `axis`; or distributions,
        of the logits' shape and any dtype, which need not sum to 1; or `SparseLabels`,
        distributions that are given at a few classes. Labels never broadcast.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      q: between 0 and 1. 0 gives cross-entropy, 1 the mean absolute error.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that are not masked, the label's own included. None for no smoothing.
      z_loss: adds z_loss · lse² times the row's class weight, lse = log Σ_c exp(z_c).
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r what multiplies a
        row: where · weights · its label's class weight (of a distribution Σ_c q_c w_c).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      The losses, of the logits' shape without `axis`, or a scalar, as
      `softmax_cross_entropy` returns them.

    Numerics:
      As in `softmax_cross_entropy`. p^q is formed in log space: the loss is exact where
      p is nearly 1, where q is nearly 0 or 0, and where p = 0 it is 1/q with gradient
      0. A series stands for the quotient where q log p is nearly 0, so that the
      derivatives in q are those of the formula there, too.

    Raises:
      As `softmax_cross_entropy`.
      ValueError: also for a Python number outside [0, 1] as q.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> wrong = jnp.array([1, 0])
      >>> print(jxent.generalized_cross_entropy(logits, wrong))
      [1.13067 1.26488]
      >>> print(jxent.softmax_cross_entropy(logits, wrong))
      [2.23954 3.09492]

    Source:
      Zhang and Sabuncu (2018), "Generalized Cross Entropy Loss for Training Deep Neural
      Networks with Noisy Labels", https://arxiv.org/abs/1805.07836. Its truncated loss
      drops rows of a p_y below k, which `where` does here.

    See also:
      `taylor_cross_entropy`, `symmetric_cross_entropy`,
      `jxent.keras.categorical_generalized_cross_entropy` of probabilities.
    """
    return solution(
        "generalized_cross_entropy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabels(labels, class_weights, ignore_index, margin, label_smoothing, z_loss),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=generalized, parameters={"q": q}),
    )


def taylor_cross_entropy(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    order: SupportsIndex = 2,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    z_loss: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    margin: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Taylor cross-entropy: the first terms of the series of −log p around p = 1.

        loss = Σ_c t_c Σ_{i=1..order} (1 − p_c)^i / i,   p = softmax(logits)

    where t is onehot(y) for a class id y. For labels of which some are wrong: order 1
    is the mean absolute error 1 − p_y, and with the order it grows towards
    cross-entropy. A row's gradient is 1 − (1 − p_y)^order times that of cross-entropy,
    and the loss is at most 1 + 1/2 + … + 1/order.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids, of the logits' shape without `axis`; or distributions,
        of the logits' shape and any dtype, which need not sum to 1; or `SparseLabels`,
        distributions that are given at a few classes. Labels never broadcast.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      order: the number of terms, a Python integer of at least 1.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that are not masked, the label's own included. None for no smoothing.
      z_loss: adds z_loss · lse² times the row's class weight, lse = log Σ_c exp(z_c).
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r what multiplies a
        row: where · weights · its label's class weight (of a distribution Σ_c q_c w_c).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      The losses, of the logits' shape without `axis`, or a scalar, as
      `softmax_cross_entropy` returns them.

    Numerics:
      As in `softmax_cross_entropy`. 1 − p is formed from log p, so that the loss is
      exact where p is nearly 1. Where p = 0 it is finite, with gradient 0.

    Raises:
      As `softmax_cross_entropy`.
      TypeError: also for an order that is not an integer, or that is traced.
      ValueError: also for an order below 1.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> wrong = jnp.array([1, 0])
      >>> for order in (1, 2, 100):
      ...     print(jxent.taylor_cross_entropy(logits, wrong, order=order))
      [0.89349 0.95472]
      [1.29266 1.41047]
      [2.23954 3.0932 ]
      >>> print(jxent.softmax_cross_entropy(logits, wrong))
      [2.23954 3.09492]

    Source:
      Feng et al. (2020), "Can Cross Entropy Loss Be Robust to Label Noise?",
      https://www.ijcai.org/proceedings/2020/305.

    See also:
      `generalized_cross_entropy`, `symmetric_cross_entropy`.
    """
    order = _checks.positive_integer("taylor_cross_entropy", "order", order)
    return solution(
        "taylor_cross_entropy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabels(labels, class_weights, ignore_index, margin, label_smoothing, z_loss),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=taylor(order)),
    )
