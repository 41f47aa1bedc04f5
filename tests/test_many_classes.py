"""Rows of many classes, which a CPU takes in chunks: right in each of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from tests import oracles
from tests.comparing import close
from tests.compiling import as_users_jit
from tests.meshes import KINDS, on_mesh


pytestmark = pytest.mark.newest_jax


# More than XLA sums quickly in one piece, and the last chunk is not whole.
CLASSES = 2**15 + 45
ROWS = 3


def of_rows(x, y, t):
    """Losses and statistics, (rows,) each."""
    s = jxent.softmax_statistics(x, y, entropy=True)
    return {
        "ids": jxent.softmax_cross_entropy(x, y),
        "smooth": jxent.softmax_cross_entropy(x, y, label_smoothing=0.1),
        "distributions": jxent.softmax_cross_entropy(x, t),
        "divergence": jxent.softmax_kl_divergence(x, jnp.log(t)),
        "entropy": s.entropy,
        "squares": jax.vmap(jxent.metrics.brier_score)(x[:, None], y[:, None]),
    }


def truths(x, y, t):
    log_p = oracles.log_softmax(x.astype(np.float64))
    own = np.take_along_axis(log_p, y[:, None], -1)[:, 0]
    p, t = np.exp(log_p), t.astype(np.float64)
    to_own = p.copy()
    np.put_along_axis(to_own, y[:, None], np.exp(own)[:, None] - 1, -1)
    return {
        "ids": -own,
        "smooth": -0.9 * own - 0.1 * log_p.mean(-1),
        "distributions": -(t * log_p).sum(-1),
        "divergence": (t / t.sum(-1, keepdims=True) * (np.log(t) - log_p)).sum(-1)
        - np.log(t.sum(-1)),
        "entropy": -(p * log_p).sum(-1),
        "squares": (to_own**2).sum(-1),
    }


def inputs(rng):
    x = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
    t = rng.random((ROWS, CLASSES)).astype(np.float32)
    y = np.array([0, CLASSES - 1, 2**15], np.int32)
    return x, y, t / t.sum(-1, keepdims=True)


def test_losses_and_statistics(rng):
    x, y, t = inputs(rng)
    got, wanted = as_users_jit(of_rows)(x, y, t), truths(x, y, t)
    for name, values in got.items():
        np.testing.assert_allclose(values, wanted[name], rtol=3e-6, err_msg=name)


@pytest.mark.each_platform
def test_every_derivative(x64, rng):
    """A gradient and its own derivative along a line, in both modes."""
    x, y, t = (
        jnp.asarray(a, None if a.dtype.kind == "i" else float) for a in inputs(rng)
    )
    line = jnp.asarray(rng.normal(size=x.shape))

    @jax.jit
    def along(step):
        total = lambda x: jax.tree.map(jnp.sum, of_rows(x, y, t))
        at = x + step * line
        losses, slopes = jax.jvp(total, (at,), (line,))
        one = lambda x: sum(jax.tree.leaves(total(x)))
        gradient, curve = jax.jvp(jax.grad(one), (at,), (line,))
        return losses, slopes, jnp.vdot(gradient, line), jnp.vdot(curve, line)

    (_, slopes, slope, curve) = along(0.0)
    ahead, behind = along(1e-5), along(-1e-5)
    for name, value in slopes.items():
        numerical = (ahead[0][name] - behind[0][name]) / 2e-5
        np.testing.assert_allclose(value, numerical, rtol=1e-6, atol=1e-8, err_msg=name)
    close(slope, sum(slopes.values()), 1e-10)
    np.testing.assert_allclose(curve, (ahead[2] - behind[2]) / 2e-5, rtol=1e-5)


@pytest.mark.each_platform
@pytest.mark.parametrize("classes", [257, 1024, CLASSES])
def test_the_first_of_the_largest(classes, rng):
    """Wherever it stands, beside equals in its chunk, the next and the last."""
    x = rng.normal(size=(9, classes)).astype(np.float32)
    last = (classes - 1) // 32 * 32  # where the last chunk starts
    for row, places in enumerate(
        [[0], [31, 32], [5, 7], [last], [classes - 1], [last - 1, last], [40, last]]
    ):
        x[row, places] = 10
    x[7] = -np.inf
    x[8, 3] = np.nan
    argmax = lambda x, axis: jxent.softmax_statistics(x, axis=axis, argmax=True).argmax
    run = jax.jit(lambda x, first: (argmax(x, -1), argmax(first, 0)))
    for got in jax.device_get(run(x, x.T)):
        np.testing.assert_array_equal(got[:8], np.argmax(x[:8], -1))
        assert 0 <= got[8] < classes


@pytest.mark.each_platform
def test_ranks(rng):
    """From the first to beyond the fifth, with equals, in chunks of several sizes."""
    of = jxent.metrics.top_k_accuracy_sums
    run = jax.jit(jax.vmap(lambda x, y: [of(x, y, k=k).correct for k in (1, 5)]))
    for classes in (704, 6000, 2**15 + 64):
        x = rng.normal(size=(40, classes)).astype(np.float32).round(2)
        order = np.argsort(-x, -1, kind="stable")
        y = order[np.arange(40), np.arange(40) % 8].astype(np.int32)
        for k, got in zip((1, 5), run(x[:, None], y[:, None]), strict=True):
            np.testing.assert_array_equal(got, np.arange(40) % 8 < k)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_split_over_devices(kind, rng):
    """Inside `shard_map`, and by the types of explicit axes."""
    x, y, t = (np.concatenate([a, a[:1]]) for a in inputs(rng))
    spec = P("data")

    def parts(x, y, t):
        return {k: v for k, v in of_rows(x, y, t).items() if k != "squares"}

    how = {"results": spec if kind == KINDS[0] else None, "kind": kind}
    got = on_mesh(parts, (x, y, t), (spec,) * 3, shape=(4, 1), **how)
    wanted = truths(x, y, t)
    for name, values in got.items():
        np.testing.assert_allclose(values, wanted[name], rtol=3e-6, err_msg=name)


def test_classes_split_over_devices(rng):
    """Each device's share in chunks of its own."""
    x, y, t = inputs(rng)
    x, y = x[:, : CLASSES // 4 * 4], np.minimum(y, CLASSES // 4 * 4 - 1)
    x[1, [300, 9000]] = 9

    def local(x, y):
        options = {"entropy": True, "argmax": True, "class_axis_name": "model"}
        s = jxent.softmax_statistics(x, y, **options)
        return s.log_prob, s.entropy, s.argmax

    specs = P(None, "model"), P()
    got = on_mesh(local, (x, y), specs, results=P(), shape=(1, 4))
    log_prob, entropy, argmax = got
    wanted = truths(x, y, t[:, : x.shape[1]])
    np.testing.assert_allclose(log_prob, -wanted["ids"], rtol=3e-6)
    np.testing.assert_allclose(entropy, wanted["entropy"], rtol=3e-6)
    np.testing.assert_array_equal(argmax, np.argmax(x, -1))


@pytest.mark.parametrize("classes", [32768, 40000])
def test_distributions_round_as_little_as_the_naive_code(classes, rng):
    """Sums of so many terms, one after the other, would lose four digits."""
    z = 3 * rng.normal(size=(4, classes))
    labels = rng.dirichlet(np.ones(classes), 4).astype(np.float32)
    z, wide = z.astype(np.float32), labels.astype(np.float64)
    largest = z.max(1, keepdims=True).astype(np.float64)
    lse = largest + np.log(np.exp(z - largest).sum(1, keepdims=True))
    truth = (wide * (lse - z)).sum(1)
    naive = lambda z, q: -jnp.sum(q * jax.nn.log_softmax(z), -1)
    both = jxent.softmax_cross_entropy, naive
    run = jax.jit(lambda *x: [f(*x) for f in both])
    error, bar = (np.max(np.abs(x / truth - 1)) for x in run(z, labels))
    assert error <= max(2 * bar, 3e-7)


def test_gradients_in_float32_keep_their_digits(x64, rng):
    """Those of rare classes, and those that means of many terms are in."""
    single = (2 * rng.normal(size=(2, 4, 2**15))).astype(np.float32)
    of_ids = {
        "focal": jxent.softmax_focal_loss,
        "poly": jxent.poly_loss_cross_entropy,
        "generalized": jxent.generalized_cross_entropy,
        "taylor": jxent.taylor_cross_entropy,
        "symmetric": functools.partial(jxent.symmetric_cross_entropy, alpha=0.0),
        "squares": jxent.metrics.brier_score,
    }
    of_two = {
        "divergence": jxent.softmax_kl_divergence,
        "mixture": jxent.softmax_jensen_shannon_divergence,
        "skewed": functools.partial(jxent.softmax_jensen_shannon_divergence, beta=0.1),
        "variation": jxent.softmax_total_variation,
    }

    @as_users_jit
    def gradients(z, other):
        y = jnp.arange(len(z))
        total = lambda loss, labels: jax.grad(lambda z: jnp.sum(loss(z, labels)))(z)
        found = {name: total(loss, y) for name, loss in of_ids.items()}
        return found | {name: total(loss, other) for name, loss in of_two.items()}

    got, truth = (
        jax.device_get(gradients(*x)) for x in (single, single.astype(np.float64))
    )
    for name, wanted in truth.items():
        error = np.linalg.norm(got[name] - wanted) / np.linalg.norm(wanted)
        assert error < 3e-6, (name, error)
