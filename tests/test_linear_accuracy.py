"""The fused head's dtypes and rounding errors."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.comparing import close
from tests.compiling import as_users_jit
from tests.heads import (
    STREAMED,
    STREAMED_TABLE,
    TILED,
    TILED_TABLE,
    call,
    of_layout,
    over,
    pick,
    problem,
)


EPS = float(np.finfo(np.float32).eps)


def loss_of(layout, ids, blocks=(3, 4), reduction: Any = "mean"):
    """As a function of hidden states and a kernel."""

    def loss(hidden, kernel):
        logits = layout._replace(block_sizes=blocks).head(hidden, kernel)
        return jxent.softmax_cross_entropy(logits, ids, reduction=reduction)

    return loss


# Dtypes -------------------------------------------------------------------------------

BF16, F16, F32 = jnp.bfloat16, jnp.float16, jnp.float32


@over(STREAMED_TABLE, TILED)
def test_each_gradient_has_its_own_dtype(layout, x64, rng):
    """The loss is float32; a gradient is that of its own operand, rounded once."""
    arrays = pick(problem(rng), "hidden kernel bias")
    ids = np.arange(6)
    pairs = (BF16, F32), (F32, BF16), (F16, F16)
    cast = [
        {
            n: jnp.asarray(x, d)
            for (n, x), d in zip(arrays.items(), (*of, F32), strict=True)
        }
        for of in pairs
    ]
    total = lambda x: call(layout, x | {"ids": ids}, reduction="mean")
    got = jax.jit(lambda cast: [jax.value_and_grad(total)(x) for x in cast])(cast)
    for (of_hidden, of_kernel), x, (value, slopes) in zip(
        pairs, cast, got, strict=True
    ):
        low = (of_hidden, of_kernel) == (BF16, F32)
        seen = x | {"kernel": x["kernel"].astype(BF16)} if low else x  # by the product
        h, k, b = (np.asarray(x, np.float64) for x in seen.values())
        z = h @ k + b
        g = oracles.softmax_cross_entropy_gradient(z, ids) / 6
        assert value.dtype == F32
        wanted = oracles.softmax_cross_entropy(z, ids).mean()
        close(value, wanted, 1e-2 if low else 2e-6)
        truths = {"hidden": g @ k.T, "kernel": h.T @ g, "bias": g.sum(0)}
        for name, slope in slopes.items():
            assert slope.dtype == x[name].dtype
            eps = float(jnp.finfo(slope.dtype).eps)
            tolerance = 2e-2 if of_hidden == BF16 else 2e-6 + eps
            close(np.asarray(slope, np.float64), truths[name], tolerance)


@over(STREAMED, TILED)
def test_float64_only_where_hidden_states_or_kernel_have_it(layout, x64, rng):
    arrays = pick(problem(rng), "hidden kernel ids weights")
    small = {k: np.float32(arrays[k]) for k in ("hidden", "kernel")}
    for given, dtype in ((arrays, jnp.float64), (arrays | small, jnp.float32)):
        f = functools.partial(call, layout, reduction="sum")
        assert jax.eval_shape(f, given).dtype == dtype


# Accuracy -----------------------------------------------------------------------------


def plain_loss(ids):
    """Logits in memory, in float32, whatever the operands."""

    def loss(hidden, kernel):
        logits = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)
        picked = jnp.take_along_axis(logits, ids[:, None], 1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, 1) - picked)

    return loss


def true_loss(hidden, kernel, ids):
    """The same loss and its gradients in float64 NumPy."""
    h, k = hidden.astype(np.float64), kernel.astype(np.float64)
    loss = oracles.softmax_cross_entropy(h @ k, ids).mean()
    g = oracles.softmax_cross_entropy_gradient(h @ k, ids) / len(ids)
    return loss, (g @ k.T, h.T @ g)


def as_users_have(losses, *x):
    """Values and gradients of several losses: one program."""
    each = [jax.value_and_grad(loss, (0, 1)) for loss in losses]
    return jax.device_get(as_users_jit(lambda *x: [f(*x) for f in each])(*x))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@over(STREAMED, TILED)
def test_error_does_not_grow_with_the_blocks(layout, dtype, rng):
    """Against float64: 1, 8 and 128 blocks are no worse than logits in memory.

    In bfloat16, tiles round p − y for the gradients' products.
    """
    rows, features, classes = 128, 32, 256
    hidden = rng.normal(size=(rows, features)).astype(dtype)
    kernel = (rng.normal(size=(features, classes)) / 4).astype(dtype)
    ids = rng.integers(0, classes, rows)
    truth = jax.tree.leaves(true_loss(hidden, kernel, ids))
    cuts = [
        (rows // n, None) if layout is TILED else (None, classes // n)
        for n in (1, 8, 128)
    ]
    losses = plain_loss(ids), *(loss_of(layout, ids, blocks) for blocks in cuts)

    def errors(got):
        pairs = zip(jax.tree.leaves(got), truth, strict=True)
        norm = np.linalg.norm
        return np.array([norm(np.float64(a) - b) / norm(b) for a, b in pairs])

    usual, *each = map(errors, as_users_have(losses, hidden, kernel))
    if dtype == ml_dtypes.bfloat16 and layout is TILED:  # evenly, up to half of an ulp
        usual[1:] = np.hypot(usual[1:], 2**-9 / np.sqrt(3))
    slack = np.array([4, 1, 1]) * EPS
    for error in each:
        assert np.all(error <= 1.1 * usual + slack)
    assert np.all(each[-1] <= 1.1 * each[0] + slack)


def test_what_rounding_p_minus_y_costs(rng):
    """As much as in a layer of bfloat16; nothing with precision="highest"."""
    hidden = rng.random((64, 32)).astype(ml_dtypes.bfloat16)
    kernel = 1 + rng.random((32, 256)).astype(ml_dtypes.bfloat16)
    ids = rng.integers(0, 256, 64)
    _, (truth, _) = true_loss(hidden, kernel, ids)
    error = lambda x: np.linalg.norm(np.asarray(x, np.float64) - truth)
    tiled = jxent.LinearLogits(hidden, kernel, implementation="tiled")

    @jax.jit
    def gradients(hidden):
        def of(logits):
            loss = functools.partial(jxent.softmax_cross_entropy, reduction="mean")
            return jax.grad(lambda hidden: loss(logits(hidden), ids))(hidden)

        highest, default = (
            of(lambda hidden, p=p: tiled.replace(hidden=hidden, precision=p))
            for p in ("highest", None)
        )
        return highest, default, of(lambda hidden: jnp.float32(hidden @ kernel))

    half = error(truth.astype(ml_dtypes.bfloat16))
    highest, default, layer = (error(x) / half for x in gradients(jnp.asarray(hidden)))
    assert highest < 1.01
    assert 1.2 < default < 1.1 * layer


@over(STREAMED, STREAMED_TABLE, TILED, TILED_TABLE)
def test_vectors_in_low_precision(layout, rng):
    """One row, or one class in the last block: compilers treat them otherwise."""
    for rows, classes in ((8, 9), (1, 9), (1, 8)):
        hidden = rng.normal(size=(rows, 16)).astype(ml_dtypes.bfloat16)
        kernel = rng.normal(size=(16, classes)).astype(ml_dtypes.bfloat16)
        ids = rng.integers(0, classes, rows).astype(np.int32)
        loss = loss_of(layout, ids, (8, 4))
        [(value, slopes)] = as_users_have([loss], hidden, kernel)
        truth, true_slopes = true_loss(hidden, kernel, ids)
        np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-6)
        for got, wanted in zip(slopes, true_slopes, strict=True):
            np.testing.assert_allclose(np.float64(got), wanted, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@over(STREAMED, TILED)
def test_a_confident_token_keeps_its_gradient(layout, dtype):
    """p_y > 0.999: p_y − 1 is formed in float32 and keeps its relative precision."""
    gaps, classes, ids = np.array([14.0, 15.0, 16.0, 18.0]), 1000, np.full(4, 7)
    hidden = np.asarray(np.eye(4) * gaps[:, None], dtype)
    kernel = np.zeros((4, classes), dtype)
    kernel[:, 7] = 1
    missing = (classes - 1) / (np.exp(gaps) + classes - 1)
    assert np.all(missing < 1e-3)

    loss = loss_of(layout, ids, (2, 250), reduction="sum")
    plain = lambda *head: 4 * plain_loss(jnp.asarray(ids))(*head)
    (value, slopes), (_, plain_slopes) = as_users_have([loss, plain], hidden, kernel)
    errors = [np.diag(np.float64(x[0])) + missing for x in (slopes, plain_slopes)]
    error, usual = map(np.linalg.norm, errors)
    np.testing.assert_allclose(value, -np.log1p(-missing).sum(), atol=16 * EPS)
    rounding = float(jnp.finfo(dtype).eps) * np.linalg.norm(missing)
    assert error <= 1.25 * usual + rounding + 2 * EPS
    assert np.max(np.abs(errors[0] / missing)) < 0.05


@pytest.mark.parametrize(("layout", "fast"), [(STREAMED, 1), (TILED, 3)])
def test_a_cpu_multiplies_in_bfloat16(layout, fast):
    """Factors of that dtype, sums in float32: many processors take half the time."""
    slopes = jax.jit(jax.grad(loss_of(layout, np.arange(6), (6, 8)), (0, 1)))
    text = slopes.lower(jnp.ones((6, 3), BF16), jnp.ones((3, 8), BF16)).as_text()
    products = re.findall(r"dot_general .*\((.*)\) -> tensor<\w+xf32>", text)
    assert sum(of.count("xbf16>") == 2 for of in products) == fast


def test_a_loss_is_never_negative(rng):
    """−log p_y ≥ 0, the label of the largest logit included, in blocks that differ."""
    kernel = rng.normal(size=(16, 60)).astype(ml_dtypes.bfloat16)

    @jax.jit
    def losses(hidden):
        found = []
        for classes in (7, 60):
            logits = of_layout("streamed", (None, classes))(hidden, kernel)
            best = jxent.softmax_statistics(logits, argmax=True).argmax
            found.append(jxent.softmax_cross_entropy(logits, best))
        return found

    for scale in (1e-2, 1, 30, 1e3):
        hidden = scale * rng.normal(size=(256, 16))
        for loss in losses(hidden.astype(ml_dtypes.bfloat16)):
            assert np.all(np.asarray(loss) >= 0)


@over(STREAMED, TILED)
def test_logits_around_10000_cost_no_precision(layout, rng):
    """An offset of all logits that float32 holds exactly changes next to nothing."""
    hidden = np.round(8 * rng.normal(size=(12, 4))).astype(np.float32) / 8
    kernel = np.round(8 * rng.normal(size=(4, 20))).astype(np.float32) / 8
    fixed = {"ids": rng.integers(0, 20, 12)}
    layout = layout._replace(block_sizes=(4, 5))

    @jax.jit
    def run(bias):
        def loss(hidden, kernel):
            arguments = {"hidden": hidden, "kernel": kernel, "bias": bias} | fixed
            return call(layout, arguments, reduction="mean", label_smoothing=0.1)

        return jax.value_and_grad(loss, (0, 1))(hidden, kernel)

    near, above, below = (run(np.full(20, x, np.float32)) for x in (0, 1e4, -1e4))
    close(above, near, 2e-6)
    close(below, near, 2e-6)
