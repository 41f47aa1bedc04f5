"""The public functions: binary cross-entropy and its kin, of logits."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._targets.given import BinaryAnswers
from .arguments import sigmoid_loss
from .formulas import binary_of_logits, focal_of_logits


def sigmoid_binary_cross_entropy(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = (),
    where: ArrayLike | None = None,
    *,
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
    """Binary cross-entropy of logits with binary labels, of each element or each row.

        loss = −(w⁺ y log p + (1 − y) log(1 − p)),   p = σ(z) = 1/(1 + exp(−z))

    With axis=() each logit is a row by itself, the answer to one yes/no question. With
    an axis of classes a row may have many labels, and its loss is the sum of those of
    its classes, each times its class weight; so it is for `LinearLogits`.

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
      The losses in nats, of the logits' shape without `axis`, or a scalar; float32, or
      float64 where the logits are.

    Numerics:
      bfloat16 and float16 are computed in float32; each gradient has its input's dtype.
      Exact at every logit, ±inf included: 0 or +inf, with a finite gradient. No
      epsilon, no clip. A dropped row is exactly 0 with gradient 0, whatever it holds.

      A class that is masked adds nothing, whatever its label. An integer label other
      than 0, 1 and ignore_index makes loss and gradient of its element NaN, with an
      axis those of its row, and `jax.experimental.checkify` reports it. So it is with
      an id of `SparseLabels` outside [0, classes) that is not ignore_index. Equal ids
      in a row add up. `SparseLabels` form no array of all labels.

    Raises:
      TypeError: logits are not floating, where is floating, or a bool stands for a
        number.
      ValueError: shapes differ, a Python number is out of range, what needs an axis is
        given without, or ignore_index is given with labels that are not integers.

    Example:
      >>> logits = jnp.array([2.0, -1.0, jnp.inf])
      >>> print(jxent.sigmoid_binary_cross_entropy(logits, jnp.array([1, 0, 1])))
      [0.12693 0.31326 0.     ]

      A GAN's discriminator, whose logits are all of real examples, or all of fakes:

      >>> real, fake = jnp.array([2.0, 0.5]), jnp.array([-1.0, 0.0])
      >>> print(jxent.sigmoid_binary_cross_entropy(real, 1.0, reduction="mean")
      ...     + jxent.sigmoid_binary_cross_entropy(fake, 0.0, reduction="mean"))
      0.8037

      Many labels a row, as lists of the positive classes that are padded with −1:

      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 1.0], [0.0, -1.0, 1.5]])
      >>> positives = jxent.SparseLabels(jnp.array([[0, 2], [2, -1]]))
      >>> print(jxent.sigmoid_binary_cross_entropy(
      ...     jxent.LinearLogits(hidden, kernel), positives, axis=-1, ignore_index=-1))
      [1.13334 0.86866]

    Source:
      Optax's function of this name, which broadcasts labels of any shape and computes
      bfloat16 in bfloat16; PyTorch's `BCEWithLogitsLoss` for pos_weight; Keras's
      `BinaryCrossentropy(from_logits=True)` for label_smoothing; for lists of positives
      the extreme classification repository, http://manikvarma.org/downloads/XC.

    See also:
      `binary_cross_entropy` for probabilities, `sigmoid_focal_loss`, `asymmetric_loss`;
      `zlpr_loss`, a softmax's loss for many labels a row.
    """
    return sigmoid_loss(
        "sigmoid_binary_cross_entropy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        BinaryAnswers(labels, ignore_index, label_smoothing, class_weights, pos_weight),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=binary_of_logits),
    )


def sigmoid_focal_loss(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = (),
    where: ArrayLike | None = None,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
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
    """Sigmoid focal loss: binary cross-entropy that cares less for what is right.

        loss = α_t (1 − p_t)^γ · −(y log p + (1 − y) log(1 − p)),   p = σ(z)
        p_t = y p + (1 − y)(1 − p),   α_t = y α + (1 − y)(1 − α)

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
      alpha: α between 0 and 1, the weight of label 1; None for no weighting.
      gamma: γ, at least 0. At 0 this is binary cross-entropy.
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
      As in `sigmoid_binary_cross_entropy`. (1 − p_t)^γ is formed in log space, or for a
      γ that is a Python number of 0 to 4 without a fraction and axis=() as a product:
      every derivative is finite for every γ. In log space a floating label outside
      [0, 1] gives NaN where it makes p_t or 1 − p_t negative.

    Raises:
      As `sigmoid_binary_cross_entropy`.
      ValueError: also for gamma or alpha, as Python numbers, out of range.

    Example:
      >>> logits = jnp.array([2.0, -1.0, 0.0])
      >>> print(jxent.sigmoid_focal_loss(logits, jnp.array([1, 0, 1]), alpha=0.25))
      [0.00045 0.01699 0.04332]

    Source:
      Lin et al. (2017), "Focal Loss for Dense Object Detection",
      https://arxiv.org/abs/1708.02002; Optax's function of this name.

    See also:
      `softmax_focal_loss`, `sigmoid_binary_cross_entropy`, `asymmetric_loss`.
    """
    parameters = {"gamma": gamma} | ({} if alpha is None else {"alpha": alpha})
    return sigmoid_loss(
        "sigmoid_focal_loss",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        BinaryAnswers(labels, ignore_index, label_smoothing, class_weights),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=focal_of_logits, parameters=parameters),
    )
