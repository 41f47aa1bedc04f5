"""What the library accepts, and every sentence with which it refuses the rest.

Each check runs at trace time: it looks at shapes, dtypes, Python numbers and axis
names, never at the values of an array. Each message says what was expected, what
came, and what to do.
"""

import functools
import math
import operator
from collections.abc import Hashable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import (
    Any,
    NamedTuple,
    NoReturn,
    Protocol,
    SupportsIndex,
    TypeAlias,
    runtime_checkable,
)

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

from ._arrays import (
    Shape as Shape,
    Shaped as Shaped,
    compute_dtype as compute_dtype,
    row_shape as row_shape,
)


@runtime_checkable
class SupportsJaxArray(Protocol):
    """Anything that can turn itself into a JAX array, such as `flax.nnx.Param`."""

    def __jax_array__(self) -> Array: ...


ArrayLike: TypeAlias = jax.typing.ArrayLike | SupportsJaxArray | Sequence[Any]
Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | None
AxisName: TypeAlias = str | tuple[str, ...] | None

REDUCTIONS = ("none", "mean", "sum")
_NUMBERS = (int, float, np.integer, np.floating)
_SCALARS = (bool, np.bool_, complex, np.complexfloating, *_NUMBERS)


def array(x: ArrayLike) -> Array:
    return x if isinstance(x, Array) else jnp.asarray(x)


# What may stand for an array, a number, a flag ----------------------------------------


def _is_number(x: Any) -> bool:
    return isinstance(x, _NUMBERS) and not isinstance(x, bool)


@functools.cache
def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def shown(x: Any) -> str:
    """An argument as an error names it, in a few words."""
    plain = x is None or isinstance(x, (str, *_SCALARS))
    if plain or (isinstance(x, list | tuple) and len(repr(x)) <= 60):
        text = repr(x)
    elif isinstance(x, Array | np.ndarray):
        text = f"an array of shape {x.shape} and dtype {x.dtype}"
    elif isinstance(x, jax.ShapeDtypeStruct):
        text = "a shape without values"
    elif isinstance(x, list | tuple | dict | set):
        text = f"a {type(x).__name__}"
    else:
        text = f"an object of type {type(x).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_array(function: str, name: str, x: Any, *, names: bool = False) -> Array:
    """Converts `x`, or raises a TypeError that says what came and what to do.

    With `names`, strings may be the names of classes.
    """
    try:
        return array(x)
    except (TypeError, ValueError, OverflowError) as error:
        came, remedy = _no_array(function, name, x, names)
        if isinstance(error, OverflowError):
            remedy = "No integer of JAX is wide enough."
        raise TypeError(
            f"{function}: expected {name} to be an array of numbers, got {came}. "
            f"{remedy}"
        ) from error


def _no_array(function: str, name: str, x: Any, names: bool) -> tuple[str, str]:
    """What came in place of an array, and what to do."""
    came, strange = shown(x), [y for y in _entries(x) if not _is_numeric(y)]
    if isinstance(x, list | tuple) and strange:
        came = f"a {type(x).__name__} that holds {shown(strange[0])}"
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
    return isinstance(x, Array | np.ndarray | SupportsJaxArray)


def _is_numeric(x: Any) -> bool:
    return _is_array(x) or isinstance(x, _SCALARS)


def label_array(function: str, name: str, x: Any) -> Array:
    """Labels of any kind: integers, booleans, or real numbers."""
    y = as_array(function, name, x, names=True)
    if not _is_real(y.dtype) and y.dtype != jnp.bool_:
        raise TypeError(
            f"{function}: expected {name} to be real numbers, got dtype {y.dtype}."
        )
    return y


def real(
    function: str, name: str, x: Any, dtype: Any, *, booleans: bool = False
) -> Array:
    """Numbers in `dtype`; with `booleans`, an array of these counts as 0 and 1."""
    y = as_array(function, name, x)
    scalar = isinstance(x, bool | np.bool_)
    if not _is_real(y.dtype) and (scalar or not booleans or y.dtype != jnp.bool_):
        came = shown(x) if scalar or isinstance(x, complex) else f"dtype {y.dtype}"
        raise TypeError(
            f"{function}: expected {name} to be real numbers, got {came}. "
            "Give the numbers themselves."
        )
    return y.astype(dtype)


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
    if _is_number(value):
        in_range(function, name, value, low=low, high=high, above=above)
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
    if x is None or not _is_real(x.dtype):
        raise TypeError(
            f"{function}: expected {name} to be a number, got {shown(value)}. "
            "Give the number itself."
        )
    return x.astype(dtype)


def python_number(function: str, name: str, value: Any, **limits: int | float) -> None:
    if not _is_number(value):
        raise TypeError(
            f"{function}: expected {name} to be a number, got {shown(value)}."
        )
    in_range(function, name, value, **limits)


def is_on(value: Any, *, off: int | float) -> bool:
    """False for None and the Python number `off`, which both switch an option off."""
    return value is not None and not (_is_number(value) and value == off)


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
) -> None:
    """Checks the range of a Python number; that of an array is the caller's."""
    if not _is_number(value):
        return
    wanted = None
    if low is not None and high is not None and not low <= value <= high:
        wanted = f"between {low:g} and {high:g}"
    elif low is not None and high is None and not value >= low:
        wanted = f"of at least {low:g}"
    elif above is not None and not value > above:
        wanted = f"above {above:g}"
    if wanted:
        raise ValueError(f"{function}: expected {name} {wanted}, got {value!r}.")


def _to_be_static(name: str, value: Any) -> str:
    """What to do about a traced value of an argument that decides the program."""
    if not isinstance(value, Tracer):
        return ""
    return f" Give jax.jit static_argnames={name!r}."


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
            f"{_to_be_static(name, value)}"
        )
    return operator.index(value)


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
        f"{_to_be_static(name, value)}"
    )


def floating(
    function: str, name: str, x: Any, *, beside: Any = None, order: str = ""
) -> Array:
    """`x`, of a floating dtype.

    `order` are the names of the call's arrays, of which `beside` is the last: labels,
    which may have been exchanged with `x`.
    """
    x = as_array(function, name, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        labels = order.rpartition(", ")[2]
        remedy = f"Cast them, {name}.astype(jnp.float32)."
        if exchanged(x, beside):
            remedy = f"Are {name} and {labels} exchanged? The call is "
            remedy += f"{function}({order})."
        raise TypeError(
            f"{function}: expected floating {name}, got dtype {x.dtype}. {remedy}"
        )
    return x


def exchanged(x: Array, labels: Any) -> bool:
    """Whether `x`, not floating, and `labels` look as if each were the other."""
    try:
        labels = array(labels)
    except (TypeError, ValueError, OverflowError):
        return False
    return labels.ndim >= x.ndim and jnp.issubdtype(labels.dtype, jnp.floating)


# Shapes and axes ----------------------------------------------------------------------


def rearranged(name: str, shape: Shape, target: Shape, axis: int | None = None) -> str:
    """What makes an array of `shape` one of `target`; empty if sizes do not tell.

    `axis` of the target is the one that is most likely elsewhere.
    """
    if not all(isinstance(n, int) for n in shape + target):  # symbolic
        return ""
    if len(shape) == len(target) and sorted(shape) == sorted(target):
        axes = range(len(shape))
        moves = [(a, b) for a in axes for b in axes if a != b]
        for a, b in sorted(moves, key=lambda move: move[1] != axis):
            left = shape[:a] + shape[a + 1 :]
            if (*left[:b], shape[a], *left[b:]) == target:
                moved = f"jnp.moveaxis({name}, {a}, {b})"
                return f"If only the order of axes differs, {moved}."
    elif math.prod(shape) == math.prod(target) > 1:
        sizes = ", ".join(map(str, target))
        return f"If only the axes differ, {name}.reshape({sizes})."
    return ""


def same_shape(function: str, name: str, x: Array, labels: Array) -> None:
    if x.shape == labels.shape:
        return
    hint = "Only a scalar broadcasts; give every element its own label."
    if labels.shape == (*x.shape, 1):
        hint = "Drop the last axis, labels.squeeze(-1)."
    elif x.shape == (*labels.shape, 1):
        hint = f"Drop the last axis, {name}.squeeze(-1)."
    else:
        hint = rearranged("labels", labels.shape, x.shape) or hint
    raise ValueError(
        f"{function}: expected labels of the {name}' shape {x.shape}, "
        f"got {labels.shape}. {hint}"
    )


def class_axis(
    function: str, name: str, x: Shaped, axis: Axis, *, weighted: bool = False
) -> int | tuple[int, ...]:
    """`axis` counted from the front; a tuple where several axes make up the classes.

    `weighted` are functions that take weights, which may come in the place of the axis.
    """
    if x.ndim == 0:
        raise ValueError(
            f"{function}: expected {name} with at least one axis, got a scalar."
        )
    if axis is None:
        return tuple(range(x.ndim))
    wanted = axis if isinstance(axis, tuple) else (axis,)
    for a in wanted:
        if is_integer(a):
            continue
        hint = _to_be_static("axis", a)
        some = a.ndim if isinstance(a, np.ndarray | Array) else isinstance(a, list)
        if weighted and (some or (isinstance(axis, tuple) and isinstance(a, float))):
            hint = " Weights of classes are class_weights=, those of rows weights=."
        raise TypeError(
            f"{function}: expected axis to be an int, a tuple of ints or None, "
            f"got {shown(axis)}.{hint}"
        )
    indices = tuple(operator.index(a) for a in wanted)
    for a in indices:
        if not -x.ndim <= a < x.ndim:
            raise ValueError(
                f"{function}: axis {a} is out of range for {name} of shape {x.shape}."
            )
    front = tuple(a % x.ndim for a in indices)
    if len(set(front)) < len(front) or not front:
        wanted = "different axes" if front else "at least one axis"
        raise ValueError(
            f"{function}: expected {wanted}, got axis={axis!r} "
            f"for {name} of shape {x.shape}."
        )
    return front if isinstance(axis, tuple) else front[0]


def classes_last(x: Array, axes: tuple[int, ...]) -> Array:
    """Moves `axes` to the end, in their order, and makes one axis of them."""
    rows = tuple(a for a in range(x.ndim) if a not in axes)
    x = x.transpose(rows + axes)
    return x.reshape(*x.shape[: len(rows)], -1)


def several_classes(
    function: str, name: str, x: Shaped, axis: int | tuple[int, ...]
) -> None:
    axes = axis if isinstance(axis, tuple) else (axis,)
    classes = math.prod(x.shape[a] for a in axes)
    if classes < 2:
        binary = {
            "logits": "sigmoid_binary_cross_entropy",
            "probs": "binary_cross_entropy",
        }
        hint = (
            "Such a loss is always 0. For one number per yes/no label call "
            f"{binary[name]}."
            if classes
            else "Is this the class axis?"
        )
        raise ValueError(
            f"{function}: expected at least two classes, got {name} of shape {x.shape} "
            f"with {classes} along axis {axis}. {hint}"
        )


def are_class_ids(
    function: str,
    name: str,
    x: Shaped,
    labels: Array,
    axis: int | tuple[int, ...],
    *,
    ids_only: bool,
    axis_is_free: bool = True,
) -> bool:
    """Whether `labels` are class ids (the rows' shape) or distributions (x's shape)."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    rows = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    if labels.shape == x.shape and not ids_only:
        return False
    if labels.shape != rows:
        wanted = f"class ids of shape {rows}, the {name}' shape {x.shape} without axis "
        wanted += f"{axis}"
        if not ids_only:
            wanted += f", or distributions of shape {x.shape}"
        hint = "Labels never broadcast; every row has its own."
        # Axis 0, which is that of the batch as a rule, would fit by coincidence.
        fits = [a for a in range(1, x.ndim) if row_shape(x.shape, a) == labels.shape]
        ones = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
        if fits and axis_is_free:
            hint = f"Class ids of this shape fit with axis={fits[0]}."
        elif labels.shape == ones:
            hint = f"If these are class ids, drop that axis: labels.squeeze({axis})."
        elif labels.shape == x.shape:
            hint = "For distributions call softmax_cross_entropy."
        else:
            hint = (
                rearranged("labels", labels.shape, rows)
                or rearranged("labels", labels.shape, x.shape, axes[0])
                or hint
            )
        raise ValueError(f"{function}: expected {wanted}, got {labels.shape}. {hint}")
    if labels.dtype == jnp.bool_:
        raise TypeError(
            f"{function}: expected integer class ids, got boolean labels of shape "
            f"{labels.shape}. For yes/no labels call sigmoid_binary_cross_entropy, or "
            "cast them, labels.astype(jnp.int32)."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        soft = "" if ids_only else f" Distributions need the {name}' shape {x.shape}."
        raise TypeError(
            f"{function}: expected integer class ids, got {labels.dtype} labels of "
            f"shape {labels.shape}. Cast ids with labels.astype(jnp.int32).{soft}"
        )
    return True


def ignorable(
    function: str, ignore_index: Any, labels: Array, *, ids: bool
) -> Array | None:
    if ignore_index is None:
        return None
    if not ids:
        raise ValueError(
            f"{function}: ignore_index={ignore_index!r} needs integer class ids, got "
            f"distributions of shape {labels.shape}. Drop rows with where instead."
        )
    if _is_number(ignore_index) and is_integer(ignore_index):
        info = jnp.iinfo(labels.dtype)
        if not info.min <= ignore_index <= info.max:
            raise ValueError(
                f"{function}: ignore_index={ignore_index} cannot occur among labels "
                f"of dtype {labels.dtype}, which hold {info.min} to {info.max}. Give "
                "the id that marks ignored labels there, 255 in many uint8 masks."
            )
        return jnp.asarray(ignore_index, labels.dtype)
    index = as_array(function, "ignore_index", ignore_index)
    if index.ndim or not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(
            f"{function}: expected ignore_index to be one integer, got {index.dtype} "
            f"of shape {index.shape}."
        )
    return index


def _broadcasts(shape: Shape, target: Shape) -> bool:
    return len(shape) == len(target) and all(
        a in (1, b) for a, b in zip(shape, target, strict=True)
    )


def boolean(function: str, name: str, x: Any) -> Array:
    if _is_number(x):
        raise TypeError(
            f"{function}: expected boolean {name}, got {x!r}. Give True, False, or an "
            "array of these, mask > 0."
        )
    x = as_array(function, name, x)
    if x.dtype == jnp.bool_:
        return x
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(jnp.bool_)
    raise TypeError(
        f"{function}: expected boolean {name}, got dtype {x.dtype}. "
        "Give factors as weights, or compare, mask > 0."
    )


def per_row(
    function: str,
    name: str,
    x: Array,
    rows: Shape,
    of: str = "the losses' shape",
) -> Array:
    """A scalar, or the loss's rank with axes of size 1 allowed."""
    if x.ndim and not _broadcasts(x.shape, rows):
        raise ValueError(
            f"{function}: expected {name} to be a scalar or of {of} {rows}, "
            f"got {x.shape}. {missing_axes(name, x.shape, rows)}"
        )
    return x.reshape((1,) * len(rows)) if x.ndim == 0 else x


def missing_axes(name: str, shape: Shape, rows: Shape) -> str:
    missing = len(rows) - len(shape)
    if missing > 0 and shape == rows[: len(shape)]:
        grown = ", ".join([":"] * len(shape) + ["None"] * missing)
        return f"Add the missing axes, {name}[{grown}]."
    return "Axes of size 1 are stretched, missing ones are not."


def row_or_class_mask(
    function: str, where: ArrayLike | None, shape: Shape, axis: int
) -> tuple[Array | None, Array | None]:
    """`where` as a mask of rows, or of single classes where it has the logits' rank."""
    if where is None:
        return None, None
    mask = boolean(function, "where", where)
    rows = row_shape(shape, axis)
    if _broadcasts(mask.shape, shape):
        return None, mask
    if mask.ndim and not _broadcasts(mask.shape, rows):
        raise ValueError(
            f"{function}: expected a where of shape {rows} (rows) or {shape} "
            f"(classes), got {mask.shape}. {missing_axes('where', mask.shape, rows)}"
        )
    return per_row(function, "where", mask, rows), None


class PerRow(NamedTuple):
    """The check of an option with one value a row, or a scalar for all."""

    boolean: bool = False
    above: float | None = None


class PerClass(NamedTuple):
    """The check of an option with one value a class."""

    boolean: bool = False


class Number(NamedTuple):
    """The check of an option with one value for all.

    `off` is the Python number that switches it off, as None does.
    """

    off: float
    low: float | None = None
    high: float | None = None
    above: float | None = None
    or_per_class: bool = False


def option(
    function: str,
    name: str,
    value: Any,
    check: PerRow | PerClass | Number,
    rows: Shape,
    classes: int,
    dtype: Any,
) -> Array | None:
    """The value of an option, checked and shaped as its declaration says."""
    if value is None:
        return None
    if isinstance(check, Number):
        if check.or_per_class and getattr(value, "ndim", 0 if _is_number(value) else 1):
            x = real(function, name, value, dtype)
            return per_class(function, name, x, (classes,))
        limits = {"low": check.low, "high": check.high, "above": check.above}
        limits = {k: limit for k, limit in limits.items() if limit is not None}
        return number_or_off(function, name, value, dtype, off=check.off, **limits)
    if check.boolean:
        x = boolean(function, name, value)
    else:
        above = check.above if isinstance(check, PerRow) else None
        in_range(function, name, value, above=above)
        x = real(function, name, value, dtype, booleans=above is None)
    if isinstance(check, PerClass):
        return per_class(function, name, x, (classes,))
    return per_row(function, name, x, rows)


def margin_of_ids(function: str, margin: Any, ids: bool) -> None:
    if margin is not None and not ids:
        raise ValueError(
            f"{function}: margin needs class ids, got distributions: it is subtracted "
            "from the logit of a row's label."
        )


def per_class(function: str, name: str, x: Array, classes: Shape) -> Array:
    if x.shape != classes:
        raise ValueError(
            f"{function}: expected {name} of shape {classes}, one for each class, "
            f"got {x.shape}."
        )
    return x


def normalizer(
    function: str,
    value: ArrayLike | None,
    dtype: jnp.dtype,
    result: Shape = (),
) -> Array | None:
    if value is None:
        return None
    x = real(function, "normalizer", value, dtype)
    if x.ndim and x.shape != result:
        also = f" or of the result's shape {result}" if result else ""
        raise ValueError(
            f"{function}: expected normalizer to be a number{also}, "
            f"got shape {x.shape}."
        )
    return x


def reduction(function: str, value: Any, normalizer: Any) -> None:
    if not isinstance(value, str) or value not in REDUCTIONS:
        raise ValueError(
            f"{function}: expected reduction to be one of {REDUCTIONS}, "
            f"got {shown(value)}."
        )
    if normalizer is not None and value != "mean":
        raise ValueError(
            f"{function}: normalizer is what reduction='mean' divides by, "
            f"got reduction={value!r}. Ask for the mean, or divide the sum yourself."
        )


def one_of(function: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """A name among some, or None."""
    if value is None or (isinstance(value, str) and value in allowed):
        return
    raise ValueError(
        f"{function}: expected {name} to be one of {allowed} or None, "
        f"got {shown(value)}."
    )


def block_sizes(function: str, value: Any) -> tuple[int | None, int | None]:
    pair = (None, None) if value is None else value
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or any(n is not None and not (is_integer(n) and n >= 1) for n in pair)
    ):
        raise ValueError(
            f"{function}: expected block_sizes to be a pair (rows, classes) of "
            f"positive ints, None where any will do, got {shown(value)}."
        )
    rows, classes = (None if n is None else operator.index(n) for n in pair)
    return rows, classes


def _is_bound(name: str) -> bool:
    try:
        lax.axis_size(name)
    except NameError:
        return False
    return True


def bound_axis_names(
    function: str, argument: str, names: AxisName, *arrays: Array | None
) -> tuple[str, ...]:
    """The names bound by an enclosing `shard_map` (or `vmap`).

    A name that is not bound but belongs to the mesh in use needs nothing here: such an
    array is seen whole, and the partitioner splits the work. Any other is an error.
    """
    if names is None:
        return ()
    wanted = names if isinstance(names, tuple) else (names,)
    named = all(
        isinstance(n, Hashable) and not isinstance(n, (tuple, *_SCALARS))
        for n in wanted
    )
    if not named or None in wanted or len({*wanted}) < len(wanted):
        fail(
            function,
            f"expected {argument} to be the name of a mesh axis or a tuple of "
            f"different ones, got {names!r}.",
        )
    bound = tuple(n for n in wanted if _is_bound(n))
    known = set(jax.sharding.get_abstract_mesh().axis_names)
    for x in arrays:
        if x is not None:
            known.update(jax.typeof(x).sharding.mesh.axis_names)
    for n in wanted:
        if n not in bound and n not in known:
            raise ValueError(
                f"{function}: {argument} {n!r} is neither bound by an enclosing "
                f"shard_map nor an axis of the mesh in use (axes: {sorted(known)}). "
                "Set the mesh with jax.set_mesh, or correct the name; a legacy "
                "`with mesh:` is not seen."
            )
    return bound


def fail(function: str, message: str) -> NoReturn:
    raise ValueError(f"{function}: {message}")


def no_attribute(module: str, name: str, public: Sequence[str]) -> AttributeError:
    """The error for a name that a module does not have, with the nearest it has."""
    spelled = {public_name.lower(): public_name for public_name in public}
    near = [spelled[n] for n in get_close_matches(name.lower(), spelled)]
    hint = f"Did you mean {' or '.join(near)}?"
    if not near:
        hint = f"It has {', '.join(public)}."
    return AttributeError(f"module {module!r} has no attribute {name!r}. {hint}")
