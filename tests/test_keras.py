"""jxent.keras: Keras's calls, Keras's numbers, or a stated difference."""

import dataclasses
import functools
import re
import types
import unittest

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import jxent
import jxent.keras as ours
from tests import facades
from tests.comparing import floats, ints, same
from tests.facades import installed, value_and_grad


INF, NAN = jnp.inf, jnp.nan


@pytest.fixture(scope="module")
def keras():
    return installed("keras")


# The same numbers: the calls of the table are in tests/test_faces_parity.py -----------


IDS = np.array([0, 2], np.int32)
CERTAIN = np.array([[0.0, 1.0, 0.0], [0.3, 0.7, 1e-9]], np.float32)
Q = np.array([[0.5, 0.25, 0.25], [0.1, 0.0, 0.9]], np.float32)
AT_THE_EDGE = (
    facades.Call("binary_crossentropy", (Q, CERTAIN)),
    facades.Call("binary_focal_crossentropy", (Q, CERTAIN)),
    facades.Call("categorical_crossentropy", (Q, CERTAIN)),
    facades.Call("categorical_focal_crossentropy", (Q, CERTAIN)),
    facades.Call("sparse_categorical_crossentropy", (IDS, CERTAIN)),
    facades.Call("kl_divergence", (Q, CERTAIN)),
    facades.Call("categorical_generalized_cross_entropy", (IDS, CERTAIN), {"q": 0.5}),
)
EDGE_VALUES = [
    [8.01512, 5.38389],
    [2.99743, 4.13035],
    [12.08857, 14.62668],
    [3.02214, 3.64132],
    [16.11810, 16.11810],
    [11.04885, 14.30160],
    [2.0, 1.99994],
]


def test_probabilities_of_0_and_1():
    """Keras's floor under probabilities, 1e-7 in float32, with every slope finite."""
    answers = facades.of_jax(ours, AT_THE_EDGE, np.float32)
    for call, answer, value in zip(AT_THE_EDGE, answers, EDGE_VALUES, strict=True):
        assert answer.value.dtype == jnp.float32
        same(answer.value, value, rtol=2e-5, atol=0)
        assert all(np.isfinite(grad).all() for grad in answer.grads), call


def test_the_installed_keras_at_0_and_1(keras):
    """The same floor, in Keras's own default dtype."""
    answers = facades.of_keras(AT_THE_EDGE, np.float32)
    for answer, value in zip(answers, EDGE_VALUES, strict=True):
        same(answer.value, value, rtol=2e-5, atol=0)


SUITES = [
    "BinaryCrossentropyTest",
    "BinaryFocalCrossentropyTest",
    "CategoricalCrossentropyTest",
    "CategoricalFocalCrossentropyTest",
    "CategoricalGeneralizedCrossEntropyTest",
    "KLDivergenceTest",
    "SparseCategoricalCrossentropyTest",
]
# An axis that Keras refuses on JAX and TensorFlow, and its tests expect to be refused.
REFUSED_BY_KERAS = {
    "test_binary_segmentation_different_axis",
    "test_multi_class_segmentation_different_axis",
}


@pytest.mark.every_value
@pytest.mark.parametrize("suite", SUITES)
def test_the_suite_of_keras(keras, as_users_have_it, monkeypatch, suite):
    """Keras's own tests of the loss, run with these losses in the place of Keras's."""
    module = pytest.importorskip(
        "keras.src.losses.losses_test", reason="Keras comes without its tests here"
    )
    names = {name: getattr(ours, name) for name in ours.__all__}
    monkeypatch.setattr(module, "losses", types.SimpleNamespace(**names))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

    class Case(getattr(module, suite)):
        def setUp(self):
            super().setUp()
            keras.saving.get_custom_objects().update(names)  # what it may bring back

    result = unittest.TestResult()
    for name in unittest.defaultTestLoader.getTestCaseNames(Case):
        if name not in REFUSED_BY_KERAS:
            Case(name).run(result)
    problems = [text for _, text in (*result.failures, *result.errors)]
    assert not problems, "\n\n".join(problems)
    assert result.testsRun > 3


# Differences --------------------------------------------------------------------------


def test_a_confident_mistake_is_learned_from():
    """Through a sigmoid that is wrong by 40 nats the gradient is that of the logit."""
    y, z = jnp.ones((1, 1)), np.array([[-40.0]], np.float32)
    for name in ("binary_crossentropy", "binary_focal_crossentropy"):
        loss = lambda z, name=name: getattr(ours, name)(y, jax.nn.sigmoid(z))
        value, grad = value_and_grad(loss, z)
        same(value, [16.11810], rtol=1e-6)
        same(grad, [[-1.0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("categorical_crossentropy", {}),
        ("categorical_focal_crossentropy", {"alpha": 1.0}),
        ("sparse_categorical_crossentropy", {}),
        ("kl_divergence", {}),
    ],
)
def test_a_confident_mistake_of_a_softmax(name, options):
    """The same where another class is 40 nats more likely."""
    y = jnp.array([1]) if "sparse" in name else jnp.array([[0.0, 1.0]])
    loss = lambda z: getattr(ours, name)(y, jax.nn.softmax(z), **options)
    _, grad = value_and_grad(loss, np.array([[40.0, 0.0]], np.float32))
    same(grad, [[1.0, -1.0]], rtol=1e-4)


def test_the_generalized_loss_at_probability_0():
    """A softmax before it has a gradient of 0 there, not NaN."""
    name = "categorical_generalized_cross_entropy"
    y, z = jnp.array([1]), np.array([[400.0, 0.0]], np.float32)
    loss = lambda z: getattr(ours, name)(y, jax.nn.softmax(z), 0.5)
    value, grad = value_and_grad(loss, z)
    same(value, [2.0])
    same(grad, [[0.0, 0.0]])


@pytest.mark.parametrize("from_logits", [False, True])
def test_an_ignored_row(from_logits):
    """Whatever it holds, its gradient is 0."""
    x = np.array([[0.2, 0.3, 0.5], [NAN, INF, -INF]], np.float32)
    loss = ours.SparseCategoricalCrossentropy(from_logits, ignore_class=-1)
    value, grad = value_and_grad(lambda x: loss(jnp.array([2, -1]), x), x)
    same(value, loss(jnp.array([2]), x[:1]))
    np.testing.assert_array_equal(grad[1], 0)


def test_ids_in_a_narrow_dtype():
    """dtype= rounds the result alone: class 513 stays class 513."""
    x = jnp.arange(1000, dtype=jnp.float32)[None] / 100
    loss = ours.SparseCategoricalCrossentropy(from_logits=True, dtype="bfloat16")
    exact = jxent.softmax_cross_entropy(x, jnp.array([513]), reduction="mean")
    result = loss(jnp.array([513]), x)
    assert result.dtype == jnp.bfloat16
    assert result == exact.astype(jnp.bfloat16)


def test_an_ignore_class_that_no_id_can_be():
    """Then nothing is ignored."""
    y, x = jnp.array([2, 255], jnp.uint8), facades.shares(2, 256).astype(np.float32)
    none = ours.SparseCategoricalCrossentropy(reduction=None)
    ignoring = dataclasses.replace(none, ignore_class=-1)
    same(ignoring(y, x), none(y, x))


def test_a_class_of_minus_inf():
    """0 · ∞ is 0."""
    x, q = jnp.array([[1.0, 0.0, -INF]]), jnp.array([[0.25, 0.75, 0.0]])
    expected = ours.categorical_crossentropy(q[:, :2], x[:, :2], True)
    same(ours.categorical_crossentropy(q, x, True), expected)
    assert jnp.isfinite(ours.sparse_categorical_crossentropy(jnp.array([0]), x, True))


def test_smoothing_along_an_axis():
    """Counts the classes of that axis, whatever the last one has."""
    x, q = facades.shares(2, 3, 5), facades.distributions(2, 3, 5, axis=1)
    last = [np.moveaxis(a, 1, -1).astype(np.float32) for a in (q, x)]
    for name in ("categorical_crossentropy", "categorical_focal_crossentropy"):
        function = getattr(ours, name)
        expected = function(*last, label_smoothing=0.1)
        x, q = x.astype(np.float32), q.astype(np.float32)
        same(function(q, x, label_smoothing=0.1, axis=1), expected, rtol=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("axis", [1, -1])
def test_smoothing_of_class_ids(from_logits, axis, x64):
    """(1 − ε) onehot + ε/C, as Keras has it after 3.15: values and gradients."""
    x = facades.wave(2, 3, 3) if from_logits else facades.shares(2, 3, 3)
    y = facades.indices(4, 2, 3) - 1
    q = jax.nn.one_hot(y, 3, axis=axis, dtype=x.dtype)
    sparse = lambda x: ours.sparse_categorical_crossentropy(
        y, x, from_logits, -1, axis, 0.15
    )
    dense = lambda x: ours.categorical_crossentropy(q, x, from_logits, 0.15, axis)
    value, grad = value_and_grad(sparse, x)
    wanted, wanted_grad = value_and_grad(dense, x)
    assert (y < 0).any()
    same(value, np.where(y < 0, 0, wanted))
    same(grad, np.where(np.expand_dims(y, axis) < 0, 0, wanted_grad))
    loss = ours.SparseCategoricalCrossentropy(
        from_logits, -1, axis=axis, label_smoothing=0.15
    )
    same(loss(y, x), np.sum(value) / np.sum(y >= 0))
    assert type(loss).from_config(loss.get_config()) == loss


def test_any_class_axis():
    """Keras refuses others than the last, for class ids on JAX."""
    x, y = facades.wave(2, 3, 5).astype(np.float32), facades.indices(3, 2, 5)
    expected = ours.sparse_categorical_crossentropy(y, np.moveaxis(x, 1, -1), True)
    for ids in (y, y[:, None]):
        got = ours.sparse_categorical_crossentropy(ids, x, True, axis=1)
        same(got, expected)


@pytest.mark.parametrize(
    "name", ["categorical_crossentropy", "categorical_focal_crossentropy"]
)
@pytest.mark.parametrize("from_logits", [False, True])
def test_one_class(name, from_logits):
    """A warning, as in Keras, and 0."""
    text = (
        f"{name}: expected at least two classes along axis 1, got a y_pred of shape "
        "(4, 1). The loss of one class is always 0. For one number per binary label "
        "call binary_crossentropy."
    )
    x = jnp.full((4, 1), 0.3)
    with pytest.warns(SyntaxWarning, match=re.escape(text)):
        value = getattr(ours, name)(jnp.ones((4, 1)), x, from_logits=from_logits)
    same(value, np.zeros(4))


def test_the_mean_with_sample_weight():
    """Σ w counts a weight once for every loss that it multiplies."""
    y, x = facades.indices(4, 2, 3), jnp.zeros((2, 3, 4))
    loss = ours.SparseCategoricalCrossentropy(True, reduction="mean_with_sample_weight")
    for weight in (2.3, jnp.ones((2, 1)), jnp.array([1.0, 2.0]), jnp.ones((2, 3))):
        same(loss(y, x, weight), np.log(4))


def test_weights_of_the_samples():
    """(batch,) belongs to the samples, also where the time axis is as long."""
    y, x, weight = facades.indices(3, 2, 2), facades.wave(2, 2, 3), [1.0, 3.0]
    loss = ours.SparseCategoricalCrossentropy(True, reduction="none")
    x = x.astype(np.float32)
    same(loss(y, x, weight), loss(y, x) * jnp.array(weight)[:, None])


def test_the_differences_are_real(keras, as_users_have_it):
    """What the tests above expect is not what Keras gives."""
    losses = keras.losses

    def grad(function, x):
        return jax.grad(lambda x: function(x).sum())(jnp.asarray(x, jnp.float32))

    one_hot, wrong = jnp.array([[0.0, 1.0]]), [[40.0, 0.0]]
    for name in ("binary_crossentropy", "categorical_crossentropy", "kl_divergence"):
        function = getattr(losses, name)
        loss = lambda z, function=function: function(one_hot, jax.nn.softmax(z))
        assert abs(grad(loss, wrong)[0, 1]) < 1e-6
    focal = lambda z: losses.binary_focal_crossentropy(one_hot, z, from_logits=True)
    assert abs(grad(focal, [[40.0, -40.0]])).max() < 1e-6
    sparse = losses.sparse_categorical_crossentropy
    assert not sparse(jnp.array([3, -1]), jnp.ones((2, 3)), from_logits=True).any()
    assert jnp.isnan(sparse(jnp.array([0]), jnp.array([[0.0, -INF]]), True)).all()
    x = jnp.arange(1000, dtype=jnp.float32)[None] / 100
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, dtype="bfloat16")
    assert loss(jnp.array([513]), x) == loss(jnp.array([512]), x)
    loss = losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    logits = jnp.zeros((2, 3, 4))
    same(loss(jnp.zeros((2, 3)), logits, jnp.ones((2, 1))), 3 * np.log(4))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    weighted = loss(jnp.zeros((2, 2)), logits[:, :2], jnp.array([1.0, 3.0]))
    same(weighted, np.log(4) * np.array([[1, 3], [1, 3]]))  # of the time steps


# The classes --------------------------------------------------------------------------


def test_options_that_are_arrays():
    """They become numbers, so that the loss stays a value."""
    loss = ours.CategoricalFocalCrossentropy(
        alpha=[0.25, 0.5, 0.25], gamma=jnp.array(2)
    )
    assert loss == ours.CategoricalFocalCrossentropy(np.array([0.25, 0.5, 0.25]), 2)
    assert hash(loss) == hash(dataclasses.replace(loss))


# A warning, and options ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["binary_crossentropy", "categorical_crossentropy"])
def test_a_warning_where_the_arguments_may_be_exchanged(name):
    """Keras takes an integer y_pred; beside a floating y_true it is hardly meant."""
    loss = getattr(ours, name)
    with pytest.warns(UserWarning, match="exchanged") as record:
        value = loss(floats(2, 3), ints(2, 3))
    assert str(record[0].message) == (
        f"{name}: got int32 y_pred of shape (2, 3) beside floating y_true of shape "
        f"(2, 3). Are they exchanged? Keras's call is {name}(y_true, y_pred)."
    )
    same(value, loss(floats(2, 3), floats(2, 3)))
    loss(ints(2, 3), ints(2, 3))  # without one


@pytest.mark.parametrize(
    "name",
    [n for n in ours.__all__ if n.endswith("crossentropy") and "sparse" not in n],
)
def test_no_smoothing(name):
    """None is 0."""
    loss = functools.partial(getattr(ours, name), Q, CERTAIN)
    same(loss(label_smoothing=None), loss(label_smoothing=0.0))
    same(loss(axis=np.int64(0)), loss(axis=0))


def test_integers_of_numpy():
    """An ignored class of NumPy's, and an alpha that is not used."""
    x = np.array([[0.05, 0.95, 0], [0.1, 0.8, 0.1]], np.float32)
    loss = ours.SparseCategoricalCrossentropy(
        ignore_class=np.int64(-1), axis=np.int8(1)
    )
    expected = ours.SparseCategoricalCrossentropy(ignore_class=-1)
    same(loss(jnp.array([1, -1]), x), expected(jnp.array([1, -1]), x))
    same(
        ours.binary_focal_crossentropy(Q, CERTAIN, alpha=None),
        ours.binary_focal_crossentropy(Q, CERTAIN),
    )
