"""What goes wrong around cross-entropy elsewhere: precision and size.

One test a hazard; each says what this library does instead.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests.compiling import as_users_jit, needs_fused_sums
from tests.hazards import (
    ELEMENTWISE,
    INF,
    OF_IDS,
    all_finite,
    cross_entropy,
    options_of,
    partial,
    same,
    some,
    spread,
    table,
    value_and_grad,
    values_and_grads,
)
from tests.heads import of_layout


@table({**OF_IDS, **{f"sigmoid {k}": v for k, v in ELEMENTWISE.items()}})
def test_half_precision_inputs(loss):
    """Computed and returned in float32; the gradient has the input's dtype."""
    ids = jnp.array([0, 2, 4])
    labels = ids if loss in OF_IDS.values() else jax.nn.one_hot(ids, 5, dtype=int)
    halves = [jnp.asarray(spread(3, 5), d) for d in (jnp.bfloat16, jnp.float16)]
    inputs = [*halves, *(x.astype(jnp.float32) for x in halves)]
    results = values_and_grads([lambda x: loss(x, labels)] * 4, *inputs)
    for x, (value, grad), wide in zip(halves, results[:2], results[2:], strict=True):
        assert value.dtype == jnp.float32
        assert grad.dtype == x.dtype
        same(value, wide[0], rtol=1e-6)
        step = float(jnp.finfo(x.dtype).eps)
        same(grad.astype(np.float32), wide[1], rtol=step, atol=step / 1e3)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (30, 0), (1000, 0), (1, 1e4), (1, -1e4)]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_truth_at_every_scale(scale, offset, dtype):
    """Within float32 of the float64 value of the same logits."""
    x = np.random.default_rng(0).normal(size=(6, 17))
    x = jnp.asarray(offset + scale * x, dtype)
    labels = np.arange(6)
    z = np.asarray(x, np.float64)
    rel = z - z.max(-1, keepdims=True)
    truth = np.log(np.exp(rel).sum(-1)) - rel[np.arange(6), labels]
    same(cross_entropy(x, jnp.asarray(labels, jnp.int32)), truth, rtol=1e-6, atol=1e-7)


@pytest.mark.keep("True-in memory", "False-streamed", "True-tiled")
@pytest.mark.parametrize("layout", ["in memory", "materialized", "streamed", "tiled"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_small_temperature(layout, masked, rng):
    """Logits over T are rounded in one way for the sums and for the gradient.

    XLA makes the reciprocal of some divisors and not of others. Between the two p would
    be wrong by ε |z/T|.
    """
    z, temperature = rng.integers(-99, 99, (8, 6)).astype(np.float32), 0.013
    labels, mask = rng.integers(0, 5, 8), np.arange(6) < 6 - masked
    hot = np.where(mask, z.astype(np.float64), -INF) / temperature
    wanted = np.exp(hot - hot.max(-1, keepdims=True))
    wanted /= wanted.sum(-1, keepdims=True)
    wanted[np.arange(8), labels] -= 1

    def loss(z, temperature):
        logits = z
        if layout != "in memory":
            eye = jnp.eye(6, dtype=z.dtype)
            logits = of_layout(layout, (4, 3))(z, eye)
        return cross_entropy(
            logits,
            labels,
            temperature=temperature,
            class_mask=mask if masked else None,
            reduction="mean",
        )

    got = as_users_jit(jax.grad(loss))(z, jnp.float32(temperature))
    same(got * 8 * temperature, wanted, rtol=1e-6, atol=1e-6)


def test_more_classes_than_float16_counts():
    """A sum of 70000 exponentials does not overflow."""
    x = jnp.zeros((2, 70_000), jnp.float16)
    labels = jnp.array([0, 69_999])
    for smoothing in (0.0, 0.1):
        loss = cross_entropy(x, labels, label_smoothing=smoothing)
        same(loss, jnp.full(2, math.log(70_000)), rtol=1e-5)


def nested(value):
    if hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif isinstance(value, tuple | list):
        for item in value:
            yield from nested(item)


def shapes_in(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval.shape
        for parameter in equation.params.values():
            for inner in nested(parameter):
                yield from shapes_in(inner)


@some("plain", "all options", "focal")
def test_more_than_2_to_the_31_logits(loss):
    """Nothing flattens them: no axis of any intermediate is longer than they are."""
    rows, classes = 2**17, 2**15
    x = jax.ShapeDtypeStruct((rows, classes), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    options = options_of(loss)
    if options.get("class_weights") is not None:
        loss = partial(loss, class_weights=jnp.ones(classes))

    def step(x, labels):
        return jax.value_and_grad(lambda x: loss(x, labels, reduction="mean"))(x)

    value, grad = jax.eval_shape(step, x, labels)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    assert grad.shape == (rows, classes)
    assert grad.dtype == jnp.bfloat16
    assert jax.eval_shape(loss, x, labels).shape == (rows,)
    inside = jax.make_jaxpr(step)(x, labels)
    assert max(max(shape, default=0) for shape in shapes_in(inside.jaxpr)) <= rows


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sums_of_half_precision_losses(dtype):
    """In float32: 5000 losses of 16 overflow float16, and 5000 ones stall bfloat16."""
    total = jxent.reduce(jnp.full(5000, 16, dtype), reduction="sum")
    assert total == 80_000
    assert total.dtype == jnp.float32
    assert jxent.reduce(jnp.ones(5001, dtype), reduction="sum") == 5001
    weights = jnp.full(5001, 1, dtype)
    assert jxent.total_weight(jnp.zeros(5001, jnp.int32), weights=weights) == 5001


def test_labels_of_numpy_int64():
    """Plain NumPy labels are fine without 64-bit types."""
    labels = np.array([0, 4, -100, 2])
    value = cross_entropy(spread(4, 5), labels, ignore_index=-100)
    assert all_finite(value)
    assert value[2] == 0


@needs_fused_sums
@pytest.mark.compiles
@table(
    {
        "plain": cross_entropy,
        "smoothed": partial(cross_entropy, label_smoothing=0.1, z_loss=0.1),
        "brier": lambda x, labels, reduction: jxent.metrics.brier_score(x, labels),
    }
)
def test_no_second_array_of_the_logits_size(loss):
    """Neither a one-hot nor the probabilities are ever stored."""
    rows, classes = 256, 4096
    x = jax.ShapeDtypeStruct((rows, classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    mean = partial(loss, reduction="mean")
    for function in (mean, jax.value_and_grad(mean)):
        compiled = as_users_jit(function).lower(x, labels).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        assert memory.temp_size_in_bytes < rows * classes * 4 / 20


@needs_fused_sums
@pytest.mark.compiles
@table(
    {
        "ids": lambda x, y, labels: cross_entropy(x, labels),
        "entropy": lambda x, y, labels: jxent.softmax_entropy(x),
        "divergence": lambda x, y, labels: jxent.softmax_total_variation(x, y),
        "brier": lambda x, y, labels: jxent.metrics.brier_score(x, labels),
    }
)
def test_values_in_half_precision_store_no_float32(loss):
    """On a CPU each sum over the classes casts the logits for itself."""
    rows, classes = 256, 4096
    x = jax.ShapeDtypeStruct((rows, classes), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    value = as_users_jit(lambda *arrays: jnp.mean(loss(*arrays)))
    memory = value.lower(x, x, labels).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < rows * classes * 4 / 20


@needs_fused_sums
@pytest.mark.compiles
def test_of_few_classes_four_numbers_a_row_are_stored():
    """On a CPU; where rows are many, more of them cost more time than the classes."""
    rows = 65536
    x = jax.ShapeDtypeStruct((rows, 10), jnp.float32)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    mean = as_users_jit(partial(cross_entropy, reduction="mean"))
    memory = mean.lower(x, labels).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4.1 * rows * 4


def test_float16_logits_to_the_end_of_their_range():
    """No scale and no epsilon is needed."""
    x = jnp.array([[6e4, -6e4], [-6e4, 6e4]], jnp.float16)
    value, grad = value_and_grad(lambda x: cross_entropy(x, jnp.array([0, 0])), x)
    same(value, [0.0, 2 * float(x[0, 0])])
    same(grad.astype(jnp.float32), [[0.0, 0.0], [-1.0, 1.0]])
    z = jnp.array([6e4, -6e4], jnp.float16)
    labels = jnp.array([0, 1])
    value, grad = value_and_grad(
        lambda z: jxent.sigmoid_binary_cross_entropy(z, labels), z
    )
    same(value, [float(z[0])] * 2)
    same(grad.astype(jnp.float32), [1.0, -1.0])
