"""Losses of binary targets: PyTorch's arguments, mapped onto jxent's losses."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _reduction, _sigmoid
from .._arrays import compute_dtype, select
from .._checks import ArrayLike
from .._probabilities.floored_log import floored_log, floored_log_1_minus
from . import _checks
from ._reduce import over_elements


def binary_cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Float[Array, "..."]:
    """`torch.nn.functional.binary_cross_entropy` of probabilities.

        loss = −w (y max(log p, −100) + (1 − y) max(log(1 − p), −100))
        mean = Σ loss / elements

    Args:
      input: p, floating probabilities, any shape.
      target: y, of the input's shape, any dtype.
      weight: w, of any shape that broadcasts to the target's.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Returns:
      float32, or float64 for a float64 input: of the input's shape, or a scalar.

    Differences:
      The derivative is that of the logarithm, finite, also where PyTorch's stops at
      1e12: through a sigmoid at the logit −50 it is −1, not −2e-10. A probability
      outside [0, 1] gives NaN; PyTorch raises. An element of weight 0 is 0 whatever it
      holds. bfloat16 and float16 are computed and returned in float32. Targets may be
      boolean or integers.

    Example:
      >>> input, target = jnp.array([0.9, 0.2, 0.0]), jnp.array([1.0, 0.0, 1.0])
      >>> print(jxent.torch.binary_cross_entropy(input, target, reduction="none"))
      [  0.10536   0.22314 100.     ]

    Source:
      PyTorch's function of this name.

    See also:
      `binary_cross_entropy_with_logits`, which needs no floor.
    """
    name = "binary_cross_entropy"
    reduction = _checks.reduction(name, reduction, size_average, reduce)
    p = _checks.floating(name, "input", input, beside=target)
    y = _checks.target(name, target)
    _checks.same_shape(name, p, y)
    weight = _checks.from_the_right(name, "weight", weight, y.shape, compute_dtype(p))
    return _binary_cross_entropy(p, y, weight, reduction=reduction)


@functools.partial(jax.jit, static_argnames="reduction")
def _binary_cross_entropy(
    p: Array, y: Array, weight: Array | None, *, reduction: str
) -> Array:
    dtype = compute_dtype(p)
    p = select((p >= 0) & (p <= 1), p.astype(dtype), jnp.nan)
    floor = jnp.asarray(-100, dtype)
    log_p, log_q = floored_log(p, floor), floored_log_1_minus(p, floor)
    losses = _sigmoid.binary(log_p, log_q, y.astype(dtype), None)
    return over_elements(losses, weight, reduction)


def binary_cross_entropy_with_logits(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """`torch.nn.functional.binary_cross_entropy_with_logits`.

        loss = −w (w⁺ y log σ(x) + (1 − y) log σ(−x)),   mean = Σ loss / elements

    Args:
      input: x, floating logits, any shape.
      target: y, of the input's shape, any dtype.
      weight: w, of any shape that broadcasts to the target's.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".
      pos_weight: w⁺, of any shape that broadcasts to the target's.

    Returns:
      float32, or float64 for a float64 input: of the input's shape, or a scalar.

    Differences:
      An infinite logit gives the mathematical value, 0 or +inf, not NaN. An element of
      weight 0 is 0 whatever it holds. bfloat16 and float16 are computed and returned
      in float32. Targets may be boolean or integers.

    Example:
      >>> input, target = jnp.array([2.0, -1.0]), jnp.array([1.0, 1.0])
      >>> print(jxent.torch.binary_cross_entropy_with_logits(input, target))
      0.72009

    Source:
      PyTorch's function of this name.

    See also:
      `jxent.sigmoid_binary_cross_entropy`.
    """
    name = "binary_cross_entropy_with_logits"
    reduction = _checks.reduction(name, reduction, size_average, reduce)
    x = _checks.floating(name, "input", input, beside=target)
    y = _checks.target(name, target)
    _checks.same_shape(name, x, y)
    dtype = compute_dtype(x)
    return _binary_cross_entropy_with_logits(
        x,
        y,
        _checks.from_the_right(name, "weight", weight, y.shape, dtype),
        _checks.from_the_right(name, "pos_weight", pos_weight, y.shape, dtype),
        reduction=reduction,
    )


@functools.partial(jax.jit, static_argnames="reduction")
def _binary_cross_entropy_with_logits(
    x: Array,
    y: Array,
    weight: Array | None,
    pos_weight: Array | None,
    *,
    reduction: str,
) -> Array:
    losses = _sigmoid.sigmoid_binary_cross_entropy(
        x, y, pos_weight=pos_weight, weights=weight
    )
    return over_elements(losses, None, reduction)


def soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Float[Array, "..."]:
    """`torch.nn.functional.soft_margin_loss`: logistic loss of labels ±1.

        loss = log(1 + exp(−y x)),   mean = Σ loss / elements

    Args:
      input: x, floating, any shape.
      target: y, 1 or −1, of the input's shape, any dtype.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Returns:
      float32, or float64 for a float64 input: of the input's shape, or a scalar.

    Differences:
      No overflow: at y x = −200 the loss is 200, not inf. Target and input never
      broadcast. bfloat16 and float16 are computed and returned in float32.

    Example:
      >>> input, target = jnp.array([2.0, -200.0]), jnp.array([1, 1])
      >>> print(jxent.torch.soft_margin_loss(input, target, reduction="none"))
      [  0.12693 200.     ]

    Source:
      PyTorch's function of this name.

    See also:
      `jxent.sigmoid_binary_cross_entropy`, for labels 0 and 1.
    """
    name = "soft_margin_loss"
    reduction = _checks.reduction(name, reduction, size_average, reduce)
    x = _checks.floating(name, "input", input, beside=target)
    y = _checks.target(name, target)
    _checks.same_shape(name, x, y)
    return _soft_margin_loss(x, y, reduction=reduction)


@functools.partial(jax.jit, static_argnames="reduction")
def _soft_margin_loss(x: Array, y: Array, *, reduction: str) -> Array:
    x = x.astype(compute_dtype(x))
    margins = x * y.astype(x.dtype)
    losses = _sigmoid.sigmoid_binary_cross_entropy(margins, jnp.ones_like(margins))
    return over_elements(losses, None, reduction)


def multilabel_soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Float[Array, "..."]:
    """`torch.nn.functional.multilabel_soft_margin_loss`: the classes' mean of BCE.

        loss = −(1/C) Σ_c w_c (y_c log σ(x_c) + (1 − y_c) log σ(−x_c))
        mean = Σ loss / rows

    Args:
      input: x, floating logits, (C,) or (N, C).
      target: y, of the input's shape, any dtype.
      weight: w, of any shape that broadcasts to the target's; (C,) as a rule.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Returns:
      float32, or float64 for a float64 input: of the input's shape without C, or a
      scalar.

    Differences:
      As in `binary_cross_entropy_with_logits`.

    Example:
      >>> input = jnp.array([[2.0, 0.0, -1.0]])
      >>> print(jxent.torch.multilabel_soft_margin_loss(input, jnp.array([[1, 0, 1]])))
      0.71111

    Source:
      PyTorch's function of this name.

    See also:
      `jxent.sigmoid_binary_cross_entropy`.
    """
    name = "multilabel_soft_margin_loss"
    reduction = _checks.reduction(name, reduction, size_average, reduce)
    x = _checks.floating(name, "input", input, beside=target)
    y = _checks.target(name, target)
    _checks.with_classes(name, x)
    _checks.same_shape(name, x, y)
    weight = _checks.from_the_right(name, "weight", weight, y.shape, compute_dtype(x))
    return _multilabel_soft_margin_loss(x, y, weight, reduction=reduction)


@functools.partial(jax.jit, static_argnames="reduction")
def _multilabel_soft_margin_loss(
    x: Array, y: Array, weight: Array | None, *, reduction: str
) -> Array:
    losses = _sigmoid.sigmoid_binary_cross_entropy(x, y, weights=weight)
    rows = _reduction.reduce(losses, axis=-1, reduction="mean")
    return over_elements(rows, None, reduction)
