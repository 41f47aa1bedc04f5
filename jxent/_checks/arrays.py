"""What may stand for an array."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from .words import SCALARS, shown


@runtime_checkable
class SupportsJaxArray(Protocol):
    """Anything that can turn itself into a JAX array, such as `flax.nnx.Param`."""

    def __jax_array__(self) -> Array: ...


ArrayLike: TypeAlias = jax.typing.ArrayLike | SupportsJaxArray | Sequence[Any]


def array(x: ArrayLike) -> Array:
    """`x` as a JAX array; an OverflowError for an integer that does not fit there."""
    if isinstance(x, Array):
        return x
    too_wide = _too_wide(x)
    if too_wide is not None:
        raise OverflowError(too_wide)
    if isinstance(x, np.ndarray | np.generic) and _is_number(x.dtype):
        # Without its own dtype JAX compiles a program for the array's shape.
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        with np.errstate(over="ignore"):
            return jnp.asarray(x.astype(dtype), dtype)
    return jnp.asarray(x)


def _is_number(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, np.number) or dtype == np.bool_


def _too_wide(x: Any) -> int | None:
    """An integer of `x` that its dtype in JAX does not hold; None if there is none.

    With 64 bits off JAX would wrap it in silence, if it comes in a NumPy array. Arrays
    of JAX are not looked at: that would wait for them, and fetch them from a device.
    """
    if isinstance(x, Array):
        return None
    if isinstance(x, list | tuple):
        return next((y for y in map(_too_wide, x) if y is not None), None)
    if isinstance(x, int):
        if -(2**31) <= x < 2**31:
            return None
        low, high, dtype = x, x, np.dtype(int)
    elif hasattr(x, "materialize"):  # LinearLogits, which are no array
        return None
    elif hasattr(x, "__array__") and not hasattr(x, "__jax_array__"):
        values = np.asarray(x)
        dtype = values.dtype
        if dtype.kind not in "iu" or dtype.itemsize < 8 or not values.size:
            return None
        low, high = int(values.min()), int(values.max())
    else:
        return None
    held = np.iinfo(jax.dtypes.canonicalize_dtype(dtype))
    if low < held.min:
        return low
    return high if high > held.max else None


def known_values(x: ArrayLike) -> np.ndarray | None:
    """The values of a list or of NumPy's array; None where they are not known when the
    program is traced, and for arrays of JAX."""
    listed = isinstance(x, list | tuple | np.ndarray)
    if not listed or any(isinstance(y, Tracer) for y in x):
        return None
    return np.asarray(x)


# What to do about integers that 32 bits do not hold: amounts, or names of something.
_AMOUNTS = "Give floats, np.asarray({name}, float)"
_NAMES = "Number them anew, np.unique({name}, return_inverse=True)[1]"


def as_array(
    function: str, name: str, x: Any, *, names: bool = False, remedy: str = _AMOUNTS
) -> Array:
    """Converts `x`, or raises an error that says what came and what to do.

    With `names`, strings may be the names of classes. `remedy` is for integers that JAX
    does not hold.
    """
    try:
        return array(x)
    except OverflowError as error:
        raise _no_integers(function, name, x, error.args[0], remedy) from error
    except (TypeError, ValueError) as error:
        came, remedy = _no_array(function, name, x, names)
        raise TypeError(
            f"{function}: expected {name} to be an array of numbers, got {came}. "
            f"{remedy}"
        ) from error


def _no_integers(
    function: str, name: str, x: Any, too_wide: int, remedy: str
) -> TypeError | ValueError:
    """The error for an integer of `x` that JAX does not hold."""
    if jax.config.read("jax_enable_x64") or too_wide.bit_length() > 64:
        return TypeError(
            f"{function}: expected {name} to be an array of numbers, got {shown(x)}. "
            "No integer of JAX is wide enough."
        )
    return ValueError(
        f"{function}: expected {name} of integers that 32 bits hold, got {too_wide}. "
        f"{remedy.format(name=name)}, or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True)."
    )


def _no_array(function: str, name: str, x: Any, names: bool) -> tuple[str, str]:
    """What came in place of an array, and what to do."""
    came, strange = shown(x), [y for y in _entries(x) if not _is_numeric(y)]
    if isinstance(x, list | tuple) and strange:
        came = f"a {type(x).__name__} that holds {shown(strange[0])}"
    if hasattr(x, "materialize"):  # LinearLogits, or what stands for an array elsewhere
        return came, "Give an array of them, .materialize() forms one."
    if isinstance(x, jax.ShapeDtypeStruct):
        return came, f"For the result's shape alone, jax.eval_shape({function}, …)."
    if strange and isinstance(strange[0], str):
        if names:
            ids = f"np.unique({name}, return_inverse=True)[1]"
            return came, f"Names of classes become class ids by {ids}."
        return came, f"Convert strings to numbers first, np.asarray({name}, float)."
    if isinstance(x, Mapping):
        held = [f"{name}[{key!r}]" for key, y in x.items() if _is_array(y)]
    else:
        fields = getattr(x, "__dict__", {})
        held = [f"{name}.{field}" for field, y in fields.items() if _is_array(y)]
    if held:
        return came, f"Give an array that it holds: {' or '.join(held)}."
    if isinstance(x, Mapping) and all(map(_is_numeric, x.values())):
        return came, "Give its values as an array, in the order of its keys."
    if isinstance(x, list | tuple | np.ndarray):
        remedy = "Put a number in every place." if strange else "Rows need one length."
        return came, remedy
    return came, "Give an array."


def _entries(x: Any) -> Iterator[Any]:
    if isinstance(x, list | tuple):
        for y in x:
            yield from _entries(y)
    elif isinstance(x, np.ndarray):
        yield from x.flat
    else:
        yield x


def _is_array(x: Any) -> bool:
    return isinstance(x, Array | np.ndarray) or (
        isinstance(x, SupportsJaxArray) and not hasattr(x, "materialize")
    )


def _is_numeric(x: Any) -> bool:
    return _is_array(x) or isinstance(x, SCALARS)


@functools.cache
def is_floating(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


@functools.cache
def is_integral(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer)


def is_real(dtype: Any) -> bool:
    return is_floating(dtype) or is_integral(dtype)


def integers(function: str, name: str, x: Any) -> Array:
    y = as_array(function, name, x, remedy=_NAMES)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{function}: expected integer {name}, got dtype {y.dtype}.")
    return y


def id_array(function: str, name: str, x: Any, *, names: bool = False) -> Array:
    """`as_array` of class ids: one that JAX does not hold is as large as may be.

    It is no class then either. Next to the largest, as that itself may be ignored.
    """
    if _too_wide(x) is not None:
        values = np.asarray(x)
        if values.dtype.kind in "iu":
            held = jax.dtypes.canonicalize_dtype(values.dtype)
            bounds = np.iinfo(held)
            values = np.where(values > bounds.max, bounds.max - 1, values)
            x = np.where(values < bounds.min, bounds.min + 1, values).astype(held)
    return as_array(function, name, x, names=names)


def label_array(function: str, name: str, x: Any, *, amounts: bool = False) -> Array:
    """Labels of any kind: integers, booleans, or real numbers.

    They may be class ids, unless they are `amounts`.
    """
    convert = as_array if amounts else id_array
    y = convert(function, name, x, names=True)
    if not is_real(y.dtype) and y.dtype != jnp.bool_:
        raise TypeError(
            f"{function}: expected {name} to be real numbers, got dtype {y.dtype}."
        )
    return y


def fits(function: str, name: str, x: Any) -> None:
    """Refuses amounts among which is an integer that JAX does not hold."""
    too_wide = _too_wide(x)
    if too_wide is not None:
        raise _no_integers(function, name, x, too_wide, _AMOUNTS)


def real(
    function: str, name: str, x: Any, dtype: Any, *, booleans: bool = False
) -> Array:
    """Numbers in `dtype`; with `booleans`, an array of these counts as 0 and 1."""
    y = as_array(function, name, x)
    scalar = isinstance(x, bool | np.bool_)
    if not is_real(y.dtype) and (scalar or not booleans or y.dtype != jnp.bool_):
        came = shown(x) if scalar or isinstance(x, complex) else f"dtype {y.dtype}"
        raise TypeError(
            f"{function}: expected {name} to be real numbers, got {came}. "
            "Give the numbers themselves."
        )
    return y.astype(dtype)


def floating(
    function: str,
    name: str,
    x: Any,
    *,
    beside: Any = None,
    order: str = "",
    compared: Any = None,
) -> Array:
    """`x`, of a floating dtype.

    `order` are the names of the call's arrays, of which `beside` is the last: labels,
    which may have been exchanged with `x`. `compared` are logits that `x` is compared
    with: class ids in its place belong to another loss.
    """
    x = as_array(function, name, x)
    if not is_floating(x.dtype):
        labels = order.rpartition(", ")[2]
        remedy = f"Cast them, {name}.astype(jnp.float32)."
        if compared is not None and is_integral(x.dtype) and x.ndim < compared.ndim:
            remedy = "For class ids call softmax_cross_entropy."
        if exchanged(x, beside):
            remedy = f"Are {name} and {labels} exchanged? The call is "
            remedy += f"{function}({order})."
        raise TypeError(
            f"{function}: expected floating {name}, got dtype {x.dtype}. {remedy}"
        )
    return x


def exchanged(x: Array, labels: Any) -> bool:
    """Whether `x`, not floating, and `labels` look as if each were the other."""
    if hasattr(labels, "materialize"):  # LinearLogits
        return True
    try:
        labels = array(labels)
    except (TypeError, ValueError, OverflowError):
        return False
    return labels.ndim >= x.ndim and jnp.issubdtype(labels.dtype, jnp.floating)
