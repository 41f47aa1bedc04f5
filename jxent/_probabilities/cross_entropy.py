"""Binary and categorical cross-entropy of probabilities, as the textbook has them."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import jax
from jax import Array, lax
from jaxtyping import Float

from .._arrays import cast, over_classes, select, sum_over_devices
from .._checks import ArrayLike, Axis, AxisName
from .._compute.apart import held_apart
from .._compute.slopes import tangent_apart
from .._layouts.mesh import like_logits_on_mesh
from .._problem.bundles import Maybe
from .._problem.problem import Problem
from .._problem.resolve import class_factors, possible_classes, resolve, with_full_rows
from .._problem.resolved import computable
from .._reduction import Reduction, combine
from .._sigmoid.arguments import check, loss
from .._solve.arguments import checked_problem
from .._solve.call import RowOptions, Scores, asked
from .._targets.given import BinaryAnswers, RowLabels
from .._targets.ids import Ids
from .._targets.labels import smoothing_share
from .class_ids import class_weight, losses_of_ids, one_hot, one_of_ids
from .sums import sum_of_terms
from .x_log_y import minus_x_log_1_minus, minus_x_log_y


@tangent_apart()
def _binary_of_probabilities(p: Array, y: Array, pos_weight: Array | None) -> Array:
    positive = y if pos_weight is None else pos_weight * y
    return minus_x_log_y(positive, p) + minus_x_log_1_minus(1 - y, p)


def binary_cross_entropy(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Binary cross-entropy of probabilities with binary labels.

        loss = −(w⁺ y log p + (1 − y) log(1 − p))

    If your model ends in a sigmoid, drop it and call `sigmoid_binary_cross_entropy` on
    the logits: it is exact where p rounds to 0 or 1, and there its gradient still says
    which way to go.

    Args:
      probs: floating probabilities of label 1, in [0, 1], any shape.
      labels: of the probabilities' shape, boolean, integer or floating: 1 for yes, 0
        for no, or a probability; or one number, the label of every element. An integer
        other than 0 and 1 is no label: NaN. A float is a number in the formula, 2.0
        too.
      pos_weight: w⁺ multiplies the y-term: a number, or any shape that broadcasts from
        the right, (classes,) for one a class. n_no / n_yes balances.
      class_weights: factors of the losses, one for each class of the last axis.
      ignore_index: the integer that marks a missing label: it drops the element.
      label_smoothing: ε moves labels towards ½, y (1 − ε) + ε/2. None for no smoothing.
      where: boolean, a scalar or of the losses' rank (axes of size 1 allowed). False
        drops an element.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r over all elements, r =
        where · weights · class_weights.
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      batch_axis_name: the mesh axes that the elements are split over, inside
        `jax.shard_map`: the mean and the sum run over them too.

    Returns:
      The losses in nats, of the probabilities' shape, or a scalar; float32, or float64
      for float64 probabilities.

    Numerics:
      0 log 0 = 0. No clip: p = 0 with y = 1 gives +inf, as the formula says. A huge
      number (1.8e19 in float32) stands for an infinite derivative, so that directions
      which leave p alone add 0. A probability outside [0, 1] gives NaN. log(1 − p)
      keeps its precision for small p. bfloat16 and float16 are computed in float32. An
      integer label other than 0, 1 and ignore_index makes loss and gradient of its
      element NaN, and `jax.experimental.checkify` reports it. A dropped element is
      exactly 0 with gradient 0, whatever it holds.

    Raises:
      As `sigmoid_binary_cross_entropy`.

    Example:
      >>> probs = jnp.array([0.9, 0.2, 0.0])
      >>> print(jxent.binary_cross_entropy(probs, jnp.array([1, 0, 0])))
      [0.10536 0.22314 0.     ]

    Source:
      The textbook; PyTorch's `BCELoss` (which clamps the logarithm at −100) and Keras's
      `BinaryCrossentropy` (which clips the probabilities).

    See also:
      `sigmoid_binary_cross_entropy`, `categorical_cross_entropy`.
    """
    label = BinaryAnswers(
        labels, ignore_index, label_smoothing, class_weights, pos_weight
    )
    rows = RowOptions(where, weights, batch_axis_name, reduction, normalizer)
    name, formula = "binary_cross_entropy", _binary_of_probabilities
    settings, operands = check(name, "probs", probs, label, rows, formula)
    return loss(settings, operands)


def _of_all_classes(
    problem: Problem, probs: Array, possible: Maybe
) -> tuple[Array, Maybe]:
    """The losses of distributions or smoothed ids, and the class weights in them."""
    axis, shared, target = problem.axis, problem.shared, problem.target
    p, weighted, usable = cast(probs, problem.dtype), problem.resolved.weighted, None
    if weighted is not None:
        usable = over_classes(weighted, axis, p) | (lax.is_finite(p) & (p > 0))
        p = select(usable, p, 1)

    def sum_over_classes(x: Array) -> Array:
        total = lax.reduce_sum(x, (axis,))
        return sum_over_devices(total, problem.settings.class_axis_name)

    w = class_factors(problem, possible, p)
    if isinstance(target, Ids):
        t = one_hot(problem, one_of_ids(problem, p.dtype), p)
        factor = class_weight(problem)
    else:
        # Else XLA on a CPU would store labels that it casts for both sums.
        t, mass = target.labels, held_apart(target.labels)
        t, mass = (
            computable(problem.resolved, cast(x, p.dtype), axis) for x in (t, mass)
        )
        for mask in (possible, usable):
            if mask is not None:
                t, mass = select(mask, t), select(mask, mass)
        factor = sum_over_classes(mass if w is None else mass * w)
        factor = computable(problem.resolved, factor)
    if shared.label_smoothing is not None:
        share = smoothing_share(problem, scale=1.0)
        if share.ndim:
            share = over_classes(share, axis, p)
        share = lax.full_like(p, 0) + share
        share = share if possible is None else select(possible, share)
        t = (1 - shared.label_smoothing) * t + share
    q = t if w is None else t * w
    losses = sum_of_terms(minus_x_log_y, (axis,), q, p)
    return sum_over_devices(losses, problem.settings.class_axis_name), factor


@jax.jit
def _categorical(problem: Problem) -> Array:
    problem = like_logits_on_mesh(with_full_rows(problem))
    problem = problem.replace(resolved=resolve(problem))
    probs, possible, shared = problem.like, possible_classes(problem), problem.shared
    assert isinstance(probs, Array)
    if possible is not None:
        probs = select(possible, probs, 1)
    if isinstance(problem.target, Ids) and shared.label_smoothing is None:
        losses, factor = losses_of_ids(problem, probs)
    else:
        losses, factor = _of_all_classes(problem, probs, possible)
    return combine(
        losses,
        keep=problem.resolved.keep,
        weights=problem.rows.weights,
        class_factor=factor,
        reduction=problem.settings.reduction,
        normalizer=shared.normalizer,
        batch_axis_name=problem.settings.batch_axis_name,
    )


def categorical_cross_entropy(
    probs: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Cross-entropy of probabilities with class ids or distributions.

        loss = −Σ_c q_c log p_c

    If your model ends in a softmax, drop it and call `softmax_cross_entropy` on the
    logits: it is exact where p rounds to 0, and there its gradient still says which way
    to go. Logarithms of probabilities are logits too.

    Args:
      probs: floating probabilities, shape (..., classes, ...). They are taken as they
        are: nothing normalizes them.
      labels: class ids of the probabilities' shape without `axis`, or distributions of
        their shape.
      axis: the class axis. A tuple names several that are the classes together, an id
        counts through them in order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the probabilities' rank: False makes the class impossible
        there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      class_mask: boolean (classes,). False marks a class that does not exist: padding.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that are not masked, the label's own included. None for no smoothing.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, r what multiplies a
        row: where · weights · its label's class weight (of a distribution Σ_c q_c w_c).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axis (or axes) that the classes are split over, inside
        `jax.shard_map`. Labels stay global ids. Arguments with one number a class are
        split in the same way.
      batch_axis_name: the mesh axes that the rows are split over, inside
        `jax.shard_map`: the mean and the sum run over them too.

    Returns:
      The losses in nats, of the probabilities' shape without `axis`, or a scalar;
      float32, or float64 for float64 probabilities.

    Numerics:
      0 log 0 = 0. No clip: p = 0 where q > 0 gives +inf, as the formula says. A huge
      number (1.8e19 in float32) stands for an infinite derivative, so that directions
      which leave p alone add 0. A negative probability gives NaN. Dropped rows, masked
      classes and bad labels as in `softmax_cross_entropy`.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> probs = jnp.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
      >>> print(jxent.categorical_cross_entropy(probs, jnp.array([0, 2])))
      [0.35667 0.69315]

    Source:
      The textbook; Keras's `CategoricalCrossentropy`, which clips and normalizes.

    See also:
      `softmax_cross_entropy`, `binary_cross_entropy`.
    """
    scores = Scores(probs, axis, class_mask, class_axis_name=class_axis_name)
    label = RowLabels(
        labels, class_weights, ignore_index, label_smoothing=label_smoothing
    )
    rows = RowOptions(where, weights, batch_axis_name, reduction, normalizer)
    name, options = "categorical_cross_entropy", asked(scores, label, rows)
    problem = checked_problem(name, probs, label, name="probs", **options)
    return _categorical(problem)
