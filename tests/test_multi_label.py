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
from tests.cases import LAYOUTS, dense
from tests.comparing import close, untyped, weighed, weighed_rows
from tests.compiling import as_users_jit
from tests.heads import of_layout
from tests.meshes import KINDS, on_mesh


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


def value_and_gradients(f, *arrays):
    """Of a function whose results count by weights of their own."""
    both = jax.value_and_grad(lambda *x: weighed(f(*x)), range(len(arrays)))
    return jax.device_get(as_users_jit(both)(*arrays))


# Lists of positives -------------------------------------------------------------------


@in_each_layout
def test_lists_of_positives_are_the_labels(layout, rng, x64):
    """Padded; rows without positives, and without negatives, are among them.

    A bad id makes its row NaN and no other, in memory or streamed; its gradient too.
    """
    logits = of_layout(layout, (2, 4))
    of_sum = {"reduction": "sum"} if layout == "tiled" else {}

    @as_users_jit
    def run(hidden, kernel, ids):
        def both(hidden, kernel, loss, listed, options):
            labels = jxent.SparseLabels(ids) if listed else LABELS
            ignored = {"ignore_index": -1} if listed else {}
            losses = loss(logits(hidden, kernel), labels, **options, **ignored)
            return weighed_rows(losses), losses

        each = jax.grad(both, (0, 1), has_aux=True)
        return [
            [
                each(hidden, kernel, loss, listed, own | of_sum)
                for listed in (True, False)
            ]
            for loss, own in OPTIONS.items()
        ]

    hidden, kernel = operands(rng)
    for got, wanted in jax.device_get(run(hidden, kernel, POSITIVES)):
        close(got, wanted)
    is_bad = np.arange(ROWS) == 1
    for bad in (CLASSES, -2, 2**31 - 1):
        ids = POSITIVES.copy()
        ids[1, 3] = bad
        for ((gradient, _), losses), _ in jax.device_get(run(hidden, kernel, ids)):
            wanted = True if layout == "tiled" else is_bad
            np.testing.assert_array_equal(np.isnan(losses), wanted)
            of_rows = np.broadcast_to(is_bad[:, None], gradient.shape)
            np.testing.assert_array_equal(np.isnan(gradient), of_rows)


def test_padding_may_hold_any_value(rng, x64):
    hidden, kernel = operands(rng)
    values = np.where(POSITIVES < 0, np.nan, 1.0)
    wanted = weighed(BINARY(hidden @ kernel, LABELS))
    for layout in ("in memory", "streamed"):
        logits = of_layout(layout, (2, 4))
        f = lambda h, v, logits=logits: BINARY(
            logits(h, kernel), jxent.SparseLabels(POSITIVES, v), ignore_index=-1
        )
        value, (in_hidden, in_values) = value_and_gradients(f, hidden, values)
        close(value, wanted)
        assert np.all(np.isfinite(in_hidden))
        assert not np.any(in_values[POSITIVES < 0])


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
    twice, often = (jxent.SparseLabels(np.full((ROWS, n), 5)) for n in (2, 300))
    wanted = 2.0 * (np.arange(CLASSES) == 5) * np.ones((ROWS, 1))

    @jax.jit
    def run(logits):
        pairs = (twice, wanted), (often, 150 * wanted)
        return [[BINARY(logits, y) for y in ys] for ys in pairs], jxent.zlpr_loss(
            logits, twice
        )

    pairs, zlpr = jax.device_get(run(logits))
    for got, truth in pairs:
        close(got, truth)
    assert np.all(np.isnan(zlpr))


# What the formulas are ----------------------------------------------------------------


def test_rows_are_sums_of_elements(rng, x64):
    """Over any axis of an array; the loss of every element without one."""
    z, y = rng.normal(size=(2, CLASSES, 3)), rng.integers(0, 2, (2, CLASSES, 3))

    @jax.jit
    def run(z, y):
        found = []
        for loss in (BINARY, FOCAL, ASYMMETRIC):
            own = {k: x for k, x in OPTIONS[loss].items() if k != "pos_weight"}
            rows = [loss(z, y, axis=a, **own) for a in (1, -2, (0, 1), None)]
            found.append((loss.func(z, y, **own), rows))
        return found

    for elements, got in jax.device_get(run(z, y)):
        close(got, [elements.sum(axis) for axis in (1, 1, (0, 1), None)])


def test_limits_are_binary_cross_entropy(rng, x64):
    z = rng.normal(size=(ROWS, 1))
    off: dict[str, Any] = {"gamma_pos": 0.0, "gamma_neg": 0.0, "clip": 0.0}

    @jax.jit
    def run(hidden, kernel, z):
        logits, one = LinearLogits(hidden, kernel), LABELS[:, :1]
        head = LinearLogits(z, np.ones((1, 1)))
        limits = FOCAL(logits, LABELS, gamma=0.0), ASYMMETRIC(logits, LABELS, **off)
        of_one = jxent.zlpr_loss(z, one), BINARY(z, one), BINARY(head, one)
        binary = jxent.sigmoid_binary_cross_entropy(z, one)[:, 0]
        return (limits, BINARY(logits, LABELS)), (of_one, binary)

    for several, wanted in jax.device_get(run(*operands(rng), z)):
        for got in several:
            close(got, wanted)


def test_small_losses_keep_their_digits():
    """Logits of ±30, right in every class, in float32."""
    z = np.where(LABELS, 30.0, -30.0) + np.linspace(-1, 1, CLASSES)
    z, eye = z.astype(np.float32), np.eye(CLASSES, dtype=np.float32)
    wrong = np.exp(-np.abs(z.astype(np.float64))).sum(-1)

    @jax.jit
    def run(z):
        both = z, of_layout("streamed", (2, 4))(z, eye)
        return [f(x, LABELS) for f in (BINARY, jxent.zlpr_loss) for x in both]

    for losses in run(z):
        np.testing.assert_allclose(losses, wrong, rtol=1e-6)


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
    both = jax.jit(
        jax.grad(lambda z: (jnp.sum(x := jxent.zlpr_loss(z, y)), x), has_aux=True)
    )
    gradient, losses = both(z)
    wanted = [np.log1p(np.exp(-1)), np.nan, np.log1p(np.exp(1)), np.nan]
    close(losses, np.array(wanted), 1e-6)
    np.testing.assert_array_equal(np.isfinite(gradient).all(1), [1, 0, 1, 0])


def test_labels_that_are_no_targets_are_nan(rng):
    logits = LinearLogits(*operands(rng))
    loss = jax.jit(lambda y: jxent.zlpr_loss(logits, y))
    for bad in (np.nan, 1.5, -0.5):
        y = LABELS.astype(np.float32)
        y[1, 2] = bad
        np.testing.assert_array_equal(np.isnan(loss(y)), np.arange(ROWS) == 1)


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
