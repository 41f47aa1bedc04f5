"""Losses of binary labels: Keras's arguments, mapped onto jxent's losses."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from typing import SupportsIndex

from jax import Array
from jaxtyping import Float

from .. import (
    _checks as _core_checks,
    _sigmoid,
)
from .._arrays import compute_dtype
from .._checks import ArrayLike
from . import _checks
from ._conventions import compiled, log, log_1_minus, mean, share_of, towards_half


def binary_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    label_smoothing: ArrayLike | None = 0.0,
    axis: SupportsIndex = -1,
) -> Float[Array, "..."]:
    """`keras.losses.binary_crossentropy`: the mean over an axis.

        loss = mean_c −(y log p + (1 − y) log(1 − p)),   p kept in [1e-7, 1 − 1e-7]

    Args:
      y_true: y, of y_pred's shape, any dtype.
      y_pred: p, or with from_logits the logits of p, any shape.
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε moves y towards ½, y (1 − ε) + ε/2. None for no
        smoothing.
      axis: the axis of the mean.

    Returns:
      The losses, of y_pred's shape without `axis`; float32, or float64 for a float64
      y_pred.

    Differences:
      The derivative at a p outside [1e-7, 1 − 1e-7] is that of the logarithm; Keras's
      is 0, and a model that is confidently wrong learns nothing. An infinite logit
      gives the mathematical value, not NaN. bfloat16 and float16 are computed in
      float32.

    Example:
      >>> y_true = jnp.array([[0, 1], [0, 0]])
      >>> y_pred = jnp.array([[0.6, 0.4], [0.4, 0.0]])
      >>> print(jxent.keras.binary_crossentropy(y_true, y_pred))
      [0.91629 0.25541]

    Source:
      Keras's function of this name.

    See also:
      `jxent.sigmoid_binary_cross_entropy`, `jxent.binary_cross_entropy`.
    """
    name = "binary_crossentropy"
    x = _checks.floating(name, y_pred, y_true)
    y = _checks.labels(name, y_true)
    axis = _checks.axis(name, x, axis)
    _checks.same_shape(name, y, x)
    smoothing = share_of(name, label_smoothing, x)
    from_logits = _core_checks.flag(name, "from_logits", from_logits)
    return _binary_crossentropy(y, x, smoothing, from_logits=from_logits, axis=axis)


@compiled
def _binary_crossentropy(
    y: Array, x: Array, smoothing: Array | None, *, from_logits: bool, axis: int
) -> Array:
    x = x.astype(compute_dtype(x))
    if from_logits:
        smoothed = 0.0 if smoothing is None else smoothing
        return mean(
            _sigmoid.sigmoid_binary_cross_entropy(x, y, label_smoothing=smoothed), axis
        )
    y = towards_half(y.astype(x.dtype), smoothing)
    return mean(_sigmoid.binary(log(x), log_1_minus(x), y, None), axis)


def binary_focal_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    apply_class_balancing: bool = False,
    alpha: ArrayLike | None = 0.25,
    gamma: ArrayLike = 2.0,
    from_logits: bool = False,
    label_smoothing: ArrayLike | None = 0.0,
    axis: SupportsIndex = -1,
) -> Float[Array, "..."]:
    """`keras.losses.binary_focal_crossentropy`: the mean over an axis.

        loss = mean_c α_t (1 − p_t)^γ · −(y log p + (1 − y) log(1 − p))
        p_t = y p + (1 − y)(1 − p),   α_t = y α + (1 − y)(1 − α), or 1

    Args:
      y_true: y, of y_pred's shape, any dtype.
      y_pred: p, or with from_logits the logits of p, any shape.
      apply_class_balancing: whether α_t counts; else it is 1, whatever alpha.
      alpha: α, between 0 and 1.
      gamma: γ, at least 0.
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε moves y towards ½, y (1 − ε) + ε/2. None for no smoothing.
      axis: the axis of the mean.

    Returns:
      As `binary_crossentropy`.

    Differences:
      As in `binary_crossentropy`. Logits are computed as logits: beyond ±16 Keras's
      loss stops at 16 and its gradient at 0.

    Example:
      >>> y_true = jnp.array([[0, 1], [0, 0]])
      >>> y_pred = jnp.array([[0.6, 0.4], [0.4, 0.6]])
      >>> print(jxent.keras.binary_focal_crossentropy(y_true, y_pred))
      [0.32986 0.2058 ]

    Source:
      Keras's function of this name; Lin et al., https://arxiv.org/abs/1708.02002.

    See also:
      `jxent.sigmoid_focal_loss`.
    """
    name = "binary_focal_crossentropy"
    x = _checks.floating(name, y_pred, y_true)
    y = _checks.labels(name, y_true)
    axis = _checks.axis(name, x, axis)
    _checks.same_shape(name, y, x)
    dtype = compute_dtype(x)
    balance = _core_checks.flag(name, "apply_class_balancing", apply_class_balancing)
    if balance or alpha is not None:
        alpha = _core_checks.number(name, "alpha", alpha, dtype, low=0, high=1)
    return _binary_focal_crossentropy(
        y,
        x,
        share_of(name, label_smoothing, x),
        _core_checks.number(name, "gamma", gamma, dtype, low=0),
        alpha if balance else None,
        from_logits=_core_checks.flag(name, "from_logits", from_logits),
        axis=axis,
    )


@compiled
def _binary_focal_crossentropy(
    y: Array,
    x: Array,
    smoothing: Array | None,
    gamma: Array,
    alpha: Array | None,
    *,
    from_logits: bool,
    axis: int,
) -> Array:
    x = x.astype(compute_dtype(x))
    y = towards_half(y.astype(x.dtype), smoothing)
    if from_logits:
        losses = _sigmoid.sigmoid_focal_loss(x, y, gamma=gamma, alpha=alpha)
    else:
        log_p, log_q = log(x), log_1_minus(x)
        losses = _sigmoid.binary_focal(log_p - log_q, log_p, log_q, y, gamma, alpha)
    return mean(losses, axis)
