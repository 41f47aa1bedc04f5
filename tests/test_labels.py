"""What labels may be: ids of any integer type, distributions, yes and no; and bad ones.

Bad labels under checkify: tests/test_reported_labels.py.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jxent
from tests.cases import CLASSES, EACH_LOSS, TABLE, bare, ids, shares, yes_no
from tests.comparing import same
from tests.compiling import as_users_jit


X = np.random.default_rng(0).uniform(0.05, 0.9, (5, CLASSES)).astype(np.float32)
cross_entropy = jxent.softmax_cross_entropy


# Class ids ----------------------------------------------------------------------------

WIDE = np.array([2, 2**32, -(2**32) + 1, 2**31 + 3, 4])
FITS = np.where(np.arange(5) % 4, 0, WIDE)
CALLS_OF_IDS = {
    **{
        str(c): c
        for c in TABLE
        if c.labels is ids and not c.of_head
        if not c.options or c.loss.function is cross_entropy
    },
    "several": lambda x, y: cross_entropy(x, jxent.SparseLabels(np.expand_dims(y, -1))),
    "several focal": lambda x, y: jxent.softmax_focal_loss(
        x, jxent.SparseLabels(np.expand_dims(y, -1))
    ),
    "log prob at": lambda x, y: jxent.softmax_log_prob_at(x, np.expand_dims(y, -1))[
        :, 0
    ],
    "torch": functools.partial(jxent.torch.cross_entropy, reduction="none"),
    "torch of log p": functools.partial(jxent.torch.nll_loss, reduction="none"),
    "keras": lambda x, y: jxent.keras.sparse_categorical_crossentropy(y, x),
    "keras class": lambda x, y: jxent.keras.SparseCategoricalCrossentropy(
        reduction="none", ignore_class=2**32
    )(y, x),
}
METRICS = {
    f.__name__: f
    for f in (
        jxent.metrics.accuracy,
        jxent.metrics.top_k_accuracy,
        jxent.metrics.perplexity,
        jxent.metrics.brier_score,
        jxent.metrics.calibration_error,
        jxent.fit_temperature,
    )
} | {"yes and no": lambda x, y: jxent.metrics.accuracy(x[:, 0], y, axis=())}


def test_an_id_of_64_bits_is_never_wrapped():
    """2³² is not class 0: NaN in its row, from NumPy and from a list; NaN in a metric.

    A class is as good as any where k is larger than int32.
    """

    @jax.jit
    def run(x):
        kinds = FITS.astype(np.int32), FITS, WIDE, WIDE.tolist(), WIDE.astype(np.uint64)
        losses = {k: [f(x, y) for y in kinds] for k, f in CALLS_OF_IDS.items()}
        top = jxent.metrics.top_k_accuracy(x, WIDE % 5, k=np.int64(2**32))
        return losses, {name: f(x, WIDE) for name, f in METRICS.items()}, top

    losses, of_metrics, top = jax.device_get(run(X))
    for name, (wanted, of_numpy, *of_wide) in losses.items():
        np.testing.assert_array_equal(of_numpy, wanted, name)
        for got in of_wide:
            assert np.isnan(got).tolist() == [False, True, True, True, False], name
            np.testing.assert_array_equal(got[[0, 4]], wanted[[0, 4]], name)
    assert all(map(np.isnan, of_metrics.values())), of_metrics
    assert top == 1
    with pytest.raises(ValueError, match="cannot occur among labels of dtype int32"):
        cross_entropy(X, WIDE, ignore_index=np.array(2**32))


def test_64_bits_hold_what_32_do_not(x64):
    """No integer is refused that JAX holds."""
    segments = np.array([2**32, 2**32, 0])
    same(jxent.sequence_weights(segment_ids=segments), np.array([0.5, 0.5, 1]))
    weights = jxent.class_weights_of_counts(np.array([3_000_000_000, 1_000_000_000]))
    same(weights, np.array([2 / 3, 2]))


def test_ignored_ids_of_numpy_and_of_uint8():
    """int64 without 64-bit types; 255, which uint8 holds, marks void pixels."""
    void, labels = np.array([1, 255, 2], np.uint8), np.array([0, 4, -100, 2])

    @jax.jit
    def run(x):
        return (
            cross_entropy(x[:3], void, ignore_index=255),
            cross_entropy(x[:3], void),
            cross_entropy(x[:4], labels, ignore_index=-100),
        )

    of_void, bad, of_labels = jax.device_get(run(X))
    assert np.isfinite([*of_void, *of_labels]).all()
    assert of_void[1] == of_labels[2] == 0
    np.testing.assert_array_equal(np.isnan(bad), [False, True, False])


def test_ids_are_never_floats():
    """bfloat16 holds no 257 and no 999: neighbours must not be taken for them."""
    labels = np.array([257, 999, 513], np.int32)
    x = np.full((3, 1000), 0.25, jnp.bfloat16)
    x[np.arange(3), labels] = 0.75
    losses = (
        cross_entropy,
        functools.partial(cross_entropy, label_smoothing=0.1),
        jxent.softmax_log_prob,
    )

    @as_users_jit
    def run(x):
        def one(loss):
            value, pull = jax.vjp(lambda x: loss(x, labels), x)
            return value, pull(jnp.ones_like(value))[0]

        return [one(loss) for loss in losses]

    for value, gradient in jax.device_get(run(x)):
        same(value, np.full(3, value[0]), rtol=1e-6)
        largest = np.argmax(np.abs(gradient.astype(np.float32)), axis=-1)
        np.testing.assert_array_equal(largest, labels)
    with pytest.raises(TypeError, match=r"labels\.astype\(jnp\.int32\)"):
        cross_entropy(x, labels.astype(jnp.bfloat16))


def test_the_rank_tells_ids_from_distributions():
    """Never the dtype, never the values: with 3 rows of 3 classes too."""
    x, y = X[:3, :3], np.array([2, 0, 1], np.int32)
    one_hot = np.eye(3, dtype=np.int32)[y]
    labels = y, one_hot, 2 * one_hot
    run = jax.jit(lambda x: [cross_entropy(x, y) for y in labels])
    of_ids, of_hot, of_twice = jax.device_get(run(x))
    same(of_ids, np.log(np.exp(x).sum(-1)) - x[np.arange(3), y])
    same(of_hot, of_ids)
    same(of_twice, 2 * of_ids)


def test_one_hot_labels_of_any_dtype():
    """Integers and booleans have the losses and gradients of floats."""
    hot = np.eye(CLASSES)[np.array([0, 3, 4, 7, 1])]
    losses = {
        str(c): c for c in EACH_LOSS if c.labels is shares and c.takes("ignore_index")
    }
    divergences = jxent.kl_divergence, jxent.generalized_kl_divergence
    losses |= {f.__name__: f for f in divergences}

    @jax.jit
    def run(x):
        def one(loss, dtype):
            value, pull = jax.vjp(lambda x: loss(x, hot.astype(dtype)), x)
            return value, *pull(jnp.ones_like(value))

        def each(loss):
            other = np.uint8 if loss in divergences else np.bool_
            return [one(loss, dtype) for dtype in (np.float32, np.int32, other)]

        return {name: each(loss) for name, loss in losses.items()}

    for name, (wanted, *others) in jax.device_get(run(X)).items():
        for got in others:
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_allclose(a, b, 1e-5, 1e-6, err_msg=name)


# Yes and no ---------------------------------------------------------------------------

ROWS_OF_YES_NO = "sigmoid_binary_cross_entropy_of_rows", "zlpr_loss"
OF_YES_NO = [
    c
    for c in TABLE
    if c.labels is yes_no and c.layout != "materialized"
    if c.takes("elementwise") or (c in bare(TABLE) and c.loss.name in ROWS_OF_YES_NO)
]


EVERYWHERE: Any = np.True_


@pytest.mark.parametrize("case", OF_YES_NO, ids=str)
def test_integers_that_are_no_binary_labels(case, rng):
    """NaN in their own element or row, and reported; ignore_index marks missing ones,
    which are as those that `where` drops."""
    x, y, *parameters = case.inputs(rng)
    x, *parameters = (np.float32(a) for a in (x, *parameters))
    y, missing = y.astype(np.int32), np.zeros(y.shape, bool)
    missing[[0, 0, 2], [1, 4, 0]] = True

    @jax.jit
    @checkify.checkify
    def run(labels, marked, where):
        def of(labels, **options):
            loss = lambda x, **more: case(x, labels, *parameters, **options, **more)
            losses, pull = jax.vjp(loss, x)
            return losses, *pull(jnp.ones_like(losses)), loss(x, reduction="mean")

        return of(labels, where=where), of(marked, ignore_index=-100)

    def results(labels, marked, where=EVERYWHERE):
        error, found = run(labels, marked, where)
        return error.get() or "", jax.device_get(found)

    said, (wanted, got) = results(y, np.where(missing, -100, y), ~missing)
    assert not said
    for a, b in zip(got, wanted, strict=True):
        same(a, b, rtol=2e-6, atol=1e-6)

    bad, only_bad = y.copy(), y.copy()
    bad[1, 2] = only_bad[1, 2] = 2
    bad[3, 3] = -100
    sentence = "expected labels in [0, 2) and on a class that is not masked, got label"
    said, found = results(bad, bad)
    assert f"{sentence} -100." in said
    for (losses, gradient, mean), is_bad in zip(
        found, (bad != y, only_bad != y), strict=True
    ):
        if not case.takes("elementwise"):
            is_bad = np.broadcast_to(is_bad.any(-1, keepdims=True), is_bad.shape)
        rows = is_bad if losses.ndim == 2 else is_bad[:, 0]
        np.testing.assert_array_equal(np.isnan(losses), rows if losses.ndim else True)
        np.testing.assert_array_equal(np.isnan(gradient), is_bad)
        assert np.isnan(mean)
    for labels in ((only_bad, y), (y, only_bad)):
        assert f"{sentence} 2." in results(*labels)[0]


# What is refused ----------------------------------------------------------------------


SHAPES = {
    jxent.sigmoid_binary_cross_entropy: [
        ((4, 1), (4,)),
        ((4,), (4, 1)),
        ((4, 5), (5,)),
    ],
    jxent.sigmoid_focal_loss: [((4, 5), (4, 1))],
    jxent.asymmetric_loss: [((4, 5), (5,))],
    jxent.binary_cross_entropy: [((4, 5), (1,)), ((4, 5), (1, 1))],
    cross_entropy: [((4, 5), y) for y in ((5,), (1, 5), (1,), ())],
    jxent.categorical_cross_entropy: [((4, 5), (1, 5)), ((4, 5), ())],
    jxent.kl_divergence: [((4, 5), (5,))],
    jxent.generalized_kl_divergence: [((4, 5), (1, 5))],
    jxent.kl_divergence_with_log_targets: [((4, 5), (1, 5))],
}


@pytest.mark.parametrize("loss", SHAPES, ids=lambda f: f.__name__)
def test_labels_never_broadcast(loss):
    """(N, 1) against (N,) is no (N, N) loss but an error, also where JAX allows it."""
    for x, labels in SHAPES[loss]:
        given = np.full(x, 0.5, np.float32), np.zeros(labels, np.float32)
        with (
            jax.numpy_rank_promotion("allow"),
            pytest.raises(ValueError, match="expected"),
        ):
            loss(*given)


def test_arrays_of_jax_stay_where_they_are(monkeypatch):
    """A call looks into NumPy's arrays alone: it neither waits for others nor fetches
    them from their device."""
    y, x = jnp.array([0, 2]), jnp.asarray(X[:2])
    looked_at, asarray = [], np.asarray

    def spy(x, *args, **options):
        looked_at.append(x)
        return asarray(x, *args, **options)

    monkeypatch.setattr(np, "asarray", spy)
    for labels in (y, jax.nn.softmax(x), jxent.SparseLabels(y[:, None])):
        cross_entropy(x, labels, weights=y, class_weights=x[0])
    zeros = jnp.zeros((2, CLASSES), int)
    jxent.sigmoid_binary_cross_entropy(x, zeros, ignore_index=-1)
    jxent.class_weights_of_counts(y)
    monkeypatch.undo()
    assert not any(isinstance(x, jax.Array) for x in looked_at)
