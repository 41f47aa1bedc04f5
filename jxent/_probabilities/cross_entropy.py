"""Binary and categorical cross-entropy of probabilities, as the textbook has them."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _checks, _labels, _sigmoid
from .._arrays import along_classes, masked, rows_to_classes, spread
from .._checks import ArrayLike, Axis, AxisName
from .._reduction import Reduction, combine, times
from .._softmax import problem
from .._statistics import Form, is_label
from .x_log_y import minus_x_log_1_minus, minus_x_log_y


def _binary_of_probabilities(p: Array, y: Array, pos_weight: Array | None) -> Array:
    positive = y if pos_weight is None else pos_weight * y
    # Labels of 0 or 1 would hide one of the logarithms.
    p = p + masked(jnp.full_like(p, jnp.nan), (p < 0) | (p > 1))
    return minus_x_log_y(positive, p) + minus_x_log_1_minus(1 - y, p)


def binary_cross_entropy(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Binary cross-entropy of probabilities with yes/no labels.

        loss = −(y log p + (1 − y) log(1 − p))

    If your model ends in a sigmoid, drop it and call `sigmoid_binary_cross_entropy` on
    the logits: it is exact where p rounds to 0 or 1, and there its gradient still says
    which way to go.

    Args:
      probs: floating probabilities of label 1, in [0, 1], any shape.
      labels: of the probabilities' shape, boolean, integer or floating; or one number,
        the label of every element.
      pos_weight, class_weights, label_smoothing, where, weights, reduction, normalizer,
        batch_axis_name: as in `sigmoid_binary_cross_entropy`.

    Returns:
      The losses in nats, of the probabilities' shape, or a scalar; float32, or float64
      for float64 probabilities.

    Numerics:
      0 log 0 = 0. No clip: p = 0 with y = 1 gives +inf, as the formula says, with the
      slope −inf. A probability outside [0, 1] gives NaN. log(1 − p) keeps its precision
      for small p. bfloat16 and float16 are computed in float32. A dropped element is
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
    plan, arrays = _sigmoid.check(
        "binary_cross_entropy",
        "probs",
        probs,
        labels,
        formula=_binary_of_probabilities,
        pos_weight=pos_weight,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        where=where,
        weights=weights,
        reduction=reduction,
        normalizer=normalizer,
        batch_axis_name=batch_axis_name,
    )
    return _sigmoid.loss(plan, arrays)


@functools.partial(jax.jit, static_argnums=0)
def _categorical(plan: problem.Plan, a: problem.Arrays) -> Array:
    assert a.logits is not None
    axis, names, ndim = plan.axis, plan.class_axis_name, a.logits.ndim
    target = _labels.target_in_memory(
        a.wanted, a.logits, axis, ids=plan.ids, class_axis_name=names
    )
    p = a.logits.astype(_checks.compute_dtype(a.logits))
    if target.mask is not None:
        p = masked(p, target.mask, 1)
    counted = target.counted
    if counted is not None:  # whatever a dropped row holds
        usable = rows_to_classes(counted, axis) | (jnp.isfinite(p) & (p > 0))
        p = masked(p, usable, 1)

    def over_classes(x: Array) -> Array:
        total = jnp.sum(x, axis)
        return lax.psum(total, names) if names else total

    w = jnp.ones((1,) * ndim, p.dtype)
    if target.class_weights is not None:
        w = along_classes(target.class_weights.astype(p.dtype), axis, ndim)
    w = spread(w, p)
    if target.distribution is not None:
        losses = over_classes(minus_x_log_y(target.distribution, p))
        factor = target.mass
    else:
        assert target.labels is not None
        assert a.wanted.labels is not None
        form = Form(axis, names)
        picked = is_label(form, target.labels, p)
        fine = picked if target.mask is None else picked & target.mask
        fine = over_classes(fine.astype(jnp.int32)) > 0
        if counted is not None:
            fine |= ~counted
        classes = p.shape[axis] * (lax.axis_size(names) if names else 1)
        fine = _labels.report_bad_labels(fine, a.wanted.labels, ~fine, classes)
        # NaN in a bad label's row, and in all of its gradient
        pick = jnp.where(rows_to_classes(fine, axis), picked.astype(p.dtype), jnp.nan)
        losses = -jnp.log(over_classes(pick * p))
        factor = None
        if target.class_weights is not None:
            factor = over_classes(masked(w, picked))
            factor = masked(factor, fine, 1)
            losses = times(factor, losses)
        if target.smoothing is not None and target.share is not None:
            if target.mask is not None:
                w = masked(w, target.mask)
            even = over_classes(minus_x_log_y(jnp.broadcast_to(w, p.shape), p))
            bad = masked(losses, jnp.isnan(losses))  # which a factor of 0 would hide
            losses = times(1 - target.smoothing, losses) + times(target.share, even)
            losses = losses + bad
    return combine(
        losses,
        keep=target.keep,
        weights=a.wanted.weights,
        class_factor=factor,
        reduction=plan.reduction,
        normalizer=a.normalizer,
        batch_axis_name=plan.batch_axis_name,
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
      axis, where, weights, class_weights, class_mask, ignore_index, label_smoothing,
        reduction, normalizer, class_axis_name, batch_axis_name: as in
        `softmax_cross_entropy`.

    Returns:
      The losses in nats, of the probabilities' shape without `axis`, or a scalar;
      float32, or float64 for float64 probabilities.

    Numerics:
      0 log 0 = 0. No clip: p = 0 where q > 0 gives +inf, as the formula says. A
      negative probability gives NaN. Dropped rows, masked classes and bad labels as in
      `softmax_cross_entropy`.

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
    plan, arrays = problem.check(
        "categorical_cross_entropy",
        probs,
        labels,
        axis,
        where,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        name="probs",
    )
    return _categorical(plan, arrays)
