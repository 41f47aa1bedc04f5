"""What compiled programs hold: no array of rows × classes, and few temporaries."""

import contextlib
import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

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
from jxent import LinearLogits, metrics, softmax_cross_entropy
from jxent._contrastive.arguments import Implementation
from tests.compiling import as_users_jit, largest_array, needs_fused_sums
from tests.heads import of_layout


pytestmark = [pytest.mark.newest_jax, pytest.mark.compiles]

MIB = 2**20


class Program(NamedTuple):
    """What is compiled, of which shapes, and what it may hold.

    Attributes:
      f: the function that is compiled.
      shapes: of its arguments.
      largest: the most elements of any array.
      temporaries: the most bytes beside arguments and results.
      never: what the program's text may not have, as a regular expression.
      mesh: the mesh in context.
    """

    f: Callable[..., Any]
    shapes: tuple[Any, ...]
    largest: float = math.inf
    temporaries: float = math.inf
    never: str = "(?!)"
    mesh: Any = None


def array(*shape, dtype=jnp.float32, split=None):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=split)


def ids(*shape):
    return array(*shape, dtype=jnp.int32)


# Derivatives in the first two arguments, which are floating ---------------------------


def gradient(f):
    return jax.value_and_grad(f, (0, 1))


def tangent(f):
    def along(x, y, *rest):
        return jax.jvp(lambda x, y: f(x, y, *rest), (x, y), (x, y))

    return along


def hessian_vector(f):
    return tangent(jax.grad(f, (0, 1)))


def reverse_reverse(f):
    slopes = jax.grad(f, (0, 1))
    total = lambda *arguments: sum(jnp.sum(jnp.sin(x)) for x in slopes(*arguments))
    return jax.grad(total, (0, 1))


mean = functools.partial(softmax_cross_entropy, reduction="mean")


# Heads --------------------------------------------------------------------------------

ROWS, FEATURES, CLASSES = 512, 64, 8192
BLOCKS = {"streamed": (None, 512), "tiled": (64, 512), "materialized": None}
# The logits take 16 MiB, a gradient of the kernel 2.
MIB_OF = {
    gradient: {"streamed": 3, "tiled": 5},
    tangent: {"streamed": 4, "tiled": 7},
    hessian_vector: {"streamed": 10, "tiled": 12},
    reverse_reverse: {"streamed": 12, "tiled": 14},
}


def head(*rows, hidden=jnp.float32):
    kernel = array(FEATURES, CLASSES)
    return array(*rows, FEATURES, dtype=hidden), kernel, ids(*rows)


def loss_of_head(layout):
    logits = of_layout(layout, BLOCKS[layout])
    return lambda hidden, kernel, ids: mean(logits(hidden, kernel), ids, z_loss=1e-4)


def heads():
    for derivative, bounds in MIB_OF.items():
        for layout, most in bounds.items():
            yield (
                f"{layout} {derivative.__name__}",
                Program(
                    derivative(loss_of_head(layout)),
                    head(ROWS),
                    largest=ROWS * CLASSES // 4 - 1,
                    temporaries=most * MIB,
                ),
            )
    # Their gradient takes the place of the logits, whatever the axes of the rows.
    for rows in ((ROWS,), (4, ROWS // 4), (8 * ROWS,)):
        size = 4 * math.prod(rows) * CLASSES
        f = gradient(loss_of_head("materialized"))
        yield f"materialized {rows}", Program(f, head(*rows), temporaries=1.1 * size)
    # No copy in bfloat16 of a float32 kernel under hidden states in bfloat16.
    for layout in ("streamed", "tiled"):
        yield (
            f"{layout} kernel in float32",
            Program(
                gradient(loss_of_head(layout)),
                head(ROWS, hidden=jnp.bfloat16),
                largest=ROWS * CLASSES // 4 - 1,
                never=rf"bf16\[({FEATURES},{CLASSES}|{CLASSES},{FEATURES})\]",
            ),
        )


# Any head, tile by tile ---------------------------------------------------------------

TILE = 64


def sum_over_tiles(hidden, kernel, ids):
    loss = lambda kernel, rows: softmax_cross_entropy(
        rows[0] @ kernel, rows[1], reduction="sum"
    )
    return jxent.sum_over_tiles(loss, kernel, (hidden, ids), tile=TILE)


def map_over_tiles(hidden, kernel, ids):
    fn = lambda kernel, rows: jxent.softmax_log_prob(rows[0] @ kernel, rows[1])
    results = jxent.map_over_tiles(fn, kernel, (hidden, ids), tile=TILE)
    return jnp.sum(jnp.sin(results))


def tiles():
    rows, features, classes = 512, 32, 4096
    shapes = array(rows, features), array(features, classes), ids(rows)
    slab, kernel = 4 * TILE * classes, 4 * features * classes
    for f in (sum_over_tiles, map_over_tiles):
        for derivative in (gradient, hessian_vector, reverse_reverse):
            if (f, derivative) == (map_over_tiles, reverse_reverse):
                continue
            slabs = 2 if derivative is gradient else 6
            yield (
                f"{f.__name__} {derivative.__name__}",
                Program(
                    derivative(f),
                    shapes,
                    largest=rows * classes // 4,
                    temporaries=slabs * slab + 4 * kernel,
                ),
            )


# Other losses of heads ----------------------------------------------------------------


def losses_of_heads():
    rows, classes, blocks = 64, 512, (16, 64)
    for layout in ("streamed", "tiled"):
        logits = of_layout(layout, blocks)
        two = tuple(logits(array(rows, n), array(n, classes)) for n in (3, 5))
        for name in ("kl_divergence", "jensen_shannon_divergence", "total_variation"):
            loss = getattr(jxent, f"softmax_{name}")
            f = gradient(functools.partial(loss, reduction="mean"))
            yield f"{layout} {name}", Program(f, two, largest=blocks[0] * classes)

        def of_several_ids(hidden, kernel, values, ids, logits=logits):
            return mean(logits(hidden, kernel), jxent.SparseLabels(ids, values))

        shapes = array(rows, 3), array(3, classes), array(rows, 3), ids(rows, 3)
        f = jax.value_and_grad(of_several_ids, (0, 1, 2))
        yield f"{layout} several ids", Program(f, shapes, largest=blocks[0] * classes)

    rows, features, classes, size = 64, 8, 4096, 256
    logits = of_layout("streamed", (None, size))
    for loss in (jxent.sigmoid_binary_cross_entropy, jxent.zlpr_loss):

        def of_lists(hidden, kernel, ids, loss=loss):
            labels = jxent.SparseLabels(ids)
            return loss(logits(hidden, kernel), labels, axis=-1, reduction="mean")

        yield (
            f"lists of positives {loss.__name__}",
            Program(
                gradient(of_lists),
                (array(rows, features), array(features, classes), ids(rows, 5)),
                largest=features * classes,
                temporaries=8 * rows * size * 4 - 1,
            ),
        )

    rows, classes = 128, 40000  # a block has 32,768 classes, of several products
    top_k = lambda *head: jxent.softmax_top_k(LinearLogits(*head), 4)[0]
    shapes = array(rows, 3), array(3, classes)
    yield "top k", Program(top_k, shapes, largest=rows * classes / 2 - 1)


# Of arrays ----------------------------------------------------------------------------


def results_of_rows(x, y):
    s = jxent.softmax_statistics(x, y, entropy=True, argmax=True)
    losses = softmax_cross_entropy(x, y, label_smoothing=0.1)
    return s, losses, metrics.accuracy(x, y), metrics.top_k_accuracy(x, y)


def every_metric(z, y):
    first = metrics.accuracy(z, y), metrics.top_k_accuracy(z, y)
    score = metrics.perplexity(z, y), metrics.brier_score(z, y)
    return first, score, metrics.calibration_error(z, y)


def second_share(values):
    labels = jxent.two_hot_labels(values, np.arange(256.0))
    return jnp.asarray(labels.values)[:, 1].sum()


def arrays():
    rows, classes = 64, 2**15 + 45
    shapes, size = (array(rows, classes), ids(rows)), 4 * rows * (classes + 1)
    yield "many classes", Program(results_of_rows, shapes, temporaries=size / 8 - 1)
    shapes, size = (array(256, 4096), ids(256)), 4 * 256 * 4096
    yield "metrics", Program(every_metric, shapes, temporaries=size / 10)
    f, size = jax.value_and_grad(second_share), 4096 * 256
    yield "two-hot labels", Program(f, (array(4096),), temporaries=size / 2 - 1)
    # The binary loss stores only its gradient; of boolean labels their numbers too.
    for axis in ((), -1):
        for dtype in (jnp.bool_, jnp.float32):
            loss = functools.partial(
                jxent.sigmoid_binary_cross_entropy, axis=axis, reduction="mean"
            )
            z, y = array(64, 4096), array(64, 4096, dtype=dtype)
            most = (dtype is jnp.bool_) + 0.05
            yield (
                f"binary {axis} {dtype.__name__}",
                Program(
                    jax.value_and_grad(loss), (z, y), temporaries=most * 4 * 64 * 4096
                ),
            )


# Pairs, on one device and on several --------------------------------------------------


def pairs():
    rows, features, sizes, devices = 512, 4, (32, 64), 8
    held = rows * features  # of the vectors, and of a block
    blocks = {"reduction": "mean", "block_sizes": sizes}
    vectors = array(rows, features)
    groups = np.arange(rows) // 2
    dropped = {"groups": groups, "where": groups != 3}
    for loss in (jxent.contrastive_cross_entropy, jxent.sigmoid_contrastive_loss):
        for derivative in (gradient, hessian_vector):
            f = derivative(functools.partial(loss, **dropped, **blocks))
            name = f"{loss.__name__} {derivative.__name__}"
            yield name, Program(f, (vectors, vectors), largest=2 * held)

    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    moved = "all-gather|reduce-scatter"

    def on_devices(way):
        return functools.partial(
            jxent.contrastive_cross_entropy,
            batch_axis_name="data",
            implementation=way,
            **blocks,
        )

    for way in get_args(Implementation):
        step = jax.shard_map(
            gradient(on_devices(way)),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=(P(), P("data")),
        )
        bounds: dict[str, Any] = {"largest": 2 * devices * held}
        if way == "ring":  # a block and a share
            bounds = {"largest": held, "never": moved}
        vectors = array(devices * rows, features)
        yield f"pairs, {way}", Program(step, (vectors, vectors), **bounds)

    # Of the second order; a reverse of a reverse has a strip of blocks.
    features = 16
    largest = max(sizes[0] * rows, rows * features)
    split = NamedSharding(mesh, P("data"))
    vectors = array(devices * rows, features, split=split)
    for derivative in (hessian_vector, reverse_reverse):
        f = derivative(on_devices("ring"))
        name = f"pairs, ring {derivative.__name__}"
        bounds = {"largest": largest, "never": moved, "mesh": mesh}
        yield name, Program(f, (vectors, vectors), **bounds)


PROGRAMS = dict(
    row for rows in (heads, tiles, losses_of_heads, arrays, pairs) for row in rows()
)


FUSED = {"many classes", "metrics", "binary () float32", "binary -1 float32"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=needs_fused_sums if n in FUSED else ()) for n in PROGRAMS],
)
def test_what_a_program_holds(name):
    program = PROGRAMS[name]
    with jax.set_mesh(program.mesh) if program.mesh else contextlib.nullcontext():
        compiled = as_users_jit(program.f).lower(*program.shapes).compile()
    text = str(compiled.as_text())
    assert largest_array(text) <= program.largest
    assert not re.search(program.never, text)
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= program.temporaries


def test_options_take_no_second_slab():
    """Tiled on a CPU, whose sums over classes read arrays in memory."""
    rows, features, classes = 1024, 128, 32128
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
            return mean(logits, ids, **options)

        shapes = array(rows, features), array(features, classes), ids(rows)
        memory = as_users_jit(gradient(loss)).lower(*shapes).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    # A slab takes 31 MiB; what is formed of a group of its rows, 4.
    assert taken(jnp.zeros(classes), **every) < 1.15 * taken()
