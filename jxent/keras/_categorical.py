"""Losses of distributions over classes: Keras's arguments, mapped onto jxent's."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import (
    _checks as _core_checks,
    _formulas as formulas,
)
from .._arrays import compute_dtype, over_rows
from .._checks import ArrayLike
from .._probabilities.divergence import kl_divergence as _kl_divergence
from .._softmax.cross_entropy import softmax_cross_entropy
from .._softmax.focal_and_poly import softmax_focal_loss
from . import _checks
from ._conventions import (
    EPSILON,
    at_least_two,
    class_sum,
    compiled,
    log,
    normalized,
    share_of,
    smoothed,
)


def categorical_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    label_smoothing: ArrayLike | None = 0.0,
    axis: SupportsIndex = -1,
) -> Float[Array, "..."]:
    """`keras.losses.categorical_crossentropy` of one-hot labels or distributions.

        loss = −Σ_c y_c log p_c,   p divided by its sum and kept from 0 by 1e-7

    Args:
      y_true: y, of y_pred's shape, any dtype.
      y_pred: p, or with from_logits the logits of p, any shape.
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε spreads a share of y evenly, y (1 − ε) + ε/C. None for no
        smoothing.
      axis: the class axis.

    Returns:
      The losses, of y_pred's shape without `axis`; float32, or float64 for a float64
      y_pred.

    Differences:
      The derivative at a p below 1e-7 is that of the logarithm, not 0. A class of mass
      0 at a logit of −inf adds 0, not NaN. Smoothing counts the classes along `axis`;
      Keras up to version 3.15 those of the last axis. bfloat16 and float16 are computed
      in float32.

    Example:
      >>> y_true = jnp.array([[0, 1, 0], [0, 0, 1]])
      >>> y_pred = jnp.array([[0.05, 0.95, 0], [0.1, 0.8, 0.1]])
      >>> print(jxent.keras.categorical_crossentropy(y_true, y_pred))
      [0.05129 2.30259]

    Source:
      Keras's function of this name.

    See also:
      `jxent.softmax_cross_entropy`, `jxent.categorical_cross_entropy`.
    """
    name = "categorical_crossentropy"
    x = _checks.floating(name, y_pred, y_true)
    y = _checks.labels(name, y_true)
    axis = _checks.axis(name, x, axis)
    _checks.same_shape(name, y, x)
    _checks.warn_of_one_class(name, x, axis)
    smoothing = share_of(name, label_smoothing, x)
    from_logits = _core_checks.flag(name, "from_logits", from_logits)
    return _categorical_crossentropy(
        y, x, smoothing, from_logits=from_logits, axis=axis
    )


@compiled
def _categorical_crossentropy(
    y: Array, x: Array, smoothing: Array | None, *, from_logits: bool, axis: int
) -> Array:
    x, from_logits = at_least_two(x, from_logits, axis)
    y = smoothed(y.astype(x.dtype), smoothing, axis)
    if from_logits:
        return softmax_cross_entropy(x, y, axis)
    return class_sum(formulas.cross_entropy(log(normalized(x, axis))), y, axis)


def categorical_focal_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    alpha: ArrayLike = 0.25,
    gamma: ArrayLike = 2.0,
    from_logits: bool = False,
    label_smoothing: ArrayLike | None = 0.0,
    axis: SupportsIndex = -1,
) -> Float[Array, "..."]:
    """`keras.losses.categorical_focal_crossentropy`.

        loss = −Σ_c α_c y_c (1 − p_c)^γ log p_c

    Args:
      y_true: y, of y_pred's shape, any dtype.
      y_pred: p, or with from_logits the logits of p, any shape.
      alpha: α, a number or one for each class.
      gamma: γ, at least 0.
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε spreads a share of y evenly, y (1 − ε) + ε/C. None for no
        smoothing.
      axis: the class axis.

    Returns:
      As `categorical_crossentropy`.

    Differences:
      As in `categorical_crossentropy`. Logits are computed as logits: where p is below
      1e-7 Keras's loss stops and its gradient is 0. alpha lies along `axis`.

    Example:
      >>> y_true = jnp.array([[0, 1, 0], [0, 0, 1]])
      >>> y_pred = jnp.array([[0.05, 0.9, 0.05], [0.1, 0.85, 0.05]])
      >>> print(jxent.keras.categorical_focal_crossentropy(y_true, y_pred))
      [0.00026 0.67591]

    Source:
      Keras's function of this name; Lin et al., https://arxiv.org/abs/1708.02002.

    See also:
      `jxent.softmax_focal_loss`.
    """
    name = "categorical_focal_crossentropy"
    x = _checks.floating(name, y_pred, y_true)
    y = _checks.labels(name, y_true)
    axis = _checks.axis(name, x, axis)
    _checks.same_shape(name, y, x)
    _checks.warn_of_one_class(name, x, axis)
    dtype = compute_dtype(x)
    return _categorical_focal_crossentropy(
        y,
        x,
        share_of(name, label_smoothing, x),
        _checks.alpha(name, alpha, x.shape[axis], dtype),
        _core_checks.number(name, "gamma", gamma, dtype, low=0),
        from_logits=_core_checks.flag(name, "from_logits", from_logits),
        axis=axis,
    )


@compiled
def _categorical_focal_crossentropy(
    y: Array,
    x: Array,
    smoothing: Array | None,
    alpha: Array,
    gamma: Array,
    *,
    from_logits: bool,
    axis: int,
) -> Array:
    x, from_logits = at_least_two(x, from_logits, axis)
    y = smoothed(y.astype(x.dtype), smoothing, axis)
    alpha = jnp.broadcast_to(alpha, x.shape[axis : axis + 1])
    if from_logits:
        return softmax_focal_loss(x, y, axis, gamma=gamma, class_weights=alpha)
    losses = formulas.focal(log(normalized(x, axis)), gamma)
    return class_sum(losses, over_rows(alpha, axis, x) * y, axis)


def kl_divergence(y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
    """`keras.losses.kl_divergence` of probabilities, along the last axis.

        loss = Σ_c y_c log(y_c / p_c),   both kept in [1e-7, 1]

    Args:
      y_true: y, of y_pred's shape, any dtype.
      y_pred: p, probabilities, shape (..., classes).

    Returns:
      The divergences, of y_pred's shape without the last axis; float32, or float64 for
      a float64 y_pred.

    Differences:
      The derivative at a p below 1e-7 is that of the logarithm, not 0. bfloat16 and
      float16 are computed in float32.

    Example:
      >>> print(jxent.keras.kl_divergence(jnp.array([0.5, 0.5]), jnp.array([0.9, 0.1])))
      0.51083

    Source:
      Keras's function of this name.

    See also:
      `jxent.kl_divergence`, for which 0 log 0 = 0 exactly.
    """
    name = "kl_divergence"
    x = _checks.floating(name, y_pred, y_true)
    y = _checks.labels(name, y_true)
    _checks.axis(name, x, -1)
    _checks.same_shape(name, y, x)
    return _kl_divergence_of(y, x)


@jax.jit
def _kl_divergence_of(y: Array, x: Array) -> Array:
    x = x.astype(compute_dtype(x))
    return _kl_divergence(log(x), jnp.clip(y.astype(x.dtype), EPSILON, 1))
