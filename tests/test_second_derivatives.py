"""Second derivatives around rows that count for nothing, and where sums overflow.

A row that `where`, `ignore_index` or a weight of 0 drops may hold NaN and infinities:
no derivative of any order sees them. A weight of 0 is a factor like any other where its
row is finite: the gradient's derivative in that weight is the row's own gradient.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests.cases import (
    CLASSES,
    IN_MEMORY,
    SEVERAL_LABELS,
    SMOOTHEST,
    WEIGHTS,
    every_kind,
    ids,
    richest,
)
from tests.comparing import close
from tests.compiling import as_users_jit
from tests.heads import MATERIALIZED, STREAMED, TILED, over
from tests.programs import floats


pytestmark = pytest.mark.each_platform

GARBAGE = np.resize([np.nan, np.inf, -np.inf, 3e38, -0.5], CLASSES)
KEPT = np.array([0, 4, 5])  # the others are dropped, each in its own way
ROWS, FEATURES = 6, 3
WHERE = np.arange(ROWS) != 1
FACTORS = np.array([1.5, 1.0, 0.0, 1.0, 0.5, 1.25])
# Of rows, those that are dropped have one that is none.
TEMPERATURES = np.array([1.5, 0.0, np.nan, -1.0, 0.75, 2.0])

LAYOUTS = [x._replace(block_sizes=(2, 4)) for x in (MATERIALIZED, STREAMED, TILED)]
layouts = over(*LAYOUTS)


def sum_of(gradient, f):
    """A function of the gradient, for the derivatives of the next order."""
    return lambda x: sum(jnp.sum(f(y)) for y in jax.tree.leaves(gradient(x)))


def orders(f, forward_first=False):
    """The gradient's own derivatives, in reverse and in forward mode."""

    @jax.jit
    def of(x, *given):
        total = lambda x: f(x, *given)
        gradient = jax.grad(total)
        ones = jax.tree.map(jnp.ones_like, x)
        along = lambda x: jax.jvp(total, (x,), (ones,))[1]
        both = {
            "reverse over reverse": jax.grad(sum_of(gradient, jnp.square))(x),
            "forward over reverse": jax.jvp(gradient, (x,), (ones,))[1],
        }
        return both | (
            {"reverse over forward": jax.grad(along)(x)} if forward_first else {}
        )

    return lambda *x: jax.device_get(of(*x))


def compare(few, garbage, kept, names=("x",)):
    """What has rows is that of the kept rows alone, and 0 in the dropped ones."""
    for order, expected in few.items():
        for name in names:
            got = garbage[order][name]
            np.testing.assert_allclose(
                got[kept], expected[name], rtol=1e-9, atol=1e-12, err_msg=order
            )
            assert not np.any(np.delete(got, kept, 0)), (order, got)


CASES = [
    c
    for c in IN_MEMORY
    if c in every_kind(richest(IN_MEMORY))
    or not (c.takes("logits") and c.takes("mask"))
]


@pytest.mark.parametrize(
    ("case", "by_class"),
    [(c, False) for c in CASES]
    # Of several labels a row, a row may be left without any class.
    + [(c, True) for c in CASES if c.loss.takes == SEVERAL_LABELS],
    ids=str,
)
def test_a_dropped_row_that_holds_anything(case, by_class, rng, x64):
    """In its labels and in its temperature too."""
    clean = case.inputs(rng, (ROWS,))
    rows = case.rows(clean)
    by_row = lambda x: np.broadcast_to(x.reshape(-1, *(1,) * (len(rows) - 1)), rows)
    options: dict[str, Any] = {"where": by_row(WHERE)}
    options |= {"weights": by_row(FACTORS)} if case.takes("rows") else {}
    if by_class:
        options["where"] = np.repeat(WHERE[:, None], CLASSES, 1)
    kept = WHERE & ((FACTORS != 0) | (not case.takes("rows")))
    ignored = {}
    if case.takes("ignore_index") and case.labels is ids:
        ignored, kept = {"ignore_index": -100}, kept & (np.arange(ROWS) != 3)
    moving = {"x": clean[0]}
    if "temperature" in case.options:
        moving["temperature"] = np.where(kept, TEMPERATURES, 1.0)

    def total(moving, labels, options):
        x, rest = moving["x"], {k: y for k, y in moving.items() if k != "x"}
        return jnp.sum(case(x, *labels, **options, **rest, **ignored))

    of_softmax = case.takes("logits") and case.takes("mask")
    derivatives = orders(total, forward_first=not of_softmax)
    none_dropped = {
        k: np.where(v == 0, 1, v).astype(v.dtype) for k, v in options.items()
    }
    wanted = derivatives(moving, clean[1:], none_dropped)
    x, *labels = (y.copy() for y in clean)
    for y in (x, *labels):
        if y.dtype.kind == "f":
            y[~kept] = np.resize(GARBAGE, y[~kept].shape)
    if ignored:
        labels[0][3] = -100
    moving = moving | {"x": x}
    if "temperature" in moving:
        moving["temperature"] = np.where(kept, moving["temperature"], TEMPERATURES)
    got = derivatives(moving, tuple(labels), options)
    of_kept = jax.tree.map(lambda y: y[kept], wanted)
    compare(of_kept, got, np.flatnonzero(kept), moving)


def heads(rng):
    hidden = rng.normal(size=(ROWS, FEATURES))
    kernel = rng.normal(size=(FEATURES, CLASSES))
    return {"hidden": hidden, "kernel": kernel, "bias": rng.normal(size=CLASSES)}


HEAD_OPTIONS = {
    "label_smoothing": 0.1,
    "z_loss": 0.1,
    "class_weights": WEIGHTS,
    "logit_soft_cap": 4.0,
}


@over(*LAYOUTS, *(x._replace(block_sizes=None) for x in (STREAMED, TILED)))
@pytest.mark.parametrize("kind", ["ids", "distributions"])
def test_a_dropped_row_of_a_head(layout, kind, rng, x64):
    """In one block and in several."""
    head, labels = heads(rng), rng.integers(0, CLASSES, ROWS)
    rows: dict[str, Any] = {"where": WHERE, "weights": FACTORS}
    if kind == "ids":
        np.put(labels, 3, -100)
        rows["ignore_index"] = -100
    else:
        labels = rng.uniform(size=(ROWS, CLASSES))
        rows["where"] = WHERE & (np.arange(ROWS) != 3)

    def mean(logits, labels, temperature, **rows):
        return jxent.softmax_cross_entropy(
            logits,
            labels,
            reduction="mean",
            temperature=temperature,
            **HEAD_OPTIONS,
            **rows,
        )

    def of_all(x):
        head = {k: x[k] for k in ("hidden", "kernel", "bias")}
        return mean(layout.head(**head), labels, x["temperature"], **rows)

    def of_kept(x):
        z = x["hidden"] @ x["kernel"] + x["bias"][None]
        return mean(z, labels[KEPT], x["temperature"], weights=FACTORS[KEPT])

    x = head | {"temperature": TEMPERATURES}
    of_rows = "hidden", "temperature"
    few = orders(of_kept)(x | {name: x[name][KEPT] for name in of_rows})
    x["hidden"][np.delete(np.arange(ROWS), KEPT)] = GARBAGE[:FEATURES]
    all_rows = orders(of_all)(x)
    compare(few, all_rows, KEPT, of_rows)
    for order, expected in few.items():
        for name in ("kernel", "bias"):
            close(all_rows[order][name], expected[name], 1e-9)


def test_the_temperature_of_a_dropped_row_of_a_brier_score(rng, x64):
    z, y = rng.normal(size=(ROWS, CLASSES)), rng.integers(0, CLASSES, ROWS)

    def score(x, z, y, where, weights):
        options = {"temperature": x["x"], "where": where, "weights": weights}
        return jxent.metrics.brier_score(z, y, **options)

    derivatives, bad = orders(score), {"x": TEMPERATURES}
    every = np.isin(np.arange(ROWS), KEPT)
    few = derivatives(
        {"x": TEMPERATURES[KEPT]}, z[KEPT], y[KEPT], KEPT >= 0, KEPT + 1.0
    )
    weights = np.arange(ROWS) + 1.0
    for where, w in ((every, weights), (every | True, every * weights)):
        compare(few, derivatives(bad, z, y, where, w), KEPT)


@over(*LAYOUTS[:2])
def test_a_dropped_row_of_the_heads_statistics(layout, rng, x64):
    head, labels = heads(rng), rng.integers(0, CLASSES, ROWS)
    kept = np.flatnonzero(WHERE)
    del head["bias"]

    def results(head, labels, **where):
        logits = layout.head(**head)
        at_labels = jxent.softmax_log_prob(logits, labels, **where)
        return jnp.sum(at_labels) + jnp.sum(jxent.softmax_entropy(logits, **where))

    few = orders(lambda h: results(h, labels[kept]))(
        head | {"hidden": head["hidden"][kept]}
    )
    head["hidden"][1] = GARBAGE[:FEATURES]
    all_rows = orders(lambda h: results(h, labels, where=WHERE))(head)
    compare(few, all_rows, kept, ["hidden"])


def test_a_dropped_row_of_the_facades(rng, x64):
    torch, keras = jxent.torch, jxent.keras
    sparse = keras.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    losses = (
        torch.cross_entropy,
        functools.partial(torch.cross_entropy, label_smoothing=0.1),
        torch.CrossEntropyLoss(),
        lambda z, y: sparse(y, z),
    )
    z, y = rng.normal(size=(3, CLASSES)), np.array([1, -100, 4])
    kept = np.array([0, 2])

    def each(y):  # the gradient of each is in an array of its own
        return orders(lambda z: sum(f(z[str(i)], y) for i, f in enumerate(losses)))

    names = [str(i) for i in range(len(losses))]
    few = each(y[kept])(dict.fromkeys(names, z[kept]))
    z[1] = GARBAGE
    compare(few, each(y)(dict.fromkeys(names, z)), kept, names)


def test_a_dropped_row_that_a_logarithm_made_nan():
    """The smallest program that met it: log(x @ w), where row 1 has no logarithm."""
    x = np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32)
    labels = np.array([0, -100])

    def loss(w, rows=slice(None)):
        return jxent.softmax_cross_entropy(
            jnp.log(x[rows] @ w), labels[rows], ignore_index=-100, reduction="mean"
        )

    alone = functools.partial(loss, rows=slice(1))
    both = jax.jit(lambda w: [jax.jacrev(jax.jacrev(f))(w) for f in (loss, alone)])
    w = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    np.testing.assert_allclose(*both(w), rtol=1e-5, atol=1e-7)


# A weight is a factor -----------------------------------------------------------------


def mixed(loss):
    """∂²/∂weights∂x of a sum of losses, in reverse and in forward mode."""

    @jax.jit
    def both(x, w):
        of_weights = lambda w: jax.grad(lambda x: jnp.sum(loss(x, w)))(x)
        return jax.jacrev(of_weights)(w), jax.jacfwd(of_weights)(w)

    return lambda *x: jax.device_get(both(*x))


@pytest.mark.parametrize("case", [c for c in SMOOTHEST if c.takes("rows")], ids=str)
def test_the_gradients_derivative_in_a_weight_of_0(case, rng, x64):
    """In every input, a head's parameters too, where a tile has nothing else."""
    inputs = case.inputs(rng, (4,))
    values, all_of = floats(inputs)
    some, ones = (np.ones(case.rows(inputs)) for _ in range(2))
    some[:2] = 0.0
    # The sum is linear in the weights: its derivative in them is the same everywhere.
    derivatives = mixed(lambda x, w: case(*all_of(*x), weights=w))
    truth, _ = derivatives(values, ones)
    assert np.any(truth[0])
    for got in derivatives(values, some):
        close(got, truth, 1e-9)


@pytest.mark.keep("streamed")
@layouts
def test_the_mean_of_a_heads_losses_has_a_derivative_in_a_weight_of_0(layout, rng, x64):
    head, labels = heads(rng), rng.integers(0, CLASSES, ROWS)
    weights = np.array([0.0, 1.0, 0.0, 0.0, 0.5, 2.0])  # a tile of nothing else

    def mean(z, w):
        return jxent.softmax_cross_entropy(z, labels, weights=w, reduction="mean")

    def plain(head, w):
        return mean(head["hidden"] @ head["kernel"] + head["bias"][None], w)

    truth, _ = mixed(plain)(head, weights)
    for got in mixed(lambda head, w: mean(layout.head(**head), w))(head, weights):
        close(got, truth, 1e-9)


def test_learning_to_reweight_starts_from_weights_of_0():
    """The validation loss's gradient in weights of 0, after one step of SGD."""
    z, y = np.array([[1, 2, 0], [0.5, 0, 1]], np.float32), np.array([0, 1])
    loss = functools.partial(jxent.softmax_cross_entropy, labels=y, reduction="sum")

    @jax.jit
    def run(z, w):
        after_a_step = lambda w: loss(z - 0.1 * jax.grad(loss)(z, weights=w))
        return jax.grad(after_a_step)(w), jax.grad(loss)(z)

    slopes, gradient = jax.device_get(run(z, np.zeros(2, np.float32)))
    np.testing.assert_allclose(slopes, -0.1 * np.sum(gradient**2, -1), rtol=1e-6)


def test_a_weight_of_0_is_a_factor_in_reduce_and_the_facades(x64, rng):
    """∂²/∂weights∂x there is what it is beside it, whatever is differentiated first."""
    torch, keras, y = jxent.torch, jxent.keras, np.array([0, 1])
    sparse = keras.SparseCategoricalCrossentropy(
        True, reduction="mean_with_sample_weight"
    )
    losses = {
        "reduce": lambda z, w: jxent.reduce(z, weights=w, reduction="sum"),
        "reduce mean": lambda z, w: jxent.reduce(z, weights=w),
        "torch": lambda z, w: torch.binary_cross_entropy_with_logits(z, z > 0, w),
        "torch p": lambda z, w: torch.binary_cross_entropy(jax.nn.sigmoid(z), z > 0, w),
        "torch classes": lambda z, w: torch.nll_loss(z, y, w[:, 0]),
        "keras": lambda z, w: keras.BinaryCrossentropy(True)(z > 0, z, w[:, 0]),
        "keras sparse": lambda z, w: sparse(y, z, w[:, 0]),
    }

    @jax.jit
    def run(z, w):
        def mixed(loss):
            of_z, of_w = jax.grad(loss), jax.grad(loss, 1)
            other = jnp.moveaxis(jax.jacrev(of_w)(z, w), (0, 1), (2, 3))
            return jax.jacrev(of_z, 1)(z, w), jax.jacfwd(of_z, 1)(z, w), other

        return {name: mixed(loss) for name, loss in losses.items()}

    z = rng.normal(size=(2, 2))
    at_0, beside = (jax.device_get(run(z, np.array([[w], [1]]))) for w in (0.0, 1e-9))
    for name, of_losses in at_0.items():
        for a, b in zip(of_losses, beside[name], strict=True):
            assert np.any(a[0]), name
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8, err_msg=name)


def test_what_cannot_be_computed_has_no_derivative_in_its_weight():
    """A weight of 0 on NaN, or on a label that is none; a true loss elsewhere."""
    z = np.array([np.nan, 1, 1, -np.inf], np.float32)
    y = np.array([1, 3, 1, 0], np.float32)
    losses = (
        (jxent.sigmoid_binary_cross_entropy, z),
        (jxent.sigmoid_focal_loss, z),
        (jxent.asymmetric_loss, z),
        (jxent.binary_cross_entropy, 1 / (1 + np.exp(-z))),
    )

    def of_one(loss, x, w):
        slopes = jax.grad(lambda w: jnp.sum(loss(x, y, weights=w)))(w)
        return slopes, loss(x[2:3], y[2:3])

    each = as_users_jit(lambda w: [of_one(loss, x, w) for loss, x in losses])
    for slopes, (wanted,) in jax.device_get(each(np.zeros(4, np.float32))):
        assert not np.any(slopes[[0, 1, 3]])
        np.testing.assert_allclose(slopes[2], wanted, rtol=1e-6)


# Sums over classes that overflow ------------------------------------------------------

LARGE = {
    "3e38, 3 classes": np.full(3, 3e38),
    "1e38, 4 classes": np.full(4, 1e38),
    "-1e35, 32,000 classes": np.full(32_000, -1e35),
    "the lowest, 10 classes": np.full(10, np.finfo(np.float32).min),
    "a peak": np.array([3e38, 0.0, 0.0, 0.0, 0.0]),
    "both signs": np.array([1.5e38, -1.5e38, 1e38, -1e38, 0.0]),
}


def smoothed(z, label, smoothing):
    """Smoothed cross-entropy in float64."""
    z = z.astype(np.float64)
    rel = z - z.max()
    losses = np.log(np.exp(rel).sum()) - rel
    return (1 - smoothing) * losses[label] + smoothing * np.mean(losses)


IN_HEADS = {f"head, {x.implementation}": x for x in LAYOUTS}


@pytest.mark.parametrize("name", ["losses in memory", *IN_HEADS])
def test_smoothing_does_not_overflow_where_the_loss_is_finite(name):
    losses = [jxent.softmax_cross_entropy]
    if name not in IN_HEADS:
        losses += [
            functools.partial(jxent.softmax_focal_loss, gamma=0.0),
            functools.partial(jxent.poly_loss_cross_entropy, epsilon=0.0),
        ]

    def logits(z):
        if name not in IN_HEADS:
            return z[None]
        layout = IN_HEADS[name]
        if z.size > 100 and layout.implementation != "materialized":
            layout = layout._replace(block_sizes=(2, 8_000))
        return layout.head(jnp.ones((1, 1)), z[None])

    @as_users_jit
    def run(each, smoothing):
        def one(z):
            options = {"label_smoothing": smoothing, "reduction": "sum"}
            f = lambda z: [f(logits(z), np.array([0]), **options) for f in losses]
            return f(z), jax.jacrev(f)(z)

        return {name: one(z) for name, z in each.items()}

    each = {name: z.astype(np.float32) for name, z in LARGE.items()}
    for which, (values, gradients) in jax.device_get(run(each, 0.1)).items():
        z = LARGE[which].astype(np.float32)
        # A processor that adds few numbers at a time rounds a sum of 32,000 so far.
        rtol = 2e-5 if z.size > 100 and name not in IN_HEADS else 1e-5
        wanted = np.full(len(losses), smoothed(z, 0, 0.1))
        np.testing.assert_allclose(values, wanted, rtol=rtol, err_msg=which)
        assert np.all(np.isfinite(gradients)), which


@layouts
def test_a_row_of_weight_0_far_from_0_has_an_exact_derivative_in_its_weight(layout):
    """Its loss and its share of smoothing are not formed the quick way that cancels."""
    z = np.array([[1e6, 1e6 + 1, 1e6 + 3], [0.5, 0.0, 1.0]], np.float32)

    def loss(weights, smoothing):
        return jxent.softmax_cross_entropy(
            layout.head(jnp.eye(2), z),
            np.array([0, 1]),
            weights=weights,
            reduction="sum",
            label_smoothing=smoothing,
        )

    both = lambda w, s: (jax.grad(loss)(w, s), jax.jacfwd(jax.grad(loss, 1))(w, s))
    got = as_users_jit(both)(np.array([0.0, 1.0], np.float32), 0.1)
    of = lambda s: np.array([smoothed(z[0], 0, s), smoothed(z[1], 1, s)])
    close(got, (of(0.1), of(1.0) - of(0.0)), 1e-5)
