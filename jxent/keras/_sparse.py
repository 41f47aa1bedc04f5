"""Losses of class ids: Keras's arguments, mapped onto jxent's losses."""

from __future__ import annotations

import functools
from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks as _core_checks
from .._arrays import compute_dtype, over_classes, select
from .._checks import ArrayLike
from .._labels.at_label import entry_at_label
from .._probabilities.generalized import generalized
from .._softmax.cross_entropy import softmax_cross_entropy
from . import _checks
from ._conventions import at_least_two, log, mean, normalized, share_of


def sparse_categorical_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    ignore_class: SupportsIndex | None = None,
    axis: SupportsIndex = -1,
    label_smoothing: ArrayLike | None = 0.0,
) -> Float[Array, "..."]:
    """`keras.losses.sparse_categorical_crossentropy` of class ids.

        loss = −(1 − ε) log p_y − ε/C Σ_c log p_c,   p divided by its sum, at least 1e-7

    Args:
      y_true: class ids, of y_pred's shape without `axis`, or with 1 there; any dtype,
        which is cast to integers.
      y_pred: p, or with from_logits the logits of p, any shape.
      from_logits: whether y_pred holds logits. Prefer them.
      ignore_class: the id whose rows get the loss 0. The class's mean leaves them out.
      axis: the class axis.
      label_smoothing: ε spreads a share of y evenly, y (1 − ε) + ε/C. None for no
        smoothing. Keras has it after version 3.15.

    Returns:
      The losses, of y_pred's shape without `axis`; float32, or float64 for a float64
      y_pred.

    Differences:
      An id that is out of range gives NaN in value and gradient; Keras counts 0 for it.
      The derivative at a p below 1e-7 is that of the logarithm, not 0. A logit of −inf
      on another class is no NaN. An ignored row has the gradient 0 whatever it holds.
      Any axis works. bfloat16 and float16 are computed in float32.

    Example:
      >>> y_true = jnp.array([1, 2])
      >>> y_pred = jnp.array([[0.05, 0.95, 0], [0.1, 0.8, 0.1]])
      >>> print(jxent.keras.sparse_categorical_crossentropy(y_true, y_pred))
      [0.05129 2.30259]

    Source:
      Keras's function of this name.

    See also:
      `jxent.softmax_cross_entropy`.
    """
    name = "sparse_categorical_crossentropy"
    x = _checks.floating(name, y_pred, y_true)
    axis = _checks.axis(name, x, axis)
    y = _checks.class_ids(name, y_true, x, axis)
    ignored = _checks.ignore_class(name, ignore_class, y)
    smoothing = share_of(name, label_smoothing, x)
    from_logits = _core_checks.flag(name, "from_logits", from_logits)
    return _sparse_categorical_crossentropy(
        y, x, smoothing, from_logits=from_logits, ignore_class=ignored, axis=axis
    )


@functools.partial(jax.jit, static_argnames=("from_logits", "ignore_class", "axis"))
def _sparse_categorical_crossentropy(
    y: Array,
    x: Array,
    smoothing: Array | None,
    *,
    from_logits: bool,
    ignore_class: int | None,
    axis: int,
) -> Array:
    x, from_logits = at_least_two(x, from_logits, axis)
    if from_logits:
        return softmax_cross_entropy(
            x, y, axis, ignore_index=ignore_class, label_smoothing=smoothing
        )
    keep = None
    if ignore_class is not None:
        keep = y != jnp.asarray(ignore_class, y.dtype)
        # before the sum, for its derivative's sake
        x = select(over_classes(keep, axis, x), x, 1)
    p = normalized(x, axis)
    losses = -log(entry_at_label(p, y, axis, keep))
    if smoothing is not None:
        losses = (1 - smoothing) * losses - smoothing * mean(log(p), axis)
    return losses if keep is None else select(keep, losses)


def categorical_generalized_cross_entropy(
    y_true: ArrayLike, y_pred: ArrayLike, q: ArrayLike
) -> Float[Array, "..."]:
    """`keras.losses.categorical_generalized_cross_entropy` of class ids.

        loss = (1 − p_y^q)/q, between −log p_y (q → 0) and 1 − p_y (q = 1)

    Args:
      y_true: class ids, of y_pred's shape without its last axis, or with 1 there; any
        dtype, which is cast to integers.
      y_pred: p, probabilities, shape (..., classes); nothing normalizes them.
      q: the noise parameter, between 0 and 1.

    Returns:
      The losses, of y_pred's shape without the last axis; float32, or float64 for a
      float64 y_pred.

    Differences:
      An id that is out of range gives NaN in value and gradient; Keras counts 1/q for
      it. The gradient at p_y = 0 is a huge number, not −inf, so that a softmax before
      it adds 0 and not NaN. Ids of shape (batch, 1) are the ids of the batch.

    Example:
      >>> y_pred = jnp.array([[0.81, 0.19], [0.36, 0.64]])
      >>> print(jxent.keras.categorical_generalized_cross_entropy(
      ...     jnp.array([0, 0]), y_pred, q=0.5))
      [0.2 0.8]

    Source:
      Keras's function of this name; Zhang and Sabuncu (2018),
      https://arxiv.org/abs/1805.07836.

    See also:
      `jxent.generalized_cross_entropy` of logits.
    """
    name = "categorical_generalized_cross_entropy"
    x = _checks.floating(name, y_pred, y_true)
    axis = _checks.axis(name, x, -1)
    y = _checks.class_ids(name, y_true, x, axis)
    q = _core_checks.number(name, "q", q, compute_dtype(x), above=0)
    return _generalized(y, x, q)


@jax.jit
def _generalized(y: Array, x: Array, q: Array) -> Array:
    return generalized(entry_at_label(x.astype(q.dtype), y, x.ndim - 1), q)
