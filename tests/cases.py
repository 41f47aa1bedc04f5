"""The losses, one row each: every property test runs over this table."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import jxent
from tests import oracles


CLASSES = 5
MASKED = 3  # the class that the masks below forbid: no label uses it
REAL = np.arange(CLASSES) != MASKED
WEIGHTS = np.array([0.5, 2.0, 1.25, 0.75, 1.5])


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


def yes_no(rng, shape, axis):
    return rng.integers(0, 2, shape).astype(bool)


class Loss(NamedTuple):
    """A row: a public loss, its reference, its inputs, and the options it takes."""

    function: Callable[..., Any]
    oracle: Callable[..., Any]
    x: Callable[..., np.ndarray]
    labels: tuple[Callable[..., np.ndarray] | None, ...]
    takes: frozenset[str]
    options: dict[str, Any]  # a call with all options that shape a single row's loss


SOFTMAX = frozenset({"axis", "rows", "ignore_index", "mask", "class_weights", "logits"})
SIGMOID = frozenset({"rows", "elementwise", "class_weights", "logits"})
PROBABILITIES = SOFTMAX - {"logits"}
BINARY_PROBABILITIES = SIGMOID - {"logits"}
DIVERGENCE = frozenset({"axis"})

ON_TARGETS = {"class_weights": WEIGHTS, "class_mask": REAL, "label_smoothing": 0.1}
ON_LOGITS = {"class_mask": REAL, "logit_soft_cap": 8.0, "temperature": 1.5}
ON_SOFTMAX = ON_TARGETS | ON_LOGITS | {"z_loss": 1e-2}
ON_SIGMOID = {"class_weights": WEIGHTS, "label_smoothing": 0.1}

LOSSES = (
    Loss(
        jxent.softmax_cross_entropy,
        oracles.softmax_cross_entropy,
        logits,
        (ids, shares),
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
        jxent.softmax_log_prob,
        oracles.softmax_log_prob,
        logits,
        (ids,),
        frozenset({"axis", "ignore_index", "mask", "logits"}),
        ON_LOGITS,
    ),
    Loss(
        jxent.softmax_entropy,
        oracles.softmax_entropy,
        logits,
        (None,),
        frozenset({"axis", "mask", "logits"}),
        ON_LOGITS,
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


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A loss with one kind of labels, bare or with its options on."""

    loss: Loss
    labels: Callable[..., np.ndarray] | None
    options: dict[str, Any]

    def __str__(self) -> str:
        kind = "" if self.labels is None else f"-{self.labels.__name__}"
        options = "-options" if self.options else ""
        return f"{self.loss.function.__name__}{kind}{options}"

    def takes(self, option: str) -> bool:
        return option in self.loss.takes

    def inputs(self, rng, rows=(3,), axis=-1) -> tuple[np.ndarray, ...]:
        """float64 inputs, the labels last, where there are any."""
        front = axis % (len(rows) + 1)
        shape = (*rows[:front], CLASSES, *rows[front:])
        made = (self.loss.x, *([] if self.labels is None else [self.labels]))
        return tuple(np.asarray(make(rng, shape, front)) for make in made)

    def rows(self, inputs) -> tuple[int, ...]:
        """The losses' shape, for classes last."""
        return inputs[0].shape if self.takes("elementwise") else inputs[0].shape[:-1]

    def __call__(self, *inputs, **options):
        return self.loss.function(*inputs, **self.options | options)

    def oracle(self, *inputs, **options):
        return self.loss.oracle(*inputs, **self.options | options)


BARE = tuple(Case(loss, labels, {}) for loss in LOSSES for labels in loss.labels)
CASES = BARE + tuple(
    Case(loss, labels, loss.options)
    for loss in LOSSES
    for labels in loss.labels
    if loss.options
)
RICHEST = tuple(c for c in CASES if c.options or not c.loss.options)
# One a loss, with derivatives in the labels where these are floating.
SMOOTHEST = tuple({c.loss.function: c for c in RICHEST}.values())
