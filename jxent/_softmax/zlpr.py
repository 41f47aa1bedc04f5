"""ZLPR: a softmax's loss for rows with several labels."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._formulas import zlpr
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._solve.solve import solution
from .._targets.given import SetLabels


def zlpr_loss(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
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
) -> Float[Array, "..."]:
    """ZLPR loss of logits with several labels a row.

        loss = log(1 + Σ_c (1 − y_c) exp(z_c)) + log(1 + Σ_c y_c exp(−z_c))

    It wants the logits of a row's labels above 0 and all others below: softmax
    cross-entropy for several labels, which weighs the worst of each side most, and
    needs no weights against the many negatives. Predict the classes with z > 0.

    Args:
      logits: floating, shape (..., classes, ...); or `LinearLogits`.
      labels: of the logits' shape, boolean, integer or floating: 1 for yes, 0 for no,
        or a probability. An integer other than 0 and 1 is no label: NaN, as a float
        outside [0, 1] is. Or `SparseLabels`, the ids of the classes whose label is yes.
        Labels never broadcast.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False leaves the class out in that row.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the integer that marks a missing label: it leaves the class out in
        that row. Among `SparseLabels` it is the id that marks padding.
      label_smoothing: ε moves labels towards ½, y (1 − ε) + ε/2. None for no smoothing.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r over the rows, where r
        = where · weights: what weighs classes does not divide.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too. Ids stay global.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      The losses in nats, of the logits' shape without `axis`, or a scalar; float32, or
      float64 where the logits are.

    Numerics:
      bfloat16 and float16 are computed in float32; each gradient has its input's dtype.
      Exponentials are taken relative to the largest of each side, and a loss near 0
      keeps its digits. A side without classes adds 0. A logit of −inf in a class whose
      label is no adds 0; an infinite logit on the wrong side makes the row NaN, and so
      does a label outside [0, 1], which `jax.experimental.checkify` reports if it is an
      integer. At a label of exactly 0 or 1 the derivative in that label leaves out the
      side that the class is not on. A dropped row is exactly 0 with gradient 0,
      whatever it holds.

    Raises:
      TypeError: logits are not floating, where is floating, or a bool stands for a
        number.
      ValueError: shapes do not fit, a Python number is out of range, or ignore_index
        is given with labels that are not integers.

    Example:
      >>> logits = jnp.array([[2.0, -1.0, 0.5], [-2.0, -1.0, 3.0]])
      >>> print(jxent.zlpr_loss(logits, jnp.array([[1, 0, 1], [0, 0, 1]])))
      [0.86822 0.45619]

    Source:
      Su et al. (2022), "ZLPR: A Novel Loss for Multi-label Classification",
      https://arxiv.org/abs/2208.02955.

    See also:
      `sigmoid_binary_cross_entropy`, `asymmetric_loss`.
    """
    return solution(
        "zlpr_loss",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        SetLabels(labels, ignore_index, label_smoothing),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=zlpr),
    )
