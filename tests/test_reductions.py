"""Sums and means: their denominators, parts of a batch, and losses of any axes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jxent
from tests import oracles
from tests.cases import BARE, CLASSES, EACH_LOSS, WEIGHTS, yes_no
from tests.comparing import close, same
from tests.compiling import as_users_jit


ROWS = 6
REDUCTIONS = "none", "sum", "mean"


def test_reduce_and_total_weight_make_the_weighted_mean(x64, rng):
    """Σ r · loss / Σ r, for ids and for distributions of any mass."""
    x, y = 3 * rng.normal(size=(ROWS, CLASSES)), rng.integers(0, CLASSES, ROWS)
    q, weights = rng.uniform(size=x.shape), np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])
    where = np.arange(ROWS) % 3 != 2
    options: dict[str, Any] = {"where": where, "weights": weights}

    @jax.jit
    def run(*kinds):
        def of(labels):
            loss = functools.partial(jxent.softmax_cross_entropy, x, labels)
            reduced = functools.partial(jxent.reduce, loss(), **options)
            mean, total = loss(reduction="mean", **options), jxent.total_weight
            return (
                mean,
                total(labels, **options),
                {r: reduced(reduction=r) for r in REDUCTIONS},
            )

        return [of(labels) for labels in kinds]

    r = where * weights
    for got, labels, factor in zip(run(y, q), (y, q), (1, q.sum(-1)), strict=True):
        losses = oracles.softmax_cross_entropy(x, labels)
        total, count = (r * losses).sum(), (r * factor).sum()
        reduced = {"none": r * losses, "sum": total, "mean": total / r.sum()}
        close(got, (total / count, count, reduced))


def test_micro_batches_sum_to_the_mean_of_all(x64, rng):
    """With the whole batch's total_weight as normalizer; a mean of means is another."""
    x, y = 3 * rng.normal(size=(ROWS, CLASSES)), rng.integers(0, CLASSES, ROWS)
    y[:2] = -100
    options = {"ignore_index": -100, "class_weights": WEIGHTS}
    loss = functools.partial(
        jxent.softmax_cross_entropy,
        reduction="mean",
        z_loss=0.01,
        label_smoothing=0.1,
        **options,
    )
    weights = rng.uniform(0.5, 2, ROWS)
    total = jxent.total_weight(y, weights=weights, **options)

    @jax.jit
    def run(x, y, weights):
        both = jax.value_and_grad(loss)(x, y, weights=weights, normalizer=total)
        return *both, loss(x, y, weights=weights)

    value, gradient, mean = jax.device_get(run(x, y, weights))
    close(value, mean)
    for parts in (2, 3):
        few = zip(*(np.split(a, parts) for a in (x, y, weights)), strict=True)
        each = (jax.device_get(run(*z)) for z in few)
        values, slopes, means = zip(*each, strict=True)
        close(sum(values), value)
        close(np.concatenate(slopes), gradient)
        assert abs(np.mean(means) - value) > 1e-3


@pytest.mark.parametrize(
    ("loss", "logits"),
    [
        (jxent.softmax_cross_entropy, jnp.matmul),
        (jxent.softmax_focal_loss, jnp.matmul),
        (jxent.poly_loss_cross_entropy, jnp.matmul),
        (jxent.categorical_cross_entropy, lambda *x: jax.nn.softmax(jnp.matmul(*x))),
        (jxent.softmax_cross_entropy, jxent.LinearLogits),
    ],
    ids=["cross-entropy", "focal", "poly", "probabilities", "head"],
)
def test_optax_multi_steps(loss, logits, rng):
    """It averages gradients: the total over k gives the whole batch's update."""
    k, kernel = 3, jnp.asarray(rng.normal(size=(4, CLASSES)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(ROWS, 4)), jnp.float32)
    y = jnp.asarray([0, 1, 2, -100, -100, -100])  # in threes of 2, 1 and 0
    # Of an array of NumPy that was traced under 64 bits JAX keeps those 64 bits.
    weights = jnp.asarray(WEIGHTS, jnp.float32)
    options: dict[str, Any] = {"ignore_index": -100, "class_weights": weights}

    def mean(kernel, x, y, normalizer=None):
        z = logits(x, kernel)
        return loss(z, y, reduction="mean", normalizer=normalizer, **options)

    def update(kernel, normalizer, **settings):
        """The k-th: the one that changes the parameters."""
        with jax.numpy_dtype_promotion("standard"):
            tx = optax.MultiSteps(optax.sgd(0.5), k, **settings)
            state, updates = tx.init(kernel), None
            for micro in zip(jnp.split(x, k), jnp.split(y, k), strict=True):
                slope = jax.grad(mean)(kernel, *micro, normalizer)
                updates, state = tx.update(slope, state)
        return updates, tx.has_updated(state)

    @jax.jit
    def run(kernel):
        total = jxent.total_weight(y, **options)
        updates = (
            update(kernel, total / k),
            update(kernel, total),
            update(kernel, total, use_grad_mean=False),
        )
        return jax.grad(mean)(kernel, x, y), updates

    gradient, updates = jax.device_get(run(kernel))
    whole = -0.5 * gradient
    # Without the division by k the step is too small, as the docstring warns.
    for (got, updated), wanted in zip(updates, (whole, whole / k, whole), strict=True):
        assert updated
        close(got, wanted, 1e-6)


def test_reduce(x64, rng):
    """Over any axes; where and weights drop NaN and infinities, gradient included."""
    losses = rng.normal(size=(2, 3, 4))
    where, weights = rng.random((2, 3, 4)) < 0.6, rng.uniform(0, 2, (2, 3, 4))
    weights[0, 0] = 0
    where[1] = False
    r = where * weights
    garbage = rng.choice([np.nan, np.inf, -np.inf, 1e308, -1e308], r.shape)
    spoilt = np.where(where, weights, np.nan)
    axes: tuple[Any, ...] = (None, 0, -1, (0, 2), (0, 1, 2))
    calls = [{"axis": axis, "reduction": name} for axis in axes for name in REDUCTIONS]

    @jax.jit
    def run(losses, weights):
        f = functools.partial(jxent.reduce, where=where, weights=weights)
        slope = lambda call: jax.grad(lambda x: jnp.sum(f(x, **call)))(losses)
        return [(f(losses, **call), slope(call)) for call in calls]

    clean = jax.device_get(run(losses, weights))
    dirty = jax.device_get(run(np.where(r == 0, garbage, losses), spoilt))
    for call, got, plain in zip(calls, dirty, clean, strict=True):
        total, count = ((x * r).sum(call["axis"]) for x in (losses, np.ones(r.shape)))
        mean = np.where(count == 0, 0, total / np.where(count == 0, 1, count))
        wanted = {"none": r * losses, "sum": total, "mean": mean}[call["reduction"]]
        close(got[0], wanted)
        assert not np.any(got[1][r == 0])
        close(got[1], plain[1])
        if call["axis"] is None:
            close(got[1], r / (r.sum() if call["reduction"] == "mean" else 1))


def test_many_rows_of_few_classes(rng):
    """They are one axis on a CPU, if nothing but the classes is shorter: the same."""
    cases = [c for c in BARE if c.takes("elementwise") and c.labels is yes_no]
    cases += [c for c in EACH_LOSS if c.loss is cases[0].loss]
    each = [case.inputs(rng, rows=(2, 2200)) for case in cases]
    each = [(x.astype(np.float32), y) for x, y in each]
    where = rng.random(each[0][0].shape) < 0.8

    @as_users_jit
    def run(each, where):
        def one(case, x, y):
            total = lambda x: jnp.sum(case(x, y, where=where))
            mean = case(x, y, where=where, reduction="mean")
            return case(x, y, where=where), *jax.value_and_grad(total)(x), mean

        return [one(case, *inputs) for case, inputs in zip(cases, each, strict=True)]

    few = [(x[:, :10], y[:, :10]) for x, y in each]
    of_all, of_few = jax.device_get((run(each, where), run(few, where[:, :10])))
    assert each[0][0].size > 2**15
    for case, (losses, total, gradient, mean), (wanted, _, slope, _) in zip(
        cases, of_all, of_few, strict=True
    ):
        assert losses.shape == where.shape
        same(losses[:, :10], wanted, 1e-6, 1e-7)
        same(gradient[:, :10], slope, 1e-6, 1e-7)
        same(total, losses.astype(np.float64).sum(), 1e-6)
        if not case.options:  # class weights, which a mean divides by
            same(mean, total / where.sum(), 1e-6)
