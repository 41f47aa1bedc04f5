"""Losses for the tests of what goes wrong around cross-entropy elsewhere."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import comparing
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


def all_finite(*arrays):
    return all(np.isfinite(x).all() for x in arrays)


partial = functools.partial
same = partial(comparing.same, rtol=2e-6, atol=1e-7)
cross_entropy = jxent.softmax_cross_entropy

# Of the losses of a kind the core takes one: see `rationing`.
KINDS = {
    "options": {*("plain", "smoothed", "all options")},
    "binary options": {*("binary", "binary pos_weight", "binary class weights")},
    "formula": {*("focal", "poly", "generalized", "symmetric", "asymmetric")},
    "two softmaxes": {*("kl", "jensen-shannon", "total variation")},
}


def with_kinds(losses):
    losses = {name: partial(loss) for name, loss in losses.items()}
    for kind, names in KINDS.items():
        for name in names & losses.keys():
            vars(losses[name])["kind"] = kind
    return losses


# Every way to a loss of class ids, with five classes.
OF_IDS = with_kinds(
    {
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
        "generalized": jxent.generalized_cross_entropy,
        "symmetric": partial(jxent.symmetric_cross_entropy, label_smoothing=0.1),
        "log prob": jxent.softmax_log_prob,
        "probabilities": partial(
            jxent.categorical_cross_entropy, class_weights=W, label_smoothing=0.1
        ),
    }
)
OF_DISTRIBUTIONS = {name: loss for name, loss in OF_IDS.items() if name != "log prob"}
ELEMENTWISE = with_kinds(
    {
        "binary": jxent.sigmoid_binary_cross_entropy,
        "binary pos_weight": partial(
            jxent.sigmoid_binary_cross_entropy, pos_weight=3.0
        ),
        "binary class weights": partial(
            jxent.sigmoid_binary_cross_entropy, class_weights=W, label_smoothing=0.1
        ),
        "focal": partial(jxent.sigmoid_focal_loss, gamma=0.5, alpha=0.25),
        "asymmetric": partial(jxent.asymmetric_loss, gamma_pos=0.5),
        "probabilities": jxent.binary_cross_entropy,
    }
)


def options_of(loss):
    return loss.keywords if isinstance(loss, partial) else {}


def some(*names):
    return table({name: OF_IDS[name] for name in names})


def table(losses):
    return pytest.mark.parametrize("loss", losses.values(), ids=losses.keys())
