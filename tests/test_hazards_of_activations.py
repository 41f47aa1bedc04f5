"""What goes wrong around cross-entropy elsewhere: activations and axes.

One test a hazard; each says what this library does instead.
"""

import inspect
import math

import jax
import jax.numpy as jnp
import pytest

import jxent
from tests.hazards import (
    INF,
    OF_IDS,
    cross_entropy,
    same,
    spread,
    table,
    value_and_grad,
)


@pytest.mark.parametrize(
    ("classes", "floor"), [(2, 0.313), (4, 0.744), (10, 1.461), (100, 3.622)]
)
def test_softmax_before_the_loss(classes, floor):
    """A perfect model cannot get below log(e + K − 1) − 1; on logits it gets to 0."""
    labels = jnp.arange(2)
    logits = 1e4 * jax.nn.one_hot(labels, classes)
    twice = cross_entropy(jax.nn.softmax(logits), labels)
    same(twice, jnp.full(2, math.log(math.e + classes - 1) - 1), rtol=1e-5)
    same(twice, jnp.full(2, floor), rtol=0, atol=5e-4)
    assert jnp.all(cross_entropy(logits, labels) == 0)
    same(jxent.categorical_cross_entropy(jax.nn.softmax(logits), labels), jnp.zeros(2))


@pytest.mark.parametrize(("label", "floor"), [(1, 0.3133), (0, 0.6931)])
def test_sigmoid_before_the_loss(label, floor):
    """Probabilities as logits stay above a floor; on logits the loss gets to 0."""
    logits = jnp.array([1e4 if label else -1e4])
    labels = jnp.array([label])
    twice = jxent.sigmoid_binary_cross_entropy(jax.nn.sigmoid(logits), labels)
    same(twice, jnp.array([floor]), rtol=0, atol=5e-5)
    assert jxent.sigmoid_binary_cross_entropy(logits, labels) == 0
    assert jxent.binary_cross_entropy(jax.nn.sigmoid(logits), labels) == 0


def test_log_probabilities_are_logits():
    """log_softmax before the loss changes nothing."""
    x, labels = 8 * spread(4, 5), jnp.array([0, 1, 2, 4])
    same(cross_entropy(jax.nn.log_softmax(x), labels), cross_entropy(x, labels))


def losses_by_name():
    for name in jxent.__all__:
        function = getattr(jxent, name)
        if inspect.isfunction(function):
            yield name, list(inspect.signature(function).parameters)


def test_the_name_says_logits_or_probabilities():
    """No from_logits switch: the first parameter of every loss is named for it."""
    first = {name: parameters[0] for name, parameters in losses_by_name()}
    assert not any("from_logits" in parameters for _, parameters in losses_by_name())
    for name in first:
        if name.startswith(("softmax", "safe_softmax", "sigmoid", "poly_loss")):
            assert first[name] == ("x" if "contrastive" in name else "logits")
    for name in ("binary_cross_entropy", "categorical_cross_entropy", "entropy"):
        assert first[name] == "probs"
    logits = jnp.array([[5.0, -1.0, 2.0]])
    same(cross_entropy(logits, jnp.array([0])), jnp.array([0.0509]), atol=5e-5, rtol=0)


def test_no_epsilon_no_clip():
    """At p = 1e-30 the loss is 69.08 and the slope −1e30: nothing is cut off."""
    p, one = jnp.array([1e-30]), jnp.array([1])
    value, grad = value_and_grad(lambda p: jxent.binary_cross_entropy(p, one), p)
    same(value, jnp.array([69.0776]))
    same(grad, jnp.array([-1e30]))
    value, grad = value_and_grad(lambda p: jxent.binary_cross_entropy(p, 1 - one), p)
    same(value, p, rtol=1e-6, atol=0)
    same(grad, jnp.array([1.0]))
    p = jnp.array([[1e-30, 1 - 1e-6]])
    value, grad = value_and_grad(
        lambda p: jxent.categorical_cross_entropy(p, jnp.array([0])), p
    )
    same(value, jnp.array([69.0776]))
    same(grad, jnp.array([[-1e30, 0.0]]))


def test_half_precision_probabilities():
    """An epsilon would vanish in float16 and turn 1 − p into 0 in bfloat16."""
    p = jnp.array([6e-8, 1.0, 0.0], jnp.float16)
    value, grad = value_and_grad(
        lambda p: jxent.binary_cross_entropy(p, jnp.array([1, 1, 0])), p
    )
    same(value, jnp.array([-math.log(float(p[0])), 0.0, 0.0]))
    assert not jnp.any(jnp.isnan(grad))
    q = jnp.array([[1.0, 0.0]], jnp.bfloat16)
    value, grad = value_and_grad(
        lambda q: jxent.categorical_cross_entropy(q, jnp.array([[1.0, 0.0]])), q
    )
    assert value[0] == 0
    same(grad.astype(jnp.float32), jnp.array([[-1.0, 0.0]]))


def test_probabilities_outside_their_domain():
    """NaN outside [0, 1]; p = 0 for what happened is +inf, not 100."""
    p = jnp.array([1.5, -0.5, 0.0, 1.0])
    value = jxent.binary_cross_entropy(p, jnp.array([0, 1, 1, 0]))
    assert jnp.all(jnp.isnan(value[:2]))
    assert jnp.all(value[2:] == INF)
    ids = jnp.array([0, 0])
    value = jxent.categorical_cross_entropy(jnp.array([[-0.5, 1.5], [0.0, 1.0]]), ids)
    assert jnp.isnan(value[0])
    assert value[1] == INF
    assert jnp.isnan(jxent.entropy(jnp.array([-0.5, 1.5])))


@table(OF_IDS)
def test_the_classes_may_lie_along_any_axis(loss):
    """Classes first, as in images, gives what classes last gives."""
    x, labels = spread(2, 3, 5), jnp.array([[0, 1, 2], [3, 4, 0]])
    last = value_and_grad(lambda x: loss(x, labels), x)
    moved = jnp.moveaxis(x, -1, 1)
    value, grad = value_and_grad(lambda x: loss(x, labels, axis=1), moved)
    same(value, last[0])
    same(jnp.moveaxis(grad, 1, -1), last[1], rtol=1e-5)


def test_labels_that_fit_another_axis():
    """The error says which."""
    with pytest.raises(ValueError, match=r"Class ids of this shape fit with axis=1\."):
        cross_entropy(spread(2, 3, 5), jnp.zeros((2, 5), jnp.int32))


def test_a_softmax_over_one_class():
    """Always 0, hence an error that names the sigmoid function."""
    with pytest.raises(ValueError, match="call sigmoid_binary_cross_entropy"):
        cross_entropy(spread(4, 1), jnp.zeros(4, jnp.int32))
