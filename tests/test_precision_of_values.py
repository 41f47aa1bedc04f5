"""Digits: half precision, logits of any scale, many classes, and what is stored for it.

Against the naive code in the same dtype: tests/test_accuracy.py.
"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.cases import BARE, CLASSES, IN_MEMORY, LAYOUTS, ids
from tests.comparing import same
from tests.compiling import as_users_jit, needs_fused_sums
from tests.heads import of_layout


cross_entropy = jxent.softmax_cross_entropy


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_truth_at_every_scale(dtype):
    """Within float32 of the float64 value of the same logits."""
    scales = [(1, 0), (30, 0), (1000, 0), (1, 1e4), (1, -1e4)]
    z, y = np.random.default_rng(0).normal(size=(6, 17)), np.arange(6)
    x = np.stack([offset + scale * z for scale, offset in scales]).astype(dtype)
    y = np.broadcast_to(y, x.shape[:-1])
    got = jax.jit(cross_entropy)(x, y)
    same(got, oracles.softmax_cross_entropy(x, y), rtol=1e-6, atol=1e-7)


@pytest.mark.keep("in memory", "streamed", "tiled")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_small_temperature(layout, rng):
    """Logits over T are rounded in one way for the sums and for the gradient.

    XLA makes the reciprocal of some divisors and not of others. Between the two p would
    be wrong by ε |z/T|.
    """
    z, temperature = rng.integers(-99, 99, (8, 6)).astype(np.float32), 0.013
    labels, masks = rng.integers(0, 5, 8), (None, np.arange(6) < 5)

    def loss(z, temperature, mask):
        logits = z
        if layout != "in memory":
            eye = np.eye(6, dtype=np.float32)
            logits = of_layout(layout, (4, 3))(z, eye)
        options = {"temperature": temperature, "class_mask": mask}
        return cross_entropy(logits, labels, reduction="mean", **options)

    for mask in masks:
        gradient = as_users_jit(jax.grad(functools.partial(loss, mask=mask)))
        allowed = np.arange(6) < 6 if mask is None else mask
        hot = np.where(allowed, z.astype(np.float64), -np.inf) / temperature
        wanted = np.exp(oracles.log_softmax(hot))
        wanted[np.arange(8), labels] -= 1
        got = gradient(z, np.float32(temperature))
        same(got * 8 * temperature, wanted, rtol=1e-6, atol=1e-6)


LOSSES_OF_IDS = [
    c
    for c in IN_MEMORY
    if c.labels is ids and c.takes("class_weights") and c.takes("logits")
    if c in BARE or c.loss.function in (cross_entropy, jxent.softmax_focal_loss)
]


@pytest.mark.parametrize("case", LOSSES_OF_IDS, ids=str)
def test_more_than_2_to_the_31_logits(case):
    """Nothing flattens them: no axis of any intermediate is longer than they are."""
    rows, classes = 2**17, 2**15
    x = jax.ShapeDtypeStruct((rows, classes), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    options = {
        k: np.resize(v, classes)
        for k, v in case.options.items()
        if np.shape(v) == (CLASSES,)
    }

    def step(x, labels):
        mean = lambda x: case(x, labels, **options, reduction="mean")
        return *jax.value_and_grad(mean)(x), case(x, labels, **options)

    inside, results = jax.make_jaxpr(step, return_shape=True)(x, labels)
    assert [(y.shape, y.dtype) for y in results] == [
        ((), jnp.float32),
        ((rows, classes), jnp.bfloat16),
        ((rows,), jnp.float32),
    ]
    axes = ",".join(re.findall(r"\b[a-z]+[0-9]*\[([0-9,]+)\]", str(inside)))
    assert max(map(int, axes.split(","))) == rows


def test_sums_of_half_precision_losses():
    """In float32: 5000 losses of 16 overflow float16, and 5000 ones stall bfloat16."""
    sum_of = functools.partial(jxent.reduce, reduction="sum")

    @jax.jit
    def run():
        return [
            (
                sum_of(jnp.full(5000, 16, dtype)),
                sum_of(jnp.ones(5001, dtype)),
                jxent.total_weight(jnp.zeros(5001, int), weights=jnp.ones(5001, dtype)),
            )
            for dtype in (jnp.float16, jnp.bfloat16)
        ]

    for results in run():
        assert [x.dtype for x in results] == [jnp.float32] * 3
        assert [float(x) for x in results] == [80_000, 5001, 5001]


def test_float16_logits_to_the_end_of_their_range():
    """No scale and no epsilon is needed."""
    x = np.array([[6e4, -6e4], [-6e4, 6e4]], np.float16)
    z = np.array([6e4, -6e4], np.float16)

    @as_users_jit
    def run(x, z):
        def both(loss, x):
            value, pull = jax.vjp(loss, x)
            return value, *pull(jnp.ones_like(value))

        binary = lambda z: jxent.sigmoid_binary_cross_entropy(z, np.array([0, 1]))
        return both(lambda x: cross_entropy(x, np.array([0, 0])), x), both(binary, z)

    softmax, sigmoid = jax.device_get(run(x, z))
    same(softmax[0], [0.0, 2 * float(x[0, 0])])
    same(softmax[1].astype(np.float32), [[0.0, 0.0], [-1.0, 1.0]])
    same(sigmoid[0], [float(z[0])] * 2)
    same(sigmoid[1].astype(np.float32), [1.0, -1.0])


# What is stored -----------------------------------------------------------------------

FEW = 256, 4096  # rows and classes
losses = lambda x, y, _: cross_entropy(x, y)
plain = lambda x, y, _: cross_entropy(x, y, reduction="mean")
smoothed = lambda x, y, _: cross_entropy(
    x, y, label_smoothing=0.1, z_loss=0.1, reduction="mean"
)
brier = lambda x, y, _: jxent.metrics.brier_score(x, y)
entropy = lambda x, y, _: jxent.softmax_entropy(x)
divergence = lambda x, y, z: jxent.softmax_total_variation(x, z)


def mean(loss):
    return lambda *arrays: jnp.mean(loss(*arrays))


# A program, the dtype and shape of its logits, and the most bytes beside them for each
# logit: neither a one-hot nor the probabilities are stored.
STORED: dict[str, tuple[Any, ...]] = {
    f"{f.__name__} {name}": (f(mean(loss)), jnp.float32, FEW, 4 / 20)
    for name, loss in {"plain": plain, "smoothed": smoothed, "brier": brier}.items()
    for f in (jax.jit, jax.value_and_grad)
}
# On a CPU narrow logits are cast in groups of rows, of 2 MiB at most for an array.
STORED |= {
    f"bfloat16 {name}": (mean(loss), jnp.bfloat16, (8192, 4096), 4 / 20)
    for name, loss in {
        "losses": losses,
        "brier": brier,
        "entropy": entropy,
        "divergence": divergence,
    }.items()
}
# Of few classes four numbers a row; where rows are many, more of them cost more time
# than the classes.
STORED["few classes"] = plain, jnp.float32, (65536, 10), 4.1 * 4 / 10


@needs_fused_sums
@pytest.mark.compiles
@pytest.mark.parametrize("name", STORED)
def test_no_second_array_of_the_logits_size(name):
    function, dtype, (rows, classes), most = STORED[name]
    x = jax.ShapeDtypeStruct((rows, classes), dtype)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    memory = as_users_jit(function).lower(x, labels, x).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < rows * classes * most
