"""The row statistics themselves: log-probability, entropy, and all of them."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._linear_logits import Logits
from .._solve.call import RowOptions, Scores
from .._solve.results import RowStatistics
from .._solve.solve import solution
from .._statistics.softmax_statistics import SoftmaxStatistics
from .._targets.given import ClassIds, NoLabel, RowLabelsIfAny


def softmax_log_prob(
    logits: Logits,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    margin: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """The log-probability of each row's class id: log p_y, p = softmax(logits).

        log p_y = z_y − log Σ_c exp(z_c)

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids (actions, tokens), of the logits' shape without `axis`.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, for `LinearLogits` on
        automatic axes outside of `jax.shard_map`; elsewhere it changes nothing.

    Returns:
      Log-probabilities in nats, of the logits' shape without `axis`; float32, or
      float64 where the logits are. Reduce them with `reduce`.

    Numerics:
      As in `softmax_cross_entropy`; never above 0. A dropped row gives 0.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_log_prob(logits, jnp.array([0, 2])))
      [-0.23954 -0.09492]

    Source:
      The per-token log-probability of policy gradients, TRL's `selective_log_softmax`.

    See also:
      `softmax_entropy`, `reduce`, `softmax_cross_entropy`.
    """
    return solution(
        "softmax_log_prob",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        ClassIds(labels, ignore_index, margin),
        RowOptions(where, batch_axis_name=batch_axis_name),
        result=RowStatistics(),
    ).log_prob


def softmax_entropy(
    logits: Logits,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """The entropy of each row's softmax.

        H = −Σ_c p_c log p_c,   p = softmax(logits)

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too.
      batch_axis_name: the mesh axes that the rows are split over, for `LinearLogits` on
        automatic axes outside of `jax.shard_map`; elsewhere it changes nothing.

    Returns:
      Entropies in nats, from 0 to log(classes), of the logits' shape without `axis`;
      float32, or float64 where the logits are. Reduce them with `reduce`.

    Numerics:
      Formed relative to the row maximum, H = log Σ exp(z − max) − E_p[z − max], which
      loses nothing where logits are large. A class of −inf adds 0. A dropped row, or
      one with every class masked, gives 0; a row of −inf alone or with +inf, NaN.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> print(jxent.softmax_entropy(jnp.array([[0.0, 0.0], [0.0, -jnp.inf]])))
      [0.69315 0.     ]

    Source:
      Shannon (1948); the entropy bonus of policy gradients.

    See also:
      `entropy` for probabilities, `softmax_log_prob`, `reduce`.
    """
    return solution(
        "softmax_entropy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        NoLabel(),
        RowOptions(where, batch_axis_name=batch_axis_name),
        result=RowStatistics(entropy=True),
    ).entropy


def softmax_statistics(
    logits: Logits,
    labels: ArrayLike | SparseLabels | None = None,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
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
) -> SoftmaxStatistics:
    """The row statistics that every softmax loss is a formula on, for losses of yours.

        shift = max_c z_c,   log_sum = log Σ_c exp(z_c − shift),   lse = shift + log_sum

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids of the logits' shape without `axis`, or distributions of
        the logits' shape; or None, for statistics without a label.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_weights: (classes,), for `weighted_logit` = Σ_c w_c (z_c − shift); with a
        distribution t they make its q_c = w_c t_c instead.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, for `LinearLogits` on
        automatic axes outside of `jax.shard_map`; elsewhere it changes nothing.
      entropy: also compute `expected_logit`, which the property `entropy` needs.
      argmax: also compute the class of the largest logit.

    Returns:
      `SoftmaxStatistics`, a NamedTuple whose fields have the logits' shape without
      `axis`, with the properties lse, log_prob and entropy, in nats; float32, or
      float64 where the logits are.

    Numerics:
      As in `softmax_cross_entropy`. Fields are relative to the row maximum; prefer them
      to differences of lse. All are differentiable, shift as a constant. A dropped row
      is 0 in every field.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> s = jxent.softmax_statistics(
      ...     logits, jnp.array([0, 1]), entropy=True, argmax=True)
      >>> print(s.log_prob, s.entropy, s.argmax == jnp.array([0, 1]))
      [-0.23954 -3.09492] [0.66557 0.36659] [ True False]

    Source:
      Milakov and Gimelshein (2018), "Online normalizer calculation for softmax",
      https://arxiv.org/abs/1805.02867, for statistics that merge.

    See also:
      `with_statistics` for a loss and its statistics at once.
    """
    return solution(
        "softmax_statistics",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabelsIfAny(labels, class_weights, ignore_index, margin),
        RowOptions(where, batch_axis_name=batch_axis_name),
        result=RowStatistics(entropy=entropy, argmax=argmax),
    )
