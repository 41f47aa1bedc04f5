"""What goes wrong around cross-entropy elsewhere, one test a hazard.

L labels, A activation and axis, N infinities, masks and NaN, R reduction, P precision
and size. Each test states what this library does instead.
"""

import functools
import inspect
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.sharding import PartitionSpec as P

import jxent
from jxent._problem import bad_labels
from tests.compiling import as_users_jit


INF, NAN = jnp.inf, jnp.nan
W = np.array([0.5, 2.0, 1.0, 3.0, 0.25], np.float32)  # class weights for five classes


def spread(*shape, low=0.05, high=0.9):
    """Floats that are fair logits and fair probabilities alike."""
    size = math.prod(shape)
    order = np.random.default_rng(size).permutation(size)
    x = low + (high - low) * order / max(size - 1, 1)
    return x.reshape(shape).astype(np.float32)


def values_and_grads(losses, *inputs):
    """Every row's loss and the gradient of their sum, for each loss and its input."""

    @as_users_jit
    def each(inputs):
        results = []
        for loss, x in zip(losses, inputs, strict=True):
            value, pull = jax.vjp(loss, x)
            results.append((value, pull(jnp.ones_like(value))[0]))
        return results

    return jax.tree.map(np.asarray, each(inputs))


def value_and_grad(loss, x):
    return values_and_grads([loss], x)[0]


def same(a, b, rtol=2e-6, atol=1e-7):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def all_finite(*arrays):
    return all(np.isfinite(x).all() for x in arrays)


partial = functools.partial
cross_entropy = jxent.softmax_cross_entropy

# Every way to a loss of class ids, with five classes.
OF_IDS = {
    "plain": partial(cross_entropy),
    "smoothed": partial(cross_entropy, label_smoothing=0.1),
    "all options": partial(
        cross_entropy,
        class_weights=W,
        label_smoothing=0.1,
        z_loss=0.1,
        logit_soft_cap=2.0,
        temperature=0.5,
    ),
    "focal": partial(jxent.softmax_focal_loss, gamma=0.5, label_smoothing=0.1),
    "poly": partial(jxent.poly_loss_cross_entropy, class_weights=W),
    "log prob": jxent.softmax_log_prob,
    "probabilities": partial(
        jxent.categorical_cross_entropy, class_weights=W, label_smoothing=0.1
    ),
}
OF_DISTRIBUTIONS = {name: loss for name, loss in OF_IDS.items() if name != "log prob"}
ELEMENTWISE = {
    "binary": jxent.sigmoid_binary_cross_entropy,
    "binary pos_weight": partial(jxent.sigmoid_binary_cross_entropy, pos_weight=3.0),
    "binary class weights": partial(
        jxent.sigmoid_binary_cross_entropy, class_weights=W, label_smoothing=0.1
    ),
    "focal": partial(jxent.sigmoid_focal_loss, gamma=0.5, alpha=0.25),
    "probabilities": jxent.binary_cross_entropy,
}


def options_of(loss):
    return loss.keywords if isinstance(loss, partial) else {}


def some(*names):
    return table({name: OF_IDS[name] for name in names})


def table(losses):
    return pytest.mark.parametrize("loss", losses.values(), ids=losses.keys())


# Labels -------------------------------------------------------------------------------

OUT_OF_RANGE = [5, 6, 127, -1, -2, -5, -6, -100, -128]


@table(OF_IDS)
@pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32])
def test_L1_a_label_out_of_range(loss, dtype):
    """NaN in its own row's loss and gradient; never a finite wrong gradient."""
    labels = jnp.array([2, *OUT_OF_RANGE, 4], dtype)
    x = spread(labels.size, 5)
    value, grad = value_and_grad(lambda x: loss(x, labels), x)
    assert np.isnan(value[1:-1]).all()
    assert np.isnan(grad[1:-1]).all()
    assert all_finite(value[0], value[-1], grad[0], grad[-1])


@table(OF_IDS)
def test_L1_a_label_on_a_masked_class(loss):
    """As out of range: masked by class_mask, or by a where of the logits' rank."""
    labels, mask = jnp.array([1, 3, 0]), np.array([True, True, True, False, False])
    x = spread(3, 5)
    for option in ({"class_mask": mask}, {"where": np.tile(mask, (3, 1))}):
        value, grad = value_and_grad(lambda x, o=option: loss(x, labels, **o), x)
        assert np.isnan(value).tolist() == [False, True, False]
        assert np.isnan(grad[1, mask]).all()
        assert all_finite(grad[0], grad[2])


@table({k: v for k, v in OF_IDS.items() if "class_weights" not in options_of(v)})
def test_L2_negative_labels_never_wrap(loss):
    """−100 with more than 100 classes is no class; as ignore_index it drops the row."""
    labels, x = jnp.array([-100, -1, 7]), spread(3, 201)
    value, grad = value_and_grad(lambda x: loss(x, labels), x)
    assert np.isnan(value[:2]).all()
    assert np.isnan(grad[:2]).all()
    value, grad = value_and_grad(lambda x: loss(x, labels, ignore_index=-100), x)
    assert value[0] == 0
    assert np.all(grad[0] == 0)
    assert np.isnan(value[1])
    assert np.isnan(grad[1]).all()
    assert all_finite(value[2], grad[2])


@table(OF_DISTRIBUTIONS)
def test_L3_ids_and_one_hot_labels_agree(loss):
    """Value and gradient, for every option."""
    ids, x = jnp.array([0, 3, 4]), spread(3, 5)
    dtypes = (jnp.float32, jnp.int32, jnp.bool_)
    labels = [ids, *(jax.nn.one_hot(ids, 5, dtype=dtype) for dtype in dtypes)]
    losses = [lambda x, y=y: loss(x, y) for y in labels]
    of_ids, *others = values_and_grads(losses, *[x] * len(losses))
    for of_one_hot in others:
        for a, b in zip(of_ids, of_one_hot, strict=True):
            same(a, b, rtol=1e-5, atol=1e-6)


@some("plain", "poly", "probabilities")
def test_L3_a_row_without_mass(loss):
    """one_hot of a label out of range: loss 0, and no pull on the largest logit."""
    loss = partial(loss, label_smoothing=0.0)
    q = jax.nn.one_hot(jnp.array([7, -1]), 5)
    value, grad = value_and_grad(lambda x: loss(x, q), spread(2, 5))
    assert np.all(value == 0)
    assert np.all(grad == 0)


def checked(function):
    """The message that checkify has for a call, or None."""
    run = as_users_jit(checkify.checkify(jax.jit(function)))
    return lambda *args: run(*args)[0].get()


def bad_label(label, classes=5):
    return (
        f"expected labels in [0, {classes}) and on a class that is not masked, got "
        f"label {label}. Mark rows to skip with ignore_index or where."
    )


@some("plain", "all options", "focal", "log prob", "probabilities")
def test_L4_checkify_names_a_bad_label(loss):
    """checkify of a jitted training step: the label and the class count, or nothing."""
    counted = jnp.array([True, True, False])
    mask = jnp.array([True, True, True, True, False])

    def step(x, labels):
        kept = loss(x, labels, where=counted, ignore_index=-100, class_mask=mask)
        return jnp.sum(kept)

    message = partial(checked(jax.value_and_grad(step)), spread(3, 5))
    for label in (5, 100, -1, -101, 4):
        assert bad_label(label) in (message(jnp.array([0, label, 0])) or "")
    for labels in ([0, 3, 0], [0, -100, 0], [0, 3, 77]):
        assert message(jnp.array(labels)) is None


@pytest.mark.parametrize("axes", [(0, 0), (1, 0), (0, 1), (1, 1), (None, 1)], ids=str)
def test_L4_checkify_names_a_bad_label_of_any_axis(axes):
    """Under vmap the labels' new axis may be any; none is needed for the logits."""
    x = spread(3, 5) if axes[0] is None else jnp.stack([spread(3, 5)] * 2, axes[0])
    labels = jnp.array([[0, 1, 2], [3, 4, 0]])
    labels = labels if axes[1] == 0 else labels.T
    mapped = jax.vmap(partial(cross_entropy, ignore_index=-100), axes)
    message = partial(checked(jax.value_and_grad(lambda x, y: mapped(x, y).sum())), x)
    assert message(labels) is None
    for label in (7, -1):
        assert bad_label(label) in (message(labels.at[1, 1].set(label)) or "")


def test_L4_checkify_names_a_bad_label_of_a_gradient_alone():
    """A step whose gradient goes on, and whose loss is not kept."""

    def penalty(x, labels):
        loss = lambda x: cross_entropy(x, labels).sum()
        return jnp.sum(jax.jit(jax.grad(loss))(x) ** 2)

    message = partial(checked(jax.grad(penalty)), spread(3, 5))
    assert message(jnp.array([0, 1, 4])) is None
    assert bad_label(9) in (message(jnp.array([0, 9, 4])) or "")


def test_L4_checkify_names_a_bad_label_outside_of_jit():
    with jax.disable_jit():
        error, _ = checkify.checkify(cross_entropy)(spread(3, 5), jnp.array([0, 9, 4]))
    assert bad_label(9) in (error.get() or "")


def test_L4_checkify_names_a_bad_label_without_private_help(monkeypatch):
    """Where JAX has moved its table of rules, a debug_check says the same."""
    monkeypatch.setattr(bad_labels, "error_checks", None)
    x = spread(7, 6)  # a shape that no other test has traced
    labels = jnp.array([0, 1, 2, 6, 4, 5, 0])
    assert bad_label(6, 6) in (checked(cross_entropy)(x, labels) or "")
    assert jax.make_jaxpr(cross_entropy)(x, labels).effects


def test_L4_checkify_is_silent_about_bad_logits():
    """The sentence is about labels; a NaN logit, or a row of −inf, is none."""
    x = jnp.array([[NAN, 0.0], [-INF, -INF], [INF, 0.0]])
    assert checked(cross_entropy)(x, jnp.array([0, 1, 1])) is None


INTEGERS = [jnp.int8, jnp.uint8, jnp.int16, jnp.uint16, jnp.int32, jnp.uint32]


@table({"logits": cross_entropy, "probabilities": jxent.categorical_cross_entropy})
def test_L5_any_integer_dtype(loss):
    """Also one that cannot hold the class count."""
    ids, x = np.array([0, 5, 127]), spread(3, 300)
    expected = loss(x, ids.astype(np.int32))
    assert all_finite(expected)
    for dtype in INTEGERS:
        same(loss(x, ids.astype(dtype)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.float32, jnp.bfloat16])
def test_L5_ids_that_are_not_integers(dtype):
    """An error at trace time that says what to do."""
    with pytest.raises(TypeError, match=r"labels\.astype\(jnp\.int32\)"):
        cross_entropy(spread(3, 5), jnp.zeros(3, dtype))


@some("plain", "smoothed", "log prob")
def test_L6_ids_are_never_floats(loss):
    """bfloat16 holds no 257 and no 999: neighbours must not be taken for them."""
    labels = jnp.array([257, 999, 513])
    x = jnp.full((3, 1000), 0.25, jnp.bfloat16)
    best = x.at[jnp.arange(3), labels].set(0.75)
    value, grad = value_and_grad(lambda x: loss(x, labels), best)
    same(value, jnp.full(3, value[0]), rtol=1e-6)
    largest = jnp.argmax(jnp.abs(grad.astype(jnp.float32)), axis=-1)
    assert jnp.all(largest == labels)


def test_L7_void_labels_of_uint8():
    """255 marks them; an ignore_index that uint8 cannot hold is an error."""
    labels, x = jnp.array([1, 255, 2], jnp.uint8), spread(3, 5)
    value = cross_entropy(x, labels, ignore_index=255)
    assert value[1] == 0
    assert all_finite(value)
    assert jnp.isnan(cross_entropy(x, labels)[1])
    with pytest.raises(
        ValueError, match="-100 cannot occur among labels of dtype uint8"
    ):
        cross_entropy(x, labels, ignore_index=-100)


@table({"softmax": cross_entropy, "log prob": jxent.softmax_log_prob})
def test_L8_labels_with_an_axis_of_size_1(loss):
    """An error that names both shapes and the fix."""
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(4, 1\).*labels\.squeeze\(1\)"):
        loss(spread(4, 5), jnp.zeros((4, 1), jnp.int32))


@pytest.mark.parametrize(
    ("loss", "x", "labels"),
    [
        (jxent.sigmoid_binary_cross_entropy, (4, 1), (4,)),
        (jxent.sigmoid_binary_cross_entropy, (4,), (4, 1)),
        (jxent.sigmoid_binary_cross_entropy, (4, 5), (5,)),
        (jxent.sigmoid_focal_loss, (4, 5), (4, 1)),
        (jxent.binary_cross_entropy, (4, 5), (1,)),
        (jxent.binary_cross_entropy, (4, 5), (1, 1)),
        (cross_entropy, (4, 5), (5,)),
        (cross_entropy, (4, 5), (1, 5)),
        (cross_entropy, (4, 5), (1,)),
        (cross_entropy, (4, 5), ()),
        (jxent.categorical_cross_entropy, (4, 5), (1, 5)),
        (jxent.categorical_cross_entropy, (4, 5), ()),
        (jxent.kl_divergence, (4, 5), (5,)),
        (jxent.generalized_kl_divergence, (4, 5), (1, 5)),
        (jxent.kl_divergence_with_log_targets, (4, 5), (1, 5)),
    ],
)
def test_L9_labels_never_broadcast(loss, x, labels):
    """(N, 1) against (N,) is no (N, N) loss but an error, also where JAX allows it."""
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match="expected"):
        loss(spread(*x), jnp.zeros(labels, jnp.float32))


@some("plain", "smoothed", "focal", "poly")
def test_L10_labels_that_do_not_sum_to_1(loss):
    """The gradient is that of Σ_c q_c f(log p_c), with the mass that q has."""
    x = spread(3, 5)
    q = jnp.array([[0.2, 0.0, 0.1, 0.0, 0.0], [2.0] * 5, [0.0] * 5])
    options = options_of(loss)
    w = jnp.asarray(options.get("class_weights", np.ones(5, np.float32)))
    e = options.get("label_smoothing", 0.0)

    def textbook(x):
        p = jax.nn.softmax(x)
        f = -jnp.log(p) * (1 - p) ** options.get("gamma", 0.0)
        if loss.func is jxent.poly_loss_cross_entropy:
            f = f + 2 * (1 - p)
        return jnp.sum(w[None] * ((1 - e) * q + e / 5) * f, -1)

    got = value_and_grad(lambda x: loss(x, q), x)
    for a, b in zip(got, value_and_grad(textbook, x), strict=True):
        same(a, b, rtol=1e-5, atol=1e-6)


def test_L11_the_shift_happens_once():
    """next_token_labels shifts, losses do not, and no label crosses documents."""
    tokens = jnp.array([[3, 1, 4, 1, 0, 2]])
    documents = jnp.array([[0, 0, 0, 1, 1, 1]])
    labels = jxent.next_token_labels(tokens, segment_ids=documents)
    assert labels.tolist() == [[1, 4, -100, 0, 2, -100]]
    assert jxent.next_token_labels(tokens).tolist() == [[1, 4, 1, 0, 2, -100]]
    sure = 50 * jax.nn.one_hot(jnp.maximum(labels, 0), 5)
    same(cross_entropy(sure, labels, ignore_index=-100), jnp.zeros((1, 6)))


def test_L11_padding_is_never_a_label():
    """Pads share a segment in packed rows, and stand on the left in others."""
    tokens = jnp.array([[5, 6, 0, 0], [0, 0, 5, 6]])
    segments = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    real = segments != 0
    labels = jxent.next_token_labels(tokens, segment_ids=segments, where=real)
    assert labels.tolist() == [[6, -100, -100, -100], [-100, -100, 6, -100]]
    assert jxent.total_weight(labels, ignore_index=-100) == 2
    # Without segments a pad may predict a token, as a prompt's last token does.
    labels = jxent.next_token_labels(tokens, where=real)
    assert labels.tolist() == [[6, -100, -100, -100], [-100, 5, 6, -100]]


def test_L12_the_rank_tells_ids_from_distributions():
    """Never the dtype, never the values: with 3 rows of 3 classes too."""
    x = spread(3, 3)
    ids = jnp.array([2, 0, 1])
    one_hot = jax.nn.one_hot(ids, 3, dtype=jnp.int32)
    for loss in (cross_entropy, jxent.softmax_cross_entropy_with_integer_labels):
        same(loss(x, ids), -jax.nn.log_softmax(x)[jnp.arange(3), ids])
        same(loss(x, one_hot), loss(x, ids))
        same(loss(x, 2 * one_hot), 2 * loss(x, ids))
    with pytest.raises(ValueError, match="For distributions call"):
        jxent.softmax_log_prob(x, one_hot)


# Activation and axis ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "floor"), [(2, 0.313), (4, 0.744), (10, 1.461), (100, 3.622)]
)
def test_A1_softmax_before_the_loss(classes, floor):
    """A perfect model cannot get below log(e + K − 1) − 1; on logits it gets to 0."""
    labels = jnp.arange(2)
    logits = 1e4 * jax.nn.one_hot(labels, classes)
    twice = cross_entropy(jax.nn.softmax(logits), labels)
    same(twice, jnp.full(2, math.log(math.e + classes - 1) - 1), rtol=1e-5)
    same(twice, jnp.full(2, floor), rtol=0, atol=5e-4)
    assert jnp.all(cross_entropy(logits, labels) == 0)
    same(jxent.categorical_cross_entropy(jax.nn.softmax(logits), labels), jnp.zeros(2))


@pytest.mark.parametrize(("label", "floor"), [(1, 0.3133), (0, 0.6931)])
def test_A2_sigmoid_before_the_loss(label, floor):
    """Probabilities as logits stay above a floor; on logits the loss gets to 0."""
    logits = jnp.array([1e4 if label else -1e4])
    labels = jnp.array([label])
    twice = jxent.sigmoid_binary_cross_entropy(jax.nn.sigmoid(logits), labels)
    same(twice, jnp.array([floor]), rtol=0, atol=5e-5)
    assert jxent.sigmoid_binary_cross_entropy(logits, labels) == 0
    assert jxent.binary_cross_entropy(jax.nn.sigmoid(logits), labels) == 0


def test_A3_log_probabilities_are_logits():
    """log_softmax before the loss changes nothing."""
    x, labels = 8 * spread(4, 5), jnp.array([0, 1, 2, 4])
    same(cross_entropy(jax.nn.log_softmax(x), labels), cross_entropy(x, labels))


def losses_by_name():
    for name in jxent.__all__:
        function = getattr(jxent, name)
        if inspect.isfunction(function):
            yield name, list(inspect.signature(function).parameters)


def test_A4_the_name_says_logits_or_probabilities():
    """No from_logits switch: the first parameter of every loss is named for it."""
    first = {name: parameters[0] for name, parameters in losses_by_name()}
    assert not any("from_logits" in parameters for _, parameters in losses_by_name())
    for name in first:
        if name.startswith(("softmax", "safe_softmax", "sigmoid", "poly_loss")):
            assert first[name] == "logits"
    for name in ("binary_cross_entropy", "categorical_cross_entropy", "entropy"):
        assert first[name] == "probs"
    logits = jnp.array([[5.0, -1.0, 2.0]])
    same(cross_entropy(logits, jnp.array([0])), jnp.array([0.0509]), atol=5e-5, rtol=0)


def test_A5_no_epsilon_no_clip():
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


def test_A5_half_precision_probabilities():
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


def test_A6_probabilities_outside_their_domain():
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
def test_A7_the_classes_may_lie_along_any_axis(loss):
    """Classes first, as in images, gives what classes last gives."""
    x, labels = spread(2, 3, 5), jnp.array([[0, 1, 2], [3, 4, 0]])
    last = value_and_grad(lambda x: loss(x, labels), x)
    moved = jnp.moveaxis(x, -1, 1)
    value, grad = value_and_grad(lambda x: loss(x, labels, axis=1), moved)
    same(value, last[0])
    same(jnp.moveaxis(grad, 1, -1), last[1], rtol=1e-5)


def test_A7_labels_that_fit_another_axis():
    """The error says which."""
    with pytest.raises(ValueError, match=r"Class ids of this shape fit with axis=1\."):
        cross_entropy(spread(2, 3, 5), jnp.zeros((2, 5), jnp.int32))


@some("smoothed", "focal", "probabilities")
def test_A8_smoothing_counts_the_class_axis(loss):
    """K is the size of `axis`, for ids and for distributions."""
    x, labels = spread(7, 5), jnp.arange(7) % 5
    expected = loss(x, labels)
    same(loss(x.T, labels, axis=0), expected)
    same(loss(x.T, jax.nn.one_hot(labels, 5, axis=0), axis=0), expected, rtol=1e-5)


def test_A9_a_softmax_over_one_class():
    """Always 0, hence an error that names the sigmoid function."""
    with pytest.raises(ValueError, match="call sigmoid_binary_cross_entropy"):
        cross_entropy(spread(4, 1), jnp.zeros(4, jnp.int32))


# Infinities, masks, NaN ---------------------------------------------------------------

MINUS_INF = jnp.array([[-INF, 0.0, 0.0]])


@pytest.mark.parametrize("labels", [[1], [[0.0, 1.0, 0.0]]], ids=["ids", "one-hot"])
@pytest.mark.parametrize(
    ("loss", "value", "grad"),
    [
        (cross_entropy, 0.6931, [0, -0.5, 0.5]),
        (jxent.safe_softmax_cross_entropy, 0.6931, [0, -0.5, 0.5]),
        (jxent.poly_loss_cross_entropy, 1.6931, [0, -1.0, 1.0]),
        (partial(jxent.softmax_focal_loss, gamma=0.0), 0.6931, [0, -0.5, 0.5]),
    ],
    ids=["plain", "safe", "poly", "focal"],
)
def test_N1_a_logit_of_minus_inf(loss, value, grad, labels):
    """An impossible class: 0 · (−inf) = 0, in the gradient too."""
    labels = jnp.array(labels)
    got = value_and_grad(lambda x: loss(x, labels), MINUS_INF)
    same(got[0], [value], rtol=1e-4)
    same(got[1], [grad])


def test_N1_the_labels_own_logit_is_minus_inf():
    """+inf, with a finite gradient."""
    for labels in (jnp.array([0]), jnp.array([[1.0, 0.0, 0.0]])):
        value, grad = value_and_grad(lambda x, y=labels: cross_entropy(x, y), MINUS_INF)
        assert value[0] == INF
        same(grad, [[-1.0, 0.5, 0.5]])


def test_N1_probabilities_of_0():
    """0 log 0 = 0 in values and gradients."""
    p = jnp.array([0.0, 0.5, 0.5])
    q = jnp.array([0.0, 1.0, 0.0])
    value, grad = value_and_grad(lambda p: jxent.categorical_cross_entropy(p, q), p)
    same(value, 0.6931, rtol=1e-4)
    same(grad, [0.0, -2.0, 0.0])
    value, grad = value_and_grad(lambda p: jxent.binary_cross_entropy(p, p * 0), 0 * p)
    same(value, jnp.zeros(3))
    same(grad, jnp.ones(3))
    value, grad = value_and_grad(jxent.entropy, p)
    same(value, 0.6931, rtol=1e-4)
    same(grad[1:], [math.log(2) - 1] * 2)
    assert 1e18 < grad[0] < INF


@pytest.mark.parametrize(
    "loss",
    [cross_entropy, jxent.safe_softmax_cross_entropy, jxent.poly_loss_cross_entropy],
    ids=["plain", "safe", "poly"],
)
def test_N2_every_derivative_at_minus_inf(loss):
    """Forward and reverse agree, in logits and labels; the Hessian has no NaN."""
    x, q = jnp.array([-INF, 0.0, 1.0, 0.5]), jnp.array([0.0, 1.0, 0.0, 0.0])

    @as_users_jit
    def derivatives(x, q):
        forward = jax.jacfwd(loss, (0, 1))(x, q)
        backward = jax.jacrev(loss, (0, 1))(x, q)
        along = jax.jvp(lambda q: loss(x, q), (q,), (jnp.array([0.0, -1, 1, 0]),))[1]
        return forward, backward, along, jax.hessian(loss)(x, q)

    forward, backward, along, hessian = derivatives(x, q)
    p = jax.nn.softmax(x)
    for in_x, in_q in (forward, backward):
        assert in_x[0] == 0
        assert all_finite(in_x, in_q[1:])
        assert not jnp.isnan(in_q[0])
    same(forward[0], backward[0])
    same(forward[1], backward[1])
    assert jnp.all(hessian[0] == 0)
    assert jnp.all(hessian[:, 0] == 0)
    assert all_finite(hessian)
    if loss is not jxent.poly_loss_cross_entropy:
        same(along, x[1] - x[2])
        same(hessian, jnp.diag(p) - p[:, None] * p[None])


@some("smoothed", "all options", "focal")
def test_N3_smoothing_with_an_impossible_class(loss):
    """Mass on −inf is +inf; on a masked class there is none, and K counts the rest."""
    x, labels = spread(3, 5), jnp.array([0, 1, 4])
    mask = np.arange(5) != 3
    few = loss
    if "class_weights" in options_of(loss):
        few = partial(loss, class_weights=W[mask])
    else:
        x[:, 3] = -INF
        assert np.all(loss(x, labels) == INF)
    expected = few(x[:, mask], jnp.array([0, 1, 3]))
    for y in (labels, jax.nn.one_hot(labels, 5)):
        value, grad = value_and_grad(lambda x, y=y: loss(x, y, class_mask=mask), x)
        same(value, expected, rtol=1e-5)
        assert all_finite(grad)
        assert np.all(grad[:, 3] == 0)
        same(loss(x, y, where=np.tile(mask, (3, 1))), expected, rtol=1e-5)


@some("plain", "smoothed", "all options", "focal", "poly")
def test_N4_a_row_of_minus_inf_only(loss):
    """NaN, value and gradient; exactly 0 where the row is dropped."""
    loss = partial(loss, logit_soft_cap=None)  # which makes −inf finite
    x, labels = spread(2, 5), jnp.array([1, 2])
    x[0] = -INF
    value, grad = value_and_grad(lambda x: loss(x, labels), x)
    assert np.isnan(value[0])
    assert np.isnan(grad[0]).all()
    assert all_finite(value[1], grad[1])
    where = jnp.array([False, True])
    value, grad = value_and_grad(lambda x: loss(x, labels, where=where), x)
    assert value[0] == 0
    assert np.all(grad[0] == 0)


GARBAGE = [NAN, INF, -INF, 3e38, -3e38, NAN]
KEPT = np.array([True] + [False] * len(GARBAGE) + [True])
IDS = jnp.array([1, 99, -7, 2, 5, 0, 3, 4])


def with_garbage(x):
    """Rows between the first and the last: what nobody should look at."""
    for row, value in enumerate(GARBAGE[:-1], 1):
        x[row] = value
    x[-2].flat[0] = NAN
    return x


def drops(ndim=1) -> Iterator[dict[str, Any]]:
    """Ways to drop the rows that are not KEPT."""
    where = KEPT.reshape(-1, *(1,) * (ndim - 1))
    yield {"where": where}
    yield {"weights": where.astype(np.float32)}
    yield {"where": where, "weights": np.where(where, np.float32(1), np.float32(NAN))}


def check_dropped(few, ways, x):
    """`few` of the kept rows against each of `ways` of all rows."""
    inputs = [x[KEPT], *[x] * len(ways)]
    expected, *results = values_and_grads([few, *ways], *inputs)
    for value, grad in results:
        assert np.all(value[~KEPT] == 0)
        assert np.all(grad[~KEPT] == 0)
        same(value[KEPT], expected[0], rtol=1e-5)
        same(grad[KEPT], expected[1], rtol=1e-5, atol=1e-6)


@table(OF_IDS)
def test_N5_what_a_dropped_row_holds(loss):
    """NaN, infinities, garbage ids: loss and gradient are exactly 0."""
    marked = jnp.where(KEPT, IDS, -100)
    ways = [lambda x: loss(x, marked, ignore_index=-100)]
    if loss is not jxent.softmax_log_prob:
        ways += [lambda x, w=w: loss(x, IDS, **w) for w in drops()]
    x = with_garbage(spread(KEPT.size, 5))
    check_dropped(lambda x: loss(x, IDS[KEPT]), ways, x)


@table(OF_DISTRIBUTIONS)
def test_N5_what_a_dropped_distribution_holds(loss):
    """The same for distributions of garbage."""
    x, q = with_garbage(spread(KEPT.size, 5)), with_garbage(spread(KEPT.size, 5))
    ways = [lambda x, w=w: loss(x, q, **w) for w in drops()]
    check_dropped(lambda x: loss(x, q[KEPT]), ways, x)


@table(ELEMENTWISE)
def test_N5_what_a_dropped_element_holds(loss):
    """The same for losses of yes/no labels."""
    x, y = with_garbage(spread(KEPT.size, 5)), with_garbage(spread(KEPT.size, 5))
    ways = [lambda x, w=w: loss(x, y, **w) for w in drops(2)]
    check_dropped(lambda x: loss(x, y[KEPT]), ways, x)


def test_N5_reduce():
    """where and a weight of 0 drop an element, whatever it holds."""
    losses = np.array([1.0, *GARBAGE, 3.0], np.float32)
    for way in drops():
        mean, grad = value_and_grad(partial(jxent.reduce, **way), losses)
        assert mean == 2
        same(grad, KEPT / 2)


@table(OF_IDS)
def test_N6_a_masked_class_holds_anything(loss):
    """1e38, inf or NaN there: loss and gradient as without that class."""
    x, labels, mask = spread(3, 5), jnp.array([0, 1, 4]), np.arange(5) != 3

    @as_users_jit
    def both(x):
        value, pull = jax.vjp(lambda x: loss(x, labels, class_mask=mask), x)
        return value, pull(jnp.ones_like(value))[0]

    clean = both(x)
    for garbage in (3e38, -3e38, INF, -INF, NAN):
        x[:, 3] = garbage
        value, grad = both(x)
        same(value, clean[0])
        same(grad, clean[1])
        assert np.all(np.asarray(grad)[:, 3] == 0)


@table(OF_DISTRIBUTIONS)
def test_N7_nothing_left_to_average(loss):
    """0 with gradient 0: all ignored, all masked, all weights 0, no rows at all."""
    x, ignored = spread(2, 5), jnp.full(2, -100)

    @as_users_jit
    def every(x):
        def mean(labels, **options):
            return jax.value_and_grad(
                lambda x: loss(x, labels, reduction="mean", **options)
            )(x)

        return (
            mean(ignored, ignore_index=-100),
            mean(ignored, where=False),
            mean(ignored, weights=jnp.zeros(2)),
            mean(jnp.zeros((2, 5)), where=jnp.zeros(2, jnp.bool_)),
            mean(ignored, where=jnp.zeros((2, 5), jnp.bool_)),
            (loss(x[:0], ignored[:0], reduction="mean"), x[:0]),
        )

    for mean, grad in every(x):
        assert mean == 0
        assert np.all(np.asarray(grad) == 0)


@table(ELEMENTWISE)
def test_N7_no_element_left_to_average(loss):
    """The same for losses of yes/no labels."""
    x, zeros = spread(2, 5), jnp.zeros((2, 5), jnp.int32)
    loss = partial(loss, reduction="mean")
    losses = [
        lambda x: loss(x, zeros, where=False),
        lambda x: loss(x, zeros, weights=jnp.zeros((2, 1))),
    ]
    for mean, grad in values_and_grads(losses, x, x):
        assert mean == 0
        assert np.all(grad == 0)


@pytest.mark.parametrize(
    "loss", [jxent.sigmoid_binary_cross_entropy, jxent.sigmoid_focal_loss]
)
def test_N8_infinite_logits_of_a_sigmoid(loss):
    """The mathematical value, 0 or +inf, with a finite gradient."""
    x = jnp.array([INF, INF, -INF, -INF])
    value, grad = value_and_grad(lambda x: loss(x, jnp.array([1, 0, 1, 0])), x)
    same(value, [0.0, INF, INF, 0.0])
    same(grad, [0.0, 1.0, -1.0, 0.0])


@some("plain", "smoothed", "focal", "poly")
def test_N8_an_infinite_logit_of_a_softmax(loss):
    """NaN, as documented, in its own row."""
    x = spread(2, 5)
    x[0, 1] = INF
    value, grad = value_and_grad(lambda x: loss(x, jnp.array([0, 0])), x)
    assert np.isnan(value).tolist() == [True, False]
    assert np.isnan(grad[0]).all()
    assert all_finite(grad[1])


GAMMAS = jnp.array([0.0, 0.5, 1.0, 1.5, 2.0, 5.0])
EXTREMES = jnp.array([-1e4, -100.0, -20.0, -1.0, 0.0, 1.0, 20.0, 100.0, 1e4])


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_N9_derivatives_of_the_sigmoid_focal_loss(label):
    """Value, gradient and second derivative are finite for every γ and logit."""

    def loss(z, gamma):
        return jxent.sigmoid_focal_loss(z, jnp.float32(label), gamma=gamma)

    @as_users_jit
    @partial(jax.vmap, in_axes=(None, 0))
    @partial(jax.vmap, in_axes=(0, None))
    def all_of(z, gamma):
        second = jax.grad(jax.grad(loss))(z, gamma)
        return loss(z, gamma), jax.grad(loss, (0, 1))(z, gamma), second

    value, (in_z, in_gamma), second = all_of(EXTREMES, GAMMAS)
    assert all_finite(value, in_z, in_gamma, second)
    binary = value_and_grad(
        lambda z: jxent.sigmoid_binary_cross_entropy(z, jnp.full_like(z, label)),
        EXTREMES,
    )
    same(value[0], binary[0])
    same(in_z[0], binary[1], rtol=1e-5)


def test_N9_derivatives_of_the_softmax_focal_loss():
    """The same with a softmax, for ids and distributions; at γ = 0 cross-entropy."""
    targets = (jnp.int32(0), jnp.array([0.5, 0.2, 0.3]))
    for target in targets:

        def loss(z, gamma, y=target):
            logits = jnp.stack([z, 0 * z, 1 + 0 * z])
            return jxent.softmax_focal_loss(logits, y, gamma=gamma)

        @as_users_jit
        @partial(jax.vmap, in_axes=(None, 0))
        @partial(jax.vmap, in_axes=(0, None))
        def all_of(z, gamma, loss=loss):
            second = jax.grad(jax.grad(loss))(z, gamma)
            return loss(z, gamma), jax.grad(loss, (0, 1))(z, gamma), second

        value, (in_z, in_gamma), second = all_of(EXTREMES, GAMMAS)
        assert all_finite(value, in_z, in_gamma, second)
        logits = jnp.stack([EXTREMES, 0 * EXTREMES, 1 + 0 * EXTREMES], 1)
        repeated = jnp.broadcast_to(target, (EXTREMES.size, *target.shape))
        same(value[0], cross_entropy(logits, repeated), rtol=1e-5)


@pytest.mark.parametrize(
    "divergence", [jxent.kl_divergence, jxent.generalized_kl_divergence]
)
def test_N10_targets_of_0(divergence):
    """Values and all derivatives without NaN, also where log q is −inf."""
    log_q, t = (
        jnp.array([math.log(0.5), math.log(0.5), -INF]),
        jnp.array([1.0, 0.0, 0.0]),
    )
    value = divergence(log_q, t)
    general = divergence is jxent.generalized_kl_divergence
    same(value, math.log(2))
    for jacobian in (jax.jacfwd, jax.jacrev):
        in_q, in_t = as_users_jit(jacobian(divergence, (0, 1)))(log_q, t)
        same(in_q, [-0.5, 0.5, 0.0] if general else [-1.0, 0.0, 0.0])
        assert not jnp.any(jnp.isnan(in_t))
        same(in_t[0], math.log(2) + (0 if general else 1), rtol=1e-5)
        assert jnp.all(jnp.isfinite(in_t))


def test_N10_log_targets_of_minus_inf():
    """They count 0, whatever log q is there; gradients stay finite."""
    log_q = jnp.array([math.log(0.5), math.log(0.5), -INF])
    log_t = jnp.array([0.0, -INF, -INF])
    divergence = jxent.kl_divergence_with_log_targets
    same(divergence(log_q, log_t), math.log(2))
    for jacobian in (jax.jacfwd, jax.jacrev):
        in_q, in_t = as_users_jit(jacobian(divergence, (0, 1)))(log_q, log_t)
        same(in_q, [-1.0, 0.0, 0.0])
        same(in_t, [math.log(2) + 1, 0.0, 0.0])


@table(OF_DISTRIBUTIONS)
def test_N11_padding_of_the_vocabulary(loss):
    """Classes that do not exist add nothing: small logits, where a leak shows."""
    options = options_of(loss)
    padded = partial(loss, class_mask=jnp.arange(8) < 5)
    if options.get("class_weights") is not None:
        padded = partial(padded, class_weights=np.pad(W, (0, 3), constant_values=9.0))
    x, labels = np.float32(0.1) * spread(3, 5), jnp.array([0, 1, 4])
    wide = np.pad(x, ((0, 0), (0, 3)))
    expected = value_and_grad(lambda x: loss(x, labels), x)
    value, grad = value_and_grad(lambda x: padded(x, labels), wide)
    same(value, expected[0], rtol=1e-5)
    same(grad[:, :5], expected[1], rtol=1e-5, atol=1e-6)
    assert jnp.all(grad[:, 5:] == 0)
    mass = jnp.pad(jax.nn.one_hot(labels, 5), ((0, 0), (0, 3)), constant_values=0.5)
    # Target mass on classes that do not exist is dropped, from the mean as well.
    same(padded(wide, mass), expected[0], rtol=1e-5)
    mean = loss(x, labels, reduction="mean")
    same(padded(wide, mass, reduction="mean"), mean, rtol=1e-5)


def test_N12_ignoring_rows_and_removing_a_class():
    """ignore_index drops rows and keeps the class; class_mask removes the class."""
    x, labels = spread(3, 5), jnp.array([1, 2, 1])
    rows = cross_entropy(x, labels, ignore_index=2)
    same(rows, cross_entropy(x, labels) * jnp.array([1, 0, 1.0]))
    removed = cross_entropy(x, labels, class_mask=jnp.arange(5) != 2)
    without = jnp.delete(x, 2, axis=1, assume_unique_indices=True)
    same(removed[0], cross_entropy(without, jnp.ones(3, jnp.int32))[0])
    assert jnp.isnan(removed[1])


def test_N13_rows_without_mass_are_not_counted():
    """Anchors without positives add 0 to the mean and to its denominator."""
    x = spread(3, 5)
    q = jnp.array([[0.5, 0.5, 0, 0, 0], [0.0] * 5, [0, 0, 0, 0, 1.0]])
    some = jnp.array([True, False, True])
    same(
        cross_entropy(x, q, reduction="mean"),
        cross_entropy(x[some], q[some], reduction="mean"),
    )


# Reduction ----------------------------------------------------------------------------

BATCH = spread(8, 5)
LABELS = jnp.array([0, -100, -100, -100, 3, 4, -100, 2])  # unequal halves
WEIGHTS = spread(8, low=0.5, high=2.0)
ALL_OPTIONS: dict[str, Any] = {
    "class_weights": W,
    "ignore_index": -100,
    "label_smoothing": 0.1,
    "z_loss": 0.05,
}


def test_R1_micro_batches_add_up_to_the_global_mean():
    """With total_weight as normalizer; a mean of means is something else."""
    loss = as_users_jit(
        jax.value_and_grad(partial(cross_entropy, **ALL_OPTIONS, reduction="mean"))
    )
    mean, grad = loss(BATCH, LABELS, weights=WEIGHTS)
    total = jxent.total_weight(
        LABELS, weights=WEIGHTS, class_weights=W, ignore_index=-100
    )
    halves = [slice(0, 4), slice(4, 8)]
    parts = [
        loss(BATCH[h], LABELS[h], weights=WEIGHTS[h], normalizer=total) for h in halves
    ]
    same(parts[0][0] + parts[1][0], mean)
    same(jnp.concatenate([g for _, g in parts]), grad)
    means = [loss(BATCH[h], LABELS[h], weights=WEIGHTS[h])[0] for h in halves]
    assert abs((means[0] + means[1]) / 2 - mean) > 0.01


def test_R1_devices_add_up_to_the_global_mean():
    """With batch_axis_name inside shard_map: one mean over all, and its gradient."""
    split = P("batch")
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    @partial(jax.shard_map, mesh=mesh, in_specs=(split, split, split), out_specs=P())
    def mean(x, labels, weights):
        return cross_entropy(
            x,
            labels,
            **ALL_OPTIONS,
            weights=weights,
            reduction="mean",
            batch_axis_name="batch",
        )

    got = as_users_jit(jax.value_and_grad(mean))(BATCH, LABELS, WEIGHTS)
    loss = partial(cross_entropy, **ALL_OPTIONS, weights=WEIGHTS, reduction="mean")
    expected = as_users_jit(jax.value_and_grad(loss))(BATCH, LABELS)
    same(got[0], expected[0])
    same(got[1], expected[1])


def test_R2_the_weighted_mean_divides_by_the_weights():
    """Σ w_y loss / Σ w_y, for ids and for their one-hot labels."""
    labels = jnp.array([0, 1, 2, 3, 4, 1, 1, 3])
    plain = cross_entropy(BATCH, labels)
    expected = jnp.sum(W[labels] * plain) / jnp.sum(W[labels])
    mean = partial(cross_entropy, class_weights=W, reduction="mean")
    same(mean(BATCH, labels), expected)
    same(mean(BATCH, jax.nn.one_hot(labels, 5)), expected)
    total = partial(jxent.total_weight, class_weights=W)
    same(total(labels), jnp.sum(W[labels]))
    same(total(jax.nn.one_hot(labels, 5)), jnp.sum(W[labels]))


@table(OF_DISTRIBUTIONS)
def test_R3_padding_a_batch_changes_nothing(loss):
    """N rows and ignored rows give what N rows give, for every option at once."""
    keep = np.asarray(LABELS != -100)
    garbage = np.where(keep[:, None], BATCH, np.float32(NAN))
    loss = partial(loss, reduction="mean", ignore_index=-100)
    losses, inputs = [], []
    for weights in (None, WEIGHTS):
        few = None if weights is None else weights[keep]
        losses.append(lambda x, w=weights: loss(x, LABELS, weights=w))
        losses.append(lambda x, w=few: loss(x, LABELS[keep], weights=w))
        inputs += [garbage, BATCH[keep]]
    results = values_and_grads(losses, *inputs)
    for padded, few in zip(results[::2], results[1::2], strict=True):
        same(padded[0], few[0], rtol=1e-5)
        same(padded[1][keep], few[1], rtol=1e-5, atol=1e-6)
        assert np.all(padded[1][~keep] == 0)


def test_R4_names_of_reductions():
    """Per-row losses unless asked; the sum is the sum and the mean the mean."""
    labels = jnp.array([0, 1, 2, 3, 4, 1, 1, 3])
    rows = cross_entropy(BATCH, labels)
    assert rows.shape == (8,)
    same(cross_entropy(BATCH, labels, reduction="none"), rows)
    same(cross_entropy(BATCH, labels, reduction="sum"), jnp.sum(rows))
    same(cross_entropy(BATCH, labels, reduction="mean"), jnp.mean(rows))


def test_R5_z_loss_is_masked_weighted_and_reduced_with_its_row():
    """λ lse² with the row's weight and class weight; ignored rows add nothing."""
    keep = LABELS != -100
    lse = jax.nn.logsumexp(BATCH, -1)
    r = WEIGHTS * W[np.where(keep, LABELS, 0)] * np.asarray(keep, np.float32)

    def loss(x, **options):
        return cross_entropy(
            x, LABELS, class_weights=W, weights=WEIGHTS, ignore_index=-100, **options
        )

    added = loss(BATCH, z_loss=0.3) - loss(BATCH)
    same(added, 0.3 * r * lse**2, rtol=1e-4, atol=1e-6)
    mean = partial(loss, reduction="mean")
    added = mean(BATCH, z_loss=0.3) - mean(BATCH)
    same(added, 0.3 * jnp.sum(r * lse**2) / jnp.sum(r), rtol=1e-5)
    _, grad = value_and_grad(partial(loss, z_loss=0.3), BATCH)
    same(jnp.sum(grad, -1), 0.6 * r * lse, rtol=1e-4, atol=1e-5)


def test_R6_token_means_and_sequence_means():
    """Both come from the losses of the tokens, and they differ."""
    x, labels = spread(2, 4, 5), jnp.array([[0, 1, 2, 3], [4, -100, -100, -100]])
    where = labels != -100
    tokens = cross_entropy(x, labels, ignore_index=-100)
    of_tokens = jxent.reduce(tokens, where=where)
    of_sequences = jxent.reduce(jxent.reduce(tokens, where=where, axis=-1))
    same(of_tokens, cross_entropy(x, labels, ignore_index=-100, reduction="mean"))
    same(of_sequences, (jnp.mean(tokens[0]) + tokens[1, 0]) / 2)
    assert abs(of_tokens - of_sequences) > 0.01


def test_R7_divergences_sum_over_classes():
    """Per row, so that a mean over rows does not divide by the class count."""
    t, log_q = jnp.full((3, 8), 1 / 8), jnp.log(jax.nn.softmax(spread(3, 8)))
    expected = jnp.mean(jnp.sum(t * (jnp.log(t) - log_q), -1))
    same(jxent.reduce(jxent.kl_divergence(log_q, t)), expected, rtol=1e-4)
    log_form = jxent.kl_divergence_with_log_targets(log_q, jnp.log(t))
    same(jxent.reduce(log_form), expected, rtol=1e-4)


# Precision and size -------------------------------------------------------------------


@table({**OF_IDS, **{f"sigmoid {k}": v for k, v in ELEMENTWISE.items()}})
def test_P1_half_precision_inputs(loss):
    """Computed and returned in float32; the gradient has the input's dtype."""
    ids = jnp.array([0, 2, 4])
    labels = ids if loss in OF_IDS.values() else jax.nn.one_hot(ids, 5, dtype=int)
    halves = [jnp.asarray(spread(3, 5), d) for d in (jnp.bfloat16, jnp.float16)]
    inputs = [*halves, *(x.astype(jnp.float32) for x in halves)]
    results = values_and_grads([lambda x: loss(x, labels)] * 4, *inputs)
    for x, (value, grad), wide in zip(halves, results[:2], results[2:], strict=True):
        assert value.dtype == jnp.float32
        assert grad.dtype == x.dtype
        same(value, wide[0], rtol=1e-6)
        step = float(jnp.finfo(x.dtype).eps)
        same(grad.astype(np.float32), wide[1], rtol=step, atol=step / 1e3)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (30, 0), (1000, 0), (1, 1e4), (1, -1e4)]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_P1_the_truth_at_every_scale(scale, offset, dtype):
    """Within float32 of the float64 value of the same logits."""
    x = np.random.default_rng(0).normal(size=(6, 17))
    x = jnp.asarray(offset + scale * x, dtype)
    labels = np.arange(6)
    z = np.asarray(x, np.float64)
    rel = z - z.max(-1, keepdims=True)
    truth = np.log(np.exp(rel).sum(-1)) - rel[np.arange(6), labels]
    same(cross_entropy(x, jnp.asarray(labels, jnp.int32)), truth, rtol=1e-6, atol=1e-7)


def test_P1_more_classes_than_float16_counts():
    """A sum of 70000 exponentials does not overflow."""
    x = jnp.zeros((2, 70_000), jnp.float16)
    labels = jnp.array([0, 69_999])
    for smoothing in (0.0, 0.1):
        loss = cross_entropy(x, labels, label_smoothing=smoothing)
        same(loss, jnp.full(2, math.log(70_000)), rtol=1e-5)


def nested(value):
    if hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif isinstance(value, tuple | list):
        for item in value:
            yield from nested(item)


def shapes_in(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval.shape
        for parameter in equation.params.values():
            for inner in nested(parameter):
                yield from shapes_in(inner)


@some("plain", "all options", "focal")
def test_P2_more_than_2_to_the_31_logits(loss):
    """Nothing flattens them: no axis of any intermediate is longer than they are."""
    rows, classes = 2**17, 2**15
    x = jax.ShapeDtypeStruct((rows, classes), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    options = options_of(loss)
    if options.get("class_weights") is not None:
        loss = partial(loss, class_weights=jnp.ones(classes))

    def step(x, labels):
        return jax.value_and_grad(lambda x: loss(x, labels, reduction="mean"))(x)

    value, grad = jax.eval_shape(step, x, labels)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    assert grad.shape == (rows, classes)
    assert grad.dtype == jnp.bfloat16
    assert jax.eval_shape(loss, x, labels).shape == (rows,)
    inside = jax.make_jaxpr(step)(x, labels)
    assert max(max(shape, default=0) for shape in shapes_in(inside.jaxpr)) <= rows


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_P3_sums_of_half_precision_losses(dtype):
    """In float32: 5000 losses of 16 overflow float16, and 5000 ones stall bfloat16."""
    total = jxent.reduce(jnp.full(5000, 16, dtype), reduction="sum")
    assert total == 80_000
    assert total.dtype == jnp.float32
    assert jxent.reduce(jnp.ones(5001, dtype), reduction="sum") == 5001
    weights = jnp.full(5001, 1, dtype)
    assert jxent.total_weight(jnp.zeros(5001, jnp.int32), weights=weights) == 5001


def test_P3_labels_of_numpy_int64():
    """Plain NumPy labels are fine without 64-bit types."""
    labels = np.array([0, 4, -100, 2])
    value = cross_entropy(spread(4, 5), labels, ignore_index=-100)
    assert all_finite(value)
    assert value[2] == 0


@table(
    {
        "plain": cross_entropy,
        "smoothed": partial(cross_entropy, label_smoothing=0.1, z_loss=0.1),
    }
)
def test_P4_no_second_array_of_the_logits_size(loss):
    """Neither a one-hot nor the probabilities are ever stored."""
    rows, classes = 256, 4096
    x = jax.ShapeDtypeStruct((rows, classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    mean = partial(loss, reduction="mean")
    for function in (mean, jax.value_and_grad(mean)):
        compiled = as_users_jit(function).lower(x, labels).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        assert memory.temp_size_in_bytes < rows * classes * 4 / 20


def test_P5_float16_logits_to_the_end_of_their_range():
    """No scale and no epsilon is needed."""
    x = jnp.array([[6e4, -6e4], [-6e4, 6e4]], jnp.float16)
    value, grad = value_and_grad(lambda x: cross_entropy(x, jnp.array([0, 0])), x)
    same(value, [0.0, 2 * float(x[0, 0])])
    same(grad.astype(jnp.float32), [[0.0, 0.0], [-1.0, 1.0]])
    z = jnp.array([6e4, -6e4], jnp.float16)
    labels = jnp.array([0, 1])
    value, grad = value_and_grad(
        lambda z: jxent.sigmoid_binary_cross_entropy(z, labels), z
    )
    same(value, [float(z[0])] * 2)
    same(grad.astype(jnp.float32), [1.0, -1.0])


# Conventions that differ --------------------------------------------------------------


def test_smoothing_gives_the_label_its_share_too():
    """ε/K on every class: 1 − ε + ε/K on the label's."""
    x, labels, e = spread(3, 5), jnp.array([0, 2, 4]), 0.2
    q = (1 - e) * jax.nn.one_hot(labels, 5) + e / 5
    expected = -jnp.sum(q * jax.nn.log_softmax(x), -1)
    same(cross_entropy(x, labels, label_smoothing=e), expected)
    same(cross_entropy(x, jax.nn.one_hot(labels, 5), label_smoothing=e), expected)
    same(jxent.smooth_labels(jax.nn.one_hot(labels, 5), e), q)
    p = jax.nn.softmax(x)
    same(jxent.categorical_cross_entropy(p, labels, label_smoothing=e), expected)


def test_binary_smoothing_goes_towards_one_half():
    """y (1 − ε) + ε/2."""
    z, y = spread(2, 5), np.array([[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]])
    soft = np.float32(0.8) * y.astype(np.float32) + np.float32(0.1)
    for loss in (jxent.sigmoid_binary_cross_entropy, jxent.sigmoid_focal_loss):
        same(loss(z, y, label_smoothing=0.2), loss(z, soft))


def test_pos_weight_is_one_for_each_class():
    """Of the y-term alone, from the last axis, also with as many rows as classes."""
    z, y = spread(5, 5), (spread(5, 5) > 0.4).astype(np.float32)
    log_p, log_q = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    expected = -(W[None] * y * log_p + (1 - y) * log_q)
    same(jxent.sigmoid_binary_cross_entropy(z, y, pos_weight=W), expected)
    p = jax.nn.sigmoid(z)
    same(jxent.binary_cross_entropy(p, y, pos_weight=W), expected, rtol=1e-5)


def test_focal_alpha_weighs_label_1():
    """α for 1, 1 − α for 0; keywords only, so that α and γ cannot be swapped."""
    z, y = spread(4), jnp.array([1, 0, 1, 0])
    plain = jxent.sigmoid_focal_loss(z, y)
    weighted = jxent.sigmoid_focal_loss(z, y, alpha=0.25)
    same(weighted, plain * jnp.where(y == 1, 0.25, 0.75))
    for loss in (jxent.sigmoid_focal_loss, jxent.softmax_focal_loss):
        kinds = inspect.signature(loss).parameters
        for name in {"alpha", "gamma"} & set(kinds):
            assert kinds[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_soft_cap_comes_before_the_temperature():
    """c tanh(z/c), then the division; its slope is in the gradient."""
    x, labels = 3 * spread(3, 5), jnp.array([0, 2, 4])

    def textbook(x):
        return -jnp.take_along_axis(
            jax.nn.log_softmax(jnp.tanh(x) / 0.5), labels[:, None], -1
        )[:, 0]

    got = value_and_grad(
        lambda x: cross_entropy(x, labels, logit_soft_cap=1.0, temperature=0.5), x
    )
    for a, b in zip(got, value_and_grad(textbook, x), strict=True):
        same(a, b, rtol=1e-5, atol=1e-6)


def test_statistics_have_gradients():
    """lse, log-probability and entropy, none of them a silent 0."""
    x, labels = spread(3, 5), jnp.array([0, 2, 4])

    def statistics(x):
        _, s = cross_entropy(x, labels, return_statistics=True)
        return s.lse, s.log_prob, s.entropy

    def textbook(x):
        log_p = jax.nn.log_softmax(x)
        at = log_p[jnp.arange(3), labels]
        return jax.nn.logsumexp(x, -1), at, -jnp.sum(jnp.exp(log_p) * log_p, -1)

    for which in range(3):
        got = value_and_grad(lambda x, i=which: statistics(x)[i], x)
        expected = value_and_grad(lambda x, i=which: textbook(x)[i], x)
        for a, b in zip(got, expected, strict=True):
            same(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_probability_outside_its_range_is_nan(p, label):
    """The label's own logarithm may exist; loss and gradient are NaN all the same."""
    probs, labels = jnp.array([p, 0.5]), jnp.array([label, label])
    loss, slope = jax.value_and_grad(
        lambda probs: jxent.binary_cross_entropy(probs, labels, reduction="sum")
    )(probs)
    assert jnp.isnan(loss)
    assert jnp.isnan(slope[0])
    assert jnp.isfinite(slope[1])
    dropped = jxent.binary_cross_entropy(probs, labels, where=probs == 0.5)
    assert dropped[0] == 0
