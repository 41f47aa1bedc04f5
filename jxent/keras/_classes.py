"""Keras's loss classes: each holds a function's options, and how to reduce."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsIndex

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from .._checks import ArrayLike
from . import _binary, _categorical, _checks, _sparse
from ._loss import KerasLoss


@dataclass(frozen=True)
class BinaryCrossentropy(KerasLoss):
    """`keras.losses.BinaryCrossentropy`: `binary_crossentropy`, reduced.

    Args:
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε moves y towards ½, y (1 − ε) + ε/2. None for no smoothing.
      axis: the axis of the mean.
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      name: the loss's name; it changes nothing.
      dtype: the result's dtype; None for float32, or float64 for float64 predictions.

    Example:
      >>> loss = jxent.keras.BinaryCrossentropy()
      >>> print(loss(jnp.array([[0, 1], [0, 0]]), jnp.array([[0.6, 0.4], [0.4, 0.6]])))
      0.81492
    """

    from_logits: bool = False
    label_smoothing: Any = 0.0
    axis: SupportsIndex = -1
    reduction: str | None = "sum_over_batch_size"
    name: str | None = "binary_crossentropy"
    dtype: Any = None

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _binary.binary_crossentropy(
            y_true, y_pred, self.from_logits, self.label_smoothing, self.axis
        )


@dataclass(frozen=True)
class BinaryFocalCrossentropy(KerasLoss):
    """`keras.losses.BinaryFocalCrossentropy`: `binary_focal_crossentropy`, reduced.

    Args:
      apply_class_balancing: whether α_t counts; else it is 1, whatever alpha.
      alpha: α, between 0 and 1.
      gamma: γ, at least 0.
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε moves y towards ½, y (1 − ε) + ε/2. None for no smoothing.
      axis: the axis of the mean.
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      name: the loss's name; it changes nothing.
      dtype: the result's dtype; None for float32, or float64 for float64 predictions.

    Example:
      >>> loss = jxent.keras.BinaryFocalCrossentropy(gamma=2)
      >>> print(loss(jnp.array([[0, 1], [0, 0]]), jnp.array([[0.6, 0.4], [0.4, 0.6]])))
      0.26783
    """

    apply_class_balancing: bool = False
    alpha: Any = 0.25
    gamma: Any = 2.0
    from_logits: bool = False
    label_smoothing: Any = 0.0
    axis: SupportsIndex = -1
    reduction: str | None = "sum_over_batch_size"
    name: str | None = "binary_focal_crossentropy"
    dtype: Any = None

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _binary.binary_focal_crossentropy(
            y_true,
            y_pred,
            self.apply_class_balancing,
            self.alpha,
            self.gamma,
            self.from_logits,
            self.label_smoothing,
            self.axis,
        )


@dataclass(frozen=True)
class CategoricalCrossentropy(KerasLoss):
    """`keras.losses.CategoricalCrossentropy`: `categorical_crossentropy`, reduced.

    Args:
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε spreads a share of y evenly, y (1 − ε) + ε/C. None for no
        smoothing.
      axis: the class axis.
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      name: the loss's name; it changes nothing.
      dtype: the result's dtype; None for float32, or float64 for float64 predictions.

    Example:
      >>> loss = jxent.keras.CategoricalCrossentropy(from_logits=True)
      >>> y_true = jnp.array([[0, 1, 0], [0, 0, 1]])
      >>> print(loss(y_true, jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])))
      1.16723
    """

    from_logits: bool = False
    label_smoothing: Any = 0.0
    axis: SupportsIndex = -1
    reduction: str | None = "sum_over_batch_size"
    name: str | None = "categorical_crossentropy"
    dtype: Any = None

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _categorical.categorical_crossentropy(
            y_true, y_pred, self.from_logits, self.label_smoothing, self.axis
        )


@dataclass(frozen=True)
class CategoricalFocalCrossentropy(KerasLoss):
    """`keras.losses.CategoricalFocalCrossentropy`, the function of that name, reduced.

    Args:
      alpha: α, a number or one for each class.
      gamma: γ, at least 0.
      from_logits: whether y_pred holds logits. Prefer them.
      label_smoothing: ε spreads a share of y evenly, y (1 − ε) + ε/C. None for no
        smoothing.
      axis: the class axis.
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      name: the loss's name; it changes nothing.
      dtype: the result's dtype; None for float32, or float64 for float64 predictions.

    Example:
      >>> loss = jxent.keras.CategoricalFocalCrossentropy(alpha=[0.25, 0.5, 0.25])
      >>> y_true = jnp.array([[0, 1, 0], [0, 0, 1]])
      >>> print(loss(y_true, jnp.array([[0.05, 0.9, 0.05], [0.1, 0.85, 0.05]])))
      0.33822
    """

    alpha: Any = 0.25
    gamma: Any = 2.0
    from_logits: bool = False
    label_smoothing: Any = 0.0
    axis: SupportsIndex = -1
    reduction: str | None = "sum_over_batch_size"
    name: str | None = "categorical_focal_crossentropy"
    dtype: Any = None

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _categorical.categorical_focal_crossentropy(
            y_true,
            y_pred,
            self.alpha,
            self.gamma,
            self.from_logits,
            self.label_smoothing,
            self.axis,
        )


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(KerasLoss):
    """`keras.losses.SparseCategoricalCrossentropy`, the function of that name, reduced.

    Args:
      from_logits: whether y_pred holds logits. Prefer them.
      ignore_class: the id whose rows get the loss 0. The class's mean leaves them out.
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      axis: the class axis.
      label_smoothing: ε spreads a share of y evenly, y (1 − ε) + ε/C. None for no
        smoothing. Keras has it after version 3.15.
      name: the loss's name; it changes nothing.
      dtype: the result's dtype; None for float32, or float64 for float64 predictions.

    Example:
      >>> loss = jxent.keras.SparseCategoricalCrossentropy(ignore_class=-1)
      >>> y_pred = jnp.array([[0.05, 0.95, 0], [0.1, 0.8, 0.1]])
      >>> print(loss(jnp.array([1, -1]), y_pred))
      0.05129
    """

    from_logits: bool = False
    ignore_class: SupportsIndex | None = None
    reduction: str | None = "sum_over_batch_size"
    axis: SupportsIndex = -1
    label_smoothing: Any = 0.0
    name: str | None = "sparse_categorical_crossentropy"
    dtype: Any = None
    _of_ids = True

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _sparse.sparse_categorical_crossentropy(
            y_true,
            y_pred,
            self.from_logits,
            self.ignore_class,
            self.axis,
            self.label_smoothing,
        )

    def _counted(self, y_true: Array, losses: Array) -> Bool[Array, "..."] | None:
        ids = y_true.reshape(losses.shape).astype(jnp.int32)
        ignored = _checks.ignore_class(type(self).__name__, self.ignore_class, ids)
        return None if ignored is None else ids != ignored


@dataclass(frozen=True)
class KLDivergence(KerasLoss):
    """`keras.losses.KLDivergence`: `kl_divergence`, reduced.

    Args:
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      name: the loss's name; it changes nothing.
      dtype: the result's dtype; None for float32, or float64 for float64 predictions.

    Example:
      >>> loss = jxent.keras.KLDivergence()
      >>> print(loss(jnp.array([[0.5, 0.5]]), jnp.array([[0.9, 0.1]])))
      0.51083
    """

    reduction: str | None = "sum_over_batch_size"
    name: str | None = "kl_divergence"
    dtype: Any = None

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _categorical.kl_divergence(y_true, y_pred)


@dataclass(frozen=True)
class CategoricalGeneralizedCrossEntropy(KerasLoss):
    """`keras.losses.CategoricalGeneralizedCrossEntropy`, reduced.

    Args:
      q: the noise parameter, between 0 and 1.
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      name: the loss's name; it changes nothing.
      dtype: the result's dtype; None for float32, or float64 for float64 predictions.

    Example:
      >>> loss = jxent.keras.CategoricalGeneralizedCrossEntropy(q=0.5)
      >>> print(loss(jnp.array([0, 0]), jnp.array([[0.81, 0.19], [0.36, 0.64]])))
      0.5
    """

    q: Any = 0.5
    reduction: str | None = "sum_over_batch_size"
    name: str | None = "categorical_generalized_cross_entropy"
    dtype: Any = None
    _of_ids = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.noise(type(self).__name__, self.q)

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _sparse.categorical_generalized_cross_entropy(y_true, y_pred, self.q)
