"""The fused head's losses of rows with several labels."""

from __future__ import annotations

from typing import SupportsIndex

from jax import Array, lax
from jaxtyping import Float

from .._checks import ArrayLike, AxisName, SparseLabels
from .._formulas import zlpr
from .._layouts import BlockSizes, Implementation, head_solution
from .._problem import Formula
from .._reduction import Reduction
from .._sigmoid import binary_of_logits


def linear_sigmoid_binary_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
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
    """Binary cross-entropy of logits = hidden @ kernel + bias, summed over the classes.

        loss = −Σ_c w_c (w⁺_c y_c log p_c + (1 − y_c) log(1 − p_c))
        p = σ(hidden @ kernel + bias)

    Each class is a question of its own, so that a row may have many labels: tagging,
    extreme multi-label classification. The logits of all classes are never held, nor is
    an array of all labels where these are lists of the positive classes.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: of shape (..., classes), boolean, integer or floating: 1 for yes, 0 for
        no, or a probability. Or `SparseLabels`, the ids of the classes whose label is
        yes: the array of all labels is never formed whole. Labels never broadcast.
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
      The losses in nats, of shape (...), or a scalar; float32, or float64 where hidden
      or kernel is.

    Numerics:
      As in `sigmoid_binary_cross_entropy`, and in `linear_softmax_cross_entropy` for
      products, sums, blocks that are skipped, derivatives and meshes. A class that is
      masked adds nothing, whatever its label. Equal ids in a row add up; an id outside
      [0, classes) that is not ignore_index makes loss and gradient of its row NaN.

    Raises:
      TypeError: hidden or kernel are not floating, where is floating, or a bool stands
        for a number.
      ValueError: shapes do not fit, a Python number is out of range, or ignore_index
        is given with labels that are not lists of ids.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 1.0], [0.0, -1.0, 1.5]])
      >>> labels = jnp.array([[1, 0, 1], [0, 0, 1]])
      >>> print(jxent.linear_sigmoid_binary_cross_entropy(hidden, kernel, labels))
      [1.13334 0.86866]

      The ids of the positive classes, padded with −1:

      >>> positives = jxent.SparseLabels(jnp.array([[0, 2], [2, -1]]))
      >>> print(jxent.linear_sigmoid_binary_cross_entropy(
      ...     hidden, kernel, positives, ignore_index=-1))
      [1.13334 0.86866]

    Source:
      `sigmoid_binary_cross_entropy`; for lists of positives, the extreme multi-label
      classification repository, http://manikvarma.org/downloads/XC/XMLRepository.html.

    See also:
      `linear_zlpr_loss`, `linear_asymmetric_loss`, `linear_sigmoid_focal_loss`;
      `linear_softmax_cross_entropy`, where a row has one class.
    """
    return head_solution(
        "linear_sigmoid_binary_cross_entropy",
        hidden,
        kernel,
        labels,
        where,
        formula=Formula(function=binary_of_logits, parameters={}, several_labels=True),
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


def linear_zlpr_loss(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
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
    """ZLPR loss of logits = hidden @ kernel + bias, which are never held.

        loss = log(1 + Σ_c (1 − y_c) exp(z_c)) + log(1 + Σ_c y_c exp(−z_c))
        z = hidden @ kernel + bias

    The sums of both sides merge block by block, as those of a softmax do, and one
    product of the logits' size serves both.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: of shape (..., classes), boolean, integer or floating: 1 for yes, 0 for
        no, or a probability. Or `SparseLabels`, the ids of the classes whose label is
        yes: the array of all labels is never formed whole. Labels never broadcast.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False leaves the class out in that row.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
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
      As in `zlpr_loss` and `linear_sigmoid_binary_cross_entropy`.

    Raises:
      As `linear_sigmoid_binary_cross_entropy`.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 1.0], [0.0, -1.0, 1.5]])
      >>> labels = jnp.array([[1, 0, 1], [0, 0, 1]])
      >>> print(jxent.linear_zlpr_loss(hidden, kernel, labels))
      [1.10075 0.80721]

    Source:
      Su et al. (2022), "ZLPR: A Novel Loss for Multi-label Classification",
      https://arxiv.org/abs/2208.02955.

    See also:
      `zlpr_loss`, `linear_sigmoid_binary_cross_entropy`.
    """
    return head_solution(
        "linear_zlpr_loss",
        hidden,
        kernel,
        labels,
        where,
        formula=Formula(function=zlpr, parameters={}, several_labels=True),
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
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
