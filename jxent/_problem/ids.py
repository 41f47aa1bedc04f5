"""Class ids: which are classes, and the values of arrays at them."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Integer

from .._arrays import Size, cast, is_below, select, sum_over_devices
from .._compute.reading import at_ids
from .bundles import Maybe
from .problem import Problem
from .resolved import NO_CLASS, is_class


def equal(
    labels: Integer[Array, "..."], index: Integer[Array, ""]
) -> Bool[Array, "..."]:
    """labels == index, in the labels' own integers: no cast can make them equal."""
    same = cast(index, labels.dtype)
    found = lax.eq(labels, lax.full_like(labels, same))
    if index.dtype == labels.dtype:
        return found
    fits = (cast(same, index.dtype) == index) & ((same < 0) == (index < 0))
    return found & fits


def class_ids(
    labels: Integer[Array, "..."], weighted: Maybe, classes: Size
) -> Integer[Array, "..."]:
    """int32 ids; one out of range is NO_CLASS, or 0 in a row that is not weighted."""
    if labels.dtype.itemsize < 4:  # the class count may not fit into 8 or 16 bits
        labels = cast(labels, jnp.int32)
    valid = is_below(labels, classes)
    ids = cast(select(valid, labels), jnp.int32)
    if weighted is not None:
        valid = lax.bitwise_or(valid, lax.bitwise_not(weighted))
    return select(valid, ids, NO_CLASS)


def first_class(problem: Problem, start: Maybe = None) -> Maybe:
    """The number over all devices of a block's first class; None for 0.

    `start` counts from the first class of this device.
    """
    names = problem.settings.class_axis_name
    if not names:
        return start
    first = lax.axis_index(names) * problem.like.shape[problem.axis]
    return first if start is None else first + start


def ids_from(ids: Array, first: Maybe) -> Array:
    """Class ids counted from `first`, None for 0; out of range for other blocks'."""
    return ids if first is None else select(is_class(ids), ids - first, NO_CLASS)


def at_label(problem: Problem, x: Array, ids: Array) -> Array:
    """The value at each row's labels of `x`, (classes,) or of the logits' shape.

    0 where the id is NO_CLASS.
    """
    ids = ids_from(ids, first_class(problem))
    here = at_ids(x, ids, problem.axis, problem.like)
    return sum_over_devices(here, problem.settings.class_axis_name)
