"""Rows of LinearLogits that count for nothing, and labels that name no class."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jxent
from tests.comparing import close
from tests.heads import (
    MATERIALIZED,
    STREAMED,
    TILED,
    fused,
    of_floats,
    over,
    pick,
    problem,
)


PROMISED = "hidden kernel bias ids weights where class_mask"


@functools.cache
def promised(layout, reduction):
    """A loss with all that drops rows or classes, and its gradients in every float."""

    @jax.jit
    def run(arguments):
        options = {"ignore_index": -100, "reduction": reduction, "z_loss": 0.01}
        moving = [k for k, x in arguments.items() if x.dtype == jnp.float64]

        def f(values):
            return fused(layout, arguments | values, **options)

        value, pull = jax.vjp(f, {k: arguments[k] for k in moving})
        return value, pull(jnp.ones_like(value))[0]

    return run


def promising(rng, **changes):
    arguments = pick(problem(rng), PROMISED)
    arguments["where"][:] = True
    arguments["ids"][1] = 0
    return arguments | changes


def promises(layout):
    return promised(layout, "none" if layout.implementation == "streamed" else "sum")


@over(STREAMED, TILED)
def test_a_bias_of_minus_inf(layout, x64, rng):
    """An impossible class, gradient 0 there; as the label's own class +inf."""
    arguments = promising(rng)
    arguments["bias"][[2, 5]] = -np.inf
    arguments["ids"][:] = [0, 1, 3, 4, 6, 0]
    mask = arguments["class_mask"] & np.isfinite(arguments["bias"])
    run = promises(layout)
    value, gradients = run(arguments)
    finite = np.where(mask, arguments["bias"], 0)
    wanted, slopes = run(arguments | {"class_mask": mask, "bias": finite})
    close((value, gradients), (wanted, slopes))
    arguments["ids"][1] = 2
    value, gradients = run(arguments)
    one = value[1] if layout.implementation == "streamed" else value
    assert one == np.inf
    assert np.all(np.isfinite(gradients["hidden"]))
    assert np.all(np.isfinite(gradients["kernel"]))


@pytest.mark.keep("tiled")
@over(MATERIALIZED, STREAMED, TILED)
def test_a_masked_class_may_have_any_bias(layout, x64, rng):
    """NaN there changes no loss and no gradient, under a soft cap too."""
    arguments = promising(
        rng, class_mask=np.arange(8) != 7, logit_soft_cap=np.float64(5)
    )
    arguments["ids"] = np.array([0, 1, 3, 4, 6, 2])
    layout = layout._replace(block_sizes=(2, 3))

    def total(arguments):
        f, x = of_floats(lambda a: fused(layout, a, reduction="sum"), arguments)
        return jax.value_and_grad(f)(x)

    wanted = total(arguments)
    arguments["bias"][7] = np.nan
    close(total(arguments), wanted)


@over(MATERIALIZED, STREAMED, TILED)
def test_is_one_call(layout, rng):
    """Outside of jit one compiled function runs, whatever the shapes."""
    hidden, kernel = jnp.ones((2, 3, 4)), jnp.ones((4, 8))
    arguments = {"hidden": hidden, "kernel": kernel, "ids": jnp.zeros((2, 3), int)}
    arguments["where"] = jnp.ones((2, 1), bool)
    traced = jax.make_jaxpr(lambda a: fused(layout, a, reduction="mean"))(arguments)
    assert [str(eqn.primitive) for eqn in traced.eqns] in (["jit"], ["pjit"])


@over(STREAMED, TILED)
def test_a_hidden_state_of_nan_that_counts(layout, x64, rng):
    """NaN loss and gradient in its row."""
    arguments = promising(rng)
    arguments["hidden"][2, 1] = np.nan
    value, gradients = promises(layout)(arguments)
    others = np.array([0, 1, 3, 4, 5])
    assert np.all(np.isnan(gradients["hidden"][2]))
    assert np.all(np.isfinite(gradients["hidden"][others]))
    if layout.implementation == "streamed":
        np.testing.assert_array_equal(np.isnan(value), np.arange(6) == 2)
    else:
        assert np.isnan(value)


@pytest.mark.every_value
@pytest.mark.parametrize(
    "option", ["ignore_index", "where", "class_where", "weights", "none"]
)
@over(STREAMED, TILED)
def test_a_condition_only_where_rows_can_be_dropped(layout, option, rng):
    """lax.cond around tiles, in the value and in the derivative, or none at all."""
    options: dict[str, Any] = {
        "ignore_index": {"ignore_index": -100},
        "where": {"where": np.ones(6, bool)},
        "class_where": {"where": np.ones((6, 8), bool)},
        "weights": {"weights": np.ones(6, np.float32)},
        "none": {"z_loss": 0.1},
    }[option]
    h, k = jnp.ones((6, 3), jnp.float32), jnp.ones((3, 8), jnp.float32)

    def f(h, k):
        arguments = {"hidden": h, "kernel": k, "ids": jnp.zeros(6, jnp.int32)}
        return fused(layout, arguments | options, reduction="mean")

    for g in (f, jax.grad(f, (0, 1))):
        text = str(jax.make_jaxpr(g)(h, k))
        by_platform = text.count("branches_platforms=")
        assert (text.count(" cond[") > by_platform) == (option != "none")


@over(STREAMED, TILED)
def test_checkify_names_a_bad_label(layout, rng):
    """The label and the class count, with and without a gradient, or nothing."""
    h, k = jnp.ones((6, 3)), jnp.ones((3, 8))

    def step(hidden, labels):
        arguments = {"hidden": hidden, "kernel": k, "ids": labels}
        return fused(layout, arguments, ignore_index=-100, reduction="mean")

    programs: list[Callable[..., Any]] = [jax.value_and_grad(step)]
    if layout is TILED:  # its value alone is another program
        programs.append(step)
    for f in programs:
        assert not jax.make_jaxpr(f)(h, jnp.zeros(6, jnp.int32)).effects
        run = jax.jit(checkify.checkify(jax.jit(f)))
        for label in (8, -1, -100, 7):
            message = run(h, jnp.array([0, 1, label, 2, 3, 4]))[0].get()
            if label in (8, -1):
                assert (
                    "expected labels in [0, 8) and on a class that is not masked, got "
                    f"label {label}. Mark rows to skip with ignore_index or where."
                ) in (message or "")
            else:
                assert message is None


@over(MATERIALIZED, STREAMED)
def test_top_1_is_accuracy(layout, rng):
    """It streams as accuracy does: no row needs all of its logits."""
    arguments, metrics = promising(rng), jxent.metrics
    z = arguments["hidden"] @ arguments["kernel"] + arguments["bias"]
    arguments["ids"][:3] = z[:3, :-1].argmax(-1)  # the last class is masked
    arguments["ids"][3:] = z[3:, :-1].argmin(-1)
    got = fused(layout, arguments, metrics.top_k_accuracy, k=1)
    close(got, fused(layout, arguments, metrics.accuracy))
    weights = arguments["weights"]
    close(got, weights[:3].sum() / weights.sum(), 1e-6)
