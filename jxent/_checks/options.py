"""Masks, weights, numbers, and names among some."""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import Shape, Size, row_shape
from .arrays import ArrayLike, as_array, real
from .numbers import in_range, is_integer, is_number, number
from .words import shown


REDUCTIONS = ("none", "mean", "sum")


def _broadcasts(shape: Shape, target: Shape) -> bool:
    return len(shape) == len(target) and all(
        a in (1, b) for a, b in zip(shape, target, strict=True)
    )


def boolean(function: str, name: str, x: Any) -> Array:
    if is_number(x):
        raise TypeError(
            f"{function}: expected boolean {name}, got {x!r}. Give True, False, or an "
            "array of these, mask > 0."
        )
    x = as_array(function, name, x, remedy="Compare, {name} != 0")
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
    *,
    classes: Any = None,
) -> Array:
    """A scalar, or the loss's rank with axes of size 1 allowed.

    `classes` is their number where the function takes factors of them, too.
    """
    if x.ndim and not _broadcasts(x.shape, rows):
        hint = missing_axes(name, x.shape, rows)
        if name == "weights" and x.shape == (classes,):
            hint = "Factors of the classes are class_weights."
        raise ValueError(
            f"{function}: expected {name} to be a scalar or of {of} {rows}, "
            f"got {x.shape}. {hint}"
        )
    return x.reshape((1,) * len(rows)) if x.ndim == 0 else x


def mask_of_rows(
    function: str, where: Any, rows: Shape, of: str = "the losses' shape"
) -> Array | None:
    if where is None:
        return None
    return per_row(function, "where", boolean(function, "where", where), rows, of)


def weights_of_rows(
    function: str,
    weights: Any,
    rows: Shape,
    dtype: Any,
    of: str = "the losses' shape",
    *,
    classes: Any = None,
) -> Array | None:
    """Factors of rows; `classes` as in `per_row`."""
    if weights is None:
        return None
    x = real(function, "weights", weights, dtype, booleans=True)
    return per_row(function, "weights", x, rows, of, classes=classes)


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
    """The check of an option with one number a row, or a scalar for all."""

    above: float | None = None


class PerClass(NamedTuple):
    """The check of an option with one number a class, or one boolean."""

    boolean: bool = False


class Number(NamedTuple):
    """The check of an option with one value for all.

    `off` is the Python number that switches an option off, as None does.
    """

    off: float | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    or_per_class: bool = False


def declared_number(
    function: str, name: str, value: Any, check: Number, dtype: Any
) -> Array:
    limits = {"low": check.low, "high": check.high, "above": check.above}
    return number(function, name, value, dtype, **limits)


def option(
    function: str,
    name: str,
    value: Any,
    check: PerRow | PerClass | Number,
    rows: Shape,
    classes: Size,
    dtype: Any,
    *,
    class_weights: bool = False,
) -> Array:
    """The value of an option that is on, checked and shaped as its declaration says.

    `class_weights` is whether the function takes these.
    """
    if isinstance(check, Number):
        if check.or_per_class and getattr(value, "ndim", 0 if is_number(value) else 1):
            x = real(function, name, value, dtype)
            return per_class(function, name, x, (classes,))
        return declared_number(function, name, value, check, dtype)
    if isinstance(check, PerRow):
        in_range(function, name, value, above=check.above, dtype=dtype)
        x = real(function, name, value, dtype, booleans=check.above is None)
        return per_row(
            function, name, x, rows, classes=classes if class_weights else None
        )
    if check.boolean:
        x = boolean(function, name, value)
    else:
        x = real(function, name, value, dtype, booleans=True)
    return per_class(function, name, x, (classes,))


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
    one_of(function, "reduction", value, REDUCTIONS, optional=False)
    if normalizer is not None and value != "mean":
        raise ValueError(
            f"{function}: normalizer is what reduction='mean' divides by, "
            f"got reduction={value!r}. Ask for the mean, or divide the sum yourself."
        )


def one_of(
    function: str,
    name: str,
    value: Any,
    allowed: tuple[str, ...],
    *,
    optional: bool = True,
) -> None:
    """A name among some, or None where that is `optional`."""
    if (value is None and optional) or (isinstance(value, str) and value in allowed):
        return
    raise ValueError(
        f"{function}: expected {name} to be one of {allowed}"
        f"{' or None' if optional else ''}, got {shown(value)}."
    )


def precision(function: str, value: Any) -> lax.PrecisionLike:
    """One precision of a product, for both of its factors."""
    if value is None:
        return None
    kinds = str | lax.Precision | lax.DotAlgorithm | lax.DotAlgorithmPreset | None
    try:
        if not isinstance(value, kinds):
            raise ValueError
        one = jax.ShapeDtypeStruct((1, 1), jnp.float32)
        jax.eval_shape(lambda a: lax.dot(a, a, precision=value), one)
    except ValueError:
        raise ValueError(
            f"{function}: expected one precision as jnp.dot takes it, 'highest' or "
            f"jax.lax.DotAlgorithmPreset.BF16_BF16_F32 say, got {shown(value)}."
        ) from None
    return value


def block_sizes(
    function: str, value: Any, columns: str = "classes"
) -> tuple[int | None, int | None]:
    pair = (None, None) if value is None else value
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or any(n is not None and not (is_integer(n) and n >= 1) for n in pair)
    ):
        raise ValueError(
            f"{function}: expected block_sizes to be a pair (rows, {columns}) of "
            f"positive ints, None where any will do, got {shown(value)}."
        )
    rows, classes = (None if n is None else operator.index(n) for n in pair)
    return rows, classes
