"""Every public loss and metric of arrays, and the lines that one writes in its place.

By hand is jax.numpy, or Optax where that has the function. The same lines in float64
are what both are held against.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

import jxent
from tests import cases


Loss = Callable[..., Any]
EVERY = ("forward", "value and gradient", "jvp")
FORWARD = EVERY[:1]
BINS, K = 15, 5


class Row(NamedTuple):
    """A public function and the same by hand.

    Attributes:
      function: its name in jxent, "softmax_entropy" or "metrics.accuracy".
      arguments: what both are called with, names of `operations`.
      by_hand: a function of the arguments that gives what is compared.
      options: of the public function.
      read: what is compared, of the public function's result.
      derivatives: which of `operations.DERIVATIVES` are measured.
      differentiated: the arguments that these are taken in.
      shapes: the shapes that it is measured at. "elements": every number is a row, of
        arrays of one axis as well.
    """

    function: str
    arguments: tuple[str, ...]
    by_hand: Loss
    options: Mapping[str, Any] = {}
    read: Loss = lambda result: result
    derivatives: tuple[str, ...] = EVERY
    differentiated: tuple[int, ...] = (0,)
    shapes: Literal["classes", "few classes", "elements", "pairs"] = "classes"


def ours(row: Row) -> Loss:
    """The public function as a function of the row's arguments."""
    function = operator.attrgetter(row.function)(jxent)
    return lambda *arguments: row.read(function(*arguments, **row.options))


def _wide(x: Array) -> Array:
    """In float32 or better, as losses are computed."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _mean(of_rows: Loss) -> Loss:
    return lambda *arguments: jnp.mean(of_rows(*arguments))


# Of logits and class ids --------------------------------------------------------------


def _at(x: Array, labels: Array) -> Array:
    return jnp.take_along_axis(x, labels[:, None], -1)[:, 0]


def _log_p(logits: Array, labels: Array) -> Array:
    z = _wide(logits)
    return _at(z, labels) - jax.nn.logsumexp(z, -1)


def _of_log_p(formula: Callable[[Array], Array]) -> Loss:
    return _mean(lambda logits, labels: formula(_log_p(logits, labels)))


# Of logits ----------------------------------------------------------------------------


def _log_softmax(logits: Array) -> Array:
    return jax.nn.log_softmax(_wide(logits))


def _cross_entropy(logits: Array, distributions: Array) -> Array:
    return -jnp.sum(_wide(distributions) * _log_softmax(logits), -1)


def _log_p_at(logits: Array, ids: Array) -> Array:
    return jnp.take_along_axis(_log_softmax(logits), ids, -1)


def _log_p_among(logits: Array, labels: Array, kept: Array) -> Array:
    own = jnp.take_along_axis(logits, labels[:, None], -1)
    others = jnp.take_along_axis(logits, jnp.maximum(kept, 0), -1)
    listed = (kept >= 0) & (kept != labels[:, None])
    candidates = jnp.concatenate([own, jnp.where(listed, others, -jnp.inf)], -1)
    return _log_softmax(candidates)[:, 0]


def _entropy(logits: Array) -> Array:
    log_p = _log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, -1)


def _log_sum_exp(logits: Array) -> Array:
    return jax.nn.logsumexp(_wide(logits), -1)


def _top_k(logits: Array) -> Array:
    return jnp.sum(lax.top_k(_log_softmax(logits), K)[0], -1)


def _is_right(logits: Array, labels: Array) -> Array:
    return (jnp.argmax(logits, -1) == labels).astype(_wide(logits).dtype)


def _logged(logits: Array, labels: Array) -> Array:
    """What a training loop logs: loss, entropy and hits."""
    log_p = _log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
    return entropy - _at(log_p, labels) + _is_right(logits, labels)


def _of_two(formula: Loss) -> Loss:
    return _mean(lambda x, y: formula(_log_softmax(x), _log_softmax(y)))


def _zlpr(logits: Array, binary: Array) -> Array:
    """As the paper has it: a logit of 0 beside those of each side."""
    z, yes = _wide(logits), binary == 1
    zero = jnp.zeros_like(z[:, :1])
    low, high = jnp.where(yes, -jnp.inf, z), jnp.where(yes, -z, -jnp.inf)
    sides = (jnp.concatenate([zero, side], -1) for side in (low, high))
    return sum(jax.nn.logsumexp(side, -1) for side in sides)


# Of single logits, and of probabilities -----------------------------------------------


def _of_element(formula: Loss) -> Loss:
    return _mean(lambda logits, binary: formula(_wide(logits), _wide(binary)))


def _binary_of_probabilities(probs: Array, binary: Array) -> Array:
    p, y = _wide(probs), _wide(binary)
    return -(y * jnp.log(p) + (1 - y) * jnp.log1p(-p))


def _of_picked_probability(probs: Array, labels: Array) -> Array:
    return -jnp.log(_wide(_at(probs, labels)))


def _of_probabilities(probs: Array, distributions: Array) -> Array:
    return -jnp.sum(_wide(distributions) * jnp.log(_wide(probs)), -1)


def _entropy_of_probabilities(probs: Array) -> Array:
    p = _wide(probs)
    return -jnp.sum(p * jnp.log(p), -1)


def _optax(name: str) -> Loss:
    function = getattr(optax.losses, name)
    return _mean(lambda *arguments: function(*map(_wide, arguments)))


# Of pairs and batches -----------------------------------------------------------------


def _products(x: Array, y: Array) -> Array:
    return _wide(x) @ _wide(y).T


def _contrastive(x: Array, y: Array) -> Array:
    z = _products(x, y)
    sides = jax.nn.logsumexp(z, 1) + jax.nn.logsumexp(z, 0)
    return sides / 2 - jnp.diagonal(z)


def _sigmoid_contrastive(x: Array, y: Array) -> Array:
    signs = 2 * jnp.eye(len(x)) - 1
    return -jnp.sum(jax.nn.log_sigmoid(signs * _products(x, y)), -1)


def _supervised(x: Array, labels: Array) -> Array:
    own = jnp.eye(len(x), dtype=bool)
    log_p = jax.nn.log_softmax(jnp.where(own, -jnp.inf, _products(x, x) / 0.1))
    positive = (labels[:, None] == labels) & ~own
    return -jnp.sum(jnp.where(positive, log_p, 0), 1) / jnp.sum(positive, 1)


# Metrics ------------------------------------------------------------------------------


def _is_among(logits: Array, labels: Array) -> Array:
    found = jnp.any(lax.top_k(logits, K)[1] == labels[:, None], -1)
    return found.astype(_wide(logits).dtype)


def _perplexity(logits: Array, labels: Array) -> Array:
    return jnp.exp(-jnp.mean(_log_p(logits, labels)))


def _brier(logits: Array, labels: Array) -> Array:
    p = jax.nn.softmax(_wide(logits))
    return jnp.sum((p - jax.nn.one_hot(labels, p.shape[1], dtype=p.dtype)) ** 2, -1)


def _confusion(logits: Array, labels: Array) -> Array:
    count = jnp.zeros((logits.shape[1],) * 2, _wide(logits).dtype)
    return count.at[labels, jnp.argmax(logits, -1)].add(1)


def _bins(logits: Array, labels: Array) -> tuple[Array, Array, Array, Array]:
    """Edges, and of each bin the sums of confidence, of hits and of rows."""
    confidence = jnp.max(jax.nn.softmax(_wide(logits)), -1)
    at = jnp.clip(jnp.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    sums = (
        jnp.zeros(BINS, confidence.dtype).at[at].add(x)
        for x in (confidence, _is_right(logits, labels), jnp.ones_like(confidence))
    )
    return jnp.arange(BINS + 1) / BINS, *sums


def _reliability(logits: Array, labels: Array) -> tuple[Array, Array, Array, Array]:
    edges, confidence, right, count = _bins(logits, labels)
    some = jnp.maximum(count, 1)
    return edges, confidence / some, right / some, count


def _calibration(logits: Array, labels: Array) -> Array:
    _, confidence, right, count = _bins(logits, labels)
    return jnp.sum(jnp.abs(confidence - right)) / jnp.sum(count)


def _is_right_binary(logits: Array, binary: Array) -> Array:
    return ((logits > 0) == binary).astype(_wide(logits).dtype)


# The table ----------------------------------------------------------------------------

_IDS = ("logits", "labels")
_BINARY = ("logits", "binary")
_MEAN = {"reduction": "mean"}
_mean_of_result = functools.partial(Row, read=jnp.mean)
_loss = functools.partial(Row, options=_MEAN)
_of_elements = functools.partial(_loss, shapes="elements")
_of_pairs = functools.partial(_loss, shapes="pairs")
_metric = functools.partial(Row, derivatives=FORWARD)


def _of_table(
    row: Loss, labels: Loss, arguments: tuple[str, str], by_hand: Loss
) -> dict[str, Row]:
    """The losses of these labels whose code by hand is in the table of the tests."""
    return {
        loss.name: row(loss.name, arguments, by_hand(loss.by_hand))
        for loss in cases.LOSSES
        if loss.by_hand is not None and labels in loss.labels
    }


ROWS: dict[str, Row] = {
    "softmax_cross_entropy, ids": _loss(
        "softmax_cross_entropy", _IDS, _of_log_p(operator.neg)
    ),
    "softmax_cross_entropy, distributions": _loss(
        "softmax_cross_entropy", ("logits", "distributions"), _mean(_cross_entropy)
    ),
    **_of_table(_loss, cases.ids, _IDS, _of_log_p),
    "softmax_log_prob": _mean_of_result("softmax_log_prob", _IDS, _mean(_log_p)),
    "softmax_log_prob_at": _mean_of_result(
        "softmax_log_prob_at", ("logits", "few_ids"), _mean(_log_p_at)
    ),
    "softmax_log_prob_among": _mean_of_result(
        "softmax_log_prob_among", (*_IDS, "kept"), _mean(_log_p_among)
    ),
    "softmax_entropy": _mean_of_result("softmax_entropy", ("logits",), _mean(_entropy)),
    "softmax_statistics": Row(
        "softmax_statistics",
        ("logits",),
        _mean(_log_sum_exp),
        read=lambda statistics: jnp.mean(statistics.lse),
    ),
    "softmax_top_k": Row(
        "softmax_top_k",
        ("logits",),
        _mean(_top_k),
        options={"k": K},
        read=lambda found: jnp.mean(jnp.sum(found[0], -1)),
    ),
    "softmax_cross_entropy_sums": Row(
        "softmax_cross_entropy_sums",
        _IDS,
        _mean(_logged),
        read=lambda sums: (sums.loss + sums.entropy + sums.correct) / sums.weight,
    ),
    **_of_table(_loss, cases.target, ("logits", "target_logits"), _of_two),
    "zlpr_loss": _loss("zlpr_loss", _BINARY, _mean(_zlpr)),
    **_of_table(_of_elements, cases.yes_no, _BINARY, _of_element),
    "sigmoid_binary_cross_entropy, a row": _loss(
        "sigmoid_binary_cross_entropy",
        _BINARY,
        _mean(lambda z, y: jnp.sum(cases.binary(_wide(z), _wide(y)), -1)),
        options=_MEAN | {"axis": -1},
    ),
    "binary_cross_entropy": _of_elements(
        "binary_cross_entropy",
        ("element_probs", "binary"),
        _mean(_binary_of_probabilities),
    ),
    "categorical_cross_entropy, ids": _loss(
        "categorical_cross_entropy", ("probs", "labels"), _mean(_of_picked_probability)
    ),
    "categorical_cross_entropy, distributions": _loss(
        "categorical_cross_entropy",
        ("probs", "distributions"),
        _mean(_of_probabilities),
    ),
    "entropy": _mean_of_result("entropy", ("probs",), _mean(_entropy_of_probabilities)),
    "kl_divergence": _mean_of_result(
        "kl_divergence", ("log_probs", "distributions"), _optax("kl_divergence")
    ),
    "kl_divergence_with_log_targets": _mean_of_result(
        "kl_divergence_with_log_targets",
        ("log_probs", "log_targets"),
        _optax("kl_divergence_with_log_targets"),
    ),
    "generalized_kl_divergence": _mean_of_result(
        "generalized_kl_divergence",
        ("log_probs", "distributions"),
        _optax("generalized_kl_divergence"),
    ),
    "contrastive_cross_entropy": _of_pairs(
        "contrastive_cross_entropy",
        ("x", "y"),
        _mean(_contrastive),
        differentiated=(0, 1),
    ),
    "sigmoid_contrastive_loss": _of_pairs(
        "sigmoid_contrastive_loss",
        ("x", "y"),
        _mean(_sigmoid_contrastive),
        differentiated=(0, 1),
    ),
    "supervised_contrastive_cross_entropy": _of_pairs(
        "supervised_contrastive_cross_entropy", ("x", "groups"), _mean(_supervised)
    ),
    "ntxent": Row(
        "ntxent",
        ("x", "groups"),
        lambda x, groups: optax.losses.ntxent(_wide(x), groups),
        shapes="pairs",
    ),
    "accuracy": _metric("metrics.accuracy", _IDS, _mean(_is_right)),
    "accuracy, yes or no": _metric(
        "metrics.accuracy",
        ("logits", "yes"),
        _mean(_is_right_binary),
        options={"axis": ()},
        shapes="elements",
    ),
    "top_k_accuracy": _metric(
        "metrics.top_k_accuracy", _IDS, _mean(_is_among), options={"k": K}
    ),
    "perplexity": Row("metrics.perplexity", _IDS, _perplexity),
    "brier_score": Row("metrics.brier_score", _IDS, _mean(_brier)),
    "confusion_matrix": _metric(
        "metrics.confusion_matrix", _IDS, _confusion, shapes="few classes"
    ),
    "calibration_error": _metric(
        "metrics.calibration_error", _IDS, _calibration, options={"bins": BINS}
    ),
    "reliability_bins": _metric(
        "metrics.reliability_bins", _IDS, _reliability, options={"bins": BINS}
    ),
}

# What the sums of a batch give is what the metric gives.
for _name in ("accuracy", "top_k_accuracy", "perplexity", "brier_score"):
    ROWS[f"{_name}_sums"] = ROWS[_name]._replace(
        function=f"metrics.{_name}_sums", read=lambda sums: sums.compute()
    )
ROWS["calibration_error_sums"] = ROWS["calibration_error"]._replace(
    function="metrics.calibration_error_sums", read=lambda sums: sums.compute()
)
