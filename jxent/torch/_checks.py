"""What PyTorch's calls accept, in PyTorch's words: every sentence of this facade."""

import warnings
from typing import Any

import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from .. import _checks
from .._checks import ArrayLike


def reduction(
    function: str,
    value: str,
    size_average: bool | None,
    reduce: bool | None,
    allowed: tuple[str, ...] = _checks.REDUCTIONS,
) -> str:
    """`reduction`, or what PyTorch's two older arguments for it ask for."""
    if size_average is not None or reduce is not None:
        value = "none"
        if reduce is not False:
            value = "sum" if size_average is False else "mean"
        warnings.warn(
            f"{function}: size_average and reduce are deprecated in PyTorch. "
            f"Write reduction={value!r}.",
            DeprecationWarning,
            stacklevel=4,
        )
    if value not in allowed:
        raise ValueError(
            f"{function}: expected reduction to be one of {allowed}, got {value!r}."
        )
    return value


def floating(function: str, name: str, x: ArrayLike) -> Array:
    x = _checks.array(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{function}: expected a floating {name}, got dtype {x.dtype}. "
            f"Cast it, {name}.astype(jnp.float32)."
        )
    return x


def same_shape(function: str, x: Array, target: Array) -> None:
    if x.shape == target.shape:
        return
    hint = "Neither broadcasts; give every element of the input its own target."
    if target.shape == (*x.shape, 1):
        hint = "Drop the target's last axis, target.squeeze(-1)."
    elif x.shape == (*target.shape, 1):
        hint = "Drop the input's last axis, input.squeeze(-1)."
    raise ValueError(
        f"{function}: expected a target of the input's shape {x.shape}, "
        f"got {target.shape}. {hint}"
    )


def class_axis(function: str, x: Array | ShapeDtypeStruct, of: str = "an input") -> int:
    """Axis 1, or 0 for one example without a batch."""
    if x.ndim == 0:
        raise ValueError(
            f"{function}: expected an input of shape (C,), (N, C) or (N, C, d1, …), "
            "got a scalar."
        )
    axis = 0 if x.ndim == 1 else 1
    if x.shape[axis] < 2:
        raise ValueError(
            f"{function}: expected at least two classes along axis {axis}, got {of} "
            f"of shape {x.shape}. The loss of one class is always 0. For one "
            "number per yes/no target call binary_cross_entropy_with_logits."
        )
    return axis


def class_indices(
    function: str,
    x: Array | ShapeDtypeStruct,
    target: Array,
    axis: int,
    *,
    or_probabilities: bool,
    of: str = "an input",
) -> bool:
    """Whether the target holds class indices; else it holds probabilities."""
    rows = _checks.row_shape(x.shape, axis)
    if or_probabilities and target.shape == x.shape:
        floating_target(function, target)
        return False
    if target.shape != rows:
        wanted = f"class indices of shape {rows}"
        if or_probabilities:
            wanted += f" or class probabilities of shape {x.shape}"
        hint = "Targets never broadcast."
        if target.shape == (*rows[:axis], 1, *rows[axis:]):
            hint = f"Drop the target's class axis, target.squeeze({axis})."
        elif x.ndim > 2 and target.shape == x.shape[:-1]:
            hint = (
                "Classes belong on axis 1; if yours are last, "
                "jnp.moveaxis(input, -1, 1)."
            )
        raise ValueError(
            f"{function}: expected {wanted} for {of} of shape {x.shape}, "
            f"got a target of shape {target.shape}. {hint}"
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(
            f"{function}: expected integer class indices, got a target of dtype "
            f"{target.dtype}. Cast it, target.astype(jnp.int32)."
        )
    return True


def floating_target(function: str, target: Array) -> None:
    if not jnp.issubdtype(target.dtype, jnp.floating):
        raise TypeError(
            f"{function}: a target of shape {target.shape}, with a class axis, holds "
            f"probabilities: expected a floating dtype, got {target.dtype}. Class "
            "indices have no class axis."
        )


def ignore_index(function: str, value: Any, target: Array) -> int | None:
    """None where no target can be it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{function}: expected ignore_index to be an int, got {value}.")
    info = jnp.iinfo(target.dtype)
    return value if info.min <= value <= info.max else None


def probabilities_ignore_nothing(function: str, value: Any) -> None:
    """A negative index counts as none given: it is PyTorch's default."""
    if isinstance(value, int) and value >= 0:
        raise ValueError(
            f"{function}: ignore_index={value} needs class indices, got class "
            "probabilities. Leave it out; a row of zeros counts nothing in the sum."
        )


def class_weight(
    function: str, weight: ArrayLike | None, classes: int, dtype: jnp.dtype
) -> Array | None:
    if weight is None:
        return None
    w = _checks.array(weight)
    if w.shape != (classes,):
        raise ValueError(
            f"{function}: expected a weight of shape {(classes,)}, one for each class, "
            f"got {w.shape}."
        )
    return w.astype(dtype)


def from_the_right(
    function: str,
    name: str,
    weight: ArrayLike | None,
    shape: tuple[int, ...],
    dtype: jnp.dtype,
) -> Array | None:
    """A weight that broadcasts to `shape`, with all of its axes."""
    if weight is None:
        return None
    w = _checks.array(weight)
    missing = len(shape) - w.ndim
    if missing < 0 or any(
        a not in (1, b) for a, b in zip(w.shape, shape[missing:], strict=True)
    ):
        raise ValueError(
            f"{function}: expected a {name} that broadcasts to the target's shape "
            f"{shape}, got {w.shape}."
        )
    return w.astype(dtype).reshape((1,) * missing + w.shape)


def smoothing(function: str, value: Any, dtype: jnp.dtype) -> Array | None:
    """None for a Python 0."""
    _checks.number(function, "label_smoothing", value, low=0, high=1)
    return _checks.off_or_scalar(function, "label_smoothing", value, dtype)


def linear(
    function: str, x: Array, linear_weight: Array, linear_bias: Array | None
) -> tuple[int, ...]:
    """The shape of the logits that the layer would give."""
    if x.ndim not in (1, 2):
        raise ValueError(
            f"{function}: expected an input of shape (in_features,) or "
            f"(N, in_features), got {x.shape}."
        )
    if linear_weight.ndim < 2 or linear_weight.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"{function}: expected a linear_weight of shape (C, {x.shape[-1]}) or "
            f"(C, d1, …, {x.shape[-1]}) for an input of shape {x.shape}, "
            f"got {linear_weight.shape}."
        )
    if linear_weight.ndim > 2 and x.ndim == 1:
        raise ValueError(
            f"{function}: a linear_weight of shape {linear_weight.shape} needs an "
            f"input of shape (N, {x.shape[-1]}), got {x.shape}. Add the batch axis, "
            "input[None]."
        )
    outputs = linear_weight.shape[:-1]
    if linear_bias is not None and linear_bias.shape != outputs:
        raise ValueError(
            f"{function}: expected a linear_bias of shape {outputs}, "
            f"got {linear_bias.shape}."
        )
    return (*x.shape[:-1], *outputs)


def broadcastable(function: str, x: Array, target: Array) -> None:
    pairs = zip(reversed(x.shape), reversed(target.shape), strict=False)
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise ValueError(
            f"{function}: expected input and target whose shapes broadcast, "
            f"got {x.shape} and {target.shape}."
        )


def with_classes(function: str, x: Array) -> None:
    if x.ndim == 0:
        raise ValueError(
            f"{function}: expected an input of shape (C,) or (N, C), got a scalar."
        )
