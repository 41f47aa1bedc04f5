"""Entropy, cross-entropy and divergences of probabilities, as the textbook has them.

For a model's outputs, prefer the losses on logits: a probability that has been rounded
to 0 or 1 has lost what they still know.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from . import _checks, _labels, _sigmoid, _softmax
from ._checks import ArrayLike, Axis, AxisName
from ._reduction import Reduction, combine, times
from ._statistics import Form, along_classes, is_label, rows_to_classes


# x log y, with 0 log 0 = 0. The slope in y is x/y, which is 0 where x is 0, at y = 0
# too; the slope in x is log y, at y = 0 the largest finite negative number (see times).
@jax.custom_jvp
def x_log_y(x: Array, y: Array) -> Array:
    return times(x, jnp.log(y))


@x_log_y.defjvp
def _x_log_y_jvp(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    lowest = jnp.finfo(y.dtype).min
    nothing = (x == 0) & (y == 0)
    slope = jnp.where(nothing, jnp.zeros_like(x), x / jnp.where(nothing, x + 1, y))
    return x_log_y(x, y), jnp.maximum(jnp.log(y), lowest) * dx + slope * dy


# The same for y = 1 − p, where log(1 − p) keeps what 1 − p would round away.
@jax.custom_jvp
def x_log_1_minus(x: Array, p: Array) -> Array:
    return times(x, jnp.log1p(-p))


@x_log_1_minus.defjvp
def _x_log_1_minus_jvp(primals: Any, tangents: Any) -> Any:
    (x, p), (dx, dp) = primals, tangents
    lowest = jnp.finfo(p.dtype).min
    nothing = (x == 0) & (p == 1)
    slope = jnp.where(nothing, jnp.zeros_like(x), x / jnp.where(nothing, p, 1 - p))
    value = x_log_1_minus(x, p)
    return value, jnp.maximum(jnp.log1p(-p), lowest) * dx - slope * dp


# Binary -------------------------------------------------------------------------------


def _binary_of_probabilities(p: Array, y: Array, pos_weight: Array | None) -> Array:
    positive = y if pos_weight is None else pos_weight * y
    return -x_log_y(positive, p) - x_log_1_minus(1 - y, p)


def binary_cross_entropy(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
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
      labels: of the probabilities' shape, boolean, integer or floating.
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


# Categorical --------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _categorical(plan: _softmax.Plan, a: _softmax.Arrays) -> Array:
    axis, names, ndim = plan.axis, plan.class_axis_name, a.logits.ndim
    target = _labels.target(
        a.wanted, a.logits, axis, ids=plan.ids, class_axis_name=names
    )
    p = a.logits.astype(_checks.compute_dtype(a.logits))
    counted = target.keep
    if a.weights is not None:
        weighty = jnp.broadcast_to(a.weights != 0, _checks.row_shape(p.shape, axis))
        counted = weighty if counted is None else counted & weighty
    if counted is not None:  # whatever a dropped row holds
        usable = rows_to_classes(counted, axis) | (jnp.isfinite(p) & (p > 0))
        p = jnp.where(usable, p, jnp.ones_like(p))

    def over_classes(x: Array) -> Array:
        total = jnp.sum(x, axis)
        return lax.psum(total, names) if names else total

    w = jnp.ones((1,) * ndim, p.dtype)
    if target.class_weights is not None:
        w = along_classes(target.class_weights.astype(p.dtype), axis, ndim)
    if target.distribution is not None:
        losses = -over_classes(x_log_y(target.distribution, p))
        factor = target.mass
    else:
        assert target.labels is not None
        form = Form(axis, names)
        picked = is_label(form, target.labels, p.shape)
        fine = picked if target.mask is None else picked & target.mask
        fine = over_classes(fine.astype(jnp.int32)) > 0
        if counted is not None:
            fine |= ~counted
        _labels.report_bad_labels(
            a.wanted.labels, ~fine, p.shape[axis] * (lax.axis_size(names) if names else 1)
        )
        # NaN in a bad label's row, and in all of its gradient
        pick = jnp.where(rows_to_classes(fine, axis), picked.astype(p.dtype), jnp.nan)
        losses = -jnp.log(over_classes(pick * p))
        factor = None
        if target.class_weights is not None:
            factor = over_classes(jnp.where(picked, w, jnp.zeros_like(p)))
            factor = jnp.where(fine, factor, jnp.ones_like(factor))
            losses = times(factor, losses)
        if target.smoothing is not None and target.spread is not None:
            if target.mask is not None:
                w = jnp.where(target.mask, w, jnp.zeros_like(w))
            even = -over_classes(x_log_y(jnp.broadcast_to(w, p.shape), p))
            rest = jnp.broadcast_to(1 - target.smoothing, losses.shape)
            spread = jnp.broadcast_to(target.spread, losses.shape)
            losses = times(rest, losses) + times(spread, even)
    return combine(
        losses,
        keep=target.keep,
        weights=a.weights,
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
    label_smoothing: ArrayLike = 0.0,
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
      0 log 0 = 0. No clip: p = 0 where q > 0 gives +inf, as the formula says. A negative
      probability gives NaN. Dropped rows, masked classes and bad labels as in
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
    plan, arrays = _softmax.check(
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


# Entropy and divergences --------------------------------------------------------------


def _entropy(p: Array) -> Array:
    return -x_log_y(p, p)


def _kl(log_q: Array, t: Array) -> Array:
    return x_log_y(t, t) - times(t, log_q)


def _kl_log(log_q: Array, log_t: Array) -> Array:
    return times(jnp.exp(log_t), log_t - log_q)


def _generalized_kl(log_q: Array, t: Array) -> Array:
    return _kl(log_q, t) + jnp.exp(log_q) - t


class _Sum(NamedTuple):
    term: Callable[..., Array]
    axes: tuple[int, ...]


@functools.partial(jax.jit, static_argnums=0)
def _sum_of_terms(plan: _Sum, arrays: tuple[Array, ...], where: Array | None) -> Array:
    """Σ of the terms where `where` allows, in float32 or better."""
    dtype = _checks.compute_dtype(*arrays)
    values = [x.astype(dtype) for x in arrays]
    if where is None:
        return jnp.sum(plan.term(*values), plan.axes)
    # Twice: the terms left out must not poison the gradient either.
    safe = [jnp.where(where, x, jnp.full_like(x, 0.5)) for x in values]
    terms = plan.term(*safe)
    return jnp.sum(jnp.where(where, terms, jnp.zeros_like(terms)), plan.axes)


def _divergence(
    function: str,
    term: Callable[..., Array],
    axis: Axis,
    where: ArrayLike | None,
    **named: ArrayLike,
) -> Array:
    (name, first), *rest = named.items()
    x = _checks.floating(function, name, first)
    arrays = (x, *(_checks.floating(function, n, other) for n, other in rest))
    for other_name, other in zip(named, arrays, strict=True):
        if other.shape != x.shape:
            _checks.fail(
                function,
                f"expected {other_name} of the shape of {name}, {x.shape}, "
                f"got {other.shape}. Neither broadcasts.",
            )
    front = _checks.class_axis(function, name, x, axis)
    axes = front if isinstance(front, tuple) else (front,)
    mask = None
    if where is not None:
        if len(axes) == 1:
            rows, classes = _checks.row_or_class_mask(function, where, x.shape, axes[0])
            mask = classes if rows is None else rows_to_classes(rows, axes[0])
        else:
            mask = _checks.boolean(function, "where", where)
            mask = _checks.per_row(function, "where", mask, x.shape)
    return _sum_of_terms(_Sum(term, axes), arrays, mask)


def entropy(
    probs: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """The entropy of probabilities, in nats.

        H = −Σ_c p_c log p_c

    Args:
      probs: floating probabilities, shape (..., classes, ...); taken as they are.
      axis: the class axis, several, or None for all.
      where: boolean. Of the probabilities' rank: False leaves a class out. Of the rows'
        rank or a scalar: False makes the row 0.

    Returns:
      Entropies, of the probabilities' shape without `axis`; float32, or float64 for
      float64 probabilities. Divide by log 2 for bits.

    Numerics:
      0 log 0 = 0. The slope at p = 0 is +inf; the largest finite number stands for it,
      so that directions which leave p alone add 0. A negative probability gives NaN.

    Raises:
      TypeError: probs are not floating, or where is. ValueError: a shape does not fit.

    Example:
      >>> print(jxent.entropy(jnp.array([[0.5, 0.5], [1.0, 0.0]])))  # a coin, a certainty
      [0.69315 0.     ]

    Source:
      Shannon (1948), "A Mathematical Theory of Communication".

    See also:
      `softmax_entropy` for logits, `kl_divergence`.
    """
    return _divergence("entropy", _entropy, axis, where, probs=probs)


def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """The Kullback–Leibler divergence of predictions from targets, in nats.

        KL = Σ_c t_c (log t_c − log q_c)

    Args:
      log_predictions: log q, floating, shape (..., classes, ...).
      targets: t, probabilities of the same shape.
      axis, where: as in `entropy`.

    Returns:
      Divergences, of that shape without `axis`; float32, or float64 for float64 inputs.

    Numerics:
      0 log 0 = 0, and a log q of −inf where t = 0 counts 0; where t > 0 it gives +inf.
      Gradients there are finite, or as large as a finite number can be.

    Raises:
      TypeError: an input is not floating. ValueError: shapes differ.

    Example:
      >>> print(jxent.kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.array([1.0, 0.0])))
      0.69315

    Source:
      Optax's function of this name.

    See also:
      `kl_divergence_with_log_targets`, `generalized_kl_divergence`, `entropy`.
    """
    return _divergence(
        "kl_divergence",
        _kl,
        axis,
        where,
        log_predictions=log_predictions,
        targets=targets,
    )


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """The Kullback–Leibler divergence where the targets are logarithms too, in nats.

        KL = Σ_c exp(log t_c) (log t_c − log q_c)

    Args:
      log_predictions: log q, floating, shape (..., classes, ...).
      log_targets: log t, of the same shape.
      axis, where: as in `entropy`.

    Returns:
      Divergences, of that shape without `axis`; float32, or float64 for float64 inputs.

    Numerics:
      A log t of −inf counts 0, whatever log q is there.

    Raises:
      TypeError: an input is not floating. ValueError: shapes differ.

    Example:
      >>> log_q, log_t = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, -jnp.inf])
      >>> print(jxent.kl_divergence_with_log_targets(log_q, log_t))
      0.69315

    Source:
      Optax's function of this name.

    See also:
      `kl_divergence`.
    """
    return _divergence(
        "kl_divergence_with_log_targets",
        _kl_log,
        axis,
        where,
        log_predictions=log_predictions,
        log_targets=log_targets,
    )


def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """The Kullback–Leibler divergence of masses that need not sum to 1, in nats.

        KL = Σ_c t_c (log t_c − log q_c) + q_c − t_c

    Args:
      log_predictions: log q, floating, shape (..., classes, ...).
      targets: t ≥ 0, of the same shape.
      axis, where: as in `entropy`.

    Returns:
      Divergences, of that shape without `axis`; float32, or float64 for float64 inputs.

    Numerics:
      As in `kl_divergence`.

    Raises:
      TypeError: an input is not floating. ValueError: shapes differ.

    Example:
      >>> log_q = jnp.log(jnp.array([0.5, 0.5]))
      >>> print(jxent.generalized_kl_divergence(log_q, jnp.array([1.0, 0.5])))
      0.19315

    Source:
      Optax's function of this name; Csiszár (1975).

    See also:
      `kl_divergence`.
    """
    return _divergence(
        "generalized_kl_divergence",
        _generalized_kl,
        axis,
        where,
        log_predictions=log_predictions,
        targets=targets,
    )
