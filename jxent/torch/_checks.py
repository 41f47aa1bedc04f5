"""What PyTorch's calls accept, in PyTorch's words: every sentence of this facade."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from .. import _checks
from .._arrays import row_shape
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
        older = {"size_average": size_average, "reduce": reduce}
        average, reduces = (
            True if x is None else _checks.flag(function, name, x)
            for name, x in older.items()
        )
        value = "none"
        if reduces:
            value = "mean" if average else "sum"
        warnings.warn(
            f"{function}: size_average and reduce are deprecated in PyTorch. "
            f"Write reduction={value!r}.",
            DeprecationWarning,
            stacklevel=4,
        )
    _checks.one_of(function, "reduction", value, allowed, optional=False)
    return value


def floating(
    function: str,
    name: str,
    x: ArrayLike,
    *,
    beside: ArrayLike | None = None,
    order: str = "input, target",
) -> Array:
    """`x`, of a floating dtype; `beside` is the target, the last of `order`."""
    x = _checks.as_array(function, name, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        remedy = f"Cast it, {name}.astype(jnp.float32)."
        if _checks.exchanged(x, beside):
            remedy = (
                f"Are {name} and target exchanged? The call is {function}({order})."
            )
        raise TypeError(
            f"{function}: expected a floating {name}, got dtype {x.dtype}. {remedy}"
        )
    return x


def target(function: str, x: ArrayLike) -> Array:
    return _checks.label_array(function, "target", x)


def same_shape(function: str, x: Array, target: Array) -> None:
    if x.shape == target.shape:
        return
    hint = "Neither broadcasts; give every element of the input its own target."
    if target.shape == (*x.shape, 1):
        hint = "Drop the target's last axis, target.squeeze(-1)."
    elif x.shape == (*target.shape, 1):
        hint = "Drop the input's last axis, input.squeeze(-1)."
    else:
        hint = _checks.rearranged("target", target.shape, x.shape) or hint
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
            "number per binary target call binary_cross_entropy_with_logits."
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
    rows = row_shape(x.shape, axis)
    if or_probabilities and target.shape == x.shape:
        floating_target(function, target)
        return False
    if target.shape != rows:
        shapes = f"class indices of shape {rows}"
        if or_probabilities:
            shapes += f" or class probabilities of shape {x.shape}"
        hint = "Targets never broadcast."
        if target.shape == (*rows[:axis], 1, *rows[axis:]):
            hint = f"Drop the target's class axis, target.squeeze({axis})."
        elif x.ndim > 2 and target.shape == x.shape[:-1]:
            hint = (
                "Classes belong on axis 1; if yours are last, "
                "jnp.moveaxis(input, -1, 1)."
            )
        else:
            probable = _checks.rearranged("target", target.shape, rows)
            if or_probabilities and not probable:
                probable = _checks.rearranged("target", target.shape, x.shape, axis)
            hint = probable or hint
        raise ValueError(
            f"{function}: expected {shapes} for {of} of shape {x.shape}, "
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
    value = _checks.integer(function, "ignore_index", value)
    info = jnp.iinfo(target.dtype)
    return value if info.min <= value <= info.max else None


def probabilities_ignore_nothing(function: str, value: Any) -> None:
    """A negative index counts as none given: it is PyTorch's default."""
    if value is None:
        return
    value = _checks.integer(function, "ignore_index", value)
    if value >= 0:
        raise ValueError(
            f"{function}: ignore_index={value} needs class indices, got class "
            "probabilities. Leave it out; a row of zeros counts nothing in the sum."
        )


def class_weight(
    function: str, weight: ArrayLike | None, classes: int, dtype: jnp.dtype
) -> Array | None:
    if weight is None:
        return None
    w = _checks.real(function, "weight", weight, dtype, booleans=True)
    if w.shape != (classes,):
        raise ValueError(
            f"{function}: expected a weight of shape {(classes,)}, one for each class, "
            f"got {w.shape}."
        )
    return w


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
    w = _checks.real(function, name, weight, dtype, booleans=True)
    missing = len(shape) - w.ndim
    if missing < 0 or any(
        a not in (1, b) for a, b in zip(w.shape, shape[missing:], strict=True)
    ):
        raise ValueError(
            f"{function}: expected a {name} that broadcasts to the target's shape "
            f"{shape}, got {w.shape}."
        )
    return w.reshape((1,) * missing + w.shape)


def smoothing(function: str, value: Any, dtype: jnp.dtype) -> Array | None:
    """None for None and a Python 0."""
    return _checks.number_or_off(
        function, "label_smoothing", value, dtype, off=0, low=0, high=1
    )


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


def random_key(function: str, key: Any) -> Array:
    if isinstance(key, Array) and (
        key.dtype == jnp.uint32 or jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    ):
        return key
    raise TypeError(
        f"{function}: expected key to be a jax.random.key, got {_checks.shown(key)}."
    )


def outputs(
    function: str, num_classes: Any, out_features: tuple[Any, ...]
) -> tuple[int, ...]:
    """The shape of the logits of one example."""
    if not isinstance(out_features, tuple):
        raise TypeError(
            f"{function}: expected out_features to be a tuple of ints, "
            f"got {_checks.shown(out_features)}."
        )
    features = (
        _checks.positive_integer(function, "out_features", n) for n in out_features
    )
    return _checks.positive_integer(function, "num_classes", num_classes), *features


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
