"""The row statistics of the fused head: log-probability, entropy, and all of them."""

from __future__ import annotations

from typing import SupportsIndex

from jax import Array, lax
from jaxtyping import Float

from .._checks import ArrayLike, AxisName, SparseLabels
from .._formulas import SoftmaxStatistics
from .._layouts import BlockSizes, Implementation, head_solution


def linear_softmax_log_prob(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    margin: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """The log-probability of each row's class id under hidden @ kernel + bias.

        log p_y = z_y − log Σ_c exp(z_c),   z = hidden @ kernel + bias

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: integer class ids (actions, tokens), of hidden's shape without its last
        axis.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "materialized" holds the logits. None plans.

    Returns:
      Log-probabilities in nats, of hidden's shape without its last axis; float32, or
      float64 where hidden or kernel is. Reduce them with `reduce`.

    Numerics:
      As in `linear_softmax_cross_entropy`; never above 0. A dropped row gives 0.

    Raises:
      As `linear_softmax_cross_entropy`.

    Example:
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
      >>> print(jxent.linear_softmax_log_prob(hidden, kernel, jnp.array([0, 2])))
      [-0.23954 -0.09492]

    Source:
      As `linear_softmax_cross_entropy`; the log-probabilities of policy gradients.

    See also:
      `softmax_log_prob` for logits in memory, `linear_softmax_entropy`.
    """
    return head_solution(
        "linear_softmax_log_prob",
        hidden,
        kernel,
        labels,
        where,
        ids_only=True,
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        margin=margin,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    ).log_prob


def linear_softmax_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """The entropy of each row's softmax of hidden @ kernel + bias.

        H = −Σ_c p_c log p_c,   p = softmax(hidden @ kernel + bias)

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "materialized" holds the logits. None plans.

    Returns:
      Entropies in nats, from 0 to log(classes), of hidden's shape without its last
      axis; float32, or float64 where hidden or kernel is. Reduce them with `reduce`.

    Numerics:
      As in `softmax_entropy` and `linear_softmax_cross_entropy`.

    Raises:
      As `linear_softmax_cross_entropy`.

    Example:
      >>> hidden, kernel = jnp.array([[1.0], [0.0]]), jnp.array([[2.0, 0.0, 0.0]])
      >>> print(jxent.linear_softmax_entropy(hidden, kernel))
      [0.66557 1.09861]

    Source:
      Shannon (1948); the entropy bonus of policy gradients.

    See also:
      `softmax_entropy` for logits in memory, `linear_softmax_log_prob`.
    """
    return head_solution(
        "linear_softmax_entropy",
        hidden,
        kernel,
        None,
        where,
        labels_optional=True,
        entropy=True,
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        class_mask=class_mask,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    ).entropy


def linear_softmax_statistics(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | SparseLabels | None = None,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    precision: lax.PrecisionLike = None,
    where: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    margin: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    entropy: bool = False,
    argmax: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> SoftmaxStatistics:
    """The row statistics of hidden @ kernel + bias, for losses of yours.

        shift = max_c z_c,   log_sum = log Σ_c exp(z_c − shift),   lse = shift + log_sum

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: integer class ids of hidden's shape without its last axis, or
        distributions of shape (..., classes); or None, for statistics without a label.
      bias: (classes,), added to the logits.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_weights: (classes,), for `weighted_logit` = Σ_c w_c (z_c − shift); with a
        distribution t they make its q_c = w_c t_c instead.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      class_axis_name: the mesh axis (or axes) that the classes are split over. Needed
        inside `jax.shard_map`, and outside of it for automatic axes; explicit axes are
        read from the arrays' types. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.
      entropy: also compute `expected_logit`, which the property `entropy` needs.
      argmax: also compute the class of the largest logit.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "materialized" holds the logits. None plans.

    Returns:
      `SoftmaxStatistics`, whose fields have hidden's shape without its last axis, in
      nats; float32, or float64 where hidden or kernel is.

    Numerics:
      As in `softmax_statistics` and `linear_softmax_cross_entropy`.

    Raises:
      As `linear_softmax_cross_entropy`.

    Example:
      >>> hidden, kernel = jnp.array([[1.0], [0.0]]), jnp.array([[2.0, 0.0, 0.0]])
      >>> s = jxent.linear_softmax_statistics(
      ...     hidden, kernel, jnp.array([0, 1]), argmax=True)
      >>> print(s.log_prob, s.lse, s.argmax)
      [-0.23954 -1.09861] [2.23954 1.09861] [0 0]

    Source:
      Milakov and Gimelshein (2018), "Online normalizer calculation for softmax",
      https://arxiv.org/abs/1805.02867, for statistics that merge.

    See also:
      `softmax_statistics` for logits in memory, `linear_softmax_cross_entropy`.
    """
    return head_solution(
        "linear_softmax_statistics",
        hidden,
        kernel,
        labels,
        where,
        labels_optional=True,
        bias=bias,
        vocab_axis=vocab_axis,
        precision=precision,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        margin=margin,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        entropy=entropy,
        argmax=argmax,
        block_sizes=block_sizes,
        implementation=implementation,
    )
