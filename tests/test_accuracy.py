"""Rounding: never worse than the naive code in the same dtype, element by element."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.compiling import as_users_jit


EPS = float(np.finfo(np.float32).eps)
DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16)
SCALES = (1 / 30, 1.0, 30.0)


def naive(logits, labels):
    """Optax's plain loss behind a cast."""
    z = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(z, labels[:, None], axis=-1).squeeze(-1)
    return jax.nn.logsumexp(z, axis=-1) - picked


def realistic(rng, classes, scale, dtype, rows=64):
    """Peaked rows, some of them confident, and labels of which a fifth is ignored."""
    x = scale * rng.normal(size=(rows, classes))
    y = rng.integers(0, classes, rows)
    favoured = rng.random(rows) < 0.5
    x[favoured, y[favoured]] += rng.uniform(0, 12, favoured.sum())
    ignored = rng.random(rows) < 0.2
    x[ignored] = rng.choice([np.nan, np.inf, 0], ignored.sum())[:, None]
    return x.astype(dtype), np.where(ignored, -100, y).astype(np.int32), ~ignored


def both(f):
    """(x, *labels) -> the losses, and the gradient of their sum; NumPy."""

    @as_users_jit
    def run(x, *labels):
        losses, pull = jax.vjp(lambda x: f(x, *labels), x)
        return losses, pull(jnp.ones_like(losses))[0]

    return lambda *x: jax.device_get(run(*x))


def relative(got, truth):
    return np.abs(np.asarray(got, np.float64) - truth) / np.abs(truth)


@pytest.mark.parametrize("classes", [1000, 2049])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_no_worse_than_the_naive_code(dtype, classes, rng):
    """Loss and gradient against float64, worst and mean error; ignored rows are 0."""
    loss = functools.partial(jxent.softmax_cross_entropy, ignore_index=-100)
    run, usual = both(loss), both(naive)
    for scale in SCALES:
        x, y, kept = realistic(rng, classes, scale, dtype)
        losses, gradient = run(x, y)
        assert losses.dtype == jnp.float32
        assert gradient.dtype == dtype
        assert not np.any(losses[~kept])
        assert not np.any(gradient[~kept])
        each = (losses, gradient), usual(x, np.where(kept, y, 0))
        (got, slope), (bar, usual_slope) = ([x[kept] for x in pair] for pair in each)
        x, y = x[kept], y[kept]

        truth = oracles.softmax_cross_entropy(x, y)
        ulp = EPS * np.maximum(1, truth)
        error, bar = (np.abs(values - truth) / ulp for values in (got, bar))
        assert np.all(error <= bar + 4)
        assert error.mean() <= bar.mean() + 0.25

        truth = oracles.softmax_cross_entropy_gradient(x, y)
        smallest = 2 * float(jnp.finfo(dtype).tiny)
        normal = np.abs(truth) > smallest
        error, bar = (np.abs(np.float64(g) - truth) for g in (slope, usual_slope))
        assert np.all(error[~normal] <= bar[~normal].max(initial=0) + smallest)
        error, bar = (
            x[normal] / (4 * EPS * np.abs(truth[normal])) for x in (error, bar)
        )
        assert error.max() <= bar.max() + 1
        assert error.mean() <= bar.mean() + 0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_a_confident_token_keeps_its_gradient(dtype):
    """p_y > 0.999: p_y − 1 is formed in float32, then rounded."""
    classes = 1000
    gap = np.array([14.0, 15.0, 16.0, 18.0])
    x = np.zeros((len(gap), classes), dtype)
    x[:, 7] = gap
    y = np.full(len(gap), 7)
    truth = oracles.softmax_cross_entropy_gradient(x, y)[:, 7]
    assert np.all(np.abs(truth) < 1e-3)

    def gradient(f, x):
        slope = as_users_jit(jax.grad(lambda x: jnp.sum(f(x, jnp.asarray(y)))))(x)
        return np.asarray(slope, np.float64)[:, 7]

    got = gradient(jxent.softmax_cross_entropy, x)
    bar = np.abs(gradient(naive, x.astype(np.float32)) - truth)
    rounding = float(jnp.finfo(dtype).eps) * np.abs(truth)
    assert np.all(np.abs(got - truth) <= bar + rounding + 2 * EPS)
    assert np.all(got < 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_a_loss_is_never_negative(dtype, rng):
    """−log p_y ≥ 0 for every class of every row, the largest one's included; not −0."""
    each = jxent.softmax_cross_entropy, jxent.softmax_log_prob, jxent.softmax_entropy
    run = [as_users_jit(f) for f in each]
    for scale in (*SCALES, 1000.0):
        x = (scale * rng.normal(size=(16, 129))).astype(dtype)
        for y in (x.argmax(-1), rng.integers(0, 129, 16)):
            loss, log_prob, entropy = jax.device_get(
                [f(x, *labels) for f, labels in zip(run, ((y,), (y,), ()), strict=True)]
            )
            assert np.all((loss >= 0) & ~np.signbit(loss))
            assert np.all(log_prob <= 0)
            assert np.all(entropy >= 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_smoothing_and_class_weights_round_no_worse(dtype, rng):
    """Against the naive float32 code on one-hot labels, values and gradients."""
    classes = 1000
    weights = rng.uniform(0.5, 2, classes).astype(np.float32)
    options = {"class_weights": weights, "label_smoothing": 0.1}

    def plain(x, y):
        hot = jax.nn.one_hot(y, classes, dtype=jnp.float32)
        q = weights[None] * (0.9 * hot + 0.1 / classes)
        return -jnp.sum(q * jax.nn.log_softmax(x.astype(jnp.float32)), -1)

    run = both(functools.partial(jxent.softmax_cross_entropy, **options)), both(plain)
    for scale in SCALES:
        x, y, kept = realistic(rng, classes, scale, dtype, rows=80)
        x, y = x[kept][:50], y[kept][:50]
        (got, slope), (usual, usual_slope) = (f(x, y) for f in run)
        truth = oracles.softmax_cross_entropy(x, y, **options)
        error, bar = (relative(values, truth) for values in (got, usual))
        assert error.max() <= bar.max() + 4 * EPS
        assert error.mean() <= bar.mean() + EPS

        w = weights.astype(np.float64)
        p = np.exp(oracles.log_softmax(x.astype(np.float64)))
        q = w * (0.9 * (np.arange(classes) == y[:, None]) + 0.1 / classes)
        mass = q.sum(-1, keepdims=True)
        # Relative to the size of two terms, which may cancel.
        error, bar = (
            np.abs(np.float64(g) - (mass * p - q)) / (mass * p + q)
            for g in (slope, usual_slope)
        )
        assert error.max() <= bar.max() + 8 * EPS


def test_more_classes_than_float16_can_count():
    """65504 is its largest number: sums are taken in float32."""
    classes = 65_600
    x = np.zeros((2, classes), np.float16)
    y = np.array([0, classes - 1])
    loss = jxent.with_statistics(jxent.softmax_cross_entropy)
    f = lambda x: loss(x, y, label_smoothing=0.1)
    both = lambda x: (f(x), jax.grad(lambda x: jnp.sum(f(x)[0]))(x))
    (loss, statistics), gradient = as_users_jit(both)(x)
    np.testing.assert_allclose(loss, np.log(classes), rtol=4 * EPS)
    np.testing.assert_allclose(statistics.entropy, np.log(classes), rtol=4 * EPS)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(gradient[0, 0], -0.9, rtol=1e-3)


def check(errors, bars):
    """Of losses, then of gradients."""
    for error, bar in zip(errors, bars, strict=True):
        assert error.max() <= bar.max() + 4 * EPS
        assert error.mean() <= bar.mean() + EPS


@pytest.mark.parametrize("classes", [1000, 2049])
def test_entropy_rounds_no_worse(classes, rng):
    """Against −Σ p log p of the naive log-softmax, values and gradients."""

    def plain(x):
        log_p = jax.nn.log_softmax(x)
        return -jnp.sum(jnp.exp(log_p) * log_p, -1)

    run, usual = both(jxent.softmax_entropy), both(plain)
    for scale in SCALES:
        x = (scale * rng.normal(size=(64, classes))).astype(np.float32)
        truth = oracles.softmax_entropy(x)
        log_p = oracles.log_softmax(x.astype(np.float64))
        slope = -np.exp(log_p) * (log_p + truth[:, None])
        size = np.exp(log_p) * (np.abs(log_p) + truth[:, None])

        def errors(losses, gradient, truth=truth, slope=slope, size=size):
            worst = np.abs(np.float64(gradient) - slope) / size
            return np.abs(losses - truth) / np.maximum(1, truth), worst

        check(errors(*run(x)), errors(*usual(x)))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_sigmoid_rounds_no_worse(dtype, rng):
    """Against the naive float32 code, worst relative error of values and gradients."""

    def plain(x, y):
        z, t = x.astype(jnp.float32), y.astype(jnp.float32)
        return -(t * jax.nn.log_sigmoid(z) + (1 - t) * jax.nn.log_sigmoid(-z))

    run, usual = both(jxent.sigmoid_binary_cross_entropy), both(plain)
    for scale in SCALES:
        x = (scale * rng.normal(size=1000)).astype(dtype)
        y = rng.integers(0, 2, 1000)
        truth = oracles.sigmoid_binary_cross_entropy(x, y)
        sign = np.where(y == 1, -1.0, 1.0)
        slope = sign * np.exp(oracles.log_sigmoid(sign * x.astype(np.float64)))
        normal = np.abs(slope) > 2 * float(jnp.finfo(dtype).tiny)
        check(
            *(
                (relative(losses, truth), relative(gradient, slope)[normal])
                for losses, gradient in (run(x, y), usual(x, y))
            )
        )
