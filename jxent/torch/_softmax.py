"""Losses of classes: PyTorch's arguments, mapped onto jxent's losses."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools
from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _reduction
from .._arrays import compute_dtype, over_rows
from .._checks import ArrayLike
from .._labels.at_label import entry_at_label
from .._labels.total_weight import total_weight
from .._softmax.cross_entropy import softmax_cross_entropy
from . import _checks
from ._reduce import or_nan


# Each public function checks its arguments, and hands them to one compiled call.


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: SupportsIndex = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: ArrayLike | None = 0.0,
) -> Float[Array, "..."]:
    """`torch.nn.functional.cross_entropy` of logits.

        loss = −Σ_c w_c q_c log softmax(input)_c,   q_c = (1 − ε) target_c + ε/C
        mean = Σ loss / Σ w_y over class indices y,   Σ loss / rows for probabilities

    Args:
      input: floating logits, (C,), (N, C) or (N, C, d1, …).
      target: integer class indices of the input's shape without C, or floating class
        probabilities of the input's shape.
      weight: w, (C,).
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      ignore_index: the index that marks a row to drop. Class probabilities know none.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".
      label_smoothing: ε, between 0 and 1; None for 0.

    Returns:
      float32, or float64 for a float64 input: of the rows' shape, or a scalar.

    Differences:
      An index that is out of range gives NaN in value and gradient; PyTorch raises or
      aborts. 0 · ∞ is 0, not NaN: a probability or a weight of 0 at a logit of −inf.
      A dropped row that holds NaN or inf has the gradient 0. bfloat16 and float16 are
      computed and returned in float32. Any integer dtype holds indices. A single class
      and a negative label_smoothing are errors; the weight is differentiable.

    Example:
      >>> input = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> weight = jnp.array([1.0, 1.0, 2.0])
      >>> print(jxent.torch.cross_entropy(input, jnp.array([0, 2]), weight))
      0.14313
      >>> print(jxent.torch.cross_entropy(input, jnp.array([-100, -100])))
      nan

    Source:
      PyTorch's function of this name.

    See also:
      `jxent.softmax_cross_entropy`.
    """
    name = "cross_entropy"
    reduction = _checks.reduction(name, reduction, size_average, reduce)
    x = _checks.floating(name, "input", input, beside=target)
    y = _checks.target(name, target)
    axis = _checks.class_axis(name, x)
    dtype = compute_dtype(x)
    dropped = None
    if _checks.class_indices(name, x, y, axis, or_probabilities=True):
        dropped = _checks.ignore_index(name, ignore_index, y)
    else:
        _checks.probabilities_ignore_nothing(name, ignore_index)
    return _cross_entropy(
        x,
        y,
        _checks.class_weight(name, weight, x.shape[axis], dtype),
        _checks.smoothing(name, label_smoothing, dtype),
        axis=axis,
        ignore_index=dropped,
        reduction=reduction,
    )


@functools.partial(jax.jit, static_argnames=("axis", "ignore_index", "reduction"))
def _cross_entropy(
    x: Array,
    y: Array,
    weight: Array | None,
    smoothing: Array | None,
    *,
    axis: int,
    ignore_index: int | None,
    reduction: str,
) -> Array:
    loss = softmax_cross_entropy(
        x,
        y,
        axis,
        class_weights=weight,
        ignore_index=ignore_index,
        label_smoothing=0.0 if smoothing is None else smoothing,
        reduction=reduction,  # pyright: ignore[reportArgumentType]
        normalizer=(total := _total(x, y, weight, axis, ignore_index, reduction)),
    )
    return or_nan(loss, total)


def _rows(x: Array, axis: int) -> Array:
    return jnp.asarray(x.size // x.shape[axis], compute_dtype(x))


def _total(
    x: Array,
    y: Array,
    weight: Array | None,
    axis: int,
    ignore_index: int | None,
    reduction: str,
) -> Array | None:
    """What PyTorch's mean divides by: the targets' weights, or the number of rows."""
    if reduction != "mean":
        return None
    if y.ndim == x.ndim:
        return _rows(x, axis)
    return total_weight(y, class_weights=weight, ignore_index=ignore_index)


def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: SupportsIndex = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Float[Array, "..."]:
    """`torch.nn.functional.nll_loss` of log-probabilities.

        loss = −w_y input_y,   mean = Σ loss / Σ w_y

    Args:
      input: floating log-probabilities, (C,), (N, C) or (N, C, d1, …), taken as they
        are: nothing normalizes them.
      target: integer class indices of the input's shape without C.
      weight: w, (C,).
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      ignore_index: the index that marks a row to drop. Class probabilities know none.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Returns:
      As `cross_entropy`.

    Differences:
      As in `cross_entropy`, which is also exact where a probability rounds to 0.

    Example:
      >>> input = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.4, 0.5]]))
      >>> print(jxent.torch.nll_loss(input, jnp.array([0, 2])))
      0.52491

    Source:
      PyTorch's function of this name.

    See also:
      `jxent.softmax_cross_entropy`, for which log-probabilities are logits too.
    """
    name = "nll_loss"
    reduction = _checks.reduction(name, reduction, size_average, reduce)
    x = _checks.floating(name, "input", input, beside=target)
    y = _checks.target(name, target)
    axis = _checks.class_axis(name, x)
    _checks.class_indices(name, x, y, axis, or_probabilities=False)
    return _nll_loss(
        x,
        y,
        _checks.class_weight(name, weight, x.shape[axis], compute_dtype(x)),
        axis=axis,
        ignore_index=_checks.ignore_index(name, ignore_index, y),
        reduction=reduction,
    )


@functools.partial(jax.jit, static_argnames=("axis", "ignore_index", "reduction"))
def _nll_loss(
    x: Array,
    y: Array,
    weight: Array | None,
    *,
    axis: int,
    ignore_index: int | None,
    reduction: str,
) -> Array:
    x = x.astype(compute_dtype(x))
    keep = None
    if ignore_index is not None:
        keep = y != jnp.asarray(ignore_index, y.dtype)
    weights = None
    if weight is not None:
        every = over_rows(weight, axis, x)
        weights = entry_at_label(every, y, axis, keep)
    total = _total(x, y, weight, axis, ignore_index, reduction)
    loss = _reduction.reduce(
        -entry_at_label(x, y, axis, keep),
        where=keep,
        weights=weights,
        reduction=reduction,  # pyright: ignore[reportArgumentType]
        normalizer=total,
    )
    return or_nan(loss, total)
