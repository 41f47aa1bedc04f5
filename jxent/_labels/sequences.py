"""Weights that turn a sum over tokens into a sum of the sequences' means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._arrays import sharded_like, whole_along
from .._checks import ArrayLike


def sequence_weights(
    where: ArrayLike | None = None, *, segment_ids: ArrayLike | None = None
) -> Float[Array, "*batch time"]:
    """Returns weights with which a sum over tokens is a sum of the sequences' means.

        weights[t] = where[t] / Σ_s where[s],   s over the tokens of t's sequence

    Give them to a loss as `weights`, with the same `where` or `ignore_index`. Its mean
    is then the mean of the sequences' means: every sequence counts 1, however long it
    is. Its sum is the sum of these means, which adds up over micro-batches and devices.

    Args:
      where: boolean, shape (..., time): the tokens that count. None for all.
      segment_ids: integers, shape (..., time): packed sequences next to each other have
        different ones. Without them the last axis is one sequence.

    Returns:
      Weights of shape (..., time), in the default floating dtype. Their sum is the
      number of sequences with at least one token that counts.

    Numerics:
      Tokens are counted in integers. A sequence without a token that counts has
      weights of 0, which drop its tokens. An id that comes back later in a row is
      another sequence.

    Raises:
      TypeError: neither is given, where is not boolean, or segment_ids are not
        integers.
      ValueError: the shapes differ, or they are scalars.

    Example:
      >>> counts = jnp.array([[True, True, True, False], [True, False, False, False]])
      >>> print(jxent.sequence_weights(counts))
      [[0.33333 0.33333 0.33333 0.     ]
       [1.      0.      0.      0.     ]]
      >>> packed = jnp.array([1, 1, 1, 2, 2, 0])
      >>> print(jxent.sequence_weights(packed != 0, segment_ids=packed))
      [0.33333 0.33333 0.33333 0.5     0.5     0.     ]

    Source:
      The per-sequence mean of GRPO, Shao et al. (2024),
      https://arxiv.org/abs/2402.03300, and of T5X's loss normalization.

    See also:
      `reduce`, `total_weight`, `next_token_labels`.
    """
    name = "sequence_weights"
    if where is None and segment_ids is None:
        raise TypeError(
            f"{name}: expected where (the tokens that count), segment_ids (packed "
            "sequences), or both, got neither."
        )
    counts = ids = None
    if where is not None:
        counts = _with_time(name, "where", _checks.boolean(name, "where", where))
    if segment_ids is not None:
        ids = _checks.integers(name, "segment_ids", segment_ids)
        ids = _with_time(name, "segment_ids", ids)
    if counts is not None and ids is not None and counts.shape != ids.shape:
        _checks.fail(
            name,
            f"expected where and segment_ids of one shape, got {counts.shape} and "
            f"{ids.shape}.",
        )
    return _sequence_weights(counts, ids)


def _with_time(function: str, name: str, x: Array) -> Array:
    if not x.ndim:
        _checks.fail(function, f"expected {name} of shape (..., time), got a scalar.")
    return x


@jax.jit
def _sequence_weights(where: Array | None, ids: Array | None) -> Array:
    if where is None:
        assert ids is not None
        where = jnp.ones_like(ids, bool)
    given = where
    where = whole_along(where, -1)
    ones = where.astype(jnp.int32)
    if ids is None:
        count = jnp.sum(ones, -1, keepdims=True)
    else:
        ids = sharded_like(whole_along(ids, -1), where)
        edge = jnp.ones_like(ids[..., :1], bool)
        changes = ids[..., 1:] != ids[..., :-1]
        starts = jnp.concatenate([edge, changes], axis=-1)
        ends = jnp.concatenate([changes, edge], axis=-1)
        # Up to here in its sequence, and from here on: both have the token itself.
        before = _count_since(starts, ones, reverse=False)
        behind = _count_since(ends, ones, reverse=True)
        count = before + behind - ones
    share = 1 / jnp.maximum(count, 1).astype(jnp.result_type(float))
    return sharded_like(jnp.where(where, share, 0), given)


def _count_since(starts: Array, ones: Array, *, reverse: bool) -> Array:
    """Σ ones from the last start to here: a running sum less its value at that start.

    The running sum never falls, so that the largest value at a start is the last one's.
    """
    axis = ones.ndim - 1
    total = lax.cumsum(ones, axis, reverse=reverse)
    at_start = jnp.where(starts, total - ones, 0)
    return total - lax.cummax(at_start, axis, reverse=reverse)
