"""The loss of a linear layer: PyTorch's arguments, mapped onto jxent's fused head."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools
import math
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _reduction
from .._arrays import compute_dtype
from .._checks import ArrayLike, as_array
from .._labels.total_weight import total_weight
from .._linear_logits import LinearLogits
from .._softmax.cross_entropy import softmax_cross_entropy
from . import _checks
from ._reduce import or_nan


def linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    ignore_index: SupportsIndex | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    options: Any = None,
) -> Float[Array, "..."]:
    """`torch.nn.functional.linear_cross_entropy`: the loss of a linear layer's logits.

        loss = cross_entropy(input @ linear_weightᵀ + linear_bias, target, …)

    without storing the logits of all rows.

    Args:
      input: floating, (in_features,) or (N, in_features).
      linear_weight: floating, (C, in_features), or (C, d1, …, in_features) for logits
        of shape (N, C, d1, …).
      target: integer class indices of the logits' shape without C, or floating class
        probabilities of the logits' shape.
      linear_bias: of linear_weight's shape without its last axis.
      weight: w, (C,).
      reduction: "none", "mean" or "sum".
      ignore_index: the index that marks a row to drop; None for -100. Class
        probabilities know none.
      label_smoothing: ε, between 0 and 1; None for 0.
      options: unused. PyTorch's chunking; jxent plans its own.

    Returns:
      As `cross_entropy`.

    Differences:
      As in `cross_entropy`. Every derivative exists, with and without options.

    Example:
      >>> input, linear_weight = jnp.array([[1.0, 2.0]]), jnp.eye(3, 2)
      >>> print(jxent.torch.linear_cross_entropy(input, linear_weight, jnp.array([1])))
      0.40761

    Source:
      PyTorch's function of this name.

    See also:
      `jxent.softmax_cross_entropy` of `jxent.LinearLogits`.
    """
    del options
    name = "linear_cross_entropy"
    reduction = _checks.reduction(name, reduction, None, None)
    order = "input, linear_weight, target"
    floating = functools.partial(_checks.floating, name, beside=target, order=order)
    x = floating("input", input)
    kernel = floating("linear_weight", linear_weight)
    bias = None
    if linear_bias is not None:
        bias = as_array(name, "linear_bias", linear_bias)
    y = _checks.target(name, target)
    logits = jax.ShapeDtypeStruct(_checks.linear(name, x, kernel, bias), x.dtype)
    axis = _checks.class_axis(name, logits, "logits")
    dtype = compute_dtype(x, kernel)
    dropped = None
    if _checks.class_indices(name, logits, y, axis, or_probabilities=True, of="logits"):
        index = -100 if ignore_index is None else ignore_index
        dropped = _checks.ignore_index(name, index, y)
    else:
        _checks.probabilities_ignore_nothing(name, ignore_index)
    return _linear_cross_entropy(
        x,
        kernel,
        y,
        bias,
        _checks.class_weight(name, weight, logits.shape[axis], dtype),
        _checks.smoothing(name, label_smoothing, dtype),
        ignore_index=dropped,
        reduction=reduction,
    )


@functools.partial(jax.jit, static_argnames=("ignore_index", "reduction"))
def _linear_cross_entropy(
    x: Array,
    kernel: Array,
    y: Array,
    bias: Array | None,
    weight: Array | None,
    smoothing: Array | None,
    *,
    ignore_index: int | None,
    reduction: str,
) -> Array:
    def loss(kernel: Array, y: Array, bias: Array | None, **reduced: Any) -> Array:
        return softmax_cross_entropy(
            LinearLogits(x, kernel, bias, vocab_axis=0),
            y,
            class_weights=weight,
            ignore_index=ignore_index,
            label_smoothing=0.0 if smoothing is None else smoothing,
            **reduced,
        )

    places = kernel.shape[1:-1]
    indices = y.ndim < x.ndim + len(places)
    total = None
    if reduction == "mean" and indices:
        total = total_weight(y, class_weights=weight, ignore_index=ignore_index)
    elif reduction == "mean":
        total = jnp.asarray(y.size // kernel.shape[0], compute_dtype(x, kernel))
    if not places:
        value = loss(kernel, y, bias, reduction=reduction, normalizer=total)
        return or_nan(value, total)
    # A head of its own for each place d1, …
    heads = jnp.moveaxis(kernel.reshape(kernel.shape[0], -1, x.shape[-1]), 1, 0)
    biases = None if bias is None else bias.reshape(len(bias), -1).T
    count = math.prod(places)
    y = jnp.moveaxis(y.reshape(*y.shape[: y.ndim - len(places)], count), -1, 0)
    losses = jax.vmap(loss)(heads, y, biases).T.reshape(len(x), *places)
    value = _reduction.reduce(
        losses,
        reduction=reduction,  # pyright: ignore[reportArgumentType]
        normalizer=total,
    )
    return or_nan(value, total)
