"""One compiled program a case, whose results are NumPy: properties are assertions."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.cases import CLASSES, ids
from tests.comparing import weighed_rows
from tests.compiling import as_users_jit


class Results(NamedTuple):
    """Of one call, by reduction: "normalized" is a mean by the caller's normalizer."""

    losses: dict[str, np.ndarray]
    gradients: dict[str, tuple[np.ndarray, ...]]  # in every floating input
    slopes: dict[str, dict[str, np.ndarray]]  # in every floating option
    tangent: np.ndarray  # of the first reduction, along ones in inputs and options
    in_weights: dict[str, np.ndarray]  # none where a loss has no weights


def floats(inputs):
    """The inputs that a loss has derivatives in, and a function of these alone."""
    moving = [i for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]

    def all_of(*values):
        whole = list(inputs)
        for i, value in zip(moving, values, strict=True):
            whole[i] = value
        return whole

    return tuple(inputs[i] for i in moving), all_of


def neutral(case, rows) -> dict[str, Any]:
    """Options as arrays that change nothing, and those of the case."""
    options: dict[str, Any] = {"where": np.ones(rows, bool)}
    if case.takes("rows"):
        options |= {"weights": np.ones(rows), "normalizer": np.float64(7)}
    if case.takes("mask"):
        options["class_mask"] = np.ones(CLASSES, bool)
    if case.takes("ignore_index") and case.labels is ids:
        options["ignore_index"] = np.int32(-100)
    given = {k: np.asarray(x) for k, x in case.options.items() if k != "order"}
    if "temperature" in given:
        given["temperature"] = np.full(rows, given["temperature"])
    return options | given


@functools.cache
def program(case):
    """(inputs, **options) -> Results, compiled once for each shape of `where`."""
    reductions = case.reductions if case.takes("rows") else ("none",)
    # A head's gradients are the most to compile: those of one sum of rows will do.
    slopes_of = (reductions[0], "mean") if case.of_head else reductions
    slopes_of = [name for name in reductions if name in slopes_of]

    @as_users_jit
    def run(inputs, options, cotangents):
        values, all_of = floats(inputs)
        weights = {k: options[k] for k in ("weights",) if k in options}
        normalizer = {k: options[k] for k in ("normalizer",) if k in options}
        rest = {k: x for k, x in options.items() if k not in weights | normalizer}
        moving = {k: x for k, x in rest.items() if x.dtype.kind == "f"}
        fixed = {k: x for k, x in rest.items() if k not in moving}

        def loss(values, moving, weights, **reduction):
            return case(*all_of(*values), **fixed, **moving, **weights, **reduction)

        def losses(*moved):
            if not case.takes("rows"):
                return {"none": loss(*moved)}, {}
            each = {name: loss(*moved, reduction=name) for name in reductions}
            each["normalized"] = loss(*moved, reduction="mean", **normalizer)
            return {k: each.pop(k) for k in slopes_of}, each

        at, pull, others = jax.vjp(losses, values, moving, weights, has_aux=True)
        tangent = jax.jvp(
            lambda *moved: losses(*moved, weights)[0][reductions[0]],
            (values, moving),
            jax.tree.map(jnp.ones_like, (values, moving)),
        )[1]
        return at | others, pull(cotangents), tangent

    def call(inputs, **changed):
        rows = case.rows(inputs)
        options = neutral(case, rows) | changed
        shapes = {name: rows if name == "none" else () for name in slopes_of}
        gradients, slopes, in_weights = {}, {}, {}
        losses, tangent = {}, np.zeros(())
        for name in slopes_of:
            ones = {k: np.full(shape, float(k == name)) for k, shape in shapes.items()}
            losses, pulled, tangent = jax.device_get(run(inputs, options, ones))
            gradients[name], slopes[name], of_weights = pulled
            if of_weights:
                in_weights[name] = of_weights["weights"]
        return Results(losses, gradients, slopes, tangent, in_weights)

    return call


@functools.cache
def second_order(case):
    """(x, *labels) -> losses, gradient, hessian in x: bare, and as users compile it."""

    @as_users_jit
    def run(x, *labels):
        total = lambda x: weighed_rows(case(x, *labels))
        return case(x, *labels), jax.grad(total)(x), jax.hessian(total)(x)

    return lambda *inputs: jax.device_get(run(*inputs))
