"""Divergences between two softmaxes: their limits, and what two heads may be."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AxisType,
    NamedSharding,
    PartitionSpec as P,
)

import jxent
from tests import oracles
from tests.comparing import close
from tests.compiling import as_users_jit, largest_array


ROWS, CLASSES, WIDTH, TARGET_WIDTH = 6, 8, 3, 5
KL = jxent.softmax_kl_divergence
JENSEN_SHANNON = jxent.softmax_jensen_shannon_divergence
LINEAR = {
    "KL": jxent.linear_softmax_kl_divergence,
    "Jensen-Shannon": jxent.linear_softmax_jensen_shannon_divergence,
}


def heads(rng, rows=ROWS, classes=CLASSES):
    return tuple(
        rng.normal(size=shape)
        for width in (WIDTH, TARGET_WIDTH)
        for shape in ((rows, width), (width, classes))
    )


def test_impossible_classes(x64):
    """0 where the target has them; +inf where the logits alone do, with a gradient."""
    inf = np.inf
    target = np.array([[1.0, -inf, 0.5], [1.0, 0.0, 0.5], [1.0, -inf, 0.5]])
    logits = np.array([[0.0, 2.0, 1.0], [0.0, -inf, 1.0], [0.0, -inf, 1.0]])
    both = as_users_jit(jax.value_and_grad(lambda z: jnp.sum(KL(z, target)[0::2])))
    _, slope = both(logits)
    np.testing.assert_array_equal(np.isinf(KL(logits, target)), [False, True, False])
    close(KL(logits, target)[2], KL(logits[2, ::2], target[2, ::2]))
    assert np.isfinite(slope).all()
    in_logits, in_target = jax.grad(lambda *x: jnp.sum(KL(*x)), (0, 1))(logits, target)
    assert np.isfinite(in_logits).all()
    assert np.isfinite(in_target[0::2]).all()
    slopes = jax.grad(lambda *x: jnp.sum(JENSEN_SHANNON(*x)), (0, 1))(logits, target)
    assert all(np.isfinite(x).all() for x in slopes)
    assert np.isfinite(JENSEN_SHANNON(logits, target)).all()


def test_equal_softmaxes(rng):
    """Exactly 0 with a gradient of 0, at any offset."""
    z = np.float32(np.round(16 * rng.normal(size=(ROWS, CLASSES))))
    for divergence in (KL, JENSEN_SHANNON):
        for offset in (0, 1024):
            value, slopes = jax.value_and_grad(
                lambda *x, f=divergence: jnp.sum(f(*x)), (0, 1)
            )(z + offset, z)
            assert value == 0
            assert max(np.abs(x).max() for x in slopes) < 1e-7


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_no_further_from_the_truth_than_the_naive_code(scale, rng):
    z, target = (np.float32(scale * rng.normal(size=(256, 64))) for _ in range(2))
    target = target + np.float32(5 * rng.normal(size=(256, 1)))

    def naive(z, target):
        log_p, log_q = jax.nn.log_softmax(z), jax.nn.log_softmax(target)
        return jnp.sum(jnp.exp(log_q) * (log_q - log_p), -1)

    truth = oracles.softmax_kl_divergence(z, target)
    error = lambda f: np.sqrt(np.mean((as_users_jit(f)(z, target) - truth) ** 2))
    head = lambda z, target: jxent.linear_softmax_kl_divergence(
        z,
        jnp.eye(64),
        target,
        jnp.eye(64),
        implementation="streamed",
        block_sizes=(64, 16),
    )
    assert error(KL) <= 1.1 * error(naive) + 1e-9
    assert error(head) <= 1.1 * error(naive) + 1e-9


@pytest.mark.parametrize("beta", [0.5, 0.1])
@pytest.mark.parametrize("scale", [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0])
def test_nearly_equal_softmaxes(scale, beta, rng):
    """Of the second order in the distance, and yet as float64 has it."""
    target = np.float32(3 * rng.normal(size=(16, 64)))
    z = np.float32(target + scale * rng.normal(size=target.shape))
    divergence = functools.partial(JENSEN_SHANNON, beta=beta)

    def value_and_gradients(*arrays):
        value, pull = jax.vjp(divergence, *arrays)
        return value, *pull(jnp.ones_like(value))

    value, *gradients = as_users_jit(value_and_gradients)(z, target)
    with jax.enable_x64(True):
        arrays = np.float64(z), np.float64(target)
        wide, *wide_gradients = as_users_jit(value_and_gradients)(*arrays)
    truth = oracles.softmax_jensen_shannon_divergence(*arrays, beta=beta)
    np.testing.assert_allclose(wide, truth, rtol=1e-5, atol=1e-16)
    np.testing.assert_allclose(value, wide, rtol=max(1e-5, 2e-7 / scale))
    for got, wanted in zip(gradients, wide_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, atol=4e-6 * np.abs(wanted).max())


def test_softmaxes_further_apart_than_float32_reaches():
    """−log of the share of each, with gradients of 0."""
    z = jnp.array([[3e38, -3e38, 0.0], [3e38, 0.0, 0.0], [0.0, -3e38, 3e38]])
    both = jax.value_and_grad(lambda *x: jnp.sum(JENSEN_SHANNON(*x)), (0, 1))
    value, slopes = both(z, z[:, ::-1])
    np.testing.assert_allclose(value, 3 * np.log(2), rtol=1e-6)
    assert not np.any(slopes)


def test_the_ends_of_beta(rng, x64):
    """Python's 0 and 1 are the two KL divergences, traced ones the formula's 0."""
    z, target = rng.normal(size=(2, ROWS, CLASSES))
    options: dict[str, Any] = {"logit_soft_cap": 2.0, "target_logit_soft_cap": 3.0}
    exchanged: dict[str, Any] = {"logit_soft_cap": 3.0, "target_logit_soft_cap": 2.0}
    close(JENSEN_SHANNON(z, target, beta=0, **options), KL(z, target, **options))
    close(JENSEN_SHANNON(z, target, beta=1.0, **options), KL(target, z, **exchanged))
    a, b, c, d = heads(rng)
    linear = LINEAR["Jensen-Shannon"]
    head = {"bias": z[0], "target_bias": z[1], "target_vocab_axis": 0} | options
    turned = {"bias": z[1], "target_bias": z[0], "vocab_axis": 0} | exchanged
    close(linear(a, b, c, d.T, beta=1, **head), LINEAR["KL"](c, d.T, a, b, **turned))
    for beta in (0.0, 1.0):
        at = lambda z, beta: jnp.sum(JENSEN_SHANNON(z, target, beta=beta))
        value, slopes = jax.value_and_grad(at, (0, 1))(z, jnp.float64(beta))
        close(value, 0.0)
        close(slopes[0], np.zeros_like(z))
        apart = np.where(np.arange(CLASSES) % 2, z, -np.inf)
        assert np.isfinite(jax.grad(at)(apart, jnp.float64(beta))).all()
    close(JENSEN_SHANNON(z, target, beta=1e-6) / 1e-6, KL(z, target), 1e-5)


def test_it_is_cross_entropy_without_the_targets_entropy(rng, x64):
    """Written with what there is besides, in memory and fused."""
    a, b, c, d = heads(rng)
    z, target = a @ b, c @ d
    wanted = jxent.softmax_cross_entropy(z, jax.nn.softmax(target))
    close(KL(z, target), wanted - jxent.softmax_entropy(target))
    close(LINEAR["KL"](a, b, c, d), KL(z, target))


@pytest.mark.parametrize("layout", ["streamed", "tiled"])
@pytest.mark.parametrize("name", LINEAR)
def test_heads_of_different_dtypes(name, layout, rng):
    """bfloat16 beside float32: each gradient has its operand's dtype."""
    a, b, c, d = heads(rng)
    operands = (
        jnp.asarray(a, jnp.bfloat16),
        jnp.asarray(b, jnp.float32),
        jnp.asarray(c, jnp.float32),
        jnp.asarray(d.T, jnp.bfloat16),
    )
    options = {"implementation": layout, "block_sizes": (4, 3), "reduction": "mean"}

    def loss(*operands):
        return LINEAR[name](*operands, target_vocab_axis=0, **options)

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*operands)
    a, b, c, d = (np.asarray(x, np.float64) for x in operands)
    truth = {
        "KL": oracles.softmax_kl_divergence,
        "Jensen-Shannon": oracles.softmax_jensen_shannon_divergence,
    }[name]
    close(value, truth(a @ b, c @ d.T, reduction="mean"), 2e-6)
    assert [g.dtype for g in gradients] == [x.dtype for x in operands]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("layout", ["streamed", "tiled"])
@pytest.mark.parametrize("name", LINEAR)
def test_heads_on_a_mesh(name, layout, kind, rng, x64):
    """Rows and classes split outside of shard_map; the values of one device."""
    operands = heads(rng, 8)
    loss = functools.partial(
        LINEAR[name], reduction="mean", implementation=layout, block_sizes=(2, 2)
    )
    wanted = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*operands)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
    specs = (P("data"), P(None, "model")) * 2
    names = {"class_axis_name": "model", "batch_axis_name": "data"}
    with jax.set_mesh(mesh):
        split = tuple(
            jax.device_put(x, NamedSharding(mesh, spec))
            for x, spec in zip(operands, specs, strict=True)
        )
        loss = functools.partial(loss, **names)
        close(jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*split), wanted)


@pytest.mark.parametrize("layout", ["streamed", "tiled"])
@pytest.mark.parametrize("name", LINEAR)
def test_a_teacher_that_does_not_move_costs_no_gradient(name, layout, rng):
    """Two products of the logits' size with its features less."""
    rows, width, classes = 64, 48, 512
    shapes = ((rows, width), (width, classes)) * 2
    operands = [rng.normal(size=shape).astype(np.float32) for shape in shapes]

    def loss(*operands):
        options = {"implementation": layout, "block_sizes": (rows, classes)}
        return LINEAR[name](*operands, reduction="mean", **options)

    def work(moving):
        both = as_users_jit(jax.value_and_grad(loss, moving))
        costs: Any = both.lower(*operands).compile().cost_analysis()
        return costs["flops"]

    product = 2 * rows * width * classes
    assert work((0, 1, 2, 3)) - work((0, 1)) > 1.9 * product


@pytest.mark.parametrize("layout", ["streamed", "tiled"])
@pytest.mark.parametrize("name", LINEAR)
def test_no_array_of_rows_and_classes(name, layout, rng):
    operands = tuple(np.float32(x) for x in heads(rng, 64, 512))

    def loss(*operands):
        options = {"reduction": "mean", "implementation": layout}
        return LINEAR[name](*operands, block_sizes=(16, 64), **options)

    both = as_users_jit(jax.value_and_grad(loss, (0, 1, 2, 3)))
    program = both.lower(*operands).compile()
    assert largest_array(str(program.as_text())) <= 16 * 512
