"""Losses of papers that are a call with options: the recipes of the site."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.comparing import close
from tests.heads import of_layout


ROWS, FEATURES, CLASSES = 6, 3, 5
COUNTS = np.array([1000.0, 400, 60, 20, 5])


@pytest.fixture
def batch(x64, rng):
    z = 3 * rng.normal(size=(ROWS, CLASSES))
    return z, rng.integers(0, CLASSES, ROWS)


def at(x, y):
    return x[np.arange(len(y)), y]


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_logit_adjustment_is_a_bias_of_the_head(tau, implementation, rng, x64):
    """The loss of the adjusted logits, and its gradients in hidden and kernel."""
    hidden = rng.normal(size=(ROWS, FEATURES))
    kernel = rng.normal(size=(FEATURES, CLASSES))
    y = rng.integers(0, CLASSES, ROWS)
    prior = COUNTS / COUNTS.sum()

    def fused(hidden, kernel):
        head = of_layout(implementation, (2, 2))
        logits = head(hidden, kernel, tau * np.log(prior))
        return jxent.softmax_cross_entropy(logits, y, reduction="mean")

    def textbook(hidden, kernel):
        z = hidden @ kernel
        margins = tau * np.log(prior)[None, :] - tau * np.log(prior)[y][:, None]
        differences = z + margins - at(z, y)[:, None]
        return jnp.mean(jnp.log(jnp.sum(jnp.exp(differences), -1)))

    got, wanted = (
        jax.value_and_grad(f, (0, 1))(hidden, kernel) for f in (fused, textbook)
    )
    jax.tree.map(close, got, wanted)


def test_balanced_softmax_is_logit_adjustment_by_the_counts(batch):
    z, y = batch

    def textbook(z):
        p = COUNTS[None] * jnp.exp(z)
        return -jnp.log(at(p / jnp.sum(p, -1, keepdims=True), y))

    def loss(z):
        return jxent.softmax_cross_entropy(z + np.log(COUNTS)[None], y)

    close(loss(z), textbook(z))
    gradients = (jax.grad(lambda z, f=f: jnp.sum(f(z)))(z) for f in (loss, textbook))
    close(*gradients)


def test_ldam_with_weights(batch):
    """Margins of n^(−1/4), a scale, and class-balanced weights, as the paper's code."""
    z, y = batch
    cosines, scale, beta = np.tanh(z), 30, 0.9999
    margin = 0.5 * (COUNTS.min() / COUNTS) ** 0.25
    got = jxent.softmax_cross_entropy(
        cosines,
        y,
        margin=margin,
        temperature=1 / scale,
        class_weights=jxent.class_weights_of_counts(COUNTS, beta=beta),
        reduction="mean",
    )
    weights = (1 - beta) / (1 - beta**COUNTS)
    weights = weights / weights.sum() * CLASSES
    lowered = np.where(np.arange(CLASSES) == y[:, None], cosines - margin, cosines)
    losses = -at(oracles.log_softmax(scale * lowered), y)
    close(got, (weights[y] * losses).sum() / weights[y].sum(), 1e-6)


def test_the_confidence_penalty(batch):
    """−log p_y − β H, whose gradient is p − onehot(y) + β p (log p + H)."""
    z, y = batch
    beta, kept = 0.3, np.arange(ROWS) != 2

    def loss(z):
        losses, statistics = jxent.softmax_cross_entropy(z, y, return_statistics=True)
        penalized = losses - beta * statistics.entropy
        return jxent.reduce(penalized, where=kept, reduction="sum")

    log_p = oracles.log_softmax(z)
    p, entropy = np.exp(log_p), oracles.softmax_entropy(z)
    value, gradient = jax.value_and_grad(loss)(z)
    close(value, (-at(log_p, y) - beta * entropy)[kept].sum())
    slopes = oracles.softmax_cross_entropy_gradient(z, y)
    slopes += beta * p * (log_p + entropy[:, None])
    close(gradient, slopes * kept[:, None], 1e-10)
