"""What Keras's loss classes share: options, weights and the reduction."""

from __future__ import annotations

import dataclasses
from typing import Any

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
from . import _checks


class KerasLoss:
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
    def from_config(cls, config: dict[str, Any]) -> "KerasLoss":
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
