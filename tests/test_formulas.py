"""Every formula in every layout, and the margin: what the loss in memory gives."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.cases import CLASSES
from tests.comparing import close, refuses
from tests.heads import (
    MATERIALIZED,
    STREAMED,
    TILED,
    TILED_TABLE,
    every_order,
)


ROWS, FEATURES = 4, 3
FORMULAS: dict[str, Any] = {
    "cross-entropy": (jxent.softmax_cross_entropy, {}),
    "focal": (jxent.softmax_focal_loss, {"gamma": 1.5}),
    "poly": (jxent.poly_loss_cross_entropy, {"epsilon": 0.75}),
    "generalized": (jxent.generalized_cross_entropy, {"q": 0.4}),
    "Taylor": (jxent.taylor_cross_entropy, {"order": 3}),
    "symmetric": (jxent.symmetric_cross_entropy, {"beta": 0.7, "log_zero": -1.5}),
}
LAYOUTS = {
    "materialized": MATERIALIZED,
    "streamed": STREAMED,
    "tiled": TILED,
    "tiled table": TILED_TABLE,
}
LAYOUTS = {name: x._replace(block_sizes=(2, 4)) for name, x in LAYOUTS.items()}


def operands(rng):
    return {
        "hidden": rng.normal(size=(ROWS, FEATURES)),
        "kernel": rng.normal(size=(FEATURES, CLASSES)),
        "bias": rng.normal(size=CLASSES),
    }


def options_of(rng, kind):
    """Labels of a kind with every option; those that need every log p apart."""
    options = {
        "weights": rng.uniform(0.5, 2, ROWS),
        "class_weights": rng.uniform(0.5, 2, CLASSES),
        "class_mask": np.arange(CLASSES) < CLASSES - 1,
        "z_loss": 0.1,
        "logit_soft_cap": 4.0,
        "temperature": rng.uniform(0.5, 2, ROWS),
    }
    labels = rng.integers(0, CLASSES - 1, ROWS)
    if kind == "distributions":
        return options | {"labels": rng.uniform(size=(ROWS, CLASSES))}
    labels[1] = -100
    options |= {"ignore_index": -100, "margin": rng.uniform(0.1, 0.5, CLASSES)}
    if kind == "smoothed":
        options["label_smoothing"] = 0.1
    return options | {"labels": labels}


# In turns: the table of all losses has the derivatives in hidden of each of them.
TURNS = {
    "ids": ("streamed", "tiled"),
    "smoothed": ("materialized", "tiled table"),
    "distributions": ("tiled",),
}


@pytest.mark.parametrize("formula", ["focal", "poly"])
@pytest.mark.parametrize(
    ("kind", "layout"),
    [(kind, of) for kind, layouts in TURNS.items() for of in layouts],
)
def test_every_order_in_hidden_kernel_and_bias(formula, kind, layout, rng, x64):
    function, parameters = FORMULAS[formula]
    head, options = operands(rng), parameters | options_of(rng, kind)

    def in_memory(head):
        z = head["hidden"] @ head["kernel"] + head["bias"][None]
        return function(z, reduction="mean", **options)

    def fused(head):
        return function(LAYOUTS[layout].head(**head), reduction="mean", **options)

    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), head)
    orders = lambda f: jax.jit(functools.partial(every_order, f))(head, direction)
    close(orders(fused), orders(in_memory))


@pytest.mark.parametrize(
    ("formula", "kind"),
    [(of, "smoothed") for of in FORMULAS if of not in ("cross-entropy", "symmetric")]
    + [(of, "distributions") for of in FORMULAS if of != "cross-entropy"],
)
def test_a_stream_has_no_sum_over_every_log_p(formula, kind, rng):
    function, parameters = FORMULAS[formula]
    logits = LAYOUTS["streamed"].head(**operands(rng))
    options = options_of(rng, kind) | parameters
    for reduction in ("none", "mean"):
        reduced = "" if reduction == "mean" else ", with reduction='mean' or 'sum'"
        refuses(
            functools.partial(function, logits, reduction=reduction, **options),
            ValueError,
            f"{function.__name__}: label smoothing and distributions need every log p "
            "of a row, which a stream of blocks does not keep. Give LinearLogits "
            f"implementation='materialized' or 'tiled'{reduced}.",
        )


@pytest.mark.parametrize("formula", FORMULAS)
def test_what_a_layout_is_planned_for_a_formula(formula):
    """Without an implementation the one that can: tiles where a stream cannot."""
    function, parameters = FORMULAS[formula]
    floats = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    logits = jxent.LinearLogits(floats((4096, 8)), floats((8, 4096)))
    ids = jax.ShapeDtypeStruct((4096,), jnp.int32)
    for labels, smoothing in (ids, 0.1), (floats(logits.shape), 0.0):
        options = parameters | {"label_smoothing": smoothing, "reduction": "mean"}
        plan = jxent.plan(function)(logits, labels, **options)
        assert plan.implementation == "tiled"
        value = functools.partial(function, **options)
        assert jax.eval_shape(value, logits, labels).shape == ()


# The margin ---------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.35, np.linspace(0.1, 0.9, CLASSES)], ids=np.ndim)
def test_the_margin_is_subtracted_from_the_labels_own_logit(margin, rng, x64):
    """After the soft cap and before the temperature, exactly."""
    z = 3 * rng.normal(size=(ROWS, CLASSES))
    y = rng.integers(0, CLASSES, ROWS)
    capped = 2 * np.tanh(z / 2)
    capped[np.arange(ROWS), y] -= np.broadcast_to(margin, CLASSES)[y]
    options: dict[str, Any] = {"label_smoothing": 0.1, "z_loss": 0.1}
    got = jxent.softmax_cross_entropy(
        z, y, margin=margin, logit_soft_cap=2.0, temperature=1.5, **options
    )
    wanted = oracles.softmax_cross_entropy(capped / 1.5, y, **options)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    log_prob = jxent.softmax_log_prob(
        z, y, margin=margin, logit_soft_cap=2.0, temperature=1.5
    )
    np.testing.assert_allclose(
        log_prob, oracles.softmax_log_prob(capped / 1.5, y), rtol=1e-12
    )


def test_a_margin_of_a_python_0_leaves_nothing_in_the_program(rng):
    z, y = jnp.ones((2, 3)), jnp.array([0, 1])
    f = functools.partial(jxent.softmax_cross_entropy, z, y)
    assert str(jax.make_jaxpr(f)()) == str(jax.make_jaxpr(lambda: f(margin=0.0))())


def test_a_margin_beside_impossible_classes(x64):
    """−inf − m is −inf: the label's own class is impossible, or another one is."""
    z = jnp.array([[-jnp.inf, 0.0, 1.0], [0.5, 0.0, -jnp.inf]])
    loss = functools.partial(jxent.softmax_cross_entropy, margin=0.5)
    values = loss(z, jnp.array([0, 0]))
    assert values[0] == jnp.inf
    np.testing.assert_allclose(values[1], np.log1p(np.exp(0.0)), rtol=1e-12)
    gradient = jax.grad(lambda z: loss(z, jnp.array([0, 0]))[1])(z)
    np.testing.assert_allclose(gradient[1], [-0.5, 0.5, 0.0], rtol=1e-12)


def test_a_margin_needs_class_ids():
    with pytest.raises(ValueError) as error:  # noqa: PT011
        jxent.softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 3)), margin=0.5)
    assert str(error.value) == (
        "softmax_cross_entropy: margin needs class ids, got distributions: it is "
        "subtracted from the logit of a row's label."
    )
