"""What a row is scored against: ids or distributions, ignored, masked, smoothed."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer, Num

from .. import _checks
from .._arrays import along_classes, masked, rows_to_classes, spread, spread_rows
from .._statistics import NO_CLASS


class Target(NamedTuple):
    """The rows' targets q, after every option that is about labels.

    A class id y stands for q = (1 − ε) w_y onehot(y) + (ε/K) w, a distribution t for
    q = w ((1 − ε) t + ε/K): class weights w, smoothing ε over the K allowed classes.
    """

    labels: Integer[Array, "..."] | None
    distribution: Float[Array, "..."] | None  # q itself
    keep: Bool[Array, "..."] | None  # False: the row counts for nothing
    counted: Bool[Array, "..."] | None  # keep, and the row's weight is not 0
    mask: Bool[Array, "..."] | None  # logits' rank; False: an impossible class
    class_weights: Float[Array, " classes"] | None
    smoothing: Float[Array, ""] | None  # ε
    share: Float[Array, "..."] | None  # ε/K, broadcast against rows
    total_class_weight: Float[Array, "..."] | None  # Σ w over the allowed classes
    mass: Float[Array, "..."] | None  # Σ_c w_c t_c, before smoothing


class Wanted(NamedTuple):
    """The arrays of a loss's label options, shaped by `_checks`."""

    labels: Num[Array, "..."] | None = None
    row_where: Bool[Array, "..."] | None = None
    class_where: Bool[Array, "..."] | None = None
    class_mask: Bool[Array, " classes"] | None = None
    weights: Float[Array, "..."] | None = None
    class_weights: Float[Array, " classes"] | None = None
    ignore_index: Integer[Array, ""] | None = None
    label_smoothing: Float[Array, ""] | None = None


def _over_classes(x: Array, axis: int, names: tuple[str, ...]) -> Array:
    total = jnp.sum(x, axis)
    return lax.psum(total, names) if names else total


def target(
    wanted: Wanted,
    logits: _checks.Shaped,
    axis: int,
    *,
    ids: bool,
    class_axis_name: tuple[str, ...],
) -> Target:
    """Resolves masks, ignored and out-of-range labels, class weights and smoothing.

    Of the logits only the shape and dtype matter. A distribution is left to
    `target_in_memory`, or to who takes it block by block.
    """
    rows, classes = _checks.row_shape(logits.shape, axis), logits.shape[axis]
    dtype = _checks.compute_dtype(logits)
    keep, mask = _masks(wanted, logits, axis, class_axis_name)
    # A row whose weight is 0 is dropped like any other, but its loss is still computed
    # where it can be: it is the derivative in that weight.
    counted = keep
    if wanted.weights is not None:
        weighty = jnp.broadcast_to(wanted.weights != 0, rows)
        weighty = spread_rows(weighty, logits, axis)
        counted = weighty if keep is None else keep & weighty

    weights = None
    if wanted.class_weights is not None:
        weights = along_classes(wanted.class_weights.astype(dtype), axis, logits.ndim)
        weights = spread(weights, logits)
    smoothing = wanted.label_smoothing
    share = total_class_weight = None
    if smoothing is not None:
        real = along_classes(jnp.ones(classes, dtype), axis, logits.ndim)
        real = spread(real, logits)
        real = real if mask is None else masked(real, mask)
        count = _over_classes(real, axis, class_axis_name)
        share = smoothing / masked(count, count != 0, 1)
        if weights is not None:
            real = masked(weights, real != 0)
        total_class_weight = _over_classes(real, axis, class_axis_name)

    labels = None
    if wanted.labels is not None and ids:
        given = spread_rows(wanted.labels, logits, axis)
        labels = class_ids(given, counted, classes, class_axis_name)
    return Target(
        labels,
        None,
        keep,
        counted,
        mask,
        wanted.class_weights,
        smoothing,
        share,
        total_class_weight,
        None,
    )


def target_in_memory(
    wanted: Wanted,
    logits: Array,
    axis: int,
    *,
    ids: bool,
    class_axis_name: tuple[str, ...],
) -> Target:
    """`target`, its distribution and mass included."""
    settled = target(wanted, logits, axis, ids=ids, class_axis_name=class_axis_name)
    if ids or wanted.labels is None:
        return settled
    t = allowed_distribution(settled, wanted.labels, logits, axis)
    mass = _over_classes(weigh_classes(settled, t, logits, axis), axis, class_axis_name)
    q = smoothed_distribution(settled, t, logits, axis)
    return settled._replace(distribution=q, mass=mass)


# What follows is elementwise, so that it may be done block by block.


def allowed_distribution(
    target: Target, given: Array, logits: _checks.Shaped, axis: int
) -> Array:
    """t: the given distribution on classes and in rows that count."""
    t = spread(given.astype(_checks.compute_dtype(logits)), logits)
    if target.keep is not None:  # whatever a dropped row holds
        t = masked(t, rows_to_classes(target.keep, axis))
    if target.counted is not None:  # its mass must not overflow
        usable = rows_to_classes(target.counted, axis) | jnp.isfinite(jnp.square(t))
        t = masked(t, usable)
    return t if target.mask is None else masked(t, target.mask)


def weigh_classes(target: Target, t: Array, logits: _checks.Shaped, axis: int) -> Array:
    """w t"""
    if target.class_weights is None:
        return t
    weights = along_classes(target.class_weights.astype(t.dtype), axis, t.ndim)
    return spread(weights, logits) * t


def smoothed_distribution(
    target: Target, t: Array, logits: _checks.Shaped, axis: int
) -> Array:
    """q = w ((1 − ε) t + ε/K)"""
    if target.smoothing is not None and target.share is not None:
        even = spread(rows_to_classes(target.share, axis), logits)
        even = even if target.mask is None else masked(even, target.mask)
        t = (1 - target.smoothing) * t + even
    return weigh_classes(target, t, logits, axis)


def _masks(
    wanted: Wanted,
    logits: _checks.Shaped,
    axis: int,
    class_axis_name: tuple[str, ...],
) -> tuple[Bool[Array, "..."] | None, Bool[Array, "..."] | None]:
    """The rows that are kept, and the classes that are possible; None for all."""
    rows = _checks.row_shape(logits.shape, axis)
    keep = mask = None
    if wanted.row_where is not None:
        keep = spread_rows(jnp.broadcast_to(wanted.row_where, rows), logits, axis)
    if wanted.class_mask is not None:
        mask = along_classes(wanted.class_mask, axis, logits.ndim)
    if wanted.class_where is not None:
        mask = wanted.class_where if mask is None else mask & wanted.class_where
    if mask is not None:  # a row without a possible class is dropped
        mask = spread(mask, logits)
        allowed = _over_classes(mask.astype(jnp.int32), axis, class_axis_name)
        some = jnp.broadcast_to(allowed > 0, rows)
        keep = some if keep is None else keep & some
    if wanted.labels is not None and wanted.ignore_index is not None:
        told = ~equal(wanted.labels, wanted.ignore_index)
        told = spread_rows(told, logits, axis)
        keep = told if keep is None else keep & told
    return keep, mask


def equal(
    labels: Integer[Array, "..."], index: Integer[Array, ""]
) -> Bool[Array, "..."]:
    """labels == index, in the labels' own integers: no cast can make them equal."""
    same = index.astype(labels.dtype)
    fits = (same.astype(index.dtype) == index) & ((same < 0) == (index < 0))
    return (labels == same) & fits


def class_ids(
    labels: Integer[Array, "..."],
    counted: Bool[Array, "..."] | None,
    classes: int,
    class_axis_name: tuple[str, ...],
) -> Integer[Array, "..."]:
    """int32 ids; one out of range is NO_CLASS, or 0 in a row that does not count."""
    if labels.dtype.itemsize < 4:  # the class count may not fit into 8 or 16 bits
        labels = labels.astype(jnp.int32)
    if class_axis_name:
        classes = classes * lax.axis_size(class_axis_name)
    valid = (labels >= 0) & (labels < classes)
    ids = masked(labels, valid).astype(jnp.int32)
    return masked(ids, valid if counted is None else valid | ~counted, NO_CLASS)
