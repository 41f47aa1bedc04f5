"""LinearLogits: in every layout the loss that logits in memory give."""

import functools
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jxent
from jxent._layouts import choice
from tests.comparing import close
from tests.heads import (
    MATERIALIZED,
    STREAMED,
    STREAMED_TABLE,
    TILED,
    TILED_TABLE,
    every_order,
    fused,
    gradient_of,
    in_memory,
    name_of,
    of_both,
    of_floats,
    over,
    pick,
    problem,
    taken_apart,
    value_and_gradient,
)


# Values and gradients -----------------------------------------------------------------

EVERYTHING = (
    "hidden kernel bias class_mask class_weights weights temperature label_smoothing "
    "z_loss logit_soft_cap where "
)


@pytest.mark.newest_jax
@pytest.mark.parametrize("kind", ["ids", "distributions"])
@over(MATERIALIZED, STREAMED, TILED)
def test_every_option_in_every_order(layout, kind, x64, rng):
    """Forward, reverse and second order, in every floating argument at once."""
    arguments = pick(problem(rng), EVERYTHING + kind)
    options: dict[str, Any] = {"ignore_index": -100} if kind == "ids" else {}
    options["reduction"] = "none" if layout is STREAMED else "mean"
    if kind == "ids":  # a smaller block after each loop
        layout = layout._replace(block_sizes=(4, 3))
    else:
        layout = layout._replace(vocab_axis=0)
    f, x = of_floats(functools.partial(fused, layout, **options), arguments)
    g, _ = of_floats(functools.partial(in_memory, **options), arguments)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), x)
    got = jax.jit(functools.partial(every_order, f))(x, direction)
    close(got, jax.jit(functools.partial(every_order, g))(x, direction))


OPTIONS = {
    "bare": ("ids", {}),
    "ignored": ("ids", {"ignore_index": -100, "reduction": "mean"}),
    "rows": ("bias ids where weights temperature", {"reduction": "sum"}),
    "soft rows": ("distributions where weights", {"reduction": "mean"}),
    "classes": (
        "bias ids class_where class_weights label_smoothing",
        {"ignore_index": -100, "reduction": "mean"},
    ),
    "soft classes": (
        "distributions class_where class_weights label_smoothing",
        {"reduction": "sum"},
    ),
    "numbers": (
        "bias ids z_loss logit_soft_cap",
        {"reduction": "mean", "normalizer": 7.0, "temperature": 1.5},
    ),
}


@functools.cache
def wanted_of(name):
    """Arguments and options of a call, and its value and gradient in memory."""
    names, options = OPTIONS[name]
    arrays = problem(np.random.default_rng(len(name)))
    if "ignore_index" not in options:
        arrays["ids"] = np.maximum(arrays["ids"], 0)
        np.put_along_axis(arrays["class_where"], arrays["ids"][:, None], True, -1)
    arguments = pick(arrays, "hidden kernel " + names)
    f, x = of_floats(functools.partial(in_memory, **options), arguments)
    return arguments, options, jax.jit(value_and_gradient, static_argnums=0)(f, x)


# Orientations of the kernel take turns: programs are slow to compile.
TURNS = [(MATERIALIZED, name) for name in ("rows", "soft classes", "numbers")]
for turn, name in enumerate(OPTIONS):
    pairs = ((STREAMED, TILED_TABLE), (STREAMED_TABLE, TILED))
    TURNS += [(layout, name) for layout in pairs[turn % 2]]


@pytest.mark.newest_jax
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("kind", "platform"),
    [
        ("ids", None),
        ("distributions", None),
        ("several_ids values", None),
        pytest.param("several_ids values", "tpu", marks=pytest.mark.beyond_core),
    ],
    indirect=["platform"],
    ids=["ids", "distributions", "several ids", "several ids on a tpu"],
)
def test_a_tile_is_taken_by_groups_of_rows(kind, devices, x64, rng, monkeypatch):
    """On a CPU, where options act on logits; on a TPU, for several ids a row.

    On each of the devices, too.
    """
    # Groups as small as they come: of four rows, and of three, in each tile of seven.
    for name in choice.GROUP:
        monkeypatch.setitem(choice.GROUP, name, 0)
    names = EVERYTHING + "class_where " * (devices == 1) + kind
    arguments = pick(problem(rng, (14 * devices,), features=2), names)
    options: dict[str, Any] = {"ignore_index": -100} if kind == "ids" else {}
    f, x = of_floats(
        functools.partial(fused, MATERIALIZED, reduction="mean", **options), arguments
    )
    wanted = jax.jit(jax.value_and_grad(f))(x)
    layout = TILED._replace(block_sizes=(7, 3))
    if devices > 1:
        options["batch_axis_name"] = "rows"
    f, x = of_floats(
        functools.partial(fused, layout, reduction="mean", **options), arguments
    )
    mesh = jax.make_mesh(
        (devices,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.value_and_grad(f)).lower(x)
        close(lowered.compile()(x), wanted)
        text = lowered.as_text()
    assert all(f"tensor<{rows}x8xf64>" in text for rows in (4, 3))


@pytest.mark.parametrize(("layout", "name"), TURNS, ids=name_of)
def test_options(layout, name, x64):
    """Few options at a time, every orientation of the kernel."""
    arguments, options, wanted = wanted_of(name)
    if layout.implementation == "tiled" and "reduction" not in options:
        options = options | {"reduction": "sum"}
        g, x = of_floats(functools.partial(in_memory, **options), arguments)
        wanted = value_and_gradient(g, x)
    f, x = of_floats(functools.partial(fused, layout, **options), arguments)
    close(jax.jit(value_and_gradient, static_argnums=0)(f, x), wanted)


SHAPES = {
    "ragged": ((7,), 3, 9, (3, 4)),
    "blocks of 1": ((3,), 2, 3, (1, 1)),
    "few rows": ((2,), 3, 8, (3, 4)),
    "no rows": ((0,), 3, 5, (3, 4)),
    "one row": ((), 3, 5, (3, 4)),
    "rank 3": ((2, 2), 3, 8, (2, 4)),
    "few classes": ((4,), 3, 2, (2, 4)),
    "many features": ((4,), 37, 6, (2, 3)),
    "no rows of several": ((2, 0), 3, 5, (3, 4)),
    "default blocks": ((5,), 3, 7, (None, None)),
}
# The first in both layouts, the rest in turns.
IN_TURNS = [(layout, shape) for layout in (STREAMED, TILED_TABLE) for shape in SHAPES]
IN_TURNS = [x for n, x in enumerate(IN_TURNS) if n % 10 < 4 or n % 2 == n // 10]


@pytest.mark.parametrize(("layout", "shape"), IN_TURNS, ids=name_of)
def test_shapes(layout, shape, x64, rng):
    """Blocks that do not divide, or are larger than what they are blocks of."""
    rows, features, classes, blocks = SHAPES[shape]
    arrays = problem(rng, rows, features, classes)
    arguments = pick(arrays, "hidden kernel bias ids")
    options: dict[str, Any] = {"ignore_index": -100} if rows == (7,) else {}
    if not options:
        arguments["ids"] = np.maximum(arguments["ids"], 0)
    if layout.implementation == "tiled":
        options["reduction"] = "mean"
    layout = layout._replace(block_sizes=blocks)
    f, x = of_floats(functools.partial(fused, layout, **options), arguments)
    g, _ = of_floats(functools.partial(in_memory, **options), arguments)
    got, wanted = of_both(value_and_gradient, f, g)(x)
    close(got, wanted)
    if layout.implementation == "streamed":
        assert got[0].shape == rows


@pytest.mark.newest_jax
@over(STREAMED)
def test_statistics(layout, x64, rng):
    """Each field of each row, with the ties of an argmax and a dropped row."""
    arrays = problem(rng)
    arrays["hidden"][2] = 0
    arrays["bias"][[1, 6]] = arrays["bias"].max()
    layout = layout._replace(block_sizes=(None, 4))
    base = "hidden kernel bias class_mask temperature "
    ids = {"ignore_index": -100}
    every = {"entropy": True, "argmax": True}
    calls = {
        "statistics": (base + "ids class_weights", every | ids),
        "soft statistics": (base + "distributions", every),
        "bare statistics": (base, {}),
        "log_prob": (base + "ids", ids),
        "entropy": (base, {}),
        "cross_entropy": (base + "ids", ids),
    }

    def results(run, moving):
        for name, (names, options) in calls.items():
            function = getattr(jxent, f"softmax_{name.split()[-1]}")
            if function is jxent.softmax_cross_entropy:
                function = jxent.with_statistics(function)
            f = functools.partial(run, function=function, **options)
            f, x = of_floats(f, pick(arrays | moving, names))
            yield f(x), gradient_of(f)(x) if name == "statistics" else None

    all_of = lambda run, moving: [*results(run, moving)]
    moving = {k: x for k, x in arrays.items() if x.dtype.kind == "f"}
    close(*of_both(all_of, functools.partial(fused, layout), in_memory)(moving))


@over(STREAMED)
def test_formulas_of_log_probabilities(layout, x64, rng):
    """Focal and poly-1 loss from the log-probability."""
    arguments = pick(problem(rng), "hidden kernel bias ids")
    arguments["ids"][1] = 0
    log_prob = functools.partial(fused, layout, function=jxent.softmax_log_prob)

    def formulas(x):
        log_p = log_prob(x)
        focal = -((-jnp.expm1(log_p)) ** 2) * log_p
        return focal, -log_p - 2 * jnp.expm1(log_p)

    def in_memory_formulas(x):
        losses = jxent.softmax_focal_loss, jxent.poly_loss_cross_entropy
        return tuple(in_memory(x, function) for function in losses)

    f, x = of_floats(formulas, arguments)
    g, _ = of_floats(in_memory_formulas, arguments)
    close(*of_both(value_and_gradient, f, g)(x))


@over(STREAMED_TABLE, TILED)
def test_accepts_what_looks_like_an_array(layout, rng):
    """nnx.Param, numpy arrays and lists give what jax arrays give, to the bit."""
    arguments = pick(problem(rng), "hidden kernel bias ids class_weights weights")
    arguments = {
        k: x.astype(np.float32) if x.dtype.kind == "f" else x
        for k, x in arguments.items()
    }
    arguments["ids"][1] = 0
    head, (ids,), rest = taken_apart(arguments)
    logits = layout.head(*head)

    def call(of):
        leaves = {k: of(getattr(logits, k)) for k in ("hidden", "kernel", "bias")}
        options: dict[str, Any] = {k: of(x) for k, x in rest.items()}
        made = logits.replace(**leaves)
        return jxent.softmax_cross_entropy(made, of(ids), reduction="sum", **options)

    wanted = call(jnp.asarray)
    for of in (lambda x: x, np.ndarray.tolist, lambda x: nnx.Param(jnp.asarray(x))):
        assert call(of).tobytes() == wanted.tobytes()


# Transformations ----------------------------------------------------------------------


@pytest.mark.newest_jax
@over(STREAMED, TILED)
def test_forward_mode(layout, x64, rng):
    """A tangent without any reverse mode around it."""
    arguments = pick(problem(rng), "hidden kernel bias ids class_weights z_loss")
    options: dict[str, Any] = {"ignore_index": -100}
    options["reduction"] = "none" if layout is STREAMED else "mean"

    def forward(run):
        f, x = of_floats(functools.partial(run, **options), arguments)
        return jax.jvp(f, (x,), (jax.tree.map(jnp.cos, x),))

    got = jax.jit(functools.partial(forward, functools.partial(fused, layout)))()
    close(got, forward(in_memory))


@pytest.mark.newest_jax
@over(STREAMED, TILED)
def test_vmap_of_gradients(layout, x64, rng):
    """Of several heads on the same rows, and of one head on several batches."""
    arrays = problem(rng)
    arguments = pick(arrays, "hidden kernel bias ids")
    options = {"ignore_index": -100, "reduction": "mean"}

    def gradients(run):
        f, x = of_floats(functools.partial(run, **options), arguments)
        axes = {"hidden": None, "kernel": 0, "bias": 0}
        stacked = {
            k: x[k] if a is None else jnp.stack([x[k], 2 * x[k]])
            for k, a in axes.items()
        }
        batches = x | {"hidden": jnp.stack([x["hidden"], -x["hidden"]])}
        each = functools.partial(value_and_gradient, f)
        one = {"hidden": 0, "kernel": None, "bias": None}
        return jax.vmap(each, (axes,))(stacked), jax.vmap(each, (one,))(batches)

    got = jax.jit(functools.partial(gradients, functools.partial(fused, layout)))()
    close(got, jax.jit(functools.partial(gradients, in_memory))())


@pytest.mark.newest_jax
@over(STREAMED, TILED)
def test_gradient_of_a_gradient(layout, x64, rng):
    """Reverse over reverse, in the arguments of a whole head."""
    arguments = pick(problem(rng), "hidden kernel bias ids weights z_loss")
    options = {"ignore_index": -100, "reduction": "mean"}

    def twice(run):
        f, x = of_floats(functools.partial(run, **options), arguments)
        return gradient_of(gradient_of(f))(x)

    close(*of_both(twice, functools.partial(fused, layout), in_memory)())


@pytest.mark.newest_jax
@over(STREAMED_TABLE, TILED)
def test_scan_equals_the_unrolled_loop(layout, x64, rng):
    """Two batches in a scan, checkpointed: value, gradient, hessian-vector product."""
    arrays = problem(rng, (2, 6))
    kernel = jnp.asarray(arrays["kernel"])
    batches = jnp.asarray(arrays["hidden"]), jnp.asarray(np.maximum(arrays["ids"], 0))

    def step(run, kernel, total, batch):
        arguments = {"hidden": batch[0], "kernel": kernel, "ids": batch[1]}
        return total + run(arguments, reduction="mean") * jnp.cos(total)

    def scanned(kernel):
        run = functools.partial(fused, layout)
        body = jax.checkpoint(functools.partial(step, run, kernel))
        start = jnp.zeros_like(kernel, shape=())
        return lax.scan(lambda c, x: (body(c, x), None), start, batches)[0]

    def unrolled(kernel):
        total = jnp.zeros_like(kernel, shape=())
        for i in range(2):
            total = step(in_memory, kernel, total, [x[i] for x in batches])
        return total

    direction = jnp.asarray(rng.normal(size=kernel.shape))
    close(*of_both(every_order, scanned, unrolled)(kernel, direction))
