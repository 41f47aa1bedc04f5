"""What the library accepts, and every sentence with which it refuses the rest.

Each check runs at trace time: it looks at shapes, dtypes, Python numbers and axis
names, never at the values of an array. Each message says what was expected, what
came, and what to do.
"""

import math
from collections.abc import Hashable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


@runtime_checkable
class SupportsJaxArray(Protocol):
    """Anything that can turn itself into a JAX array, such as `flax.nnx.Param`."""

    def __jax_array__(self) -> Array: ...


# An array, or the shape and dtype of logits that are never formed.
Shaped: TypeAlias = Array | jax.ShapeDtypeStruct
ArrayLike: TypeAlias = jax.typing.ArrayLike | SupportsJaxArray | Sequence[Any]
Axis: TypeAlias = int | tuple[int, ...] | None
AxisName: TypeAlias = str | tuple[str, ...] | None

REDUCTIONS = ("none", "mean", "sum")
_NUMBERS = (int, float, np.integer, np.floating)


def array(x: ArrayLike) -> Array:
    return x if isinstance(x, Array) else jnp.asarray(x)


def compute_dtype(*arrays: Shaped) -> jnp.dtype:
    """float32, or float64 where an input has it."""
    wide = any(x.dtype == jnp.float64 for x in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def floating(function: str, name: str, x: ArrayLike) -> Array:
    x = array(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{function}: expected floating {name}, got dtype {x.dtype}. "
            f"Cast them, {name}.astype(jnp.float32)."
        )
    return x


def same_shape(function: str, name: str, x: Array, labels: Array) -> None:
    if x.shape == labels.shape:
        return
    hint = "Labels never broadcast; give every element its own label."
    if labels.shape == (*x.shape, 1):
        hint = "Drop the last axis, labels.squeeze(-1)."
    elif x.shape == (*labels.shape, 1):
        hint = f"Drop the last axis, {name}.squeeze(-1)."
    raise ValueError(
        f"{function}: expected labels of the {name}' shape {x.shape}, "
        f"got {labels.shape}. {hint}"
    )


def class_axis(
    function: str, name: str, x: Shaped, axis: Axis
) -> int | tuple[int, ...]:
    """`axis` counted from the front; a tuple where several axes make up the classes."""
    if x.ndim == 0:
        raise ValueError(
            f"{function}: expected {name} with at least one axis, got a scalar."
        )
    if axis is None:
        return tuple(range(x.ndim))
    wanted = axis if isinstance(axis, tuple) else (axis,)
    for a in wanted:
        if isinstance(a, bool) or not isinstance(a, int):
            raise TypeError(
                f"{function}: expected axis to be an int, a tuple of ints or None, "
                f"got {axis!r}."
            )
        if not -x.ndim <= a < x.ndim:
            raise ValueError(
                f"{function}: axis {a} is out of range for {name} of shape {x.shape}."
            )
    front = tuple(a % x.ndim for a in wanted)
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


def row_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


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
        fits = [a for a in range(x.ndim) if row_shape(x.shape, a) == labels.shape]
        ones = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
        if fits:
            hint = f"Class ids of this shape fit with axis={fits[0]}."
        elif labels.shape == ones:
            hint = f"If these are class ids, drop that axis: labels.squeeze({axis})."
        elif labels.shape == x.shape:
            hint = "For distributions call softmax_cross_entropy."
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
    if isinstance(ignore_index, int | np.integer) and not isinstance(
        ignore_index, bool
    ):
        info = jnp.iinfo(labels.dtype)
        if not info.min <= ignore_index <= info.max:
            raise ValueError(
                f"{function}: ignore_index={ignore_index} cannot occur among labels "
                f"of dtype {labels.dtype}, which hold {info.min} to {info.max}. Give "
                "the id that marks ignored labels there, 255 in many uint8 masks."
            )
        return jnp.asarray(ignore_index, labels.dtype)
    index = array(ignore_index)
    if index.ndim or not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(
            f"{function}: expected ignore_index to be one integer, got {index.dtype} "
            f"of shape {index.shape}."
        )
    return index


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) == len(target) and all(
        a in (1, b) for a, b in zip(shape, target, strict=True)
    )


def boolean(function: str, name: str, x: ArrayLike) -> Array:
    x = array(x)
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
    rows: tuple[int, ...],
    of: str = "the losses' shape",
) -> Array:
    """A scalar, or the loss's rank with axes of size 1 allowed."""
    if x.ndim and not _broadcasts(x.shape, rows):
        raise ValueError(
            f"{function}: expected {name} to be a scalar or of {of} {rows}, "
            f"got {x.shape}. {_missing_axes(name, x.shape, rows)}"
        )
    return x.reshape((1,) * len(rows)) if x.ndim == 0 else x


def _missing_axes(name: str, shape: tuple[int, ...], rows: tuple[int, ...]) -> str:
    missing = len(rows) - len(shape)
    if missing > 0 and shape == rows[: len(shape)]:
        grown = ", ".join([":"] * len(shape) + ["None"] * missing)
        return f"Add the missing axes, {name}[{grown}]."
    return "Axes of size 1 are stretched, missing ones are not."


def row_or_class_mask(
    function: str, where: ArrayLike | None, shape: tuple[int, ...], axis: int
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
            f"(classes), got {mask.shape}. {_missing_axes('where', mask.shape, rows)}"
        )
    return per_row(function, "where", mask, rows), None


def per_class(function: str, name: str, x: Array, classes: tuple[int, ...]) -> Array:
    if x.shape != classes:
        raise ValueError(
            f"{function}: expected {name} of shape {classes}, one for each class, "
            f"got {x.shape}."
        )
    return x


def number(
    function: str,
    name: str,
    value: Any,
    *,
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
) -> Any:
    """`value`, its range checked where it is a Python number (it may be traced)."""
    if isinstance(value, _NUMBERS):
        wanted = None
        if low is not None and high is not None and not low <= value <= high:
            wanted = f"between {low:g} and {high:g}"
        elif low is not None and high is None and not value >= low:
            wanted = f"of at least {low:g}"
        elif above is not None and not value > above:
            wanted = f"above {above:g}"
        if wanted:
            raise ValueError(f"{function}: expected {name} {wanted}, got {value!r}.")
    return value


def off_or_scalar(
    function: str, name: str, value: Any, dtype: jnp.dtype
) -> Array | None:
    """None for a Python 0, which switches an option off at trace time."""
    if isinstance(value, _NUMBERS) and value == 0:
        return None
    return scalar(function, name, array(value).astype(dtype))


def scalar(function: str, name: str, x: Array) -> Array:
    if x.ndim:
        raise ValueError(
            f"{function}: expected {name} to be a number, got shape {x.shape}."
        )
    return x


def normalizer(
    function: str,
    value: ArrayLike | None,
    dtype: jnp.dtype,
    result: tuple[int, ...] = (),
) -> Array | None:
    if value is None:
        return None
    x = array(value).astype(dtype)
    if x.ndim and x.shape != result:
        also = f" or of the result's shape {result}" if result else ""
        raise ValueError(
            f"{function}: expected normalizer to be a number{also}, "
            f"got shape {x.shape}."
        )
    return x


def reduction(function: str, value: Any, normalizer: Any) -> None:
    if value not in REDUCTIONS:
        raise ValueError(
            f"{function}: expected reduction to be one of {REDUCTIONS}, got {value!r}."
        )
    if normalizer is not None and value != "mean":
        raise ValueError(
            f"{function}: normalizer is what reduction='mean' divides by, "
            f"got reduction={value!r}. Ask for the mean, or divide the sum yourself."
        )


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
    named = all(isinstance(n, Hashable) and not isinstance(n, tuple) for n in wanted)
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
