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
    fused,
    in_memory,
    over,
    pick,
    problem,
)


# Dtypes -------------------------------------------------------------------------------

BF16, F16, F32 = jnp.bfloat16, jnp.float16, jnp.float32


@pytest.mark.parametrize(
    ("of_hidden", "of_kernel"),
    [(BF16, F32), (F32, BF16), (F16, F16)],
    ids=lambda d: jnp.dtype(d).name,
)
@over(STREAMED_TABLE, TILED)
def test_each_gradient_has_its_own_dtype(layout, of_hidden, of_kernel, x64, rng):
    """The loss is float32; a gradient is that of its own operand, rounded once."""
    arrays = problem(rng)
    truth = pick(arrays, "hidden kernel bias ids")
    truth["ids"][1] = 0
    cast = dict(truth)
    cast["hidden"] = jnp.asarray(truth["hidden"], of_hidden)
    cast["kernel"] = jnp.asarray(truth["kernel"], of_kernel)
    cast["bias"] = jnp.asarray(truth["bias"], F32)
    low = of_hidden == BF16 and of_kernel == F32
    for k in ("hidden", "kernel", "bias"):
        of_layer = cast[k].astype(BF16) if low and k == "kernel" else cast[k]
        truth[k] = np.asarray(of_layer, np.float64)
    moving = pick(cast, "hidden kernel bias")

    def both(f, x):
        return jax.value_and_grad(lambda x: f(truth | x, reduction="mean"))(x)

    f = functools.partial(fused, layout)
    value, slopes = jax.jit(functools.partial(both, f))(moving)
    wanted, truths = both(
        in_memory, jax.tree.map(jnp.asarray, pick(truth, "hidden kernel bias"))
    )
    assert value.dtype == F32
    close(value, wanted, 1e-2 if low else 2e-6)
    for k, slope in slopes.items():
        assert slope.dtype == moving[k].dtype
        eps = float(jnp.finfo(slope.dtype).eps)
        tolerance = 2e-2 if of_hidden == BF16 else 2e-6 + eps
        close(np.asarray(slope, np.float64), truths[k], tolerance)


def test_float64_only_where_an_input_has_it(x64, rng):
    """float32 operands give float32 where float64 is on."""
    arrays = pick(problem(rng), "hidden kernel ids weights")
    total: dict[str, Any] = {"reduction": "sum"}
    for layout in (STREAMED, TILED):
        small = {k: np.float32(arrays[k]) for k in ("hidden", "kernel")}
        for given, dtype in ((arrays, jnp.float64), (arrays | small, jnp.float32)):
            f = functools.partial(fused, layout, **total)
            assert jax.eval_shape(f, given).dtype == dtype


# Accuracy -----------------------------------------------------------------------------

BLOCKS = (1, 8, 128)


def plain_loss(hidden, kernel, ids):
    """Logits in memory, in float32, whatever the operands."""
    logits = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)
    picked = jnp.take_along_axis(logits, ids[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, 1) - picked)


def true_loss(hidden, kernel, ids):
    """The same loss and its gradients in float64 NumPy."""
    h, k = hidden.astype(np.float64), kernel.astype(np.float64)
    loss = oracles.softmax_cross_entropy(h @ k, ids).mean()
    g = oracles.softmax_cross_entropy_gradient(h @ k, ids) / len(ids)
    return loss, (g @ k.T, h.T @ g)


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
    truth = true_loss(hidden, kernel, ids)

    def errors(f):
        got = as_users_jit(jax.value_and_grad(f, (0, 1)))(hidden, kernel, ids)
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(truth), strict=True)
        return np.array(
            [
                np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
                for a, b in pairs
            ]
        )

    def head(blocks):
        sizes = (None, classes // blocks)
        if layout.implementation == "tiled":
            sizes = (rows // blocks, None)

        def f(hidden, kernel, ids):
            arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
            cut = layout._replace(block_sizes=sizes)
            return fused(cut, arguments, reduction="mean")

        return f

    usual = errors(plain_loss)
    if dtype == ml_dtypes.bfloat16 and layout is TILED:  # evenly, up to half of an ulp
        usual[1:] = np.hypot(usual[1:], 2**-9 / np.sqrt(3))
    each = [errors(head(blocks)) for blocks in BLOCKS]
    slack = np.array([4, 1, 1]) * float(np.finfo(np.float32).eps)
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

    def roundings(loss):
        slope = jax.jit(jax.grad(loss))(jnp.asarray(hidden))
        return error(slope) / error(truth.astype(ml_dtypes.bfloat16))

    def head(precision):
        def loss(hidden):
            logits = jxent.LinearLogits(
                hidden, kernel, implementation="tiled", precision=precision
            )
            return jxent.softmax_cross_entropy(logits, ids, reduction="mean")

        return loss

    def layer(hidden):
        logits = jnp.asarray(hidden @ kernel, jnp.float32)
        return jxent.softmax_cross_entropy(logits, ids, reduction="mean")

    assert roundings(head("highest")) < 1.01
    assert 1.2 < roundings(head(None)) < 1.1 * roundings(layer)


@pytest.mark.parametrize(("rows", "classes"), [(8, 9), (1, 9), (1, 8)])
@over(STREAMED, STREAMED_TABLE, TILED, TILED_TABLE)
def test_vectors_in_low_precision(layout, rows, classes, rng):
    """One row, or one class in the last block: compilers treat them otherwise."""
    hidden = rng.normal(size=(rows, 16)).astype(ml_dtypes.bfloat16)
    kernel = rng.normal(size=(16, classes)).astype(ml_dtypes.bfloat16)
    ids = rng.integers(0, classes, rows).astype(np.int32)

    def f(hidden, kernel):
        arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
        return fused(layout._replace(block_sizes=(8, 4)), arguments, reduction="mean")

    value, slopes = as_users_jit(jax.value_and_grad(f, (0, 1)))(hidden, kernel)
    truth, true_slopes = true_loss(hidden, kernel, ids)
    np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(slopes, true_slopes, strict=True):
        np.testing.assert_allclose(np.float64(got), wanted, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@over(STREAMED, TILED)
def test_a_confident_token_keeps_its_gradient(layout, dtype):
    """p_y > 0.999: p_y − 1 is formed in float32 and keeps its relative precision."""
    gaps = np.array([14.0, 15.0, 16.0, 18.0])
    classes = 1000
    hidden = jnp.asarray(np.eye(4) * gaps[:, None], dtype)
    kernel = jnp.zeros((4, classes), dtype).at[:, 7].set(1)
    layout = layout._replace(block_sizes=(2, 250))

    def loss(hidden, kernel):
        ids = jnp.full(4, 7)
        arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
        return fused(layout, arguments, reduction="sum")

    def plain(hidden, kernel):
        return 4 * plain_loss(hidden, kernel, jnp.full(4, 7))

    missing = (classes - 1) / (np.exp(gaps) + classes - 1)
    assert np.all(missing < 1e-3)

    def errors(f):
        value, slope = as_users_jit(jax.value_and_grad(f))(hidden, kernel)
        error = np.diag(np.asarray(slope, np.float64)) + missing
        return value, np.linalg.norm(error), np.max(np.abs(error / missing))

    eps = float(np.finfo(np.float32).eps)
    value, error, worst = errors(loss)
    np.testing.assert_allclose(value, -np.log1p(-missing).sum(), atol=16 * eps)
    rounding = float(jnp.finfo(dtype).eps) * np.linalg.norm(missing)
    assert error <= 1.25 * errors(plain)[1] + rounding + 2 * eps
    assert worst < 0.05


@pytest.mark.parametrize(("layout", "fast"), [(STREAMED, 1), (TILED, 3)])
def test_a_cpu_multiplies_in_bfloat16(layout, fast, rng):
    """Factors of that dtype, sums in float32: many processors take half the time."""
    arrays = pick(problem(rng, (6,)), "hidden kernel ids")
    arrays |= {k: jnp.asarray(arrays[k], BF16) for k in ("hidden", "kernel")}
    layout = layout._replace(block_sizes=(6, 8))

    def loss(hidden, kernel):
        moving = {"hidden": hidden, "kernel": kernel}
        return fused(layout, arrays | moving, reduction="mean")

    slopes = jax.jit(jax.grad(loss, (0, 1)))
    text = slopes.lower(arrays["hidden"], arrays["kernel"]).as_text()
    products = re.findall(r"dot_general .*\((.*)\) -> tensor<\w+xf32>", text)
    assert sum(of.count("xbf16>") == 2 for of in products) == fast


def test_a_loss_is_never_negative(rng):
    """−log p_y ≥ 0, the label of the largest logit included, in blocks that differ."""
    kernel = jnp.asarray(rng.normal(size=(16, 60)), jnp.bfloat16)

    @jax.jit
    def losses(hidden):
        results = []
        for classes in (7, 60):
            layout = STREAMED._replace(block_sizes=(None, classes))
            arguments = {"hidden": hidden, "kernel": kernel}
            statistics = jxent.softmax_statistics
            best = fused(layout, arguments, statistics, argmax=True).argmax
            results.append(fused(layout, arguments | {"ids": best}))
        return results

    for scale in (1e-2, 1, 30, 1e3):
        hidden = jnp.asarray(scale * rng.normal(size=(256, 16)), jnp.bfloat16)
        for loss in losses(hidden):
            assert np.all(np.asarray(loss) >= 0)


@over(STREAMED, TILED)
def test_logits_around_10000_cost_no_precision(layout, rng):
    """An offset of all logits that float32 holds exactly changes next to nothing."""
    hidden = np.round(8 * rng.normal(size=(12, 4))).astype(np.float32) / 8
    kernel = np.round(8 * rng.normal(size=(4, 20))).astype(np.float32) / 8
    ids = jnp.asarray(rng.integers(0, 20, 12))
    layout = layout._replace(block_sizes=(4, 5))

    @jax.jit
    def run(bias):
        def loss(hidden, kernel):
            arguments = {"hidden": hidden, "kernel": kernel, "ids": ids, "bias": bias}
            return fused(layout, arguments, reduction="mean", label_smoothing=0.1)

        return jax.value_and_grad(loss, (0, 1))(hidden, kernel)

    near = run(jnp.zeros(20, jnp.float32))
    for offset in (1e4, -1e4):
        close(run(jnp.full(20, offset, jnp.float32)), near, 2e-6)
