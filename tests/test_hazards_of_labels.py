"""What goes wrong around cross-entropy elsewhere: labels.

One test a hazard; each says what this library does instead.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jxent
from jxent._problem import bad_labels
from tests.compiling import as_users_jit
from tests.hazards import (
    ELEMENTWISE,
    INF,
    NAN,
    OF_DISTRIBUTIONS,
    OF_IDS,
    all_finite,
    cross_entropy,
    options_of,
    partial,
    same,
    some,
    spread,
    table,
    value_and_grad,
    values_and_grads,
)
from tests.heads import of_layout


def at_sparse_ids(loss):
    """The loss of ids as that of lists of one label each."""
    return lambda x, y: loss(x, jxent.SparseLabels(np.expand_dims(y, -1)))


def at_ids(x, y):
    return jxent.softmax_log_prob_at(x, np.expand_dims(y, -1))


OF_WIDE_IDS = {
    **OF_IDS,
    "several": at_sparse_ids(cross_entropy),
    "several focal": at_sparse_ids(jxent.softmax_focal_loss),
    "log prob at": at_ids,
    "torch": partial(jxent.torch.cross_entropy, reduction="none"),
    "torch of log p": partial(jxent.torch.nll_loss, reduction="none"),
    "keras": lambda x, y: jxent.keras.sparse_categorical_crossentropy(y, x),
    "keras class": lambda x, y: jxent.keras.SparseCategoricalCrossentropy(
        reduction="none", ignore_class=2**32
    )(y, x),
}


@table(OF_WIDE_IDS)
def test_an_id_of_64_bits_is_never_wrapped(loss):
    """2³² is not class 0: NaN in its row, from NumPy and from a list."""
    x = spread(5, 5)
    ids = np.array([2, 2**32, -(2**32) + 1, 2**31 + 3, 4])
    for labels in (ids, ids.tolist(), ids.astype(np.uint64)):
        value = np.asarray(loss(x, labels)).reshape(5)
        assert np.isnan(value).tolist() == [False, True, True, True, False]
    fits = np.where(np.isnan(value), 0, ids)
    wanted = np.asarray(loss(x, fits.astype(np.int32))).reshape(5)
    np.testing.assert_array_equal(np.asarray(loss(x, fits)).reshape(5), wanted)


def test_metrics_and_totals_of_an_id_of_64_bits():
    """NaN too, and a class that is as good as any where k is larger than int32."""
    x, ids = spread(2, 5), np.array([2**32, 1])
    for metric in (
        jxent.metrics.accuracy,
        jxent.metrics.top_k_accuracy,
        jxent.metrics.perplexity,
        jxent.metrics.brier_score,
        jxent.metrics.calibration_error,
    ):
        assert np.isnan(metric(x, ids))
    assert np.isnan(jxent.metrics.accuracy(x[0, :2], ids, axis=()))
    assert np.isnan(jxent.fit_temperature(x, ids))
    assert jxent.metrics.top_k_accuracy(x, ids % 5, k=np.int64(2**32)) == 1
    with pytest.raises(ValueError, match="cannot occur among labels of dtype int32"):
        cross_entropy(x, ids, ignore_index=np.array(2**32))


def test_an_id_of_64_bits_is_reported():
    def loss(x):
        return cross_entropy(x, np.array([0, 2**32]))

    error, _ = checkify.checkify(loss, errors=checkify.user_checks)(spread(2, 5))
    with pytest.raises(checkify.JaxRuntimeError, match=r"expected labels in \[0, 5\)"):
        error.throw()


def test_64_bits_hold_what_32_do_not(x64):
    """No integer is refused that JAX holds."""
    segments = np.array([2**32, 2**32, 0])
    same(jxent.sequence_weights(segment_ids=segments), np.array([0.5, 0.5, 1]))
    weights = jxent.class_weights_of_counts(np.array([3_000_000_000, 1_000_000_000]))
    same(weights, np.array([2 / 3, 2]))


def of_head(loss, layout):
    """The loss of rows of logits as that of a head whose kernel is the identity."""
    of_rows = {"reduction": "sum"} if layout == "tiled" else {}

    def of_logits(x, labels, **options):
        head = of_layout(layout, (2, 3))(x, jnp.eye(x.shape[-1]))
        return loss(head, labels, **(of_rows | options))

    return of_logits


OF_ROWS = {
    "binary of rows": partial(jxent.sigmoid_binary_cross_entropy, axis=-1),
    "ZLPR": partial(jxent.zlpr_loss),
}
OF_BINARY_LABELS = {
    **ELEMENTWISE,
    **OF_ROWS,
    **{
        f"{name} {layout}": of_head(loss, layout)
        for name, loss in OF_ROWS.items()
        for layout in ("streamed", "tiled")
    },
}


@table(OF_BINARY_LABELS)
def test_integers_that_are_no_binary_labels(loss):
    """NaN in their own element or row, and reported; ignore_index marks missing ones,
    which add nothing to a row, and count in no mean of elements."""
    by_element = loss in ELEMENTWISE.values()
    x = spread(4, 5 if by_element else 6)
    y = np.arange(x.size, dtype=np.int32).reshape(x.shape) % 3 % 2
    missing = np.zeros(x.shape, bool)
    missing[[0, 0, 2], [1, 4, 0]] = True
    y, marked = np.where(missing, 0, y), np.where(missing, -100, y)

    def results(x, labels, few_labels):
        def ignoring(x, **options):
            return loss(x, few_labels, ignore_index=-100, **options)

        of_all, pull_all = jax.vjp(lambda x: loss(x, labels), x)
        of_few, pull_few = jax.vjp(ignoring, x)
        (in_all,) = pull_all(jnp.ones_like(of_all))
        (in_few,) = pull_few(jnp.ones_like(of_few))
        mean = ignoring(x, reduction="mean")
        return (of_all, in_all), (of_few, in_few), mean

    run = jax.jit(checkify.checkify(results))

    # No logit of a missing label matters: such a low one makes the loss of a no 0.
    low = 0 if loss is ELEMENTWISE["probabilities"] else -1e4
    error, (wanted, few, mean) = run(np.where(missing, np.float32(low), x), y, marked)
    assert error.get() is None
    if by_element:
        wanted = [np.where(missing, 0, of) for of in wanted]
    same(few[0], wanted[0])
    same(few[1], np.where(missing, 0, wanted[1]))
    weight = np.sum(options_of(loss).get("class_weights", 1) * ~missing)
    same(mean, np.sum(wanted[0]) / (weight if by_element else len(x)))
    error, (_, again, _) = run(x, y, marked)
    assert error.get() is None
    same(again[0], few[0])
    same(again[1], few[1])

    bad, only_bad = y.copy(), y.copy()
    bad[1, 2] = only_bad[1, 2] = 2
    bad[3, 3] = -100
    error, (all_of, few, mean) = run(x, bad, bad)
    assert bad_label(-100, 2) in (error.get() or "")
    assert np.isnan(mean)
    for (value, gradient), is_bad in ((all_of, bad != y), (few, only_bad != y)):
        rows = is_bad if by_element else is_bad.any(-1)
        np.testing.assert_array_equal(np.isnan(value), rows if value.ndim else True)
        where = is_bad if by_element else np.broadcast_to(rows[:, None], x.shape)
        np.testing.assert_array_equal(np.isnan(gradient), where)
    for labels in ((only_bad, y), (y, only_bad)):
        assert bad_label(2, 2) in (run(x, *labels)[0].get() or "")


@table({k: OF_BINARY_LABELS[k] for k in ("binary", "asymmetric", "binary of rows")})
def test_floating_binary_labels_are_numbers(loss):
    """2.0 and −100.0 enter the formula, which is linear in them."""
    x = spread(2, 5)

    @jax.jit
    def at(y):
        value, pull = jax.vjp(lambda x: loss(x, jnp.full_like(x, y)), x)
        return value, pull(jnp.ones_like(value))[0]

    no, yes = at(0.0), at(1.0)
    for y in (2.0, -100.0):
        for got, a, b in zip(at(y), no, yes, strict=True):
            same(got, (1 - y) * a + y * b, rtol=1e-5)


@table(OF_DISTRIBUTIONS)
def test_ids_and_one_hot_labels_agree(loss):
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
def test_a_row_without_mass(loss):
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
def test_checkify_names_a_bad_label(loss):
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
def test_checkify_names_a_bad_label_of_any_axis(axes):
    """Under vmap the labels' new axis may be any; none is needed for the logits."""
    x = spread(3, 5) if axes[0] is None else jnp.stack([spread(3, 5)] * 2, axes[0])
    labels = jnp.array([[0, 1, 2], [3, 4, 0]])
    labels = labels if axes[1] == 0 else labels.T
    mapped = jax.vmap(partial(cross_entropy, ignore_index=-100), axes)
    message = partial(checked(jax.value_and_grad(lambda x, y: mapped(x, y).sum())), x)
    assert message(labels) is None
    for label in (7, -1):
        assert bad_label(label) in (message(labels.at[1, 1].set(label)) or "")


@pytest.mark.every_value
@pytest.mark.parametrize("axis", [(), -1], ids=str)
def test_checkify_is_silent_about_a_binary_label_of_weight_0(axis):
    loss = partial(jxent.sigmoid_binary_cross_entropy, axis=axis, reduction="sum")
    labels = np.zeros((4, 5), np.int32)
    labels[1, 2] = 7
    weights = np.ones((4, 5) if axis == () else 4, np.float32)
    message = checked(lambda weights: loss(spread(4, 5), labels, weights=weights))
    assert bad_label(7, 2) in (message(weights) or "")
    weights[1] = 0
    assert message(weights) is None


@pytest.mark.parametrize("axis", [(), -1], ids=str)
@pytest.mark.parametrize(
    "loss", [jxent.sigmoid_binary_cross_entropy, jxent.asymmetric_loss]
)
def test_checkify_of_sums_of_binary_losses(loss, axis):
    """Under vmap a bad label is named; an infinite logit that is right is no NaN."""
    total = jax.value_and_grad(partial(loss, axis=axis, reduction="sum"))
    x, labels = jnp.stack([spread(3, 5)] * 2), jnp.zeros((2, 3, 5), jnp.int32)
    message = partial(checked(jax.vmap(total)), x)
    assert message(labels) is None
    assert bad_label(7, 2) in (message(labels.at[1, 2, 3].set(7)) or "")
    for_nan = checkify.checkify(jax.jit(total), errors=checkify.nan_checks)
    assert for_nan(x[0].at[1, 1].set(-jnp.inf), labels[0])[0].get() is None


def test_checkify_names_a_bad_label_of_a_gradient_alone():
    """A step whose gradient goes on, and whose loss is not kept."""

    def penalty(x, labels):
        loss = lambda x: cross_entropy(x, labels).sum()
        return jnp.sum(jax.jit(jax.grad(loss))(x) ** 2)

    message = partial(checked(jax.grad(penalty)), spread(3, 5))
    assert message(jnp.array([0, 1, 4])) is None
    assert bad_label(9) in (message(jnp.array([0, 9, 4])) or "")


def test_checkify_names_a_bad_label_of_a_total():
    """As the loss does: not in rows that are dropped, and for several ids a row too."""
    ids = jnp.array([0, 9, 4])
    drops = {"where": jnp.array([True, False, True])}, {"weights": jnp.array([1, 0, 2])}
    total = partial(jxent.total_weight, class_weights=jnp.ones(5))
    for labels in (ids, jxent.SparseLabels(ids[:, None])):
        message = lambda labels=labels, **options: checked(
            lambda: total(labels, **options)
        )()
        assert bad_label(9) in (message() or "")
        assert bad_label(9) in (message(ignore_index=-1) or "")
        assert message(ignore_index=9) is None
        for drop in drops:
            assert message(**drop) is None


def test_checkify_names_a_negative_label_of_a_total():
    """Without class weights, which say how many classes there are, it is bad too."""
    message = checked(lambda ids: jxent.total_weight(ids, ignore_index=-100))
    assert bad_label(-1, 2**31 - 1) in (message(jnp.array([0, -1, -100])) or "")
    assert message(jnp.array([0, 9, -100])) is None


def test_checkify_names_a_bad_label_outside_of_jit():
    """In a program that runs operation by operation, where values are at hand."""
    with jax.disable_jit():
        error, _ = checkify.checkify(cross_entropy)(spread(3, 5), jnp.array([0, 9, 4]))
    assert bad_label(9) in (error.get() or "")


def test_checkify_names_a_bad_label_without_private_help(monkeypatch):
    """A JAX whose private table of checks is gone: a debug_check names the label."""
    monkeypatch.setattr(bad_labels, "error_checks", None)
    x = spread(7, 6)  # a shape that no other test has traced
    labels = jnp.array([0, 1, 2, 6, 4, 5, 0])
    assert bad_label(6, 6) in (checked(cross_entropy)(x, labels) or "")
    assert jax.make_jaxpr(cross_entropy)(x, labels).effects


def test_checkify_is_silent_about_bad_logits():
    """The sentence is about labels; a NaN logit, or a row of −inf, is none."""
    x = jnp.array([[NAN, 0.0], [-INF, -INF], [INF, 0.0]])
    assert checked(cross_entropy)(x, jnp.array([0, 1, 1])) is None


@pytest.mark.every_value
@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.float32, jnp.bfloat16])
def test_ids_that_are_not_integers(dtype):
    """An error at trace time that says what to do."""
    with pytest.raises(TypeError, match=r"labels\.astype\(jnp\.int32\)"):
        cross_entropy(spread(3, 5), jnp.zeros(3, dtype))


@some("plain", "smoothed", "log prob")
def test_ids_are_never_floats(loss):
    """bfloat16 holds no 257 and no 999: neighbours must not be taken for them."""
    labels = jnp.array([257, 999, 513])
    x = jnp.full((3, 1000), 0.25, jnp.bfloat16)
    best = x.at[jnp.arange(3), labels].set(0.75)
    value, grad = value_and_grad(lambda x: loss(x, labels), best)
    same(value, jnp.full(3, value[0]), rtol=1e-6)
    largest = jnp.argmax(jnp.abs(grad.astype(jnp.float32)), axis=-1)
    assert jnp.all(largest == labels)


def test_void_labels_of_uint8():
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


@pytest.mark.every_value
@table({"softmax": cross_entropy, "log prob": jxent.softmax_log_prob})
def test_labels_with_an_axis_of_size_1(loss):
    """An error that names both shapes and the fix."""
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(4, 1\).*labels\.squeeze\(1\)"):
        loss(spread(4, 5), jnp.zeros((4, 1), jnp.int32))


@pytest.mark.every_value
@pytest.mark.parametrize(
    ("loss", "x", "labels"),
    [
        (jxent.sigmoid_binary_cross_entropy, (4, 1), (4,)),
        (jxent.sigmoid_binary_cross_entropy, (4,), (4, 1)),
        (jxent.sigmoid_binary_cross_entropy, (4, 5), (5,)),
        (jxent.sigmoid_focal_loss, (4, 5), (4, 1)),
        (jxent.asymmetric_loss, (4, 5), (5,)),
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
def test_labels_never_broadcast(loss, x, labels):
    """(N, 1) against (N,) is no (N, N) loss but an error, also where JAX allows it."""
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match="expected"):
        loss(spread(*x), jnp.zeros(labels, jnp.float32))


@some("plain", "smoothed", "focal", "poly")
def test_labels_that_do_not_sum_to_1(loss):
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


def test_the_shift_happens_once():
    """next_token_labels shifts, losses do not, and no label crosses documents."""
    tokens = jnp.array([[3, 1, 4, 1, 0, 2]])
    documents = jnp.array([[0, 0, 0, 1, 1, 1]])
    labels = jxent.next_token_labels(tokens, segment_ids=documents)
    assert labels.tolist() == [[1, 4, -100, 0, 2, -100]]
    assert jxent.next_token_labels(tokens).tolist() == [[1, 4, 1, 0, 2, -100]]
    sure = 50 * jax.nn.one_hot(jnp.maximum(labels, 0), 5)
    same(cross_entropy(sure, labels, ignore_index=-100), jnp.zeros((1, 6)))


def test_padding_is_never_a_label():
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


def test_the_rank_tells_ids_from_distributions():
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


def test_arrays_of_jax_stay_where_they_are(monkeypatch):
    """A call looks into NumPy's arrays alone: it neither waits for others nor fetches
    them from their device."""
    ids, x = jnp.array([0, 2]), jnp.asarray(spread(2, 5))
    looked_at, asarray = [], np.asarray

    def spy(x, *args, **options):
        looked_at.append(x)
        return asarray(x, *args, **options)

    monkeypatch.setattr(np, "asarray", spy)
    for labels in (ids, jax.nn.softmax(x), jxent.SparseLabels(ids[:, None])):
        cross_entropy(x, labels, weights=ids, class_weights=x[0])
    jxent.sigmoid_binary_cross_entropy(x, jnp.zeros((2, 5), int), ignore_index=-1)
    jxent.class_weights_of_counts(ids)
    monkeypatch.undo()
    assert not any(isinstance(x, jax.Array) for x in looked_at)
