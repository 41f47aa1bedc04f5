"""Softmax cross-entropy of logits, under each of its names."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._formulas import cross_entropy
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._solve.solve import solution
from .._targets.given import RowLabels


def softmax_cross_entropy(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
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
) -> Float[Array, "..."]:
    """Softmax cross-entropy of logits with class ids or distributions.

        loss = −Σ_c q_c log p_c,   p = softmax(z),   log p_c = z_c − log Σ_k exp(z_k)

    where q is onehot(y) for a class id y. With class weights w and label smoothing ε
    over K classes, q_c = w_c ((1 − ε) onehot(y)_c + ε/K).

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids, of the logits' shape without `axis`; or distributions,
        of the logits' shape and any dtype, which need not sum to 1; or `SparseLabels`,
        distributions that are given at a few classes. Labels never broadcast.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that are not masked, the label's own included. None for no smoothing.
      z_loss: adds z_loss · lse² times the row's class weight, lse = log Σ_c exp(z_c).
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      margin: m, subtracted from the logit of the row's label after the soft cap and
        before the temperature; a number, or one a class, (classes,). For class ids.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r what multiplies a
        row: where · weights · its label's class weight (of a distribution Σ_c q_c w_c).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Labels stay global ids.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      The losses in nats, of the logits' shape without `axis`, or a scalar; float32, or
      float64 where the logits are.

    Numerics:
      bfloat16 and float16 are computed in float32; each gradient has its input's dtype.
      Nothing is clipped and no epsilon is added.

      0 · ∞ counts as 0: a logit of −inf is an impossible class. As the label's own
      class it makes the loss +inf, with a finite gradient. A row of −inf alone, or a
      logit of +inf, gives NaN.

      A dropped row is exactly 0 and so is its gradient, whatever it holds. So is a row
      with every class masked. Nothing left to average gives 0 with gradient 0. Target
      mass on masked classes is dropped. A weight of 0 has derivatives like any other:
      where its row is finite, the loss's is the row's loss, and the gradient's is the
      row's gradient.

      An id outside [0, classes) that is not ignore_index, or on a masked class, makes
      loss and gradient of its row NaN; under `jax.experimental.checkify` it is an error
      with a message.

      Every derivative exists, forward and reverse, to any order. `jax.grad` inside
      `shard_map(check_vma=False)` is wrong by JAX itself: leave check_vma on.

      None switches an option off, and so does an infinite soft cap. At an infinite
      temperature all possible classes are equally likely. Arguments with one number a
      class are split as the classes are. See `LinearLogits` for products and meshes.

    Raises:
      TypeError: logits are not floating, ids not integers, a mask is floating, or a
        bool stands for a number.
      ValueError: shapes do not fit, a Python number is out of range, or an axis name is
        unknown.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_cross_entropy(logits, jnp.array([0, 2])))
      [0.23954 0.09492]
      >>> hidden, kernel = jnp.eye(2), logits
      >>> print(jxent.softmax_cross_entropy(
      ...     jxent.LinearLogits(hidden, kernel), jnp.array([0, 2])))
      [0.23954 0.09492]
      >>> labels = jnp.array([0, -100])
      >>> print(jxent.softmax_cross_entropy(
      ...     logits, labels, ignore_index=-100, reduction="mean"))
      0.23954

    Source:
      Optax's `softmax_cross_entropy`, `softmax_cross_entropy_with_integer_labels` and
      `safe_softmax_cross_entropy`, whose calls each of the three names takes here. On
      purpose, labels that Optax broadcasts and a class axis of size 1 are errors here,
      and an id below 0, which Optax counts from the last class, gives NaN. Label
      smoothing as in Szegedy et al., https://arxiv.org/abs/1512.00567; z-loss as in
      Chowdhery et al. (PaLM), https://arxiv.org/abs/2204.02311.

    See also:
      `LinearLogits` for a large vocabulary, `categorical_cross_entropy` for
      probabilities, `sigmoid_binary_cross_entropy` for binary labels,
      `next_token_labels` for language models.
    """
    return solution(
        "softmax_cross_entropy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabels(labels, class_weights, ignore_index, margin, label_smoothing, z_loss),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=cross_entropy),
    )


# Optax has a name for each kind of labels, and one for logits of −inf. Here the labels'
# shape says their kind, and −inf is safe under each name.
softmax_cross_entropy_with_integer_labels = softmax_cross_entropy
safe_softmax_cross_entropy = softmax_cross_entropy
