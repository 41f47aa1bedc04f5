"""Log-probabilities at several class ids a row."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._layouts import solve
from .._problem import logits_problem


def softmax_log_prob_at(
    logits: ArrayLike,
    ids: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """The log-probabilities of several class ids in each row.

        log p_k = z_k − log Σ_c exp(z_c)   for each id k of the row

    Args:
      logits: floating, shape (..., classes, ...), at least two classes.
      ids: integer class ids, of the logits' shape with K in place of the classes, such
        as the top-k of a teacher. Equal ids in a row are no harm.
      axis: the class axis of the logits, and that of the K ids. A tuple names several
        that together make up the classes; the K ids are then the last axis.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the id that marks padding among the ids: 0 stands there.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      class_axis_name: the mesh axis (or axes) that the classes are split over, inside
        `jax.shard_map`. Labels stay global ids. Arguments with one number a class are
        split in the same way.

    Returns:
      Log-probabilities in nats, of the shape of ids; float32, or float64 for float64
      logits.

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
      `softmax_log_prob`, `SparseLabels`, `linear_softmax_log_prob_at`.
    """
    return solve(
        logits_problem(
            "softmax_log_prob_at",
            logits,
            SparseLabels(ids=ids),
            axis,
            where,
            log_prob_at=True,
            class_mask=class_mask,
            ignore_index=ignore_index,
            logit_soft_cap=logit_soft_cap,
            temperature=temperature,
            class_axis_name=class_axis_name,
        )
    )
