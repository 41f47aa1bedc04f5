"""On meshes, in every way of splitting them: numbers of one device; what is sent."""

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)

import jxent
from benchmarks.communication import (
    Moved,
    Pairs,
    Step,
    compiled,
    compiled_pairs,
    moved,
    of_paper,
    of_paper_of_pairs,
    table,
)
from benchmarks.targets import TARGETS
from jxent import softmax_cross_entropy
from tests.comparing import close
from tests.heads import of_layout
from tests.meshes import KINDS, NAMES, mesh_of, on_mesh, placed


pytestmark = pytest.mark.newest_jax

BATCH, TOKENS, FEATURES, CLASSES = 8, 4, 4, 24
AUTO, EXPLICIT = KINDS
mean_of = functools.partial(softmax_cross_entropy, reduction="mean")


class Way(NamedTuple):
    """How a call meets its mesh, and how its arrays are split.

    Rows over the axes named for the batch and for the tokens, classes over those named
    for the classes; the features of the kernel too (FSDP).
    """

    kind: AxisType = AUTO
    mesh: tuple[int, int] = (2, 4)
    rows: tuple[Any, Any] = ("data", None)
    classes: Any = "model"
    features: Any = None
    manual: tuple[str, ...] = ()  # bound by a shard_map of the caller's
    outside: bool = False  # which is differentiated from outside
    names: dict[str, str] = NAMES


BOTH = "data", "model"
HALVES = {f"{n}x{8 // n}": (n, 8 // n) for n in (1, 2, 4, 8)}
MANUAL = {f"manual {name}": Way(mesh=x, manual=BOTH) for name, x in HALVES.items()}
OUTSIDE = {
    f"outside {name}": Way(mesh=HALVES[name], manual=BOTH, outside=True)
    for name in ("1x8", "2x4", "8x1")
}
OF_HEADS = MANUAL | {
    "automatic": Way(),
    "explicit": Way(EXPLICIT, names={}),
    "nested in rows": Way(manual=("data",)),
    "nested in classes": Way(manual=("model",)),
    "automatic FSDP": Way(features="data"),
    "explicit FSDP": Way(EXPLICIT, features="data", names={}),
    "explicit, tokens too": Way(EXPLICIT, rows=BOTH, names={}),
    "rows alone": Way(classes=None, names={"batch_axis_name": "data"}),
    "classes alone": Way(rows=(None, None), names={"class_axis_name": "model"}),
}
SPLITS = {
    "classes": ((None, None), "model"),
    "rows": (("data", None), None),
    "both": (("data", None), "model"),
    "rows over both": ((BOTH, None), None),
}
OF_ARRAYS = {  # which need no names: their own shardings are enough
    f"{kind.name}, {name}": Way(kind, rows=rows, classes=classes, names={})
    for kind in KINDS
    for name, (rows, classes) in SPLITS.items()
}
WAYS = OF_HEADS | OUTSIDE | OF_ARRAYS


def specs_of(way):
    rows, tokens = way.rows
    of_rows, of_classes = P(rows, tokens), P(way.classes)
    both = P(rows, tokens, None if tokens else way.classes)
    return (
        {"kernel": P(way.features, way.classes)}
        | dict.fromkeys(("hidden", "ids", "where", "weights", "temperature"), of_rows)
        | dict.fromkeys(("bias", "class_weights", "class_mask", "margin"), of_classes)
        | dict.fromkeys(("logits", "probs", "distributions"), both)
    )


def problem(layout, kind):
    """Every option on. The last two classes are padding, some rows are ignored."""
    rng, rows = np.random.default_rng(0), (BATCH, TOKENS)
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
        "margin": rng.uniform(0.1, 0.5, CLASSES),
    }
    for name in ("distributions",) if kind == "ids" else ("ids", "margin"):
        del arrays[name]
    if layout == "in memory":
        hidden, kernel, bias = (arrays.pop(n) for n in ("hidden", "kernel", "bias"))
        arrays["logits"] = hidden @ kernel + bias
    return arrays


def logits_and_labels(layout, arrays, blocks=(8, 3)):
    """The first two arguments of a loss, and the others."""
    rest = dict(arrays)
    if "logits" in rest:
        logits = rest.pop("logits")
    else:
        head = [rest.pop(k) for k in ("hidden", "kernel", "bias")]
        logits = of_layout(layout, blocks)(*head)
    if "ids" in rest:
        rest["ignore_index"] = -100
    return logits, rest.pop("ids" if "ids" in rest else "distributions"), rest


def mean_loss(case, arrays, **names):
    logits, labels, rest = logits_and_labels(case.layout, arrays, case.block_sizes)
    numbers = {"label_smoothing": 0.1, "z_loss": 0.01, "logit_soft_cap": 5.0}
    return case.loss(logits, labels, reduction="mean", **numbers, **rest, **names)


def all_orders(f, second, arrays, directions):
    """Value, gradients, their derivatives along a direction: f and Hessian products."""
    x = {k: arrays[k] for k in directions}
    slopes = jax.value_and_grad(lambda some: f(arrays | some))
    return jax.jvp(slopes, (x,), (directions,)) if second else (slopes(x),)


def bound(way, f, inputs, outputs):
    """f inside a shard_map over the manual axes of a way, if it has any."""

    def kept(spec):
        return P(*(n if n in way.manual else None for n in spec))

    if not way.manual:
        return f
    specs = {
        "in_specs": jax.tree.map(kept, inputs),
        "out_specs": jax.tree.map(kept, outputs),
    }
    mesh = mesh_of(way.mesh, way.kind)
    return jax.shard_map(f, mesh=mesh, axis_names=set(way.manual), **specs)


def run(way, f, arrays, specs):
    return on_mesh(f, arrays, specs, shape=way.mesh, kind=way.kind)


# Numbers ----------------------------------------------------------------------------


class Case(NamedTuple):
    """A mean, every option on, in a layout of its logits, split in a way."""

    way: str
    layout: str
    kind: str = "ids"
    block_sizes: tuple[int, int] | None = (8, 3)
    loss: Any = softmax_cross_entropy

    def __str__(self):
        return "-".join(map(str, (*self[:4], self.loss.__name__)))

    @property
    def second(self):
        """Of the second order where arrays are split in both ways, or in memory."""
        return self.layout == "in memory" or (self.kind == "ids" and self.way in TWICE)


TWICE = "manual 2x4", "automatic", "explicit", "nested in rows", "nested in classes"
OTHERS = (
    jxent.softmax_focal_loss,
    jxent.poly_loss_cross_entropy,
    jxent.generalized_cross_entropy,
    jxent.symmetric_cross_entropy,
)
LABELS = "ids", "distributions"
STREAMED_TILED = "streamed", "tiled"
CASES = [
    *(Case(way, of) for way in OF_HEADS for of in STREAMED_TILED),
    *(Case(x, "materialized", "ids", None) for x in TWICE if x != "nested in rows"),
    *(
        Case(way, of, "distributions")
        for way in ("manual 2x4", "explicit", "nested in rows")
        for of in STREAMED_TILED
    ),
    Case("explicit, tokens too", "materialized", "distributions", None),
    *(Case("automatic", of, "ids", (5, 4)) for of in STREAMED_TILED),  # a rest
    # Each way of splitting arrays with one kind of labels, in turns.
    *(
        Case(way, "in memory", LABELS[(i + i // 4) % 2])
        for ways in (OF_ARRAYS, MANUAL | OUTSIDE)
        for i, way in enumerate(ways)
    ),
    *(Case("manual 2x4", "in memory", k, loss=f) for f in OTHERS for k in LABELS),
]


@functools.cache
def of_one_device(layout, kind, loss):
    """Arrays, directions of those that move, and what is wanted of every mesh."""
    arrays, rng = problem(layout, kind), np.random.default_rng(1)
    moving = ["logits", "hidden", "kernel", "bias", "weights", "class_weights"]
    moving += ["temperature", "distributions"] if layout == "in memory" else []
    directions = {k: rng.normal(size=arrays[k].shape) for k in moving if k in arrays}
    case = Case("", "materialized", kind, None, loss)
    f = functools.partial(all_orders, functools.partial(mean_loss, case), True)
    with jax.enable_x64(True):
        return arrays, directions, jax.device_get(jax.jit(f)(arrays, directions))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_order(case, x64):
    """In every array that moves: value and gradient, and the tangents of both."""
    of = "in memory" if case.layout == "in memory" else "head"
    arrays, directions, wanted = of_one_device(of, case.kind, case.loss)
    way = WAYS[case.way]
    specs = specs_of(way)
    inputs = {k: specs[k] for k in arrays}, {k: specs[k] for k in directions}
    orders = 2 if case.second else 1
    f = functools.partial(mean_loss, case, **way.names)
    if way.outside:
        f = bound(way, f, inputs[:1], P())
    f = functools.partial(all_orders, f, case.second)
    if not way.outside:
        f = bound(way, f, inputs, ((P(), inputs[1]),) * orders)
    close(run(way, f, (arrays, directions), inputs), wanted[:orders], 1e-11)


def statistics(logits, labels, **options):
    """All that a row has; `lse` and the like are made of the fields."""
    s = jxent.softmax_statistics(logits, labels, entropy=True, argmax=True, **options)
    return (*s[:-1], s.lse, s.log_prob, s.entropy), s.argmax


OF_ROWS: dict[str, tuple[Any, tuple[str, ...]]] = {  # and the options that it is given
    "statistics": (statistics, ("class_weights", "class_mask")),
    "focal": (OTHERS[0], ("label_smoothing",)),
    "poly": (OTHERS[1], ("label_smoothing",)),
    "symmetric": (OTHERS[3], ("label_smoothing",)),
    "log_prob": (jxent.softmax_log_prob, ()),
    "entropy": (
        lambda x, _, **options: jxent.softmax_entropy(x, **options),
        ("class_mask",),
    ),
    "categorical": (
        jxent.categorical_cross_entropy,
        ("class_weights", "label_smoothing"),
    ),
}
ROWS_CASES = [
    *(
        (name, f"manual {shape}", kind)
        for shape in ("1x8", "2x4", "8x1")
        for name, kind in (
            *((name, "ids") for name in ("log_prob", "entropy", "categorical")),
            *(("statistics", kind) for kind in LABELS),
        )
    ),
    *(
        (name, f"{kind.name}, {[*SPLITS][i % 4]}", "ids")
        for kind in KINDS
        for i, name in enumerate(OF_ROWS)
        if name != "categorical"
    ),
]


@pytest.mark.parametrize(("name", "way", "kind"), ROWS_CASES)
def test_results_of_rows(name, way, kind, x64):
    """And their derivatives; −inf, bad labels and a row of NaN are among them."""
    arrays, way = problem("in memory", kind), WAYS[way]
    x = arrays["logits"]
    x[0, 0, :20] = -np.inf
    x[1, 0] = x[1, 0, 0]  # the first of equals is the argmax
    if name == "categorical":
        x[0, 0] = 0
        x = arrays["probs"] = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    x[0, 1] = np.nan
    if kind == "ids":
        arrays["ids"][0, 2:4] = CLASSES + 3, CLASSES - 1  # the last is masked
    f, options = OF_ROWS[name]

    def results(arrays, **names):
        given = {k: arrays.get(k, 0.1) for k in options} | names
        if kind == "ids" and name != "entropy":
            given["ignore_index"] = -100

        def of(x):
            found = f(x, arrays["ids" if kind == "ids" else "distributions"], **given)
            return found if name == "statistics" else (found, ())

        found, pull, more = jax.vjp(
            of, arrays["probs" if "probs" in arrays else "logits"], has_aux=True
        )
        return found, more, pull(jax.tree.map(jnp.ones_like, found))

    specs = {k: specs_of(way)[k] for k in arrays}
    wanted = jax.device_get(jax.jit(results)(arrays))
    names = {"class_axis_name": "model"} if way.manual else {}
    outputs = (specs["where"], specs["where"], (specs["logits"],))
    g = bound(way, functools.partial(results, **names), (specs,), outputs)
    got = jax.device_get(run(way, g, (arrays,), (specs,)))
    if name == "statistics":
        assert np.isnan(got[0][0][0, 1])
    known = np.ones((BATCH, TOKENS), bool)
    known[0, 1] = False
    close(*(jax.tree.map(lambda x: x[known], tree) for tree in (got, wanted)))


@pytest.mark.parametrize("way", ["manual 2x4", "automatic", "explicit"])
def test_statistics_of_heads(way, x64):
    """What log-probability and entropy are made of, the argmax, and their slopes."""
    way = WAYS[way]
    taken = ("hidden", "kernel", "bias", "ids", "class_mask", "temperature")
    arrays = {k: x for k, x in problem("head", "ids").items() if k in taken}

    def results(layout, arrays, **names):
        def f(hidden):
            logits, labels, rest = logits_and_labels(
                layout, arrays | {"hidden": hidden}
            )
            found, argmax = statistics(logits, labels, **rest, **names)
            return found[-3:], argmax

        found, pull, argmax = jax.vjp(f, arrays["hidden"], has_aux=True)
        return found, argmax, pull(found)

    specs = {k: specs_of(way)[k] for k in taken}
    rows = specs["hidden"]
    f = functools.partial(results, "streamed", **way.names)
    f = bound(way, f, (specs,), (rows, rows, (rows,)))
    got = run(way, f, (arrays,), (specs,))
    close(got, jax.jit(functools.partial(results, "materialized"))(arrays))


@pytest.mark.parametrize("names", ["data", BOTH], ids=["one", "two"])
def test_the_mean_is_global(names, x64, rng):
    """Sigmoid losses, reduce and total_weight: not a mean of the devices' means."""
    x, y = rng.normal(size=(16, 3)), rng.integers(0, 2, (16, 3))
    where = rng.random((16, 3)) < np.linspace(0, 1, 16)[:, None]
    ids, weights = np.where(where[:, 0], 1, -100), rng.uniform(0, 2, 16)

    def results(x, y, where, ids, weights, **axis):
        options = {"where": where, "reduction": "mean"} | axis
        f = lambda x: (
            jxent.sigmoid_binary_cross_entropy(x, y, **options),
            jxent.sigmoid_focal_loss(x, y, **options),
            jxent.asymmetric_loss(x, y, **options),
            jxent.binary_cross_entropy(jax.nn.sigmoid(x), y, **options),
            jxent.reduce(x * x, **options),
            jxent.total_weight(ids, ignore_index=-100, weights=weights, **axis),
        )
        return f(x), jax.grad(lambda x: sum(f(x)))(x)

    arrays = x, y, where, ids, weights
    f = functools.partial(results, batch_axis_name=names)
    specs, outputs = (P(names),) * 5, (P(), P(names))
    got = on_mesh(f, arrays, specs, results=outputs, shape=(2, 4))
    close(got, jax.jit(results)(*arrays))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_scalar_label_for_all_devices(kind, x64, rng):
    """One number for the elements of all devices; its derivative is that of one."""

    def results(x, label, **axis):
        options: Any = {"reduction": "mean"} | axis
        f = lambda x, label: (
            jxent.sigmoid_binary_cross_entropy(x, label, **options)
            + jxent.sigmoid_focal_loss(x, label, **options)
            + jxent.binary_cross_entropy(jax.nn.sigmoid(x), label, **options)
        )
        return jax.value_and_grad(f, (0, 1))(x, label)

    arrays, specs = (rng.normal(size=(16, 4)), np.float64(0.25)), (P(*BOTH), P())
    wanted = jax.jit(results)(*arrays)
    how = {"shape": (2, 4), "kind": kind}
    close(on_mesh(results, arrays, specs, **how), wanted)
    f = functools.partial(results, batch_axis_name=BOTH)
    close(on_mesh(f, arrays, specs, results=(P(), specs), **how), wanted)


def test_padded_vocabulary(x64):
    """Kernel columns that class_mask forbids: the numbers of the head without them."""
    arrays, real = problem("head", "ids"), CLASSES - 2
    del arrays["class_mask"], arrays["margin"]
    unpadded = dict(arrays)
    for name in ("kernel", "bias", "class_weights"):
        unpadded[name] = arrays[name][..., :real]

    def gradient(layout, arrays, **names):
        case = Case("", layout, block_sizes=None)
        f = lambda kernel: mean_loss(case, arrays | {"kernel": kernel}, **names)
        return jax.value_and_grad(f)(arrays["kernel"])

    value, slope = jax.jit(functools.partial(gradient, None))(unpadded)
    padded = arrays | {"class_mask": np.arange(CLASSES) < real}
    f = functools.partial(gradient, "streamed", **NAMES)
    got, padded_slope = jax.device_get(on_mesh(f, (padded,), (P(),), shape=(2, 4)))
    close(got, value)
    close(padded_slope[:, :real], slope)
    assert not np.any(padded_slope[:, real:])


def test_rows_that_do_not_divide_stay_whole(x64):
    """And no mesh in context: that of the arrays is found, without jit, too."""
    specs = specs_of(WAYS["classes alone"])
    odd = {
        k: x if specs[k][-1] == "model" else x[:7]
        for k, x in problem("head", "ids").items()
    }
    f = functools.partial(mean_loss, Case("", "streamed", block_sizes=None))
    split = placed(mesh_of((2, 4)), odd, {k: specs[k] for k in odd})
    close(f(split, **NAMES), f(odd))


@pytest.mark.parametrize(
    ("layout", "specs"),
    [
        ("streamed", {"labels": P("data")}),
        (
            "tiled",
            {"weights": P("data"), "bias": P("model"), "class_weights": P("model")},
        ),
        ("streamed", {"hidden": P(None, "model"), "kernel": P("model")}),
        ("tiled", {"hidden": P(BOTH), "kernel": P(None, "model")}),
    ],
    ids=["labels", "options", "features", "twice"],
)
def test_explicit_axes_that_split_operands_otherwise(layout, specs, x64, rng):
    """Rows and classes are those of hidden and kernel: other splits are undone."""
    arrays = {
        "hidden": rng.normal(size=(8, FEATURES)),
        "kernel": rng.normal(size=(FEATURES, CLASSES)),
        "labels": rng.integers(0, CLASSES, 8),
        "bias": rng.normal(size=CLASSES),
        "weights": rng.uniform(0.5, 2, 8),
        "class_weights": rng.uniform(0.5, 2, CLASSES),
    }
    specs = {k: specs.get(k, P()) for k in arrays}

    def gradients(layout, arrays):
        rest = dict(arrays)
        head = [rest.pop(k) for k in ("hidden", "kernel", "bias")]
        f = lambda *head: mean_of(of_layout(layout, (3, 4))(*head), **rest)
        return jax.value_and_grad(f, (0, 1))(*head)

    f, how = functools.partial(gradients, layout), {"shape": (2, 4), "kind": EXPLICIT}
    got = on_mesh(f, (arrays,), (specs,), **how)
    for slope, k in zip(got[1], ("hidden", "kernel"), strict=True):
        wanted = jax.NamedSharding(mesh_of(**how), specs[k])
        assert slope.sharding.is_equivalent_to(wanted, 2)
    close(got, jax.jit(functools.partial(gradients, "materialized"))(arrays))


@pytest.mark.parametrize(("rows", "data"), [(0, 2), (1, 1)])
def test_few_rows(rows, data, x64):
    """None at all, and one, which must not be taken for an axis that is broadcast."""
    hidden, kernel = np.ones((rows, FEATURES)), np.ones((FEATURES, CLASSES))

    def gradients(hidden, kernel):
        logits = of_layout("tiled")(hidden, kernel)
        f = functools.partial(mean_of, **NAMES)
        return jax.value_and_grad(f)(logits, np.zeros(rows, int))

    arrays, specs = (hidden, kernel), (P(), P())
    value, slopes = on_mesh(gradients, arrays, specs, shape=(data, 8 // data))
    close(value, rows * np.log(CLASSES))
    assert (slopes.hidden.shape, slopes.kernel.shape) == (hidden.shape, kernel.shape)


def test_vmap_over_rows_that_can_be_skipped(x64, rng):
    """Under vmap the condition that skips dropped rows is a select of its operands."""
    hidden, kernel = rng.normal(size=(3, 8, FEATURES)), rng.normal(size=(FEATURES, 24))
    ids, weights = rng.integers(0, CLASSES, (3, 8)), rng.uniform(size=(3, 8))

    def gradients(layout, *arrays, **names):
        def f(hidden, ids, weights):
            logits = of_layout(layout, (3, 4))(hidden, kernel)
            return mean_of(logits, ids, weights=weights, **names)

        return jax.vmap(jax.grad(f))(*arrays)

    arrays, f = (
        (hidden, ids, weights),
        functools.partial(gradients, "streamed", **NAMES),
    )
    got = on_mesh(f, arrays, (P(),) * 3, shape=(2, 4))
    close(got, jax.jit(functools.partial(gradients, "materialized"))(*arrays))


@pytest.mark.parametrize("layout", ["materialized", "streamed", "tiled"])
def test_a_mask_of_classes_that_rows_share(layout, rng):
    """One mask a sequence, whose axis of time has size 1."""
    arrays = rng.normal(size=(4, 6, 3)), rng.normal(size=(3, 8))
    labels = rng.integers(0, 4, (4, 6))
    allowed = (np.arange(8) < np.array([5, 6, 7, 8])[:, None])[:, None]

    def gradients(logits, *arrays, **names):
        f = lambda *arrays: mean_of(logits(*arrays), labels, where=allowed, **names)
        return jax.value_and_grad(f, (0, 1))(*arrays)

    f = functools.partial(gradients, of_layout(layout), **NAMES)
    got = on_mesh(f, arrays, (P(), P()), shape=(2, 4))
    close(got, jax.jit(functools.partial(gradients, jnp.matmul))(*arrays), 1e-5)


@pytest.mark.parametrize("spec", [P("data"), P(*BOTH), P(None, "model")])
def test_total_weight_of_explicitly_split_labels(spec, rng):
    """With class weights and masks, of ids and of several ids a row."""
    ids = rng.integers(0, CLASSES, (16, 8, 2))
    ids[rng.random(ids.shape) < 0.2] = -100
    allowed = rng.random((16, 1, CLASSES)) < 0.8
    allowed[..., 0] = True
    options = {
        "class_weights": rng.uniform(0.5, 2, CLASSES).astype(np.float32),
        "weights": rng.integers(0, 3, (16, 8)).astype(np.float32),
    }
    plain = functools.partial(jxent.total_weight, ignore_index=-100)
    total = functools.partial(plain, **options)

    def totals(ids):
        several, values = jxent.SparseLabels(ids), jnp.ones(ids.shape, jnp.float32)
        of_two = total(jxent.SparseLabels(ids, values), where=allowed)
        one, where = ids[..., 0], allowed.any(-1)
        return plain(one), total(one, where=where), total(several, where=where), of_two

    wanted = jax.device_get(jax.jit(totals)(ids))
    assert wanted[0] == np.sum(ids[..., 0] >= 0)
    spec = P(*spec, *[None] * (3 - len(spec)))
    close(on_mesh(totals, (ids,), (spec,), shape=(2, 4), kind=EXPLICIT), wanted, 1e-6)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [(kind, P("data")) for kind in KINDS]
    + [(EXPLICIT, P(*BOTH)), (EXPLICIT, P(None, "model"))],
    ids=str,
)
def test_sequences_that_are_split(kind, spec, rng):
    """Neighbours on other devices are neighbours, and the results are split alike."""
    tokens = rng.integers(0, 9, (8, 16)).astype(np.int32)
    documents = np.cumsum(rng.random((8, 16)) < 0.3, -1)

    def of_sequences(tokens, documents):
        where = tokens != 0
        options = {"segment_ids": documents, "where": where}
        labels = [
            jxent.next_token_labels(tokens, shift=n, **options) for n in (1, 2, 3)
        ]
        return *labels, jxent.sequence_weights(where, segment_ids=documents)

    arrays, specs = (tokens, documents), (spec, spec)
    wanted, how = jax.jit(of_sequences)(*arrays), {"shape": (2, 4), "kind": kind}
    got = on_mesh(of_sequences, arrays, specs, **how)
    close(got, wanted)
    sharding = jax.NamedSharding(mesh_of(**how), spec)
    assert all(x.sharding.is_equivalent_to(sharding, 2) for x in got)
    if spec == P("data"):
        close(on_mesh(of_sequences, arrays, specs, results=(spec,) * 4, **how), wanted)


@pytest.mark.parametrize("name", ["class_axis_name", "batch_axis_name"])
def test_an_unknown_axis_name_is_an_error(name, rng):
    """A name that neither a shard_map nor the mesh in use knows."""
    x, y = rng.normal(size=(8, 8)).astype(np.float32), np.zeros(8, int)
    wrong: dict[str, Any] = {name: "modell"}
    f = functools.partial(softmax_cross_entropy, **wrong)
    with pytest.raises(ValueError, match=f"{name} 'modell' is neither bound"):
        f(x, y)
    for results in (None, P("data")):
        with pytest.raises(ValueError, match="neither bound"):
            on_mesh(f, (x, y), (P("data"), P("data")), results=results)


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
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "gradient"])
@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_what_devices_send(implementation, forward):
    """No logits and no kernel: what is sent is what is on paper."""
    sent = compiled(STEP, implementation, forward=forward)
    check_sent(sent, STEP, implementation, forward)


def test_the_table_of_the_site():
    page = Path(__file__).parents[1] / "docs" / "across-devices.md"
    assert table() in page.read_text(encoding="utf-8")


@pytest.mark.compiles
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
@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_what_chips_send(implementation):
    """The same, compiled for a TPU v5e of 2×4 chips that need not be there."""
    pytest.importorskip("libtpu")
    step = STEP._replace(width=2)
    sent = compiled(step, implementation, TARGETS["tpu-v5e"].devices(8))
    check_sent(sent, step, implementation, forward=False)


PAIRS = Pairs(batch=1024, features=64, devices=8)


@pytest.mark.compiles
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
def test_what_chips_of_a_ring_send():
    """Vectors in bfloat16. A TPU's program does not say how often a loop runs."""
    pytest.importorskip("libtpu")
    step = PAIRS._replace(width=2)
    sent = compiled_pairs(step, "ring", TARGETS["tpu-v5e"].devices(8))
    hops = (step.devices - 1,)
    sent = [m._replace(loops=hops if m.in_loop else ()) for m in sent]
    wanted = sum(of_paper_of_pairs(step, "ring").values())
    assert abs(sum(m.sent for m in sent) - wanted) < 1e-3 * wanted


@pytest.mark.compiles
@pytest.mark.parametrize("options", [False, True], ids=["", "options"])
@pytest.mark.parametrize("kind", LABELS)
def test_split_classes_are_never_gathered(kind, options):
    """Under automatic axes only rows' statistics move between devices."""
    rows, classes = 64, 4096
    x, labels = np.zeros((2, rows, classes), np.float32)
    arrays, specs = (x, labels), (P(None, "model"), P(None, "model"))
    if kind == "ids":
        arrays, specs = (x, np.zeros(rows, np.int32)), (specs[0], P())
    given: Any = {"label_smoothing": 0.1, "z_loss": 0.01} if options else {}
    if options:
        arrays, specs = (*arrays, np.ones(classes, np.float32)), (*specs, P("model"))

    def loss(x, labels, class_weights=None):
        return mean_of(x, labels, class_weights=class_weights, **given)

    sent = sent_by(jax.value_and_grad(loss), arrays, specs, (1, 8))
    assert sent
    assert max(n for m in sent for n in map(np.prod, m.shapes)) <= 8 * rows


@pytest.mark.compiles
@pytest.mark.parametrize("spec", [P("data"), P(None, "data")], ids=["rows", "classes"])
def test_automatic_axes_move_no_logits(spec):
    """Argmax and ranks: not even the maxima of chunks go from device to device."""

    def of(x, y):
        metrics = jxent.metrics.accuracy, jxent.metrics.top_k_accuracy
        argmax = jxent.softmax_statistics(x, argmax=True).argmax
        return argmax, [f(x, y) for f in metrics]

    arrays = np.zeros((64, 4096), np.float32), np.zeros(64, np.int32)
    sent = sent_by(of, arrays, (spec, P(*spec[:1])), (8, 1))
    assert max((m.numbers for m in sent), default=0) <= 64 * 8


def sent_by(f, arrays, specs, shape):
    arrays = placed(mesh_of(shape), arrays, specs)
    return moved(jax.jit(f).lower(*arrays).compile().as_text() or "")


@pytest.mark.compiles
def test_the_cpu_program_is_plain():
    """No conditional and no variadic reduce: what is slow on a CPU."""
    x, y = np.zeros((8, 128), np.float32), np.zeros(8, np.int32)
    text = str(jax.jit(jax.value_and_grad(mean_of)).lower(x, y).compile().as_text())
    assert " reduce(" in text
    assert not re.search(r"\bconditional\(", text)
    assert not re.search(r"= \([^=]*\) reduce\(", text)


def test_the_tpu_program_reads_the_logits_once():
    """One variadic reduce over the classes; no other platform's form is there."""
    x, y = np.zeros((8, 128), np.float32), np.zeros(8, np.int32)
    traced = jax.jit(softmax_cross_entropy).trace(x, y)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    over_classes = [
        line for line in text.splitlines() if "across dimensions = [1]" in line
    ]
    assert len(over_classes) == 1
    assert over_classes[0].count("init:") == 3
    assert "gather" not in text
