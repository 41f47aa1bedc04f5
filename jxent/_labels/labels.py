"""Labels before a loss sees them: smoothed, shifted, and what they weigh."""

import functools
from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer

from .. import _checks
from .._arrays import along_classes, masked
from .._checks import ArrayLike, Axis, AxisName
from .._reduction import combine
from .._statistics import NO_CLASS
from .targets import Wanted, class_ids, equal


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
        real = masked(real, mask)
        q = masked(q, mask)
    count = jnp.sum(real, axes, keepdims=True)
    even = real / masked(count, count != 0, 1)
    return (1 - share) * q + share * even


def next_token_labels(
    tokens: ArrayLike,
    *,
    segment_ids: ArrayLike | None = None,
    ignore_index: int = -100,
) -> Integer[Array, "*batch time"]:
    """The labels of a causal language model: every position's next token.

        labels[..., t] = tokens[..., t + 1]

    The losses here never shift, so that nothing is shifted twice. The last position has
    no next token and gets `ignore_index`; so does the last of each packed document.

    Args:
      tokens: integer token ids, shape (..., time).
      segment_ids: integers of the tokens' shape that tell packed documents apart. A
        label never crosses from one to the next.
      ignore_index: the id for "no label"; give the loss the same.

    Returns:
      int32 labels of the tokens' shape (int64 for int64 tokens).

    Raises:
      TypeError: tokens or segment_ids are not integers.
      ValueError: their shapes differ, or tokens are a scalar.

    Example:
      >>> tokens, documents = jnp.array([5, 6, 7, 8]), jnp.array([0, 0, 1, 1])
      >>> print(jxent.next_token_labels(tokens, segment_ids=documents))
      [   6 -100    8 -100]

    Source:
      The shift that transformers' causal models apply inside the model.

    See also:
      `softmax_cross_entropy`, whose `ignore_index` drops these positions.
    """
    name = "next_token_labels"
    ids = _integers(name, "tokens", tokens)
    if ignore_index is None:
        raise TypeError(f"{name}: expected ignore_index to be one integer, got None.")
    if ids.ndim == 0:
        _checks.fail(name, "expected tokens of shape (..., time), got a scalar.")
    if ids.dtype.itemsize < 4 or jnp.issubdtype(ids.dtype, jnp.unsignedinteger):
        ids = ids.astype(jnp.int32)
    ignored = _checks.ignorable(name, ignore_index, ids, ids=True)
    assert ignored is not None
    nothing = jnp.full_like(ids[..., :1], ignored)
    labels = jnp.concatenate([ids[..., 1:], nothing], axis=-1)
    if segment_ids is None:
        return labels
    segments = _integers(name, "segment_ids", segment_ids)
    if segments.shape != ids.shape:
        _checks.fail(
            name,
            f"expected segment_ids of the tokens' shape {ids.shape}, "
            f"got {segments.shape}.",
        )
    same = segments[..., 1:] == segments[..., :-1]
    same = jnp.concatenate([same, jnp.zeros_like(same, shape=nothing.shape)], axis=-1)
    return jnp.where(same, labels, nothing)


def _integers(function: str, name: str, x: ArrayLike) -> Array:
    x = _checks.as_array(function, name, x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{function}: expected integer {name}, got dtype {x.dtype}.")
    return x


def total_weight(
    labels: ArrayLike,
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
    mean of means is not.

    Args:
      labels: integer class ids of any shape, or floating distributions.
      axis: the class axis of distributions, and of a where that masks classes.
      where, weights, class_weights, ignore_index, batch_axis_name: as the loss gets
        them; see `softmax_cross_entropy`.

    Returns:
      A scalar; float32, or float64 for float64 weights or distributions.

    Numerics:
      Summed in float32 or better. Rows that the loss drops count 0.

    Raises:
      TypeError: labels are boolean, or where is floating.
      ValueError: shapes do not fit.

    Example:
      >>> labels = jnp.array([[3, 1, -100], [2, -100, -100]])
      >>> print(jxent.total_weight(labels, ignore_index=-100))
      3.0

    Source:
      torchtitan's and transformers' fixes of their means over accumulated gradients.

    See also:
      `reduce`, `softmax_cross_entropy`.
    """
    name = "total_weight"
    y = _checks.label_array(name, "labels", labels)
    axis = _checks.integer(name, "axis", axis)
    if y.dtype == jnp.bool_:
        raise TypeError(
            f"{name}: expected class ids or distributions, got boolean labels. For "
            "losses of yes/no labels the total is that of where and weights: "
            "jxent.reduce(jnp.ones(labels.shape), reduction='sum', where=…)."
        )
    ids = bool(jnp.issubdtype(y.dtype, jnp.integer))
    factors = {"weights": weights, "class_weights": class_weights}
    given = [_checks.as_array(name, n, x) for n, x in factors.items() if x is not None]
    dtype = _checks.compute_dtype(*given, *([] if ids else [y]))
    ndim = y.ndim + 1 if ids else y.ndim
    if not -ndim <= axis < ndim:
        _checks.fail(
            name, f"axis {axis} is out of range for labels of shape {y.shape}."
        )
    axis = axis % ndim
    rows = y.shape if ids else _checks.row_shape(y.shape, axis)
    row_where = class_where = None
    if where is not None:
        mask = _checks.boolean(name, "where", where)
        if mask.ndim == ndim:
            # class ids do not tell how many classes there are
            given = mask.shape[axis] if ids else y.shape[axis]
            full = (*rows[:axis], given, *rows[axis:])
            _, class_where = _checks.row_or_class_mask(name, mask, full, axis)
        else:
            row_where = _checks.per_row(name, "where", mask, rows)
    if class_weights is not None:
        class_weights = _checks.real(
            name, "class_weights", class_weights, dtype, booleans=True
        )
        if class_weights.ndim != 1:
            _checks.fail(
                name,
                "expected class_weights of shape (classes,), "
                f"got {class_weights.shape}.",
            )
        if not ids:
            classes = y.shape[axis : axis + 1]
            _checks.per_class(name, "class_weights", class_weights, classes)
    if weights is not None:
        weights = _checks.real(name, "weights", weights, dtype, booleans=True)
        weights = _checks.per_row(name, "weights", weights, rows)
    wanted = Wanted(
        y,
        row_where,
        class_where,
        weights=weights,
        class_weights=class_weights,
        ignore_index=_checks.ignorable(name, ignore_index, y, ids=ids),
    )
    names = _checks.bound_axis_names(name, "batch_axis_name", batch_axis_name, y)
    return _total_weight(wanted, axis, ids, names, dtype)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _total_weight(
    wanted: Wanted,
    axis: int,
    ids: bool,
    batch_axis_name: tuple[str, ...],
    dtype: jnp.dtype,
) -> Array:
    y, keep, w = wanted.labels, wanted.row_where, wanted.class_weights
    assert y is not None
    if wanted.class_where is not None:
        keep = jnp.any(wanted.class_where, axis)
    if wanted.ignore_index is not None:
        counted = ~equal(y, wanted.ignore_index)
        keep = counted if keep is None else keep & counted
    if ids:
        factor = jnp.ones_like(y, dtype=dtype)
        if w is not None:
            kept = None if keep is None else jnp.broadcast_to(keep, y.shape)
            at = class_ids(y, kept, w.shape[0], ())
            label_weight = jnp.take(w, jnp.maximum(at, 0), mode="clip")
            factor = jnp.where(at == NO_CLASS, factor, label_weight)
    else:
        q = y.astype(dtype)
        if wanted.class_where is not None:
            q = masked(q, wanted.class_where)
        if w is not None:
            q = along_classes(w, axis, y.ndim) * q
        factor = jnp.sum(q, axis)
    return combine(
        factor,
        keep=keep,
        weights=wanted.weights,
        reduction="sum",
        normalizer=None,
        batch_axis_name=batch_axis_name,
    )
