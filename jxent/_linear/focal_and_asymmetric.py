"""The fused head's binary losses that weigh easy labels otherwise."""

from __future__ import annotations

from typing import SupportsIndex

from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike, AxisName, SparseLabels
from .._layouts import BlockSizes, Implementation, head_solution
from .._problem import Formula
from .._reduction import Reduction
from .._sigmoid import asymmetric_of_logits, focal_of_logits


def linear_sigmoid_focal_loss(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
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
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Sigmoid focal loss of logits = hidden @ kernel + bias, summed over the classes.

        loss = Σ_c w_c α_t (1 − p_t)^γ · binary cross-entropy_c
        p = σ(hidden @ kernel + bias),   p_t = y p + (1 − y)(1 − p)

    The logits of all classes are never held.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: of shape (..., classes), boolean, integer or floating: 1 for yes, 0 for
        no, or a probability. Or `SparseLabels`, the ids of the classes whose label is
        yes: the array of all labels is never formed whole. Labels never broadcast.
      alpha: α between 0 and 1, the weight of label 1; None for no weighting.
      gamma: γ, at least 0. At 0 this is binary cross-entropy.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False leaves the class out in that row.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the id that marks padding among `SparseLabels`.
      label_smoothing: ε moves labels towards ½, y (1 − ε) + ε/2. None for no smoothing.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. At an
        infinite temperature every p is ½.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r over the rows, where r
        = where · weights: what weighs classes does not divide.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "tiled", for a mean or a sum, takes tiles of rows
        and forms gradients with the value: no product twice. "materialized" holds the
        logits. None plans.

    Returns:
      As `linear_sigmoid_binary_cross_entropy`.

    Numerics:
      As in `linear_sigmoid_binary_cross_entropy` and `sigmoid_focal_loss`.

    Raises:
      As `linear_sigmoid_binary_cross_entropy`.
      ValueError: also for gamma or alpha, as Python numbers, out of range.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 1.0], [0.0, -1.0, 1.5]])
      >>> labels = jnp.array([[1, 0, 1], [0, 0, 1]])
      >>> print(jxent.linear_sigmoid_focal_loss(hidden, kernel, labels))
      [0.19775 0.1752 ]

    Source:
      Lin et al. (2017), "Focal Loss for Dense Object Detection",
      https://arxiv.org/abs/1708.02002.

    See also:
      `sigmoid_focal_loss`, `linear_sigmoid_binary_cross_entropy`.
    """
    parameters = {"gamma": gamma}
    _checks.in_range("linear_sigmoid_focal_loss", "gamma", gamma, low=0)
    if alpha is not None:
        _checks.in_range("linear_sigmoid_focal_loss", "alpha", alpha, low=0, high=1)
        parameters["alpha"] = alpha
    return head_solution(
        "linear_sigmoid_focal_loss",
        hidden,
        kernel,
        labels,
        where,
        formula=Formula(
            function=focal_of_logits, parameters=parameters, several_labels=True
        ),
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )


def linear_asymmetric_loss(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    gamma_pos: ArrayLike = 0.0,
    gamma_neg: ArrayLike = 4.0,
    clip: ArrayLike = 0.05,
    pos_weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
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
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Asymmetric loss of logits = hidden @ kernel + bias, summed over the classes.

        loss = −Σ_c w_c (w⁺ y (1 − p)^γ₊ log p + (1 − y) p_m^γ₋ log(1 − p_m))
        p = σ(hidden @ kernel + bias),   p_m = max(p − m, 0)

    Negatives that are easy count for little, those below the margin m for nothing. The
    logits of all classes are never held.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: of shape (..., classes), boolean, integer or floating: 1 for yes, 0 for
        no, or a probability. Or `SparseLabels`, the ids of the classes whose label is
        yes: the array of all labels is never formed whole. Labels never broadcast.
      gamma_pos: γ₊, at least 0: the larger, the less an easy yes counts.
      gamma_neg: γ₋, at least 0: the larger, the less an easy no counts.
      clip: the margin m, between 0 and 1. Where it and both γ are 0, this is binary
        cross-entropy.
      pos_weight: w⁺ multiplies the y-term: a number, or one for each class, (classes,).
        n_no / n_yes balances.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False leaves the class out in that row.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the id that marks padding among `SparseLabels`.
      label_smoothing: ε moves labels towards ½, y (1 − ε) + ε/2. None for no smoothing.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. At an
        infinite temperature every p is ½.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r over the rows, where r
        = where · weights: what weighs classes does not divide.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "tiled", for a mean or a sum, takes tiles of rows
        and forms gradients with the value: no product twice. "materialized" holds the
        logits. None plans.

    Returns:
      As `linear_sigmoid_binary_cross_entropy`.

    Numerics:
      As in `linear_sigmoid_binary_cross_entropy` and `asymmetric_loss`.

    Raises:
      As `linear_sigmoid_binary_cross_entropy`.
      ValueError: also for gamma_pos, gamma_neg or clip, as Python numbers, out of
        range.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 1.0], [0.0, -1.0, 1.5]])
      >>> labels = jnp.array([[1, 0, 1], [0, 0, 1]])
      >>> print(jxent.linear_asymmetric_loss(hidden, kernel, labels))
      [0.4647 0.0731]

    Source:
      Ridnik et al. (2021), "Asymmetric Loss For Multi-Label Classification",
      https://arxiv.org/abs/2009.14119.

    See also:
      `asymmetric_loss`, `linear_sigmoid_binary_cross_entropy`, `linear_zlpr_loss`.
    """
    name = "linear_asymmetric_loss"
    _checks.in_range(name, "gamma_pos", gamma_pos, low=0)
    _checks.in_range(name, "gamma_neg", gamma_neg, low=0)
    _checks.in_range(name, "clip", clip, low=0, high=1)
    parameters = {"gamma_pos": gamma_pos, "gamma_neg": gamma_neg, "clip": clip}
    return head_solution(
        "linear_asymmetric_loss",
        hidden,
        kernel,
        labels,
        where,
        formula=Formula(
            function=asymmetric_of_logits, parameters=parameters, several_labels=True
        ),
        pos_weight=pos_weight,
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )
