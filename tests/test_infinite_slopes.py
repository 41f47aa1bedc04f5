"""Derivatives of losses of probabilities and of binary labels where these run out.

A logarithm's slope at p = 0, a ratio's at a confident logit, a row that is dropped
whatever it holds: derivatives in every mode and to the second order are those of the
formula, or a huge number where the formula's are infinite. None is NaN.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.cases import CLASSES, IN_MEMORY
from tests.compiling import as_users_jit


pytestmark = pytest.mark.each_platform

HUGE = 1e18  # float32's huge number is 1.8e19
partial = functools.partial


def orders(f, x, direction=None):
    """Value, gradient and second derivatives, each in reverse and in forward mode."""
    total = lambda x: jnp.sum(f(x))
    gradient = jax.grad(total)
    if direction is None:
        direction = jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)
    along = lambda x, dx=direction: jax.jvp(total, (x,), (dx,))[1]
    basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    sines = lambda x: jnp.sum(jnp.sin(gradient(x).astype(total(x).dtype)))
    return {
        "value": f(x),
        "reverse": gradient(x),
        "forward": jax.vmap(partial(along, x))(basis).reshape(x.shape),
        "reverse over reverse": jax.grad(sines)(x),
        "forward over reverse": jax.jvp(gradient, (x,), (direction,))[1],
        "reverse over forward": jax.grad(along)(x),
    }


def same(got, wanted, rtol=1e-5, atol=1e-6, message=""):
    for order, x in wanted.items():
        text = f"{order} {message}"
        assert not np.any(np.isnan(x)), text
        a, b = (np.asarray(y, np.float64) for y in (got[order], x))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=text)


# Class ids and one-hot labels at p = 0 ------------------------------------------------

PROBS = np.array(
    [[0, 0.5, 0.5], [0.25, 0.75, 0], [1, 0, 0], [0, 0, 1], [0.25, 0.25, 0.5]]
)
IDS = np.array([0, 1, 0, 1, 2])
ONE_HOT = np.eye(3, dtype=np.float32)[IDS]
W = np.array([0.5, 2.0, 0.0], np.float32)
DROPS: dict[str, Any] = {"where": np.array([True, True, True, False, True])}
OPTIONS = {
    "plain": {},
    "class weights": {"class_weights": W},
    "smoothing": {"label_smoothing": np.float32(0.1)},
    "class weights and smoothing": {
        "class_weights": W,
        "label_smoothing": np.float32(0.1),
    },
    "smoothing of 1": {"label_smoothing": np.float32(1)},
    "class mask": {"class_mask": np.array([True, True, False])},
    "weights": {"weights": np.array([1.5, 0, 2, 0, 1], np.float32)},
    "where": DROPS,
    "where, smoothing": DROPS | {"label_smoothing": np.float32(0.1)},
}


# What changes nothing: one program takes all options as arrays.
NEUTRAL = {
    "class_weights": np.ones(3, np.float32),
    "label_smoothing": np.float32(0),
    "class_mask": np.ones(3, bool),
    "weights": np.ones(5, np.float32),
    "where": np.ones(5, bool),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_ids_and_one_hot_labels_agree_where_p_is_0(dtype):
    """In every derivative; the label's slope is huge, those of the others are 0."""
    p, rtol = jnp.asarray(PROBS, dtype), 1e-5 if dtype == jnp.float32 else 2e-2

    @as_users_jit
    def both(options, ids, one_hot):
        loss = partial(jxent.categorical_cross_entropy, **options)
        of = lambda labels: orders(lambda p: loss(p, labels), p)
        return of(ids), of(one_hot)

    for name, options in OPTIONS.items():
        ids = np.minimum(IDS, 1) if "class_mask" in options else IDS
        given = NEUTRAL | options if options else {}
        given = jax.tree.map(np.asarray, given)
        of_ids, of_one_hot = both(given, ids, np.eye(3, dtype=np.float32)[ids])
        same(of_ids, of_one_hot, rtol, message=name)
        forward = {"forward": of_ids["forward"]}
        same(forward, {"forward": of_ids["reverse"]}, rtol, message=name)
        if not options:
            value, slope = (
                np.asarray(of_ids[k], np.float32) for k in ("value", "reverse")
            )
            assert value[0] == value[3] == np.inf
            assert slope[0, 0] < -HUGE
            assert np.all(slope[ONE_HOT == 0] == 0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_ignored_rows_and_reductions_where_p_is_0(reduction):
    """As one-hot labels with a where."""
    labels = jnp.where(DROPS["where"], IDS, -100)

    @as_users_jit
    def both(p):
        loss = partial(jxent.categorical_cross_entropy, reduction=reduction)
        one = lambda p: loss(p, labels, ignore_index=-100)
        return orders(one, p), orders(lambda p: loss(p, ONE_HOT, **DROPS), p)

    same(*both(jnp.asarray(PROBS, jnp.float32)))


def test_a_softmax_that_underflows_before_the_loss():
    """What is huge meets what is 0 in the softmax: a gradient of 0, not NaN."""
    z = jnp.array([[-200.0, 0.0, 1.0]])

    @as_users_jit
    def both(z):
        loss = lambda y, z: jxent.categorical_cross_entropy(jax.nn.softmax(z), y)
        kinds = jnp.array([0]), jnp.array([[1.0, 0.0, 0.0]])
        return [orders(partial(loss, labels), z) for labels in kinds]

    for got in both(z):
        assert got["value"] == np.inf
        for order in ("reverse", "forward"):
            assert np.all(np.isfinite(got[order]))


@pytest.mark.parametrize("from_logits", [False, True])
def test_kerass_ids_and_one_hot_labels_agree_where_p_is_0(from_logits):
    """Which normalizes and has a floor; the logits are these probabilities'."""
    x = jnp.asarray(PROBS, jnp.float32)
    x = jnp.log(x + 1e-3) if from_logits else x

    @as_users_jit
    def both(x):
        sparse = jxent.keras.sparse_categorical_crossentropy
        dense = jxent.keras.categorical_crossentropy
        return (
            orders(lambda x: sparse(IDS, x, from_logits), x),
            orders(lambda x: dense(ONE_HOT, x, from_logits), x),
        )

    same(*both(x))


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0, 1.5, 2.0])
def test_the_generalized_loss_where_p_is_0(q):
    """Every derivative, in q as well, is a number; other classes have a slope of 0."""
    x = np.array([[0, 1], [0.25, 0.75]], np.float32)
    y = np.array([0, 1])

    def loss(x, q):
        return jxent.keras.categorical_generalized_cross_entropy(y, x, q)

    @as_users_jit
    def derivatives(x, q):
        total = lambda x, q: jnp.sum(loss(x, q))
        return (
            orders(lambda x: loss(x, q), x),
            jax.jacrev(jax.grad(total, (0, 1)), (0, 1))(x, q),
            jax.jacfwd(jax.grad(total, (0, 1)), (0, 1))(x, q),
        )

    of_x, reverse, forward = jax.tree.map(np.asarray, derivatives(x, q))
    same({"forward": of_x["forward"]}, {"forward": of_x["reverse"]})
    assert np.all(of_x["reverse"][:, 1 - y][[0, 1], [0, 1]] == 0)
    for a, b in zip(*map(jax.tree.leaves, (reverse, forward)), strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_allclose(a, b, rtol=1e-5)


ENDS = {
    "binary": jxent.binary_cross_entropy,
    "torch": partial(jxent.torch.binary_cross_entropy, reduction="none"),
    "keras": lambda p, y: jxent.keras.binary_crossentropy(y[:, None], p[:, None]),
    "keras focal": lambda p, y: jxent.keras.binary_focal_crossentropy(
        y[:, None], p[:, None]
    ),
}


@pytest.mark.parametrize("loss", ENDS.values(), ids=ENDS.keys())
def test_probabilities_of_0_and_1(loss):
    """Labels that they contradict, and labels that they confirm."""
    p, y = jnp.array([0.0, 0.0, 1.0, 1.0, 0.25]), jnp.array([0.0, 1.0, 0.0, 1.0, 0.5])
    got = as_users_jit(partial(orders, lambda p: loss(p, y)))(p)
    assert not any(np.any(np.isnan(x)) for x in got.values())
    confirmed, contradicted = got["value"][jnp.array([[0, 3], [1, 2]])]
    assert np.all(np.abs(confirmed) < 1e-6)  # Keras's floor of 1e-7 is a float32's
    assert np.all(contradicted > 10)
    np.testing.assert_allclose(got["forward"], got["reverse"], rtol=1e-6)


def test_entropy_where_p_is_0():
    got = as_users_jit(partial(orders, jxent.entropy))(jnp.asarray(PROBS, jnp.float32))
    assert not any(np.any(np.isnan(x)) for x in got.values())
    np.testing.assert_allclose(got["value"], oracles.entropy(PROBS), rtol=1e-6)
    np.testing.assert_allclose(got["forward"], got["reverse"], rtol=1e-6)
    np.testing.assert_allclose(
        got["reverse"][PROBS > 0], -1 - np.log(PROBS[PROBS > 0]), rtol=1e-6, atol=1e-6
    )
    assert np.all(got["reverse"][PROBS == 0] > HUGE)


# Confident logits ---------------------------------------------------------------------

LOGITS = np.array([-np.inf, -1e30, -1e4, -100, 0.5, 100, 1e4, 1e30, np.inf], np.float32)
BINARY = {
    "binary": partial(jxent.sigmoid_binary_cross_entropy),
    "balanced": partial(jxent.sigmoid_binary_cross_entropy, pos_weight=2.0),
    "focal 0": partial(jxent.sigmoid_focal_loss, gamma=0.0),
    "focal 1.5": partial(jxent.sigmoid_focal_loss, gamma=1.5, alpha=0.25),
    "focal 2": partial(jxent.sigmoid_focal_loss),
    "asymmetric": partial(jxent.asymmetric_loss, gamma_pos=1.0),
    "asymmetric 0.5": partial(jxent.asymmetric_loss, gamma_pos=0.5, gamma_neg=0.5),
}
# The core takes one of those that differ by a number: see `rationing`.
for name, loss in BINARY.items():
    vars(loss)["kind"] = name.split()[0]


@pytest.mark.parametrize("loss", BINARY.values(), ids=BINARY.keys())
def test_no_derivative_of_a_confident_logit_is_nan(loss):
    """In logits and labels, to the second order, whatever is differentiated first."""

    @as_users_jit
    @partial(jax.vmap, in_axes=(None, 0))
    @partial(jax.vmap, in_axes=(0, None))
    def all_of(z, y):
        gradient = jax.grad(loss, (0, 1))
        along = lambda z, y: jax.jvp(loss, (z, y), (0.5, 0.25))[1]
        return (
            gradient(z, y),
            jax.jacrev(gradient, (0, 1))(z, y),
            jax.jvp(gradient, (z, y), (0.5, 0.25)),
            jax.grad(along, (0, 1))(z, y),
        )

    for x in jax.tree.leaves(all_of(LOGITS, jnp.array([0.0, 0.25, 1.0]))):
        assert not np.any(np.isnan(x))


@pytest.mark.parametrize("loss", BINARY.values(), ids=BINARY.keys())
def test_a_hard_label_has_the_derivatives_of_one_that_is_nearly_hard(loss, x64):
    """Slopes in the label, too: nothing is special about 0 and 1."""
    z = jnp.array([-3.0, -0.5, 0.0, 2.0])

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def all_of(z, y):
        gradient = jax.grad(loss, (0, 1))
        second = jax.jacrev(gradient, (0, 1))
        return gradient(z, y), second(z, y), jax.jacfwd(second, (0, 1))(z, y)

    for hard, nearly in ((0.0, 1e-9), (1.0, 1 - 1e-9)):
        for a, b in zip(
            *(jax.tree.leaves(all_of(z, y)) for y in (hard, nearly)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# Dropped rows -------------------------------------------------------------------------

GARBAGE = np.resize([np.nan, np.inf, -np.inf, 3e38, -0.5], CLASSES)
CASES = [c for c in IN_MEMORY if not (c.takes("logits") and c.takes("mask"))]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_derivative_sees_a_dropped_row(case, x64, rng):
    """Which holds anything, in its labels too; the others' are those of all rows."""
    clean = case.inputs(rng)
    inputs = tuple(x.copy() for x in clean)
    ndim = len(case.rows(inputs))
    options = {"where": np.array([True, False, True, True])}
    dropped = [1]
    if case.takes("rows"):
        options["weights"] = np.array([1.5, 1.0, 0.0, 0.5])
        dropped.append(2)
    options = {k: v.reshape(-1, *(1,) * (ndim - 1)) for k, v in options.items()}
    kept = np.setdiff1d(np.arange(4), dropped)
    for x in inputs:
        if x.dtype.kind == "f":
            x[dropped] = np.resize(GARBAGE, x[dropped].shape)

    direction = rng.normal(size=inputs[0].shape)

    @jax.jit
    def derivatives(options, x, *labels):
        return orders(lambda x: case(x, *labels, **options), x, direction)

    none_dropped = {
        k: np.where(v == 0, 1, v).astype(v.dtype) for k, v in options.items()
    }
    wanted = derivatives(none_dropped, *clean)
    for order, x in derivatives(options, *inputs).items():
        assert np.all(x[np.array(dropped)] == 0), order
        np.testing.assert_allclose(x[kept], wanted[order][kept], 1e-9, 1e-12)


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
    for slopes, (wanted,) in jax.tree.map(np.asarray, each(np.zeros(4, np.float32))):
        assert np.all(slopes[[0, 1, 3]] == 0)
        np.testing.assert_allclose(slopes[2], wanted, rtol=1e-6)


WEIGHED = {
    "reduce": lambda z, w: jxent.reduce(z, weights=w, reduction="sum"),
    "reduce mean": lambda z, w: jxent.reduce(z, weights=w),
    "torch": lambda z, w: jxent.torch.binary_cross_entropy_with_logits(z, z > 0, w),
    "torch p": lambda z, w: jxent.torch.binary_cross_entropy(
        jax.nn.sigmoid(z), z > 0, w
    ),
    "torch classes": lambda z, w: jxent.torch.nll_loss(z, jnp.array([0, 1]), w[:, 0]),
    "keras": lambda z, w: jxent.keras.BinaryCrossentropy(True)(z > 0, z, w[:, 0]),
    "keras sparse": lambda z, w: jxent.keras.SparseCategoricalCrossentropy(
        True, reduction="mean_with_sample_weight"
    )(jnp.array([0, 1]), z, w[:, 0]),
}


@pytest.mark.parametrize("loss", WEIGHED.values(), ids=WEIGHED.keys())
def test_a_weight_of_0_is_a_factor_like_any_other(loss, x64, rng):
    """∂²/∂weights∂x there is what it is beside it, whatever is differentiated first."""
    z = jnp.asarray(rng.normal(size=(2, 2)))

    @jax.jit
    def mixed(w):
        of_z, of_w = jax.grad(loss), jax.grad(loss, 1)
        other = jax.jacrev(of_w)(z, w)
        return (
            jax.jacrev(of_z, 1)(z, w),
            jax.jacfwd(of_z, 1)(z, w),
            jnp.moveaxis(other, (0, 1), (2, 3)),
        )

    for a, b in zip(
        *(mixed(jnp.array([[w], [1.0]])) for w in (0.0, 1e-9)), strict=True
    ):
        assert np.any(a[0])
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
