"""Labels before a loss sees them: smoothed, and shifted."""

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from .. import _checks
from .._arrays import select, sharded_like, whole_along
from .._checks import ArrayLike, Axis


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
    time = ids.shape[-1]
    if isinstance(time, int):  # not symbolic
        shift = min(shift, max(time, 1))
    tokens, ids = ids, whole_along(ids, -1)

    def ahead(x: Array, fill: Any) -> Array:
        """`x` at t + shift, and `fill` where there is none."""
        edges = [(0, 0, 0)] * (x.ndim - 1) + [(-shift, shift, 0)]
        return lax.pad(x, lax.full_like(x, fill, shape=()), edges)

    labels = ahead(ids, ignore_index)
    if segment_ids is not None:
        segment_ids = whole_along(segment_ids, -1)
        same = segment_ids[..., 1:] == segment_ids[..., :-1]
        same = jnp.concatenate([same, jnp.zeros_like(ids[..., :1], bool)], axis=-1)
        labels = select(_all_of_next(shift, same), labels, ignore_index)
    if where is not None:
        counts = ahead(whole_along(jnp.broadcast_to(where, ids.shape), -1), False)
        labels = select(counts, labels, ignore_index)
    return sharded_like(labels, tokens)


def _all_of_next(count: int, x: Bool[Array, "*batch time"]) -> Array:
    """Whether `x` holds at t and at the `count - 1` positions behind it."""
    front = x.ndim - 1
    return lax.reduce_window(
        x,
        True,
        lax.min,
        (1,) * front + (count,),
        (1,) * x.ndim,
        [(0, 0)] * front + [(0, count - 1)],
    )
