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


@pytest.mark.parametrize("kind", ["ids", "distributions"])
@pytest.mark.parametrize(("loss", "limit"), OF_ONE.values(), ids=OF_ONE.keys())
def test_the_ends_are_losses_of_their_own(loss, limit, kind, batch):
    """Cross-entropy or the mean absolute error, to the second order."""
    z, y, q = batch
    labels = y if kind == "ids" else q
    limit = limit or jxent.softmax_cross_entropy
    both = as_users_jit(
        lambda z: [orders(lambda z, f=f: f(z, labels), z) for f in (loss, limit)]
    )
    got, wanted = both(z)
    close(got, wanted, 1e-11)


def test_many_terms_are_cross_entropy(batch):
    """The rest of the series after t terms is below (1 − p)^(t + 1) / ((t + 1) p)."""
    z, y, _ = batch
    p = np.exp(oracles.log_softmax(z / 3))[np.arange(ROWS), y]
    got = taylor(z / 3, y, order=40)
    rest = jxent.softmax_cross_entropy(z / 3, y) - got
    assert np.all(rest > 0)
    assert np.all(rest <= (1 - p) ** 41 / (41 * p))


@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        (functools.partial(generalized, q=0.3), lambda p: p**0.3),
        (functools.partial(taylor, order=3), lambda p: 1 - (1 - p) ** 3),
        (
            functools.partial(symmetric, alpha=0.5, beta=2.0, log_zero=-3.0),
            lambda p: 0.5 + 2 * 3 * p,
        ),
    ],
    ids=["generalized", "taylor", "symmetric"],
)
def test_the_gradient_is_that_of_cross_entropy_times_a_factor(loss, factor, batch):
    """It is small where the label is unlikely: that row learns less."""
    z, y, _ = batch
    p = np.exp(oracles.log_softmax(z))[np.arange(ROWS), y]
    got = jax.grad(lambda z: jnp.sum(loss(z, y)))(z)
    wanted = oracles.softmax_cross_entropy_gradient(z, y)
    close(got, factor(p)[:, None] * wanted, 1e-10)


@pytest.mark.parametrize("kind", ["ids", "distributions", "sparse"])
@pytest.mark.parametrize(
    ("loss", "most"),
    [
        (functools.partial(generalized, q=0.5), 2),
        (functools.partial(taylor, order=3), 1 + 1 / 2 + 1 / 3),
        (functools.partial(symmetric, alpha=0, log_zero=-5.0), 5),
    ],
    ids=["generalized", "taylor", "symmetric"],
)
@pytest.mark.parametrize("far", [-1e4, -np.inf], ids=str)
def test_the_bound_where_p_is_0(loss, most, far, kind):
    """The largest loss, with gradient 0, and every derivative in a parameter finite."""
    z = jnp.array([[far, 0.0, 1.0]])
    labels = {
        "ids": jnp.array([0]),
        "distributions": jnp.array([[1.0, 0, 0]]),
        "sparse": jxent.SparseLabels(jnp.array([[0]])),
    }[kind]

    @as_users_jit
    def all_of(z):
        if loss.func is taylor:
            return orders(lambda z: loss(z, labels), z), ()  # its order is no array
        points = {name: jnp.float32(x) for name, x in loss.keywords.items()}
        of = lambda points: loss.func(z, labels, **points)[0]
        in_points = jax.jacrev(of)(points), jax.hessian(of)(points)
        return orders(lambda z: loss(z, labels), z), in_points

    (value, gradient, hessian), in_points = all_of(z)
    np.testing.assert_allclose(value, [most], rtol=1e-6)
    np.testing.assert_allclose(gradient, np.zeros((1, 3)), atol=1e-6)
    np.testing.assert_allclose(hessian, np.zeros((1, 3, 1, 3)), atol=1e-6)
    for x in jax.tree.leaves(in_points):
        assert np.isfinite(x)


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


@pytest.mark.parametrize("q", [1e-38, 1e-12, 1e-4, 0.1, 0.7, 1.0])
def test_no_digit_is_lost_in_float32(q):
    """Of log p, where the label is nearly certain too, and for every q."""
    z = np.array([[9, 0], [12, 0], [0, 0], [-3, 0], [-30, 0], [-80, 0]], np.float32)
    y = np.zeros(len(z), int)
    log_p = -np.float64(jxent.softmax_cross_entropy(z, y))
    wanted = -np.expm1(np.float32(q) * log_p) / np.float32(q)
    np.testing.assert_allclose(generalized(z, y, q=q), wanted, rtol=5e-7)
    series = sum((-np.expm1(log_p)) ** i / i for i in (1, 2, 3))
    np.testing.assert_allclose(taylor(z, y, order=3), series, rtol=5e-7)
    reverse = -4 * np.expm1(log_p)
    np.testing.assert_allclose(symmetric(z, y, alpha=0), reverse, rtol=5e-7)


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


def test_the_paper_s_formula(batch):
    z, _, q = batch
    log_p = oracles.log_softmax(z)
    with np.errstate(divide="ignore"):
        reverse = -(np.exp(log_p) * np.maximum(np.log(q), -3)).sum(-1)
    wanted = 0.2 * -(q * log_p).sum(-1) + 0.7 * reverse
    close(symmetric(z, q, alpha=0.2, beta=0.7, log_zero=-3.0), wanted)


def test_the_derivative_in_a_distribution(batch):
    """That of max(log q, A) too: 0 below exp(A), also at a q of 0."""
    z, _, q = batch
    q[0, 1] = 1e-3  # below exp(−4)

    def textbook(q):
        log_p = jax.nn.log_softmax(z)
        log_q = jnp.log(jnp.maximum(q, jnp.exp(-4.0)))
        reverse = -jnp.sum(jnp.exp(log_p) * log_q, -1) * jnp.sum(q, -1)
        return jnp.sum(-0.1 * jnp.sum(q * log_p, -1) + reverse)

    loss = lambda q: jnp.sum(symmetric(z, q))

    @jax.jit
    def all_of(q):
        of_both = [(jax.grad(f)(q), jax.hessian(f)(q)) for f in (loss, textbook)]
        return *of_both, jax.jacfwd(loss)(q)

    got, wanted, forwards = all_of(q)
    close(got, wanted)
    close(forwards, wanted[0])


def test_the_parameters_may_be_0_in_a_traced_program(batch):
    """What has a factor of 0 adds 0, infinities too; its derivative in it is itself."""
    z, y, _ = batch
    z = jnp.asarray(z).at[0, y[0]].set(-jnp.inf)
    f = jax.jit(lambda a, b: symmetric(z, y, alpha=a, beta=b))
    close(f(0.0, 2.0), symmetric(z, y, alpha=0, beta=2.0))
    assert np.isfinite(f(0.0, 1.0)).all()
    p = np.exp(oracles.log_softmax(np.asarray(z)))[np.arange(ROWS), y]
    close(jax.jacfwd(f, 1)(0.5, 0.0), 4 * (1 - p))


def test_a_row_without_mass_counts_for_nothing(batch):
    """An all-zero label, as one_hot gives for padding: 0, as in every other loss."""
    z, _, q = batch
    q[1] = 0
    kept = np.arange(ROWS) != 1
    assert symmetric(z, q)[1] == 0
    mean = functools.partial(symmetric, reduction="mean")
    close(mean(z, q), mean(z[kept], q[kept]))


def test_a_label_that_is_nan_is_not_hidden():
    q = jnp.array([[0.5, jnp.nan, 0.5], [1.0, 0, 0]])
    losses = symmetric(jnp.zeros((2, 3)), q, alpha=0)
    np.testing.assert_array_equal(np.isnan(losses), [True, False])
    kept = jnp.array([False, True])
    gradient = jax.grad(lambda q: jnp.sum(symmetric(jnp.zeros((2, 3)), q, where=kept)))(
        q
    )
    assert np.all(gradient[0] == 0)
    assert np.all(np.isfinite(gradient))
