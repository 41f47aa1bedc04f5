"""LinearLogits on meshes: in every way of splitting them the numbers of one device."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import (
    AxisType,
    NamedSharding,
    PartitionSpec as P,
)

import jxent
from benchmarks.communication import (
    Moved,
    Pairs,
    Step,
    compiled,
    compiled_pairs,
    of_paper,
    of_paper_of_pairs,
    table,
)
from benchmarks.targets import TARGETS
from jxent import LinearLogits, softmax_cross_entropy
from tests.comparing import close
from tests.heads import of_layout


BATCH, TOKENS, FEATURES, CLASSES = 8, 4, 4, 24
IMPLEMENTATIONS = ("materialized", "streamed", "tiled")
NAMES: dict[str, Any] = {"class_axis_name": "model", "batch_axis_name": "data"}


class Way(NamedTuple):
    """How a call meets its mesh, and how its arrays are split.

    Rows over the axes named for the batch and for the tokens, classes over those named
    for the classes; the features of the kernel too (FSDP).
    """

    kind: AxisType = AxisType.Auto
    mesh: tuple[int, int] = (2, 4)
    rows: tuple[Any, Any] = ("data", None)
    classes: Any = "model"
    features: Any = None
    manual: tuple[str, ...] = ()  # bound by a shard_map of the caller's
    names: dict[str, str] = NAMES


WAYS = {
    "manual 1x8": Way(mesh=(1, 8), manual=("data", "model")),
    "manual 2x4": Way(manual=("data", "model")),
    "manual 4x2": Way(mesh=(4, 2), manual=("data", "model")),
    "manual 8x1": Way(mesh=(8, 1), manual=("data", "model")),
    "automatic": Way(),
    "explicit": Way(AxisType.Explicit, names={}),
    "nested in rows": Way(manual=("data",)),
    "nested in classes": Way(manual=("model",)),
    "automatic FSDP": Way(features="data"),
    "explicit FSDP": Way(AxisType.Explicit, features="data", names={}),
    "explicit, tokens too": Way(AxisType.Explicit, rows=("data", "model"), names={}),
    "rows alone": Way(classes=None, names={"batch_axis_name": "data"}),
    "classes alone": Way(rows=(None, None), names={"class_axis_name": "model"}),
}


def specs_of(way):
    rows, tokens = way.rows
    return {
        "hidden": P(rows, tokens),
        "kernel": P(way.features, way.classes),
        "bias": P(way.classes),
        "ids": P(rows, tokens),
        "distributions": P(rows, tokens, None if tokens else way.classes),
        "class_weights": P(way.classes),
        "class_mask": P(way.classes),
        "where": P(rows, tokens),
        "weights": P(rows, tokens),
        "temperature": P(rows, tokens),
    }


def problem(rng, kind):
    """Every option on. The last two classes are padding, some rows are ignored."""
    rows = (BATCH, TOKENS)
    ids = rng.integers(0, CLASSES - 2, rows)
    ids[rng.random(rows) < 0.3] = -100
    arrays = {
        "hidden": rng.normal(size=(*rows, FEATURES)),
        "kernel": rng.normal(size=(FEATURES, CLASSES)),
        "bias": rng.normal(size=CLASSES),
        "ids": ids,
        "distributions": rng.uniform(size=(*rows, CLASSES)),
        "class_weights": rng.uniform(0.5, 2, CLASSES),
        "class_mask": np.arange(CLASSES) < CLASSES - 2,
        "where": rng.random(rows) < 0.8,
        "weights": rng.uniform(0.5, 2, rows),
        "temperature": rng.uniform(0.5, 2, rows),
    }
    del arrays["distributions" if kind == "ids" else "ids"]
    return arrays


def call(logits, arrays, function=softmax_cross_entropy, **options):
    rest = dict(arrays)
    head = {k: rest.pop(k) for k in ("hidden", "kernel", "bias")}
    ignored = {"ignore_index": -100} if "ids" in rest else {}
    labels = rest.pop("ids") if ignored else rest.pop("distributions")
    return function(logits(**head), labels, **rest, **ignored, **options)


def mean_loss(logits, arrays, **options):
    numbers = {"label_smoothing": 0.1, "z_loss": 0.01, "logit_soft_cap": 5.0}
    return call(logits, arrays, reduction="mean", **numbers, **options)


def all_orders(f, arrays, directions, *, second=True):
    """Value, gradients, their derivatives along a direction: f and Hessian products."""
    x = {k: arrays[k] for k in directions}
    slopes = jax.value_and_grad(lambda some: f(arrays | some))
    if second:
        return jax.jvp(slopes, (x,), (directions,))
    return (slopes(x),)


def on_mesh(way, f, inputs, outputs):
    """A function of split arrays; with `manual` names inside a shard_map over them."""
    mesh = jax.make_mesh(way.mesh, ("data", "model"), axis_types=(way.kind,) * 2)

    def kept(spec):
        return P(*(n if n in way.manual else None for n in spec))

    if way.manual:
        f = jax.shard_map(
            f,
            mesh=mesh,
            in_specs=jax.tree.map(kept, inputs),
            out_specs=jax.tree.map(kept, outputs),
            axis_names=set(way.manual),
        )

    def run(*arrays):
        put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
        arrays = jax.tree.map(put, arrays, inputs)
        with jax.set_mesh(mesh):
            return jax.jit(f)(*arrays)

    return run


@functools.cache
def of_one_device(kind):
    with jax.enable_x64(True):
        arrays = problem(np.random.default_rng(0), kind)
        names = ("hidden", "kernel", "bias", "weights", "class_weights")
        rng = np.random.default_rng(1)
        directions = {k: rng.normal(size=arrays[k].shape) for k in names}
        f = functools.partial(mean_loss, of_layout("materialized"))
        wanted = jax.jit(functools.partial(all_orders, f))(arrays, directions)
    return arrays, directions, wanted


# Numbers ----------------------------------------------------------------------------

SECOND = ("manual 2x4", "automatic", "explicit", "nested in rows", "nested in classes")
CASES = [
    *((way, of, "ids", (8, 3)) for way in WAYS for of in ("streamed", "tiled")),
    *(
        (way, "materialized", "ids", None)
        for way in ("manual 2x4", "automatic", "explicit", "nested in classes")
    ),
    *(
        (way, of, "distributions", (8, 3))
        for way in ("manual 2x4", "explicit", "nested in rows")
        for of in ("streamed", "tiled")
    ),
    ("explicit, tokens too", "materialized", "distributions", None),
    ("automatic", "streamed", "ids", (5, 4)),  # blocks that do not divide
    ("automatic", "tiled", "ids", (5, 4)),
]


# On the newest jax each way once, its layout in turn.
NEWEST = [
    (way, ("streamed", "tiled")[i % 2], "ids", (8, 3)) for i, way in enumerate(WAYS)
]


def with_mark(case):
    marks = pytest.mark.newest_jax if case in NEWEST else ()
    return pytest.param(*case, marks=marks)


@pytest.mark.parametrize(
    ("way", "implementation", "kind", "block_sizes"),
    [with_mark(case) for case in CASES],
)
def test_every_order(way, implementation, kind, block_sizes, x64):
    """Of the second order where arrays are split in both ways, of the first always."""
    arrays, directions, wanted = of_one_device(kind)
    second = kind == "ids" and way in {*SECOND}
    way = WAYS[way]
    logits = of_layout(implementation, block_sizes)
    f = functools.partial(mean_loss, logits, **way.names)
    specs = specs_of(way)
    inputs = {k: specs[k] for k in arrays}, {k: specs[k] for k in directions}
    orders = 2 if second else 1
    f = functools.partial(all_orders, f, second=second)
    run = on_mesh(way, f, inputs, ((P(), inputs[1]),) * orders)
    close(run(arrays, directions), wanted[:orders], 1e-11)


@pytest.mark.newest_jax
@pytest.mark.parametrize("way", ["manual 2x4", "automatic", "explicit"])
def test_statistics_of_rows(way, x64):
    """What log-probability and entropy are made of, the argmax, and their slopes."""
    way, (arrays, _, _) = WAYS[way], of_one_device("ids")
    taken = ("hidden", "kernel", "bias", "ids", "class_mask", "temperature")
    arrays = {k: arrays[k] for k in taken}

    def run(logits, arrays, **names):
        def f(hidden):
            every = {"entropy": True, "argmax": True} | names
            some = arrays | {"hidden": hidden}
            s = call(logits, some, jxent.softmax_statistics, **every)
            return (s.lse, s.log_prob, s.entropy), s.argmax

        results, pull, argmax = jax.vjp(f, arrays["hidden"], has_aux=True)
        return results, argmax, pull(results)

    specs = {k: specs_of(way)[k] for k in taken}
    rows = specs["hidden"]
    f = functools.partial(run, of_layout("streamed", (8, 3)), **way.names)
    got = on_mesh(way, f, (specs,), ((rows,) * 3, rows, (rows,)))(arrays)
    close(got, jax.jit(functools.partial(run, of_layout("materialized")))(arrays))


@pytest.mark.newest_jax
def test_padded_vocabulary(x64):
    """Kernel columns that class_mask forbids: the numbers of the head without them."""
    arrays, _, _ = of_one_device("ids")
    arrays = {k: x for k, x in arrays.items() if k != "class_mask"}
    real = CLASSES - 2
    parts = {"kernel": (..., slice(real)), "bias": slice(real)}
    parts |= {"class_weights": slice(real)}
    unpadded = arrays | {k: arrays[k][at] for k, at in parts.items()}

    def run(logits, arrays, **names):
        f = lambda kernel: mean_loss(logits, arrays | {"kernel": kernel}, **names)
        return jax.value_and_grad(f)(arrays["kernel"])

    value, gradient = jax.jit(functools.partial(run, LinearLogits))(unpadded)
    padded = arrays | {"class_mask": np.arange(CLASSES) < real}
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        f = functools.partial(run, of_layout("streamed"), **NAMES)
        got, slope = jax.jit(f)(padded)
    close(got, value)
    close(slope[:, :real], gradient)
    assert not np.any(slope[:, real:])


@pytest.mark.newest_jax
def test_rows_that_do_not_divide_stay_whole(x64):
    """And no mesh in context: that of the arrays is found, without jit, too."""
    arrays, _, _ = of_one_device("ids")
    split = ("kernel", "bias", "class_weights", "class_mask")
    odd = {k: x if k in split else x[:7] for k, x in arrays.items()}
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    specs = specs_of(WAYS["classes alone"])
    placed = {
        k: jax.device_put(x, NamedSharding(mesh, specs[k])) for k, x in odd.items()
    }
    f = functools.partial(mean_loss, of_layout("streamed"))
    close(f(placed, **NAMES), f(odd))


@pytest.mark.newest_jax
@pytest.mark.parametrize(
    ("implementation", "specs"),
    [
        ("streamed", {"labels": P("data")}),
        (
            "tiled",
            {"weights": P("data"), "bias": P("model"), "class_weights": P("model")},
        ),
        ("streamed", {"hidden": P(None, "model"), "kernel": P("model")}),
        ("tiled", {"hidden": P(("data", "model")), "kernel": P(None, "model")}),
    ],
    ids=["labels", "options", "features", "twice"],
)
def test_explicit_axes_that_split_operands_otherwise(implementation, specs, x64, rng):
    """Rows and classes are those of hidden and kernel: other splits are undone."""
    arrays = {
        "hidden": rng.normal(size=(8, FEATURES)),
        "kernel": rng.normal(size=(FEATURES, CLASSES)),
        "labels": rng.integers(0, CLASSES, 8),
        "bias": rng.normal(size=CLASSES),
        "weights": rng.uniform(0.5, 2, 8),
        "class_weights": rng.uniform(0.5, 2, CLASSES),
    }
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    placed = {
        k: jax.device_put(x, NamedSharding(mesh, specs.get(k, P())))
        for k, x in arrays.items()
    }

    def run(logits, arrays):
        rest = dict(arrays)
        head = [rest.pop(k) for k in ("hidden", "kernel", "bias")]
        f = lambda *head: softmax_cross_entropy(logits(*head), reduction="mean", **rest)
        return jax.value_and_grad(f, (0, 1))(*head)

    f = functools.partial(run, of_layout(implementation, (3, 4)))
    with jax.set_mesh(mesh):
        got = jax.jit(f)(placed)
    for slope, k in zip(got[1], ("hidden", "kernel"), strict=True):
        assert slope.sharding.is_equivalent_to(placed[k].sharding, 2)
    close(got, jax.jit(functools.partial(run, of_layout("materialized")))(arrays))


@pytest.mark.newest_jax
@pytest.mark.parametrize(("rows", "data"), [(0, 2), (1, 1)])
def test_few_rows(rows, data, x64):
    """None at all, and one, which must not be taken for an axis that is broadcast."""
    mesh = jax.make_mesh(
        (data, 8 // data), ("data", "model"), axis_types=(AxisType.Auto,) * 2
    )
    hidden, kernel = np.ones((rows, FEATURES)), np.ones((FEATURES, CLASSES))

    @jax.jit
    def run(hidden, kernel):
        labels, logits = np.zeros(rows, int), of_layout("tiled")(hidden, kernel)
        f = functools.partial(softmax_cross_entropy, reduction="mean", **NAMES)
        return jax.value_and_grad(f)(logits, labels)

    with jax.set_mesh(mesh):
        value, slopes = run(hidden, kernel)
    close(value, rows * np.log(CLASSES))
    assert (slopes.hidden.shape, slopes.kernel.shape) == (hidden.shape, kernel.shape)


@pytest.mark.newest_jax
def test_vmap_over_rows_that_can_be_skipped(x64, rng):
    """Under vmap the condition that skips dropped rows is a select of its operands."""
    hidden = rng.normal(size=(3, 8, FEATURES))
    ids, weights = rng.integers(0, CLASSES, (3, 8)), rng.uniform(size=(3, 8))
    kernel = rng.normal(size=(FEATURES, CLASSES))

    def run(logits, **names):
        f = lambda hidden, ids, weights: softmax_cross_entropy(
            logits(hidden, kernel), ids, weights=weights, reduction="mean", **names
        )
        return jax.jit(jax.vmap(jax.grad(f)))(hidden, ids, weights)

    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        got = run(of_layout("streamed", (3, 4)), **NAMES)
    close(got, run(of_layout("materialized")))


# What is compiled ---------------------------------------------------------------------

STEP = Step(tokens=1024, features=64, classes=4096, data=2, model=4, width=4)
TILE = 128  # rows of a tile, the least that is planned


def check_sent(sent: list[Moved], step: Step, implementation: str, forward: bool):
    """One maximum and one sum of statistics; the gradients of hidden and of kernel."""
    wanted = of_paper(step)
    assert {m.operation for m in sent} == {"all-reduce"}
    numbers, small = [], 0
    for m in sent:
        for shape in m.shapes:
            if shape:
                numbers.append((m.in_loop, m.devices, int(np.prod(shape))))
            else:
                small += 1
                assert not m.in_loop
    rows = step.tokens // step.data
    tiled = implementation == "tiled" and not forward
    each = TILE if tiled else rows
    expected = [(tiled, step.model, each)] * 3  # maximum, sum, the label's logit
    assert small <= 3  # Σ loss, Σ 1, and which tiles there are to compute
    if not forward:
        expected += [
            (False, step.model, rows * step.features),
            (False, step.data, step.features * step.classes // step.model),
        ]
    assert sorted(numbers) == sorted(expected)
    reductions = [m for m in sent if m.shapes[0] == (each,)]
    assert [len(m.shapes) for m in reductions] == [1, 2]
    if not tiled:
        total = sum(m.sent for m in sent)
        if forward:
            total += wanted["hidden gradient"] + wanted["kernel gradient"]
        assert total == sum(wanted.values())


@pytest.mark.compiles
@pytest.mark.newest_jax
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "gradient"])
@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_what_devices_send(implementation, forward):
    """No logits and no kernel: what is sent is what is on paper."""
    sent = compiled(STEP, implementation, forward=forward)
    check_sent(sent, STEP, implementation, forward)


@pytest.mark.newest_jax
def test_the_table_of_the_site():
    page = Path(__file__).parents[1] / "docs" / "across-devices.md"
    assert table() in page.read_text(encoding="utf-8")


@pytest.mark.compiles
@pytest.mark.newest_jax
@pytest.mark.parametrize("spec", [P("data", "model"), P(None, ("model", "data"))])
@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_a_kernel_split_over_the_batch_axis_is_gathered_once(implementation, spec):
    """As FSDP splits it: one gather and one reduction, none of them in a loop."""
    sent = compiled(STEP, implementation, kernel_spec=spec)
    gathers = [m for m in sent if m.operation == "all-gather"]
    whole = STEP.features * STEP.classes // STEP.model
    assert [(m.numbers, m.devices, m.in_loop) for m in gathers] == [(whole, 2, False)]
    check_sent([m for m in sent if m not in gathers], STEP, implementation, False)


@pytest.mark.compiles
@pytest.mark.newest_jax
@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_what_chips_send(implementation):
    """The same, compiled for a TPU v5e of 2×4 chips that need not be there."""
    pytest.importorskip("libtpu")
    step = STEP._replace(width=2)
    sent = compiled(step, implementation, TARGETS["tpu-v5e"].devices(8))
    check_sent(sent, step, implementation, forward=False)


PAIRS = Pairs(batch=1024, features=64, devices=8)


@pytest.mark.compiles
@pytest.mark.newest_jax
@pytest.mark.parametrize("implementation", ["gathered", "ring"])
def test_what_pairs_send(implementation):
    """One gather and one reduction; or in a ring nothing but a share at a time."""
    sent = compiled_pairs(PAIRS, implementation)
    wanted = sum(of_paper_of_pairs(PAIRS, implementation).values())
    assert abs(sum(m.sent for m in sent) - wanted) < 1e-3 * wanted
    share = PAIRS.batch * PAIRS.features // PAIRS.devices
    large = [m for m in sent if m.numbers >= share]
    if implementation == "gathered":
        operations = [(m.operation, m.loops) for m in large]
        assert operations == [("all-gather", ()), ("reduce-scatter", ())]
    else:  # the vectors twice, and their gradient
        moves = [(m.operation, m.numbers, m.loops) for m in large]
        assert moves == [("collective-permute", share, (PAIRS.devices - 1,))] * 3


@pytest.mark.compiles
@pytest.mark.newest_jax
def test_what_chips_of_a_ring_send():
    """Vectors in bfloat16. A TPU's program does not say how often a loop runs."""
    pytest.importorskip("libtpu")
    step = PAIRS._replace(width=2)
    sent = compiled_pairs(step, "ring", TARGETS["tpu-v5e"].devices(8))
    hops = (step.devices - 1,)
    sent = [m._replace(loops=hops if m.in_loop else ()) for m in sent]
    wanted = sum(of_paper_of_pairs(step, "ring").values())
    assert abs(sum(m.sent for m in sent) - wanted) < 1e-3 * wanted


@pytest.mark.newest_jax
@pytest.mark.parametrize("implementation", ["materialized", "streamed", "tiled"])
def test_a_mask_of_classes_that_rows_share(implementation, rng):
    """One mask a sequence, whose axis of time has size 1."""
    hidden, kernel = rng.normal(size=(4, 6, 3)), rng.normal(size=(3, 8))
    labels = rng.integers(0, 4, (4, 6))
    allowed = (np.arange(8) < np.array([5, 6, 7, 8])[:, None])[:, None]
    options: dict[str, Any] = {"where": allowed, "reduction": "mean"}

    def head(hidden, kernel):
        logits = of_layout(implementation)(hidden, kernel)
        return softmax_cross_entropy(logits, labels, **options, **NAMES)

    def plain(hidden, kernel):
        return softmax_cross_entropy(hidden @ kernel, labels, **options)

    automatic = (AxisType.Auto,) * 2
    with jax.set_mesh(jax.make_mesh((2, 4), ("data", "model"), axis_types=automatic)):
        got = jax.jit(jax.value_and_grad(head, (0, 1)))(hidden, kernel)
    wanted = jax.jit(jax.value_and_grad(plain, (0, 1)))(hidden, kernel)
    close(got, wanted, 1e-5)
