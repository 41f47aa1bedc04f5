"""Axes of arrays, and of a mesh."""

import operator
from collections.abc import Hashable, Mapping
from typing import Any, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .._arrays import Shaped
from .numbers import is_integer
from .words import SCALARS, fail, shown, to_be_static


Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | None


AxisName: TypeAlias = str | tuple[str, ...] | None


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
    if type(axis) is int and -x.ndim <= axis < x.ndim:
        return axis % x.ndim
    axes = axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if is_integer(a):
            continue
        hint = to_be_static("axis", a)
        some = a.ndim if isinstance(a, np.ndarray | Array) else isinstance(a, list)
        if weighted and (some or (isinstance(axis, tuple) and isinstance(a, float))):
            hint = " Weights of classes are class_weights=, those of rows weights=."
            if some and jnp.issubdtype(getattr(a, "dtype", float), jnp.integer):
                hint = f" For hidden @ kernel call {function}(LinearLogits(hidden, "
                hint += "kernel), labels)."
        raise TypeError(
            f"{function}: expected axis to be an int, a tuple of ints or None, "
            f"got {shown(axis)}.{hint}"
        )
    indices = tuple(operator.index(a) for a in axes)
    for a in indices:
        if not -x.ndim <= a < x.ndim:
            raise ValueError(
                f"{function}: axis {a} is out of range for {name} of shape {x.shape}."
            )
    front = tuple(a % x.ndim for a in indices)
    if len(set(front)) < len(front) or not front:
        kind = "different axes" if front else "at least one axis"
        raise ValueError(
            f"{function}: expected {kind}, got axis={axis!r} "
            f"for {name} of shape {x.shape}."
        )
    return front if isinstance(axis, tuple) else front[0]


def without_classes(function: str, options: Mapping[str, Any]) -> None:
    """Refuses options of classes where axis=() says that there are none."""
    for name, value in options.items():
        if value is not None:
            fail(
                function,
                f"{name} needs an axis of classes, got axis=(), for which every "
                "element is a row by itself. Give axis=-1, for one loss a row.",
            )


def classes_last(x: Array, axes: tuple[int, ...]) -> Array:
    """Moves `axes` to the end, in their order, and makes one axis of them."""
    rows = tuple(a for a in range(x.ndim) if a not in axes)
    x = x.transpose(rows + axes)
    return x.reshape(*x.shape[: len(rows)], -1)


def _is_bound(name: str) -> bool:
    try:
        lax.axis_size(name)
    except NameError:
        return False
    return True


def bound_axis_names(
    function: str, argument: str, names: AxisName, *arrays: Any
) -> tuple[str, ...]:
    """The names bound by an enclosing `shard_map` (or `vmap`).

    `arrays` are those of the call, in trees.

    A name that is not bound but belongs to the mesh in use needs nothing here: such an
    array is seen whole, and the partitioner splits the work. Any other is an error.
    """
    if names is None:
        return ()
    several = names if isinstance(names, tuple) else (names,)
    named = all(
        isinstance(n, Hashable) and not isinstance(n, (tuple, *SCALARS))
        for n in several
    )
    if not named or None in several or len({*several}) < len(several):
        fail(
            function,
            f"expected {argument} to be the name of a mesh axis or a tuple of "
            f"different ones, got {names!r}.",
        )
    bound = tuple(n for n in several if _is_bound(n))
    known = set(jax.sharding.get_abstract_mesh().axis_names)
    for x in jax.tree.leaves(arrays):
        known.update(jax.typeof(x).sharding.mesh.axis_names)
    for n in several:
        if n not in bound and n not in known:
            raise ValueError(
                f"{function}: {argument} {n!r} is neither bound by an enclosing "
                f"shard_map nor an axis of the mesh in use (axes: {sorted(known)}). "
                "Set the mesh with jax.set_mesh, or correct the name; a legacy "
                "`with mesh:` is not seen."
            )
    return bound
