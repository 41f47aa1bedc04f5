"""Numbers as distributions over the points of a support."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _checks
from .._arrays import compute_dtype, is_split
from .._checks import ArrayLike, SparseLabels


def two_hot_labels(values: ArrayLike, support: ArrayLike) -> SparseLabels:
    """Spreads each number over its two neighbours in a support, so that the mean is it.

        q_i = (s_{i+1} − v) / (s_{i+1} − s_i),   q_{i+1} = (v − s_i) / (s_{i+1} − s_i)

    where s_i ≤ v ≤ s_{i+1}, so that Σ_c q_c s_c = v. As labels of
    `softmax_cross_entropy` they make regression a classification: a logit for each
    point, and the mean of the points under the softmax as the prediction.

    Args:
      values: v, any shape; integers or floating. What lies outside of the support
        becomes its nearest end.
      support: s, (classes,): at least two finite points in ascending order, whose
        gaps do not overflow.

    Returns:
      `SparseLabels` with ids (..., 2), int32, and their shares (..., 2), for logits
      (..., classes). The shares are float32, or float64 for float64 values.

    Numerics:
      The shares are exact up to rounding: rlax's `transform_to_2hot` divides by the
      gap + 1e-5. The derivative in a value is that of the shares: ±1 / (s_{i+1} − s_i),
      at a point of the support that of the interval above it, outside of the support 0.

      A value that is NaN has shares of NaN. The loss of its row and the gradient in its
      logits are NaN, unless the loss drops the row; the derivative in the value is that
      of the first interval. If a JAX array as support does not ascend, or if one of its
      gaps overflows, every share and every derivative is NaN.

    Raises:
      TypeError: values or support are not numbers.
      ValueError: the support has another shape or fewer than two points; or it does
        not ascend or one of its gaps overflows, and it is not a JAX array.

    Example:
      >>> labels = jxent.two_hot_labels(
      ...     jnp.array([0.5, 1.0, 9.0]), support=[-1.0, 0.0, 2.0, 4.0])
      >>> print(labels.ids)
      [[1 2]
       [1 2]
       [2 3]]
      >>> print(labels.values)
      [[0.75 0.25]
       [0.5  0.5 ]
       [0.   1.  ]]
      >>> logits = jnp.zeros((3, 4))
      >>> print(jxent.softmax_cross_entropy(logits, labels))
      [1.38629 1.38629 1.38629]

    Source:
      MuZero, Schrittwieser et al. (2020), https://arxiv.org/abs/1911.08265, and
      DreamerV3, Hafner et al. (2023), https://arxiv.org/abs/2301.04104.

    See also:
      `SparseLabels`, `softmax_cross_entropy`.
    """
    name = "two_hot_labels"
    x = _checks.as_array(name, "values", values)
    dtype = jnp.result_type(float)
    if jnp.issubdtype(x.dtype, jnp.floating):
        dtype = compute_dtype(x)
    x = _checks.real(name, "values", x, dtype)
    points = _checks.real(name, "support", support, dtype)
    if points.ndim != 1 or points.shape[0] < 2:
        _checks.fail(
            name,
            "expected a support of shape (classes,) with at least two points, got "
            f"{points.shape}.",
        )
    known = _checks.known_values(support)
    if known is not None:
        _check_ascent(name, known.astype(dtype))
    ids, shares = _two_hot(x, points)
    return SparseLabels(ids=ids, values=shares)


def _check_ascent(name: str, points: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = np.diff(points)
    if not (np.all(np.isfinite(points)) and np.all(gaps > 0)):
        _checks.fail(
            name,
            "expected a support of finite points in ascending order, no two of them "
            f"equal in {points.dtype.name}. Sort them and drop doubles by "
            "np.unique(support).",
        )
    if not np.all(np.isfinite(gaps)):
        _checks.fail(
            name,
            f"expected a support whose gaps are finite in {points.dtype.name}, got one "
            "that overflows. Divide values and support by the same number.",
        )


@jax.jit
def _two_hot(x: Array, support: Array) -> tuple[Array, Array]:
    low, high = support[0], support[-1]
    gaps = support[1:] - support[:-1]
    ascends = jnp.all((gaps > 0) & (gaps < jnp.inf))
    inside = jnp.where(x < low, low, jnp.where(x > high, high, x))
    inside = jnp.where(ascends, inside, x)  # an end would have the derivative 0
    below = _interval(inside, support)
    left, right = _at(support, below), _at(support, below + 1)
    gap = jnp.where(ascends, right - left, jnp.nan)
    shares = (right - inside) / gap, (inside - left) / gap
    return jnp.stack([below, below + 1], -1), jnp.stack(shares, -1)


def _interval(x: Array, support: Array) -> Array:
    """The last i with s_i ≤ x of all points but the last, and 0 if there is none.

    By halves, as an array of comparisons would be as large as the logits.
    """
    last = len(support) - 2
    index = jnp.zeros_like(x, jnp.int32)
    for bit in reversed(range(last.bit_length())):
        further = index + 2**bit
        there = (further <= last) & (x >= _at(support, jnp.minimum(further, last)))
        index = jnp.where(there, further, index)
    return index


def _at(points: Array, index: Array) -> Array:
    """points[index], split over a mesh as `index` is."""
    split = jax.typeof(index).sharding if is_split(index) else None
    return points.at[index].get(mode="promise_in_bounds", out_sharding=split)
