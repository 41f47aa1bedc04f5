"""What a mean divides by: the weight of all rows together."""

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float

from .. import _checks
from .._arrays import (
    Shape,
    broadcast_like,
    compute_dtype,
    is_split,
    over_places,
    over_rows,
    row_shape,
    select,
)
from .._checks import ArrayLike, AxisName, SparseLabels
from .._problem import (
    NO_CLASS,
    at_places,
    both,
    class_ids,
    equal,
    report_bad_labels,
)
from .._reduction import combine


def total_weight(
    labels: ArrayLike | SparseLabels,
    *,
    axis: SupportsIndex = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, ""]:
    """What reduction="mean" divides by: Σ r over all rows.

        r = where · weights · w_y,   Σ_c w_c q_c in place of w_y for a distribution q

    Take it once over the whole batch, and give it to each micro-batch or device as its
    `normalizer`: the sum of their losses is then the mean over the whole batch, where a
    mean of means is not. The sum of their gradients is then its gradient.

    What averages the gradients of k micro-batches or devices in place of adding them
    up, as `optax.MultiSteps` does, needs `normalizer=total_weight(…) / k`. With the
    total itself its updates are 1/k of what they should be.

    Args:
      labels: integer class ids of any shape, floating distributions, or `SparseLabels`.
      axis: the class axis of distributions, of the ids of `SparseLabels`, and of a
        where that masks classes.
      where: boolean, as the loss gets it: of the losses' shape (axes of size 1 allowed)
        or a scalar, False drops the row; with a class axis more, False masks classes.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_weights: w, (classes,): the factor of each class's term in the loss.
      ignore_index: the class id that marks a dropped row.
      batch_axis_name: the mesh axes that the rows are split over, inside
        `jax.shard_map`: the mean and the sum run over them too. Outside of it logits in
        memory need no names.

    Returns:
      A scalar; float32, or float64 for float64 weights or distributions.

    Numerics:
      Summed in float32 or better. Rows that the loss drops count 0. A label that has no
      class weight is reported under `jax.experimental.checkify`, as the loss does.

    Raises:
      TypeError: labels are boolean, or where is floating.
      ValueError: shapes do not fit.

    Example:
      >>> labels = jnp.array([[3, 1, -100], [2, -100, -100]])
      >>> total = jxent.total_weight(labels, ignore_index=-100)
      >>> print(total)
      3.0

      Each row as a micro-batch, whose losses are added up, and then averaged:

      >>> def loss(logits, labels, normalizer=None):
      ...     return jxent.softmax_cross_entropy(
      ...         logits, labels, ignore_index=-100, reduction="mean",
      ...         normalizer=normalizer)
      >>> logits = jnp.sqrt(jnp.arange(24.0)).reshape(2, 3, 4)
      >>> print(loss(logits, labels))
      1.2361
      >>> print(sum(loss(*micro, total) for micro in zip(logits, labels)))
      1.2361
      >>> print(sum(loss(*micro, total / 2) for micro in zip(logits, labels)) / 2)
      1.2361

    Source:
      torchtitan's and transformers' fixes of their means over accumulated gradients.

    See also:
      `reduce`, `softmax_cross_entropy`.
    """
    name = "total_weight"
    sparse = isinstance(labels, SparseLabels)
    y, values = _arrays_of(name, labels)
    axis = _checks.integer(name, "axis", axis)
    if y.dtype == jnp.bool_:
        raise TypeError(
            f"{name}: expected class ids or distributions, got boolean labels. For "
            "losses of binary labels the total is that of where and weights: "
            "jxent.reduce(jnp.ones(labels.shape), reduction='sum', where=…)."
        )
    ids = bool(jnp.issubdtype(y.dtype, jnp.integer)) and not sparse
    factors = {"weights": weights, "class_weights": class_weights}
    given = [_checks.as_array(name, n, x) for n, x in factors.items() if x is not None]
    floating = [x for x in (y, values) if x is not None and not ids]
    dtype = compute_dtype(*given, *floating)
    ndim = y.ndim + 1 if ids else y.ndim
    if not -ndim <= axis < ndim:
        _checks.fail(
            name, f"axis {axis} is out of range for labels of shape {y.shape}."
        )
    axis = axis % ndim
    rows = y.shape if ids else row_shape(y.shape, axis)
    if isinstance(labels, SparseLabels):
        y, values = _checks.sparse_labels(name, labels, y.shape, axis, dtype)
    # Class ids do not tell how many classes there are.
    classes = None if ids or sparse else y.shape[axis]
    row_where, class_where = _masks(name, where, rows, axis, classes)
    if class_weights is not None:
        class_weights = _class_weights(name, class_weights, classes, dtype)
    if weights is not None:
        weights = _checks.real(name, "weights", weights, dtype, booleans=True)
        weights = _checks.per_row(name, "weights", weights, rows, classes=classes)
    index = _checks.ignorable(name, ignore_index, y, ids=ids or sparse)
    names = _checks.bound_axis_names(name, "batch_axis_name", batch_axis_name, y)
    return _total_weight(
        y,
        values,
        row_where,
        class_where,
        weights,
        class_weights,
        index,
        axis=axis,
        ids=ids,
        sparse=sparse,
        batch_axis_name=names,
        dtype=dtype,
    )


def _arrays_of(
    function: str, labels: ArrayLike | SparseLabels
) -> tuple[Array, Array | None]:
    """The labels, or the ids and values of sparse ones."""
    if not isinstance(labels, SparseLabels):
        return _checks.label_array(function, "labels", labels), None
    ids, values = labels
    if values is not None:
        values = _checks.as_array(function, "SparseLabels.values", values)
    return _checks.id_array(function, "SparseLabels.ids", ids), values


def _masks(
    function: str, where: ArrayLike | None, rows: Shape, axis: int, classes: int | None
) -> tuple[Array | None, Array | None]:
    """`where` as a mask of rows, or of classes where it has an axis of these."""
    if where is None:
        return None, None
    mask = _checks.boolean(function, "where", where)
    if mask.ndim <= len(rows):
        return _checks.per_row(function, "where", mask, rows), None
    count = mask.shape[axis] if classes is None else classes
    full = (*rows[:axis], count, *rows[axis:])
    return _checks.row_or_class_mask(function, mask, full, axis)


def _class_weights(
    function: str, class_weights: ArrayLike, classes: int | None, dtype: jnp.dtype
) -> Array:
    w = _checks.real(function, "class_weights", class_weights, dtype, booleans=True)
    if w.ndim != 1:
        _checks.fail(
            function,
            f"expected class_weights of shape (classes,), got {w.shape}.",
        )
    if classes is not None:
        _checks.per_class(function, "class_weights", w, (classes,))
    return w


@functools.partial(
    jax.jit, static_argnames=("axis", "ids", "sparse", "batch_axis_name", "dtype")
)
def _total_weight(
    labels: Array,
    values: Array | None,
    row_where: Array | None,
    class_where: Array | None,
    weights: Array | None,
    class_weights: Array | None,
    ignore_index: Array | None,
    *,
    axis: int,
    ids: bool,
    sparse: bool,
    batch_axis_name: tuple[str, ...],
    dtype: jnp.dtype,
) -> Array:
    keep, w = row_where, class_weights
    if class_where is not None:
        keep = jnp.any(class_where, axis)
    if ignore_index is not None and ids:
        keep = both(keep, ~equal(labels, ignore_index))
    masks = (keep, None if weights is None else weights != 0)
    if ids:
        factor = jnp.ones_like(labels, dtype=dtype)
        if w is not None:
            weighted = None
            for mask in masks:
                if mask is not None:
                    weighted = both(weighted, broadcast_like(mask, labels))
            at = class_ids(labels, weighted, w.shape[0])
            factor = jnp.where(at == NO_CLASS, factor, _of_classes(w, at))
            factor = report_bad_labels(factor, labels, at == NO_CLASS, w.shape[0])
    elif sparse:
        factor = _total_of_places(
            labels, values, masks, class_where, w, ignore_index, axis, dtype
        )
    else:
        q = labels.astype(dtype)
        if class_where is not None:
            q = select(class_where, q)
        if w is not None:
            q = over_rows(w, axis, q) * q
        factor = jnp.sum(q, axis)
    return combine(
        factor,
        keep=keep,
        weights=weights,
        reduction="sum",
        normalizer=None,
        batch_axis_name=batch_axis_name,
    )


def _total_of_places(
    ids: Array,
    values: Array | None,
    masks: tuple[Array | None, ...],
    class_where: Array | None,
    class_weights: Array | None,
    ignore_index: Array | None,
    axis: int,
    dtype: jnp.dtype,
) -> Array:
    """Σ_k w_k v_k (rows,) of several ids a row, (rows, places), with values v."""
    scored = jnp.ones_like(ids, bool)
    if ignore_index is not None:
        scored = ~equal(ids, ignore_index)
    counts = scored
    for mask in masks:
        if mask is not None:
            of_rows = jnp.broadcast_to(mask, ids.shape[:-1])
            counts &= over_places(of_rows, ids)
    q = jnp.ones_like(ids, dtype) if values is None else values
    if class_where is not None:
        rows = ids.shape[:-1]
        full = (*rows[:axis], class_where.shape[axis], *rows[axis:])
        mask = _split_like(ids, jnp.broadcast_to(class_where, full), axis)
        at = class_ids(ids, scored, mask.shape[axis])
        q = q * at_places(mask.astype(dtype), at, axis)
    if class_weights is not None:
        classes = class_weights.shape[0]
        at = class_ids(ids, scored, classes)
        q = q * select(at != NO_CLASS, _of_classes(class_weights, at))
        q = report_bad_labels(q, ids, (at == NO_CLASS) & counts, classes)
    return jnp.sum(select(scored, q), -1)


def _of_classes(w: Array, ids: Array) -> Array:
    """The entries of w (classes,) at these ids, of their shape and sharding.

    Those of ids that name no class are numbers of w, too.
    """
    sharding = jax.typeof(ids).sharding if is_split(ids) else None
    ids = jnp.maximum(ids, 0)
    return w.at[ids].get(mode="clip", out_sharding=sharding)


def _split_like(ids: Array, mask: Array, axis: int) -> Array:
    """A mask (…, classes, …) with its rows split as those of ids (rows, places)."""
    if not is_split(ids):
        return mask
    sharding: Any = jax.typeof(ids).sharding
    rows = [*sharding.spec, *[None] * (ids.ndim - len(sharding.spec))][:-1]
    spec = PartitionSpec(*rows[:axis], None, *rows[axis:])
    return jax.sharding.reshard(mask, spec)
