"""What a mean divides by: the weight of all rows together."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

from .. import _checks
from .._arrays import Shape, Size, compute_dtype, row_shape, sharded_like
from .._checks import ArrayLike, AxisName, SparseLabels
from .._problem.bad_labels import reported
from .._problem.problem import Problem, RowLogits, Rows, Settings, Shared
from .._problem.resolve import resolve, with_full_rows
from .._solve.solve import total_weight_of
from .._targets.distribution import Distribution
from .._targets.ids import Ids
from .._targets.several_ids import SeveralIds
from .._targets.target import Target


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
        `jax.shard_map`: the sum runs over them too.

    Returns:
      A scalar; float32, or float64 for float64 weights or distributions.

    Numerics:
      Summed in float32 or better. Rows that the loss drops count 0. A label that is no
      class is reported under `jax.experimental.checkify`, as by the loss: one below 0,
      or one that `class_weights` or a mask of classes has no place for.

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
    row_axes = y.shape if ids else row_shape(y.shape, axis)
    classes = None if ids or sparse else y.shape[axis]
    row_where, class_where = _masks(name, where, row_axes, axis, classes)
    if class_weights is not None:
        class_weights = _class_weights(name, class_weights, classes, dtype)
    if weights is not None:
        weights = _row_weights(name, weights, row_axes, classes, dtype)
    # Class ids alone do not tell how many classes there are.
    for x, at in ((class_weights, 0), (class_where, axis)):
        classes = x.shape[at] if classes is None and x is not None else classes
    shape = (*row_axes[:axis], classes or 2**31 - 1, *row_axes[axis:])
    target: Target = Ids(labels=y) if ids else Distribution(labels=y)
    if isinstance(labels, SparseLabels):
        places, values = _checks.sparse_labels(name, labels, y.shape, axis, dtype)
        values = None if values is None else sharded_like(values, places)
        target = SeveralIds(ids=places, values=values)
    names = _checks.bound_axis_names(name, "batch_axis_name", batch_axis_name, y)
    rows = Rows(
        target=target, where=row_where, class_where=class_where, weights=weights
    )
    index = target.ignore_index(name, ignore_index)
    shared = Shared(class_weights=class_weights, ignore_index=index)
    settings = Settings(axis=axis, batch_axis_name=names)
    like = jax.ShapeDtypeStruct(shape, dtype, sharding=_sharding(y, axis, ids, sparse))
    return _total_weight(like, Problem(settings, rows, shared))


def _row_weights(
    function: str, weights: ArrayLike, rows: Shape, classes: Any, dtype: Any
) -> Array:
    w = _checks.real(function, "weights", weights, dtype, booleans=True)
    if classes is None and w.shape != rows[:1]:  # unknown: as many as there are weights
        classes = w.size
    return _checks.per_row(function, "weights", w, rows, classes=classes)


@functools.partial(jax.jit, static_argnums=0)
def _total_weight(like: jax.ShapeDtypeStruct, problem: Problem) -> Array:
    """The total of a problem whose logits, `like`, do not exist."""
    logits = (RowLogits(array=like),)  # pyright: ignore[reportArgumentType]
    problem = problem.replace(rows=problem.rows._replace(logits=logits))
    problem = with_full_rows(problem)
    problem = problem.replace(resolved=resolve(problem))
    return reported(total_weight_of(problem), problem)


def _sharding(labels: Array, axis: int, ids: bool, sparse: bool) -> Any:
    """Logits are split as explicit axes split the labels; None where none does."""
    sharding: Any = jax.typeof(labels).sharding
    spec = [*sharding.spec, *[None] * (labels.ndim - len(sharding.spec))]
    rows = spec[:-1] if sparse else spec
    if not any(spec):
        return None
    if ids or sparse:
        spec = [*rows[:axis], None, *rows[axis:]]
    return NamedSharding(sharding.mesh, PartitionSpec(*spec))


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
    function: str, where: ArrayLike | None, rows: Shape, axis: int, classes: Size | None
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
    function: str, class_weights: ArrayLike, classes: Size | None, dtype: jnp.dtype
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
