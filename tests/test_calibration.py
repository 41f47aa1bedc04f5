"""Weights of classes from counts, and the fits of temperature and vector scaling."""

import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)
from scipy.optimize import minimize, minimize_scalar

import jxent
from tests.comparing import close
from tests.meshes import on_mesh


pytestmark = pytest.mark.newest_jax

CLASSES = 4


# Weights of classes -------------------------------------------------------------------


def test_inverse_frequency(x64):
    """scikit-learn's "balanced"; a class that does not occur is none."""
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 3], [7, 2, 1])
    counts = np.bincount(y, minlength=5)
    wanted = np.zeros(5)
    wanted[[0, 1, 3]] = compute_class_weight(
        "balanced", classes=np.array([0, 1, 3]), y=y
    )
    close(jxent.class_weights_of_counts(counts), wanted)
    close(jxent.class_weights_of_counts(np.zeros(3)), np.zeros(3))


def test_effective_number(x64):
    """By a Python number and traced; with beta near 1 no digit is lost in float32."""
    counts, betas = np.array([100000, 500, 0, 1]), (0.0, 0.9, 0.9999, 1 - 1e-9)
    weights = jxent.class_weights_of_counts
    few = np.array([5000, 200, 10], np.float32)

    @jax.jit
    def run(traced):
        constant = [weights(counts, beta=beta) for beta in betas]
        return constant, jax.vmap(lambda b: weights(counts, beta=b))(traced)

    def wanted(counts, beta):
        effective = np.where(counts > 0, 1, 0) / -np.expm1(
            np.maximum(counts, 1) * np.log(beta) if beta else -np.inf
        )
        return effective / effective.sum() * np.sum(counts > 0)

    for beta, constant, traced in zip(betas, *run(np.array(betas)), strict=True):
        close(constant, wanted(counts, beta), 1e-7)
        close(traced, wanted(counts, beta), 1e-6)
    with jax.enable_x64(False):
        got = weights(few, beta=0.9999)
    assert got.dtype == jnp.float32
    close(got, np.float32(wanted(few.astype(float), 0.9999)), 1e-6)


def test_derivatives_in_beta_and_counts(x64):
    """Those of the formula; at a beta of 0 as close to it, to the second order."""

    def naive(beta, counts):
        share = (1 - beta) / (1 - beta**counts)
        return 3 * share / jnp.sum(share)

    ours = lambda beta, counts: jxent.class_weights_of_counts(counts, beta=beta)
    orders = jax.jacfwd, jax.jacrev, jax.hessian
    results = lambda f, *at: [order(f, (0, 1))(*at) for order in orders]
    run = jax.jit(lambda *at: (results(ours, *at), results(naive, *at)))
    for beta in (0.3, 0.99):
        close(*run(beta, np.array([9.0, 1.5, 2.0])), tolerance=1e-8)
    at = jax.jit(functools.partial(results, ours))
    for counts in ([9.0, 1.0, 2.0, 0.0], [9.0, 3.0, 2.0, 0.0]):
        counts = np.array(counts)
        (_, first, second), (_, near, second_near) = (
            at(b, counts) for b in (0.0, 1e-9)
        )
        close((first, second[0][0]), (near, second_near[0][0]), 1e-7)


# Fits ---------------------------------------------------------------------------------


def held_out(rng, rows=200, sure=3.0):
    """Logits that are `sure` times as far apart as their labels deserve."""
    z = 1.5 * rng.normal(size=(rows, CLASSES))
    y = np.argmax(z + rng.gumbel(size=z.shape), -1)
    return sure * z, y


def loss_of(z, y, r):
    """The mean cross-entropy of logits; of binary labels where these are one axis."""
    if z.ndim == 1:
        z = np.stack([np.zeros_like(z), z], -1)
    top = z.max(-1)
    lse = top + np.log(np.exp(z - top[:, None]).sum(-1))
    return np.sum(r * (lse - z[np.arange(len(y)), y])) / r.sum()


def best_temperature(z, y, r):
    f = lambda log_t: loss_of(z / np.exp(log_t), y, r)
    found: Any = minimize_scalar(f, (-1, 1), tol=1e-12)
    return np.exp(found.x)


def masks(rng, y):
    """Options that drop rows, and the r that they make."""
    where, weights = rng.random(y.shape) < 0.8, rng.integers(0, 3, y.shape) / 2
    options = {"where": where, "weights": weights, "ignore_index": 1}
    return options, where * weights * (y != 1)


def test_temperature(x64, rng):
    """Where the loss of the rows that count is least, whatever the others hold."""
    z, y = held_out(rng)
    options, r = masks(rng, y)
    fit = jax.jit(lambda z, y, options: jxent.fit_temperature(z, y, **options))
    ones = np.ones(len(y))
    every = {"where": ones > 0, "weights": ones, "ignore_index": -1}
    close(fit(z, y, every), best_temperature(z, y, ones), 1e-6)
    wanted = best_temperature(z, y, r)
    z[r == 0] = np.nan
    close(fit(z, y, options), wanted, 1e-6)


def test_temperature_of_yes_and_no(x64, rng):
    """For logits of any scale, in float32 too."""
    z = 2 * rng.normal(size=300)
    y = rng.random(300) < 1 / (1 + np.exp(-z))
    fit = jax.jit(lambda z: jxent.fit_temperature(z, y, ()))
    wanted = best_temperature(5 * z, y.astype(int), np.ones(300))
    close(fit(5 * z), wanted, 1e-6)
    for scale in np.array([1e-30, 3e-4, 5, 1e30], np.float32):
        t = fit(scale * np.float32(z))
        assert t.dtype == jnp.float32
        close(t / scale, np.float32(wanted / 5), 1e-4)


def test_temperature_follows_the_scale(rng):
    """Of logits, in float32; the derivative of the loss in log T is 0."""
    z, y = held_out(rng)
    z = z.astype(np.float32)

    @jax.jit
    def run(z, scale):
        t = jxent.fit_temperature(scale * z, y)
        loss = lambda log_t: jxent.softmax_cross_entropy(
            scale * z, y, temperature=jnp.exp(log_t), reduction="mean"
        )
        return t, jax.grad(loss)(jnp.log(t))

    wanted, _ = run(z, 1.0)
    for scale in (1e-15, 3e-4, 1e-3, 1.0, 1e4, 1e15):
        t, slope = jax.device_get(run(z, scale))
        assert t.dtype == np.float32
        close(t / scale, wanted, 1e-4)
        assert abs(slope) < 1e-5


def test_temperature_beside_classes_that_are_no_answer(rng):
    """−1e9 in place of a mask, in float32: the scale is that of the other logits."""
    z, y = held_out(rng)
    z = jnp.asarray(z, jnp.float32)
    wanted = jxent.fit_temperature(z, y)
    for never in (-1e9, -np.inf):
        more = jnp.pad(z, ((0, 0), (0, 3)), constant_values=never)
        close(jxent.fit_temperature(more, y), wanted, 1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("fit", [jxent.fit_temperature, jxent.fit_vector_scaling])
def test_fits_in_float32_with_64_bits_on(fit, dtype, rng):
    """The results of 64 bits off, in the same dtypes."""
    z, y = held_out(rng)
    wanted = fit(jnp.asarray(z, dtype), jnp.asarray(y))
    with jax.enable_x64(True):
        got = fit(jnp.asarray(z, dtype), jnp.asarray(y))
    for result in jax.tree.leaves(got):
        assert result.dtype == jnp.float32
    close(got, wanted, 1e-4)


def test_temperatures_of_many(x64, rng):
    """vmap fits each by itself."""
    z, y = held_out(rng, 120)
    z, y = z.reshape(3, 40, CLASSES), y.reshape(3, 40)
    wanted = [best_temperature(*part, np.ones(40)) for part in zip(z, y, strict=True)]
    close(jax.vmap(jxent.fit_temperature)(z, y), np.array(wanted), 1e-6)


@pytest.mark.newest_jax
def test_temperature_over_devices(x64, rng):
    """One for the rows of all: arrays that a mesh splits, and inside of shard_map."""
    z, y = held_out(rng, 80)
    wanted = best_temperature(z, y, np.ones(80))
    specs, how = (P("data"),) * 2, {"shape": (8, 1), "kind": AxisType.Explicit}
    for results in (None, P()):
        got = on_mesh(jxent.fit_temperature, (z, y), specs, results=results, **how)
        close(got, wanted, 1e-6)


def test_a_fit_has_no_reverse_mode(rng):
    """An error, and no silent 0."""
    z, y = held_out(rng, 8)
    with pytest.raises(ValueError, match="Reverse-mode"):
        jax.grad(jxent.fit_temperature)(jnp.float32(z), y)


def test_what_has_no_best_temperature():
    z, y = np.float32(5 * np.eye(4)), np.arange(4)
    fit = jax.jit(jxent.fit_temperature)
    assert fit(z, y, where=False) == 1
    assert 0 < fit(z, y) < 1  # all right: the lower the better
    assert 10 < fit(z, y[::-1]) < np.inf  # all wrong
    assert np.isnan(fit(z, y + 1))  # a bad label
    assert np.isnan(fit(np.where(np.arange(4)[:, None] == 0, np.float32(np.nan), z), y))


def test_vector_scaling(x64, rng):
    """Along any axis: the least loss, below that of a temperature alone."""
    z, y = held_out(rng)
    z = z * [1.0, 2.0, 0.5, 1.0] + [0.0, 1.0, -1.0, 0.5]
    options, r = masks(rng, y)
    f = lambda x: loss_of(x[:CLASSES] * z + x[CLASSES:], y, r)
    wanted = minimize(f, np.repeat([1.0, 0.0], CLASSES), tol=1e-12).fun
    spoilt = np.where(r[:, None] == 0, np.nan, z).T
    scale, bias = map(np.asarray, jxent.fit_vector_scaling(spoilt, y, 0, **options))
    got = f(np.concatenate([scale, bias]))
    assert got <= wanted + 1e-9
    temperature = np.asarray(jxent.fit_temperature(z, y, **options))
    assert got < loss_of(z / temperature, y, r)


def test_vector_scaling_of_impossible_classes(x64, rng):
    """Logits of −inf stay, and make no NaN."""
    z, y = held_out(rng)
    z[rng.random(z.shape) < 0.2] = -np.inf
    z[np.arange(len(y)), y] = 1.0
    scale, bias = map(np.asarray, jxent.fit_vector_scaling(z, y))
    assert np.isfinite([scale, bias]).all()
    r = np.ones(len(y))
    assert loss_of(z * scale + bias, y, r) < loss_of(z, y, r)


def test_platt_scaling(x64, rng):
    z = 2 * rng.normal(size=300)
    y = rng.random(300) < 1 / (1 + np.exp(-(0.5 * z + 1)))
    f = lambda x: loss_of(x[0] * z + x[1], y.astype(int), np.ones(300))
    wanted = minimize(f, [1.0, 0.0], tol=1e-12).x
    scale, bias = jxent.fit_vector_scaling(z, y, ())
    close(jnp.stack([scale, bias]), wanted, 1e-5)


def test_without_optax(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError) as error:
        jxent.fit_temperature(jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32))
    assert str(error.value) == (
        "fit_temperature: needs Optax, whose L-BFGS it runs: pip install optax."
    )
