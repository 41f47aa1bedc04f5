"""Divergences between the softmaxes of two heads, without the logits of either."""

from __future__ import annotations

from typing import SupportsIndex

from jax import Array, lax
from jaxtyping import Float

from .._checks import ArrayLike, AxisName
from .._formulas import kl_divergence
from .._layouts import (
    BlockSizes,
    Implementation,
    head_solution,
    jensen_shannon_formula,
)
from .._problem import Formula, HeadArguments
from .._reduction import Reduction


def _arguments(
    hidden: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None,
    vocab_axis: SupportsIndex,
) -> HeadArguments:
    return HeadArguments(hidden=hidden, kernel=kernel, bias=bias, vocab_axis=vocab_axis)


def linear_softmax_kl_divergence(
    hidden: ArrayLike,
    kernel: ArrayLike,
    target_hidden: ArrayLike,
    target_kernel: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    target_bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    target_vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    target_logit_soft_cap: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Kullback–Leibler divergence of a target head's softmax from that of a head.

        KL(q ‖ p) = Σ_c q_c (log q_c − log p_c)
        q = softmax(target_hidden @ target_kernel + target_bias)
        p = softmax(hidden @ kernel + bias)

    The distillation of a student from a teacher over a vocabulary of any size, without
    the logits of either. The two may differ in width, dtype and orientation. For the
    reverse divergence KL(p ‖ q) exchange the heads.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      target_hidden: floating, shape (..., target features): hidden's rows, in a width
        and a dtype of their own.
      target_kernel: floating, (target features, classes), or (classes, target features)
        with target_vocab_axis=0.
      bias: (classes,), added to the logits.
      target_bias: (classes,), added to the target's logits.
      vocab_axis: the kernel's axis of classes.
      target_vocab_axis: the target kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      target_logit_soft_cap: the soft cap of the target's logits, as logit_soft_cap is
        that of the others.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap, on both sides; a scalar or one
        a row. The result is not multiplied by its square.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where and weights.
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
        logits. None plans, see `linear_softmax_plan`.

    Returns:
      The divergences in nats, of hidden's shape without its last axis, or a scalar;
      float32, or float64 where an operand is.

    Numerics:
      As in `softmax_kl_divergence` and `linear_softmax_cross_entropy`. One pass over
      the classes computes both heads. A teacher that is not differentiated costs no
      gradient: leave it out of `jax.grad`'s arguments, or wrap it in
      `jax.lax.stop_gradient`.

    Raises:
      As `linear_softmax_cross_entropy`, and a ValueError where rows or classes of the
      two heads differ.

    Example:
      >>> hidden, kernel = jnp.array([[1.0], [0.0]]), jnp.array([[2.0, 0.0, 0.0]])
      >>> teacher = jnp.array([[1.0, 1.0], [0.0, 0.0]])
      >>> table = jnp.array([[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]])
      >>> print(jxent.linear_softmax_kl_divergence(
      ...     hidden, kernel, teacher, table, target_vocab_axis=0))
      [0.11198 0.     ]

    Source:
      Hinton, Vinyals and Dean (2015), https://arxiv.org/abs/1503.02531, without its
      factor T².

    See also:
      `softmax_kl_divergence` for logits in memory, `linear_softmax_top_k` for a
      teacher's stored predictions, `linear_softmax_jensen_shannon_divergence`.
    """
    return head_solution(
        "linear_softmax_kl_divergence",
        hidden,
        kernel,
        None,
        where,
        labels_optional=True,
        target=_arguments(target_hidden, target_kernel, target_bias, target_vocab_axis),
        formula=Formula(function=kl_divergence, parameters={}),
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        target_logit_soft_cap=target_logit_soft_cap,
        weights=weights,
        class_mask=class_mask,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )


def linear_softmax_jensen_shannon_divergence(
    hidden: ArrayLike,
    kernel: ArrayLike,
    target_hidden: ArrayLike,
    target_kernel: ArrayLike,
    *,
    beta: ArrayLike = 0.5,
    bias: ArrayLike | None = None,
    target_bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    target_vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    target_logit_soft_cap: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Generalized Jensen–Shannon divergence between the softmaxes of two heads.

        β KL(q ‖ m) + (1 − β) KL(p ‖ m),   m = β q + (1 − β) p
        q = softmax(target_hidden @ target_kernel + target_bias)
        p = softmax(hidden @ kernel + bias)

    As `softmax_jensen_shannon_divergence`, of which a Python 0 stands for KL(q ‖ p) and
    a Python 1 for KL(p ‖ q), and without the logits of either head.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      target_hidden: floating, shape (..., target features): hidden's rows, in a width
        and a dtype of their own.
      target_kernel: floating, (target features, classes), or (classes, target features)
        with target_vocab_axis=0.
      beta: β, between 0 and 1; the share of the target in the mixture m.
      bias: (classes,), added to the logits.
      target_bias: (classes,), added to the target's logits.
      vocab_axis: the kernel's axis of classes.
      target_vocab_axis: the target kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      target_logit_soft_cap: the soft cap of the target's logits, as logit_soft_cap is
        that of the others.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap, on both sides; a scalar or one
        a row. The result is not multiplied by its square.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where and weights.
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
        logits. None plans, see `linear_softmax_plan`.

    Returns:
      The divergences in nats, of hidden's shape without its last axis, or a scalar;
      float32, or float64 where an operand is.

    Numerics:
      As in `softmax_jensen_shannon_divergence` and `linear_softmax_kl_divergence`.
      Streamed, it takes two passes over the classes: the mixture needs both
      normalizers.

    Raises:
      As `linear_softmax_kl_divergence`, and a ValueError for a beta out of range.

    Example:
      >>> hidden, kernel = jnp.array([[1.0], [0.0]]), jnp.array([[2.0, 0.0, 0.0]])
      >>> print(jxent.linear_softmax_jensen_shannon_divergence(
      ...     hidden, kernel, hidden / 2, kernel))
      [0.02598 0.     ]

    Source:
      Agarwal et al. (2023), https://arxiv.org/abs/2306.13649 (GKD).

    See also:
      `softmax_jensen_shannon_divergence`, `linear_softmax_kl_divergence`.
    """
    name = "linear_softmax_jensen_shannon_divergence"
    formula, reverse = jensen_shannon_formula(name, beta)
    head = _arguments(hidden, kernel, bias, vocab_axis)
    target = _arguments(target_hidden, target_kernel, target_bias, target_vocab_axis)
    soft_caps = logit_soft_cap, target_logit_soft_cap
    if reverse:
        head, target, soft_caps = target, head, soft_caps[::-1]
    return head_solution(
        name,
        head.hidden,
        head.kernel,
        None,
        where,
        labels_optional=True,
        target=target,
        formula=formula,
        bias=head.bias,
        vocab_axis=head.vocab_axis,
        precision=precision,
        logit_soft_cap=soft_caps[0],
        target_logit_soft_cap=soft_caps[1],
        weights=weights,
        class_mask=class_mask,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )
