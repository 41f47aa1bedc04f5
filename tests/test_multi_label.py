"""Several labels a row: binary losses of rows, lists of positives, ZLPR."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from jxent import LinearLogits
from tests import oracles
from tests.cases import dense
from tests.comparing import close, untyped, weighed
from tests.compiling import as_users_jit
from tests.heads import of_layout
from tests.meshes import (
    KINDS,
    NAMES as AXES,
    on_mesh,
)


ROWS, FEATURES, CLASSES = 4, 3, 8
BINARY = functools.partial(jxent.sigmoid_binary_cross_entropy, axis=-1)
FOCAL = functools.partial(jxent.sigmoid_focal_loss, axis=-1)
ASYMMETRIC = functools.partial(jxent.asymmetric_loss, axis=-1)
# Each loss with an option of its own.
OPTIONS: dict[Any, dict[str, Any]] = {
    BINARY: {"pos_weight": np.linspace(0.5, 2, CLASSES)},
    FOCAL: {"gamma": 1.5, "alpha": 0.3},
    ASYMMETRIC: {"gamma_pos": 0.5, "gamma_neg": 2.0, "clip": 0.1},
    jxent.zlpr_loss: {},
}
NAMES = "binary", "focal", "asymmetric", "ZLPR"
LAYOUTS = ("in memory", "materialized", "streamed", "tiled")
of_each_loss = pytest.mark.parametrize("loss", OPTIONS, ids=NAMES)
in_each_layout = pytest.mark.parametrize("layout", LAYOUTS)
# The positives of each row, all of them and none among these; −1 is padding.
POSITIVES = np.array(
    [[0, 3, -1, -1, -1, -1, -1, -1], [7, 2, 1, -1, -1, -1, -1, -1]]
    + [[-1] * CLASSES, [*range(CLASSES)]],
    np.int32,
)
LABELS = dense(POSITIVES, np.ones(POSITIVES.shape), CLASSES).astype(bool)


def operands(rng):
    return rng.normal(size=(ROWS, FEATURES)), rng.normal(size=(FEATURES, CLASSES))


def losses_or_sum(loss, layout, **options):
    """Losses of rows, or their sum where the layout has no more."""
    options = ({"reduction": "sum"} if layout == "tiled" else {}) | options
    return functools.partial(loss, **options)


def value_and_gradients(f, *arrays):
    """Of a function whose results count by weights of their own."""
    both = jax.value_and_grad(lambda *x: weighed(f(*x)), range(len(arrays)))
    return as_users_jit(both)(*arrays)


# Lists of positives -------------------------------------------------------------------


@of_each_loss
@in_each_layout
def test_lists_of_positives_are_the_labels(loss, layout, rng, x64):
    """Padded; rows without positives, and without negatives, are among them."""
    logits = of_layout(layout, (2, 4))
    loss = losses_or_sum(loss, layout, **OPTIONS[loss])

    def listed(*head):
        labels = jxent.SparseLabels(jnp.asarray(POSITIVES))
        return loss(logits(*head), labels, ignore_index=-1)

    def whole(*head):
        return loss(logits(*head), LABELS)

    arrays = operands(rng)
    close(
        value_and_gradients(listed, *arrays), value_and_gradients(whole, *arrays), 1e-12
    )


@of_each_loss
@in_each_layout
def test_a_bad_id_makes_its_row_nan(loss, layout, rng, x64):
    """And no other, in memory or streamed; its gradient too."""
    hidden, kernel = operands(rng)
    logits = of_layout(layout, (2, 4))
    loss = losses_or_sum(loss, layout, ignore_index=-1)

    @jax.jit
    def run(hidden, ids):
        f = lambda h: loss(logits(h, kernel), jxent.SparseLabels(ids))
        return f(hidden), jax.grad(lambda h: jnp.sum(f(h)))(hidden)

    is_bad = np.arange(ROWS) == 1
    for bad in (CLASSES, -2, 2**31 - 1):
        ids = POSITIVES.copy()
        ids[1, 3] = bad
        losses, gradient = jax.device_get(run(hidden, ids))
        wanted = True if layout == "tiled" else is_bad
        np.testing.assert_array_equal(np.isnan(losses), wanted)
        of_rows = np.broadcast_to(is_bad[:, None], gradient.shape)
        np.testing.assert_array_equal(np.isnan(gradient), of_rows)


def test_padding_may_hold_any_value(rng, x64):
    hidden, kernel = operands(rng)
    values = np.where(POSITIVES < 0, np.nan, 1.0)
    for layout in ("in memory", "streamed"):
        logits = of_layout(layout, (2, 4))
        f = lambda h, v, logits=logits: BINARY(
            logits(h, kernel), jxent.SparseLabels(POSITIVES, v), ignore_index=-1
        )
        of_labels = lambda h, logits=logits: weighed(BINARY(logits(h, kernel), LABELS))
        got = value_and_gradients(f, hidden, values)
        close(got[0], jax.jit(of_labels)(hidden))
        assert np.all(np.isfinite(got[1][0]))
        assert not np.any(got[1][1][POSITIVES < 0])


def test_positives_of_masked_classes_are_dropped(rng, x64):
    hidden, kernel = operands(rng)
    real = np.arange(CLASSES) != 3
    options = {"ignore_index": -1, "class_mask": real}

    def both(loss, logits, hidden, kernel):
        of_all, of_real = logits(hidden, kernel), logits(hidden, kernel[:, real])
        got = loss(of_all, jxent.SparseLabels(POSITIVES), **options)
        return got, loss(of_real, LABELS[:, real])

    for logits in (jnp.matmul, LinearLogits):
        each = lambda *x, logits=logits: [both(loss, logits, *x) for loss in OPTIONS]
        for got, wanted in jax.jit(each)(hidden, kernel):
            close(got, wanted)


def test_equal_ids_add_up(rng, x64):
    """To a target of 2, which is no probability: NaN where its logarithm is taken."""
    logits = LinearLogits(*operands(rng))
    twice = jxent.SparseLabels(np.array([[5, 5]] * ROWS))
    wanted = 2.0 * (np.arange(CLASSES) == 5) * np.ones((ROWS, 1))
    close(BINARY(logits, twice), BINARY(logits, wanted))
    assert np.all(np.isnan(jxent.zlpr_loss(logits, twice)))
    often = jxent.SparseLabels(np.full((ROWS, 300), 5))
    close(BINARY(logits, often), BINARY(logits, 150 * wanted))


# What the formulas are ----------------------------------------------------------------


def test_rows_are_sums_of_elements(rng, x64):
    """Over any axis of an array; the loss of every element without one."""
    z, y = rng.normal(size=(2, CLASSES, 3)), rng.integers(0, 2, (2, CLASSES, 3))
    axes = 1, -2, (0, 1), None
    for loss in (BINARY, FOCAL, ASYMMETRIC):
        own = {k: x for k, x in OPTIONS[loss].items() if k != "pos_weight"}
        of = lambda *x, f=loss, own=own: [f(*x, axis=a, **own) for a in axes]
        one, same, two, every = jax.jit(of)(z, y)
        elements = loss.func(z, y, **own)
        for of_rows in (one, same):
            close(of_rows, elements.sum(1))
        close(two, elements.sum((0, 1)))
        close(every, elements.sum())


def test_limits_are_binary_cross_entropy(rng, x64):
    logits = LinearLogits(*operands(rng))
    wanted = BINARY(logits, LABELS)
    close(FOCAL(logits, LABELS, gamma=0.0), wanted)
    close(ASYMMETRIC(logits, LABELS, gamma_pos=0.0, gamma_neg=0.0, clip=0.0), wanted)
    z = rng.normal(size=(ROWS, 1))
    one = jxent.sigmoid_binary_cross_entropy(z, LABELS[:, :1])[:, 0]
    close(jxent.zlpr_loss(z, LABELS[:, :1]), one)
    close(BINARY(z, LABELS[:, :1]), one)
    close(BINARY(LinearLogits(z, np.ones((1, 1))), LABELS[:, :1]), one)


def test_the_mean_is_over_rows(rng, x64):
    """Weights of classes do not divide."""
    head = operands(rng)
    weights = {"class_weights": np.linspace(1, 3, CLASSES), "pos_weight": 2.0}
    wanted = np.mean(BINARY(jnp.matmul(*head), LABELS, **weights))
    for layout in LAYOUTS:
        logits = of_layout(layout, (2, 4))(*head)
        close(BINARY(logits, LABELS, reduction="mean", **weights), wanted)


def test_small_losses_keep_their_digits():
    """Logits of ±30, right in every class, in float32."""
    z = np.where(LABELS, 30.0, -30.0) + np.linspace(-1, 1, CLASSES)
    z, eye = z.astype(np.float32), np.eye(CLASSES, dtype=np.float32)
    wrong = np.exp(-np.abs(z.astype(np.float64))).sum(-1)
    for loss in (BINARY, jxent.zlpr_loss):
        for logits in (z, of_layout("streamed", (2, 4))(z, eye)):
            np.testing.assert_allclose(loss(logits, LABELS), wrong, rtol=1e-6)


@pytest.mark.parametrize("loss", [jxent.sigmoid_focal_loss, jxent.asymmetric_loss])
def test_on_a_gpu_value_and_derivative_are_two_passes(loss):
    """On a TPU they are one pass: XLA stores nothing between them there."""
    z, y = jnp.zeros((4, 3)), jnp.ones((4, 3))
    traced = jax.jit(jax.grad(lambda z: loss(z, y, reduction="mean"))).trace(z)
    for platform, apart in {"cuda": True, "rocm": True, "tpu": False}.items():
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        held = re.search(r"optimization_barrier .*: tensor<4x3xf32>", text)
        assert bool(held) is apart


def test_zlpr_at_infinite_logits():
    """−inf in a class whose label is no adds 0; one on the wrong side makes NaN."""
    z = np.array([[-np.inf, 1.0], [-np.inf, 1.0], [np.inf, 1.0], [np.inf, 1.0]])
    y = np.array([[0, 1], [1, 0], [1, 0], [0, 1]])
    losses = jxent.zlpr_loss(z, y)
    wanted = [np.log1p(np.exp(-1)), np.nan, np.log1p(np.exp(1)), np.nan]
    close(losses, np.array(wanted), 1e-6)
    gradient = jax.grad(lambda z: jnp.sum(jxent.zlpr_loss(z, y)))(z)
    np.testing.assert_array_equal(np.isfinite(gradient).all(1), [1, 0, 1, 0])


def test_labels_that_are_no_targets_are_nan(rng):
    logits = LinearLogits(*operands(rng))
    for bad in (np.nan, 1.5, -0.5):
        y = LABELS.astype(np.float32)
        y[1, 2] = bad
        losses = jxent.zlpr_loss(logits, y)
        np.testing.assert_array_equal(np.isnan(losses), np.arange(ROWS) == 1)


def test_extreme_logits_have_finite_derivatives(x64):
    """±1e4, of the first and second order, in float32."""
    z = np.array([[1e4, -1e4, 0.0, 1e4], [-1e4, -1e4, 1e4, 1.0]], np.float32)
    y = np.array([[1, 0, 1, 0], [1, 1, 0, 0]])

    def one(z, y):
        return jnp.sum(jxent.zlpr_loss(z, y))

    for order in (jax.grad, jax.hessian):
        assert np.all(np.isfinite(jax.jit(jax.vmap(order(one)))(z, y)))
    close(jxent.zlpr_loss(z, y), oracles.zlpr_loss(z, y), 1e-6)


# Over devices -------------------------------------------------------------------------


EVERY_OPTION = {
    "weights": (np.array([0.5, 2, 0, 0.25]), P("data")),
    "class_weights": (np.linspace(0.5, 2, CLASSES), P("model")),
    "class_mask": (np.arange(CLASSES) != 4, P("model")),
    "label_smoothing": (np.float64(0.1), P()),
    "logit_soft_cap": (np.float64(3), P()),
    "temperature": (np.array([0.5, 2, 1.5, 0.75]), P("data")),
}


@of_each_loss
@pytest.mark.parametrize(("layout", "sparse"), [("streamed", True), ("tiled", False)])
def test_split_over_devices_it_is_as_on_one(loss, layout, sparse, rng, x64):
    """Rows and classes over 2 × 2, with every option, which have derivatives too."""
    options = dict(EVERY_OPTION)
    if loss is jxent.zlpr_loss:
        del options["class_weights"]
    for name, value in OPTIONS[loss].items():
        spec = P("model") if np.ndim(value) else P()
        options[name] = np.asarray(value, np.float64), spec
    values, specs = ({k: x[i] for k, x in options.items()} for i in (0, 1))
    labels, split_of_labels = LABELS, P("data", "model")
    if sparse:
        labels = jxent.SparseLabels(POSITIVES, np.full(POSITIVES.shape, 0.9))
        split_of_labels = jax.tree.map(lambda _: P("data"), labels)
    logits = of_layout(layout, (1, 2))(*operands(rng), np.linspace(-1, 1, CLASSES))
    split = logits.replace(hidden=P("data"), kernel=P(None, "model"), bias=P("model"))
    ignored = {"ignore_index": -1} if sparse else {}

    def of_all(logits, labels, options, **names):
        return loss(logits, labels, reduction="mean", **ignored, **options, **names)

    arrays, in_specs = (logits, labels, values), (split, split_of_labels, specs)

    def results(on_devices, logits, labels, values):
        f = functools.partial(of_all, **AXES) if on_devices else of_all
        if on_devices:
            f = jax.shard_map(f, in_specs=in_specs, out_specs=P())
        moving = {k: x for k, x in values.items() if x.dtype == np.float64}
        total = lambda logits, moving: f(logits, labels, values | moving)
        return jax.value_and_grad(total, (0, 1))(logits, moving)

    got = on_mesh(functools.partial(results, True), arrays, in_specs)
    wanted = jax.jit(functools.partial(results, False))(*arrays)
    close(got, wanted, 1e-11)
    assert all(np.any(x) for x in jax.tree.leaves(wanted))


@pytest.mark.parametrize("loss", [BINARY, jxent.zlpr_loss], ids=["binary", "ZLPR"])
def test_explicit_axes_need_no_name(loss, rng, x64):
    """LinearLogits enter `shard_map` themselves; ids stay global."""
    logits, sparse = LinearLogits(*operands(rng)), jxent.SparseLabels(POSITIVES)
    mean = functools.partial(loss, ignore_index=-1, reduction="mean")
    split = logits.replace(hidden=P("data"), kernel=P(None, "model"))
    of_ids, how = jxent.SparseLabels(untyped(P("data"))), {"kind": KINDS[1]}
    arrays = logits, sparse
    close(on_mesh(mean, arrays, (split, of_ids), **how), jax.jit(mean)(*arrays))
    z = logits.materialize()
    wanted = loss(z, LABELS, reduction="mean")
    specs = P("data", "model"), of_ids
    close(on_mesh(mean, (z, sparse), specs, **how), wanted)
