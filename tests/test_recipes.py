"""The recipes of the site's page, on inputs of a test: each by its formula.

What is compared is the page's own code, its values and its gradients.
"""

import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles, pages
from tests.comparing import close
from tests.heads import of_layout


pytestmark = pytest.mark.usefixtures("x64", "as_users_have_it")
recipe = functools.partial(pages.recipe, "recipes.md")
ROWS, FEATURES, CLASSES = 6, 3, 5
COUNTS = np.array([1000.0, 400, 60, 20, 5])


@pytest.fixture
def batch(rng):
    z = 3 * rng.normal(size=(ROWS, CLASSES))
    return z, rng.integers(0, CLASSES, ROWS)


def at(x, y):
    return x[np.arange(len(y)), y]


def of_all(*losses, at):
    """Values and gradients of losses of the same arrays, in one program."""
    places = tuple(range(len(at)))
    run = jax.jit(lambda *x: [jax.value_and_grad(f, places)(*x) for f in losses])
    return jax.device_get(run(*at))


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_logit_adjustment_is_a_bias_of_the_head(tau, implementation, batch, rng):
    """The loss of the adjusted logits, and its gradients in hidden and kernel."""
    hidden, y = rng.normal(size=(ROWS, FEATURES)), batch[1]
    kernel = rng.normal(size=(FEATURES, CLASSES))
    prior, heads = COUNTS / COUNTS.sum(), of_layout(implementation, (2, 2))
    library = types.SimpleNamespace(**vars(jxent) | {"LinearLogits": heads})

    def fused(hidden, kernel):
        given = {"hidden": hidden, "kernel": kernel, "targets": y, "tau": tau}
        after = "*Logit adjustment*"
        given |= {"prior": prior, "jxent": library}
        return recipe("adjustment fused", after=after, **given)["fused"]

    def textbook(hidden, kernel):
        z = hidden @ kernel
        margins = tau * np.log(prior) - tau * np.log(prior)[y][:, None]
        differences = z + margins - at(z, y)[:, None]
        return jnp.mean(jnp.log(jnp.sum(jnp.exp(differences), -1)))

    close(*of_all(fused, textbook, at=(hidden, kernel)))


def test_balanced_softmax_is_logit_adjustment_by_the_counts(batch):
    z, y = batch

    def textbook(z):
        p = COUNTS * jnp.exp(z)
        return -jnp.mean(jnp.log(at(p / jnp.sum(p, -1, keepdims=True), y)))

    def loss(z):
        given = {"x": z, "y": y, "counts": COUNTS}
        return recipe("loss", after="*Balanced softmax*", **given)["loss"]

    close(*of_all(loss, textbook, at=(z,)))


def test_ldam_with_weights(batch):
    """Margins of n^(−1/4), a scale, and class-balanced weights, as the paper's code."""
    z, y = batch
    cosines, scale, beta = np.tanh(z), 30, 0.9999
    margin = 0.5 * (COUNTS.min() / COUNTS) ** 0.25
    given = {"cosines64": cosines, "y": y, "counts": COUNTS}
    got = recipe("margin w loss", after="*Margins* as in", **given)["loss"]
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
        names, given = "loss_of losses loss", {"targets": y, "mask": kept, "beta": beta}
        given |= {"logits": z}
        return recipe(names, after="## Confidence penalty", **given)["loss"]

    log_p = oracles.log_softmax(z)
    p, entropy = np.exp(log_p), oracles.softmax_entropy(z)
    ((value, (gradient,)),) = of_all(loss, at=(z,))
    close(value, (-at(log_p, y) - beta * entropy)[kept].mean())
    slopes = oracles.softmax_cross_entropy_gradient(z, y)
    slopes += beta * p * (log_p + entropy[:, None])
    close(gradient, slopes * kept[:, None] / kept.sum(), 1e-10)


# Regression as classification ---------------------------------------------------------


def test_hl_gauss(batch):
    """A normal distribution between the edges of each class, by the error function."""
    z, _ = batch
    edges, sigma = np.linspace(-1, 1, CLASSES + 1), 0.3
    values = np.array([-1.0, -0.2, 0.37, 1.0, 90.0, -7.0])

    def loss(z, values):
        given = {"edges": edges, "sigma": sigma, "x": z, "values": values}
        return recipe("hl_gauss loss", after="*HL-Gauss*", **given)["loss"]

    inside = np.clip(values, -1, 1)[:, None]
    below = np.vectorize(math.erf)((edges - inside) / (sigma * 2**0.5))
    q = np.diff(below) / (below[:, -1:] - below[:, :1])
    ((value, (in_logits, in_values)),) = of_all(loss, at=(z, values))
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
    given = {"support": support, "discount": discount, "next_p": p, "x64": z}
    given |= {"reward": reward[:, None]}

    @jax.jit
    def loss(z):
        names = "moved shares labels loss"
        return recipe(names, after="*C51* learns", x=z, **given)["loss"]

    close(loss(z), -np.sum(target * oracles.log_softmax(z)) / ROWS)


# Classes in an order ------------------------------------------------------------------


def test_coral_and_corn(batch):
    """One question of all examples each, or of those that passed the one before.

    CORAL has one output and a bias for each question, CORN an output for each.
    """
    z, y = batch
    levels = np.arange(CLASSES - 1)
    above, asked = y[:, None] > levels, y[:, None] >= levels

    def both(z, g, biases):
        given = {"x": z, "output": g[:, None], "biases": biases}
        names = "above coral answers asked corn"
        of_page = recipe(names, after="*CORAL*", K=CLASSES, grades=y, **given)
        return jnp.stack([of_page["coral"], of_page["corn"]])

    def textbook(z, g, biases):
        of_coral, of_corn = (
            -jnp.log(jnp.where(above, jax.nn.sigmoid(x), 1 - jax.nn.sigmoid(x)))
            for x in (g[:, None] + biases, z)
        )
        corn = jnp.sum(of_corn, where=asked) / asked.sum()
        return jnp.stack([of_coral.sum() / ROWS, corn])

    inputs = z[:, :-1], z[:, -1], np.array([2.0, 1, -0.5, -1])
    slopes = lambda f: jax.jacrev(lambda *x: (f(*x),) * 2, (0, 1, 2), has_aux=True)
    run = jax.jit(lambda *x: [slopes(f)(*x) for f in (both, textbook)])
    got, wanted = jax.device_get(run(*inputs))
    close(got, wanted, 1e-10)


def test_corn_counts_the_products_above_one_half():
    """A grade by the probability of y > k, the product of the questions up to k."""
    conditional = np.array(
        [[0.9, 0.8, 0.6, 0.9], [0.7, 0.7, 0.99, 0.2], [0.4, 1, 1, 1]]
    )
    products = np.cumprod(conditional, axis=1)
    with np.errstate(divide="ignore"):
        answers = np.log(conditional) - np.log(1 - conditional)
    names = "log_above grade wrong"
    of_page = recipe(names, after="those above one half", answers=answers)
    assert of_page["grade"].tolist() == (products > 0.5).sum(1).tolist() == [2, 1, 0]
    assert of_page["wrong"].tolist() == [4, 3, 3]  # CORAL's rule


# Routers ------------------------------------------------------------------------------


def test_load_balance_and_z_loss_of_a_router(batch):
    """E Σ f P over all experts; the gradient is that of P alone."""
    z, _ = batch
    kept, k = np.arange(ROWS) != 1, 2

    def losses(z):
        given = {"router": z[None], "mask": kept[None], "E": CLASSES, "k": k}
        names = "statistics chosen sent p P balance z_loss"
        of_page = recipe(names, after="## Routers of experts", **given)
        return of_page["balance"] + of_page["z_loss"]

    of_kept = z[kept]
    log_p = oracles.log_softmax(of_kept)
    p, lse = np.exp(log_p), of_kept[:, 0] - log_p[:, 0]
    sent = np.argsort(np.argsort(-of_kept, 1), 1) < k
    f = sent.mean(0) / k
    ((value, (gradient,)),) = of_all(losses, at=(z,))
    close(value, CLASSES * np.sum(f * p.mean(0)) + np.mean(lse**2))
    slopes = CLASSES * p * (f - p @ f[:, None]) + 2 * lse[:, None] * p
    close(gradient[kept], slopes / kept.sum())
    np.testing.assert_array_equal(gradient[~kept], 0)


# In-batch and sampled softmax: the page's batches have eight rows ---------------------


def test_in_batch_softmax_with_log_q(rng):
    """The softmax over all items, up to log q and log B, and its gradients.

    The limit of large batches: each item is there as often as its probability says.
    """
    queries, table = rng.normal(size=(2, 8, FEATURES))
    item = np.array([0, 1, 2, 1, 3, 0, 4, 1])
    table, log_q = table[:5], np.log(np.bincount(item) / 8)[item]

    def in_batch(queries, table):
        given = {"queries": queries, "items": table[item], "log_q": log_q}
        return recipe("in_batch", after="## In-batch", **given)["in_batch"]()

    def over_all(queries, table):
        return -jnp.mean(at(jax.nn.log_softmax(queries @ table.T), item))

    got, wanted = of_all(in_batch, over_all, at=(queries, table))
    close(got, wanted, 1e-10)


def test_sampled_softmax_is_fair_to_every_class(rng):
    """On average the sum over the label and what is drawn is that over all classes.

    Each of the draws is the same class, with its probability; each query is alone.
    """
    queries, table = rng.normal(size=(2, CLASSES, FEATURES))
    y, q = rng.integers(0, CLASSES, CLASSES), np.arange(1.0, 1 + CLASSES)
    q, z = q / q.sum(), queries @ table.T

    def loss(query, y, drawn):
        label = jnp.broadcast_to(query @ table[y], (8, 1))
        given = {"queries": jnp.broadcast_to(query, (8, FEATURES)), "table": table}
        given |= {"label": label, "y": jnp.repeat(y, 8), "q": q}
        given |= {"drawn": jnp.repeat(drawn, 4)}
        of_page = recipe("sampled log_count", after="*Sampled softmax*", **given)
        return of_page["sampled"](of_page["log_count"])

    table = jnp.asarray(table)
    of_draws = jax.vmap(loss, (None, None, 0))
    losses = jax.jit(jax.vmap(of_draws, (0, 0, None)))(queries, y, np.arange(CLASSES))
    close(np.exp(losses + at(z, y)[:, None]) @ q, np.exp(z).sum(1), 1e-10)
