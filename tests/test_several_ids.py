"""Several class ids a row: log-probabilities at them, the likeliest, `SparseLabels`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from tests import oracles
from tests.cases import LAYOUTS, LOSSES, SOFTMAX
from tests.comparing import close, same_bits, weighed
from tests.heads import of_layout
from tests.meshes import KINDS, NAMES, on_mesh


pytestmark = pytest.mark.each_platform

ROWS, FEATURES, CLASSES, K = 6, 3, 8, 3
REAL = np.arange(CLASSES) != CLASSES - 1
in_each_layout = pytest.mark.parametrize("layout", LAYOUTS[:-1])


def head(rng, rows=ROWS, classes=CLASSES):
    return rng.normal(size=(rows, FEATURES)), rng.normal(size=(FEATURES, classes))


def some_ids(rng, rows=ROWS, classes=CLASSES):
    return rng.integers(0, classes - 1, (rows, K)).astype(np.int32)


def log_softmax(hidden, kernel, real=REAL, temperature=1.0):
    z = jnp.where(real[None], hidden @ kernel / temperature, -jnp.inf)
    return jax.nn.log_softmax(z)


def agree(got, wanted, *head):
    """Two functions: values, gradients and tangents, and the second order."""

    def results(f):
        slopes = jax.grad(lambda *x: weighed(f(*x)), (0, 1))
        twice = jax.grad(lambda *x: weighed(slopes(*x)), (0, 1))
        return lambda *x: ((f(*x), slopes(*x), jax.jvp(f, x, x)[1]), twice(*x))

    both = jax.jit(lambda *head: [results(f)(*head) for f in (got, wanted)])
    (found, found_twice), (true, true_twice) = both(*head)
    close(found, true)
    close(found_twice, true_twice, 1e-11)


# Log-probabilities at ids -------------------------------------------------------------


@in_each_layout
def test_log_prob_at_is_log_softmax_at_the_ids(layout, rng, x64):
    """With its derivatives; padding and dropped rows are 0."""
    hidden, kernel = head(rng)
    ids, where = some_ids(rng), np.arange(ROWS) != 2
    ids[0, 1] = -1
    logits = of_layout(layout, (3, 4))
    options = {"class_mask": REAL, "temperature": 1.5, "ignore_index": -1}

    def at_ids(*head):
        return jxent.softmax_log_prob_at(logits(*head), ids, where=where, **options)

    def wanted(hidden, kernel):
        log_probs = log_softmax(hidden, kernel, temperature=1.5)
        found = jnp.take_along_axis(log_probs, np.maximum(ids, 0), -1)
        return jnp.where(where[:, None] & (ids >= 0), found, 0)

    agree(at_ids, wanted, hidden, kernel)


def test_the_places_stand_where_the_classes_stood(rng, x64):
    logits, ids = rng.normal(size=(2, 5, 3)), rng.integers(0, 5, (2, K, 3))
    log_probs = oracles.log_softmax(logits.swapaxes(1, 2))
    of_last = np.take_along_axis(log_probs, ids.swapaxes(1, 2), -1)

    @jax.jit
    def run(logits, ids):
        last, ids_last = logits.swapaxes(1, 2), ids.swapaxes(1, 2)
        flat, ids_flat = last.reshape(6, 5, 1), ids_last.reshape(6, K)
        return (
            jxent.softmax_log_prob_at(logits, ids, axis=1),
            jax.vmap(jxent.softmax_log_prob_at)(last, ids_last),
            jxent.softmax_log_prob_at(flat, ids_flat, axis=(1, 2)),
        )

    wanted = of_last.swapaxes(1, 2)
    close(run(logits, ids), (wanted, of_last, of_last.reshape(6, K)))


@in_each_layout
def test_an_id_that_names_no_class(layout, rng, x64):
    """NaN in its place, and in the gradient of its row."""
    hidden, kernel = head(rng)
    logits = of_layout(layout, (4, 3))

    @jax.jit
    def run(ids):
        f = lambda h: jxent.softmax_log_prob_at(logits(h, kernel), ids, class_mask=REAL)
        log_probs, pull = jax.vjp(f, hidden)
        return log_probs, *pull(jnp.ones_like(log_probs))

    for bad in (-1, CLASSES, 10**6, CLASSES - 1):  # the last one is masked
        ids = some_ids(rng)
        ids[1, 2] = bad
        log_probs, slope = jax.device_get(run(ids))
        np.testing.assert_array_equal(np.argwhere(np.isnan(log_probs)), [[1, 2]])
        np.testing.assert_array_equal(np.isnan(slope).all(1), np.arange(ROWS) == 1)
        assert np.isnan(slope).sum() == FEATURES


# One id among several ----------------------------------------------------------------


KEPT = np.array([[0, 1, 2], [3, 3, -1], [5, 0, 4], [6, 7, 2], [-1, -1, -1], [1, 2, 7]])
OWN = np.array([1, 0, 4, 6, 3, -1])  # -1: a row that is dropped
# Without equal ids, padding and the masked class; each row's own stands first.
CANDIDATES = ((1, 0, 2), (0, 3), (4, 0, 5), (6, 2), (3,))


@in_each_layout
def test_log_prob_among_is_the_log_softmax_of_the_candidates(layout, rng, x64):
    """With its derivatives: each class once, the row's own listed or not."""
    hidden, kernel = head(rng)
    logits, where = of_layout(layout, (4, 3)), np.arange(ROWS) != 2
    options = {"class_mask": REAL, "temperature": 1.5, "where": where}

    def among(hidden, kernel):
        x = logits(hidden, kernel)
        return jxent.softmax_log_prob_among(x, OWN, KEPT, **options)

    def wanted(hidden, kernel):
        z = hidden @ kernel / 1.5
        rows = [
            jax.nn.log_softmax(z[i][np.array(c)])[0] for i, c in enumerate(CANDIDATES)
        ]
        return jnp.where(where, jnp.stack([*rows, jnp.zeros(())]), 0)

    agree(among, wanted, hidden, kernel)


@in_each_layout
def test_what_spoils_a_log_prob_among(layout, rng):
    """An id that names no class, of the row or among the kept; NaN that is dropped does
    not. Of two candidates an impossible one is −∞ or adds nothing."""
    hidden, kernel = (np.float32(x) for x in head(rng))
    bias = np.where(np.arange(CLASSES) == 4, -np.inf, 0).astype(np.float32)
    own = np.array([9, 0, 4, 7, 0, -1])  # row 2 on the impossible class
    kept = np.array([[0, 1], [3, 99], [5, 4], [6, 2], [0, 4], [1, 2]])

    def values(hidden):
        x = jxent.LinearLogits(hidden, kernel, bias, block_sizes=(4, 3))
        if layout == "in memory":
            x = hidden @ kernel + bias[None]
        else:
            x = x.replace(implementation=layout)
        return jxent.softmax_log_prob_among(x, own, kept, class_mask=REAL)

    @jax.jit
    def run(hidden):
        found, pull = jax.vjp(values, hidden)
        return found, *pull(jnp.ones_like(found))

    got, gradient = jax.device_get(run(hidden))
    np.testing.assert_array_equal(np.isnan(got), [1, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(got[[2, 4, 5]], [-np.inf, 0, 0])
    np.testing.assert_array_equal(np.isnan(gradient).all(1), [1, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(gradient[4:], 0)
    assert np.isfinite(gradient[2]).all()


def test_log_prob_among_takes_the_classes_at_any_axis(rng, x64):
    logits, own = rng.normal(size=(2, CLASSES, 3)), rng.integers(0, CLASSES, (2, 3))
    kept = rng.integers(0, CLASSES, (2, K, 3)).astype(np.uint8)
    call = functools.partial(jxent.softmax_log_prob_among, ignore_index=None)

    @jax.jit
    def run(logits, kept):
        last, kept_last = logits.swapaxes(1, 2), kept.swapaxes(1, 2)
        along_axis = call(logits, own, kept, axis=1)
        return (
            call(last, own, kept_last),
            along_axis,
            jax.vmap(call)(last, own, kept_last),
        )

    wanted, along_axis, mapped = run(logits, kept)
    close((along_axis, mapped), (wanted, wanted))


# The likeliest classes ----------------------------------------------------------------


@in_each_layout
def test_top_k_is_that_of_log_softmax(layout, rng, x64):
    """Of equals the smaller id, masked classes last, in the likeliest order."""
    hidden, kernel = head(rng)
    kernel[:, 5] = kernel[:, 1] = kernel[:, 2]
    where = np.arange(ROWS) != 4
    find = functools.partial(jxent.softmax_top_k, class_mask=REAL, where=where)

    @jax.jit
    def run(*head):
        logits, of_all = of_layout(layout, (4, 3))(*head), log_softmax(*head)
        each = 1, K, CLASSES
        return [(find(logits, k), jax.lax.top_k(of_all, k)) for k in each]

    for (log_probs, ids), (wanted, true_ids) in jax.device_get(run(hidden, kernel)):
        assert ids.dtype == jnp.int32
        close(log_probs[where], wanted[where])
        np.testing.assert_array_equal(ids[where], true_ids[where])
        assert not np.any(log_probs[4])
        assert not np.any(ids[4])


@in_each_layout
def test_the_derivatives_of_top_k(layout, rng, x64):
    """Those of the log-probabilities at the ids that are found."""
    hidden, kernel = head(rng)
    logits = of_layout(layout, (4, 3))
    ids = np.argsort(-(hidden @ kernel), -1, kind="stable")[:, :K]
    at = lambda h, k: jxent.softmax_log_prob_at(h @ k, ids)
    found = lambda h, k: jxent.softmax_top_k(logits(h, k), K)[0]

    def derivatives(function, *head):
        slope = jax.grad(lambda h, k: weighed(function(h, k)), (0, 1))
        return slope(*head), jax.jvp(slope, head, head)[1]

    run = jax.jit(lambda *head: [derivatives(f, *head) for f in (found, at)])
    close(*run(hidden, kernel), tolerance=1e-11)


def test_top_k_along_any_axis(rng, x64):
    """Of an array, with the places where its classes stood; of all of its axes."""
    logits = rng.normal(size=(2, CLASSES, 3))

    @jax.jit
    def run(logits):
        some = [jxent.softmax_top_k(logits, K, axis=axis) for axis in (1, -2, None)]
        last = logits.swapaxes(1, 2), logits.reshape(-1)
        return some, [jax.lax.top_k(jax.nn.log_softmax(x), K) for x in last]

    (first, second, of_all), (wanted, true_of_all) = run(logits)
    for got in (first, second):
        close(tuple(x.swapaxes(1, 2) for x in jax.device_get(got)), tuple(wanted))
    close(of_all, tuple(true_of_all))


@pytest.mark.parametrize("of_head", [True, False])
@pytest.mark.parametrize("k", [2, 5])
def test_top_k_of_classes_on_several_devices(k, of_head, rng, x64):
    """Every device has the k of all, also where it holds fewer; explicit axes too."""
    hidden, kernel = head(rng)
    kernel[:, 6] = kernel[:, 1]
    logits, spec = hidden @ kernel, P("data", "model")
    if of_head:
        logits = jxent.LinearLogits(hidden, kernel)
        spec = logits.replace(hidden=P("data"), kernel=P(None, "model"))
    wanted = jxent.softmax_top_k(logits, k)
    find = lambda logits, **names: jxent.softmax_top_k(logits, k, **names)
    for kind in KINDS if of_head else KINDS[1:]:
        f = functools.partial(find, **(NAMES if of_head else {}))
        close(on_mesh(f, (logits,), (spec,), kind=kind), wanted)
    f = functools.partial(find, class_axis_name="model")
    close(on_mesh(f, (logits,), (spec,), results=P("data"), shape=(2, 4)), wanted)


def test_top_k_of_more_classes_than_a_block(rng):
    """By default a block has 32,768 classes, formed by several products."""
    hidden, kernel = (x.astype(np.float32) for x in head(rng, 128, 40000))
    got = jax.jit(jxent.softmax_top_k, static_argnums=1)
    wanted, _ = jax.lax.top_k(jax.nn.log_softmax(hidden @ kernel), 4)
    log_probs, _ = got(jxent.LinearLogits(hidden, kernel), 4)
    np.testing.assert_allclose(log_probs, wanted, rtol=2e-6)


# Distributions that are given at a few classes ----------------------------------------


def test_equal_ids_add_up_and_padding_is_nothing(rng, x64):
    logits = rng.normal(size=(2, CLASSES))
    once = jxent.SparseLabels(np.array([[2], [5]]), np.array([[0.7], [0.5]]))
    twice = jxent.SparseLabels(
        ids=np.array([[2, -1, 2], [-1, 5, -1]]),
        values=np.array([[0.3, np.nan, 0.4], [9.0, 0.5, np.inf]]),
    )
    losses = [x.function for x in LOSSES if x.takes == SOFTMAX]
    padded = [functools.partial(f, labels=twice, ignore_index=-1) for f in losses]
    run = jax.jit(lambda z: ([f(z) for f in padded], [f(z, once) for f in losses]))
    close(*run(logits))


def test_no_values_are_1_each(rng, x64):
    logits, ids = rng.normal(size=(ROWS, CLASSES)), some_ids(rng)
    losses = jxent.softmax_cross_entropy(logits, jxent.SparseLabels(ids))
    close(losses, -np.take_along_axis(oracles.log_softmax(logits), ids, 1).sum(-1))


@pytest.mark.parametrize("layout", ["streamed", "tiled"])
def test_two_calls_give_the_same_bits(layout, rng):
    """The value, and the gradients in hidden states, kernel and values."""
    hidden, kernel = (np.float32(x) for x in head(rng, 64, 512))
    ids = some_ids(rng, 64, 512)

    def loss(hidden, kernel, values):
        logits = of_layout(layout, (16, 64))(hidden, kernel)
        labels = jxent.SparseLabels(ids, values)
        return jxent.softmax_cross_entropy(logits, labels, reduction="mean")

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    arguments = hidden, kernel, np.float32(rng.uniform(size=ids.shape))
    same_bits(run(*arguments), run(*arguments))


@pytest.mark.parametrize("layout", ["materialized", "streamed", "tiled"])
def test_what_spoils_a_row(layout, rng, x64):
    """A bad id, at any value, and a value that is NaN; not what a mask leaves out."""
    hidden, kernel = head(rng)
    values = rng.uniform(size=(ROWS, K))
    values[1] = 0
    logits = of_layout(layout, (4, 3))(hidden, kernel)
    reduction = "sum" if layout == "tiled" else "none"
    function = functools.partial(jxent.softmax_cross_entropy, reduction=reduction)

    @jax.jit
    def loss(ids, values, where=True, weights=1.0):
        labels, options = jxent.SparseLabels(ids, values), {"class_mask": REAL}
        return function(logits, labels, where=where, weights=weights, **options)

    good, rows = some_ids(rng), np.arange(ROWS)
    for bad in (-1, CLASSES, 2**31 - 1):
        ids = good.copy()
        ids[1, 2] = bad
        assert np.isnan(loss(ids, values)).any()
        assert np.isfinite(loss(ids, values, where=rows != 1)).all()
    nan = values.copy()
    nan[3, 0] = np.nan
    assert np.isnan(loss(good, nan)).any()
    assert np.isfinite(loss(good, nan, weights=(rows != 3) * 1.0)).all()
    masked, none = good.copy(), values.copy()
    masked[2], none[2] = CLASSES - 1, 0
    close(loss(masked, values), loss(good, none))


def test_the_weight_of_sparse_labels(rng, x64):
    """`total_weight` is what the mean divides by, with every option that it takes."""
    logits = rng.normal(size=(2, CLASSES, 3))
    ids = rng.integers(0, CLASSES, (2, K, 3))
    ids[0, 1, 2] = -1
    labels = jxent.SparseLabels(ids, rng.uniform(size=ids.shape))
    options = {
        "axis": 1,
        "weights": rng.uniform(size=(2, 3)),
        "class_weights": rng.uniform(size=CLASSES),
        "ignore_index": -1,
    }

    @jax.jit
    def run(where):
        given = options | {"where": where}
        loss = functools.partial(jxent.softmax_cross_entropy, logits, labels, **given)
        mean, whole = (loss(reduction=r) for r in ("mean", "sum"))
        return mean, whole / jxent.total_weight(labels, **given)

    for where in (rng.random((2, 3)) < 0.7, rng.random((1, CLASSES, 3)) < 0.8):
        close(*run(where))


def log_prob_among(logits, labels, class_weights, **options):
    return jxent.softmax_log_prob_among(logits, labels.ids[:, 0], labels.ids, **options)


@pytest.mark.parametrize(
    "function",
    [jxent.softmax_cross_entropy, jxent.symmetric_cross_entropy, log_prob_among],
)
def test_logits_with_explicit_axes(function, rng, x64):
    """Classes and rows split by their types: the ids are gathered nowhere."""
    logits, ids = rng.normal(size=(ROWS, CLASSES)), some_ids(rng)
    labels = jxent.SparseLabels(ids, rng.uniform(size=ids.shape))
    options = {"class_weights": rng.uniform(size=CLASSES), "class_mask": REAL}

    def loss(logits):
        return jnp.sum(function(logits, labels, **options) ** 2)

    both, spec = jax.value_and_grad(loss), P("data", "model")
    got = on_mesh(both, (logits,), (spec,), kind=KINDS[1])
    close(got, jax.jit(both)(logits))


@pytest.mark.parametrize("implementation", ["materialized", "streamed"])
def test_top_k_of_float32_with_64_bits_on(implementation, rng):
    """The results of 64 bits off, in the same dtypes; classes enough for chunks."""
    hidden, kernel = np.float32(rng.normal(size=(4, 3))), rng.normal(size=(3, 1024))
    weights = np.float32(kernel)
    logits = jxent.LinearLogits(hidden, weights, implementation=implementation)
    find = lambda: jxent.softmax_top_k(logits, 5)
    wanted = find()
    with jax.enable_x64(True):
        got = find()
    assert [x.dtype for x in got] == [jnp.float32, jnp.int32]
    np.testing.assert_array_equal(got[1], wanted[1])
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6)
