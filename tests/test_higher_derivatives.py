"""Second derivatives around rows that count for nothing.

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
from tests.cases import CLASSES, IN_MEMORY, SMOOTHEST, WEIGHTS, every_kind, richest
from tests.compiling import as_users_jit
from tests.heads import MATERIALIZED, STREAMED, TILED, over


pytestmark = pytest.mark.each_platform

GARBAGE = np.resize([np.nan, np.inf, -np.inf, 3e38, 1.0], CLASSES)
KEPT = np.array([0, 4, 5])  # the others are dropped, each in its own way
ROWS, FEATURES = 6, 3
WHERE = np.arange(ROWS) != 1
FACTORS = np.array([1.5, 1.0, 0.0, 1.0, 0.5, 1.25])

LAYOUTS = [x._replace(block_sizes=(2, 4)) for x in (MATERIALIZED, STREAMED, TILED)]
softmax = pytest.mark.parametrize(
    "case",
    [
        c
        for c in every_kind(richest(IN_MEMORY))
        if c.takes("logits") and c.takes("mask")
    ],
    ids=str,
)
layouts = over(*LAYOUTS)


def squares(gradient):
    """A function of the gradient, for the derivatives of the next order."""
    return lambda x: sum(jnp.sum(y**2) for y in jax.tree.leaves(gradient(x)))


def higher_derivatives(f):
    """The gradient's own derivatives, reverse over reverse and forward over reverse."""

    @jax.jit
    def of(x, *given):
        gradient = jax.grad(lambda x: f(x, *given))
        ones = jax.tree.map(jnp.ones_like, x)
        return {
            "reverse over reverse": jax.grad(squares(gradient))(x),
            "forward over reverse": jax.jvp(gradient, (x,), (ones,))[1],
        }

    return of


def dropping(case):
    """The options that drop rows 1 to 3, as far as the loss takes them."""
    options: dict[str, Any] = {"where": WHERE}
    dropped = [1]
    if case.takes("rows"):
        options["weights"] = FACTORS
        dropped.append(2)
    if case.takes("ignore_index") and case.labels.__name__ == "ids":
        options["ignore_index"] = -100
        dropped.append(3)
    return options, dropped


def compare(few, garbage, kept, dropped, names=("x",)):
    """What has rows is that of the kept rows alone, and 0 in the dropped ones."""
    for order, expected in few.items():
        for name in names:
            got = np.asarray(garbage[order][name])
            np.testing.assert_allclose(
                got[kept], expected[name], rtol=1e-9, atol=1e-12, err_msg=order
            )
            assert not np.any(got[dropped]), (order, got)


@softmax
def test_a_dropped_row_that_holds_anything(case, rng, x64):
    options, dropped = dropping(case)
    x, *labels = map(np.asarray, case.inputs(rng, (ROWS,)))
    kept = np.setdiff1d(np.arange(ROWS), dropped)
    ignored = {k: options.pop(k) for k in {"ignore_index"} & {*options}}
    derivatives = higher_derivatives(
        lambda x, labels, options: jnp.sum(case(x["x"], *labels, **options, **ignored))
    )
    none_dropped = {
        k: np.where(v == 0, 1, v).astype(v.dtype) for k, v in options.items()
    }
    of_all = derivatives({"x": x}, labels, none_dropped)
    x, labels = x.copy(), [y.copy() for y in labels]
    x[dropped] = GARBAGE
    if ignored:
        labels[0][3] = -100
    of_kept = jax.tree.map(lambda y: y[kept], of_all)
    compare(of_kept, derivatives({"x": x}, labels, options), kept, dropped)


def heads(rng):
    hidden = rng.normal(size=(ROWS, FEATURES))
    kernel = rng.normal(size=(FEATURES, CLASSES))
    return {"hidden": hidden, "kernel": kernel, "bias": rng.normal(size=CLASSES)}


HEAD_OPTIONS = {
    "label_smoothing": 0.1,
    "z_loss": 0.1,
    "class_weights": WEIGHTS,
    "logit_soft_cap": 4.0,
    "temperature": 1.5,
}


@layouts
@pytest.mark.parametrize("kind", ["ids", "distributions"])
def test_a_dropped_row_of_a_head(layout, kind, rng, x64):
    head, labels = heads(rng), rng.integers(0, CLASSES, ROWS)
    rows: dict[str, Any] = {"where": WHERE, "weights": FACTORS}
    dropped = [1, 2, 3]
    if kind == "ids":
        np.put(labels, 3, -100)
        rows["ignore_index"] = -100
    else:
        labels = rng.uniform(size=(ROWS, CLASSES))
        rows["where"] = WHERE & (np.arange(ROWS) != 3)

    def loss(head):
        return jxent.softmax_cross_entropy(
            layout.head(**head), labels, reduction="mean", **HEAD_OPTIONS, **rows
        )

    def of_kept(head):
        z = head["hidden"] @ head["kernel"] + head["bias"][None]
        options = HEAD_OPTIONS | {"weights": FACTORS[KEPT], "reduction": "mean"}
        return jxent.softmax_cross_entropy(z, labels[KEPT], **options)

    few = higher_derivatives(of_kept)(head | {"hidden": head["hidden"][KEPT]})
    head["hidden"][dropped] = GARBAGE[:FEATURES]
    all_rows = higher_derivatives(loss)(head)
    compare(few, all_rows, KEPT, dropped, ["hidden"])
    for order, expected in few.items():
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(
                all_rows[order][name], expected[name], rtol=1e-9, atol=1e-12
            )


@over(*LAYOUTS[:2])
@pytest.mark.parametrize("name", ["log_prob", "entropy"])
def test_a_dropped_row_of_the_heads_statistics(layout, name, rng, x64):
    head = heads(rng)
    labels = () if name == "entropy" else (rng.integers(0, CLASSES, ROWS),)
    function = getattr(jxent, f"softmax_{name}")

    def results(head, labels, **options):
        return jnp.sum(function(layout.head(**head), *labels, **options))

    kept = np.flatnonzero(WHERE)
    del head["bias"]
    few = higher_derivatives(lambda h: results(h, [y[kept] for y in labels]))(
        head | {"hidden": head["hidden"][kept]}
    )
    head["hidden"][1] = GARBAGE[:FEATURES]
    all_rows = higher_derivatives(lambda h: results(h, labels, where=WHERE))(head)
    compare(few, all_rows, kept, [1], ["hidden"])


FACADES = {
    "torch cross_entropy": lambda z, y: jxent.torch.cross_entropy(z, y),
    "torch smoothed": lambda z, y: jxent.torch.cross_entropy(z, y, label_smoothing=0.1),
    "torch CrossEntropyLoss": lambda z, y: jxent.torch.CrossEntropyLoss()(z, y),
    "keras sparse": lambda z, y: jxent.keras.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-100
    )(y, z),
}


@pytest.mark.parametrize("loss", FACADES.values(), ids=FACADES.keys())
def test_a_dropped_row_of_the_facades(loss, rng, x64):
    z, y = rng.normal(size=(3, CLASSES)), np.array([1, -100, 4])
    kept = np.array([0, 2])
    few = higher_derivatives(lambda z: loss(z["x"], y[kept]))({"x": z[kept]})
    z[1] = GARBAGE
    all_rows = higher_derivatives(lambda z: loss(z["x"], y))({"x": z})
    compare(few, all_rows, kept, [1])


def test_a_dropped_row_that_a_logarithm_made_nan():
    """The smallest program that met it: log(x @ w), where row 1 has no logarithm."""
    x = jnp.array([[1.0, 2.0], [-1.0, -2.0]])
    w = jnp.array([[1.0, 2.0], [3.0, 1.0]])
    labels = jnp.array([0, -100])

    def loss(w, rows=slice(None)):
        return jxent.softmax_cross_entropy(
            jnp.log(x[rows] @ w), labels[rows], ignore_index=-100, reduction="mean"
        )

    alone = functools.partial(loss, rows=slice(1))
    both = jax.jit(lambda w: [jax.jacrev(jax.jacrev(f))(w) for f in (loss, alone)])
    np.testing.assert_allclose(*both(w), rtol=1e-5, atol=1e-7)


# A weight is a factor -----------------------------------------------------------------


def mixed(loss, x):
    """∂²/∂weights∂x of the sum of the losses, in reverse and in forward mode."""

    def of_weights(w):
        return jax.grad(lambda x: jnp.sum(loss(x, w)))(x)

    @jax.jit
    def both(w):
        return jax.jacrev(of_weights)(w), jax.jacfwd(of_weights)(w)

    return both


@pytest.mark.parametrize("case", [c for c in SMOOTHEST if c.takes("rows")], ids=str)
def test_the_gradients_derivative_in_a_weight_of_0(case, rng, x64):
    x, *labels = case.inputs(rng, (2,))
    rows = case.rows((x, *labels))
    some = np.ones(rows)
    some[0] = 0.0

    def loss(x, weights):
        return case(x, *labels, weights=weights)

    # The sum is linear in the weights: its derivative in them is the same everywhere.
    derivatives = mixed(loss, x)
    truth, _ = derivatives(np.ones(rows))
    assert np.any(truth[0])
    for got in derivatives(some):
        np.testing.assert_allclose(got, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.keep("streamed")
@layouts
def test_the_heads_gradient_has_a_derivative_in_a_weight_of_0(layout, rng, x64):
    reduction = "mean"
    head, labels = heads(rng), rng.integers(0, CLASSES, ROWS)
    weights = np.array([0.0, 1.0, 0.0, 0.0, 0.5, 2.0])  # a tile of nothing else

    def loss(z, w):
        return jxent.softmax_cross_entropy(z, labels, weights=w, reduction=reduction)

    def fused(head, w):
        return loss(layout.head(**head), w)

    def plain(head, w):
        return loss(head["hidden"] @ head["kernel"] + head["bias"][None], w)

    truth, _ = mixed(plain, head)(weights)
    for got in mixed(fused, head)(weights):
        for name, expected in truth.items():
            np.testing.assert_allclose(got[name], expected, rtol=1e-9, atol=1e-12)


def test_learning_to_reweight_starts_from_weights_of_0():
    """The validation loss's gradient in weights of 0, after one step of SGD."""
    z, y = jnp.array([[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]]), jnp.array([0, 1])

    def after_a_step(w):
        loss = functools.partial(jxent.softmax_cross_entropy, labels=y)
        step = jax.grad(lambda z: jnp.sum(loss(z, weights=w)))(z)
        return jnp.sum(loss(z - 0.1 * step))

    slopes = jax.grad(after_a_step)(jnp.zeros(2))
    squares = jnp.sum(
        jax.grad(lambda z: jnp.sum(jxent.softmax_cross_entropy(z, y)))(z) ** 2, -1
    )
    np.testing.assert_allclose(slopes, -0.1 * squares, rtol=1e-6)


# Sums over classes that overflow ------------------------------------------------------

LARGE = {
    "3e38, 3 classes": np.full(3, 3e38),
    "1e38, 4 classes": np.full(4, 1e38),
    "-1e35, 32,000 classes": np.full(32_000, -1e35),
    "the lowest, 10 classes": np.full(10, np.finfo(np.float32).min),
    "a peak": np.array([3e38, 0.0, 0.0, 0.0, 0.0]),
    "both signs": np.array([1.5e38, -1.5e38, 1e38, -1e38, 0.0]),
}
large = pytest.mark.parametrize("z", LARGE.values(), ids=LARGE.keys())


def smoothed(z, label, smoothing):
    """Smoothed cross-entropy in float64."""
    z = z.astype(np.float64)
    rel = z - z.max()
    losses = np.log(np.exp(rel).sum()) - rel
    return (1 - smoothing) * losses[label] + smoothing * np.mean(losses)


@large
def test_smoothing_does_not_overflow_where_the_loss_is_finite(z):
    z = z.astype(np.float32)
    losses = (
        jxent.softmax_cross_entropy,
        functools.partial(jxent.softmax_focal_loss, gamma=0.0),
        functools.partial(jxent.poly_loss_cross_entropy, epsilon=0.0),
    )

    @as_users_jit
    def values_and_gradients(z, smoothing):
        def values(z):
            options = {"label_smoothing": smoothing, "reduction": "sum"}
            return [f(z[None], jnp.array([0]), **options) for f in losses]

        return values(z), jax.jacrev(values)(z)

    values, gradients = values_and_gradients(z, 0.1)
    # A processor that adds few numbers at a time rounds a sum of 32,000 so far.
    rtol = 2e-5 if z.size > 100 else 1e-5
    np.testing.assert_allclose(values, 3 * [smoothed(z, 0, 0.1)], rtol=rtol)
    assert np.all(np.isfinite(gradients))


@large
@layouts
def test_smoothing_of_a_head_does_not_overflow(z, layout):
    z = z.astype(np.float32)
    if z.size > 100 and layout.implementation != "materialized":
        layout = layout._replace(block_sizes=(2, 8_000))

    def loss(kernel):
        logits, label = layout.head(jnp.ones((1, 1)), kernel), jnp.array([0])
        options = {"label_smoothing": 0.1, "reduction": "sum"}
        return jxent.softmax_cross_entropy(logits, label, **options)

    value, gradient = as_users_jit(jax.value_and_grad(loss))(z[None])
    np.testing.assert_allclose(value, smoothed(z, 0, 0.1), rtol=1e-5)
    assert np.all(np.isfinite(gradient))


@layouts
def test_a_row_of_weight_0_far_from_0_has_an_exact_derivative_in_its_weight(layout):
    """Its loss and its share of smoothing are not formed the quick way that cancels."""
    z = np.array([[1e6, 1e6 + 1, 1e6 + 3], [0.5, 0.0, 1.0]], np.float32)

    def loss(weights, smoothing):
        return jxent.softmax_cross_entropy(
            layout.head(jnp.eye(2), z),
            jnp.array([0, 1]),
            weights=weights,
            reduction="sum",
            label_smoothing=smoothing,
        )

    weights = jnp.array([0.0, 1.0])
    of_weights, both = as_users_jit(
        lambda w, s: (jax.grad(loss)(w, s), jax.jacfwd(jax.grad(loss, 1))(w, s))
    )(weights, 0.1)
    truth = [smoothed(row, y, 0.1) for row, y in zip(z, [0, 1], strict=True)]
    even = [
        smoothed(row, y, 1.0) - smoothed(row, y, 0.0)
        for row, y in zip(z, [0, 1], strict=True)
    ]
    np.testing.assert_allclose(of_weights, truth, rtol=1e-5)
    np.testing.assert_allclose(both, even, rtol=1e-5)
