"""Bundles: trees of arrays whose fields are declared with their axes.

Every option and every array of a call is declared once, as a field of a bundle. Its
annotation says which axes it has, of "rows", "classes" and "features", and from these
follows how it is cut into blocks of classes and tiles of rows, how it is split over the
axes of a mesh, and along which mesh axes it may vary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import (
    Any,
    NamedTuple,
    TypeAlias,
    TypeVar,
    dataclass_transform,
    get_type_hints,
)

import jax
from jax import Array, lax

from .._compute.reading import block_along


Maybe: TypeAlias = Array | None


class Axes(NamedTuple):
    """The axes of a field, in their order.

    A field that acts on logits has its derivative summed over the devices that split
    the classes. One that acts `after_merge`, on what the statistics of all classes
    give, has the same derivative on each of them.
    """

    order: tuple[str, ...]
    after_merge: bool = False


def after_merged(axes: Axes) -> Axes:
    return axes._replace(after_merge=True)


ROWS = Axes(order=("rows",))
ROWS_AND_CLASSES = Axes(order=("rows", "classes"))
ROWS_AND_PLACES = Axes(order=("rows", "places"))  # several class ids a row
ROWS_AND_FEATURES = Axes(order=("rows", "features"))
FEATURES_AND_CLASSES = Axes(order=("features", "classes"))
CLASSES_AND_FEATURES = Axes(order=("classes", "features"))
CLASSES = Axes(order=("classes",))
NUMBER = Axes(order=())


Class = TypeVar("Class", bound=type)


# The metadata of a field that is no array: it decides the program.
STATIC = {"static": True}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def bundle(kind: Class) -> Class:
    """Makes a class a pytree of its fields, but for those that are static."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(kind))


@functools.cache
def declared(kind: type) -> dict[str, tuple[Any, ...]]:
    """For each field the metadata of its annotation: axes, and the check of an option.

    (None,) for a field that is a bundle itself, or a tuple of bundles.
    """
    hints = get_type_hints(kind, include_extras=True)
    names = getattr(kind, "DATA", None) or getattr(kind, "_fields", None)
    names = names or [field.name for field in dataclasses.fields(kind)]
    return {name: getattr(hints[name], "__metadata__", (None,)) for name in names}


def replace_fields(bundle: Any, **fields: Any) -> Any:
    if hasattr(bundle, "_replace"):
        return bundle._replace(**fields)
    return dataclasses.replace(bundle, **fields)


def map_fields(function: Callable[..., Any], bundle: Any, *others: Any) -> Any:
    """The bundle with function(axes, value, …) for each value that is not None.

    A bundle of tangents or gradients is one, too: None where there is no tangent.
    """

    def mapped(axes: Axes | None, value: Any, *more: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            columns = zip(value, *more, strict=True)
            return tuple(mapped(axes, *column) for column in columns)
        if axes is None:
            return map_fields(function, value, *more)
        return function(axes, value, *more)

    oriented = bundle.oriented if hasattr(bundle, "oriented") else {}
    fields = {
        name: mapped(
            oriented.get(name, metadata[0]),
            *(getattr(b, name) for b in (bundle, *others)),
        )
        for name, metadata in declared(type(bundle)).items()
    }
    return replace_fields(bundle, **fields)


def axis_of_classes(axes: Axes, x: Array) -> int | None:
    """The axis of `x` that runs over the classes; None where it has none.

    Rows are one axis here.
    """
    if "classes" not in axes.order:
        return None
    axis = axes.order.index("classes")
    return axis if x.ndim > axis else None


def class_block(bundle: Any, start: Any, size: int, *, linear: bool = False) -> Any:
    """A bundle's block of classes [start, start + size).

    Linear: of tangents, in operations that JAX can transpose.
    """
    along = lax.dynamic_slice_in_dim if linear else block_along

    def cut(axes: Axes, x: Array) -> Array:
        axis = axis_of_classes(axes, x)
        if axis is None or x.shape[axis] == 1:
            return x
        return along(x, start, size, axis)

    return map_fields(cut, bundle)
