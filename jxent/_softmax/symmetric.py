"""Symmetric cross-entropy, for noisy labels."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._formulas import symmetric
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._solve.solve import solution
from .._targets.given import RowLabels


def symmetric_cross_entropy(
    logits: Logits,
    labels: ArrayLike | SparseLabels,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 0.1,
    beta: ArrayLike = 1.0,
    log_zero: ArrayLike = -4.0,
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
    """Symmetric cross-entropy: that of p to the labels q, and the reverse with it.

        loss = α · −Σ_c w_c q_c log p_c + β r · −Σ_c p_c max(log q_c, A)
        r = Σ_c w_c t_c,   p = softmax(logits),   A = log_zero

    where t are the labels, onehot(y) for a class id y, q = (1 − ε) t + ε/K with label
    smoothing ε over K classes, and w are class weights: r is what a row counts in the
    mean, 1 for a distribution that sums to 1. For a class id and ε = 0 this is

        loss = w_y (α · −log p_y + β · −A (1 − p_y))

    For labels of which some are wrong: cross-entropy learns from every one of them, the
    reverse term is a bounded one that learns less from those it finds unlikely.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      labels: integer class ids, of the logits' shape without `axis`; or distributions,
        of the logits' shape and any dtype, which need not sum to 1; or `SparseLabels`,
        distributions that are given at a few classes. Labels never broadcast.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      alpha: α, at least 0: the factor of cross-entropy.
      beta: β, at least 0: the factor of the reverse cross-entropy. At β = 0 and α = 1
        this is cross-entropy.
      log_zero: A, at most 0: the reverse term takes it for log 0, and for every log q_c
        below it.
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
      The losses, of the logits' shape without `axis`, or a scalar, as
      `softmax_cross_entropy` returns them.

    Numerics:
      As in `softmax_cross_entropy`. The reverse term is at most −A r, with gradient 0
      where p_y = 0; for an id 1 − p_y is formed from log p_y. In distributions it is
      differentiable, too, with derivative 0 in a q_c below exp(A).

    Raises:
      As `softmax_cross_entropy`.
      ValueError: also for a Python number below 0 as alpha or beta, or above 0 as
        log_zero.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> wrong = jnp.array([1, 0])
      >>> print(jxent.symmetric_cross_entropy(logits, wrong))
      [3.79793 4.12838]
      >>> print(jxent.symmetric_cross_entropy(logits, jax.nn.one_hot(wrong, 3)))
      [3.79793 4.12838]

    Source:
      Wang et al. (2019), "Symmetric Cross Entropy for Robust Learning with Noisy
      Labels", https://arxiv.org/abs/1908.06112. It takes α = 0.1, β = 1 for CIFAR-10,
      α = 6, β = 0.1 for CIFAR-100, and A = −4; its code has A = log 1e−4 = −9.21.

    See also:
      `generalized_cross_entropy`, `taylor_cross_entropy`, `softmax_cross_entropy`.
    """
    parameters = {"alpha": alpha, "beta": beta, "log_zero": log_zero}
    return solution(
        "symmetric_cross_entropy",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        RowLabels(labels, class_weights, ignore_index, margin, label_smoothing, z_loss),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=symmetric, parameters=parameters),
    )
