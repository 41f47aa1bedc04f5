"""LossSums: what a training loop logs, from one pass, added up field by field."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from tests.comparing import close
from tests.heads import of_layout


pytestmark = pytest.mark.newest_jax

ROWS, FEATURES, CLASSES = 8, 3, 6


def batch(rng, shape=(ROWS,)):
    labels = rng.integers(0, CLASSES - 1, shape)
    labels.reshape(-1)[1::4] = -100
    return {
        "hidden": jnp.asarray(rng.normal(size=(*shape, FEATURES))),
        "kernel": jnp.asarray(rng.normal(size=(FEATURES, CLASSES))),
        "labels": jnp.asarray(labels),
    }


def every_option(rng, shape=(ROWS,)):
    return {
        "where": jnp.asarray(rng.random(shape) < 0.8),
        "weights": jnp.asarray(rng.random(shape)).at[..., 2].set(0.0),
        "class_weights": jnp.asarray(rng.random(CLASSES)),
        "class_mask": jnp.arange(CLASSES) < CLASSES - 1,
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
    r = r * options.get("class_weights", jnp.ones(CLASSES))[labels]
    _, rows = loss(return_statistics=True)
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
@pytest.mark.parametrize("plain", [True, False])
def test_each_sum_and_its_gradient(name, plain, x64, rng):
    arrays = batch(rng)
    options = {"ignore_index": -100} if plain else every_option(rng)
    got, wanted = (
        jax.jit(functools.partial(values_and_gradients, sums, options=options))(arrays)
        for sums in (LAYOUTS[name], one_by_one)
    )
    close(got, wanted, 1e-11)


@pytest.mark.parametrize("name", ["in memory", "streamed"])
def test_they_add_up(name, x64, rng):
    """Over any split of the batch, rows of several axes included."""
    arrays, options = batch(rng, (4, 2)), every_option(rng, (4, 2))
    sums = LAYOUTS[name]

    def of(part):
        per_row = {n: options[n][part] for n in ("where", "weights")}
        return sums(
            arrays["hidden"][part],
            arrays["kernel"],
            arrays["labels"][part],
            **options | per_row,
        )

    parts = [of(slice(0, 1)), of(slice(1, 4))]
    close(jax.tree.map(jnp.add, *parts), of(slice(None)))
    mapped = jax.vmap(lambda h, y: sums(h, arrays["kernel"], y, ignore_index=-100))
    each = mapped(arrays["hidden"], arrays["labels"])
    whole = sums(**arrays, ignore_index=-100)
    close(jax.tree.map(jnp.sum, each), whole)


def test_over_devices(x64, rng):
    """Rows and classes split inside shard_map, and the head on explicit axes."""
    arrays = batch(rng) | {"kernel": jnp.asarray(rng.normal(size=(FEATURES, CLASSES)))}
    wanted = values_and_gradients(in_memory, arrays, {"ignore_index": -100})
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    names = {"batch_axis_name": "data", "class_axis_name": "model"}
    specs = (P("data"), P(None, "model"), P("data"))

    def split(hidden, kernel, labels, **options):
        def on_device(hidden, kernel, labels):
            return in_memory(hidden, kernel, labels, **options | names)

        return jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=P())(
            hidden, kernel, labels
        )

    with jax.set_mesh(mesh):
        placed = {
            name: jax.device_put(arrays[name], spec)
            for name, spec in zip(("hidden", "kernel", "labels"), specs, strict=True)
        }
        for sums in (split, LAYOUTS["by default"]):
            run = functools.partial(
                values_and_gradients, sums, options={"ignore_index": -100}
            )
            close(jax.jit(run)(placed), wanted)


def test_dropped_rows_and_bad_labels(x64, rng):
    arrays = batch(rng)
    spoilt = arrays | {
        "hidden": arrays["hidden"].at[1::4].set(jnp.nan),
    }
    for sums in (in_memory, LAYOUTS["streamed"]):
        run = functools.partial(
            values_and_gradients, sums, options={"ignore_index": -100}
        )
        got = run(spoilt)
        values, _ = run(arrays)
        close(got[0], values)
        if sums is not in_memory:  # a product in front of the loss spreads NaN
            assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(got[1]))
        bad = arrays | {"labels": arrays["labels"].at[0].set(CLASSES)}
        of_bad, _ = run(bad)
        assert np.isnan(of_bad.loss)
        assert np.isnan(of_bad.correct)
        assert of_bad.weight == values.weight


def test_gradients_of_dropped_logits(x64, rng):
    labels = jnp.array([0, -100])
    f = lambda z: jxent.softmax_cross_entropy_sums(
        z, labels, ignore_index=-100, z_loss=0.1
    )
    for gradient in jax.jacrev(f)(jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])):
        assert jnp.isfinite(gradient).all()
        assert not gradient[1].any()


def test_nothing_left():
    sums = jxent.softmax_cross_entropy_sums(
        jnp.ones((2, 3)), jnp.array([-1, -1]), ignore_index=-1, z_loss=1.0
    )
    assert tuple(map(float, sums)) == (0, 0, 0, 0, 0)
