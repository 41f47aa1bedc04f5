"""Labels before a loss sees them: smoothed, shifted, and what they weigh."""

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from .. import _checks
from .._arrays import compute_dtype, over_rows, row_shape, select
from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._problem import NO_CLASS, at_places, class_ids, equal
from .._reduction import combine


def smooth_labels(
    labels: ArrayLike,
    alpha: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """Moves a share of the label mass evenly to all classes.

        smoothed = (1 − α) labels + α/K

    Args:
      labels: one-hot labels or distributions, any floating dtype, any shape.
      alpha: the share to move, between 0 and 1.
      axis: the class axis, several, or None for all.
      where: boolean, of the labels' shape (axes of size 1 allowed): the real classes.
        The mass is spread over these alone, and the others get 0.

    Returns:
      The smoothed labels, of the labels' shape and dtype.

    Numerics:
      Where every class of a row is masked, the row is 0.

    Raises:
      TypeError: the labels are not floating, or where is.
      ValueError: alpha, a Python number, lies outside [0, 1], or a shape does not fit.

    Example:
      >>> print(jxent.smooth_labels(jax.nn.one_hot(1, 4), 0.1))
      [0.025 0.925 0.025 0.025]

    Source:
      Szegedy et al. (2016), "Rethinking the Inception Architecture for Computer
      Vision", https://arxiv.org/abs/1512.00567. Optax's function of this name lets
      masked classes keep α/K; here they get none.

    See also:
      `softmax_cross_entropy`, whose `label_smoothing` needs no one-hot labels.
    """
    name = "smooth_labels"
    q = _checks.floating(name, "labels", labels)
    axes = _checks.class_axis(name, "labels", q, axis)
    share = _checks.number(name, "alpha", alpha, q.dtype, low=0, high=1)
    real = jnp.ones_like(q)
    if where is not None:
        mask = _checks.boolean(name, "where", where)
        mask = _checks.per_row(name, "where", mask, q.shape, "the labels' shape")
        real = select(mask, real)
        q = select(mask, q)
    count = jnp.sum(real, axes, keepdims=True)
    even = real / select(count != 0, count, 1)
    return (1 - share) * q + share * even


def next_token_labels(
    tokens: ArrayLike,
    *,
    segment_ids: ArrayLike | None = None,
    where: ArrayLike | None = None,
    shift: SupportsIndex = 1,
    ignore_index: int = -100,
) -> Integer[Array, "*batch time"]:
    """Returns the labels of a causal language model: every position's next token.

        labels[..., t] = tokens[..., t + shift]

    The losses here never shift, so that nothing is shifted twice. A position gets
    `ignore_index` in place of a label where

    - no token is left, t + shift ≥ time,
    - a document ends in between, or
    - the token t + shift does not count.

    Args:
      tokens: integer token ids, shape (..., time).
      segment_ids: integers of the tokens' shape. Packed documents next to each other
        have different ones. A label never crosses from one document to another, also
        where the same id comes back later in the row.
      where: boolean, of the tokens' shape (axes of size 1 allowed) or a scalar: the
        tokens that count. No label is a token that does not.
      shift: how far ahead the label is, at least 1; k for the k-th head of a model that
        predicts several tokens. If it is not smaller than time, no label is left.
      ignore_index: the id for "no label"; give the loss the same.

    Returns:
      int32 labels of the tokens' shape (int64 for int64 tokens).

    Raises:
      TypeError: tokens or segment_ids are not integers, where is floating, or shift is
        not an integer.
      ValueError: shapes do not fit, tokens are a scalar, or shift is below 1.

    Example:
      >>> tokens, documents = jnp.array([5, 6, 7, 8]), jnp.array([0, 0, 1, 1])
      >>> print(jxent.next_token_labels(tokens, segment_ids=documents))
      [   6 -100    8 -100]

      T5X, MaxText and Grain pack documents as segments 1, 2, …, and pad with segment 0
      (`decoder_segment_ids`, `inputs_segmentation`, `tokens_segment_ids`). Without
      `where` a pad that predicts a pad would count:

      >>> tokens = jnp.array([5, 6, 7, 8, 9, 0, 0])
      >>> segments = jnp.array([1, 1, 1, 2, 2, 0, 0])
      >>> print(jxent.next_token_labels(
      ...     tokens, segment_ids=segments, where=segments != 0))
      [   6    7 -100    9 -100 -100 -100]

      `where` decides about the token that is predicted, not about the position that
      predicts it. So the last token of a prompt that does not count predicts the first
      of the completion. A pad on the left predicts the first token, too, unless the
      padding is a segment:

      >>> tokens, segments = jnp.array([0, 0, 5, 6]), jnp.array([0, 0, 1, 1])
      >>> print(jxent.next_token_labels(tokens, where=segments != 0))
      [-100    5    6 -100]
      >>> print(jxent.next_token_labels(
      ...     tokens, segment_ids=segments, where=segments != 0))
      [-100 -100    6 -100]

    Source:
      The shift that transformers' causal models apply inside the model; a larger one as
      in Gloeckle et al. (2024), https://arxiv.org/abs/2404.19737.

    See also:
      `softmax_cross_entropy`, whose `ignore_index` drops these positions.
    """
    name = "next_token_labels"
    ids = _checks.integers(name, "tokens", tokens)
    if ignore_index is None:
        raise TypeError(f"{name}: expected ignore_index to be one integer, got None.")
    if ids.ndim == 0:
        _checks.fail(name, "expected tokens of shape (..., time), got a scalar.")
    if ids.dtype.itemsize < 4 or jnp.issubdtype(ids.dtype, jnp.unsignedinteger):
        ids = ids.astype(jnp.int32)
    if segment_ids is not None:
        segment_ids = _checks.integers(name, "segment_ids", segment_ids)
        if segment_ids.shape != ids.shape:
            _checks.fail(
                name,
                f"expected segment_ids of the tokens' shape {ids.shape}, "
                f"got {segment_ids.shape}.",
            )
    if where is not None:
        where = _checks.boolean(name, "where", where)
        where = _checks.per_row(name, "where", where, ids.shape, "the tokens' shape")
    return _next_token_labels(
        ids,
        segment_ids,
        where,
        _checks.ignorable(name, ignore_index, ids, ids=True),
        shift=_checks.positive_integer(name, "shift", shift),
    )


@functools.partial(jax.jit, static_argnames="shift")
def _next_token_labels(
    ids: Array,
    segment_ids: Array | None,
    where: Array | None,
    ignore_index: Array,
    *,
    shift: int,
) -> Array:
    def ahead(x: Array, fill: Any) -> Array:
        """`x` at t + shift, and `fill` where there is none."""
        rest = jnp.full_like(x[..., :shift], fill)
        return jnp.concatenate([x[..., shift:], rest], axis=-1)

    labels = ahead(ids, ignore_index)
    if segment_ids is not None:
        same = segment_ids[..., 1:] == segment_ids[..., :-1]
        same = jnp.concatenate([same, jnp.zeros_like(ids[..., :1], bool)], axis=-1)
        labels = select(_all_of_next(shift, same), labels, ignore_index)
    if where is not None:
        counts = ahead(jnp.broadcast_to(where, ids.shape), False)
        labels = select(counts, labels, ignore_index)
    return labels


def _all_of_next(count: int, x: Bool[Array, "*batch time"]) -> Array:
    """Whether `x` holds at t and at the `count - 1` positions behind it."""
    count = min(count, max(x.shape[-1], 1))
    front = x.ndim - 1
    return lax.reduce_window(
        x,
        True,
        lax.min,
        (1,) * front + (count,),
        (1,) * x.ndim,
        [(0, 0)] * front + [(0, count - 1)],
    )


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
      Summed in float32 or better. Rows that the loss drops count 0.

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
    sparse, values = isinstance(labels, SparseLabels), None
    if isinstance(labels, SparseLabels):
        y = _checks.as_array(name, "SparseLabels.ids", labels.ids)
        if labels.values is not None:
            values = _checks.as_array(name, "SparseLabels.values", labels.values)
    else:
        y = _checks.label_array(name, "labels", labels)
    axis = _checks.integer(name, "axis", axis)
    if y.dtype == jnp.bool_:
        raise TypeError(
            f"{name}: expected class ids or distributions, got boolean labels. For "
            "losses of yes/no labels the total is that of where and weights: "
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
    row_where = class_where = None
    if where is not None:
        mask = _checks.boolean(name, "where", where)
        if mask.ndim == ndim:
            # class ids do not tell how many classes there are
            given = mask.shape[axis] if ids or sparse else y.shape[axis]
            full = (*rows[:axis], given, *rows[axis:])
            _, class_where = _checks.row_or_class_mask(name, mask, full, axis)
        else:
            row_where = _checks.per_row(name, "where", mask, rows)
    if class_weights is not None:
        classes = None if ids or sparse else y.shape[axis]
        class_weights = _class_weights(name, class_weights, classes, dtype)
    if weights is not None:
        weights = _checks.real(name, "weights", weights, dtype, booleans=True)
        weights = _checks.per_row(name, "weights", weights, rows)
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
        counted = ~equal(labels, ignore_index)
        keep = counted if keep is None else keep & counted
    if ids:
        factor = jnp.ones_like(labels, dtype=dtype)
        if w is not None:
            kept = None if keep is None else jnp.broadcast_to(keep, labels.shape)
            at = class_ids(labels, kept, w.shape[0])
            label_weight = jnp.take(w, jnp.maximum(at, 0), mode="clip")
            factor = jnp.where(at == NO_CLASS, factor, label_weight)
    elif sparse:
        scored = jnp.ones_like(labels, bool)
        if ignore_index is not None:
            scored = ~equal(labels, ignore_index)
        q = jnp.ones_like(labels, dtype) if values is None else values
        for of_class in (class_where, w):
            if of_class is not None:
                if of_class.ndim > 1:
                    shape = list(labels.shape[:-1])
                    shape.insert(axis, of_class.shape[axis])
                    of_class = jnp.broadcast_to(of_class, shape)
                classes = of_class.shape[axis if of_class.ndim > 1 else 0]
                at = class_ids(labels, scored, classes)
                q = q * at_places(of_class.astype(dtype), at, axis)
        factor = jnp.sum(select(scored, q), -1)
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
