"""Losses that weigh easy rows otherwise: focal loss and poly-1."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._formulas import focal, poly
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._solve.solve import solution
from .._targets.given import RowLabels


def softmax_focal_loss(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    gamma: ArrayLike = 2.0,
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
    """Softmax focal loss: cross-entropy that cares less for what is already right.

        loss = −Σ_c q_c (1 − p_c)^γ log p_c,   p = softmax(logits)

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids, of the logits' shape without `axis`; or distributions,
        of the logits' shape and any dtype, which need not sum to 1; or `SparseLabels`,
        distributions that are given at a few classes. Labels never broadcast.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      gamma: γ, at least 0. At 0 this is cross-entropy.
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
      The losses in nats, of the logits' shape without `axis`, or a scalar, as
      `softmax_cross_entropy` returns them.

    Numerics:
      As in `softmax_cross_entropy`. (1 − p)^γ is formed in log space, so that every
      derivative is finite for every γ; where p rounds to 1 the loss and its gradient
      are 0 for γ > 0.

    Raises:
      As `softmax_cross_entropy`.
      ValueError: also for a negative Python number as gamma.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_focal_loss(logits, jnp.array([0, 2]), gamma=2.0))
      [0.01087 0.00078]

    Source:
      Lin et al. (2017), "Focal Loss for Dense Object Detection",
      https://arxiv.org/abs/1708.02002, with a softmax; on distributions as Keras's
      `CategoricalFocalCrossentropy`. The paper's α per class is `class_weights`.

    See also:
      `sigmoid_focal_loss`, `softmax_cross_entropy`.
    """
    return solution(
        "softmax_focal_loss",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabels(labels, class_weights, ignore_index, margin, label_smoothing, z_loss),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=focal, parameters={"gamma": gamma}),
    )


def poly_loss_cross_entropy(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
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
    """Poly-1 loss: cross-entropy with another first term of its series in 1 − p.

        loss = Σ_c q_c (−log p_c + ε (1 − p_c)),   p = softmax(logits)

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids, of the logits' shape without `axis`; or distributions,
        of the logits' shape and any dtype, which need not sum to 1; or `SparseLabels`,
        distributions that are given at a few classes. Labels never broadcast.
      epsilon: ε, 2 for ImageNet in the paper; at 0 this is cross-entropy.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
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
      The losses in nats, of the logits' shape without `axis`, or a scalar, as
      `softmax_cross_entropy` returns them.

    Numerics:
      As in `softmax_cross_entropy`.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.poly_loss_cross_entropy(logits, jnp.array([0, 2]), epsilon=2.0))
      [0.66557 0.27604]

    Source:
      Leng et al. (2022), "PolyLoss", https://arxiv.org/abs/2204.12511; Optax's function
      of this name, which takes distributions only.

    See also:
      `softmax_focal_loss`, `softmax_cross_entropy`.
    """
    return solution(
        "poly_loss_cross_entropy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabels(labels, class_weights, ignore_index, margin, label_smoothing, z_loss),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=poly, parameters={"epsilon": epsilon}),
    )
