"""Every option of the losses in every layout, on one device and on four.

The options are those of the public signatures, and the biases of LinearLogits. One
program a layout takes all of them as arrays, most at a value that changes nothing: then
each is given another value, and must change the loss and have the derivative that it
has in memory on one device.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
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
from jxent import LinearLogits, _formulas
from jxent._problem.bundles import declared
from jxent._problem.problem import Head, RowLogits, Rows, Shared
from jxent._solve import solve as solving
from tests import oracles
from tests.cases import (
    DIVERGENCE,
    LAYOUTS,
    LOSSES,
    NO_ROW,
    Loss,
    ids,
    logits as of_logits,
    shares,
    target,
)
from tests.test_house import TARGETS


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
    "temperature": Option(np.ones(ROWS), np.array([2, 0.5, 0.75, 1.5]), of_rows),
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


# Functions of logits that return no losses to reduce, and what they ask for.
RESULTS = {
    "softmax_log_prob": "ids",
    "softmax_log_prob_at": "asked",
    "softmax_log_prob_among": "among",
    "softmax_entropy": "nothing",
    "softmax_statistics": "nothing",
}
# Which options a kind of labels does not take: margins and ignored ids are for ids.
NOT_FOR: dict[str, set[str]] = {
    "sparse": {"margin"},
    "shares": {"margin", "ignore_index"},
    "elements": {"ignore_index", "class_mask", "logit_soft_cap", "temperature"},
    "nothing": {"class_weights", "margin", "ignore_index"},
}


class Formula(NamedTuple):
    """A function, its kind of labels, and the layouts that devices share."""

    function: Callable[..., Any]
    labels: str
    layouts: tuple[str, ...]
    row: Loss | None = None


def formulas() -> Iterator[tuple[str, Formula]]:
    """One for each kind of labels of what takes more options than `where`."""
    for loss in (x for x in LOSSES if "rows" in x.takes):
        split = loss.layouts[:1] + loss.layouts[2:]
        kinds = {"elements": split} if "elementwise" in loss.takes else {}
        if target in loss.labels:
            kinds["target"] = split
        if ids in loss.labels:
            kinds["ids"] = split
        if loss.x is of_logits and not kinds.keys() & {"target", "elements"}:
            kinds["sparse"] = split
            kinds["shares"] = split[2 if shares in loss.not_streamed else 1 :]
        for labels, layouts in kinds.items():
            yield f"{loss.name}-{labels}", Formula(loss.function, labels, layouts, loss)
    for name, asked in RESULTS.items():
        layouts = "in memory", "streamed"
        yield f"{name}-{asked}", Formula(getattr(jxent, name), asked, layouts)


FORMULAS = dict(formulas())
WHERE_ALONE = {loss.name for loss in LOSSES if loss.takes == DIVERGENCE}
OPTAX_NAMES = {name for name, why in NO_ROW.items() if why.startswith("Optax")}
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


def test_the_programs_have_every_function():
    """Of logits or probabilities, but for those whose results are lists or sums."""
    # See tests/test_several_ids.py and tests/test_sums.py.
    elsewhere = WHERE_ALONE | {"softmax_top_k", "softmax_cross_entropy_sums"}
    called = {getattr(f.function, "func", f.function) for f in FORMULAS.values()}
    assert {getattr(jxent, name) for name in WITH_OPTIONS - elsewhere} == called


def test_the_table_has_every_field():
    """`implementation` and `block_sizes` are those of the programs."""
    fields = {field.name for field in dataclasses.fields(jxent.LinearLogits)}
    assert fields - OTHER_FIELDS == {"bias"} <= {*OPTIONS}


# Fields of a call that are no options: operands, labels, a formula's parameters, and a
# mask of classes of each row, which is a `where`.
NO_OPTIONS = "array hidden kernel labels ids others values parameters class_where"


@pytest.mark.every_value
@pytest.mark.parametrize("kind", [Rows, Shared, RowLogits, Head, *TARGETS])
def test_the_table_has_every_field_of_a_call(kind):
    fields = {name for name, (axes, *_) in declared(kind).items() if axes is not None}
    assert fields <= {*OPTIONS, *NO_OPTIONS.split()}


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
        function, labels, _, row = FORMULAS[self.formula]
        own = parameters_of(row) if row else {}
        names = {*inspect.signature(function).parameters}
        options = names & {*OPTIONS} | {*own, "bias"}
        if row and self.layout == "streamed":
            options -= {*row.not_streamed}
        if labels == "target":
            options |= {"target_bias"}
        options -= NOT_FOR.get(labels, set())
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
        "nothing": ((), ()),
        "ids": ((LABELS,), (of_rows,)),
        "asked": ((np.where(ids == 4, 5, ids),), (of_rows,)),  # 4 is to be masked
        "among": ((LABELS, ids), (of_rows, of_rows)),
        "sparse": ((sparse,), (jax.tree.map(lambda _: of_rows, sparse),)),
        "elements": ((of_classes,), (P("data", "model"),)),
        "shares": ((of_classes,), (P("data", "model"),)),
        "target": ((OTHER,), (SPLIT,)),
    }[kind]


@functools.cache
def compiled(program):
    """(options, operands) -> the loss, and its gradients in those that have any."""
    function, kind, _, row = FORMULAS[program.formula]
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
        given = options | ({"reduction": "mean"} if row else {})
        given |= names if program.split else {}
        logits = logits_of(*map(given.pop, ("hidden", "kernel", "bias")))
        if kind == "target":
            labels = [logits_of(**labels[0], bias=given.pop("target_bias"))]
        if kind == "elements":  # each a row, split over both axes
            given |= {name: given[name][:, None] for name in ("where", "weights")}
            given["batch_axis_name"] = (*names.values(),) if program.split else None
            given.pop("class_axis_name", None)
        if row:
            logits = logits if row.x is of_logits else jax.nn.sigmoid(logits)
            return function(logits, *labels, **given)
        if function is jxent.softmax_statistics:
            found = function(logits, *labels, **given, entropy=True)
            total = jnp.sum(found.lse + found.entropy**2)
        else:
            total = jnp.sum(jnp.exp(function(logits, *labels, **given)))
        return jax.lax.psum(total, "data") if program.split else total

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


def test_the_programs_have_every_target_and_formula(monkeypatch):
    """The package's own, of two softmaxes: what the functions make of a call."""
    seen, solve = set(), solving.solve

    def seeing(problem):
        seen.update((type(problem.target), problem.settings.formula))
        return solve(problem)

    monkeypatch.setattr(solving, "solve", seeing)
    z = np.float32(HEAD["hidden"] @ HEAD["kernel"])
    for function, kind, *_ in FORMULAS.values():
        labels, _ = ((z,), None) if kind == "target" else labels_of(kind)
        jax.eval_shape(function, z, *labels)
    of_two = {x for x in vars(_formulas).values() if type(x) is _formulas.OfTwo}
    assert {*TARGETS} | of_two <= seen


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
