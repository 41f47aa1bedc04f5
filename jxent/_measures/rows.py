"""What metrics know of each row: the label's log-probability, and whether it is first.

With logits of several classes these are formulas on the row's statistics. A binary row
has one logit z, P(yes) = σ(z), and its label's side of it, s = z for yes and −z for no.
A bad label makes each of them NaN.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, over_classes, select, sharded_like
from .._chunks import largest_along, sum_along
from .._formulas import SoftmaxStatistics, expm1
from .._problem.bad_labels import report_bad_labels, reported
from .._problem.bundles import Maybe
from .._problem.ids import first_class
from .._problem.problem import Problem
from .._problem.resolved import is_class
from .._statistics.argmax import Argmax
from .._statistics.inputs import inputs_of_block, with_logits
from .._statistics.statistic import origin
from .._targets.labels import statistics_of
from .batch import ids_of, is_binary
from .ranks import is_among_first


def logits_in_memory(batch: Problem) -> Array:
    (logits,) = batch.rows.logits
    assert logits.array is not None
    return logits.array


def _row_statistics(batch: Problem) -> SoftmaxStatistics:
    return statistics_of(batch)[0]


def _binary_label(batch: Problem) -> Array:
    """1 for yes, 0 for no."""
    z, ids = logits_in_memory(batch), ids_of(batch)
    label = select(is_class(ids), cast(ids, z.dtype), jnp.nan)
    return report_bad_labels(label, batch.target.labels, ~is_class(ids), 2)


def _side(batch: Problem) -> Array:
    z, label = logits_in_memory(batch), _binary_label(batch)
    return select(lax.eq(label, label), select(ids_of(batch) == 1, z, -z), label)


def log_prob(batch: Problem) -> Array:
    """log p_y (rows,)."""
    if is_binary(batch):
        return jax.nn.log_sigmoid(_side(batch))
    return _row_statistics(batch).log_prob


def is_right(
    batch: Problem, k: int = 1, statistics: SoftmaxStatistics | None = None
) -> Array:
    """1 where the label is among the first k classes, else 0; (rows,).

    `statistics` are those of the batch, where the caller has them.
    """
    if is_binary(batch):
        side = _side(batch)
        right = (side > 0) | ((side == 0) & (ids_of(batch) == 0)) | (k > 1)
        return select(lax.eq(side, side), cast(right, side.dtype), jnp.nan)
    asked = any(isinstance(s, Argmax) for s in batch.settings.statistics)
    if k == 1 and asked and batch.has_head:
        statistics = statistics or _row_statistics(batch)
        label = statistics.log_prob
        right = cast(lax.eq(statistics.argmax, ids_of(batch)), label.dtype)
        return select(lax.eq(label, label), right, jnp.nan)
    return reported(is_among_first(k, batch), batch)


def known_and_prediction(batch: Problem) -> tuple[Array, Array]:
    """1, but NaN where the loss is, and the first class of the largest logit, int32;
    (rows,)."""
    if is_binary(batch):
        label = log_prob(batch)
        prediction = cast(logits_in_memory(batch) > 0, jnp.int32)
    elif batch.has_head or batch.settings.class_axis_name:
        statistics = _row_statistics(batch)
        label, prediction = statistics.log_prob, statistics.argmax
    else:
        z = inputs_of_block(batch, first_class(batch)).z
        largest, prediction = largest_along(z, batch.axis)
        known = lax.bitwise_and(lax.is_finite(largest), is_class(ids_of(batch)))
        label = reported(select(known, lax.full_like(largest, 1), jnp.nan), batch)
    return select(lax.eq(label, label), lax.full_like(label, 1), jnp.nan), prediction


def confidence(batch: Problem) -> tuple[Array, Array]:
    """The probability of the predicted class, and 1 where that is right; P(yes) and the
    label in binary."""
    if is_binary(batch):
        return jax.nn.sigmoid(logits_in_memory(batch)), _binary_label(batch)
    statistics = _row_statistics(batch)
    return lax.exp(-statistics.log_sum), is_right(batch, statistics=statistics)


def squared_error(batch: Problem) -> Array:
    """Σ_c (p_c − y_c)² (rows,); (p − y)² in binary.

    The label's term is (1 − p_y)², where 1 − p_y = −expm1(log p_y) cancels nothing.
    """
    if is_binary(batch):
        return lax.square(jax.nn.sigmoid(-_side(batch)))
    batch = with_logits(batch)  # one array, of which the gradient is rounded once
    statistics, t = statistics_of(batch)
    z = inputs_of_block(batch, first_class(batch)).z
    of_rows = origin(t.maximum), t.sum, ids_of(batch), batch.resolved.weighted
    others = _squares_of_others(batch.axis, True, z, *of_rows)
    return lax.square(expm1(statistics.log_prob)) + others


# With e = exp(z − shift), p = e / Σ e and the shift a constant,
#
#     d Σ_{c ≠ y} p_c² = 2 (Σ_{c ≠ y} e_c² dz_c / (Σ e)² − Σ_{c ≠ y} p_c² d(Σ e) / Σ e)
#
# where the second sum is the value: the gradient sums nothing, so nothing is stored.
#
# A rule of its own: the value then needs no mask of the logits' size, which XLA on a
# CPU would store, where rows may hold anything.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _squares_of_others(
    axis: int,
    alone: bool,
    z: Array,
    shift: Array,
    sum_of_e: Array,
    ids: Array,
    weighted: Maybe,
) -> Array:
    """Σ_{c ≠ y} p_c² (rows,)."""
    if alone:  # XLA on a CPU would store e for both sums, which pays for a derivative
        shift = lax.optimization_barrier(shift)
    squares = sum_along(_squares(axis, z, shift, ids), axis)
    return squares / lax.square(sum_of_e)


@_squares_of_others.defjvp
def _squares_of_others_jvp(axis: int, _: bool, primals: Any, tangents: Any) -> Any:
    z, shift, sum_of_e, ids, weighted = primals
    dz, dsum = tangents[0], tangents[2]
    of_rows, safe = (shift, ids), z
    if weighted is not None:
        where = over_classes(weighted, axis, z)
        dz, safe = select(where, dz), select(where, z)
        of_rows = tuple(select(weighted, x) for x in of_rows)
        sum_of_e = select(weighted, sum_of_e, 1)
    value = _squares_of_others(axis, False, *primals)
    known = value if weighted is None else select(weighted, value)
    own = lax.reduce_sum(_squares(axis, safe, *of_rows) * dz, (axis,))
    return value, 2 * (own / lax.square(sum_of_e) - known * (dsum / sum_of_e))


def _squares(axis: int, z: Array, shift: Array, ids: Array) -> Array:
    """e_c², and 0 at the label: in numbers, as XLA on a CPU would store a mask."""
    e = lax.exp(z - over_classes(shift, axis, z))
    classes = sharded_like(lax.broadcasted_iota(z.dtype, z.shape, axis), z)
    distance = lax.abs(classes - over_classes(cast(ids, z.dtype), axis, z))
    return lax.square(lax.min(distance * e, e))
