"""Labels and the classes they are of."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from .._arrays import Shape, Shaped, row_shape
from .arrays import as_array, is_integral
from .numbers import is_integer


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


def compared(function: str, shape: Shape, target: Shape, hint: str = "") -> None:
    """Refuses target_logits of another shape than the logits'."""
    if target != shape:
        hint = hint or rearranged("target_logits", target, shape)
        hint = hint or "Every row is compared with one of its own; none broadcasts."
        raise ValueError(
            f"{function}: expected target_logits of the logits' shape {shape}, got "
            f"{target}. {hint}"
        )


def several_classes(
    function: str, name: str, x: Shaped, axis: int | tuple[int, ...]
) -> None:
    if isinstance(axis, tuple):
        classes = math.prod(x.shape[a] for a in axis)
    else:
        classes = x.shape[axis]
    if isinstance(classes, int) and classes < 2:  # else symbolic
        binary = {
            "logits": "sigmoid_binary_cross_entropy",
            "probs": "binary_cross_entropy",
        }
        hint = (
            "Such a loss is always 0. For one number per binary label call "
            f"{binary[name]}."
            if classes
            else "Is this the class axis?"
        )
        raise ValueError(
            f"{function}: expected at least two classes, got {name} of shape {x.shape} "
            f"with {classes} along axis {axis}. {hint}"
        )


def labels_of_classes(
    function: str, name: str, x: Shaped, labels: Array, axis: int | tuple[int, ...]
) -> None:
    """Refuses labels that are not one for every class."""
    if labels.shape == x.shape:
        return
    axes = axis if isinstance(axis, tuple) else (axis,)
    hint = rearranged("labels", labels.shape, x.shape, axes[0])
    if labels.shape == tuple(n for a, n in enumerate(x.shape) if a not in axes):
        hint = (
            "For one class id a row call softmax_cross_entropy; for lists of the "
            "positive classes give SparseLabels(ids)."
        )
    hint = hint or "Labels never broadcast; every class of every row has its own."
    raise ValueError(
        f"{function}: expected a label for every class, of the {name}' shape "
        f"{x.shape}, or SparseLabels, got {labels.shape}. {hint}"
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
    if labels.shape == x.shape and not ids_only:
        return False
    axes = axis if isinstance(axis, tuple) else (axis,)
    rows = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    if labels.shape != rows:
        shapes = f"class ids of shape {rows}, the {name}' shape {x.shape} without axis "
        shapes += f"{axis}"
        if not ids_only:
            shapes += f", or distributions of shape {x.shape}"
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
        raise ValueError(f"{function}: expected {shapes}, got {labels.shape}. {hint}")
    if is_integral(labels.dtype):
        return True
    if labels.dtype == jnp.bool_:
        raise TypeError(
            f"{function}: expected integer class ids, got boolean labels of shape "
            f"{labels.shape}. For binary labels call sigmoid_binary_cross_entropy, or "
            "cast them, labels.astype(jnp.int32)."
        )
    soft = "" if ids_only else f" Distributions need the {name}' shape {x.shape}."
    raise TypeError(
        f"{function}: expected integer class ids, got {labels.dtype} labels of "
        f"shape {labels.shape}. Cast ids with labels.astype(jnp.int32).{soft}"
    )


def ignorable(
    function: str, ignore_index: Any, labels: Array, *, ids: bool
) -> Array | None:
    """The checked option, in the labels' dtype if it is a Python number."""
    if ignore_index is not None and not ids:
        raise ValueError(
            f"{function}: ignore_index={ignore_index!r} needs integer class ids, got "
            f"distributions of shape {labels.shape}. Drop rows with where instead."
        )
    return _index_among(function, ignore_index, labels)


def ignorable_binary(function: str, ignore_index: Any, labels: Array) -> Array | None:
    """`ignorable` of binary labels: integers, of which it marks those that miss."""
    if ignore_index is not None and not is_integral(labels.dtype):
        raise ValueError(
            f"{function}: ignore_index={ignore_index!r} needs integer labels, got "
            f"dtype {labels.dtype}. Leave labels out with where instead."
        )
    return _index_among(function, ignore_index, labels)


def _index_among(function: str, ignore_index: Any, labels: Array) -> Array | None:
    if ignore_index is None:
        return None
    if is_integer(ignore_index) and not isinstance(ignore_index, Array):
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
