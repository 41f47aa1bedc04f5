"""What goes wrong around cross-entropy elsewhere: conventions that differ.

One test a hazard; each says what this library does instead.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.hazards import (
    W,
    cross_entropy,
    same,
    spread,
    value_and_grad,
    values_and_grads,
)


def test_smoothing_gives_the_label_its_share_too():
    """ε/K on every class: 1 − ε + ε/K on the label's."""
    x, labels, e = spread(3, 5), jnp.array([0, 2, 4]), 0.2
    one_hot = np.eye(5, dtype=np.float32)[labels]
    q = (1 - e) * one_hot + e / 5
    log_p = oracles.log_softmax(np.float64(x))
    expected = -np.sum(q * log_p, -1)
    same(cross_entropy(x, labels, label_smoothing=e), expected)
    same(cross_entropy(x, one_hot, label_smoothing=e), expected)
    same(jxent.smooth_labels(one_hot, e), q)
    p = np.exp(log_p).astype(np.float32)
    same(jxent.categorical_cross_entropy(p, labels, label_smoothing=e), expected)


def test_binary_smoothing_goes_towards_one_half():
    """y (1 − ε) + ε/2."""
    z, y = spread(2, 5), np.array([[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]])
    soft = np.float32(0.8) * y.astype(np.float32) + np.float32(0.1)
    for loss in (
        jxent.sigmoid_binary_cross_entropy,
        jxent.sigmoid_focal_loss,
        jxent.asymmetric_loss,
    ):
        same(loss(z, y, label_smoothing=0.2), loss(z, soft))


@pytest.mark.parametrize("y", [-0.2, 1.2, 2.0])
def test_a_float_label_outside_its_range_is_a_number_in_the_formula(y):
    """Of focal loss too, where a whole γ has no logarithm of 1 − p_t."""

    def focal(z):
        log_p, log_q = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
        miss = 1 - (y * jnp.exp(log_p) + (1 - y) * jnp.exp(log_q))
        return -(miss**2) * (y * log_p + (1 - y) * log_q)

    of_label = lambda z: jxent.sigmoid_focal_loss(z, jnp.full_like(z, y), gamma=2)
    z = jnp.array([-5.0, -1.0, 0.0, 2.0, 5.0])
    wanted, got = (jax.vmap(jax.value_and_grad(f))(z) for f in (focal, of_label))
    same(got[0], wanted[0], rtol=1e-5)
    same(got[1], wanted[1], rtol=1e-4, atol=1e-6)


def test_pos_weight_is_one_for_each_class():
    """Of the y-term alone, from the last axis, also with as many rows as classes."""
    z, y = spread(5, 5), (spread(5, 5) > 0.4).astype(np.float32)
    log_p, log_q = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    expected = -(W[None] * y * log_p + (1 - y) * log_q)
    same(jxent.sigmoid_binary_cross_entropy(z, y, pos_weight=W), expected)
    asymmetric = jxent.asymmetric_loss(z, y, pos_weight=W, gamma_neg=0.0, clip=0.0)
    same(asymmetric, expected)
    p = jax.nn.sigmoid(z)
    same(jxent.binary_cross_entropy(p, y, pos_weight=W), expected, rtol=1e-5)


def test_focal_alpha_weighs_label_1():
    """α for 1, 1 − α for 0; keywords only, so that α and γ cannot be swapped."""
    z, y = spread(4), jnp.array([1, 0, 1, 0])
    plain = jxent.sigmoid_focal_loss(z, y)
    weighted = jxent.sigmoid_focal_loss(z, y, alpha=0.25)
    same(weighted, plain * jnp.where(y == 1, 0.25, 0.75))
    for loss in (
        jxent.sigmoid_focal_loss,
        jxent.softmax_focal_loss,
        jxent.asymmetric_loss,
    ):
        kinds = inspect.signature(loss).parameters
        names = {"alpha", "gamma", "gamma_pos", "gamma_neg"} & set(kinds)
        assert names
        for name in names:
            assert kinds[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_soft_cap_comes_before_the_temperature():
    """c tanh(z/c), then the division; its slope is in the gradient."""
    x, labels = 3 * spread(3, 5), jnp.array([0, 2, 4])

    def textbook(x):
        return -jnp.take_along_axis(
            jax.nn.log_softmax(jnp.tanh(x) / 0.5), labels[:, None], -1
        )[:, 0]

    got = value_and_grad(
        lambda x: cross_entropy(x, labels, logit_soft_cap=1.0, temperature=0.5), x
    )
    for a, b in zip(got, value_and_grad(textbook, x), strict=True):
        same(a, b, rtol=1e-5, atol=1e-6)


def test_statistics_have_gradients():
    """lse, log-probability and entropy, none of them a silent 0."""
    x, labels = spread(3, 5), jnp.array([0, 2, 4])

    def statistics(x):
        _, s = jxent.with_statistics(cross_entropy)(x, labels)
        return s.lse, s.log_prob, s.entropy

    def textbook(x):
        log_p = jax.nn.log_softmax(x)
        at = log_p[jnp.arange(3), labels]
        return jax.nn.logsumexp(x, -1), at, -jnp.sum(jnp.exp(log_p) * log_p, -1)

    each = [
        lambda x, f=f, i=i: f(x)[i] for f in (statistics, textbook) for i in (0, 1, 2)
    ]
    results = values_and_grads(each, *[x] * 6)
    for got, expected in zip(results[:3], results[3:], strict=True):
        for a, b in zip(got, expected, strict=True):
            same(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_probability_outside_its_range_is_nan(p, label):
    """The label's own logarithm may exist; loss and gradient are NaN all the same."""
    probs, labels = jnp.array([p, 0.5]), jnp.array([label, label])
    loss, slope = jax.value_and_grad(
        lambda probs: jxent.binary_cross_entropy(probs, labels, reduction="sum")
    )(probs)
    assert jnp.isnan(loss)
    assert jnp.isnan(slope[0])
    assert jnp.isfinite(slope[1])
    dropped = jxent.binary_cross_entropy(probs, labels, where=probs == 0.5)
    assert dropped[0] == 0
