"""Several labels a row: binary losses on the fused head, lists of positives, ZLPR."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)

import jxent
from tests import oracles
from tests.cases import dense
from tests.comparing import close, weighed
from tests.compiling import as_users_jit, largest_array


ROWS, FEATURES, CLASSES = 4, 3, 8
BINARY = jxent.linear_sigmoid_binary_cross_entropy
# Each head with an option of its own.
HEADS: dict[Any, dict[str, Any]] = {
    BINARY: {"pos_weight": np.linspace(0.5, 2, CLASSES)},
    jxent.linear_sigmoid_focal_loss: {"gamma": 1.5, "alpha": 0.3},
    jxent.linear_asymmetric_loss: {"gamma_pos": 0.5, "gamma_neg": 2.0, "clip": 0.1},
    jxent.linear_zlpr_loss: {},
}
LAYOUTS = ("materialized", "streamed", "tiled")
of_each_head = pytest.mark.parametrize("head", HEADS, ids=lambda f: f.__name__)
in_each_layout = pytest.mark.parametrize("layout", LAYOUTS)
# The positives of each row, all of them and none among these; −1 is padding.
POSITIVES = np.array(
    [[0, 3, -1, -1, -1, -1, -1, -1], [7, 2, 1, -1, -1, -1, -1, -1]]
    + [[-1] * CLASSES, [*range(CLASSES)]],
    np.int32,
)
LABELS = dense(POSITIVES, np.ones(POSITIVES.shape), CLASSES).astype(bool)


def operands(rng):
    return rng.normal(size=(ROWS, FEATURES)), rng.normal(size=(FEATURES, CLASSES))


def with_layout(function, layout, **options):
    """Losses of rows, or their sum where the layout has no more."""
    of_rows = {"reduction": "sum"} if layout == "tiled" else {}
    options = of_rows | {"implementation": layout, "block_sizes": (2, 4)} | options
    return functools.partial(function, **options)


def value_and_gradients(f, *arrays):
    """Of a function whose results count by weights of their own."""
    both = jax.value_and_grad(lambda *x: weighed(f(*x)), range(len(arrays)))
    return as_users_jit(both)(*arrays)


# Lists of positives -------------------------------------------------------------------


@of_each_head
@in_each_layout
def test_lists_of_positives_are_the_labels(head, layout, rng, x64):
    """Padded; rows without positives, and without negatives, are among them."""
    loss = with_layout(head, layout, **HEADS[head])

    def listed(hidden, kernel):
        labels = jxent.SparseLabels(jnp.asarray(POSITIVES))
        return loss(hidden, kernel, labels, ignore_index=-1)

    def whole(hidden, kernel):
        return loss(hidden, kernel, LABELS)

    arrays = operands(rng)
    close(
        value_and_gradients(listed, *arrays), value_and_gradients(whole, *arrays), 1e-12
    )


@of_each_head
@in_each_layout
def test_a_bad_id_makes_its_row_nan(head, layout, rng, x64):
    """And no other, in memory or streamed; its gradient too."""
    hidden, kernel = operands(rng)
    loss = with_layout(head, layout, ignore_index=-1)
    for bad in (CLASSES, -2, 2**31 - 1):
        ids = POSITIVES.copy()
        ids[1, 3] = bad
        f = lambda h, ids=ids: loss(h, kernel, jxent.SparseLabels(ids))
        losses, gradient = f(hidden), jax.grad(lambda h, f=f: jnp.sum(f(h)))(hidden)
        if layout == "tiled":
            assert np.isnan(losses)
        else:
            np.testing.assert_array_equal(np.isnan(losses), np.arange(ROWS) == 1)
        of_rows = np.isnan(gradient).all(1)
        np.testing.assert_array_equal(of_rows, np.arange(ROWS) == 1)
        assert not np.isnan(np.delete(gradient, 1, 0)).any()


@pytest.mark.parametrize("layout", ["streamed", "tiled"])
def test_checkify_names_a_bad_id(layout, rng):
    hidden, kernel = operands(rng)
    ids = np.where(POSITIVES == 7, 9, POSITIVES)
    loss = with_layout(BINARY, layout, ignore_index=-1)
    checked = checkify.checkify(
        jax.jit(lambda h: loss(h, kernel, jxent.SparseLabels(ids)))
    )
    error, _ = checked(hidden)
    assert "9" in (error.get() or "")
    assert str(CLASSES) in (error.get() or "")


def test_padding_may_hold_any_value(rng, x64):
    hidden, kernel = operands(rng)
    values = np.where(POSITIVES < 0, np.nan, 1.0)
    loss = with_layout(BINARY, "streamed", ignore_index=-1)
    f = lambda h, v: loss(h, kernel, jxent.SparseLabels(POSITIVES, v))
    got = value_and_gradients(f, hidden, values)
    wanted = BINARY(hidden, kernel, LABELS)
    close(got[0], weighed(wanted))
    assert np.all(np.isfinite(got[1][0]))
    assert not np.any(got[1][1][POSITIVES < 0])


def test_positives_of_masked_classes_are_dropped(rng, x64):
    hidden, kernel = operands(rng)
    real = np.arange(CLASSES) != 3
    listed = jxent.SparseLabels(POSITIVES)
    for head in HEADS:
        got = head(hidden, kernel, listed, ignore_index=-1, class_mask=real)
        close(got, head(hidden, kernel[:, real], LABELS[:, real]))


def test_equal_ids_add_up(rng, x64):
    """To a target of 2, which is no probability: NaN where its logarithm is taken."""
    hidden, kernel = operands(rng)
    twice = jxent.SparseLabels(np.array([[5, 5]] * ROWS))
    wanted = 2.0 * (np.arange(CLASSES) == 5) * np.ones((ROWS, 1))
    close(BINARY(hidden, kernel, twice), BINARY(hidden, kernel, wanted))
    assert np.all(np.isnan(jxent.linear_zlpr_loss(hidden, kernel, twice)))
    often = jxent.SparseLabels(np.full((ROWS, 300), 5))
    close(BINARY(hidden, kernel, often), BINARY(hidden, kernel, 150 * wanted))


@pytest.mark.parametrize("head", [BINARY, jxent.linear_zlpr_loss])
def test_no_array_of_all_labels_is_formed(head):
    """Nor one of all logits."""
    rows, features, classes, block = 64, 8, 4096, 256
    shape = jax.ShapeDtypeStruct
    loss = functools.partial(
        head, implementation="streamed", block_sizes=(None, block), reduction="mean"
    )

    def of_lists(hidden, kernel, ids):
        return loss(hidden, kernel, jxent.SparseLabels(ids))

    program = as_users_jit(jax.value_and_grad(of_lists, (0, 1))).lower(
        shape((rows, features), jnp.float32),
        shape((features, classes), jnp.float32),
        shape((rows, 5), jnp.int32),
    )
    compiled = program.compile()
    assert largest_array(str(compiled.as_text())) <= features * classes < rows * classes
    memory: Any = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 8 * rows * block * 4


# What the formulas are ----------------------------------------------------------------


def test_limits_are_binary_cross_entropy(rng, x64):
    hidden, kernel = operands(rng)
    wanted = BINARY(hidden, kernel, LABELS)
    close(jxent.linear_sigmoid_focal_loss(hidden, kernel, LABELS, gamma=0.0), wanted)
    none: dict[str, Any] = {"gamma_pos": 0.0, "gamma_neg": 0.0, "clip": 0.0}
    close(jxent.linear_asymmetric_loss(hidden, kernel, LABELS, **none), wanted)
    z = rng.normal(size=(ROWS, 1))
    one = jxent.sigmoid_binary_cross_entropy(z, LABELS[:, :1])[:, 0]
    close(jxent.zlpr_loss(z, LABELS[:, :1]), one)
    close(BINARY(z, np.ones((1, 1)), LABELS[:, :1]), one)


def test_the_mean_is_over_rows(rng, x64):
    """Weights of classes do not divide."""
    hidden, kernel = operands(rng)
    weights = {"class_weights": np.linspace(1, 3, CLASSES), "pos_weight": 2.0}
    for layout in LAYOUTS:
        loss = with_layout(BINARY, layout, reduction="mean", **weights)
        wanted = np.mean(BINARY(hidden, kernel, LABELS, **weights))
        close(loss(hidden, kernel, LABELS), wanted)


def test_small_losses_keep_their_digits():
    """Logits of ±30, right in every class, in float32."""
    z = np.where(LABELS, 30.0, -30.0) + np.linspace(-1, 1, CLASSES)
    eye = np.eye(CLASSES, dtype=np.float32)
    losses = {
        BINARY: oracles.sums_over_classes(oracles.sigmoid_binary_cross_entropy),
        jxent.linear_zlpr_loss: oracles.zlpr_loss,
    }
    for head, _ in losses.items():
        got = head(z.astype(np.float32), eye, LABELS, implementation="streamed")
        wrong = np.exp(-np.abs(z.astype(np.float32).astype(np.float64)))
        np.testing.assert_allclose(got, wrong.sum(-1), rtol=1e-6)


def test_zlpr_at_infinite_logits():
    """−inf in a class whose label is no adds 0; one on the wrong side makes NaN."""
    z = np.array([[-np.inf, 1.0], [-np.inf, 1.0], [np.inf, 1.0], [np.inf, 1.0]])
    y = np.array([[0, 1], [1, 0], [1, 0], [0, 1]])
    losses = jxent.zlpr_loss(z, y)
    wanted = [np.log1p(np.exp(-1)), np.nan, np.log1p(np.exp(1)), np.nan]
    close(losses, np.array(wanted), 1e-6)
    gradient = jax.grad(lambda z: jnp.sum(jxent.zlpr_loss(z, y)))(z)
    np.testing.assert_array_equal(np.isfinite(gradient).all(1), [1, 0, 1, 0])


def test_labels_that_are_no_targets_are_nan(rng):
    hidden, kernel = operands(rng)
    for bad in (np.nan, 1.5, -0.5):
        y = LABELS.astype(np.float32)
        y[1, 2] = bad
        losses = jxent.linear_zlpr_loss(hidden, kernel, y)
        np.testing.assert_array_equal(np.isnan(losses), np.arange(ROWS) == 1)


def test_extreme_logits_have_finite_derivatives(x64):
    """±1e4, of the first and second order, in float32."""
    z = np.array([[1e4, -1e4, 0.0, 1e4], [-1e4, -1e4, 1e4, 1.0]], np.float32)
    y = np.array([[1, 0, 1, 0], [1, 1, 0, 0]])

    def one(z, y):
        return jnp.sum(jxent.zlpr_loss(z, y))

    for order in (jax.grad, jax.hessian):
        assert np.all(np.isfinite(jax.vmap(order(one))(z, y)))
    close(jxent.zlpr_loss(z, y), oracles.zlpr_loss(z, y), 1e-6)


# Over devices -------------------------------------------------------------------------


OPTIONS = {
    "bias": (np.linspace(-1, 1, CLASSES), P("model")),
    "weights": (np.array([0.5, 2, 0, 0.25]), P("data")),
    "class_weights": (np.linspace(0.5, 2, CLASSES), P("model")),
    "class_mask": (np.arange(CLASSES) != 4, P("model")),
    "label_smoothing": (np.float64(0.1), P()),
    "logit_soft_cap": (np.float64(3), P()),
    "temperature": (np.array([0.5, 2, 1.5, 0.75]), P("data")),
}


@of_each_head
@pytest.mark.parametrize(("layout", "sparse"), [("streamed", True), ("tiled", False)])
def test_split_over_devices_it_is_as_on_one(head, layout, sparse, rng, x64):
    """Rows and classes over 2 × 2, with every option, which have derivatives too."""
    hidden, kernel = operands(rng)
    options = dict(OPTIONS)
    if head is jxent.linear_zlpr_loss:
        del options["class_weights"]
    for name, value in HEADS[head].items():
        per_class = np.ndim(value) > 0
        options[name] = (
            np.asarray(value, np.float64),
            P("model") if per_class else P(),
        )
    values, specs = ({k: x[i] for k, x in options.items()} for i in (0, 1))
    labels, split_of_labels = LABELS, P("data", "model")
    if sparse:
        labels = jxent.SparseLabels(POSITIVES, np.full(POSITIVES.shape, 0.9))
        split_of_labels = jax.tree.map(lambda _: P("data"), labels)
    loss = with_layout(head, layout, reduction="mean", block_sizes=(1, 2))
    ignored = {"ignore_index": -1} if sparse else {}

    def of_all(hidden, kernel, labels, options, **names):
        return loss(hidden, kernel, labels, **ignored, **options, **names)

    names = {"class_axis_name": "model", "batch_axis_name": "data"}
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    on_devices = jax.shard_map(
        functools.partial(of_all, **names),
        mesh=mesh,
        in_specs=(P("data"), P(None, "model"), split_of_labels, specs),
        out_specs=P(),
    )

    def results(f):
        moving = {k: x for k, x in values.items() if x.dtype == np.float64}
        rest = {k: x for k, x in values.items() if k not in moving}

        def total(hidden, kernel, moving):
            return f(hidden, kernel, labels, rest | moving)

        return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(hidden, kernel, moving)

    got, wanted = results(on_devices), results(of_all)
    close(got, wanted, 1e-11)
    assert all(np.any(x) for x in jax.tree.leaves(wanted))


@pytest.mark.parametrize("head", [BINARY, jxent.linear_zlpr_loss])
def test_explicit_axes_need_no_name(head, rng, x64):
    """The head enters `shard_map` itself; ids stay global."""
    hidden, kernel = operands(rng)
    explicit = jax.make_mesh((2, 2), ("data", "model"))
    sparse = jxent.SparseLabels(POSITIVES)
    wanted = head(hidden, kernel, sparse, ignore_index=-1, reduction="mean")
    with jax.set_mesh(explicit):
        h = jax.device_put(hidden, P("data"))
        k = jax.device_put(kernel, P(None, "model"))
        ids = jxent.SparseLabels(jax.device_put(POSITIVES, P("data")))
        f = jax.jit(lambda h, k, y: head(h, k, y, ignore_index=-1, reduction="mean"))
        close(f(h, k, ids), wanted, 1e-12)
        z = jax.device_put(hidden @ kernel, P("data", "model"))
        got = jxent.zlpr_loss(z, ids, ignore_index=-1, reduction="mean")
        close(got, jxent.zlpr_loss(hidden @ kernel, LABELS, reduction="mean"))
