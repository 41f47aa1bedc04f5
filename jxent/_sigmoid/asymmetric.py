"""The asymmetric loss of logits."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._targets.given import BinaryAnswers
from .arguments import sigmoid_loss
from .formulas import asymmetric_of_elements, asymmetric_of_logits


def asymmetric_loss(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = (),
    where: ArrayLike | None = None,
    *,
    gamma_pos: ArrayLike = 0.0,
    gamma_neg: ArrayLike = 4.0,
    clip: ArrayLike = 0.05,
    pos_weight: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Asymmetric loss (ASL): binary cross-entropy that down-weights easy negatives.

        loss = −(w⁺ y (1 − p)^γ₊ log p + (1 − y) p_m^γ₋ log(1 − p_m))
        p = σ(z),   p_m = max(p − m, 0)

    For many labels of which few hold: the sum of all the small losses of what does not
    hold would outweigh the rest. A no whose p is at most m has no loss at all.

    Args:
      logits: floating, any shape; or `LinearLogits`, with axis=-1.
      labels: of the logits' shape, boolean, integer or floating: 1 for yes, 0 for no,
        or a probability. An integer other than 0 and 1 is no label: NaN. A float is a
        number in the formula, 2.0 too. No other shape broadcasts; but axis=() takes one
        number for all, and an axis `SparseLabels`, the ids of the classes whose label
        is yes.
      axis: () for one loss an element. The class axis, or several as a tuple, for one
        loss a row, the sum over its classes: mean, weights and where then speak of
        rows, and class_mask, logit_soft_cap, temperature and class_axis_name may be
        given.
      where: boolean, a scalar or of the losses' rank (axes of size 1 allowed): False
        drops the row. With an axis also of the logits' rank: False leaves the class out
        in that row.
      gamma_pos: γ₊, at least 0: the larger, the less an easy yes counts.
      gamma_neg: γ₋, at least 0: the larger, the less an easy no counts.
      clip: the margin m, between 0 and 1. Where it and both γ are 0, this is binary
        cross-entropy.
      pos_weight: w⁺ multiplies the y-term: a number, or one a class, (classes,); with
        axis=() any shape that broadcasts from the right. n_no / n_yes balances.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss. With
        axis=() the classes are the last axis.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the integer that marks a missing label. With axis=() it drops the
        element; with an axis it leaves the class out in that row. Among `SparseLabels`
        it is the id that marks padding.
      label_smoothing: ε moves labels towards ½, y (1 − ε) + ε/2. None for no smoothing.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r = where · weights;
        with axis=() · class_weights, too, which with an axis do not divide.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Ids stay global.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      As `sigmoid_binary_cross_entropy`.

    Numerics:
      As in `sigmoid_binary_cross_entropy`. Linear in y. Powers are formed in log space:
      derivatives in logits, labels, γ and m are finite, those of second order too.
      Where p ≤ m, the loss of a no is exactly 0, and so are its derivatives.

    Raises:
      As `sigmoid_binary_cross_entropy`.
      ValueError: also for gamma_pos, gamma_neg or clip, as Python numbers, out of
        range.

    Example:
      >>> logits = jnp.array([2.0, 2.0, 0.0, -3.0])
      >>> labels = jnp.array([1, 0, 0, 0])
      >>> print(jxent.asymmetric_loss(logits, labels))
      [0.12693 0.84641 0.02452 0.     ]
      >>> print(jxent.sigmoid_binary_cross_entropy(logits, labels))
      [0.12693 2.12693 0.69315 0.04859]

    Source:
      Ridnik et al. (2021), "Asymmetric Loss For Multi-Label Classification",
      https://arxiv.org/abs/2009.14119; timm's `AsymmetricLossMultiLabel`, whose
      logarithms stop at that of 1e-8, and whose `gamma_pos` is 1.

    See also:
      `sigmoid_focal_loss`, `sigmoid_binary_cross_entropy`.
    """
    parameters = {"gamma_pos": gamma_pos, "gamma_neg": gamma_neg, "clip": clip}
    clipped = isinstance(clip, float) and clip >= float(jnp.finfo(jnp.float32).tiny)
    return sigmoid_loss(
        "asymmetric_loss",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        BinaryAnswers(labels, ignore_index, label_smoothing, class_weights, pos_weight),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=asymmetric_of_logits, parameters=parameters),
        of_elements=asymmetric_of_elements(clipped=clipped),
    )
