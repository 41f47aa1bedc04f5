"""Distributions that are given at a few classes a row."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from .._arrays import Shape, row_shape
from .arrays import ArrayLike, id_array, real


class SparseLabels(NamedTuple):
    """A distribution over the classes that is given at K of them, and 0 elsewhere.

        q_c = Σ_k values_k [ids_k = c]

    It stands for the `labels` of softmax losses, and of binary ones with an axis, where
    an array of all classes would be mostly zeros: the top-k of a teacher, several right
    answers, lists of positives. Equal ids add up. The values need not sum to 1.

    Attributes:
      ids: integer class ids, of the logits' shape with K in place of the classes. Where
        they are the loss's `ignore_index`, the place is padding, whatever its value.
      values: floating, of the shape of ids; None for 1 each. They are differentiable.

    Numerics:
      An id outside [0, classes) that is not `ignore_index` makes loss and gradient of
      its row NaN. Mass on a masked class is dropped, as that of a distribution. No
      array over all classes is formed.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0, 1.0], [0.0, 1.0, 3.0, 0.0]])
      >>> labels = jxent.SparseLabels(
      ...     ids=jnp.array([[0, 3], [2, -1]]),
      ...     values=jnp.array([[0.75, 0.25], [1.0, 0.0]]))
      >>> print(jxent.softmax_cross_entropy(logits, labels, ignore_index=-1))
      [0.74381 0.211  ]

    Source:
      Teachers' top-k log-probabilities, as distillation stores them.

    See also:
      `softmax_log_prob_at`, `softmax_top_k`.
    """

    ids: ArrayLike
    values: ArrayLike | None = None


def sparse_labels(
    function: str, labels: SparseLabels, shape: Shape, axis: int, dtype: Any
) -> tuple[Array, Array | None]:
    """Ids and values with the places as their last axis, for logits of `shape`."""
    ids = class_ids_at(function, "SparseLabels.ids", labels.ids, shape, axis)
    if labels.values is None:
        return ids, None
    values = real(function, "SparseLabels.values", labels.values, dtype)
    given = id_array(function, "SparseLabels.ids", labels.ids).shape
    if values.shape != given:
        raise ValueError(
            f"{function}: expected SparseLabels.values of the shape of its ids, "
            f"{given}, got {values.shape}. Every id has a value of its own."
        )
    return ids, jnp.moveaxis(values, axis, -1)


def class_ids_at(function: str, name: str, ids: Any, shape: Shape, axis: int) -> Array:
    """Several class ids a row, with their places moved to the last axis."""
    y = _integer_ids(function, name, ids)
    rows = y.shape[:axis] + y.shape[axis + 1 :]
    if y.ndim != len(shape) or rows != shape[:axis] + shape[axis + 1 :]:
        expected = ", ".join(
            [*map(str, shape[:axis]), "K", *map(str, shape[axis + 1 :])]
        )
        hint = "Ids never broadcast; every row has its own."
        if y.shape == shape[:axis] + shape[axis + 1 :]:
            hint = f"For one id a row, jnp.expand_dims(ids, {axis})."
        raise ValueError(
            f"{function}: expected {name} of shape ({expected}), K ids in place of the "
            f"classes of logits of shape {shape}, got {y.shape}. {hint}"
        )
    if not y.shape[axis]:
        raise ValueError(
            f"{function}: expected {name} with at least one id a row, got shape "
            f"{y.shape}. A row without labels is dropped with where."
        )
    return jnp.moveaxis(y, axis, -1)


def class_ids_of_rows(
    function: str, name: str, ids: Any, shape: Shape, axis: int
) -> Array:
    """One class id a row."""
    y, rows = _integer_ids(function, name, ids), row_shape(shape, axis)
    if y.shape != rows:
        hint = "Ids never broadcast; every row has its own."
        if y.shape == shape[:axis] + (1,) + shape[axis + 1 :]:
            hint = f"Drop the axis of the classes, {name}.squeeze({axis})."
        raise ValueError(
            f"{function}: expected {name} of shape {rows}, one id for each row of "
            f"logits of shape {shape}, got {y.shape}. {hint}"
        )
    return y


def _integer_ids(function: str, name: str, ids: Any) -> Array:
    y = id_array(function, name, ids)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"{function}: expected {name} to be integer class ids, got {y.dtype} of "
            f"shape {y.shape}. Cast ids with .astype(jnp.int32)."
        )
    return y


def no_sparse_labels(function: str, labels: Any) -> None:
    if isinstance(labels, SparseLabels):
        raise TypeError(
            f"{function}: expected an array of labels, got SparseLabels. "
            "softmax_cross_entropy and its formulas take these; for log-probabilities "
            "at several ids call softmax_log_prob_at."
        )
