"""What Keras's calls accept, in Keras's words: every sentence of this facade."""

import warnings
from typing import Any

import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import row_shape
from .._checks import ArrayLike


REDUCTIONS = (
    "sum_over_batch_size",
    "sum",
    "mean",
    "mean_with_sample_weight",
    "none",
    None,
)


def reduction(function: str, value: str | None) -> None:
    if not isinstance(value, str | None) or value not in REDUCTIONS:
        raise ValueError(
            f"{function}: expected reduction to be one of {REDUCTIONS}, "
            f"got {_checks.shown(value)}."
        )


def labels(function: str, y_true: ArrayLike, *, ids: bool = False) -> Array:
    """Class ids, or numbers, whatever their dtype."""
    return _checks.label_array(function, "y_true", y_true, amounts=not ids)


def floating(function: str, y_pred: ArrayLike, y_true: ArrayLike) -> Array:
    """Keras casts its inputs: integers and booleans become float32."""
    x = _checks.as_array(function, "y_pred", y_pred)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if not jnp.issubdtype(x.dtype, jnp.integer) and x.dtype != jnp.bool_:
        raise TypeError(
            f"{function}: expected a y_pred of real numbers, got dtype {x.dtype}."
        )
    if _checks.exchanged(x, y_true):
        shape = _checks.array(y_true).shape
        question = (
            f"{function}: got {x.dtype} y_pred of shape {x.shape} beside floating "
            f"y_true of shape {shape}. Are they exchanged? Keras's call is "
            f"{function}(y_true, y_pred)."
        )
        if len(shape) > x.ndim and shape[-1] != 1:
            raise ValueError(question)
        warnings.warn(question, UserWarning, stacklevel=3)
    return x.astype(jnp.float32)


def class_ids(function: str, y_true: ArrayLike, y_pred: Array, axis: int) -> Array:
    """Integers of y_pred's shape without `axis`; Keras takes ids of any dtype."""
    y = labels(function, y_true, ids=True)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        y = y.astype(jnp.int32)
    if y.ndim == y_pred.ndim and y.shape[axis] == 1:
        y = y.squeeze(axis)
    rows = row_shape(y_pred.shape, axis)
    if y.shape != rows:
        hint = "Neither broadcasts."
        if y.shape == y_pred.shape:
            hint = "For one-hot labels or distributions call categorical_crossentropy."
        else:
            hint = _checks.rearranged("y_true", y.shape, rows) or hint
        raise ValueError(
            f"{function}: expected a y_true of class ids of shape {rows}, y_pred's "
            f"shape {y_pred.shape} without axis {axis}, got {y.shape}. {hint}"
        )
    return y


def ignore_class(function: str, value: Any, ids: Array) -> int | None:
    """None where no id can be it."""
    if value is None:
        return None
    value = _checks.integer(function, "ignore_class", value, alone="an int or None")
    info = jnp.iinfo(ids.dtype)
    return value if info.min <= value <= info.max else None


def alpha(function: str, value: ArrayLike, classes: int, dtype: jnp.dtype) -> Array:
    x = _checks.real(function, "alpha", value, dtype)
    if x.shape not in ((), (classes,)):
        raise ValueError(
            f"{function}: expected alpha to be a number or of shape {(classes,)}, one "
            f"for each class, got {x.shape}."
        )
    return x


def axis(function: str, x: Array, axis: Any) -> int:
    """`axis`, counted from the front."""
    axis = _checks.integer(function, "axis", axis)
    if x.ndim == 0:
        raise ValueError(
            f"{function}: expected a y_pred with at least one axis, got a scalar."
        )
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{function}: axis {axis} is out of range for a y_pred of shape {x.shape}."
        )
    return axis % x.ndim


def same_shape(function: str, y_true: Array, y_pred: Array) -> None:
    if y_true.shape == y_pred.shape:
        return
    hint = "Neither broadcasts."
    if y_true.ndim == y_pred.ndim - 1 and "categorical" in function:
        hint = "For class ids call sparse_categorical_crossentropy."
    else:
        hint = _checks.rearranged("y_true", y_true.shape, y_pred.shape) or hint
    raise ValueError(
        f"{function}: y_true and y_pred must have the same shape, got {y_true.shape} "
        f"and {y_pred.shape}. {hint}"
    )


def warn_of_one_class(function: str, y_pred: Array, axis: int) -> None:
    if y_pred.shape[axis] == 1:
        warnings.warn(
            f"{function}: expected at least two classes along axis {axis}, got a "
            f"y_pred of shape {y_pred.shape}. The loss of one class is always 0. For "
            "one number per binary label call binary_crossentropy.",
            SyntaxWarning,
            stacklevel=3,
        )


def sample_weight(function: str, weight: Array, losses: Array) -> Array:
    """A scalar, or the losses' first axes; axes of size 1 are stretched."""
    missing = losses.ndim - weight.ndim
    fits = missing >= 0 and all(
        a in (1, b) for a, b in zip(weight.shape, losses.shape, strict=False)
    )
    if weight.ndim and not fits:
        hint = "Weights multiply the losses, which have no class axis."
        if weight.shape == losses.shape[-weight.ndim :]:
            hint = "If these belong to the last axes, sample_weight[None]."
        raise ValueError(
            f"{function}: expected a sample_weight that is a scalar or has the first "
            f"axes of the losses' shape {losses.shape}, got {weight.shape}. {hint}"
        )
    return weight.reshape(weight.shape + (1,) * missing)


def noise(function: str, q: Any) -> None:
    """Keras's class takes a number alone, its function a traced one too."""
    _checks.number(function, "q", q, jnp.float32)
    if not 0 < q < 1:
        raise ValueError(f"{function}: expected q between 0 and 1, got {q!r}.")
