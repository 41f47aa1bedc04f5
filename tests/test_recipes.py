"""Losses of papers that are a call with options: the recipes of the site."""

import math

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
        losses, statistics = jxent.with_statistics(jxent.softmax_cross_entropy)(z, y)
        penalized = losses - beta * statistics.entropy
        return jxent.reduce(penalized, where=kept, reduction="sum")

    log_p = oracles.log_softmax(z)
    p, entropy = np.exp(log_p), oracles.softmax_entropy(z)
    value, gradient = jax.value_and_grad(loss)(z)
    close(value, (-at(log_p, y) - beta * entropy)[kept].sum())
    slopes = oracles.softmax_cross_entropy_gradient(z, y)
    slopes += beta * p * (log_p + entropy[:, None])
    close(gradient, slopes * kept[:, None], 1e-10)


# Regression as classification ---------------------------------------------------------


def test_hl_gauss(batch):
    """A normal distribution between the edges of each class, by the error function."""
    z, _ = batch
    edges, sigma = np.linspace(-1, 1, CLASSES + 1), 0.3
    values = np.array([-1.0, -0.2, 0.37, 1.0, 90.0, -7.0])

    def loss(z, values):
        centre = jnp.clip(values, edges[0], edges[-1])[..., None]
        below = jax.scipy.stats.norm.cdf(edges[None], centre, sigma)
        q = jnp.diff(below) / (below[..., -1:] - below[..., :1])
        return jxent.softmax_cross_entropy(z, q, reduction="mean")

    inside = np.clip(values, -1, 1)[:, None]
    below = np.vectorize(math.erf)((edges - inside) / (sigma * 2**0.5))
    q = np.diff(below) / (below[:, -1:] - below[:, :1])
    both = jax.jit(jax.value_and_grad(loss, (0, 1)))
    value, (in_logits, in_values) = both(z, values)
    close(value, -np.sum(q * oracles.log_softmax(z)) / ROWS)
    close(in_logits, (np.exp(oracles.log_softmax(z)) - q) / ROWS)
    assert np.all(np.isfinite(in_values))
    np.testing.assert_array_equal(in_values[4:], 0)


def test_c51_is_two_hot_labels_of_the_moved_points(batch, rng):
    """The projection of the paper's algorithm 1, by its loop."""
    z, _ = batch
    support, discount = np.linspace(-1, 1, CLASSES), 0.9
    reward, p = rng.normal(size=ROWS), rng.dirichlet(np.ones(CLASSES), ROWS)
    target = np.zeros((ROWS, CLASSES))
    for row, atom in np.ndindex(target.shape):
        moved = np.clip(reward[row] + discount * support[atom], -1, 1)
        place = (moved + 1) / (support[1] - support[0])
        low, high = math.floor(place), math.ceil(place)
        target[row, low] += p[row, atom] * (1 if low == high else high - place)
        target[row, high] += p[row, atom] * (place - low)
    moved = jxent.two_hot_labels(reward[:, None] + discount * support[None], support)
    shares = jnp.asarray(moved.values) * p[..., None]
    labels = jxent.SparseLabels(
        jnp.asarray(moved.ids).reshape(ROWS, -1), shares.reshape(ROWS, -1)
    )
    wanted = -np.sum(target * oracles.log_softmax(z), axis=1)
    close(jxent.softmax_cross_entropy(z, labels), wanted)


# Classes in an order ------------------------------------------------------------------


def test_coral_and_corn(batch):
    """One question of all examples each, or of those that passed the one before.

    CORAL has one output and a bias for each question, CORN an output for each.
    """
    z, y = batch
    levels = np.arange(CLASSES - 1)
    above, asked = y[:, None] > levels, y[:, None] >= levels

    def losses(z, g, biases):
        loss = jxent.sigmoid_binary_cross_entropy
        shared = g[:, None] + biases[None]
        coral = loss(shared, above, reduction="mean", normalizer=ROWS)
        corn = loss(z, above, where=asked, reduction="mean")
        return jnp.stack([coral, corn])

    def textbook(z, g, biases):
        p = jax.nn.sigmoid(z)
        coral = corn = 0.0
        count = 0
        for row in range(ROWS):
            for k in levels:
                of_coral = jax.nn.sigmoid(g[row] + biases[k])
                coral -= jnp.log(of_coral if above[row, k] else 1 - of_coral) / ROWS
                if y[row] >= k:  # has passed k − 1
                    corn -= jnp.log(p[row, k] if above[row, k] else 1 - p[row, k])
                    count += 1
        return jnp.stack([coral, corn / count])

    inputs = z[:, :-1], z[:, -1], np.array([2.0, 1, -0.5, -1])
    close(losses(*inputs), textbook(*inputs), 1e-10)
    got, wanted = (
        jax.jit(jax.jacrev(f, (0, 1, 2)))(*inputs) for f in (losses, textbook)
    )
    close(got, wanted, 1e-10)


def test_corn_counts_the_products_above_one_half():
    """A grade by the probability of y > k, the product of the questions up to k."""
    conditional = np.array(
        [[0.9, 0.8, 0.6, 0.9], [0.7, 0.7, 0.99, 0.2], [0.4, 1, 1, 1]]
    )
    wanted = []
    for row in conditional.tolist():
        products = [math.prod(row[: k + 1]) for k in range(4)]
        wanted.append(sum(p > 0.5 for p in products))
    with np.errstate(divide="ignore"):
        answers = np.log(conditional) - np.log(1 - conditional)
    log_above = jnp.cumsum(jax.nn.log_sigmoid(answers), axis=-1)
    assert (log_above > jnp.log(0.5)).sum(-1).tolist() == wanted == [2, 1, 0]
    assert (answers > 0).sum(-1).tolist() == [4, 3, 3]  # CORAL's rule


# Routers ------------------------------------------------------------------------------


def test_load_balance_and_z_loss_of_a_router(batch):
    """E Σ f P over all experts; the gradient is that of P alone."""
    z, _ = batch
    kept, k = np.arange(ROWS) != 1, 2

    def losses(z):
        rows = jxent.softmax_statistics(z)
        _, chosen = jxent.softmax_top_k(z, k)
        sent = jax.nn.one_hot(chosen, CLASSES, dtype=z.dtype).sum(-2)
        p = jax.nn.softmax(z)
        f, mean_p = (
            jxent.reduce(x, where=kept[:, None], axis=0) for x in (sent / k, p)
        )
        balance = CLASSES * jnp.sum(f * mean_p)
        return balance + jxent.reduce(rows.lse**2, where=kept)

    of_kept = z[kept]
    log_p = oracles.log_softmax(of_kept)
    p, lse = np.exp(log_p), of_kept[:, 0] - log_p[:, 0]
    sent = np.argsort(np.argsort(-of_kept, 1), 1) < k
    f = sent.mean(0) / k
    value, gradient = jax.jit(jax.value_and_grad(losses))(z)
    close(value, CLASSES * np.sum(f * p.mean(0)) + np.mean(lse**2))
    slopes = CLASSES * p * (f - p @ f[:, None]) + 2 * lse[:, None] * p
    close(gradient[kept], slopes / kept.sum())
    np.testing.assert_array_equal(gradient[~kept], 0)


# In-batch and sampled softmax ---------------------------------------------------------


def test_in_batch_softmax_with_log_q(x64, rng):
    """The softmax over all items, up to log q and log B, and its gradients.

    The limit of large batches: each item is there as often as its probability says.
    """
    queries, table = rng.normal(size=(2, ROWS, FEATURES))
    item = np.array([0, 1, 2, 1, 3, 0])
    table, q = table[:4], np.bincount(item) / ROWS
    log_q, factors = np.log(q)[item], np.cos(np.arange(ROWS))

    def in_batch(queries, table):
        losses = jxent.contrastive_cross_entropy(
            queries, table[item], candidate_bias=-log_q, symmetric=False
        )
        return jnp.sum((losses - log_q - np.log(ROWS)) * factors)

    def over_all(queries, table):
        log_p = jax.nn.log_softmax(queries @ table.T)
        return -jnp.sum(at(log_p, item) * factors)

    got, wanted = (
        jax.jit(jax.value_and_grad(f, (0, 1)))(queries, table)
        for f in (in_batch, over_all)
    )
    close(got, wanted, 1e-10)


def test_sampled_softmax_is_fair_to_every_class(batch):
    """On average the sum over the label and what is drawn is that over all classes."""
    z, y = batch
    q = np.linspace(1, 3, CLASSES) / np.linspace(1, 3, CLASSES).sum()
    count = 4
    total = np.zeros(ROWS)
    for drawn in range(CLASSES):  # each of the draws is this one with probability q
        ids = np.repeat(np.arange(CLASSES)[drawn], count)
        others = z[:, ids] - np.log(count * q[ids])
        logits = np.concatenate([at(z, y)[:, None], others], axis=1)
        own = np.concatenate([np.zeros((ROWS, 1), bool), ids == y[:, None]], axis=1)
        loss = jxent.softmax_cross_entropy(logits, np.zeros(ROWS, int), where=~own)
        total += q[drawn] * np.exp(np.asarray(loss) + at(z, y))
    close(total, np.exp(z).sum(1), 1e-10)
