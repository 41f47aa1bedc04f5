"""Rounding: never worse than the naive code in the same dtype, element by element."""

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


def both(f, x):
    """The losses, and the gradient of their sum."""

    def losses_and_gradient(x):
        losses, pull = jax.vjp(f, x)
        return losses, pull(jnp.ones_like(losses))[0]

    return as_users_jit(losses_and_gradient)(x)


def relative(got, truth):
    return np.abs(np.asarray(got, np.float64) - truth) / np.abs(truth)


@pytest.mark.parametrize("classes", [1000, 2049])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_no_worse_than_the_naive_code(dtype, scale, classes, rng):
    """Loss and gradient against float64, worst and mean error; ignored rows are 0."""
    x, y, kept = realistic(rng, classes, scale, dtype)
    loss = lambda x: jxent.softmax_cross_entropy(x, y, ignore_index=-100)
    plain = lambda x: naive(x, jnp.asarray(y[kept]))

    losses, gradient = both(loss, x)
    usual, usual_gradient = both(plain, x[kept])
    assert losses.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert not np.any(losses[~kept])
    assert not np.any(np.asarray(gradient)[~kept])

    truth = oracles.softmax_cross_entropy(x[kept], y[kept])
    ulp = EPS * np.maximum(1, truth)
    error = np.abs(np.asarray(losses)[kept] - truth) / ulp
    bar = np.abs(np.asarray(usual) - truth) / ulp
    assert np.all(error <= bar + 4)
    assert error.mean() <= bar.mean() + 0.25

    truth = oracles.softmax_cross_entropy_gradient(x[kept], y[kept])
    smallest = 2 * float(jnp.finfo(dtype).tiny)
    normal = np.abs(truth) > smallest
    got, wanted = np.asarray(gradient)[kept], np.asarray(usual_gradient)
    error = np.abs(got.astype(np.float64) - truth)
    bar = np.abs(wanted.astype(np.float64) - truth)
    ulp = 4 * EPS * np.abs(truth)
    assert np.all(error[~normal] <= bar[~normal].max(initial=0) + smallest)
    worst, usual_worst = (error / ulp)[normal].max(), (bar / ulp)[normal].max()
    assert worst <= usual_worst + 1
    assert (error / ulp)[normal].mean() <= (bar / ulp)[normal].mean() + 0.5


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
@pytest.mark.parametrize("scale", [*SCALES, 1000.0])
def test_a_loss_is_never_negative(scale, dtype, rng):
    """−log p_y ≥ 0 for every class of every row, the largest one's included; not −0."""
    x = (scale * rng.normal(size=(16, 129))).astype(dtype)
    loss, log_prob = map(
        as_users_jit, (jxent.softmax_cross_entropy, jxent.softmax_log_prob)
    )
    for y in (x.argmax(-1), rng.integers(0, 129, 16)):
        values = np.asarray(loss(x, y))
        assert np.all((values >= 0) & ~np.signbit(values))
        assert np.all(np.asarray(log_prob(x, y)) <= 0)
    assert np.all(np.asarray(as_users_jit(jxent.softmax_entropy)(x)) >= 0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_smoothing_and_class_weights_round_no_worse(dtype, scale, rng):
    """Against the naive float32 code on one-hot labels, values and gradients."""
    classes = 1000
    weights = rng.uniform(0.5, 2, classes).astype(np.float32)
    x, y, kept = realistic(rng, classes, scale, dtype)
    x, y = x[kept], y[kept]
    options = {"class_weights": weights, "label_smoothing": 0.1}

    def plain(x):
        hot = jax.nn.one_hot(y, classes, dtype=jnp.float32)
        q = weights[None] * (0.9 * hot + 0.1 / classes)
        return -jnp.sum(q * jax.nn.log_softmax(x.astype(jnp.float32)), -1)

    loss = lambda x: jxent.softmax_cross_entropy(x, y, **options)
    truth = oracles.softmax_cross_entropy(x, y, **options)
    (got, got_slope), (of_plain, plain_slope) = (both(f, x) for f in (loss, plain))
    error, bar = (relative(values, truth) for values in (got, of_plain))
    assert error.max() <= bar.max() + 4 * EPS
    assert error.mean() <= bar.mean() + EPS

    w = weights.astype(np.float64)
    p = np.exp(oracles.log_softmax(x.astype(np.float64)))
    q = w * (0.9 * (np.arange(classes) == y[:, None]) + 0.1 / classes)
    slope = q.sum(-1, keepdims=True) * p - q
    size = q.sum(-1, keepdims=True) * p + q  # of the two terms, which may cancel

    def worst(got):
        return (np.abs(np.asarray(got, np.float64) - slope) / size).max()

    assert worst(got_slope) <= worst(plain_slope) + 8 * EPS


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


@pytest.mark.parametrize("classes", [1000, 2049])
@pytest.mark.parametrize("scale", SCALES)
def test_entropy_rounds_no_worse(scale, classes, rng):
    """Against −Σ p log p of the naive log-softmax, values and gradients."""
    x = (scale * rng.normal(size=(64, classes))).astype(np.float32)

    def plain(x):
        log_p = jax.nn.log_softmax(x)
        return -jnp.sum(jnp.exp(log_p) * log_p, -1)

    truth = oracles.softmax_entropy(x)
    log_p = oracles.log_softmax(x.astype(np.float64))
    slope = -np.exp(log_p) * (log_p + truth[:, None])

    def errors(f):
        losses, gradient = both(f, x)
        size = np.exp(log_p) * (np.abs(log_p) + truth[:, None])
        worst = np.abs(np.asarray(gradient, np.float64) - slope) / size
        return np.abs(losses - truth) / np.maximum(1, truth), worst

    for got, bar in zip(errors(jxent.softmax_entropy), errors(plain), strict=True):
        assert got.max() <= bar.max() + 4 * EPS
        assert got.mean() <= bar.mean() + EPS


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_sigmoid_rounds_no_worse(dtype, scale, rng):
    """Against the naive float32 code, worst relative error of values and gradients."""
    x = (scale * rng.normal(size=1000)).astype(dtype)
    y = rng.integers(0, 2, 1000)

    def plain(x):
        z, t = x.astype(jnp.float32), jnp.asarray(y, jnp.float32)
        return -(t * jax.nn.log_sigmoid(z) + (1 - t) * jax.nn.log_sigmoid(-z))

    truth = oracles.sigmoid_binary_cross_entropy(x, y)
    z = x.astype(np.float64)
    sign = np.where(y == 1, -1.0, 1.0)
    slope = sign * np.exp(oracles.log_sigmoid(sign * z))

    def errors(f):
        losses, gradient = both(f, x)
        normal = np.abs(slope) > 2 * float(jnp.finfo(dtype).tiny)
        return relative(losses, truth), relative(gradient, slope)[normal]

    loss = lambda x: jxent.sigmoid_binary_cross_entropy(x, y)
    for got, bar in zip(errors(loss), errors(plain), strict=True):
        assert got.max() <= bar.max() + 4 * EPS
        assert got.mean() <= bar.mean() + EPS
