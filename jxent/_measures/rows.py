"""What metrics know of each row: the label's log-probability, and whether it is first.

With logits of several classes these are formulas on the row's statistics. A binary row
has one logit z, P(yes) = σ(z), and its label's side of it, s = z for yes and −z for no.
A bad label makes each of them NaN.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, select
from .._compute.chunks import largest_along
from .._formulas import expm1
from .._problem.bad_labels import report_bad_labels, reported
from .._problem.ids import first_class
from .._problem.problem import Problem
from .._problem.resolved import is_class
from .._statistics.argmax import Argmax
from .._statistics.inputs import inputs_of_block
from .._statistics.softmax_statistics import SoftmaxStatistics
from .._statistics.squares import SquaresOfOthers
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
    statistics, t = statistics_of(batch)
    others = t[SquaresOfOthers] / lax.square(t.sum)
    return lax.square(expm1(statistics.log_prob)) + others
