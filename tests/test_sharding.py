"""Losses on meshes: manual, automatic and explicit axes, and what is compiled."""

import functools
import re
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
from tests.comparing import close


pytestmark = pytest.mark.newest_jax


ROWS, CLASSES = 16, 24
MESHES = [(1, 8), (2, 4), (8, 1)]
on_every_mesh = pytest.mark.parametrize("shape", MESHES, ids=lambda s: f"{s[0]}x{s[1]}")


def compiled(f, *arguments, **options) -> str:
    return str(jax.jit(f).lower(*arguments, **options).compile().as_text())


def mesh_of(shape, kind=AxisType.Auto):
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind))


def batch(rng):
    """Arrays and where each is split: rows over data, classes over model."""
    real = np.arange(CLASSES) < CLASSES - 2
    ids = rng.integers(0, CLASSES - 2, ROWS)
    ids[[1, 9, 15]] = -100
    arrays = {
        "logits": (3 * rng.normal(size=(ROWS, CLASSES)), P("data", "model")),
        "ids": (ids, P("data")),
        "distributions": (rng.uniform(0, 1, (ROWS, CLASSES)), P("data", "model")),
        "class_weights": (rng.uniform(0.5, 2, CLASSES), P("model")),
        "class_mask": (real, P("model")),
        "where": (rng.random(ROWS) < 0.8, P("data")),
        "weights": (rng.uniform(0, 2, ROWS), P("data")),
        "temperature": (rng.uniform(0.5, 2, ROWS), P("data")),
        "margin": (rng.uniform(0.1, 0.5, CLASSES), P("model")),
    }
    return {k: v for k, (v, _) in arrays.items()}, {
        k: s for k, (_, s) in arrays.items()
    }


NUMBERS = {"label_smoothing": 0.1, "logit_soft_cap": 8.0, "z_loss": 0.01}
SOFTMAX = {
    "cross_entropy": jxent.softmax_cross_entropy,
    "focal": jxent.softmax_focal_loss,
    "poly": jxent.poly_loss_cross_entropy,
    "generalized": jxent.generalized_cross_entropy,
    "symmetric": jxent.symmetric_cross_entropy,
}


def mean_loss(loss, kind, arrays, **names):
    """A softmax loss with every option on, and a few of its statistics."""
    labels = arrays["ids" if kind == "ids" else "distributions"]
    rest = {}
    if kind == "ids":
        rest = {"ignore_index": -100, "margin": arrays["margin"]}
    options = ("class_weights", "class_mask", "where", "weights", "temperature")
    rest |= {k: arrays[k] for k in options}
    return loss(arrays["logits"], labels, reduction="mean", **NUMBERS, **rest, **names)


def all_orders(f, arrays, direction):
    """Value and gradient, and the tangents of both: jvp, hessian-vector product."""
    both = jax.value_and_grad(lambda x: f(arrays | {"logits": x}))
    return jax.tree.leaves(jax.jvp(both, (arrays["logits"],), (direction,)))


@functools.cache
def program_of_all_orders(name, kind):
    f = functools.partial(mean_loss, SOFTMAX[name], kind)
    return jax.jit(functools.partial(all_orders, f))


@functools.cache
def of_one_device(name, kind):
    """Arrays, a direction of the logits, and what is wanted of every mesh."""
    rng = np.random.default_rng(0)
    arrays, _ = batch(rng)
    direction = rng.normal(size=(ROWS, CLASSES))
    return arrays, direction, program_of_all_orders(name, kind)(arrays, direction)


@pytest.mark.parametrize("kind", ["ids", "distributions"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("cross_entropy", shape) for shape in (*MESHES, (4, 2))),
        ("focal", (2, 4)),
        ("poly", (2, 4)),
        ("generalized", (2, 4)),
        ("symmetric", (2, 4)),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{x[0]}x{x[1]}",
)
def test_inside_shard_map(name, kind, shape, x64, rng):
    """The global mean and its derivatives equal those of the unsplit arrays."""
    arrays, direction, wanted = of_one_device(name, kind)
    _, specs = batch(rng)
    names = {"class_axis_name": "model", "batch_axis_name": "data"}
    f = functools.partial(mean_loss, SOFTMAX[name], kind, **names)
    split = jax.shard_map(
        functools.partial(all_orders, f),
        mesh=mesh_of(shape),
        in_specs=(specs, specs["logits"]),
        out_specs=[P(), specs["logits"], P(), specs["logits"]],
    )
    for a, b in zip(jax.jit(split)(arrays, direction), wanted, strict=True):
        close(a, b)


@on_every_mesh
def test_differentiated_from_outside_shard_map(shape, x64, rng):
    """grad, jvp and hessian-vector product through the shard_map itself."""
    arrays, direction, wanted = of_one_device("cross_entropy", "ids")
    _, specs = batch(rng)
    names = {"class_axis_name": "model", "batch_axis_name": "data"}
    inside = functools.partial(mean_loss, jxent.softmax_cross_entropy, "ids", **names)
    split = jax.shard_map(inside, mesh=mesh_of(shape), in_specs=(specs,), out_specs=P())
    got = jax.jit(functools.partial(all_orders, split))(arrays, direction)
    for a, b in zip(got, wanted, strict=True):
        close(a, b)


@on_every_mesh
def test_gradients_in_the_options_inside_shard_map(shape, x64, rng):
    """Class weights, weights, temperature and distributions: split as their arrays."""
    arrays, specs = batch(rng)
    moving = ("logits", "distributions", "class_weights", "weights", "temperature")

    def run(arrays, **names):
        f = lambda some: mean_loss(
            jxent.softmax_cross_entropy, "distributions", arrays | some, **names
        )
        return jax.grad(f)({k: arrays[k] for k in moving})

    split = jax.shard_map(
        functools.partial(run, class_axis_name="model", batch_axis_name="data"),
        mesh=mesh_of(shape),
        in_specs=(specs,),
        out_specs={k: specs[k] for k in moving},
    )
    got, wanted = jax.jit(split)(arrays), jax.jit(run)(arrays)
    for k in moving:
        close(got[k], wanted[k])


@on_every_mesh
@pytest.mark.parametrize("kind", ["ids", "distributions"])
def test_statistics_inside_shard_map(kind, shape, x64, rng):
    """Every field of every row, with −inf, bad labels and a row of NaN among them."""
    arrays, specs = batch(rng)
    arrays["logits"][2, :20] = -np.inf
    arrays["logits"][3] = np.nan
    arrays["ids"][4] = CLASSES + 3
    arrays["ids"][5] = CLASSES - 1  # a masked class
    arrays["logits"][6] = arrays["logits"][6, 0]  # the first of equals is the argmax

    def run(arrays, **names):
        labels = arrays["ids" if kind == "ids" else "distributions"]
        rest = {"ignore_index": -100} if kind == "ids" else {}
        s = jxent.softmax_statistics(
            arrays["logits"],
            labels,
            class_weights=arrays["class_weights"],
            class_mask=arrays["class_mask"],
            entropy=True,
            argmax=True,
            **rest,
            **names,
        )
        return (*s, s.lse, s.log_prob, s.entropy)

    wanted = jax.jit(run)(arrays)
    split = jax.shard_map(
        functools.partial(run, class_axis_name="model"),
        mesh=mesh_of(shape),
        in_specs=(specs,),
        out_specs=P("data"),
    )
    got = jax.jit(split)(arrays)
    assert len(jax.tree.leaves(got)) == len(jax.tree.leaves(wanted))
    rows = np.arange(ROWS) != 3
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        close(np.asarray(a)[rows], np.asarray(b)[rows])
    assert np.isnan(got[0][3])


@on_every_mesh
@pytest.mark.parametrize("name", ["log_prob", "entropy", "categorical"])
def test_the_rest_of_the_family_inside_shard_map(name, shape, x64, rng):
    arrays, specs = batch(rng)
    probs = jax.nn.softmax(arrays["logits"])

    def run(arrays, probs, **names):
        if name == "log_prob":
            f = lambda x: jxent.softmax_log_prob(
                x, arrays["ids"], ignore_index=-100, **names
            )
        elif name == "entropy":
            f = lambda x: jxent.softmax_entropy(
                x, class_mask=arrays["class_mask"], **names
            )
        else:
            f = lambda x: jxent.categorical_cross_entropy(
                x,
                arrays["ids"],
                ignore_index=-100,
                class_weights=arrays["class_weights"],
                label_smoothing=0.1,
                **names,
            )
        x = probs if name == "categorical" else arrays["logits"]
        losses, pull = jax.vjp(f, x)
        return losses, pull(losses)[0]

    split = jax.shard_map(
        functools.partial(run, class_axis_name="model"),
        mesh=mesh_of(shape),
        in_specs=(specs, specs["logits"]),
        out_specs=(P("data"), specs["logits"]),
    )
    got, wanted = jax.jit(split)(arrays, probs), jax.jit(run)(arrays, probs)
    close(got[0], wanted[0])
    close(got[1], wanted[1])


@pytest.mark.parametrize("names", ["data", ("data", "model")], ids=["one", "two"])
def test_the_mean_is_global(names, x64, rng):
    """Sigmoid losses, reduce and total_weight: not a mean of the devices' means."""
    x = rng.normal(size=(ROWS, 3))
    y = rng.integers(0, 2, (ROWS, 3))
    where = rng.random((ROWS, 3)) < np.linspace(0, 1, ROWS)[:, None]
    ids = np.where(where[:, 0], 1, -100)
    weights = rng.uniform(0, 2, ROWS)

    def run(x, y, where, ids, weights, **axis):
        options = {"where": where, "reduction": "mean"} | axis
        f = lambda x: (
            jxent.sigmoid_binary_cross_entropy(x, y, **options),
            jxent.sigmoid_focal_loss(x, y, **options),
            jxent.asymmetric_loss(x, y, **options),
            jxent.binary_cross_entropy(jax.nn.sigmoid(x), y, **options),
            jxent.reduce(x * x, **options),
            jxent.total_weight(ids, ignore_index=-100, weights=weights, **axis),
        )
        slope = jax.grad(lambda x: sum(f(x)))
        return f(x), slope(x)

    inputs = (x, y, where, ids, weights)
    spec = P(names)
    split = jax.shard_map(
        functools.partial(run, batch_axis_name=names),
        mesh=mesh_of((2, 4)),
        in_specs=(spec,) * 5,
        out_specs=(P(), spec),
    )
    got, wanted = jax.jit(split)(*inputs), jax.jit(run)(*inputs)
    for a, b in zip(got[0], wanted[0], strict=True):
        close(a, b)
    close(got[1], wanted[1])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_scalar_label_for_all_devices(kind, x64, rng):
    """One number for the elements of all devices; its derivative is that of one."""
    x = rng.normal(size=(ROWS, 4))

    def run(x, label, **axis):
        f = lambda x, label: (
            jxent.sigmoid_binary_cross_entropy(x, label, reduction="mean", **axis)
            + jxent.sigmoid_focal_loss(x, label, reduction="mean", **axis)
            + jxent.binary_cross_entropy(
                jax.nn.sigmoid(x), label, reduction="mean", **axis
            )
        )
        return jax.value_and_grad(f, (0, 1))(x, label)

    wanted = jax.jit(run)(x, 0.25)
    mesh = mesh_of((2, 4), kind)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, P("data", "model")))
        got = [jax.jit(run)(split, 0.25)]
        inside = jax.shard_map(
            functools.partial(run, batch_axis_name=("data", "model")),
            in_specs=(P("data", "model"), P()),
            out_specs=(P(), (P("data", "model"), P())),
        )
        got.append(jax.jit(inside)(split, jnp.asarray(0.25)))
    for a in got:
        jax.tree.map(close, a, wanted)


@pytest.mark.parametrize("name", ["class_axis_name", "batch_axis_name"])
def test_an_unknown_axis_name_is_an_error(name, rng):
    """A name that neither a shard_map nor the mesh in use knows."""
    x, y = rng.normal(size=(8, 8)).astype(np.float32), np.zeros(8, int)
    wrong: dict[str, Any] = {name: "modell"}
    with pytest.raises(ValueError, match=f"{name} 'modell' is neither bound"):
        jxent.softmax_cross_entropy(x, y, **wrong)
    f = functools.partial(jxent.softmax_cross_entropy, **wrong)
    mesh = mesh_of((2, 4))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="neither bound"):
        jax.jit(f)(x, y)
    with pytest.raises(ValueError, match="neither bound"):
        jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data"))(x, y)


# Under jit, with arrays that are split ------------------------------------------------

LAYOUTS = {
    "classes": (None, "model"),
    "rows": ("data", None),
    "both": ("data", "model"),
    "rows over both": (("data", "model"), None),
}


def placed(arrays, mesh, layout):
    rows, classes = layout
    specs = {k: P(rows) for k in arrays}
    specs |= {k: P(rows, classes) for k in ("logits", "distributions")}
    specs |= {k: P(classes) for k in ("class_weights", "class_mask", "margin")}
    return {
        k: jax.device_put(v, NamedSharding(mesh, specs[k])) for k, v in arrays.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["ids", "distributions"])
@pytest.mark.parametrize(
    "axes", [AxisType.Auto, AxisType.Explicit], ids=lambda k: k.name
)
def test_under_jit(axes, kind, layout, x64):
    """Automatic and explicit axes: values, gradients and hessian-vector products."""
    arrays, direction, wanted = of_one_device("cross_entropy", kind)
    mesh = mesh_of((2, 4), axes)
    split = placed(arrays, mesh, LAYOUTS[layout])
    moved = jax.device_put(direction, split["logits"].sharding)
    with jax.set_mesh(mesh):
        got = program_of_all_orders("cross_entropy", kind)(split, moved)
    for a, b in zip(got, wanted, strict=True):
        close(a, b)


@functools.cache
def program_of_rows(name):
    """Every row's loss, or what a loss is made of, and the gradient of their sum."""

    def f(x, ids):
        if name in SOFTMAX:
            return SOFTMAX[name](x, ids, ignore_index=-100, label_smoothing=0.1)
        if name == "statistics":
            s = jxent.softmax_statistics(x, ids, entropy=True, argmax=True)
            assert s.argmax is not None
            return s.lse + s.log_prob + s.entropy + s.argmax.astype(s.lse.dtype)
        if name == "log_prob":
            return jxent.softmax_log_prob(x, ids, ignore_index=-100)
        return jxent.softmax_entropy(x)

    @jax.jit
    def run(x, ids):
        losses, pull = jax.vjp(lambda x: f(x, ids), x)
        return losses, pull(jnp.ones_like(losses))[0]

    return run


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name", ["focal", "poly", "symmetric", "statistics", "log_prob", "entropy"]
)
@pytest.mark.parametrize(
    "axes", [AxisType.Auto, AxisType.Explicit], ids=lambda k: k.name
)
def test_the_family_under_jit(axes, name, layout, x64, rng):
    """The arrays' own shardings are enough; no mesh need be set."""
    arrays, _ = batch(rng)
    arrays["ids"] = np.maximum(arrays["ids"], 0)
    split = placed(arrays, mesh_of((2, 4), axes), LAYOUTS[layout])
    run = program_of_rows(name)
    got = run(split["logits"], split["ids"])
    wanted = run(arrays["logits"], arrays["ids"])
    close(got[0], wanted[0])
    close(got[1], wanted[1])


@pytest.mark.compiles
@pytest.mark.parametrize("options", [False, True], ids=["", "options"])
@pytest.mark.parametrize("kind", ["ids", "distributions"])
def test_split_classes_are_never_gathered(kind, options, rng):
    """Under automatic axes only rows' statistics move between devices."""
    rows, classes = 64, 4096
    mesh = mesh_of((1, 8))
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
    x = put(np.zeros((rows, classes), np.float32), None, "model")
    labels = (
        put(np.zeros(rows, np.int32))
        if kind == "ids"
        else put(np.zeros((rows, classes), np.float32), None, "model")
    )
    given = {"label_smoothing": 0.1, "z_loss": 0.01} if options else {}
    if options:
        given["class_weights"] = put(np.ones(classes, np.float32), "model")
    f = jax.value_and_grad(
        functools.partial(jxent.softmax_cross_entropy, reduction="mean")
    )
    text = compiled(f, x, labels, **given)
    moved = re.findall(
        r"= (.*?) (all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\(",
        text,
    )
    assert moved
    for shapes, operation in moved:
        for dims in re.findall(r"\[([\d,]*)\]", shapes):
            size = np.prod([int(d) for d in dims.split(",") if d])
            assert size <= 8 * rows, (operation, shapes)


# What is compiled ---------------------------------------------------------------------


@pytest.mark.compiles
def test_the_cpu_program_is_plain(rng):
    """No conditional and no variadic reduce: what is slow on a CPU."""
    x, y = np.zeros((8, 128), np.float32), np.zeros(8, np.int32)
    f = jax.value_and_grad(
        functools.partial(jxent.softmax_cross_entropy, reduction="mean")
    )
    text = compiled(f, x, y)
    assert " reduce(" in text
    assert not re.search(r"\bconditional\(", text)
    assert not re.search(r"= \([^=]*\) reduce\(", text)


def test_the_tpu_program_reads_the_logits_once():
    """One variadic reduce over the classes; no other platform's form is there."""
    x, y = np.zeros((8, 128), np.float32), np.zeros(8, np.int32)
    traced = jax.jit(jxent.softmax_cross_entropy).trace(x, y)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    over_classes = [
        line for line in text.splitlines() if "across dimensions = [1]" in line
    ]
    assert len(over_classes) == 1
    assert over_classes[0].count("init:") == 3
    assert "gather" not in text


def test_total_weight_of_explicitly_split_labels(rng):
    labels = rng.integers(0, CLASSES, ROWS)
    labels[[1, 9, 15]] = -100
    mesh = mesh_of((2, 4), AxisType.Explicit)
    split = jax.device_put(labels, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        total = jax.jit(functools.partial(jxent.total_weight, ignore_index=-100))(split)
    assert total == ROWS - 3


@pytest.mark.parametrize("spec", [P("data"), P("data", "model"), P(None, "model")])
def test_total_weight_of_explicitly_split_classes_of_labels(spec, rng):
    """With class weights and masks, of ids and of several ids a row."""
    ids = rng.integers(0, CLASSES, (ROWS, 8, 2))
    ids[rng.random(ids.shape) < 0.2] = -100
    allowed = rng.random((ROWS, 1, CLASSES)) < 0.8
    allowed[..., 0] = True
    options = {
        "class_weights": rng.uniform(0.5, 2, CLASSES).astype(np.float32),
        "weights": rng.integers(0, 3, (ROWS, 8)).astype(np.float32),
    }
    total = functools.partial(jxent.total_weight, ignore_index=-100, **options)

    def totals(ids):
        several, values = jxent.SparseLabels(ids), jnp.ones(ids.shape, jnp.float32)
        of_two = total(jxent.SparseLabels(ids, values), where=allowed)
        where = allowed.any(-1)
        return total(ids[..., 0], where=where), total(several, where=where), of_two

    wanted = totals(jnp.asarray(ids))
    mesh = mesh_of((2, 4), AxisType.Explicit)
    with jax.set_mesh(mesh):
        split = jax.device_put(
            ids, NamedSharding(mesh, P(*spec, *[None] * (3 - len(spec))))
        )
        close(jax.jit(totals)(split), wanted, 1e-6)


@pytest.mark.parametrize("spec", [P("data"), P("data", "model"), P(None, "model")])
def test_sequences_whose_time_is_split(spec, rng):
    """Neighbours on other devices are neighbours, and the results are split alike."""
    tokens = rng.integers(0, 9, (2, 16)).astype(np.int32)
    documents = np.cumsum(rng.random((2, 16)) < 0.3, -1)

    def of_sequences(tokens, documents):
        where = tokens != 0
        labels = [
            jxent.next_token_labels(
                tokens, segment_ids=documents, where=where, shift=shift
            )
            for shift in (1, 3)
        ]
        return *labels, jxent.sequence_weights(where, segment_ids=documents)

    wanted = of_sequences(tokens, documents)
    mesh = mesh_of((2, 4), AxisType.Explicit)
    with jax.set_mesh(mesh):
        split = [
            jax.device_put(x, NamedSharding(mesh, spec)) for x in (tokens, documents)
        ]
        got = jax.jit(of_sequences)(*split)
    close(got, wanted)
    wanted_sharding = NamedSharding(mesh, spec)
    assert all(x.sharding.is_equivalent_to(wanted_sharding, 2) for x in got)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_next_token_labels_of_split_rows(kind, rng):
    """Under jit and inside shard_map as on one device."""
    tokens = rng.integers(1, 9, (8, 6)).astype(np.int32)
    segments = np.sort(rng.integers(0, 3, tokens.shape).astype(np.int32))

    def labels(t, s):
        return jxent.next_token_labels(t, segment_ids=s, where=s != 0, shift=2)

    expected = labels(tokens, segments)
    mesh, split = mesh_of((2, 4), kind), P("data")
    arrays = jax.device_put((tokens, segments), NamedSharding(mesh, split))
    with jax.set_mesh(mesh):
        inside = jax.shard_map(labels, in_specs=split, out_specs=split)
        for f in (labels, inside):
            np.testing.assert_array_equal(jax.jit(f)(*arrays), expected)
