"""The losses, one row each, in every layout: what the property tests run over."""

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jxent
from tests import oracles


CLASSES = 8
MASKED = 3  # the class that the masks below forbid: no label uses it
REAL = np.arange(CLASSES) != MASKED
WEIGHTS = np.array([0.5, 2.0, 1.25, 0.75, 1.5, 1.0, 0.25, 1.75])


def one_hot(ids):
    return (np.arange(CLASSES) == ids[..., None]).astype(np.float64)


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
    """What logits are compared with: an array as they are, or a head as they are."""
    return 3 * rng.normal(size=shape)


def target_array(rng, shape, axis):
    """An array that a head is compared with."""
    return target(rng, shape, axis)


def target_head(rng, shape, axis):
    """A head that an array is compared with."""
    return target(rng, shape, axis)


def yes_no(rng, shape, axis):
    return rng.integers(0, 2, shape).astype(bool)


# A head's kernel and bias: exact in every dtype that they are cast to.
KERNEL, BIAS, TARGET_KERNEL = (
    np.round(4 * np.random.default_rng(seed).normal(size=size)) / 4
    for seed, size in enumerate(((CLASSES, CLASSES), CLASSES, (CLASSES, CLASSES)))
)


LAYOUTS = "in memory", "materialized", "streamed", "tiled"


@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
    """A row: a public loss, its kinds of labels, and the options it takes."""

    function: Callable[..., Any]
    labels: tuple[Callable[..., Any] | None, ...]
    takes: frozenset[str]
    options: dict[str, Any]  # a call with all options that shape a single row's loss
    x: Callable[..., np.ndarray] = logits
    not_streamed: tuple[Any, ...] = ()  # options and labels that need every log p
    bounded: bool = False  # where p = 0 for the label, too
    # As one writes it oneself, of the defaults: of log p of the label, of log p and
    # log q of all classes, or of a logit and its label.
    by_hand: Callable[..., Any] | None = None

    @property
    def public(self) -> Callable[..., Any]:
        return getattr(self.function, "func", self.function)

    @property
    def name(self) -> str:
        of_rows = self.public is not self.function
        return f"{self.public.__name__}{'_of_rows' * of_rows}"

    @property
    def kind(self) -> Any:
        """What it shares with losses that differ from it by their formula alone."""
        return self.x, self.takes

    @property
    def oracle(self) -> Callable[..., Any]:
        name = self.name.removesuffix("_of_rows")
        oracle = getattr(oracles, name)
        return oracle if name == self.name else oracles.sums_over_classes(oracle)

    @property
    def layouts(self) -> tuple[str, ...]:
        """In memory alone for probabilities and for losses of single elements."""
        if self.x is not logits or "elementwise" in self.takes:
            return LAYOUTS[:1]
        return LAYOUTS if "rows" in self.takes else LAYOUTS[:-1]


def taken_away(loss: Loss, layout: str) -> set[Any]:
    """What a layout takes away from a loss: options, results and kinds of labels."""
    if layout == "in memory":
        return {target_array, target_head}
    away: set[Any] = {"axis", "logits"}  # classes are last, and x are hidden states
    if layout == "tiled":
        away |= {"losses"}  # it gives their sum
    if layout == "streamed":
        away |= {*loss.not_streamed}
    return away


SOFTMAX = frozenset(
    "axis rows ignore_index mask class_weights label_smoothing logits losses".split()
)
STATISTICS = SOFTMAX - {"rows", "class_weights", "label_smoothing"}
COMPARED = SOFTMAX - {"ignore_index", "class_weights", "label_smoothing"}
PROBABILITIES = SOFTMAX - {"logits"}
SEVERAL_LABELS = frozenset("axis rows mask losses".split())
ELEMENTWISE = frozenset("rows elementwise class_weights logits losses".split())
OF_SHARES = ELEMENTWISE - {"logits"}
DIVERGENCE = frozenset({"axis", "losses"})

ON_TARGETS = {"class_weights": WEIGHTS, "class_mask": REAL, "label_smoothing": 0.1}
ON_LOGITS = {"class_mask": REAL, "logit_soft_cap": 8.0, "temperature": 1.5}
ON_SOFTMAX = ON_TARGETS | ON_LOGITS | {"z_loss": 1e-2}
ON_TWO = ON_LOGITS | {"target_logit_soft_cap": 6.0}
ON_ELEMENTS = {"class_weights": WEIGHTS, "label_smoothing": 0.1}
ON_ROWS = ON_ELEMENTS | ON_LOGITS
BALANCED = {"pos_weight": WEIGHTS[::-1].copy()}
FOCAL, POLY, SMOOTHED = {"gamma": 1.5}, {"epsilon": 0.75}, {"label_smoothing": 0.1}
SYMMETRIC = {"alpha": 0.3, "beta": 0.75, "log_zero": -1.5}
SIGMOID_FOCAL = {"alpha": 0.25, "gamma": 1.5}
ASYMMETRIC = BALANCED | {"gamma_pos": 1.5, "gamma_neg": 2.5, "clip": 0.1}

NOT_LINEAR = ("label_smoothing", shares)  # in log p: these need all of a row's

ONE, HOT, NO_LABELS = (ids,), (ids, shares), (None,)
SEVERAL, COMPARISONS = (ids, places, shares), (target_array, target_head, target)
BINARY, SETS = (yes_no, shares), (yes_no, places, shares)
POSITIVES, LOG_P = (yes_no, positives, shares), (log_probabilities,)


def softmax_loss(function, labels, own=None, **fields):
    """One with parameters of its own, beside the options that all have."""
    return Loss(function, labels, SOFTMAX, ON_SOFTMAX | (own or {}), **fields)


def divergence(function, own=None, **fields):
    return Loss(function, COMPARISONS, COMPARED, ON_TWO | (own or {}), **fields)


def element_loss(function, own, by_hand):
    return Loss(function, BINARY, ELEMENTWISE, ON_ELEMENTS | own, by_hand=by_hand)


def row_loss(function, labels, options):
    """The binary loss whose rows are sums over classes."""
    return Loss(functools.partial(function, axis=-1), labels, SEVERAL_LABELS, options)


# By hand, where it is more than a line.


def jensen_shannon(log_p, log_q):
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0).astype(log_p.dtype)
    return sum(jnp.sum(jnp.exp(x) * (x - log_m), -1) for x in (log_p, log_q)) / 2


def binary(z, y):
    return jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))


def binary_focal(z, y):
    p = jax.nn.sigmoid(z)
    return (1 - (p * y + (1 - p) * (1 - y))) ** 2 * binary(z, y)


def asymmetric(z, y):
    """As the paper has it, of the defaults: γ₊ = 0, γ₋ = 4, m = 0.05."""
    p = jax.nn.sigmoid(z)
    p_m = jnp.maximum(p - 0.05, 0)
    return -(y * jnp.log(p) + (1 - y) * p_m**4 * jnp.log1p(-p_m))


LOSSES = (
    softmax_loss(jxent.softmax_cross_entropy, SEVERAL),
    softmax_loss(
        jxent.softmax_focal_loss,
        HOT,
        FOCAL,
        not_streamed=NOT_LINEAR,
        by_hand=lambda log_p: -((1 - jnp.exp(log_p)) ** 2) * log_p,
    ),
    softmax_loss(
        jxent.poly_loss_cross_entropy,
        HOT,
        POLY,
        not_streamed=NOT_LINEAR,
        by_hand=lambda log_p: -log_p + 2 * (1 - jnp.exp(log_p)),
    ),
    softmax_loss(
        jxent.generalized_cross_entropy,
        HOT,
        {"q": 0.4},
        bounded=True,
        not_streamed=NOT_LINEAR,
        by_hand=lambda log_p: (1 - jnp.exp(0.7 * log_p)) / 0.7,
    ),
    softmax_loss(
        jxent.taylor_cross_entropy,
        ONE,
        {"order": 3},
        bounded=True,
        not_streamed=NOT_LINEAR,
        by_hand=lambda log_p: 1 - jnp.exp(log_p) + (1 - jnp.exp(log_p)) ** 2 / 2,
    ),
    softmax_loss(
        jxent.symmetric_cross_entropy,
        SEVERAL,
        SYMMETRIC,
        not_streamed=(shares,),
        # log q is 0 at the label, and −4 in place of −∞ at all others.
        by_hand=lambda log_p: -0.1 * log_p + 4 * (1 - jnp.exp(log_p)),
    ),
    Loss(jxent.softmax_log_prob, ONE, STATISTICS, ON_LOGITS),
    Loss(jxent.softmax_entropy, NO_LABELS, STATISTICS - {"ignore_index"}, ON_LOGITS),
    divergence(
        jxent.softmax_kl_divergence,
        by_hand=lambda log_p, log_q: jnp.sum(jnp.exp(log_q) * (log_q - log_p), -1),
    ),
    divergence(
        jxent.softmax_jensen_shannon_divergence, {"beta": 0.3}, by_hand=jensen_shannon
    ),
    divergence(
        jxent.softmax_total_variation,
        bounded=True,
        by_hand=lambda log_p, log_q: (
            jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), -1) / 2
        ),
    ),
    element_loss(jxent.sigmoid_binary_cross_entropy, BALANCED, binary),
    element_loss(jxent.sigmoid_focal_loss, SIGMOID_FOCAL, binary_focal),
    element_loss(jxent.asymmetric_loss, ASYMMETRIC, asymmetric),
    row_loss(jxent.sigmoid_binary_cross_entropy, SETS, ON_ROWS | BALANCED),
    row_loss(jxent.sigmoid_focal_loss, BINARY, ON_ROWS | SIGMOID_FOCAL),
    row_loss(jxent.asymmetric_loss, BINARY, ON_ROWS | ASYMMETRIC),
    Loss(jxent.zlpr_loss, POSITIVES, SEVERAL_LABELS, ON_LOGITS | SMOOTHED),
    Loss(jxent.binary_cross_entropy, BINARY, OF_SHARES, ON_ELEMENTS | BALANCED, shares),
    Loss(
        jxent.categorical_cross_entropy, HOT, PROBABILITIES, ON_TARGETS, probabilities
    ),
    Loss(jxent.entropy, NO_LABELS, DIVERGENCE, {}, probabilities),
    Loss(jxent.kl_divergence, (probabilities,), DIVERGENCE, {}, log_probabilities),
    Loss(
        jxent.kl_divergence_with_log_targets, LOG_P, DIVERGENCE, {}, log_probabilities
    ),
    Loss(jxent.generalized_kl_divergence, (shares,), DIVERGENCE, {}, log_probabilities),
)


# Public names that are no loss with a row above, and why.
NO_ROW = {
    name: reason
    for reason, names in {
        "a class": "LinearLogits LossSums Plan SoftmaxStatistics SparseLabels",
        "makes labels": "next_token_labels smooth_labels two_hot_labels",
        "makes weights": "class_weights_of_counts sequence_weights",
        "of losses or of weights": "reduce total_weight",
        "of a caller's function": "map_over_tiles sum_over_tiles",
        "of a function of logits": "plan with_statistics",
        "fits parameters": "fit_temperature fit_vector_scaling",
        "of pairs of vectors: tests/test_contrastive.py": """
            contrastive_cross_entropy ntxent sigmoid_contrastive_loss
            supervised_contrastive_cross_entropy""",
        "of several ids: tests/test_several_ids.py": """
            softmax_log_prob_among softmax_log_prob_at softmax_top_k""",
        "of a loss with a row: tests/test_sums.py": "softmax_cross_entropy_sums",
        "of a loss with a row: tests/test_statistics.py": "softmax_statistics",
        "Optax's names of softmax_cross_entropy": """
            safe_softmax_cross_entropy softmax_cross_entropy_with_integer_labels""",
    }.items()
    for name in names.split()
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A loss with one kind of labels, bare or with its options on, in a layout."""

    loss: Loss
    labels: Callable[..., Any] | None
    options: dict[str, Any]
    layout: str
    # Whole blocks, because a loop and a rest are twice as much to compile.
    head: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"block_sizes": (2, 4)}
    )

    def __str__(self) -> str:
        parts = [
            self.loss.name,
            self.of_head and self.layout,
            self.labels and self.labels.__name__,
            self.options and "options",
        ]
        return "-".join(part for part in parts if part)

    @property
    def axes(self) -> tuple[Any, ...]:
        """What a draw of few cases is made by: see `rationing`."""
        return self.loss, self.labels, bool(self.options), self.layout

    @property
    def of_head(self) -> bool:
        return self.layout != "in memory"

    def takes(self, option: str) -> bool:
        return option in self.loss.takes - taken_away(self.loss, self.layout)

    @property
    def parameters(self) -> tuple[np.ndarray, ...]:
        """The kernels and biases of the heads, which have no rows: the last inputs."""
        if not self.of_head:
            return ()
        if self.labels is target_head:
            return TARGET_KERNEL, BIAS
        return KERNEL, BIAS, *([TARGET_KERNEL] if self.labels is target else [])

    def inputs(self, rng, rows=(4,), axis=-1) -> tuple[np.ndarray, ...]:
        """float64 inputs: logits or hidden states, labels if any, parameters."""
        front = axis % (len(rows) + 1)
        shape = (*rows[:front], CLASSES, *rows[front:])
        made = [self.loss.x(rng, shape, front)]
        if self.labels is not None:
            labels = self.labels(rng, shape, front)
            made += labels if isinstance(labels, tuple) else [labels]
        return *map(np.asarray, made), *(x.copy() for x in self.parameters)

    def apart(self, inputs) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The inputs that have rows, and the heads' parameters, which have none."""
        count = len(inputs) - len(self.parameters)
        return tuple(inputs[:count]), tuple(inputs[count:])

    def select(self, inputs, index) -> tuple[Any, ...]:
        """The inputs of some rows alone."""
        rows, parameters = self.apart(inputs)
        return *(x[index] for x in rows), *parameters

    def in_axes(self, inputs) -> tuple[int | None, ...]:
        """What `jax.vmap` over rows maps: all but the heads' parameters."""
        rows, parameters = self.apart(inputs)
        return (0,) * len(rows) + (None,) * len(parameters)

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

    def logits(self, inputs, head: Any):
        """Logits and labels; what is a product is `head` of its factors."""
        (x, *labels), parameters = self.apart(inputs)
        if self.labels is target_head:
            return x, [head(*labels, *parameters)]
        if self.labels is target and self.of_head:
            *parameters, kernel = parameters
            labels = [head(*labels, kernel)]
        return head(x, *parameters) if self.of_head else x, labels

    def __call__(self, *inputs, **options):
        head = functools.partial(
            jxent.LinearLogits, implementation=self.layout, **self.head
        )
        x, labels = self.logits(inputs, head)
        if self.labels in (places, positives):
            labels = [jxent.SparseLabels(*labels)]
        return self.loss.function(x, *labels, **self._given(options))

    def oracle(self, *inputs, axis=-1, **options):
        x, labels = self.logits(inputs, product)
        if self.labels is positives:
            labels = (*labels, np.ones(labels[0].shape))
        if self.labels in (places, positives):
            labels = (dense(*labels, classes=np.shape(x)[axis], axis=axis),)
        options |= {"axis": axis} if self.takes("axis") else {}
        return self.loss.oracle(x, *labels, **self._given(options))


def product(*factors):
    hidden, kernel, *bias = (np.asarray(x, np.float64) for x in factors)
    return sum(bias, hidden @ kernel)


def cases_of(loss: Loss, layout: str) -> list[Case]:
    """Of each kind of labels, bare and with the options on."""
    away = taken_away(loss, layout)
    on = {name: x for name, x in loss.options.items() if name not in away}
    kinds = [labels for labels in loss.labels if labels not in away]
    calls = [{}, on] if on else [{}]
    return [Case(loss, labels, call, layout) for labels in kinds for call in calls]


TABLE = tuple(c for loss in LOSSES for of in loss.layouts for c in cases_of(loss, of))


def call_of(loss: Loss, *, of_head: bool = False) -> dict[str, Any]:
    """The arguments of a bare call of the public function, by their names."""
    case = next(
        c
        for c in TABLE
        if c.loss is loss and c.of_head == of_head
        if c.labels not in (target_array, target_head)
    )
    x, labels = case.logits(case.inputs(np.random.default_rng(0)), jxent.LinearLogits)
    names = inspect.signature(loss.public).parameters
    given = dict(zip(names, (x, *labels), strict=False))
    return given | getattr(loss.function, "keywords", {})


def bare(cases):
    return tuple(c for c in cases if not c.options)


def richest(cases):
    return tuple(c for c in cases if c.options or not c.loss.options)


def one_of_each(cases, *axes):
    """The last case of each combination of these axes."""
    key = operator.attrgetter(*axes)
    return tuple({key(c): c for c in cases}.values())


def every_kind(cases):
    """One a loss, and one for each kind of labels of losses that take the same."""
    of_labels = one_of_each(cases, "labels", "loss.takes")
    return tuple(dict.fromkeys((*one_of_each(cases, "loss"), *of_labels)))


IN_MEMORY = tuple(c for c in TABLE if not c.of_head)
BARE = bare(IN_MEMORY)
# Loops over tiles and over blocks, and a smaller one after each.
RAGGED = tuple(dataclasses.replace(c, head={"block_sizes": (4, 3)}) for c in TABLE)
# With derivatives in the labels where these are floating.
SMOOTHEST = one_of_each(richest(TABLE), "loss", "layout")
# Every loss in memory, and each layout with what differs in its statistics: for the
# tests of which a formula is no part. Materialized logits are as those in memory.
EACH_LOSS = tuple(c for c in SMOOTHEST if not c.of_head)
STATISTICS_OF = (
    "softmax_cross_entropy",
    "softmax_kl_divergence",
    "sigmoid_binary_cross_entropy_of_rows",
    "zlpr_loss",
)
EVERY_LAYOUT = EACH_LOSS + tuple(
    c
    for c in SMOOTHEST
    if c.of_head
    and c.loss.name in STATISTICS_OF[: 1 if c.layout == "materialized" else None]
)
# Those with a program of their own, on whose results the properties are assertions:
# all kinds of labels without options, all losses and statistics with them.
CASES = tuple(
    dict.fromkeys(
        (
            *BARE,
            *EVERY_LAYOUT,
            *(c for c in IN_MEMORY if c.labels is ids),
            *(
                c
                for c in TABLE
                if c.labels is ids and c.loss is LOSSES[0] and c.options
            ),
        )
    )
)
# Those with another program, for a mask of the logits' rank.
OF_CLASSES = tuple(
    c for c in CASES if c in EVERY_LAYOUT or (c.labels is ids and not c.of_head)
)
