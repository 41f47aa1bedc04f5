"""The public functions of the fused head."""

from typing import Any, SupportsIndex

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, AxisName
from .._reduction import Reduction
from .._statistics import SoftmaxStatistics
from .plan import BlockSizes, Implementation
from .problem import loss_of, statistics_of


def linear_softmax_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    z_loss: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    return_statistics: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Any:
    """Softmax cross-entropy of logits = hidden @ kernel + bias, which are never held.

        loss = −Σ_c q_c log p_c,   p = softmax(hidden @ kernel + bias)

    For 8,192 tokens and 131,072 classes the logits are 4 GiB in float32, and their
    gradient as much again. Here one block of them exists at a time.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      labels: as in `softmax_cross_entropy`, for logits of shape (..., classes): class
        ids of shape (...), or distributions of shape (..., classes).
      bias: (classes,).
      vocab_axis: the kernel's axis of classes.
      where, weights, class_weights, class_mask, ignore_index, label_smoothing, z_loss,
        logit_soft_cap, temperature, reduction, normalizer, class_axis_name,
        batch_axis_name, return_statistics: as in `softmax_cross_entropy`.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "tiled", for one number, takes tiles of rows and
        forms gradients with the value: no product twice. "materialized" holds the
        logits. None plans, see `linear_softmax_plan`.

    Returns:
      As `softmax_cross_entropy` of the logits: losses in nats of shape (...), or a
      scalar; float32, or float64 where hidden or kernel is. With return_statistics a
      pair (loss, `SoftmaxStatistics`).

    Numerics:
      As in `softmax_cross_entropy`. A bfloat16 hidden is multiplied with the kernel in
      bfloat16, as a layer of that dtype does, but every sum is in float32: logits,
      statistics, and the gradients of hidden and kernel, which are rounded once, to
      their own dtype. Errors do not grow with the number of blocks. Rows that
      ignore_index, where or a weight of 0 drops may hold anything. Blocks of nothing
      but rows that ignore_index or where drops are skipped when the program runs;
      "tiled" also skips those of weight 0, "streamed" does not, because a row of weight
      0 has derivatives in that weight. Every derivative exists, forward and reverse, to
      any order, in each implementation.

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
    return loss_of("linear_softmax_cross_entropy", locals())


def linear_softmax_log_prob(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    where: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """The log-probability of each row's class id under hidden @ kernel + bias.

        log p_y = z_y − log Σ_c exp(z_c),   z = hidden @ kernel + bias

    Args:
      hidden, kernel, bias, vocab_axis, batch_axis_name, block_sizes: as in
        `linear_softmax_cross_entropy`.
      labels: integer class ids (actions, tokens), of hidden's shape without its last
        axis.
      where, class_mask, ignore_index, logit_soft_cap, temperature, class_axis_name: as
        in `softmax_cross_entropy`.
      implementation: "streamed", "materialized", or None for what suits.

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
    return statistics_of("linear_softmax_log_prob", locals(), ids_only=True).log_prob


def linear_softmax_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
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
      hidden, kernel, bias, vocab_axis, batch_axis_name, block_sizes: as in
        `linear_softmax_cross_entropy`.
      where, class_mask, logit_soft_cap, temperature, class_axis_name: as in
        `softmax_cross_entropy`.
      implementation: "streamed", "materialized", or None for what suits.

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
    options = {**locals(), "labels": None, "entropy": True}
    of = statistics_of("linear_softmax_entropy", options, labels_optional=True)
    return of.entropy


def linear_softmax_statistics(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    bias: ArrayLike | None = None,
    vocab_axis: SupportsIndex = -1,
    where: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
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
      hidden, kernel, bias, vocab_axis, batch_axis_name, block_sizes: as in
        `linear_softmax_cross_entropy`.
      labels, where, class_weights, class_mask, ignore_index, logit_soft_cap,
        temperature, class_axis_name, entropy, argmax: as in `softmax_statistics`.
      implementation: "streamed", "materialized", or None for what suits.

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
    return statistics_of("linear_softmax_statistics", locals(), labels_optional=True)
