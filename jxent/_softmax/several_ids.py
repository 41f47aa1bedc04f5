"""Log-probabilities at several class ids a row, among several, or of the likeliest."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import SupportsIndex

from jax import Array
from jaxtyping import Float, Integer

from .. import _checks
from .._checks import ArrayLike, Axis, AxisName
from .._linear_logits import Logits
from .._solve.call import RowOptions, Scores
from .._solve.results import LargestClasses, LogProbAmong, LogProbsAt
from .._solve.solve import solution
from .._targets.given import IdAmong, IdsOfRow, NoLabel


def softmax_log_prob_at(
    logits: Logits,
    ids: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """The log-probabilities of several class ids in each row.

        log p_k = z_k − log Σ_c exp(z_c)   for each id k of the row

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      ids: integer class ids, of the logits' shape with K in place of the classes, such
        as the top-k of a teacher. Equal ids in a row are no harm.
      axis: the class axis of the logits, and that of the K ids. A tuple names several
        that together make up the classes; the K ids are then the last axis.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the id that marks padding among the ids: 0 stands there.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Ids stay global.
      batch_axis_name: the mesh axes that the rows are split over, for `LinearLogits` on
        automatic axes outside of `jax.shard_map`; elsewhere it changes nothing.

    Returns:
      Log-probabilities in nats, of the shape of ids; float32, or float64 where the
      logits are.

    Numerics:
      As in `softmax_cross_entropy`; never above 0. A dropped row gives 0. An id outside
      [0, classes) that is not ignore_index, or on a masked class, gives NaN; the
      gradient of its row is NaN, too.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_log_prob_at(logits, jnp.array([[0, 1], [2, 0]])))
      [[-0.23954 -2.23954]
       [-0.09492 -3.09492]]

    Source:
      vLLM's and TRL's log-probabilities of the top tokens.

    See also:
      `softmax_log_prob`, `softmax_top_k`, `SparseLabels`.
    """
    return solution(
        "softmax_log_prob_at",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        IdsOfRow(ids, ignore_index),
        RowOptions(where, batch_axis_name=batch_axis_name),
        result=LogProbsAt(),
    )


def softmax_log_prob_among(
    logits: Logits,
    ids: ArrayLike,
    kept: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = -1,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """The log-probability of each row's id among the ids that a sampler kept.

        log p_y − log Σ_c p_c over c ∈ kept ∪ {y} = z_y − log Σ_c exp(z_c)

    A sampler with top-k or top-p draws from a few classes of each row, renormalized.
    This is the log-probability of what it drew, under the logits of a trainer.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      ids: integer class ids y, of the logits' shape without `axis`.
      kept: integer class ids, of the logits' shape with K in place of the classes. Each
        class counts once, however often it is listed; y counts, listed or not.
      axis: the class axis of the logits, and that of the K ids. A tuple names several
        that together make up the classes; the K ids are then the last axis.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the id that marks padding among `kept`. A row whose own id it is, is
        dropped.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Ids stay global.
      batch_axis_name: the mesh axes that the rows are split over, for `LinearLogits` on
        automatic axes outside of `jax.shard_map`; elsewhere it changes nothing.

    Returns:
      Log-probabilities in nats, of the shape of ids; float32, or float64 where the
      logits are.

    Numerics:
      As in `softmax_cross_entropy`; never above 0. A dropped row gives 0. Kept ids on
      masked classes have no probability. An id outside [0, classes) that is not
      ignore_index, among `kept` too, or a y on a masked class, makes value and gradient
      of its row NaN.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> kept = jnp.array([[0, 1], [2, -1]])  # -1 pads
      >>> print(jxent.softmax_log_prob_among(logits, jnp.array([0, 2]), kept))
      [-0.12693  0.     ]

    Source:
      Sampling replay, as trainers of language models have it for top-k and top-p.

    See also:
      `softmax_log_prob`, `softmax_log_prob_at`, `softmax_top_k`.
    """
    return solution(
        "softmax_log_prob_among",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        IdAmong(ids, kept, ignore_index),
        RowOptions(where, batch_axis_name=batch_axis_name),
        result=LogProbAmong(),
    )


def softmax_top_k(
    logits: Logits,
    k: SupportsIndex,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> tuple[Float[Array, "..."], Integer[Array, "..."]]:
    """The k likeliest classes of each row, and their log-probabilities.

        log p_c = z_c − log Σ_j exp(z_j)

    It is what a teacher's predictions are stored with: 64 numbers a row in place of
    one for each class. Exact; of LinearLogits in one pass over blocks of classes.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      k: how many, an integer between 1 and the number of classes.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Ids are global.
      batch_axis_name: the mesh axes that the rows are split over, for `LinearLogits` on
        automatic axes outside of `jax.shard_map`; elsewhere it changes nothing.

    Returns:
      A pair, each of the logits' shape with k in place of the classes: the
      log-probabilities in nats, the largest first, float32, or float64 where the logits
      are; and their class ids, int32. Where several axes are the classes, the k are the
      last axis.

    Numerics:
      Of classes that are equally likely the one with the smaller id comes first. Masked
      classes come last, with −inf. A dropped row gives zeros. The log-probabilities are
      differentiable as those of `softmax_log_prob_at` at these ids.

      With classes split over a mesh, every device has the result of all classes.

    Raises:
      As `softmax_cross_entropy`, and a ValueError for a k out of range.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> log_probs, ids = jxent.softmax_top_k(logits, 2)
      >>> print(log_probs, ids)
      [[-0.23954 -2.23954]
       [-0.09492 -3.09492]] [[0 1]
       [2 0]]

      What a teacher's predictions are stored as, a student trains on:

      >>> labels = jxent.SparseLabels(ids, jnp.exp(log_probs))
      >>> print(jxent.softmax_cross_entropy(logits, labels))
      [0.42705 0.22646]

    Source:
      `jax.lax.top_k`, a block of classes at a time.

    See also:
      `softmax_log_prob_at`, `SparseLabels`.
    """
    k = _checks.integer("softmax_top_k", "k", k)
    return solution(
        "softmax_top_k",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        NoLabel(),
        RowOptions(where, batch_axis_name=batch_axis_name),
        result=LargestClasses(k=k),
    )
