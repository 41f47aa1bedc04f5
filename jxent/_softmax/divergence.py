"""Divergences between the softmaxes of two arrays of logits."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike, Axis, AxisName
from .._formulas import kl_divergence, total_variation
from .._linear_logits import Logits
from .._reduction import Reduction
from .._solve.call import Formula, RowOptions, Scores
from .._solve.solve import solution
from .._targets.given import OtherSoftmax, OtherSoftmaxInReverse
from .._targets.softmax import jensen_shannon_formula


def softmax_kl_divergence(
    logits: Logits,
    target_logits: Logits,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    target_logit_soft_cap: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Kullback–Leibler divergence of a target softmax from that of the logits.

        KL(q ‖ p) = Σ_c q_c (log q_c − log p_c)
        q = softmax(target_logits),  p = softmax(logits)

    The order is that of cross-entropy, which it is but for the target's entropy: logits
    first, and second what they are compared with, such as a teacher's logits. For the
    reverse divergence KL(p ‖ q) exchange the two.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      target_logits: floating, of the logits' shape; or `LinearLogits` of that shape,
        with features of their own. Either may be an array, and the other not.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      target_logit_soft_cap: the soft cap of the target's logits, as logit_soft_cap is
        that of the others.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap, on both sides; a scalar or one
        a row. The result is not multiplied by its square.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r = where · weights.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      The divergences in nats, of the logits' shape without `axis`, or a scalar;
      float32, or float64 where logits or target_logits are.

    Numerics:
      As in `softmax_cross_entropy`. A class that is impossible for the target (−inf)
      adds 0; one that is impossible for the logits alone makes the divergence +inf.

      Differentiable in both. A target that is not differentiated costs no gradient. Two
      `LinearLogits` are computed in one layout: give it to one, or to both the same.

    Raises:
      As `softmax_cross_entropy`, and a ValueError where the two shapes differ.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> teacher = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_kl_divergence(logits, teacher))
      [0.11198 0.     ]
      >>> print(jxent.softmax_kl_divergence(teacher, logits))  # the reverse
      [0.09889 0.     ]
      >>> table = jxent.LinearLogits(jnp.eye(2), logits)
      >>> print(jxent.softmax_kl_divergence(table, teacher))
      [0.11198 0.     ]

    Source:
      Kullback and Leibler (1951); Hinton, Vinyals and Dean (2015),
      https://arxiv.org/abs/1503.02531, for distillation, whose factor T² is yours.

    See also:
      `softmax_jensen_shannon_divergence`,
      `kl_divergence` of probabilities.
    """
    return solution(
        "softmax_kl_divergence",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        OtherSoftmax(target_logits, target_logit_soft_cap),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=kl_divergence),
    )


def softmax_jensen_shannon_divergence(
    logits: Logits,
    target_logits: Logits,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    beta: ArrayLike = 0.5,
    target_logit_soft_cap: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Generalized Jensen–Shannon divergence between two softmaxes.

        β KL(q ‖ m) + (1 − β) KL(p ‖ m),   m = β q + (1 − β) p
        q = softmax(target_logits),  p = softmax(logits)

    A β of 0.5 gives the symmetric divergence, which is at most log 2. The formula tends
    to 0 as β goes to 0 or 1. As in GKD and TRL, a Python 0 stands for KL(q ‖ p)
    instead, the limit of the formula divided by β, and a Python 1 for KL(p ‖ q).

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      target_logits: floating, of the logits' shape; or `LinearLogits` of that shape,
        with features of their own. Either may be an array, and the other not.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      beta: β, between 0 and 1; the share of the target in the mixture m.
      target_logit_soft_cap: the soft cap of the target's logits, as logit_soft_cap is
        that of the others.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap, on both sides; a scalar or one
        a row. The result is not multiplied by its square.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r = where · weights.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      The divergences in nats, of the logits' shape without `axis`, or a scalar;
      float32, or float64 where logits or target_logits are.

    Numerics:
      As in `softmax_kl_divergence`; finite wherever both softmaxes exist, for a β
      between 0 and 1. Differentiable in β too, but for a Python 0 or 1.

    Raises:
      As `softmax_kl_divergence`, and a ValueError for a beta out of range.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> teacher = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_jensen_shannon_divergence(logits, teacher))
      [0.02598 0.     ]

    Source:
      Lin (1991), "Divergence measures based on the Shannon entropy"; Agarwal et al.
      (2023), https://arxiv.org/abs/2306.13649, for β in distillation (GKD).

    See also:
      `softmax_kl_divergence`.
    """
    formula, parameters, reverse = jensen_shannon_formula(beta)
    kind = OtherSoftmaxInReverse if reverse else OtherSoftmax
    return solution(
        "softmax_jensen_shannon_divergence",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        kind(target_logits, target_logit_soft_cap),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=formula, parameters=parameters),
    )


def softmax_total_variation(
    logits: Logits,
    target_logits: Logits,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    target_logit_soft_cap: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Total variation between two softmaxes: half the sum of their differences.

        TV = ½ Σ_c |q_c − p_c| = 1 − Σ_c min(p_c, q_c)

    where q is the target's softmax and p that of the logits. 1 − TV is the share of
    tokens that speculative decoding accepts, where a draft of p is checked against q.

    Args:
      logits: floating, (..., classes, ...), at least two classes; or `LinearLogits`.
      target_logits: floating, of the logits' shape; or `LinearLogits` of that shape,
        with features of their own. Either may be an array, and the other not.
      axis: the class axis, for `LinearLogits` the last. A tuple names several that are
        the classes together, an id counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      target_logit_soft_cap: the soft cap of the target's logits, as logit_soft_cap is
        that of the others.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap, on both sides; a scalar or one
        a row. The result is not multiplied by its square.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r = where · weights.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axes that split the classes, inside `jax.shard_map`; for
        `LinearLogits` automatic axes outside, too.
      batch_axis_name: the mesh axes that the rows are split over, named where
        class_axis_name is: the mean and the sum run over them too.

    Returns:
      Between 0 and 1, of the logits' shape without `axis`, or a scalar; float32, or
      float64 where logits or target are.

    Numerics:
      As in `softmax_kl_divergence`. Where p_c = q_c, which is a kink, that class
      adds 0 to the derivative.

    Raises:
      As `softmax_kl_divergence`.

    Example:
      >>> draft = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
      >>> target = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
      >>> print(1 - jxent.softmax_total_variation(draft, target))
      [0.75]

    Source:
      Leviathan et al. (2023), "Fast Inference from Transformers via Speculative
      Decoding", https://arxiv.org/abs/2211.17192, for the rate of acceptance.

    See also:
      `softmax_jensen_shannon_divergence`, `softmax_kl_divergence`.
    """
    return solution(
        "softmax_total_variation",
        Scores(logits, axis, class_mask, logit_soft_cap, temperature, class_axis_name),
        OtherSoftmax(target_logits, target_logit_soft_cap),
        RowOptions(where, weights, batch_axis_name, reduction, normalizer),
        formula=Formula(function=total_variation),
    )
