"""The cross-entropy of the fused head."""

from __future__ import annotations

from typing import Literal, SupportsIndex, Unpack, overload

from jax import Array, lax
from jaxtyping import Float

from .._checks import ArrayLike, AxisName, SparseLabels
from .._formulas import SoftmaxStatistics, cross_entropy
from .._layouts import BlockSizes, HeadOptions, Implementation, head_solution
from .._problem import Formula
from .._reduction import Reduction


@overload
def linear_softmax_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    return_statistics: Literal[False] = ...,
    **options: Unpack[HeadOptions],
) -> Float[Array, "..."]: ...


@overload
def linear_softmax_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    return_statistics: Literal[True],
    **options: Unpack[HeadOptions],
) -> tuple[Float[Array, "..."], SoftmaxStatistics]: ...


def linear_softmax_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
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
    return_statistics: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."] | tuple[Float[Array, "..."], SoftmaxStatistics]:
    """Softmax cross-entropy of logits = hidden @ kernel + bias, which are never held.

        loss = −Σ_c q_c log p_c,   p = softmax(hidden @ kernel + bias)

    For 8,192 tokens and 131,072 classes the logits are 4 GiB in float32, and their
    gradient as much again. Here one block of them exists at a time.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: the rank decides. Integer class ids of hidden's shape without its last
        axis, or distributions of shape (..., classes), any dtype; they need not sum to
        1. Labels never broadcast.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that exist and are not masked, the label's own included. None for no
        smoothing.
      z_loss: adds z_loss · lse², lse = log Σ_c exp(z_c), times the row's class weight.
        None for no z-loss.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where, weights, and the label's class weight (Σ_c q_c w_c
        for a distribution).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      return_statistics: also return the row statistics, entropy and argmax included.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "tiled", for a mean or a sum, takes tiles of rows
        and forms gradients with the value: no product twice. "materialized" holds the
        logits. None plans, see `linear_softmax_plan`.

    Returns:
      As `softmax_cross_entropy` of the logits: losses in nats of shape (...), or a
      scalar; float32, or float64 where hidden or kernel is. With return_statistics a
      pair (loss, `SoftmaxStatistics`).

    Numerics:
      As in `softmax_cross_entropy`. A bfloat16 hidden is multiplied with the kernel in
      bfloat16, as a layer of that dtype does; on a CPU a float32 kernel is not rounded
      for it. Every sum is in float32: logits, statistics, and the gradients of hidden
      and kernel, which are rounded once, to their own dtype. Errors do not grow with
      the number of blocks. Rows that ignore_index, where or a weight of 0 drops may
      hold anything. Blocks of nothing but rows that ignore_index or where drops are
      skipped when the program runs; "tiled" also skips those of weight 0, "streamed"
      does not, because a row of weight 0 has derivatives in that weight. Every
      derivative exists, forward and reverse, to any order, in each implementation.

      Outside of `jax.shard_map`, on arrays that a mesh splits, the head enters it
      itself: over the axes that class_axis_name and batch_axis_name name, and over
      explicit axes by the arrays' types, without names. Rows and classes stay where
      they are; a kernel that is split over the rows' axes as well is gathered once. An
      automatic axis that splits an array and is not named is left to the compiler,
      which may gather blocks inside of the loops. Of automatic axes batch_axis_name
      means those of the first axis of rows; where it does not divide, every device has
      all rows. block_sizes and the plan are those of one device. JAX (0.10 to
      0.12) cannot take `checkify` of a streamed gradient through what is entered; of
      the value, and of tiles, it can.

    Raises:
      As `softmax_cross_entropy`.
      ValueError: also where hidden, kernel and bias do not fit, block_sizes or
        implementation are not among the above, or the classes do not divide over their
        devices: pad the kernel, and give a class_mask.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> print(jxent.linear_softmax_cross_entropy(hidden, kernel, jnp.array([0, 2])))
      [0.23954 0.09492]

    Source:
      Wijmans et al. (2024), "Cut Your Losses in Large-Vocabulary Language Models",
      https://arxiv.org/abs/2411.09009, for streaming classes; Hsu et al. (2024), "Liger
      Kernel", https://arxiv.org/abs/2410.10989, for gradients by tiles of rows.

    See also:
      `softmax_cross_entropy` for logits in memory, `sum_over_tiles` for other heads and
      formulas, `linear_softmax_log_prob`.
    """
    return head_solution(
        "linear_softmax_cross_entropy",
        hidden,
        kernel,
        labels,
        where,
        formula=Formula(function=cross_entropy, parameters={}),
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        margin=margin,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        return_statistics=return_statistics,
        block_sizes=block_sizes,
        implementation=implementation,
    )
