"""The losses, one row each: every property test runs over this table."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import jxent
from tests import oracles


CLASSES = 8
MASKED = 3  # the class that the masks below forbid: no label uses it
REAL = np.arange(CLASSES) != MASKED
WEIGHTS = np.array([0.5, 2.0, 1.25, 0.75, 1.5, 1.0, 0.25, 1.75])


def dense(ids, values, classes, axis=-1):
    """The distribution of all classes that `SparseLabels` stand for."""
    ids, values = (np.moveaxis(np.asarray(x), axis, -1) for x in (ids, values))
    one_hot, values = ids[..., None] == np.arange(classes), values[..., None]
    return np.moveaxis(np.where(one_hot, values, 0).sum(-2), -1, axis)


# What a loss is a function of, and what it is scored against: shapes have the classes
# at `axis`.


def logits(rng, shape, axis):
    return 3 * rng.normal(size=shape)


def log_probabilities(rng, shape, axis):
    z = np.moveaxis(rng.normal(size=shape), axis, -1)
    return np.moveaxis(oracles.log_softmax(z), -1, axis)


def probabilities(rng, shape, axis):
    return np.exp(log_probabilities(rng, shape, axis))


def shares(rng, shape, axis):
    return rng.uniform(0.05, 0.95, shape)


def ids(rng, shape, axis):
    rows = np.delete(shape, axis)
    return rng.choice(np.flatnonzero(REAL), tuple(rows)).astype(np.int32)


PLACES = 3


def places(rng, shape, axis):
    """Several ids a row, one of them twice, and a value for each: `SparseLabels`."""
    rows = tuple(np.delete(shape, axis))
    chosen = rng.choice(np.flatnonzero(REAL), (*rows, PLACES)).astype(np.int32)
    chosen[..., 1] = chosen[..., 0]
    values = rng.uniform(0.05, 0.95, chosen.shape)
    return np.moveaxis(chosen, -1, axis), np.moveaxis(values, -1, axis)


def positives(rng, shape, axis):
    """Different ids a row: `SparseLabels` without values."""
    rows = tuple(np.delete(shape, axis))
    chosen = rng.permuted(
        np.broadcast_to(np.flatnonzero(REAL), (*rows, CLASSES - 1)), axis=-1
    )
    chosen = chosen[..., :2].astype(np.int32)
    return (np.moveaxis(chosen, -1, axis),)


def target(rng, shape, axis):
    """Logits, or hidden states, that a loss is compared with."""
    return 3 * rng.normal(size=shape)


def yes_no(rng, shape, axis):
    return rng.integers(0, 2, shape).astype(bool)


class Loss(NamedTuple):
    """A row: a public loss, its reference, its inputs, and the options it takes."""

    function: Callable[..., Any]
    oracle: Callable[..., Any]
    x: Callable[..., np.ndarray]
    labels: tuple[Callable[..., Any] | None, ...]
    takes: frozenset[str]
    options: dict[str, Any]  # a call with all options that shape a single row's loss
    implementation: str | None = None  # of a fused head, whose x are hidden states


# A fused head's kernel and bias: exact in every dtype that they are cast to.
KERNEL, BIAS, TARGET_KERNEL = (
    np.round(4 * np.random.default_rng(seed).normal(size=size)).astype(np.float32) / 4
    for seed, size in enumerate(((CLASSES, CLASSES), CLASSES, (CLASSES, CLASSES)))
)

SOFTMAX = frozenset(
    "axis rows ignore_index mask class_weights smoothing logits losses".split()
)
STATISTICS = SOFTMAX - {"rows", "class_weights", "smoothing"}
HEAD = SOFTMAX - {"axis", "logits"}
TILED = HEAD - {"losses"}  # it gives a sum of losses
SIGMOID = frozenset({"rows", "elementwise", "class_weights", "logits", "losses"})
PROBABILITIES = SOFTMAX - {"logits"}
BINARY_PROBABILITIES = SIGMOID - {"logits"}
DIVERGENCE = frozenset({"axis", "losses"})
SEVERAL_LABELS = frozenset("axis rows mask losses".split())
COMPARED = SOFTMAX - {"ignore_index", "class_weights", "smoothing"}

ON_TARGETS = {"class_weights": WEIGHTS, "class_mask": REAL, "label_smoothing": 0.1}
ON_LOGITS = {"class_mask": REAL, "logit_soft_cap": 8.0, "temperature": 1.5}
ON_SOFTMAX = ON_TARGETS | ON_LOGITS | {"z_loss": 1e-2}
ON_TWO = ON_LOGITS | {"target_logit_soft_cap": 6.0}
ON_SIGMOID = {"class_weights": WEIGHTS, "label_smoothing": 0.1}

LOSSES = (
    Loss(
        jxent.softmax_cross_entropy,
        oracles.softmax_cross_entropy,
        logits,
        (ids, places, shares),
        SOFTMAX,
        ON_SOFTMAX,
    ),
    Loss(
        jxent.softmax_focal_loss,
        oracles.softmax_focal_loss,
        logits,
        (ids, shares),
        SOFTMAX,
        ON_SOFTMAX | {"gamma": 1.5},
    ),
    Loss(
        jxent.poly_loss_cross_entropy,
        oracles.poly_loss_cross_entropy,
        logits,
        (ids, shares),
        SOFTMAX,
        ON_SOFTMAX | {"epsilon": 0.75},
    ),
    Loss(
        jxent.generalized_cross_entropy,
        oracles.generalized_cross_entropy,
        logits,
        (ids, shares),
        SOFTMAX,
        ON_SOFTMAX | {"q": 0.4},
    ),
    Loss(
        jxent.taylor_cross_entropy,
        oracles.taylor_cross_entropy,
        logits,
        (ids,),
        SOFTMAX,
        ON_SOFTMAX | {"order": 3},
    ),
    Loss(
        jxent.symmetric_cross_entropy,
        oracles.symmetric_cross_entropy,
        logits,
        (ids, places, shares),
        SOFTMAX,
        ON_SOFTMAX | {"alpha": 0.3, "beta": 0.75, "log_zero": -1.5},
    ),
    Loss(
        jxent.softmax_log_prob,
        oracles.softmax_log_prob,
        logits,
        (ids,),
        STATISTICS,
        ON_LOGITS,
    ),
    Loss(
        jxent.softmax_entropy,
        oracles.softmax_entropy,
        logits,
        (None,),
        STATISTICS - {"ignore_index"},
        ON_LOGITS,
    ),
    Loss(
        jxent.softmax_kl_divergence,
        oracles.softmax_kl_divergence,
        logits,
        (target,),
        COMPARED,
        ON_TWO,
    ),
    Loss(
        jxent.softmax_jensen_shannon_divergence,
        oracles.softmax_jensen_shannon_divergence,
        logits,
        (target,),
        COMPARED,
        ON_TWO | {"beta": 0.3},
    ),
    Loss(
        jxent.sigmoid_binary_cross_entropy,
        oracles.sigmoid_binary_cross_entropy,
        logits,
        (yes_no, shares),
        SIGMOID,
        ON_SIGMOID | {"pos_weight": WEIGHTS[::-1].copy()},
    ),
    Loss(
        jxent.sigmoid_focal_loss,
        oracles.sigmoid_focal_loss,
        logits,
        (yes_no, shares),
        SIGMOID,
        ON_SIGMOID | {"alpha": 0.25, "gamma": 1.5},
    ),
    Loss(
        jxent.zlpr_loss,
        oracles.zlpr_loss,
        logits,
        (yes_no, positives, shares),
        SEVERAL_LABELS,
        ON_LOGITS | {"label_smoothing": 0.1},
    ),
    Loss(
        jxent.asymmetric_loss,
        oracles.asymmetric_loss,
        logits,
        (yes_no, shares),
        SIGMOID,
        ON_SIGMOID
        | {"pos_weight": WEIGHTS[::-1].copy()}
        | {"gamma_pos": 1.5, "gamma_neg": 2.5, "clip": 0.1},
    ),
    Loss(
        jxent.binary_cross_entropy,
        oracles.binary_cross_entropy,
        shares,
        (yes_no, shares),
        BINARY_PROBABILITIES,
        ON_SIGMOID | {"pos_weight": WEIGHTS[::-1].copy()},
    ),
    Loss(
        jxent.categorical_cross_entropy,
        oracles.categorical_cross_entropy,
        probabilities,
        (ids, shares),
        PROBABILITIES,
        ON_TARGETS,
    ),
    Loss(jxent.entropy, oracles.entropy, probabilities, (None,), DIVERGENCE, {}),
    Loss(
        jxent.kl_divergence,
        oracles.kl_divergence,
        log_probabilities,
        (probabilities,),
        DIVERGENCE,
        {},
    ),
    Loss(
        jxent.kl_divergence_with_log_targets,
        oracles.kl_divergence_with_log_targets,
        log_probabilities,
        (log_probabilities,),
        DIVERGENCE,
        {},
    ),
    Loss(
        jxent.generalized_kl_divergence,
        oracles.generalized_kl_divergence,
        log_probabilities,
        (shares,),
        DIVERGENCE,
        {},
    ),
)


def fused(function, oracle, labels, takes, options, implementation):
    """The row of a loss of hidden @ KERNEL + BIAS, whose classes are the last axis."""

    def of_hidden(hidden, *given_labels, **given):
        logits = np.asarray(hidden, np.float64) @ KERNEL + BIAS
        if target in labels:
            of_target = np.asarray(given_labels[0], np.float64)
            given_labels = (of_target @ TARGET_KERNEL,)
        return oracle(logits, *given_labels, **given)

    return Loss(function, of_hidden, logits, labels, takes, options, implementation)


BOTH = (ids, shares)
NOT_SMOOTHED = ON_SOFTMAX | {"label_smoothing": 0.0}
FUSED = (
    *(
        fused(
            jxent.linear_softmax_cross_entropy,
            oracles.softmax_cross_entropy,
            BOTH if implementation == "materialized" else (ids, places, shares),
            TILED if implementation == "tiled" else HEAD,
            ON_SOFTMAX,
            implementation,
        )
        for implementation in ("materialized", "streamed", "tiled")
    ),
    *(
        # A stream of blocks has the label's log p alone.
        fused(
            function,
            oracle,
            (ids,) if implementation == "streamed" else BOTH,
            HEAD - {"smoothing"} if implementation == "streamed" else TILED,
            (NOT_SMOOTHED if implementation == "streamed" else ON_SOFTMAX) | parameter,
            implementation,
        )
        for function, oracle, parameter in (
            (
                jxent.linear_softmax_focal_loss,
                oracles.softmax_focal_loss,
                {"gamma": 1.5},
            ),
            (
                jxent.linear_poly_loss_cross_entropy,
                oracles.poly_loss_cross_entropy,
                {"epsilon": 0.75},
            ),
        )
        for implementation in ("streamed", "tiled")
    ),
    *(
        fused(
            function,
            oracle,
            (target,),
            COMPARED & (TILED if implementation == "tiled" else HEAD),
            ON_TWO | parameter,
            implementation,
        )
        for function, oracle, parameter in (
            (
                jxent.linear_softmax_kl_divergence,
                oracles.softmax_kl_divergence,
                {},
            ),
            (
                jxent.linear_softmax_jensen_shannon_divergence,
                oracles.softmax_jensen_shannon_divergence,
                {"beta": 0.3},
            ),
        )
        for implementation in ("streamed", "tiled")
    ),
    *(
        fused(
            function,
            oracle,
            labels,
            SEVERAL_LABELS & (TILED if implementation == "tiled" else HEAD),
            ON_LOGITS | {"label_smoothing": 0.1} | options,
            implementation,
        )
        for function, oracle, labels, options in (
            (
                jxent.linear_sigmoid_binary_cross_entropy,
                oracles.sums_over_classes(oracles.sigmoid_binary_cross_entropy),
                (yes_no, places, shares),
                {"class_weights": WEIGHTS, "pos_weight": WEIGHTS[::-1].copy()},
            ),
            (
                jxent.linear_sigmoid_focal_loss,
                oracles.sums_over_classes(oracles.sigmoid_focal_loss),
                (yes_no, shares),
                {"class_weights": WEIGHTS, "alpha": 0.25, "gamma": 1.5},
            ),
            (
                jxent.linear_asymmetric_loss,
                oracles.sums_over_classes(oracles.asymmetric_loss),
                (yes_no, shares),
                {"class_weights": WEIGHTS, "pos_weight": WEIGHTS[::-1].copy()}
                | {"gamma_pos": 1.5, "gamma_neg": 2.5, "clip": 0.1},
            ),
            (
                jxent.linear_zlpr_loss,
                oracles.zlpr_loss,
                (yes_no, positives, shares),
                {},
            ),
        )
        for implementation in ("streamed", "tiled")
    ),
    fused(
        jxent.linear_softmax_log_prob,
        oracles.softmax_log_prob,
        (ids,),
        HEAD & STATISTICS,
        ON_LOGITS,
        "streamed",
    ),
    fused(
        jxent.linear_softmax_entropy,
        oracles.softmax_entropy,
        (None,),
        HEAD & STATISTICS - {"ignore_index"},
        ON_LOGITS,
        "streamed",
    ),
)
# Formulas share their layouts, so that not each has to be in both.
IN_ONE_LAYOUT = {
    jxent.linear_poly_loss_cross_entropy: "tiled",
    jxent.linear_softmax_jensen_shannon_divergence: "streamed",
    jxent.linear_sigmoid_focal_loss: "streamed",
    jxent.linear_asymmetric_loss: "tiled",
}
LOSSES += tuple(
    loss
    for loss in FUSED
    if IN_ONE_LAYOUT.get(loss.function, loss.implementation) == loss.implementation
)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A loss with one kind of labels, bare or with its options on."""

    loss: Loss
    labels: Callable[..., Any] | None
    options: dict[str, Any]
    # Of a head: whole ones, because a loop and a rest are twice as much to compile.
    block_sizes: tuple[int, int] = (2, 4)

    def __str__(self) -> str:
        parts = [
            self.loss.function.__name__,
            self.loss.implementation,
            self.labels and self.labels.__name__,
            self.options and "options",
        ]
        return "-".join(part for part in parts if part)

    def takes(self, option: str) -> bool:
        return option in self.loss.takes

    def inputs(self, rng, rows=(4,), axis=-1) -> tuple[np.ndarray, ...]:
        """float64 inputs, the labels last, where there are any."""
        front = axis % (len(rows) + 1)
        shape = (*rows[:front], CLASSES, *rows[front:])
        made = [self.loss.x(rng, shape, front)]
        if self.labels is not None:
            labels = self.labels(rng, shape, front)
            made += labels if isinstance(labels, tuple) else [labels]
        return tuple(map(np.asarray, made))

    def rows(self, inputs) -> tuple[int, ...]:
        """The shape of the rows, for classes last."""
        return inputs[0].shape if self.takes("elementwise") else inputs[0].shape[:-1]

    @property
    def reductions(self) -> tuple[str, ...]:
        return ("none", "sum", "mean") if self.takes("losses") else ("sum", "mean")

    def _given(self, options) -> dict[str, Any]:
        """Losses, or their sum where a layout has no more."""
        of_rows = {} if self.takes("losses") else {"reduction": "sum"}
        return of_rows | self.options | options

    def __call__(self, x, *labels, **options):
        options = self._given(options)
        if self.labels in (places, positives):
            labels = (jxent.SparseLabels(*labels),)
        if self.loss.implementation is None:
            return self.loss.function(x, *labels, **options)
        if self.labels is target:
            labels = (*labels, TARGET_KERNEL)
        options |= {"bias": BIAS, "implementation": self.loss.implementation}
        options |= {"block_sizes": self.block_sizes}
        return self.loss.function(x, KERNEL, *labels, **options)

    def oracle(self, x, *labels, axis=-1, **options):
        if self.labels is positives:
            labels = (*labels, np.ones(labels[0].shape))
        if self.labels in (places, positives):
            labels = (dense(*labels, classes=np.shape(x)[axis], axis=axis),)
        options |= {"axis": axis} if self.takes("axis") else {}
        return self.loss.oracle(x, *labels, **self._given(options))


BARE = tuple(Case(loss, labels, {}) for loss in LOSSES for labels in loss.labels)
# A fused head without options is that of cross-entropy alone; others have them on.
_BARE = tuple(
    c
    for c in BARE
    if c.loss.implementation is None
    or c.loss.function is jxent.linear_softmax_cross_entropy
)
CASES = _BARE + tuple(
    Case(loss, labels, loss.options)
    for loss in LOSSES
    for labels in loss.labels
    if loss.options
)
# Loops over tiles and over blocks, and a smaller one after each.
RAGGED = tuple(dataclasses.replace(case, block_sizes=(4, 3)) for case in CASES)
RICHEST = tuple(c for c in CASES if c.options or not c.loss.options)


def one_a_loss(cases):
    """With derivatives in the labels where these are floating."""
    return tuple({(c.loss.function, c.loss.implementation): c for c in cases}.values())


def every_kind(cases):
    """One a loss, and one for each kind of labels that a layout has."""
    kinds = {(c.labels, c.loss.implementation, c.takes("axis")): c for c in cases}
    chosen = {*one_a_loss(cases), *kinds.values()}
    return tuple(c for c in cases if c in chosen)


SMOOTHEST = one_a_loss(RICHEST)
EVERY_KIND = every_kind(RICHEST)
