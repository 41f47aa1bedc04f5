"""What may stand for a number, an integer, a flag or a dtype."""

import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from .._arrays import Size
from .arrays import array, is_real
from .words import NUMBERS, shown, to_be_static


def is_number(x: Any) -> bool:
    return isinstance(x, NUMBERS) and not isinstance(x, bool)


def number(
    function: str,
    name: str,
    value: Any,
    dtype: Any,
    *,
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
) -> Array:
    """One number, its range checked where it is a Python number (it may be traced)."""
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if is_number(value):
        limits = {"low": low, "high": high, "above": above}
        in_range(function, name, value, dtype=dtype, **limits)
        with np.errstate(over="ignore"):  # 1e40 is infinite in float32
            return jnp.asarray(np.asarray(float(value), dtype))
    try:
        x = array(value)
    except (TypeError, ValueError, OverflowError):
        x = None
    if x is not None and x.ndim:
        raise ValueError(
            f"{function}: expected {name} to be a number, got shape {x.shape}."
        )
    if x is None or not is_real(x.dtype):
        raise TypeError(
            f"{function}: expected {name} to be a number, got {shown(value)}. "
            "Give the number itself."
        )
    return x.astype(dtype)


def is_on(value: Any, *, off: int | float | None) -> bool:
    """False for None and the Python number `off`, which both switch an option off."""
    return value is not None and not (is_number(value) and value == off)


def number_or_off(
    function: str,
    name: str,
    value: Any,
    dtype: Any,
    *,
    off: int | float,
    **limits: int | float,
) -> Array | None:
    """`number`, or None if the option is off: for None and the Python number `off`.

    An option that is off leaves nothing in the program.
    """
    if not is_on(value, off=off):
        return None
    return number(function, name, value, dtype, **limits)


def in_range(
    function: str,
    name: str,
    value: Any,
    *,
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
    dtype: Any = None,
) -> None:
    """Checks the range of a Python number; that of an array is the caller's.

    What is to be above 0 must stay so in `dtype`, where devices round subnormals to 0.
    """
    if not is_number(value):
        return
    allowed = None
    if low is not None and high is not None and not low <= value <= high:
        allowed = f"between {low:g} and {high:g}"
    elif low is not None and high is None and not value >= low:
        allowed = f"of at least {low:g}"
    elif high is not None and low is None and not value <= high:
        allowed = f"of at most {high:g}"
    elif above is not None and not value > above:
        allowed = f"above {above:g}"
    elif above == 0 and dtype is not None and value < jnp.finfo(dtype).tiny:
        kind = jnp.dtype(dtype).name
        least = f"{jnp.finfo(dtype).tiny:.3g}"
        allowed = f"of at least {least}, the least number that {kind} keeps from 0"
    if allowed:
        raise ValueError(f"{function}: expected {name} {allowed}, got {value!r}.")


def end_of_beta(beta: Any) -> int | None:
    """0 or 1 for the Python numbers, which stand for the two KL divergences."""
    return int(beta) if is_number(beta) and beta in (0, 1) else None


def is_integer(x: Any) -> bool:
    """Whether `operator.index` makes an int of it: a traced integer is none."""
    try:
        operator.index(x)
    except TypeError:
        return False
    return not isinstance(x, bool)


def integer(function: str, name: str, value: Any, *, alone: str = "an int") -> int:
    if not is_integer(value):
        raise TypeError(
            f"{function}: expected {name} to be {alone}, got {shown(value)}."
            f"{to_be_static(name, value)}"
        )
    return operator.index(value)


def top_k(function: str, k: Any, classes: Size) -> int:
    count = integer(function, "k", k)
    if not 1 <= count <= classes:
        raise ValueError(
            f"{function}: expected k between 1 and the {classes} classes, got {count}."
        )
    return count


def positive_integer(function: str, name: str, value: Any) -> int:
    alone = "a Python integer of at least 1"
    number = integer(function, name, value, alone=alone)
    if number < 1:
        raise ValueError(f"{function}: expected {name} of at least 1, got {number}.")
    return number


def dtype(function: str, name: str, value: Any) -> jnp.dtype:
    try:
        return jnp.dtype(value)
    except TypeError:
        raise TypeError(
            f"{function}: expected {name} to be a dtype, jnp.float32 say, "
            f"got {shown(value)}."
        ) from None


def flag(function: str, name: str, value: Any) -> bool:
    """True or False, also as NumPy's, or as 1 and 0."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_ | int | np.integer) and value in (0, 1):
        return bool(value)
    raise TypeError(
        f"{function}: expected {name} to be True or False, got {shown(value)}."
        f"{to_be_static(name, value)}"
    )
