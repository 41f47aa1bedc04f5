"""LossSums: what a training loop logs, from one pass, added up field by field."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)

import jxent
from jxent import metrics
from tests.cases import dense
from tests.comparing import close, same_bits
from tests.heads import of_layout
from tests.meshes import NAMES, on_mesh


pytestmark = pytest.mark.newest_jax

ROWS, FEATURES, CLASSES = 8, 3, 6


def batch(rng, shape=(ROWS,)):
    labels = rng.integers(0, CLASSES - 1, shape)
    labels.reshape(-1)[1::4] = -100
    return {
        "hidden": rng.normal(size=(*shape, FEATURES)),
        "kernel": rng.normal(size=(FEATURES, CLASSES)),
        "labels": labels,
    }


def every_option(rng, shape=(ROWS,)):
    where, weights = rng.random(shape) < 0.8, rng.random(shape)
    weights.reshape(-1)[2] = 0
    return {
        "where": where,
        "weights": weights,
        "class_weights": rng.random(CLASSES),
        "class_mask": np.arange(CLASSES) < CLASSES - 1,
        "ignore_index": -100,
        "label_smoothing": 0.1,
        "z_loss": 0.01,
        "logit_soft_cap": 3.0,
        "temperature": 0.7,
        "margin": 0.2,
    }


def sums_of(logits):
    """The sums as a function of hidden states and a kernel, whose logits are these."""

    def sums(hidden, kernel, labels, **options):
        z = logits(hidden, kernel)
        return jxent.softmax_cross_entropy_sums(z, labels, **options)

    return sums


in_memory = sums_of(jnp.matmul)
LAYOUTS = {
    "in memory": in_memory,
    "materialized": sums_of(of_layout("materialized")),
    "streamed": sums_of(of_layout("streamed", (4, 2))),
    "by default": sums_of(jxent.LinearLogits),
}


def one_by_one(hidden, kernel, labels, z_loss=0.0, **options):
    """The same sums from the functions that give them singly."""
    logits = hidden @ kernel
    loss = functools.partial(jxent.softmax_cross_entropy, logits, labels, **options)
    r = (labels != -100).astype(logits.dtype) * options.get("weights", 1.0)
    r = r * jnp.asarray(options.get("where", True)).astype(logits.dtype)
    r = r * jnp.asarray(options.get("class_weights", np.ones(CLASSES)))[labels]
    _, rows = jxent.with_statistics(loss)()
    right = rows.argmax == labels.astype(jnp.int32)
    return jxent.LossSums(
        loss=loss(reduction="sum"),
        z_loss=loss(reduction="sum", z_loss=z_loss) - loss(reduction="sum"),
        entropy=jnp.sum(r * rows.entropy),
        correct=jnp.sum(r * right.astype(logits.dtype)),
        weight=jnp.sum(r),
    )


def values_and_gradients(sums, arrays, options):
    """Each sum with its own gradient in hidden and kernel."""

    def of(hidden, kernel):
        return sums(hidden, kernel, arrays["labels"], **options)

    point = arrays["hidden"], arrays["kernel"]
    return of(*point), jax.jacrev(of, (0, 1))(*point)


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_sum_and_its_gradient(name, x64, rng):
    arrays = batch(rng)

    @jax.jit
    def run(arrays):
        both = LAYOUTS[name], one_by_one
        each = {"ignore_index": -100}, every_option(rng)
        return [[values_and_gradients(f, arrays, o) for o in each] for f in both]

    close(*jax.device_get(run(arrays)), tolerance=1e-11)


@pytest.mark.parametrize("name", ["in memory", "streamed"])
def test_they_add_up(name, x64, rng):
    """Over any split of the batch, rows of several axes included."""
    arrays, options = batch(rng, (4, 2)), every_option(rng, (4, 2))
    sums = LAYOUTS[name]

    @jax.jit
    def run(hidden, kernel, labels):
        def of(part):
            per_row = {n: options[n][part] for n in ("where", "weights")}
            return sums(hidden[part], kernel, labels[part], **options | per_row)

        parts = [of(slice(0, 1)), of(slice(1, 4))]
        mapped = jax.vmap(lambda h, y: sums(h, kernel, y, ignore_index=-100))
        plain = sums(hidden, kernel, labels, ignore_index=-100)
        return parts, of(slice(None)), mapped(hidden, labels), plain

    parts, whole, each, plain = run(**arrays)
    close(jax.tree.map(jnp.add, *parts), whole)
    close(jax.tree.map(jnp.sum, each), plain)


KINDS = [
    jxent.LossSums,
    metrics.AccuracySums,
    metrics.BrierScoreSums,
    metrics.CalibrationErrorSums,
    metrics.PerplexitySums,
]


def sums_from(kind, start):
    return kind(*(jnp.float32(start + i) for i in range(len(kind._fields))))


@pytest.mark.every_value
@pytest.mark.parametrize("kind", KINDS)
def test_plus_adds_field_by_field(kind):
    """So does `sum`; the result is of the same kind, a tuple and a pytree."""
    a, b = sums_from(kind, 1), sums_from(kind, 7)
    wanted = jax.tree.map(jnp.add, a, b)
    zeros, stack = jax.tree.map(jnp.zeros_like, a), jax.tree.map(lambda *x: x, a, b)
    stack = kind(*map(jnp.stack, stack))
    scanned, _ = jax.lax.scan(lambda sums, x: (sums + x, None), zeros, stack)
    over_axis = jax.vmap(lambda x: jax.lax.psum(x, "i"), axis_name="i")(stack)
    of_first = jax.tree.map(lambda x: x[0], over_axis)
    kept = pickle.loads(pickle.dumps(a)) + copy.copy(b)
    for got in (a + b, sum([a, b]), scanned, of_first, kept, jax.jit(sum)([a, b])):
        assert type(got) is kind
        same_bits(got, wanted)
    assert repr(a).startswith(f"{kind.__name__}({kind._fields[0]}=")
    assert tuple(a._replace(weight=b.weight)) == (*a[:-1], b.weight)


# Several classes a row ----------------------------------------------------------------


# Of each row the ids, by the rank of their logits among the possible classes, and
# whether the likeliest class, of rank 0, is one of most mass.
MASKED, PADDING = -2, -1
BY_RANK = [
    ([0, 0, 1, PADDING], True),  # equal ids add up
    ([1, 1, 0, PADDING], False),
    ([2, 0, 1, PADDING], True),  # a tie
    ([MASKED, MASKED, MASKED, 0], True),  # mass on a masked class is dropped
    ([0, 1, 2, 0], True),
    ([2, 2, 0, 2], False),
    ([1, 0, 0, PADDING], True),
    ([0, PADDING, PADDING, PADDING], True),
]
RANKS, RIGHT = (np.array(x) for x in zip(*BY_RANK, strict=True))


def of_several_classes(rng):
    """Arrays, labels of each kind that name several classes a row, and options."""
    arrays = batch(rng)
    possible = (arrays["hidden"] @ arrays["kernel"])[:, :-1]
    by_rank = np.argsort(-possible, axis=1)
    none, masked = (np.full((ROWS, 1), x) for x in (-100, CLASSES - 1))
    ids = np.take_along_axis(np.hstack([by_rank, masked, none]), RANKS, axis=1)
    options = {
        "weights": np.append(rng.uniform(0.5, 2, ROWS - 1), 0.0),
        # In the row of the tie another class has most weight, which does not count.
        "class_weights": 1.0 + 2 * (np.arange(CLASSES) == by_rank[2, 1]),
        "class_mask": np.arange(CLASSES) < CLASSES - 1,
        "z_loss": 0.01,
    }
    labels = {
        "distributions": dense(ids, np.ones(ids.shape), CLASSES),
        "SparseLabels": jxent.SparseLabels(ids),
        "with values": jxent.SparseLabels(ids, np.ones(ids.shape)),
    }
    return arrays, labels, options


def of_counts(hidden, kernel, q, *, weights, class_weights, class_mask, z_loss):
    """The same sums, written out for distributions."""
    mask = class_mask[None]
    z, q = jnp.where(mask, hidden @ kernel, -jnp.inf), jnp.where(mask, q, 0.0)
    lse = jax.nn.logsumexp(z, axis=-1)
    log_p = jnp.where(mask, z - lse[:, None], 0.0)
    q_of_all = q * class_weights[None]
    r = weights * jnp.sum(q_of_all, -1)
    entropy = -jnp.sum(jnp.where(mask, jnp.exp(log_p) * log_p, 0.0), -1)
    right = jnp.asarray(RIGHT, z.dtype)
    return jxent.LossSums(
        loss=-jnp.sum(weights * jnp.sum(q_of_all * log_p, -1)),
        z_loss=z_loss * jnp.sum(r * lse**2),
        entropy=jnp.sum(r * entropy),
        correct=jnp.sum(r * right),
        weight=jnp.sum(r),
    )


KINDS = ("distributions", "SparseLabels", "with values")


def ignoring(kind, options):
    return options | ({} if kind == "distributions" else {"ignore_index": -100})


@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_that_name_several_classes(name, x64, rng):
    """Correct where the largest logit's class is one of most mass: ties count, class
    weights do not, nor what is masked; equal ids add up."""
    arrays, labels, options = of_several_classes(rng)

    @jax.jit
    def run(arrays, labels):
        def of(sums, kind, options):
            given = arrays | {"labels": labels[kind]}
            return values_and_gradients(sums, given, options)

        wanted = of(of_counts, "distributions", options)
        return wanted, [of(LAYOUTS[name], k, ignoring(k, options)) for k in KINDS]

    wanted, each = jax.device_get(run(arrays, labels))
    for got in each:
        close(got, wanted, 1e-11)


@pytest.mark.parametrize("kind", ["ids", *KINDS])
@pytest.mark.parametrize("way", ["in a shard_map", "by the arrays"])
def test_over_devices(way, kind, x64, rng):
    """Rows and classes split inside shard_map, and the head on explicit axes."""
    arrays, labels, options = of_several_classes(rng)
    options, of_classes = ignoring(kind, options), ("class_weights", "class_mask")
    arrays["labels"] = labels.get(kind, arrays["labels"])
    arrays |= {n: options.pop(n) for n in ("weights", *of_classes)}
    specs = dict.fromkeys(("hidden", "labels", "weights"), P("data"))
    specs |= {"kernel": P(None, "model")} | dict.fromkeys(of_classes, P("model"))
    if kind == "distributions":
        specs["labels"] = P("data", "model")

    def inside(**arrays):
        sums = lambda arrays: in_memory(**arrays, **options, **NAMES)
        return jax.shard_map(sums, in_specs=(specs,), out_specs=P())(arrays)

    def of(sums, arrays):
        rest = {n: arrays[n] for n in ("weights", *of_classes)}
        return values_and_gradients(sums, arrays, options | rest)

    def on_devices(arrays):
        if way == "by the arrays":
            return of(LAYOUTS["by default"], arrays)
        slopes = lambda h, k: inside(**arrays | {"hidden": h, "kernel": k})
        point = arrays["hidden"], arrays["kernel"]
        return slopes(*point), jax.jacrev(slopes, (0, 1))(*point)

    wanted = jax.jit(functools.partial(of, in_memory))(arrays)
    got = on_mesh(on_devices, (arrays,), (specs,), kind=AxisType.Explicit)
    close(got, wanted, 1e-11)


def test_a_bad_id_among_several(x64, rng):
    """Its row is NaN in loss and correct, and counts as before in the weight."""
    arrays, labels, options = of_several_classes(rng)
    ids, point = labels["SparseLabels"].ids, (arrays["hidden"], arrays["kernel"])
    run = jax.jit(
        lambda ids: in_memory(
            *point, jxent.SparseLabels(ids), **ignoring("SparseLabels", options)
        )
    )
    weight = run(ids).weight
    for place, bad, dropped in (((0, 1), CLASSES, False), ((-1, slice(None)), 9, True)):
        spoilt = ids.copy()
        spoilt[place] = bad
        sums = run(spoilt)
        assert np.isnan(sums.loss) == (not dropped)
        assert np.isnan(sums.correct) == (not dropped)
        close(sums.weight, weight)


# Rows that do not count ---------------------------------------------------------------


def test_dropped_rows_and_bad_labels(x64, rng):
    arrays = batch(rng)
    spoilt, bad = jax.tree.map(np.copy, (arrays, arrays))
    spoilt["hidden"][1::4] = np.nan
    bad["labels"][0] = CLASSES
    both = in_memory, LAYOUTS["streamed"]

    @jax.jit
    def run(arrays):
        options = {"ignore_index": -100}
        return [values_and_gradients(sums, arrays, options) for sums in both]

    each = (jax.device_get(run(x)) for x in (spoilt, arrays, bad))
    for layout, (got, (values, _), (of_bad, _)) in enumerate(zip(*each, strict=True)):
        close(got[0], values)
        if layout:  # a product in front of the loss spreads NaN
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(got[1]))
        assert np.isnan(of_bad.loss)
        assert np.isnan(of_bad.correct)
        assert of_bad.weight == values.weight


def test_dropped_logits_and_nothing_left():
    """No gradient of a dropped row; sums of 0 where every row is dropped."""
    z = np.array([[1.0, 2.0], [np.nan, 0.0]], np.float32)
    f = functools.partial(
        jxent.softmax_cross_entropy_sums, ignore_index=-100, z_loss=1.0
    )
    run = jax.jit(lambda z, y: (f(z, y), jax.jacrev(f)(z, y)))
    _, slopes = jax.device_get(run(z, np.array([0, -100])))
    for gradient in slopes:
        assert np.isfinite(gradient).all()
        assert not gradient[1].any()
    nothing, _ = jax.device_get(run(z, np.array([-100, -100])))
    assert tuple(map(float, nothing)) == (0, 0, 0, 0, 0)
