"""Losses for noisy labels: their limits, their bounds, and their gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.comparing import close
from tests.compiling import as_users_jit


ROWS, CLASSES = 6, 5
generalized = jxent.generalized_cross_entropy
taylor = jxent.taylor_cross_entropy
symmetric = jxent.symmetric_cross_entropy


def one_hot(y):
    return (np.arange(CLASSES) == y[:, None]) * 1.0


@pytest.fixture
def batch(x64, rng):
    """Logits, class ids, and distributions with a class without mass."""
    q = rng.dirichlet(np.ones(CLASSES), ROWS)
    q[:, 2] = 0
    z = 3 * rng.normal(size=(ROWS, CLASSES))
    return z, rng.integers(0, CLASSES, ROWS), q / q.sum(-1, keepdims=True)


def orders(loss, x):
    """Values, gradients and hessians of the rows' losses."""

    def gradient(x):
        slope = jax.grad(lambda x: jnp.sum(loss(x)))(x)
        return slope, slope

    hessian, slope = jax.jacfwd(gradient, has_aux=True)(x)
    return loss(x), slope, hessian


def mean_absolute_error(z, labels):
    q = labels if labels.ndim == z.ndim else one_hot(labels)
    return jnp.sum(q * (1 - jax.nn.softmax(z)), -1)


OF_ONE = {
    "generalized q=1": (functools.partial(generalized, q=1), mean_absolute_error),
    "generalized q=0": (functools.partial(generalized, q=0), None),
    "generalized q=1e-40": (functools.partial(generalized, q=1e-40), None),
    "taylor 1": (functools.partial(taylor, order=1), mean_absolute_error),
    "symmetric β=0": (functools.partial(symmetric, alpha=1, beta=0), None),
    "symmetric A=0": (functools.partial(symmetric, alpha=1, log_zero=0), None),
}


@pytest.mark.parametrize("name", OF_ONE)
def test_the_ends_are_losses_of_their_own(name, batch):
    """Cross-entropy or the mean absolute error, to the second order."""
    z, *kinds = batch
    loss, limit = OF_ONE[name]
    both = loss, limit or jxent.softmax_cross_entropy

    @as_users_jit
    def run(z):
        return [[orders(lambda z, f=f, y=y: f(z, y), z) for y in kinds] for f in both]

    close(*jax.device_get(run(z)), tolerance=1e-11)


FACTORS = {
    functools.partial(generalized, q=0.3): lambda p: p**0.3,
    functools.partial(taylor, order=3): lambda p: 1 - (1 - p) ** 3,
    functools.partial(symmetric, alpha=0.5, beta=2.0, log_zero=-3.0): lambda p: (
        0.5 + 2 * 3 * p
    ),
}


def test_the_gradient_is_that_of_cross_entropy_times_a_factor(batch):
    """It is small where the label is unlikely: that row learns less.

    Of a Taylor series of t terms the rest is below (1 − p)^(t + 1) / ((t + 1) p).
    """
    z, y, _ = batch

    @jax.jit
    def run(z):
        rest = jxent.softmax_cross_entropy(z / 3, y) - taylor(z / 3, y, order=40)
        return [jax.grad(lambda z, f=f: f(z, y).sum())(z) for f in FACTORS], rest

    gradients, rest = jax.device_get(run(z))
    p, third = (np.exp(oracles.log_softmax(x))[np.arange(ROWS), y] for x in (z, z / 3))
    wanted = oracles.softmax_cross_entropy_gradient(z, y)
    for gradient, factor in zip(gradients, FACTORS.values(), strict=True):
        close(gradient, factor(p)[:, None] * wanted, 1e-10)
    assert np.all((rest > 0) & (rest <= (1 - third) ** 41 / (41 * third)))


@pytest.mark.parametrize(
    ("loss", "most"),
    [
        (functools.partial(generalized, q=0.5), 2),
        (functools.partial(taylor, order=3), 1 + 1 / 2 + 1 / 3),
        (functools.partial(symmetric, alpha=0, log_zero=-5.0), 5),
    ],
    ids=["generalized", "taylor", "symmetric"],
)
def test_the_bound_where_p_is_0(loss, most):
    """The largest loss, with gradient 0, and every derivative in a parameter finite."""
    ids = np.array([0], np.int32)
    kinds = ids, np.array([[1, 0, 0]], np.float32), jxent.SparseLabels(ids[:, None])
    points = {name: np.float32(x) for name, x in loss.keywords.items()}

    @as_users_jit
    def run(z, points):
        def in_points(labels):
            if loss.func is taylor:
                return ()  # its order is no array
            of = lambda points: loss.func(z, labels, **points)[0]
            return jax.jacrev(of)(points), jax.hessian(of)(points)

        of_z = lambda y: orders(lambda z: loss(z, y), z)
        return [(of_z(labels), in_points(labels)) for labels in kinds]

    for far in (-1e4, -np.inf):
        z = np.array([[far, 0, 1]], np.float32)
        for of_z, in_points in jax.device_get(run(z, points)):
            wanted = [most], np.zeros((1, 3)), np.zeros((1, 3, 1, 3))
            for x, y in zip(of_z, wanted, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
            assert all(map(np.isfinite, jax.tree.leaves(in_points)))


def test_the_exponent_has_every_derivative(x64):
    """In q and the logits, at q = 0 and at both sides of where the series ends."""
    z = np.linspace(-2, 3, 6)

    def loss(z, q):
        return generalized(jnp.stack([z, 0 * z]), jnp.array(0), q=q)

    coefficients = np.array([1 / math.factorial(k) for k in range(30, 0, -1)])

    def textbook(z, q):  # q log p, expanded around 0 to 30 terms
        log_p = jax.nn.log_sigmoid(z)
        return -log_p * jnp.polyval(coefficients, q * log_p, unroll=1)

    def slopes(f):
        return lambda *x: (jax.grad(f, (0, 1))(*x),) * 2

    def with_those_of(f):  # what it returns twice, beside its own derivatives
        def both(*x):
            derivatives, before = jax.jacfwd(f, (0, 1), has_aux=True)(*x)
            return derivatives, (derivatives, before)

        return both

    def orders(f):
        to_the_third = with_those_of(with_those_of(slopes(f)))
        of_each = jax.vmap(jax.vmap(to_the_third, (0, None)), (None, 0))
        return jax.jit(of_each)(z, q)[1]

    q = np.array([0.0, 1e-9, 0.01, 0.12, 0.13, 0.4, 1.0])
    close(orders(loss), orders(textbook), 1e-9)


def test_no_digit_is_lost_in_float32():
    """Of log p, where the label is nearly certain too, and for every q."""
    z = np.array([[9, 0], [12, 0], [0, 0], [-3, 0], [-30, 0], [-80, 0]], np.float32)
    y, exponents = np.zeros(len(z), int), (1e-38, 1e-12, 1e-4, 0.1, 0.7, 1.0)

    @jax.jit
    def run(z):
        others = taylor(z, y, order=3), symmetric(z, y, alpha=0)
        of_q = [generalized(z, y, q=q) for q in exponents]
        return jxent.softmax_cross_entropy(z, y), of_q, others

    losses, of_q, (of_taylor, reverse) = jax.device_get(run(z))
    log_p = -np.float64(losses)
    for q, got in zip(np.array(exponents, np.float32), of_q, strict=True):
        np.testing.assert_allclose(got, -np.expm1(q * log_p) / q, rtol=5e-7)
    series = sum((-np.expm1(log_p)) ** i / i for i in (1, 2, 3))
    np.testing.assert_allclose(of_taylor, series, rtol=5e-7)
    np.testing.assert_allclose(reverse, -4 * np.expm1(log_p), rtol=5e-7)


def test_an_order_is_compiled_once():
    z, y = jnp.ones((2, 3)), jnp.array([0, 1])
    taylor(z, y, order=7)
    with jax.no_tracing():
        taylor(z, y, order=7)


# Symmetric cross-entropy --------------------------------------------------------------


@pytest.mark.parametrize(
    ("smoothing", "weighted"), [(0.0, False), (0.1, True), (0.6, False)]
)
def test_every_kind_of_label_gives_the_same(smoothing, weighted, batch, rng):
    """An id, its one-hot label, and sparse ones; smoothed here or before."""
    z, y, _ = batch
    loss = functools.partial(symmetric, alpha=0.3, log_zero=-2.5)
    if weighted:
        loss = functools.partial(loss, class_weights=rng.uniform(0.5, 2, CLASSES))
    smooth = functools.partial(loss, label_smoothing=smoothing)
    hot = one_hot(y)
    twice = jxent.SparseLabels(
        np.stack([y, y, (y + 1) % CLASSES], -1), np.array([[0.4, 0.6, 0.0]] * ROWS)
    )
    kinds = y, hot, jxent.SparseLabels(y[:, None]), twice

    @jax.jit
    def all_of(z):
        each = [orders(lambda z, labels=x: smooth(z, labels), z) for x in kinds]
        before = loss(z, jxent.smooth_labels(hot, smoothing))
        return each, before, [smooth(z, x, reduction="mean") for x in (y, hot)]

    (wanted, *each), before, means = all_of(z)
    for got in each:
        close(got, wanted)
    if not weighted:  # class weights are those of the label, not of its smoothing
        close(before, wanted[0])
    close(*means)


def test_the_derivative_in_a_distribution(batch):
    """That of max(log q, A) too: 0 below exp(A), also at a q of 0."""
    z, _, q = batch
    q[0, 1] = 1e-3  # below exp(−4)

    def textbook(q):
        log_p = jax.nn.log_softmax(z)
        log_q = jnp.log(jnp.maximum(q, jnp.exp(-4.0)))
        reverse = -jnp.sum(jnp.exp(log_p) * log_q, -1) * jnp.sum(q, -1)
        return -0.1 * jnp.sum(q * log_p, -1) + reverse

    @jax.jit
    def run(q):
        loss = lambda q: symmetric(z, q)
        forwards = jax.jacfwd(lambda q: loss(q).sum())(q)
        return orders(loss, q), orders(textbook, q), forwards

    got, wanted, forwards = jax.device_get(run(q))
    close(got, wanted)
    close(forwards, wanted[1])


def test_the_parameters_may_be_0_in_a_traced_program(batch):
    """What has a factor of 0 adds 0, infinities too; its derivative in it is itself."""
    z, y, _ = batch
    z[0, y[0]] = -np.inf
    loss = functools.partial(symmetric, z, y)

    @jax.jit
    def run(alpha, beta):
        f = lambda a, b: loss(alpha=a, beta=b)
        return f(alpha, beta), jax.jacfwd(f, 1)(alpha, beta), loss(alpha=0, beta=2.0)

    losses, _, wanted = jax.device_get(run(0.0, 2.0))
    close(losses, wanted)
    assert np.isfinite(losses).all()
    p = np.exp(oracles.log_softmax(z))[np.arange(ROWS), y]
    close(run(0.5, 0.0)[1], 4 * (1 - p))


def test_a_label_that_is_nan_is_not_hidden():
    q = np.array([[0.5, np.nan, 0.5], [1.0, 0, 0]], np.float32)
    z, kept = np.zeros((2, 3), np.float32), np.array([False, True])

    @jax.jit
    def run(q):
        of_kept = lambda q: jnp.sum(symmetric(z, q, where=kept))
        return symmetric(z, q, alpha=0), jax.grad(of_kept)(q)

    losses, gradient = jax.device_get(run(q))
    np.testing.assert_array_equal(np.isnan(losses), [True, False])
    assert not np.any(gradient[0])
    assert np.all(np.isfinite(gradient))
