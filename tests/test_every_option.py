"""Every option of the losses in every layout, on one device and on four.

The options are those of the public signatures, and the biases of LinearLogits. One
program a layout takes all of them as arrays, most at a value that changes nothing: then
each is given another value, and must change the loss and have the derivative that it
has in memory on one device.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterator
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
from jxent import LinearLogits
from tests import oracles
from tests.cases import (
    DIVERGENCE,
    LAYOUTS,
    LOSSES,
    NO_ROW,
    Loss,
    ids,
    logits as of_logits,
    target,
)


ROWS, FEATURES, CLASSES = 4, 3, 6
LABELS = np.array([0, 2, 3, 1], np.int32)
one, of_rows, of_classes = P(), P("data"), P("model")


class Option(NamedTuple):
    """A value that changes nothing, or a default; another; and how both are split."""

    off: Any
    on: Any
    spec: P = P()


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
    "target_bias": Option(np.zeros(CLASSES), np.linspace(1, -2, CLASSES), of_classes),
    "target_logit_soft_cap": Option(np.float64(np.inf), np.float64(2), one),
    "pos_weight": Option(np.ones(CLASSES), np.linspace(2, 0.5, CLASSES), of_classes),
}
# Arguments that say what the call is: operands, axes, results, devices.
OTHER_ARGUMENTS = {
    *("logits", "target_logits", "probs", "labels", "ids", "kept", "axis", "k"),
    *("reduction", "entropy", "argmax"),
    *("class_axis_name", "batch_axis_name"),
}
# Fields of LinearLogits that are no options of a loss: operands, and the layout.
OTHER_FIELDS = {
    *("hidden", "kernel", "vocab_axis", "precision", "block_sizes", "implementation"),
}


class Formula(NamedTuple):
    """A public loss, its kind of labels, and the layouts that devices share."""

    loss: Loss
    labels: str
    layouts: tuple[str, ...]


def formulas_of(loss: Loss) -> Iterator[Formula]:
    """One for each kind of labels of a row with more options than `where`."""
    split = loss.layouts[:1] + loss.layouts[2:]
    if "elementwise" in loss.takes:
        yield Formula(loss, "elements", split)
    elif target in loss.labels:
        yield Formula(loss, "target", split)
    elif "rows" in loss.takes:
        if ids in loss.labels:
            yield Formula(loss, "ids", split)
        else:
            yield Formula(loss, "shares", ("tiled",))
        if loss.x is of_logits:
            yield Formula(loss, "sparse", split)


FORMULAS = {f"{f.loss.name}-{f.labels}": f for x in LOSSES for f in formulas_of(x)}
WHERE_ALONE = {loss.name for loss in LOSSES if loss.takes == DIVERGENCE}
OPTAX_NAMES = {name for name, why in NO_ROW.items() if why.startswith("Optax")}
OF_ROWS = {  # which binary losses take only with an axis of classes
    *("class_mask", "logit_soft_cap", "temperature"),
}
PUBLIC = {n for n in jxent.__all__ if inspect.isfunction(getattr(jxent, n))}


def all_of(name):
    """The arguments in a public signature."""
    return set(inspect.signature(getattr(jxent, name)).parameters)


def options_of(name):
    return all_of(name) - OTHER_ARGUMENTS


def parameters_of(loss: Loss) -> dict[str, Option]:
    """A loss's own: the default, or some number where it is none; and the row's."""
    own = {}
    for name in options_of(loss.public.__name__) - {*OPTIONS}:
        default = inspect.signature(loss.public).parameters[name].default
        if not isinstance(on := loss.options[name], int):  # which is static
            off = 2 * on if default is None else default
            own[name] = Option(np.float64(off), np.float64(on))
    return own


WITH_OPTIONS = {  # these functions' options, of a loss or of other results
    name
    for name in PUBLIC
    if next(iter(inspect.signature(getattr(jxent, name)).parameters))
    in ("logits", "probs")
    and not name.startswith("fit_")
}


@pytest.mark.every_value
@pytest.mark.parametrize("name", sorted(WITH_OPTIONS))
def test_the_table_has_every_option(name):
    """Those of all losses stand above, a loss's own parameters in its row."""
    rows = [loss.options for loss in LOSSES if loss.public is getattr(jxent, name)]
    assert options_of(name) <= {*OPTIONS}.union(*rows)


def test_the_table_has_every_field():
    """`implementation` and `block_sizes` are those of the programs."""
    fields = {field.name for field in dataclasses.fields(jxent.LinearLogits)}
    assert fields - OTHER_FIELDS == {"bias"} <= {*OPTIONS}


@pytest.mark.every_value
@pytest.mark.parametrize("name", sorted(OPTAX_NAMES))
def test_the_names_of_optax_are_the_same_function(name):
    assert getattr(jxent, name) is jxent.softmax_cross_entropy


@pytest.mark.every_value
@pytest.mark.parametrize("name", sorted(WHERE_ALONE))
def test_a_where_is_their_only_option(name):
    assert options_of(name) & {*OPTIONS} == {"where"}
    assert not all_of(name) & {"class_axis_name", "batch_axis_name", "reduction"}


class Program(NamedTuple):
    """A loss in a layout, on one device or on 2 × 2 of them."""

    formula: str
    layout: str = "in memory"
    split: bool = False

    @property
    def axes(self):
        return self.formula, self.layout, self.split

    @property
    def options(self) -> dict[str, Option]:
        loss, labels, _ = FORMULAS[self.formula]
        own = parameters_of(loss)
        options = options_of(loss.public.__name__) & {*OPTIONS} | {*own, "bias"}
        if self.layout == "streamed":
            options -= {*loss.not_streamed}
        if labels == "target":
            options |= {"target_bias"}
        if labels == "sparse":
            options -= {"margin"}  # for class ids
        if labels == "elements":
            options -= OF_ROWS
        if labels in ("elements", "shares"):
            options -= {"ignore_index"}  # for integers: tests/test_hazards_of_labels.py
        every = OPTIONS | own
        return {name: every[name] for name in sorted(options)}


RNG = np.random.default_rng(0)
HEAD, OTHER = (
    {
        "hidden": RNG.normal(size=(ROWS, width)),
        "kernel": RNG.normal(size=(width, CLASSES)),
    }
    for width in (FEATURES, FEATURES + 1)
)
SPLIT = {"hidden": of_rows, "kernel": P(None, "model")}


def labels_of(kind):
    """Labels of a kind, or another head; and how they are split."""
    ids = np.stack([LABELS, (LABELS + 2) % CLASSES, np.full(ROWS, 2)], -1)
    values = np.linspace(0.2, 0.9, ids.size).reshape(ids.shape)
    of_classes = np.linspace(0.9, 0.1, ROWS * CLASSES).reshape(ROWS, CLASSES)
    sparse = jxent.SparseLabels(ids, values)
    return {
        "ids": (LABELS, of_rows),
        "sparse": (sparse, jax.tree.map(lambda _: of_rows, sparse)),
        "elements": (of_classes, P("data", "model")),
        "shares": (of_classes, P("data", "model")),
        "target": (OTHER, SPLIT),
    }[kind]


@functools.cache
def compiled(program):
    """(options, operands) -> the loss, and its gradients in those that have any."""
    row, kind, _ = FORMULAS[program.formula]
    names = {"class_axis_name": "model", "batch_axis_name": "data"}
    labels, split_of_labels = labels_of(kind)
    # Loops of whole blocks, of each device's part too.
    how = {"implementation": program.layout, "block_sizes": (2, 3)}
    if program.split:
        how["block_sizes"] = (1, 1)

    def logits_of(hidden, kernel, bias) -> Any:
        if program.layout == "in memory":
            return hidden @ kernel + bias[None]
        return LinearLogits(hidden, kernel, bias, **how)

    def loss(labels, options):
        given = options | {"reduction": "mean"} | (names if program.split else {})
        logits = logits_of(*map(given.pop, ("hidden", "kernel", "bias")))
        if kind == "target":
            labels = logits_of(**labels, bias=given.pop("target_bias"))
        if kind == "elements":  # each a row, split over both axes
            given |= {name: given[name][:, None] for name in ("where", "weights")}
            given["batch_axis_name"] = (*names.values(),) if program.split else None
            given.pop("class_axis_name", None)
        if row.x is not of_logits:
            logits = jax.nn.sigmoid(logits)
        return row.function(logits, labels, **given)

    if program.split:
        specs = SPLIT | {name: x.spec for name, x in program.options.items()}
        kinds = (AxisType.Auto,) * 2
        mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds)
        in_specs = (split_of_labels, specs)
        loss = jax.shard_map(loss, mesh=mesh, in_specs=in_specs, out_specs=one)

    @jax.jit
    def both(options):
        moving = {k: x for k, x in options.items() if x.dtype == jnp.float64}

        def of_moving(values):
            return loss(labels, options | values)

        return jax.value_and_grad(of_moving)(moving)

    return lambda options: jax.device_get(both(options))


def at(program, changed=None, value=None):
    options = HEAD | {name: x.off for name, x in program.options.items()}
    if "categorical" in program.formula:  # else no term is of a masked class
        options["label_smoothing"] = np.float64(0.2)
    if changed is not None:
        options[changed] = program.options[changed].on if value is None else value
    return compiled(program)(options)


FIRST, *OTHERS = FORMULAS
PROGRAMS = [
    Program(FIRST, layout, split) for layout in LAYOUTS for split in (False, True)
]
PROGRAMS += [
    Program(name, layout, True) for name in OTHERS for layout in FORMULAS[name].layouts
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: "-".join(map(str, p)))
def test_every_option_has_an_effect_and_a_derivative(program, x64):
    reference = Program(program.formula)
    off = at(program)
    for name in program.options:
        loss, gradients = at(program, name)
        wanted, slopes = at(reference, name)
        changes = jax.tree.map(np.subtract, (loss, gradients), off)
        largest = max(np.max(np.abs(x)) for x in jax.tree.leaves(changes))
        assert loss != off[0], f"{name} does not change the loss"
        assert largest > 1e-3, f"{name} changes nothing"
        np.testing.assert_allclose(loss, wanted, rtol=1e-12, err_msg=name)
        for other, slope in gradients.items():
            wanted = slopes[other]
            message = f"the derivative in {other}, given {name}"
            np.testing.assert_allclose(slope, wanted, 1e-10, 1e-12, err_msg=message)
        assert name not in gradients or np.any(gradients[name]), name


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_derivatives_in_memory(formula, x64):
    """Those of central differences."""
    program = Program(formula)
    for name, option in program.options.items():
        _, gradients = at(program, name)
        if name in gradients:
            value = lambda x, name=name: at(program, name, x)[0]
            wanted = oracles.central_differences(value, option.on)
            np.testing.assert_allclose(gradients[name], wanted, 1e-7, 1e-9)
