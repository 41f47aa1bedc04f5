"""Every option of the softmax losses in every layout, on one device and on four.

The options are those of the public signatures. One program a layout takes all of them
as arrays, most at a value that changes nothing: then each is given another value, and
must change the loss and have the derivative that it has in memory on one device.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)

import jxent
from tests import oracles


ROWS, FEATURES, CLASSES = 4, 3, 6
LABELS = np.array([0, 2, 3, 1], np.int32)
one, of_rows, of_classes = P(), P("data"), P("model")


class Option(NamedTuple):
    """A value that changes nothing, one that does, and how both are split."""

    off: Any
    on: Any
    spec: P


OPTIONS = {
    "bias": Option(np.zeros(CLASSES), np.linspace(-1, 1, CLASSES), of_classes),
    "where": Option(np.ones(ROWS, bool), np.arange(ROWS) != 1, of_rows),
    "weights": Option(np.ones(ROWS), np.array([0.5, 2, 1, 0.25]), of_rows),
    "class_weights": Option(np.ones(CLASSES), np.linspace(0.5, 2, CLASSES), of_classes),
    "class_mask": Option(np.ones(CLASSES, bool), np.arange(CLASSES) != 4, of_classes),
    "ignore_index": Option(np.int32(-100), np.int32(2), one),
    "label_smoothing": Option(np.float64(0), np.float64(0.3), one),
    "z_loss": Option(np.float64(0), np.float64(0.1), one),
    "logit_soft_cap": Option(np.float64(np.inf), np.float64(2), one),
    "temperature": Option(np.ones(ROWS), np.array([0.5, 2, 1.5, 0.75]), of_rows),
    "margin": Option(np.zeros(CLASSES), np.linspace(0.1, 0.9, CLASSES), of_classes),
    "normalizer": Option(np.float64(ROWS), np.float64(7), one),
    "gamma": Option(np.float64(0), np.float64(1.5), one),
    "epsilon": Option(np.float64(0), np.float64(0.75), one),
    "beta": Option(np.float64(0.3), np.float64(0.6), one),
    "alpha": Option(np.float64(0.1), np.float64(0.4), one),
    "log_zero": Option(np.float64(-4), np.float64(-2.5), one),
    "q": Option(np.float64(0.7), np.float64(0.3), one),
    "target_bias": Option(np.zeros(CLASSES), np.linspace(1, -2, CLASSES), of_classes),
    "target_logit_soft_cap": Option(np.float64(np.inf), np.float64(2), one),
}
# Arguments that say what the call is: operands, axes, results, layouts.
OTHER_ARGUMENTS = {
    *("logits", "hidden", "kernel", "labels", "axis", "vocab_axis", "reduction"),
    *("target_logits", "target_hidden", "target_kernel", "target_vocab_axis"),
    *("ids", "k", "order"),
    *("return_statistics", "entropy", "argmax", "class_axis_name", "batch_axis_name"),
    *("block_sizes", "implementation", "precision", "budget", "platform"),
}
FUNCTIONS = {
    "cross-entropy": ("softmax_cross_entropy", "linear_softmax_cross_entropy"),
    "focal": ("softmax_focal_loss", "linear_softmax_focal_loss"),
    "poly": ("poly_loss_cross_entropy", "linear_poly_loss_cross_entropy"),
    "sparse": ("softmax_cross_entropy", "linear_softmax_cross_entropy"),
    "sparse focal": ("softmax_focal_loss", "linear_softmax_focal_loss"),
    "generalized": ("generalized_cross_entropy",),
    "taylor": ("taylor_cross_entropy",),
    "symmetric": ("symmetric_cross_entropy",),
    "sparse symmetric": ("symmetric_cross_entropy",),
    "sparse ZLPR": ("zlpr_loss", "linear_zlpr_loss"),
    "KL": ("softmax_kl_divergence", "linear_softmax_kl_divergence"),
    "Jensen-Shannon": (
        "softmax_jensen_shannon_divergence",
        "linear_softmax_jensen_shannon_divergence",
    ),
}
TWO_HEADS = ("KL", "Jensen-Shannon")


def all_of(name):
    """The arguments in a public signature."""
    return set(inspect.signature(getattr(jxent, name)).parameters)


def options_of(name):
    return all_of(name) - OTHER_ARGUMENTS


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in jxent.__all__
        if "softmax_" in n or "zlpr" in n or "margin" in all_of(n)
    ],
)
def test_the_table_has_every_option(name):
    assert options_of(name) <= {*OPTIONS}


class Program(NamedTuple):
    """A loss in a layout, on one device or on 2 × 2 of them."""

    formula: str
    layout: str = "in memory"
    split: bool = False

    @property
    def options(self):
        options = set().union(*map(options_of, FUNCTIONS[self.formula]))
        if "focal" in self.formula or self.formula == "poly":
            if self.layout == "streamed":
                options -= {"label_smoothing"}  # it would need every log p of a row
        if "sparse" in self.formula:
            options -= {"margin"}  # for class ids
        return sorted(options)


@functools.cache
def operands():
    rng = np.random.default_rng(0)
    heads = [
        (rng.normal(size=(ROWS, width)), rng.normal(size=(width, CLASSES)))
        for width in (FEATURES, FEATURES + 1)
    ]
    return heads


def labels_of(formula):
    """Class ids, several of them a row, or another head; and how they are split."""
    if formula in TWO_HEADS:
        return operands()[1], (of_rows, P(None, "model"))
    if "sparse" not in formula:
        return LABELS, of_rows
    ids = np.stack([LABELS, (LABELS + 2) % CLASSES, np.full(ROWS, 2)], -1)
    values = np.linspace(0.2, 0.9, ids.size).reshape(ids.shape)
    labels = jxent.SparseLabels(ids=ids, values=values)
    return labels, jax.tree.map(lambda _: of_rows, labels)


@functools.cache
def compiled(program):
    """(options by name) -> the loss, and its gradients in those that have any."""
    in_memory, *fused = (getattr(jxent, name) for name in FUNCTIONS[program.formula])
    names = {"class_axis_name": "model", "batch_axis_name": "data"}
    labels, split_of_labels = labels_of(program.formula)
    two = program.formula in TWO_HEADS

    def loss(hidden, kernel, labels, options):
        given = options | {"reduction": "mean"} | (names if program.split else {})
        if program.layout == "in memory":
            logits = hidden @ kernel
            if fused:
                logits += given.pop("bias")[None]
            if two:
                other = labels[0] @ labels[1] + given.pop("target_bias")[None]
                return in_memory(logits, other, **given)
            return in_memory(logits, labels, **given)
        # Loops of whole blocks, of each device's part too.
        blocks = (1, 1) if program.split else (2, 3)
        given |= {"implementation": program.layout, "block_sizes": blocks}
        labels = labels if two else (labels,)
        return fused[0](hidden, kernel, *labels, **given)

    if program.split:
        specs = {name: OPTIONS[name].spec for name in program.options}
        kinds = (AxisType.Auto,) * 2
        mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds)
        in_specs = (of_rows, P(None, "model"), split_of_labels, specs)
        loss = jax.shard_map(loss, mesh=mesh, in_specs=in_specs, out_specs=one)

    @jax.jit
    def both(options):
        moving = {k: x for k, x in options.items() if x.dtype == jnp.float64}

        def of_moving(values):
            return loss(*operands()[0], labels, options | values)

        return jax.value_and_grad(of_moving)(moving)

    return both


def at(program, changed=None, value=None):
    options = {name: OPTIONS[name].off for name in program.options}
    if changed is not None:
        options[changed] = OPTIONS[changed].on if value is None else value
    return compiled(program)(options)


PROGRAMS = [
    Program("cross-entropy", layout, split)
    for layout in ("in memory", "materialized", "streamed", "tiled")
    for split in (False, True)
] + [
    Program(formula, layout, True)
    for formula in FUNCTIONS
    if formula != "cross-entropy"
    for layout in ("in memory", "streamed", "tiled")
    if layout == "in memory" or FUNCTIONS[formula][1:]
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: "-".join(map(str, p)))
def test_every_option_has_an_effect_and_a_derivative(program, x64):
    reference = Program(program.formula)
    off, _ = at(program)
    for name in program.options:
        loss, gradients = at(program, name)
        wanted, slopes = at(reference, name)
        assert abs(loss - off) > 1e-3, f"{name} changes nothing"
        np.testing.assert_allclose(loss, wanted, rtol=1e-12, err_msg=name)
        for other, slope in gradients.items():
            wanted = slopes[other]
            message = f"the derivative in {other}, given {name}"
            np.testing.assert_allclose(slope, wanted, 1e-10, 1e-12, err_msg=message)
        assert name not in gradients or np.any(gradients[name]), name


@pytest.mark.parametrize("formula", FUNCTIONS)
def test_the_derivatives_in_memory(formula, x64):
    """Those of central differences."""
    program = Program(formula)
    for name, option in ((n, OPTIONS[n]) for n in program.options):
        _, gradients = at(program, name)
        if name in gradients:
            value = lambda x, name=name: at(program, name, x)[0]
            wanted = oracles.central_differences(value, option.on)
            np.testing.assert_allclose(gradients[name], wanted, 1e-7, 1e-9)
