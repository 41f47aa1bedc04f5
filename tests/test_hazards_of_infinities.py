"""What goes wrong around cross-entropy elsewhere: infinities, masks and NaN.

One test a hazard; each says what this library does instead.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from jxent._statistics import block
from jxent._statistics.inputs import Inputs
from jxent._statistics.under_labels import UnderLabels
from tests import oracles
from tests.compiling import as_users_jit
from tests.hazards import (
    INF,
    NAN,
    OF_DISTRIBUTIONS,
    W,
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
    with_kinds,
)


pytestmark = pytest.mark.each_platform

MINUS_INF = np.array([[-INF, 0, 0]], np.float32)


def test_the_labels_own_logit_is_minus_inf():
    """+inf, with a finite gradient."""
    for labels in (jnp.array([0]), jnp.array([[1.0, 0.0, 0.0]])):
        value, grad = value_and_grad(lambda x, y=labels: cross_entropy(x, y), MINUS_INF)
        assert value[0] == INF
        same(grad, [[-1.0, 0.5, 0.5]])


def test_probabilities_of_0():
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


@pytest.mark.parametrize("classes", [2, 10_000])
@pytest.mark.parametrize("bad", [NAN, -0.5])
def test_a_probability_that_is_none(bad, classes):
    """NaN in one class makes the row NaN, also where XLA sums as it computes."""
    p = jnp.full((2, classes), 1 / classes).at[0, 1].set(bad)
    q = jnp.full((2, classes), 1 / classes)
    for loss in (
        lambda p: jxent.categorical_cross_entropy(p, q),
        jxent.entropy,
        lambda p: jxent.kl_divergence(jnp.log(q), p),
        lambda p: jxent.generalized_kl_divergence(jnp.log(q), p),
        jax.vmap(lambda p: jxent.binary_cross_entropy(p, q[0], reduction="mean")),
    ):
        value, grad = value_and_grad(loss, p)
        assert np.isnan(value[0])
        assert np.isnan(grad[0, 1])
        assert np.all(np.isfinite(value[1]))
        assert np.all(np.isfinite(grad[1]))
    log_p, log_q = jnp.log(p), jnp.log(q)
    for value in (
        jxent.kl_divergence(log_p, q),
        jxent.kl_divergence_with_log_targets(log_p, log_q),
        jxent.kl_divergence_with_log_targets(log_q, log_p),
    ):
        np.testing.assert_array_equal(np.isnan(value), [True, False])


@pytest.mark.parametrize(
    "loss",
    [cross_entropy, jxent.safe_softmax_cross_entropy, jxent.poly_loss_cross_entropy],
    ids=["plain", "safe", "poly"],
)
def test_every_derivative_at_minus_inf(loss):
    """Forward and reverse agree, in logits and labels; the Hessian has no NaN."""
    x, q = np.array([-INF, 0, 1, 0.5], np.float32), np.array([0, 1, 0, 0], np.float32)

    @as_users_jit
    def derivatives(x, q):
        forward = jax.jacfwd(loss, (0, 1))(x, q)
        backward = jax.jacrev(loss, (0, 1))(x, q)
        along = jax.jvp(lambda q: loss(x, q), (q,), (jnp.array([0.0, -1, 1, 0]),))[1]
        return forward, backward, along, jax.hessian(loss)(x, q)

    forward, backward, along, hessian = jax.tree.map(np.asarray, derivatives(x, q))
    p = np.exp(oracles.log_softmax(np.float64(x)))
    for in_x, in_q in (forward, backward):
        assert in_x[0] == 0
        assert all_finite(in_x, in_q[1:])
        assert not np.isnan(in_q[0])
    same(forward[0], backward[0])
    same(forward[1], backward[1])
    assert np.all(hessian[0] == 0)
    assert np.all(hessian[:, 0] == 0)
    assert all_finite(hessian)
    if loss is not jxent.poly_loss_cross_entropy:
        same(along, x[1] - x[2])
        same(hessian, np.diag(p) - p[:, None] * p[None])


@some("smoothed", "all options", "focal")
def test_smoothing_with_an_impossible_class(loss):
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
    kinds = labels, np.eye(5, dtype=np.float32)[labels]
    each = [lambda x, y=y: loss(x, y, class_mask=mask) for y in kinds]
    for y, (value, grad) in zip(kinds, values_and_grads(each, x, x), strict=True):
        same(value, expected, rtol=1e-5)
        assert all_finite(grad)
        assert np.all(grad[:, 3] == 0)
        same(loss(x, y, where=np.tile(mask, (3, 1))), expected, rtol=1e-5)


LOGITS = spread(4, 5)
HOT = np.exp(oracles.log_softmax(5 * LOGITS)).astype(np.float32)
OF_TEMPERATURES = with_kinds(
    {
        "ids": partial(cross_entropy, LOGITS, np.arange(4), z_loss=0.1),
        "distributions": partial(cross_entropy, LOGITS, HOT),
        "smoothed focal": partial(
            jxent.softmax_focal_loss, LOGITS, np.arange(4), label_smoothing=0.1
        ),
        "symmetric": partial(jxent.symmetric_cross_entropy, LOGITS, HOT),
        "kl": partial(jxent.softmax_kl_divergence, LOGITS, 2 * LOGITS),
        "jensen-shannon": partial(
            jxent.softmax_jensen_shannon_divergence, LOGITS, 2 * LOGITS
        ),
        "total variation": partial(jxent.softmax_total_variation, LOGITS, 2 * LOGITS),
        "zlpr": partial(jxent.zlpr_loss, LOGITS, LOGITS > 0.5),
        "brier score": partial(jxent.metrics.brier_score, LOGITS, np.arange(4)),
    }
)
OF_BINARY_ROWS = with_kinds(
    {
        "binary": partial(jxent.sigmoid_binary_cross_entropy, axis=-1),
        "focal": partial(jxent.sigmoid_focal_loss, axis=-1),
        "asymmetric": partial(jxent.asymmetric_loss, axis=-1),
        "zlpr": jxent.zlpr_loss,
    }
)
KEEP = np.array([True, False, True, True])


def check_dropped_temperatures(loss, *ways):
    """`loss` of temperatures (4,), of which the second row's is nobody's."""
    total = lambda t, drop: jnp.sum(loss(temperature=t, **drop))
    both = jax.jit(lambda *at: (jax.grad(total)(*at), jax.hessian(total)(*at)))
    for drop in ways or ({"where": KEEP}, {"weights": KEEP.astype(np.float32)}):
        for bad in (0.0, NAN, INF, -1.0):
            gradient, hessian = both(jnp.array([1.0, bad, 2.0, 0.5]), drop)
            assert all_finite(gradient, hessian)
            assert np.all((gradient != 0) == KEEP)
            assert not np.any(hessian[1])
            assert not np.any(hessian[:, 1])


@table(OF_TEMPERATURES)
def test_the_temperature_of_a_dropped_row(loss):
    """0 or NaN there, and every derivative in it is 0."""
    check_dropped_temperatures(loss)


@table(OF_BINARY_ROWS)
def test_the_temperature_of_a_row_without_classes(loss):
    """The same where a mask of the logits' shape leaves it none."""
    loss = partial(loss, LOGITS, LOGITS > 0.5)
    check_dropped_temperatures(loss, {"where": np.outer(KEEP, np.ones(5, bool))})


def test_reduce():
    """where and a weight of 0 drop an element, whatever it holds."""
    losses = np.array([1.0, NAN, INF, -INF, 3e38, -3e38, 3.0], np.float32)
    kept = np.array([True, *[False] * 5, True])
    nan = np.where(kept, np.float32(1), np.float32(NAN))
    drops: list[dict[str, Any]] = [{"where": kept}, {"weights": np.float32(kept)}]
    for way in (*drops, {"where": kept, "weights": nan}):
        mean, grad = value_and_grad(partial(jxent.reduce, **way), losses)
        assert mean == 2
        same(grad, kept / 2)


@pytest.mark.parametrize("axis", [(), -1], ids=["elements", "rows"])
@pytest.mark.parametrize(
    "loss",
    [
        jxent.sigmoid_binary_cross_entropy,
        partial(jxent.sigmoid_binary_cross_entropy, pos_weight=2.0),
        jxent.asymmetric_loss,
        partial(jxent.asymmetric_loss, gamma_pos=1.5, gamma_neg=3.5, clip=0.2),
    ],
    ids=["binary", "weighted", "asymmetric", "fractional"],
)
def test_sums_over_infinite_logits_of_a_sigmoid(loss, axis):
    """A sum is that of the losses, one by one and under vmap, where some are 0 · ∞.

    So it is where exp(z) is hardly a normal number, or exp(−z) too large.
    """
    rows = [[1, -2, 3], [INF, -INF, 0.5], [-INF, 1, 2], [-88, 87.5, 0], [-89, -103, 2]]
    yes = [[1, 0, 1], [1, 0, 1], [1, 1, 0], [1, 0, 1], [1, 0, 1]]
    rows, labels = np.array(rows, np.float32), np.array(yes, np.float32)
    losses = np.sum(loss(rows, labels), 1)
    assert list(np.isinf(losses)) == [False, False, True, False, False]

    def total(row, labels):
        return loss(row[None], labels[None], axis=axis, reduction="sum")

    one_by_one = [total(*row) for row in zip(rows, labels, strict=True)]
    for totals in (np.array(one_by_one), jax.vmap(total)(rows, labels)):
        np.testing.assert_allclose(totals, losses, rtol=1e-6)
    if axis == -1:
        same(loss(rows, labels, axis=-1), losses)


@pytest.mark.keep("3.0")
@pytest.mark.parametrize("pos_weight", [0.5, 3.0, 1e30])
def test_infinite_logits_under_a_constant_weight(pos_weight):
    """0 · ∞ is 0 too where a compiler multiplies a program's constants first."""
    x = jnp.array([INF, INF, -INF, -INF, 2.0, 2.0])
    y = jnp.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    loss = partial(jxent.sigmoid_binary_cross_entropy, pos_weight=pos_weight)
    right = math.log1p(math.exp(-2))
    same(as_users_jit(loss)(x, y), [0, INF, INF, 0, 2 + right, pos_weight * right])


@table({k: v for k, v in OF_DISTRIBUTIONS.items() if k != "probabilities"})
def test_logits_further_apart_than_float32_reaches(loss):
    """A one-hot distribution is as good as its id, for each class."""
    row = np.array([3e38, -3e38, 0.0, 1e38, -1e38], np.float32)
    x, ids = np.tile(row, (5, 1)), np.arange(5)
    hot = jax.nn.one_hot(ids, 5)
    of_ids, of_hot = values_and_grads(
        [partial(loss, labels=y) for y in (ids, hot)], x, x
    )
    assert not np.isnan(of_ids[0]).any()
    same(of_hot[0], of_ids[0])
    assert all_finite(of_ids[1], of_hot[1])
    same(of_hot[1], of_ids[1])


@pytest.mark.parametrize("form", [block.two_pass, block.one_pass, block.one_pass_gpu])
def test_distributions_of_logits_that_far_apart(form):
    """In the form of every platform."""
    inputs = Inputs(
        (UnderLabels(),),
        z=jnp.tile(jnp.array([[3e38, -3e38, 0.0]]), (2, 1)),
        given=(jnp.array([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]),),
    )
    t = form(1, inputs)
    np.testing.assert_array_equal(t[UnderLabels].sum, jnp.array([-1.5e38, -INF]))


GAMMAS = np.array([0, 0.5, 1, 1.5, 2, 5], np.float32)
EXTREMES = np.array([-2e38, -1e4, -100, -20, -1, 0, 1, 20, 100, 1e4, 2e38], np.float32)


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_derivatives_of_the_sigmoid_focal_loss(label):
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


def test_derivatives_of_the_softmax_focal_loss():
    """The same with a softmax, for ids and distributions; at γ = 0 cross-entropy."""
    targets = (np.int32(0), np.array([0.5, 0.2, 0.3], np.float32))

    @as_users_jit
    @partial(jax.vmap, in_axes=(None, 0))
    @partial(jax.vmap, in_axes=(0, None))
    def all_of(z, gamma):
        results = []
        for target in targets:

            def loss(z, gamma, y=target):
                logits = jnp.stack([z, 0 * z, 1 + 0 * z])
                return jxent.softmax_focal_loss(logits, y, gamma=gamma)

            second = jax.grad(jax.grad(loss))(z, gamma)
            first = jax.grad(loss, (0, 1))(z, gamma)
            results.append((loss(z, gamma), first, second))
        return results

    logits = np.stack([EXTREMES, 0 * EXTREMES, 1 + 0 * EXTREMES], 1)
    each = all_of(EXTREMES, GAMMAS)
    for target, (value, (in_z, in_gamma), second) in zip(targets, each, strict=True):
        assert all_finite(value, in_z, in_gamma, second)
        repeated = np.broadcast_to(target, (EXTREMES.size, *target.shape))
        same(value[0], cross_entropy(logits, repeated), rtol=1e-5)


@pytest.mark.parametrize(
    "divergence", [jxent.kl_divergence, jxent.generalized_kl_divergence]
)
def test_targets_of_0(divergence):
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


def test_log_targets_of_minus_inf():
    """They count 0, whatever log q is there; gradients stay finite."""
    log_q = jnp.array([math.log(0.5), math.log(0.5), -INF])
    log_t = jnp.array([0.0, -INF, -INF])
    divergence = jxent.kl_divergence_with_log_targets
    same(divergence(log_q, log_t), math.log(2))
    for jacobian in (jax.jacfwd, jax.jacrev):
        in_q, in_t = as_users_jit(jacobian(divergence, (0, 1)))(log_q, log_t)
        same(in_q, [-1.0, 0.0, 0.0])
        same(in_t, [math.log(2) + 1, 0.0, 0.0])


def test_rows_without_mass_are_not_counted():
    """Anchors without positives add 0 to the mean and to its denominator."""
    x = spread(3, 5)
    q = jnp.array([[0.5, 0.5, 0, 0, 0], [0.0] * 5, [0, 0, 0, 0, 1.0]])
    some = jnp.array([True, False, True])
    same(
        cross_entropy(x, q, reduction="mean"),
        cross_entropy(x[some], q[some], reduction="mean"),
    )


@pytest.mark.parametrize("block_sizes", [None, (2, 4)])
@pytest.mark.parametrize("implementation", ["materialized", "streamed", "tiled"])
def test_the_temperature_of_a_dropped_row_of_a_head(implementation, block_sizes):
    """In one block and in several."""
    loss = partial(
        jxent.softmax_cross_entropy,
        jxent.LinearLogits(
            spread(4, 3),
            spread(3, 6),
            implementation=implementation,
            block_sizes=block_sizes,
        ),
        np.arange(4),
        reduction="sum",
    )
    check_dropped_temperatures(loss)
