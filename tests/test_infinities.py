"""Infinite logits, probabilities of 0 and 1, and numbers that are no probabilities.

Values and derivatives in every mode and to the second order are those of the formula,
or a huge number where the formula's are infinite. None is NaN but where there is no
value. What holds for every loss alike: tests/test_family.py.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from jxent._statistics import block
from jxent._statistics.inputs import Inputs
from jxent._statistics.under_labels import UnderLabels
from tests import oracles
from tests.comparing import same
from tests.compiling import as_users_jit


pytestmark = pytest.mark.each_platform

INF, NAN = np.inf, np.nan
HUGE = 1e18  # float32's huge number is 1.8e19
partial = functools.partial
cross_entropy = jxent.softmax_cross_entropy
f32 = partial(np.asarray, dtype=np.float32)


def value_and_gradient(loss, x):
    """Every row's loss, and the gradient of their sum."""
    value, pull = jax.vjp(loss, x)
    return value, pull(jnp.ones_like(value))[0]


def orders(f, x):
    """Value, gradient and second derivatives, each in reverse and in forward mode."""
    total = lambda x: jnp.sum(f(x))
    gradient = jax.grad(total)
    direction = jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)
    along = lambda x, dx=direction: jax.jvp(total, (x,), (dx,))[1]
    basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    sines = lambda x: jnp.sum(jnp.sin(gradient(x).astype(total(x).dtype)))
    return {
        "value": f(x),
        "reverse": gradient(x),
        "forward": jax.vmap(partial(along, x))(basis).reshape(x.shape),
        "reverse over reverse": jax.grad(sines)(x),
        "forward over reverse": jax.jvp(gradient, (x,), (direction,))[1],
        "reverse over forward": jax.grad(along)(x),
    }


def same_orders(got, wanted, rtol=1e-5, message=""):
    for order, x in wanted.items():
        text = f"{order} {message}"
        assert not np.any(np.isnan(x)), text
        a, b = (np.asarray(y, np.float64) for y in (got[order], x))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6, err_msg=text)


def modes_agree(of_x, rtol=1e-5, message=""):
    forward = {"forward": of_x["forward"]}
    same_orders(forward, {"forward": of_x["reverse"]}, rtol, message)


# Logits of −inf, and far apart --------------------------------------------------------


def test_every_derivative_at_minus_inf():
    """Forward and reverse agree, in logits and labels; the Hessian has no NaN."""
    x, q = np.array([-INF, 0, 1, 0.5], np.float32), np.array([0, 1, 0, 0], np.float32)

    def derivatives(loss):
        forward, backward = (f(loss, (0, 1))(x, q) for f in (jax.jacfwd, jax.jacrev))
        along = jax.jvp(lambda q: loss(x, q), (q,), (f32([0, -1, 1, 0]),))[1]
        return forward, backward, along, jax.hessian(loss)(x, q)

    losses = cross_entropy, jxent.poly_loss_cross_entropy
    run = as_users_jit(lambda: list(map(derivatives, losses)))
    each = jax.device_get(run())
    for forward, backward, _, hessian in each:
        for in_x, in_q in (forward, backward):
            assert in_x[0] == 0
            assert np.isfinite([*in_x, *in_q[1:]]).all()
            assert not np.isnan(in_q[0])
        same(forward, backward, 2e-6, 1e-7)
        assert not np.any(hessian[0])
        assert not np.any(hessian[:, 0])
        assert np.isfinite(hessian).all()
    _, _, along, hessian = each[0]
    p = np.exp(oracles.log_softmax(np.float64(x)))
    same(along, x[1] - x[2], 2e-6)
    same(hessian, np.diag(p) - p[:, None] * p[None], 2e-6, 1e-7)


def test_smoothed_losses_of_logits_further_apart_than_float32_reaches():
    """A one-hot distribution is as good as its id, for each class."""
    row = np.array([3e38, -3e38, 0.0, 1e38, -1e38], np.float32)
    w = np.array([0.5, 2.0, 1.0, 3.0, 0.25], np.float32)
    x, y = np.tile(row, (5, 1)), np.arange(5, dtype=np.int32)
    options = {"class_weights": w, "z_loss": 0.1, "logit_soft_cap": 2.0}
    losses = (
        partial(cross_entropy, label_smoothing=0.1),
        partial(cross_entropy, **options, label_smoothing=0.1, temperature=0.5),
        partial(jxent.softmax_focal_loss, gamma=0.5, label_smoothing=0.1),
        partial(jxent.poly_loss_cross_entropy, class_weights=w),
        partial(jxent.symmetric_cross_entropy, label_smoothing=0.1),
    )

    @as_users_jit
    def run(x, *kinds):
        of = lambda f, y: value_and_gradient(lambda x: f(x, y), x)
        return [[of(loss, y) for y in kinds] for loss in losses]

    for of_ids, of_hot in jax.device_get(run(x, y, np.eye(5, dtype=np.float32))):
        assert not np.isnan(of_ids[0]).any()
        assert np.isfinite([of_ids[1], of_hot[1]]).all()
        for a, b in zip(of_hot, of_ids, strict=True):
            same(a, b, 2e-6, 1e-7)


@pytest.mark.parametrize("form", [block.two_pass, block.one_pass, block.one_pass_gpu])
def test_distributions_of_logits_that_far_apart(form):
    """In the form of every platform."""
    inputs = Inputs(
        (UnderLabels(),),
        z=jnp.tile(jnp.array([[3e38, -3e38, 0.0]]), (2, 1)),
        given=(jnp.array([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]),),
    )
    t = form(1, inputs)
    np.testing.assert_array_equal(t[UnderLabels].sum, f32([-1.5e38, -INF]))


OF_INFINITE = {
    "binary": jxent.sigmoid_binary_cross_entropy,
    "weighted": partial(jxent.sigmoid_binary_cross_entropy, pos_weight=2.0),
    "asymmetric": jxent.asymmetric_loss,
    "fractional": partial(
        jxent.asymmetric_loss, gamma_pos=1.5, gamma_neg=3.5, clip=0.2
    ),
}


@pytest.mark.parametrize("name", OF_INFINITE)
def test_sums_over_infinite_logits_of_a_sigmoid(name):
    """A sum is that of the losses, one by one and under vmap, where some are 0 · ∞.

    So it is where exp(z) is hardly a normal number, or exp(−z) too large.
    """
    loss = OF_INFINITE[name]
    x = [[1, -2, 3], [INF, -INF, 0.5], [-INF, 1, 2], [-88, 87.5, 0], [-89, -103, 2]]
    y = [[1, 0, 1], [1, 0, 1], [1, 1, 0], [1, 0, 1], [1, 0, 1]]
    rows, labels = np.array(x, np.float32), np.array(y, np.float32)

    @as_users_jit
    def run(rows, labels):
        def sums(axis):
            total = lambda row, y: loss(row[None], y[None], axis=axis, reduction="sum")
            one_by_one = [total(rows[i], labels[i]) for i in range(5)]
            return jnp.stack(one_by_one), jax.vmap(total)(rows, labels)

        of_rows = loss(rows, labels, axis=-1)
        return loss(rows, labels), of_rows, (*sums(()), *sums(-1))

    losses, of_rows, each = jax.device_get(run(rows, labels))
    wanted = losses.sum(1)
    assert list(np.isinf(wanted)) == [False, False, True, False, False]
    same(of_rows, wanted, 2e-6)
    for totals in each:
        np.testing.assert_allclose(totals, wanted, rtol=1e-6)


def test_infinite_logits_under_a_constant_weight():
    """0 · ∞ is 0 too where a compiler multiplies a program's constants first."""
    x = np.array([INF, INF, -INF, -INF, 2.0, 2.0], np.float32)
    y = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], np.float32)
    right = math.log1p(math.exp(-2))
    for w in (0.5, 3.0, 1e30):
        loss = partial(jxent.sigmoid_binary_cross_entropy, pos_weight=w)
        wanted = [0, INF, INF, 0, 2 + right, w * right]
        same(as_users_jit(loss)(x, y), wanted, 2e-6)


EXTREMES = np.array([-2e38, -1e4, -100, -20, -1, 0, 1, 20, 100, 1e4, 2e38], np.float32)


def softmax_focal(z, labels, **gamma):
    """Of the first class and two others, and cross-entropy for no gamma."""
    loss = jxent.softmax_focal_loss if gamma else cross_entropy
    return loss(jnp.stack([z, 0 * z, 1 + 0 * z]), labels, **gamma)


def sigmoid_focal(z, label, **gamma):
    loss = jxent.sigmoid_focal_loss if gamma else jxent.sigmoid_binary_cross_entropy
    return loss(z, label, **gamma)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (sigmoid_focal, np.array([0.0, 0.3, 1.0], np.float32)),
        (softmax_focal, np.array([0], np.int32)),
        (softmax_focal, np.array([[0.5, 0.2, 0.3]], np.float32)),
    ],
    ids=["sigmoid", "softmax of ids", "softmax of distributions"],
)
def test_derivatives_of_the_focal_losses(loss, labels):
    """Finite in logits and γ, for every γ and logit; at γ = 0 cross-entropy's."""
    gammas = np.array([0, 0.5, 1, 1.5, 2, 5], np.float32)

    @as_users_jit
    @partial(jax.vmap, in_axes=(None, None, 0))
    @partial(jax.vmap, in_axes=(None, 0, None))
    @partial(jax.vmap, in_axes=(0, None, None))
    def all_of(z, y, gamma):
        focal = lambda z, gamma: loss(z, y, gamma=gamma)
        plain = jax.value_and_grad(loss)(z, y)
        second = jax.grad(jax.grad(focal))(z, gamma)
        return focal(z, gamma), jax.grad(focal, (0, 1))(z, gamma), second, plain

    value, (in_z, in_gamma), second, plain = jax.device_get(
        all_of(EXTREMES, labels, gammas)
    )
    assert np.isfinite([value, in_z, in_gamma, second]).all()
    same(value[0], plain[0][0], 1e-5)
    same(in_z[0], plain[1][0], 1e-5, 1e-7)


# Confident logits ---------------------------------------------------------------------

LOGITS = np.array([-INF, -1e30, -1e4, -100, 0.5, 100, 1e4, 1e30, INF], np.float32)
BINARY = {
    "binary": jxent.sigmoid_binary_cross_entropy,
    "balanced": partial(jxent.sigmoid_binary_cross_entropy, pos_weight=2.0),
    "focal 0": partial(jxent.sigmoid_focal_loss, gamma=0.0),
    "focal 1.5": partial(jxent.sigmoid_focal_loss, gamma=1.5, alpha=0.25),
    "focal 2": jxent.sigmoid_focal_loss,
    "asymmetric": partial(jxent.asymmetric_loss, gamma_pos=1.0),
    "asymmetric 0.5": partial(jxent.asymmetric_loss, gamma_pos=0.5, gamma_neg=0.5),
}


@pytest.mark.parametrize("name", BINARY)
def test_no_derivative_of_a_confident_logit_is_nan(name):
    """In logits and labels, to the second order, whatever is differentiated first."""
    loss = BINARY[name]

    @as_users_jit
    @partial(jax.vmap, in_axes=(None, 0))
    @partial(jax.vmap, in_axes=(0, None))
    def all_of(z, y):
        gradient = jax.grad(loss, (0, 1))
        along = lambda z, y: jax.jvp(loss, (z, y), (0.5, 0.25))[1]
        return (
            gradient(z, y),
            jax.jacrev(gradient, (0, 1))(z, y),
            jax.jvp(gradient, (z, y), (0.5, 0.25)),
            jax.grad(along, (0, 1))(z, y),
        )

    for x in jax.tree.leaves(all_of(LOGITS, f32([0.0, 0.25, 1.0]))):
        assert not np.any(np.isnan(x))


@pytest.mark.parametrize("name", BINARY)
def test_a_hard_label_has_the_derivatives_of_one_that_is_nearly_hard(name, x64):
    """Slopes in the label, too: nothing is special about 0 and 1."""

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    @partial(jax.vmap, in_axes=(0, None))
    def all_of(z, y):
        gradient = jax.grad(BINARY[name], (0, 1))
        second = jax.jacrev(gradient, (0, 1))
        return gradient(z, y), second(z, y), jax.jacfwd(second, (0, 1))(z, y)

    z, y = np.array([-3.0, -0.5, 0.0, 2.0]), np.array([0.0, 1.0, 1e-9, 1 - 1e-9])
    for x in jax.tree.leaves(jax.device_get(all_of(z, y))):
        np.testing.assert_allclose(x[:2], x[2:], rtol=1e-5, atol=1e-6)


# Probabilities ------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 10_000])
def test_a_probability_that_is_none(classes):
    """NaN in one class makes the row NaN, also where XLA sums as it computes."""
    q = np.full((2, classes), 1 / classes, np.float32)
    log_q = np.log(q)
    losses = (
        lambda p: jxent.categorical_cross_entropy(p, q),
        jxent.entropy,
        lambda p: jxent.kl_divergence(log_q, p),
        lambda p: jxent.generalized_kl_divergence(log_q, p),
        jax.vmap(lambda p: jxent.binary_cross_entropy(p, q[0], reduction="mean")),
    )

    @as_users_jit
    def run(p):
        log_p = jnp.log(p)
        values = (
            jxent.kl_divergence(log_p, q),
            jxent.kl_divergence_with_log_targets(log_p, log_q),
            jxent.kl_divergence_with_log_targets(log_q, log_p),
        )
        return values, [value_and_gradient(loss, p) for loss in losses]

    for bad in (NAN, -0.5):
        p = q.copy()
        p[0, 1] = bad
        values, each = jax.device_get(run(p))
        for value in values:
            np.testing.assert_array_equal(np.isnan(value), [True, False])
        for value, gradient in each:
            np.testing.assert_array_equal(np.isnan(value), [True, False])
            assert np.isnan(gradient[0, 1])
            assert np.isfinite([value[1], *gradient[1]]).all()


def test_probabilities_outside_of_their_domain():
    """NaN outside of [0, 1], though the label's own logarithm may exist, and so is the
    slope there; p = 0 for what happened is +inf, not 100. A dropped one is 0."""
    p = np.array([-0.1, 1.1, -0.1, 1.1, 1.5, -0.5, 0.0, 1.0, 0.5], np.float32)
    y = np.array([0, 0, 1, 1, 0, 1, 1, 0, 1], np.int32)
    rows, ids = np.array([[-0.5, 1.5], [0.0, 1.0]], np.float32), np.zeros(2, np.int32)

    @jax.jit
    def run(p, where):
        binary = lambda p: jxent.binary_cross_entropy(p, y, where=where)
        categorical = jxent.categorical_cross_entropy(rows, ids)
        return value_and_gradient(binary, p), categorical, jxent.entropy(rows[0])

    (value, slope), categorical, entropy = jax.device_get(run(p, p == p))
    none, at_an_end = np.arange(9) < 6, np.arange(6, 8)
    np.testing.assert_array_equal(np.isnan(value), none)
    np.testing.assert_array_equal(np.isnan(slope), none)
    assert np.isfinite(slope[8])
    assert np.all(value[at_an_end] == INF)
    np.testing.assert_array_equal(categorical, [NAN, INF])
    assert np.isnan(entropy)
    (dropped, slope), *_ = jax.device_get(run(p, p == 0.5))
    assert not np.any(dropped[:8])
    assert not np.any(slope[:8])


def test_no_epsilon_and_no_clip():
    """At p = 1e-30 the loss is 69.08 and the slope −1e30: nothing is cut off.

    0 log 0 is 0. An epsilon would vanish in float16, and 1 − p be 0 in bfloat16.
    """
    binary = lambda y: lambda p: jxent.binary_cross_entropy(p, y)
    categorical = lambda y: lambda p: jxent.categorical_cross_entropy(p, y)
    f16, i32 = (partial(np.asarray, dtype=x) for x in (np.float16, np.int32))
    tiny, at_0 = 1e-30, f32([0.0, 0.5, 0.5])
    smallest = float(np.float16(6e-8))
    calls = {
        "yes": (binary(i32([1])), f32([tiny]), [69.0776], [-1e30]),
        "no": (binary(i32([0])), f32([tiny]), [tiny], [1]),
        "no at 0": (binary(f32([0])), f32([0]), [0], [1]),
        "id": (categorical(i32([0])), f32([[tiny, 1 - 1e-6]]), [69.0776], [[-1e30, 0]]),
        "shares": (categorical(f32([0, 1, 0])), at_0, math.log(2), [0, -2, 0]),
        "float16": (
            binary(i32([1, 1, 0])),
            f16([smallest, 1, 0]),
            [-math.log(smallest), 0, 0],
            None,
        ),
        "bfloat16": (
            categorical(f32([[1, 0]])),
            np.array([[1, 0]], jnp.bfloat16),
            [0],
            [[-1, 0]],
        ),
    }
    run = as_users_jit(
        lambda given: {k: value_and_gradient(calls[k][0], x) for k, x in given.items()}
    )
    results = jax.device_get(run({name: call[1] for name, call in calls.items()}))
    for name, (got, slope) in results.items():
        _, _, value, wanted = calls[name]
        np.testing.assert_allclose(got, value, 2e-6, 0, err_msg=name)
        assert not np.isnan(slope).any(), name
        if wanted is not None:
            np.testing.assert_allclose(np.float32(slope), wanted, 2e-6, err_msg=name)


def test_a_softmax_or_sigmoid_before_the_loss():
    """Probabilities as logits stay above a floor, log(e + K − 1) − 1.

    On logits a perfect model gets to 0. A log-softmax changes nothing.
    """
    x = np.random.default_rng(0).uniform(0.4, 7, (4, 5)).astype(np.float32)
    y, yes = np.array([0, 1], np.int32), np.array([1, 0], np.int32)
    floors, z = {2: 0.313, 4: 0.744, 10: 1.461, 100: 3.622}, f32([1e4, -1e4])
    binary = jxent.sigmoid_binary_cross_entropy

    @jax.jit
    def run(x, z):
        logits = [1e4 * jnp.eye(classes)[:2] for classes in floors]
        probs, p = [jax.nn.softmax(x) for x in logits], jax.nn.sigmoid(z)
        perfect = [cross_entropy(x, y) for x in logits], binary(z, yes)
        of_p = [jxent.categorical_cross_entropy(p, y) for p in probs]
        of_p += [jxent.binary_cross_entropy(p, yes)]
        twice = [cross_entropy(p, y) for p in probs], binary(p, yes)
        log_p = jax.nn.log_softmax(x)
        ids = np.arange(4)
        return (
            (perfect, of_p),
            twice,
            (cross_entropy(log_p, ids), cross_entropy(x, ids)),
        )

    exact, (twice, of_sigmoid), (of_log_p, of_logits) = jax.device_get(run(x, z))
    assert not any(np.any(x) for x in jax.tree.leaves(exact))
    for (classes, floor), losses in zip(floors.items(), twice, strict=True):
        same(losses, np.full(2, math.log(math.e + classes - 1) - 1), 1e-5)
        same(losses, np.full(2, floor), 0, 5e-4)
    same(of_sigmoid, [0.3133, 0.6931], 0, 5e-5)
    same(of_log_p, of_logits, 2e-6)


# Class ids and one-hot labels at p = 0 ------------------------------------------------

PROBS = np.array(
    [[0, 0.5, 0.5], [0.25, 0.75, 0], [1, 0, 0], [0, 0, 1], [0.25, 0.25, 0.5]]
)
IDS = np.array([0, 1, 0, 1, 2])
ONE_HOT = np.eye(3, dtype=np.float32)[IDS]
W = np.array([0.5, 2.0, 0.0], np.float32)
WHERE = np.array([True, True, True, False, True])
# What changes nothing: one program takes all options as arrays.
NEUTRAL = {
    "class_weights": np.ones(3, np.float32),
    "label_smoothing": np.float32(0),
    "class_mask": np.ones(3, bool),
    "weights": np.ones(5, np.float32),
    "where": np.ones(5, bool),
}
OPTIONS = {
    "plain": {},
    "class weights": {"class_weights": W},
    "smoothing": {"label_smoothing": np.float32(0.1)},
    "class weights, smoothing": {
        "class_weights": W,
        "label_smoothing": np.float32(0.1),
    },
    "smoothing of 1": {"label_smoothing": np.float32(1)},
    "class mask": {"class_mask": np.array([True, True, False])},
    "weights": {"weights": np.array([1.5, 0, 2, 0, 1], np.float32)},
    "where": {"where": WHERE},
    "where, smoothing": {"where": WHERE, "label_smoothing": np.float32(0.1)},
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_ids_and_one_hot_labels_agree_where_p_is_0(dtype):
    """In every derivative; the label's slope is huge, those of the others are 0."""
    p, rtol = PROBS.astype(dtype), 1e-5 if dtype == jnp.float32 else 2e-2

    @as_users_jit
    def both(options, p, *kinds):
        loss = partial(jxent.categorical_cross_entropy, **options)
        return [orders(lambda p, y=y: loss(p, y), p) for y in kinds]

    for name, options in OPTIONS.items():
        ids = np.minimum(IDS, 1) if "class_mask" in options else IDS
        given = NEUTRAL | options if options else {}
        one_hot = np.eye(3, dtype=np.float32)[ids]
        of_ids, of_one_hot = jax.device_get(both(given, p, ids, one_hot))
        same_orders(of_ids, of_one_hot, rtol, name)
        modes_agree(of_ids, rtol, name)
        if not options:
            value, slope = (f32(of_ids[k]) for k in ("value", "reverse"))
            assert value[0] == value[3] == INF
            assert slope[0, 0] < -HUGE
            assert np.all(slope[ONE_HOT == 0] == 0)


def test_ignored_rows_and_reductions_where_p_is_0():
    """As one-hot labels with a where; Keras's too, which normalize and have a floor."""
    labels = np.where(WHERE, IDS, -100)
    sparse = jxent.keras.sparse_categorical_crossentropy
    dense = jxent.keras.categorical_crossentropy

    @as_users_jit
    def run(p):
        pairs = []
        for name in ("sum", "mean"):
            loss = partial(jxent.categorical_cross_entropy, reduction=name)
            pairs += [
                orders(lambda p, f=loss: f(p, labels, ignore_index=-100), p),
                orders(lambda p, f=loss: f(p, ONE_HOT, where=WHERE), p),
            ]
        for x, from_logits in ((p, False), (jnp.log(p + 1e-3), True)):
            pairs += [
                orders(lambda x, f=from_logits: sparse(IDS, x, f), x),
                orders(lambda x, f=from_logits: dense(ONE_HOT, x, f), x),
            ]
        return pairs

    each = jax.device_get(run(np.float32(PROBS)))
    for got, wanted in zip(each[::2], each[1::2], strict=True):
        same_orders(got, wanted)


def test_a_softmax_that_underflows_before_the_loss():
    """What is huge meets what is 0 in the softmax: a gradient of 0, not NaN."""

    @as_users_jit
    def both(z):
        loss = lambda y, z: jxent.categorical_cross_entropy(jax.nn.softmax(z), y)
        kinds = np.array([0]), np.array([[1.0, 0.0, 0.0]], np.float32)
        return [orders(partial(loss, labels), z) for labels in kinds]

    for got in both(np.array([[-200.0, 0.0, 1.0]], np.float32)):
        assert got["value"] == INF
        assert np.isfinite([got["reverse"], got["forward"]]).all()


def test_the_generalized_loss_where_p_is_0():
    """Every derivative, in q as well, is a number; other classes have a slope of 0."""
    x, y = np.array([[0, 1], [0.25, 0.75]], np.float32), np.array([0, 1])

    def loss(x, q):
        return jxent.keras.categorical_generalized_cross_entropy(y, x, q)

    @as_users_jit
    def derivatives(x, q):
        gradient = jax.grad(lambda x, q: jnp.sum(loss(x, q)), (0, 1))
        second = [f(gradient, (0, 1))(x, q) for f in (jax.jacrev, jax.jacfwd)]
        return orders(lambda x: loss(x, q), x), second

    for q in f32([0.3, 0.7, 1.0, 1.5, 2.0]):
        of_x, second = jax.device_get(derivatives(x, q))
        modes_agree(of_x)
        assert not np.any(of_x["reverse"][[0, 1], 1 - y])
        for a, b in zip(*map(jax.tree.leaves, second), strict=True):
            assert np.all(np.isfinite(a))
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_probabilities_of_0_and_1():
    """Labels that they contradict, and labels that they confirm; an entropy's."""
    keras = jxent.keras
    losses = {
        "binary": jxent.binary_cross_entropy,
        "torch": partial(jxent.torch.binary_cross_entropy, reduction="none"),
        "keras": lambda p, y: keras.binary_crossentropy(y[:, None], p[:, None]),
        "focal": lambda p, y: keras.binary_focal_crossentropy(y[:, None], p[:, None]),
    }
    p, y = f32([0, 0, 1, 1, 0.25]), f32([0, 1, 0, 1, 0.5])

    @as_users_jit
    def run(p, rows):
        of_labels = {k: orders(lambda p, f=f: f(p, y), p) for k, f in losses.items()}
        return of_labels, orders(jxent.entropy, rows)

    of_labels, entropy = jax.device_get(run(p, np.float32(PROBS)))
    for got in (*of_labels.values(), entropy):
        assert not any(np.any(np.isnan(x)) for x in got.values())
        np.testing.assert_allclose(got["forward"], got["reverse"], rtol=1e-6)
    for got in of_labels.values():
        # Keras's floor of 1e-7 is a float32's.
        assert np.all(np.abs(got["value"][[0, 3]]) < 1e-6)
        assert np.all(got["value"][[1, 2]] > 10)
    np.testing.assert_allclose(entropy["value"], oracles.entropy(PROBS), rtol=1e-6)
    some, slope = PROBS > 0, entropy["reverse"]
    np.testing.assert_allclose(slope[some], -1 - np.log(PROBS[some]), 1e-6, 1e-6)
    assert np.all((slope[~some] > HUGE) & (slope[~some] < INF))


def test_targets_of_0():
    """They count 0 in values and all derivatives, also where log q is −inf."""
    log_q, t = f32([-math.log(2), -math.log(2), -INF]), f32([1, 0, 0])
    losses = {
        jxent.kl_divergence: (t, [-1, 0, 0], math.log(2) + 1),
        jxent.generalized_kl_divergence: (t, [-0.5, 0.5, 0], math.log(2)),
        jxent.kl_divergence_with_log_targets: (
            f32([0, -INF, -INF]),
            [-1, 0, 0],
            [math.log(2) + 1, 0, 0],
        ),
    }
    modes = jax.jacfwd, jax.jacrev

    @as_users_jit
    def run():
        given = [(f, (log_q, t)) for f, (t, *_) in losses.items()]
        return [(f(*x), [mode(f, (0, 1))(*x) for mode in modes]) for f, x in given]

    for (value, slopes), (_, wanted, in_first) in zip(
        jax.device_get(run()), losses.values(), strict=True
    ):
        same(value, math.log(2), 2e-6)
        for in_q, in_t in slopes:
            same(in_q, wanted, 2e-6, 1e-7)
            assert np.isfinite(in_t).all()
            same(in_t[: np.size(in_first)], in_first, 1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        partial(jxent.sigmoid_focal_loss, axis=-1, alpha=0.3),
        partial(jxent.asymmetric_loss, axis=-1),
        partial(cross_entropy, label_smoothing=0.1),
    ],
    ids=["sigmoid_focal_loss", "asymmetric_loss", "softmax_cross_entropy"],
)
def test_a_row_that_where_drops_may_have_any_finite_numbers(loss):
    """Its statistics are finite then, where the temperature is infinite; but nothing
    that multiplies a cotangent of 0 must be."""
    z = f32([[1, 2, 3], [1e38, -2e38, 3e38]])
    labels = f32([[0, 1, 0], [1e38, 3e38, 0]])
    where, weights = np.array([True, False]), f32([1, 2])

    @as_users_jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def run(z, weights, temperature):
        rows = {"where": where, "weights": weights, "reduction": "sum"}
        return loss(z, labels, temperature=temperature, **rows)

    value, gradients = jax.device_get(run(z, weights, f32([2, 1])))
    assert np.isfinite(value)
    for none in (INF, -INF, 1e-38, 3e38):
        again, slopes = jax.device_get(run(z, weights, f32([2, none])))
        assert again == value
        for x, wanted in zip(slopes, gradients, strict=True):
            np.testing.assert_array_equal(x[1], 0)
            np.testing.assert_allclose(x[0], wanted[0], rtol=1e-6)
