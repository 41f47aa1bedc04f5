"""How the package is built: what a new option or loss must not forget.

The tests below go over the declarations of options, not over a list of their names: an
option that is added is tested by them from its first day.
"""

import ast
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import tree_leaves_with_path

import jxent
from jxent._formulas import (
    cross_entropy,
    focal,
    jensen_shannon_divergence,
    kl_divergence,
    zlpr,
)
from jxent._layouts import LossOptions, solve
from jxent._problem import Problem, Rows, Settings, Shared
from jxent._sigmoid import binary_of_logits, focal_of_logits
from tests.cases import CLASSES
from tests.compiling import as_users_jit
from tests.test_api import modules


ROWS, FEATURES = 4, 3
LAYOUTS = ("in memory", "materialized", "streamed", "tiled")


# Every field of the bundles -----------------------------------------------------------


# What rows are scored against, and the fields that it leaves None: fields of the other
# kinds, and options that it does not take.
OF_IDS = {"ignore_index", "margin"}
OF_PLACES = {"label_ids", "label_values"}
OF_TARGETS = {"target_logits", "target_hidden", "target_kernel", "target_bias"}
OF_TARGETS |= {"target_logit_soft_cap"}
OF_LABELS = {"class_weights", "label_smoothing", "z_loss", "pos_weight"}
OF_SEVERAL = {"pos_weight"}  # labels a row
WITHOUT = {
    "ids": OF_PLACES | OF_TARGETS | OF_SEVERAL,
    "distributions": OF_IDS | OF_PLACES | OF_TARGETS | OF_SEVERAL,
    "places": {"labels", "margin"} | OF_TARGETS | OF_SEVERAL,
    **dict.fromkeys(
        ("target", "target in memory", "target of logits in memory"),
        {"labels"} | OF_IDS | OF_PLACES | OF_LABELS,
    ),
    "several": OF_IDS | OF_PLACES | OF_TARGETS | {"z_loss"},
    "several places": {"labels", "margin", "z_loss"} | OF_TARGETS,
}


def fields(rng, *, labels):
    """A value for every field of both bundles that goes with a kind of labels."""
    ids = labels == "ids"
    of_rows: dict[str, Any] = dict(
        logits=rng.normal(size=(ROWS, CLASSES)),
        hidden=rng.normal(size=(ROWS, FEATURES)),
        labels=rng.integers(0, CLASSES - 1, ROWS).astype(np.int32)
        if ids
        else rng.uniform(size=(ROWS, CLASSES)),
        label_ids=rng.integers(0, CLASSES - 1, (ROWS, 2)).astype(np.int32),
        label_values=rng.uniform(size=(ROWS, 2)),
        target_logits=rng.normal(size=(ROWS, CLASSES)),
        target_hidden=rng.normal(size=(ROWS, FEATURES + 1)),
        where=np.array([True, True, False, True]),
        class_where=np.arange(CLASSES)[None] != np.full((ROWS, 1), CLASSES - 1),
        weights=rng.uniform(0.5, 2, ROWS),
        temperature=rng.uniform(0.5, 2, ROWS),
    )
    of_all: dict[str, Any] = dict(
        kernel=rng.normal(size=(FEATURES, CLASSES)),
        bias=rng.normal(size=CLASSES),
        class_weights=rng.uniform(0.5, 2, CLASSES),
        class_mask=np.arange(CLASSES) != CLASSES - 1,
        target_kernel=rng.normal(size=(FEATURES + 1, CLASSES)),
        target_bias=rng.normal(size=CLASSES),
        target_logit_soft_cap=np.float64(2.0),
        ignore_index=np.int32(-100),
        label_smoothing=np.float64(0.1),
        z_loss=np.float64(0.1),
        logit_soft_cap=np.float64(3.0),
        pos_weight=rng.uniform(0.5, 2, CLASSES),
        margin=rng.uniform(0.1, 0.5, CLASSES),
        parameters=(np.float64(0.3),),
        normalizer=np.float64(3.0),
    )
    rows, shared = Rows(**of_rows), Shared(**of_all)
    missing = [
        name
        for bundle in (rows, shared)
        for name, value in bundle._asdict().items()
        if value is None
    ]
    assert not missing, f"give {missing} a value here"

    def fitting(bundle):
        return bundle._replace(**dict.fromkeys(WITHOUT[labels] & {*bundle._fields}))

    return fitting(rows), fitting(shared)


def settings_of(layout, *, labels, formula):
    return Settings(
        axis=1,
        ids=labels == "ids",
        several_labels="several" in labels,
        formula=formula,
        reduction="mean",
        even=labels in ("ids", "distributions", "places"),
        implementation="materialized" if layout == "in memory" else layout,
        tile=2,
        block=2,
    )


def of_layout(layout, labels, rows, shared, formula):
    """The bundles as a layout has them: logits, or what they are made of."""
    if formula in (cross_entropy, kl_divergence, binary_of_logits, zlpr):
        shared = shared._replace(parameters=())
    if formula in (focal_of_logits, zlpr):
        shared = shared._replace(pos_weight=None)
    if formula is zlpr:
        shared = shared._replace(class_weights=None)
    in_memory = {
        "": layout == "in memory" or labels == "target of logits in memory",
        "target_": layout == "in memory" or labels == "target in memory",
    }
    for of, formed in in_memory.items():
        if not formed:
            rows = rows._replace(**{f"{of}logits": None})
            continue
        rows = rows._replace(**{f"{of}hidden": None})
        shared = shared._replace(**{f"{of}kernel": None, f"{of}bias": None})
    return rows, shared


def floating(tree):
    """The floating leaves, None for the others."""
    return jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else None, tree
    )


CONFIGURATIONS = [
    (layout, labels, formula)
    for layout in LAYOUTS
    for labels in ("ids", "distributions", "places")
    for formula in (cross_entropy, focal)
    if not (formula is focal and layout == "streamed")  # it needs every log p
]
CONFIGURATIONS += [
    (layout, "target", formula)
    for layout in LAYOUTS
    for formula in (kl_divergence, jensen_shannon_divergence)
]
CONFIGURATIONS += [
    (layout, labels, formula)
    for labels in ("target in memory", "target of logits in memory")
    for layout, formula in (
        ("streamed", jensen_shannon_divergence),
        ("tiled", kl_divergence),
    )
]
CONFIGURATIONS += [
    (layout, labels, formula)
    for layout in LAYOUTS
    for labels, formula in (
        ("several", focal_of_logits),
        ("several places", binary_of_logits),
        ("several places", zlpr),
    )
]


@pytest.mark.parametrize(
    ("layout", "labels", "formula"),
    CONFIGURATIONS,
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_every_floating_field_has_a_derivative(layout, labels, formula, rng, x64):
    """In every layout, and the one that a central difference finds."""
    pair = of_layout(layout, labels, *fields(rng, labels=labels), formula)
    pair = jax.tree.map(jnp.asarray, pair)
    settings = settings_of(layout, labels=labels, formula=formula)

    def loss(values):
        rows, shared = jax.tree.map(
            lambda v, x: x if v is None else v,
            values,
            pair,
            is_leaf=lambda v: v is None,
        )
        return solve(Problem(settings=settings, rows=rows, shared=shared))

    points = floating(pair)
    both = jax.jit(jax.value_and_grad(loss))
    _, gradients = both(points)
    directions = jax.tree.map(lambda x: rng.normal(size=x.shape), points)
    names = [jax.tree_util.keystr(p) for p, _ in tree_leaves_with_path(points)]

    def moved(field, step):
        """The points, the field of that name moved along its direction."""

        def one(path, x, direction):
            return x + step * direction if jax.tree_util.keystr(path) == field else x

        return jax.tree_util.tree_map_with_path(one, points, directions)

    products = jax.tree.map(lambda g, d: np.sum(g * d), gradients, directions)
    for name, product in zip(names, jax.tree.leaves(products), strict=True):
        assert product, f"{name} has no derivative in the layout {layout}"
        slope = (both(moved(name, 1e-6))[0] - both(moved(name, -1e-6))[0]) / 2e-6
        np.testing.assert_allclose(product, slope, rtol=1e-6, atol=1e-9, err_msg=name)


# Small programs -----------------------------------------------------------------------


def count_equations(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        inner = jax.tree.leaves(
            [*equation.params.values()], is_leaf=lambda x: hasattr(x, "eqns")
        )
        inner = [getattr(x, "jaxpr", x) for x in inner]
        total += 1 + sum(count_equations(x) for x in inner if hasattr(x, "eqns"))
    return total


EVERY_OPTION: dict[str, Any] = {
    "class_weights": jnp.ones(8),
    "class_mask": jnp.ones(8, bool),
    "label_smoothing": 0.1,
    "z_loss": 0.1,
    "logit_soft_cap": 3.0,
    "temperature": jnp.ones(4),
    "weights": jnp.ones(4),
    "where": jnp.ones(4, bool),
    "ignore_index": -100,
    "margin": jnp.full(8, 0.1),
    "normalizer": 3.0,
}
OPERANDS = {"logits", "hidden", "kernel", "bias", "labels", "parameters"}


def test_every_option_of_class_ids_is_in_the_programs():
    """Each field of the pair; a class_where is a where, and the bias is a head's."""
    options = {*Rows._fields, *Shared._fields} - WITHOUT["ids"] - OPERANDS
    assert {*EVERY_OPTION} == options - {"class_where"}


@pytest.mark.newest_jax
@pytest.mark.parametrize(
    ("options", "layout", "most"),
    [
        ({}, None, 180),
        (EVERY_OPTION, None, 610),
        ({}, "tiled", 215),
        ({}, "streamed", 245),
        (EVERY_OPTION, "tiled", 775),
        (EVERY_OPTION, "streamed", 1040),
    ],
    ids=lambda x: ("every option" if x else "plain") if isinstance(x, dict) else str(x),
)
def test_the_first_trace_is_short(options, layout, most):
    """Equations of the value with its gradients, those for each platform among them."""
    labels = jnp.zeros(4, jnp.int32)
    common = {"reduction": "mean"} | options

    def in_memory(logits):
        return jxent.softmax_cross_entropy(logits, labels, **common)

    def fused(hidden, kernel):
        head = {"implementation": layout, "block_sizes": (2, 4)}
        head |= {"bias": jnp.ones(8)} if options else {}
        logits = jxent.LinearLogits(hidden, kernel, **head)
        return jxent.softmax_cross_entropy(logits, labels, **common)

    arrays = (jnp.ones((4, 3)), jnp.ones((3, 8))) if layout else (jnp.ones((4, 8)),)
    both = jax.value_and_grad(fused if layout else in_memory, range(len(arrays)))
    assert count_equations(jax.make_jaxpr(both)(*arrays).jaxpr) <= most


@pytest.mark.newest_jax
@pytest.mark.parametrize("options", [{}, EVERY_OPTION], ids=["plain", "every option"])
def test_a_cpu_forms_exponentials_once(options):
    """For the value and for its derivative, which states them in the same way."""

    def loss(logits):
        labels = jnp.zeros(4, jnp.int32)
        return jxent.softmax_cross_entropy(logits, labels, reduction="mean", **options)

    program = as_users_jit(jax.value_and_grad(loss)).lower(jnp.ones((4, 8))).compile()
    text = str(program.as_text())
    assert len(re.findall(r"f32\[4,8\]\S* exponential\(", text)) == 1


# Plain code ---------------------------------------------------------------------------


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for parts, _, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield ".".join((*parts, node.name)), node


def lines_of_code(node: ast.FunctionDef) -> int:
    """Without docstrings, comments and empty lines."""
    lines = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
            continue  # a docstring
        if isinstance(inner, ast.expr | ast.stmt | ast.arg | ast.keyword):
            lines |= {inner.lineno, inner.end_lineno}
    return len(lines)


def test_no_function_is_long():
    """Sixty lines of code at most."""
    found = {name: lines_of_code(node) for name, node in functions()}
    assert {name: n for name, n in found.items() if n > 60} == {}


def test_no_arguments_by_locals():
    """Arguments are handed on by name."""
    for parts, path, tree in modules():
        names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
        assert "locals" not in names, (parts, path)


def named_tuples(trees) -> set[str]:
    """Classes with a NamedTuple among their bases, or among those of a base."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while new := {n for n in bases if bases[n] & {"NamedTuple", *found}} - found:
        found |= new
    return found


def built_by_place(bundles, path, tree) -> Iterator[str]:
    """Calls of a bundle with an argument that has no name; `_make` has no other."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            if ast.unparse(node.func).rpartition(".")[2] in {*bundles, "_make"}:
                yield f"{path.name}: {ast.unparse(node)}"


def test_bundles_are_built_by_keyword():
    """Fields of a NamedTuple that stand in no order are easily exchanged."""
    files = [(path, tree) for _, path, tree in modules()]
    bundles = named_tuples([tree for _, tree in files])
    assert {"Rows", "Shared", "Settings", "Totals", "SoftmaxStatistics"} <= bundles
    found = {x for path, tree in files for x in built_by_place(bundles, path, tree)}
    assert not found


PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (jxent, jxent.metrics, jxent.torch, jxent.keras)
    for name in module.__all__
}
FUNCTIONS = {name: f for name, f in PUBLIC.items() if inspect.isfunction(f)}
WITH_STATISTICS = {
    name: function
    for name, function in FUNCTIONS.items()
    if "return_statistics" in inspect.signature(function).parameters
}


def test_the_losses_with_statistics_are_found():
    assert {"jxent.softmax_cross_entropy", "jxent.taylor_cross_entropy"} <= {
        *WITH_STATISTICS
    }


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_the_overloads_take_every_option(name):
    """Those of the signature that follows them, with the same types."""
    function = WITH_STATISTICS[name]
    types = typing.get_type_hints(function)
    results = [*map(str, typing.get_args(types.pop("return")))]
    assert types.pop("return_statistics") is bool
    overloads = [typing.get_type_hints(f) for f in typing.get_overloads(function)]
    flags = [hints.pop("return_statistics") for hints in overloads]
    assert flags == [typing.Literal[False], typing.Literal[True]]
    assert [str(hints.pop("return")) for hints in overloads] == results
    for hints in overloads:
        (options,) = typing.get_args(hints.pop("options"))
        assert options is LossOptions
        of_options = typing.get_type_hints(options)
        assert not hints.keys() & of_options.keys()
        assert hints | of_options == types


RESULTS = FUNCTIONS | {
    f"{name}.__call__": vars(kind)["__call__"]
    for name, kind in PUBLIC.items()
    if isinstance(kind, type) and "__call__" in vars(kind)
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_result_has_a_type(name):
    hints = typing.get_type_hints(RESULTS[name])
    assert hints["return"] is not typing.Any
