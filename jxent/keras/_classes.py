"""Keras's loss classes: each holds a function's options, and how to reduce."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from .. import (
    _checks as _core_checks,
    _reduction,
)
from .._checks import ArrayLike
from . import _binary, _categorical, _checks, _sparse


class _Loss:
    """Options, immutable, hashable, compared by value: a pytree without leaves."""

    reduction: str | None
    name: str | None
    dtype: Any
    _of_ids = False  # whether y_true are class ids

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_static(cls)

    def __post_init__(self) -> None:
        attributes = {k: _hashable(v) for k, v in vars(self).items()}
        attributes["name"] = self.name or type(self).name
        _checks.reduction(type(self).__name__, self.reduction)
        if self.dtype is not None:
            _core_checks.dtype(type(self).__name__, "dtype", self.dtype)
        vars(self).update(attributes)

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        """The losses before weights and reduction."""
        raise NotImplementedError

    def _counted(self, y_true: Array, losses: Array) -> Bool[Array, "..."] | None:
        """Which losses count, where options leave some out."""
        return None

    def __call__(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Float[Array, "..."]:
        name = type(self).__name__
        x = _checks.floating(name, y_pred, y_true)
        y, x = _same_rank(_checks.labels(name, y_true, ids=self._of_ids), x)
        losses = self.call(y, x)
        counted = self._counted(y, losses)
        weight = None
        if sample_weight is not None:
            weight = _core_checks.real(
                name, "sample_weight", sample_weight, losses.dtype, booleans=True
            )
            losses, weight = _same_rank(losses, weight)
            weight = _checks.sample_weight(name, weight, losses)
        if counted is not None:
            counted = counted.reshape(losses.shape)
        loss = _reduced(losses, counted, weight, self.reduction)
        return loss if self.dtype is None else loss.astype(jnp.dtype(self.dtype))

    def get_config(self) -> dict[str, Any]:
        """The options by name, from which `from_config` makes the same loss."""
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # pyright: ignore[reportArgumentType]
        if self.dtype is None:
            del config["dtype"]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Loss":
        return cls(**config)


def _hashable(value: Any) -> Any:
    if isinstance(value, list | np.ndarray | Array):
        value = np.asarray(value).tolist()
    return tuple(value) if isinstance(value, list) else value


def _same_rank(a: Array, b: Array) -> tuple[Array, Array]:
    """Drops or adds a last axis of size 1 where the ranks differ by one, as Keras."""
    if a.ndim == b.ndim + 1 and a.shape[-1] == 1:
        return (a, b[:, None]) if b.ndim == 1 else (a.squeeze(-1), b)
    if b.ndim == a.ndim + 1 and b.shape[-1] == 1:
        return (a[:, None], b) if a.ndim == 1 else (a, b.squeeze(-1))
    return a, b


def _reduced(
    losses: Array, counted: Array | None, weight: Array | None, reduction: str | None
) -> Array:
    how, normalizer = reduction, None
    if reduction in ("sum_over_batch_size", "mean"):
        how = "mean"
        normalizer = losses.size if counted is None else jnp.sum(counted)
    elif reduction == "mean_with_sample_weight":
        how = "mean"
    if reduction is None or losses.shape in ((), (0,)):
        how, normalizer = "none", None
    return _reduction.reduce(
        losses,
        where=counted,
        weights=weight,
        reduction=how,  # pyright: ignore[reportArgumentType]
        normalizer=normalizer,
    )


@dataclass(frozen=True)
class BinaryCrossentropy(_Loss):
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
class BinaryFocalCrossentropy(_Loss):
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
class CategoricalCrossentropy(_Loss):
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
class CategoricalFocalCrossentropy(_Loss):
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
class SparseCategoricalCrossentropy(_Loss):
    """`keras.losses.SparseCategoricalCrossentropy`, the function of that name, reduced.

    Args:
      from_logits: whether y_pred holds logits. Prefer them.
      ignore_class: the id whose rows get the loss 0. The class's mean leaves them out.
      reduction: "sum_over_batch_size" or "mean": the sum divided by the number of
        losses; "mean_with_sample_weight": by the sum of the sample weights; "sum";
        "none" or None: the losses themselves.
      axis: the class axis.
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
    name: str | None = "sparse_categorical_crossentropy"
    dtype: Any = None
    _of_ids = True

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Float[Array, "..."]:
        return _sparse.sparse_categorical_crossentropy(
            y_true, y_pred, self.from_logits, self.ignore_class, self.axis
        )

    def _counted(self, y_true: Array, losses: Array) -> Bool[Array, "..."] | None:
        ids = y_true.reshape(losses.shape).astype(jnp.int32)
        ignored = _checks.ignore_class(type(self).__name__, self.ignore_class, ids)
        return None if ignored is None else ids != ignored


@dataclass(frozen=True)
class KLDivergence(_Loss):
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
class CategoricalGeneralizedCrossEntropy(_Loss):
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
