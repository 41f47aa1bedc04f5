"""Resolves labels, masks and weights, once for each row and before any statistic."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Integer

from .._arrays import (
    Shaped,
    at_index,
    cast,
    count_over_devices,
    is_below,
    is_split,
    over_classes,
    over_places,
    over_rows,
    row_shape,
    select,
    sharded_like,
    sum_over_devices,
)
from .pair import Axes, Maybe, Rows, Settings, Shared, like_logits, map_fields


# An id that names no class. It matches none in any block, and the loss and the gradient
# of its row are NaN.
NO_CLASS = -(2**31)
# An id that is in no block, and so adds nothing to a row's labels.
NOWHERE = -1


class Resolved(NamedTuple):
    """Which rows count, and the class ids that are scored. No field has a tangent.

    A row is *kept* unless `where`, `ignore_index` or a mask of all its classes drops
    it. It is *weighted* if it is kept and its weight is not 0. A row that is not
    weighted has loss and gradient 0; but a row that is kept has a derivative in its
    weight, if its logits are finite.
    """

    # int32 (rows,) or (rows, places): global, NO_CLASS if bad, 0 if not weighted
    ids: Maybe = None
    scored: Maybe = None  # (rows, places): False for padding and masked classes
    keep: Maybe = None  # (rows,); None: all
    weighted: Maybe = None  # (rows,); None: all. False where keep is
    classes: Maybe = None  # how many are possible, () or (rows,); None: all


def is_class(ids: Array) -> Array:
    """False where an id is NO_CLASS."""
    return lax.ne(ids, lax.full_like(ids, NO_CLASS))


def both(a: Maybe, b: Maybe) -> Maybe:
    return b if a is None else a if b is None else lax.bitwise_and(a, b)


def with_full_rows(
    settings: Settings, rows: Rows, shared: Shared
) -> tuple[Rows, Shared]:
    """The pair with the fields (rows,) broadcast to all rows.

    A `class_where` that is the same in all rows becomes a part of `class_mask`.
    """
    like = like_logits(settings, rows, shared)
    shape = row_shape(like.shape, settings.axis)

    def full(axes: Axes, name: str, x: Array) -> Array:
        return jnp.broadcast_to(x, shape) if axes.order == ("rows",) else x

    rows = map_fields(full, rows)
    where = rows.class_where
    if where is None or where.size != where.shape[settings.axis]:
        return rows, shared
    classes = (like.shape[settings.axis],)
    mask = both(shared.class_mask, jnp.broadcast_to(where.reshape(-1), classes))
    return rows._replace(class_where=None), shared._replace(class_mask=mask)


def resolve(settings: Settings, rows: Rows, shared: Shared) -> Resolved:
    """Resolves masks, ignored labels, weights of 0 and labels out of range."""
    like = like_logits(settings, rows, shared)
    shape, axis = like.shape, settings.axis
    names = settings.class_axis_name
    keep, classes = rows.where, None
    if rows.class_where is not None:
        possible = possible_classes(rows, shared, axis, like)
        assert possible is not None
        classes = lax.reduce_sum(cast(possible, jnp.int32), (axis,))
    elif shared.class_mask is not None:
        classes = lax.reduce_sum(cast(shared.class_mask, jnp.int32), (0,))
    if classes is not None:
        classes = sum_over_devices(classes, names)
        possible_rows = jnp.broadcast_to(classes > 0, row_shape(shape, axis))
        keep = both(keep, possible_rows)  # a row without a possible class is dropped
    if shared.ignore_index is not None and settings.ids:
        assert rows.labels is not None
        ignored = equal(rows.labels, shared.ignore_index)
        keep = both(keep, lax.bitwise_not(ignored))
    weighted = keep
    if rows.weights is not None:
        weighted = both(keep, rows.weights != 0)
    resolved = Resolved(keep=keep, weighted=weighted, classes=classes)
    count = count_over_devices(shape[axis], names)
    if settings.ids:
        assert rows.labels is not None
        ids = class_ids(rows.labels, weighted, count)
        ids = _without_masked(settings, rows, shared, ids, weighted, like)
        return resolved._replace(ids=ids)
    if rows.label_ids is not None:
        return _resolve_places(settings, rows, shared, resolved, like, count)
    return resolved


def _without_masked(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    ids: Array,
    weighted: Maybe,
    like: Shaped,
) -> Array:
    """The ids, with NO_CLASS for a label on a masked class.

    `weighted` is of the ids' shape. Where it is False, as in places that are padding,
    an id stays as it is.
    """
    if shared.class_mask is None and rows.class_where is None:
        return ids
    allowed = is_possible(settings, rows, shared, ids, like)
    if weighted is not None:
        allowed = lax.bitwise_or(allowed, lax.bitwise_not(weighted))
    return select(allowed, ids, NO_CLASS)


def _resolve_places(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    like: Shaped,
    count: int,
) -> Resolved:
    """Adds the ids of several classes a row, (rows, places), and which are scored.

    Mass on a masked class is dropped, as that of a distribution; but a log-probability
    that is asked for there is NaN, as that of a label.
    """
    assert rows.label_ids is not None
    scored, weighted = None, None
    if shared.ignore_index is not None:
        scored = lax.bitwise_not(equal(rows.label_ids, shared.ignore_index))
    if resolved.weighted is not None:
        weighted = over_places(resolved.weighted, rows.label_ids)
    weighted = both(scored, weighted)
    ids = class_ids(rows.label_ids, weighted, count)
    if settings.several_labels:
        ids = ids if scored is None else select(scored, ids, NOWHERE)
        return resolved._replace(ids=ids)
    allowed = _without_masked(settings, rows, shared, ids, weighted, like)
    if settings.log_prob_at:
        ids = allowed
    elif allowed is not ids:
        on_masked = lax.bitwise_and(is_class(ids), lax.bitwise_not(is_class(allowed)))
        scored = both(scored, lax.bitwise_not(on_masked))
    return resolved._replace(ids=ids, scored=scored)


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
    labels: Integer[Array, "..."], weighted: Maybe, classes: int
) -> Integer[Array, "..."]:
    """int32 ids; one out of range is NO_CLASS, or 0 in a row that is not weighted."""
    if labels.dtype.itemsize < 4:  # the class count may not fit into 8 or 16 bits
        labels = cast(labels, jnp.int32)
    valid = is_below(labels, classes)
    ids = cast(select(valid, labels), jnp.int32)
    if weighted is not None:
        valid = lax.bitwise_or(valid, lax.bitwise_not(weighted))
    return select(valid, ids, NO_CLASS)


def possible_classes(rows: Rows, shared: Shared, axis: int, like: Shaped) -> Maybe:
    """False where a class is masked, of the logits' shape; None for all."""
    mask = None
    if shared.class_mask is not None:
        mask = over_rows(shared.class_mask, axis, like)
    if rows.class_where is not None:
        where = jnp.broadcast_to(rows.class_where, like.shape)
        mask = both(mask, sharded_like(where, like))
    return mask


def local_ids(settings: Settings, ids: Array, classes: int) -> Array:
    """Class ids as this device counts them; out of range where another holds them."""
    if not settings.class_axis_name:
        return ids
    offset = lax.axis_index(settings.class_axis_name) * classes
    return select(is_class(ids), ids - offset, NO_CLASS)


def is_label(ids: Array, axis: int, like: Shaped) -> Array:
    """Compares every class with its row's label: a one-hot that is never stored."""
    classes = lax.broadcasted_iota(jnp.int32, like.shape, axis)
    return lax.eq(sharded_like(classes, like), over_classes(ids, axis, like))


def at_places(x: Array, ids: Array, axis: int) -> Array:
    """The values of `x` at several ids a row, (rows, places); 0 out of range.

    `x` is (…, classes, …), or (classes,) for what all rows share. Linear in it.
    """
    if not is_split(x):
        here = is_below(ids, x.shape[axis if x.ndim > 1 else 0])
        return select(here, at_index(x, select(here, ids), axis))

    # A gather along a split axis is refused.
    def at_place(place: Array) -> Array:
        picked = select(is_label(place, axis, x), x)
        return lax.reduce_sum(picked, (axis,))

    places = lax.map(at_place, jnp.moveaxis(ids, -1, 0))
    return jnp.moveaxis(places, 0, -1)


def of_places(values: Maybe, ids: Array, axis: int, like: Array) -> Array:
    """Σ_k values_k [c = ids_k], of the logits' shape; integers where values are None.

    `like` are the logits. An id that is out of range adds nothing.
    """
    if values is None:  # XLA stores the result: as bytes, where these count so far
        integer = jnp.int8 if ids.shape[-1] < 2**7 else jnp.int32
        values = lax.full_like(ids, 1, dtype=integer)
    else:
        values = cast(values, like.dtype)
    if is_split(like):  # a scatter along a split axis is refused

        def add(y: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
            index, value = place
            here = over_classes(value, axis, like)
            return y + select(is_label(index, axis, like), here), None

        zeros = lax.full_like(like, 0, dtype=values.dtype)
        places = jnp.moveaxis(ids, -1, 0), jnp.moveaxis(values, -1, 0)
        return lax.scan(add, zeros, places)[0]
    classes, rows = like.shape[axis], range(ids.ndim - 1)
    index = [lax.broadcasted_iota(jnp.int32, ids.shape, a) for a in rows]
    index.append(select(is_below(ids, classes), ids, classes))
    y = lax.full((*ids.shape[:-1], classes), 0, values.dtype)
    return jnp.moveaxis(y.at[tuple(index)].add(values, mode="drop"), -1, axis)


def at_label(settings: Settings, x: Array, ids: Array, like: Shaped) -> Array:
    """The value at each row's labels of `x`, (classes,) or of the logits' shape.

    `like` has the logits' shape and sharding. 0 where the id is NO_CLASS. A gather is
    dear on a TPU, and a one-hot that is summed as it is formed costs no memory.
    """
    axis = settings.axis
    classes = like.shape[axis]
    names = settings.class_axis_name

    def compared(x: Array, ids: Array) -> Array:
        full = over_rows(x, axis, like) if x.ndim == 1 else x
        return lax.reduce_sum(select(is_label(ids, axis, like), full), (axis,))

    def gathered(x: Array, ids: Array) -> Array:
        here = is_below(ids, classes)
        at = select(here, ids)
        return select(here, at_index(x, at, axis))

    ids = local_ids(settings, ids, classes)
    if ids.ndim == like.ndim:
        value = at_places(over_rows(x, axis, like) if is_split(like) else x, ids, axis)
    elif is_split(like):
        value = compared(x, ids)
    else:
        value = lax.platform_dependent(x, ids, cpu=gathered, default=compared)
    return sum_over_devices(value, names)


def is_possible(
    settings: Settings, rows: Rows, shared: Shared, ids: Array, like: Shaped
) -> Array:
    """Whether each row's label is on a class that no mask forbids."""
    masks = (shared.class_mask, rows.class_where)
    allowed = None
    for mask in masks:
        if mask is not None:
            if mask.ndim > 1:
                mask = jnp.broadcast_to(mask, like.shape)
            found = at_label(settings, mask.astype(jnp.int32), ids, like) > 0
            allowed = both(allowed, found)
    assert allowed is not None
    return allowed
