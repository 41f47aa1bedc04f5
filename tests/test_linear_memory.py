"""What a loss of LinearLogits holds in memory."""

import math

import jax
import jax.numpy as jnp
import pytest

from jxent import LinearLogits, softmax_cross_entropy
from tests.comparing import weighed
from tests.compiling import as_users_jit, largest_array
from tests.heads import (
    STREAMED,
    TILED,
    fused,
    over,
)


pytestmark = [pytest.mark.newest_jax, pytest.mark.compiles]


ROWS, FEATURES, CLASSES = 512, 64, 8192
MIB = 2**20
WIDE = {"streamed": (None, 512), "tiled": (64, 512)}


def shapes_of(hidden=jnp.float32, kernel=jnp.float32):
    return (
        jax.ShapeDtypeStruct((ROWS, FEATURES), hidden),
        jax.ShapeDtypeStruct((FEATURES, CLASSES), kernel),
        jax.ShapeDtypeStruct((ROWS,), jnp.int32),
    )


def wide_loss(layout):
    layout = layout._replace(block_sizes=WIDE[layout.implementation])

    def loss(hidden, kernel, ids):
        arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
        return fused(layout, arguments, reduction="mean", z_loss=1e-4)

    return loss


def hessian_vector(loss):
    """Forward over reverse, in hidden and kernel together."""

    def product(hidden, kernel, ids):
        gradient = jax.grad(lambda h, k: loss(h, k, ids), (0, 1))
        return jax.jvp(gradient, (hidden, kernel), (hidden, kernel))

    return product


def gradient_of_gradient(loss):
    """Reverse over reverse."""

    def twice(hidden, kernel, ids):
        gradient = jax.grad(lambda h, k: loss(h, k, ids), (0, 1))
        return jax.grad(lambda *x: weighed(gradient(*x)), (0, 1))(hidden, kernel)

    return twice


def tangent_of(loss):
    def tangent(hidden, kernel, ids):
        f = lambda h, k: loss(h, k, ids)
        return jax.jvp(f, (hidden, kernel), (hidden, kernel))

    return tangent


PROGRAMS = {
    "gradient": lambda loss: jax.value_and_grad(loss, (0, 1)),
    "tangent": tangent_of,
    "hessian-vector": hessian_vector,
    "reverse-reverse": gradient_of_gradient,
}
TEMPORARY_MIB = {  # the logits take 16, a gradient of the kernel 2
    ("streamed", "gradient"): 3,
    ("streamed", "tangent"): 4,
    ("streamed", "hessian-vector"): 10,
    ("streamed", "reverse-reverse"): 12,
    ("tiled", "gradient"): 5,
    ("tiled", "tangent"): 7,
    ("tiled", "hessian-vector"): 12,
    ("tiled", "reverse-reverse"): 14,
}


@pytest.mark.parametrize("program", PROGRAMS)
@over(STREAMED, TILED)
def test_the_logits_are_never_held(layout, program):
    """No array of N · V elements in the compiled program, and few temporaries."""
    f = PROGRAMS[program](wide_loss(layout))
    compiled = as_users_jit(f).lower(*shapes_of()).compile()
    assert largest_array(str(compiled.as_text())) < ROWS * CLASSES // 4
    memory = compiled.memory_analysis()
    assert memory is not None
    bound = TEMPORARY_MIB[layout.implementation, program] * MIB
    assert memory.temp_size_in_bytes <= bound


def test_options_take_no_second_slab():
    """Tiled on a CPU, whose sums over classes read arrays in memory."""
    rows, features, classes = 1024, 128, 32128
    shapes = (
        jax.ShapeDtypeStruct((rows, features), jnp.float32),
        jax.ShapeDtypeStruct((features, classes), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
    )
    bias = jnp.zeros(classes)
    every = {
        "class_mask": jnp.arange(classes) < classes - 3,
        "class_weights": jnp.ones(classes),
        "ignore_index": -100,
        "label_smoothing": 0.1,
        "z_loss": 1e-4,
        "logit_soft_cap": 30.0,
        "temperature": 2.0,
        "margin": 0.3,
    }

    def taken(bias=None, **options):
        def loss(hidden, kernel, ids):
            logits = LinearLogits(hidden, kernel, bias, implementation="tiled")
            return softmax_cross_entropy(logits, ids, reduction="mean", **options)

        program = as_users_jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes)
        memory = program.compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    # A slab takes 31 MiB; what is formed of a group of its rows, 4.
    assert taken(bias, **every) < 1.15 * taken()


@pytest.mark.parametrize("rows", [(ROWS,), (4, ROWS // 4), (8 * ROWS,)])
def test_materialized_logits_are_held_once(rows):
    """With any number of axes of rows: their gradient takes their place."""

    def loss(hidden, kernel, ids):
        logits = LinearLogits(hidden, kernel, implementation="materialized")
        return softmax_cross_entropy(logits, ids, reduction="mean")

    hidden, kernel, ids = shapes_of()
    hidden, ids = (
        jax.ShapeDtypeStruct((*rows, *x.shape[1:]), x.dtype) for x in (hidden, ids)
    )
    f = jax.value_and_grad(loss, (0, 1))
    memory = as_users_jit(f).lower(hidden, kernel, ids).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 1.1 * math.prod(rows) * CLASSES * 4


@over(STREAMED, TILED)
def test_the_kernel_is_never_cast_whole(layout):
    """A float32 kernel under bfloat16 hidden states: no copy of it in bfloat16."""
    f = jax.value_and_grad(wide_loss(layout), (0, 1))
    compiled = as_users_jit(f).lower(*shapes_of(jnp.bfloat16)).compile()
    text = str(compiled.as_text())
    assert largest_array(text) < ROWS * CLASSES // 4
    for shape in ((FEATURES, CLASSES), (CLASSES, FEATURES)):
        assert f"bf16[{shape[0]},{shape[1]}]" not in text
