"""How the package is built: small programs, rooms with few doors, plain code."""

import ast
import inspect
import io
import re
import textwrap
import tokenize
import typing
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from jxent import _formulas
from jxent._solve.call import RowOptions, Scores
from jxent._statistics.statistic import Statistic
from jxent._targets.given import Given
from jxent._targets.target import Target
from tests.compiling import as_users_jit
from tests.test_api import imports_of, modules


def subclasses(kind: type) -> Iterator[type]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


# Those that are made, not the recipes that they share.
TARGETS = [k for k in subclasses(Target) if "__dataclass_params__" in vars(k)]
STATISTICS = [k for k in subclasses(Statistic) if "__dataclass_params__" in vars(k)]


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
    "class_weights": np.ones(8, np.float32),
    "class_mask": np.ones(8, bool),
    "label_smoothing": 0.1,
    "z_loss": 0.1,
    "logit_soft_cap": 3.0,
    "temperature": np.ones(4, np.float32),
    "weights": np.ones(4, np.float32),
    "where": np.ones(4, bool),
    "ignore_index": -100,
    "margin": np.full(8, 0.1, np.float32),
    "normalizer": 3.0,
}


def test_every_option_of_class_ids_is_in_the_programs():
    others = {"logits", "labels", "axis", "reduction"}
    others |= {"class_axis_name", "batch_axis_name"}
    options = inspect.signature(jxent.softmax_cross_entropy).parameters
    assert {*EVERY_OPTION} == {*options} - others


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


# Rooms --------------------------------------------------------------------------------

# What the parts of a statistic have in common; the other modules hold one each.
PROTOCOL = {"statistic", "inputs", "block", "totals", "tangent"}
FORMULAS = {
    name
    for name, value in vars(_formulas).items()
    if getattr(value, "__module__", "") == _formulas.__name__
    and (inspect.isfunction(value) or type(value) is _formulas.OfTwo)
}


def names_in(tree) -> set[str]:
    """Everything that a module names: in code, not in docstrings."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found |= {*node.name.split("."), node.asname or ""}
    return found


def test_one_module_chooses_by_platform():
    """So that tests can have a CPU run what other platforms run."""
    by_hand = {"platform_dependent", "default_backend", "jax_default_device"}
    for parts, path, tree in modules():
        if parts != ("_compute", "platform"):
            assert not names_in(tree) & by_hand, path.name
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            if ast.unparse(call.func).endswith("register_lowering"):
                assert "platform" not in {k.arg for k in call.keywords}, path.name


def test_layouts_know_no_statistic_target_or_loss():
    """Neither by an import nor by a name: they take whatever a problem holds."""
    kinds = {kind.__name__ for kind in (*STATISTICS, *TARGETS)} | FORMULAS
    assert {"AtIds", "Expected", "Softmax", "Ids", "cross_entropy", "focal"} <= kinds
    layouts = [m for m in modules() if m[0][:1] == ("_layouts",)]
    assert len(layouts) > 3
    for parts, path, tree in layouts:
        for room, *names in imports_of(parts, path, tree):
            assert room not in ("_formulas", "_targets", "_solve"), path.name
            assert room != "_statistics" or names[0] in PROTOCOL, (path.name, names)
        assert not names_in(tree) & kinds, path.name


def test_the_protocol_knows_no_statistic():
    """One that is added is known to its own file, and to who asks for it."""
    kinds = {kind.__name__ for kind in STATISTICS}
    for parts, path, tree in modules():
        if parts[0:1] == ("_statistics",) and path.stem in PROTOCOL:
            assert not names_in(tree) & kinds, path.name


MACHINERY = ("_problem", "_statistics", "_targets", "_layouts", "_solve", "_tiles")
# Words of one kind of statistic, target or loss; and the modules that are about it.
WORDS = {
    "SecondSoftmax": {"second_softmax"},
    "second": {"second_softmax", "second_pass", "softmax"},
    "Second": {"second_softmax"},
    "cross": {"second_softmax"},
    "mixture": set(),
    "TopK": {"top_k"},
    "top": {"top_k"},
    "Expected": {"expected"},
    "expected": {"expected"},
    "Evenly": {"evenly"},
    "evenly": {"evenly"},
    "even": {"evenly"},
    "Argmax": {"argmax"},
    "argmax": {"argmax"},
    "UnderLabels": {"under_labels"},
    "AtIds": {"at_ids"},
}


def words_of(path) -> set[str]:
    """The parts of all identifiers: `top` and `k` of `top_k`."""
    lines = io.StringIO(path.read_text(encoding="utf-8")).readline
    tokens = [t for t in tokenize.generate_tokens(lines) if t.type == tokenize.NAME]
    return {word for token in tokens for word in token.string.split("_")}


def test_a_word_of_one_kind_stands_in_few_files():
    """In three of the machinery at most, beside those of the kind."""
    files = {
        path: words_of(path) for p, path, _ in modules() if p[:1] and p[0] in MACHINERY
    }
    for word, own in WORDS.items():
        found = [p.name for p, words in files.items() if word in words]
        assert not own or found, f"nothing is called {word} any more"
        others = [name for name in found if name.removesuffix(".py") not in own]
        assert len(others) <= 3, (word, others)


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


def test_no_module_is_long():
    """350 lines at most."""
    lines = {
        str(path): len(path.read_text(encoding="utf-8").splitlines())
        for _, path, _ in modules()
    }
    assert len(lines) > 100
    assert {name: n for name, n in lines.items() if n > 350} == {}


def top_level_names(tree) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (x.id for x in targets if isinstance(x, ast.Name))


# Top-level names that stand in two rooms, and why; five at most.
IN_TWO_ROOMS = {
    "BlockSizes": "what a user gives: rows and classes of a head, columns of pairs",
    "Implementation": "what a user gives: layouts of a head, those of pairs",
    "Rows": "of a problem; and what a user calls the rows of `sum_over_tiles`",
    "kl_divergence": "Optax's function of probabilities, and the formula of logits",
    "generalized": "the formula in log p, and that in p, which may be 0",
}
# Their names are PyTorch's, Keras's and the language's.
FACES = {"torch", "keras"}


def test_a_name_stands_in_one_room():
    """Two things never share a name."""
    rooms: dict[str, set[str]] = {}
    for parts, _, tree in modules():
        if parts and parts[0] not in FACES:
            for name in top_level_names(tree):
                rooms.setdefault(name, set()).add(parts[0])
    two = {n for n, where in rooms.items() if len(where) > 1 and n[:2] != "__"}
    assert two == {*IN_TWO_ROOMS}
    assert len(IN_TWO_ROOMS) <= 5


def test_no_arguments_by_locals():
    """Arguments are handed on by name."""
    for parts, path, tree in modules():
        names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
        assert "locals" not in names, (parts, path)


def bundles_of(trees) -> set[str]:
    """Classes with a NamedTuple among their bases, or among those of a base; and the
    dataclasses that are registered as pytrees, or are fields of one."""
    classes = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for node in classes
    }
    found: set[str] = set()
    while new := {n for n in bases if bases[n] & {"NamedTuple", *found}} - found:
        found |= new
    return found | {
        node.name
        for node in classes
        for decorator in node.decorator_list
        if re.search(r"register_dataclass|^bundle$", ast.unparse(decorator))
    }


# The parts of a problem are bundles of different kinds, which cannot be exchanged in
# silence; hidden states and kernel stand in the order of their product.
# For the parts of a call see the test below.
IN_AN_ORDER = {"Problem", "LinearLogits", "Scores", "RowOptions"}


def built_by_place(bundles, path, tree) -> Iterator[str]:
    """Calls of a bundle with an argument that has no name; `_make` has no other."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            if ast.unparse(node.func).rpartition(".")[2] in {*bundles, "_make"}:
                yield f"{path.name}: {ast.unparse(node)}"


def test_bundles_are_built_by_keyword():
    """Fields that stand in no order are easily exchanged."""
    files = [(path, tree) for _, path, tree in modules()]
    bundles = bundles_of([tree for _, tree in files])
    known = {"Rows", "Shared", "RowLogits", "Head", "Settings", "SoftmaxStatistics"}
    known |= {"Totals", "Inputs", "Ids", "SeveralIds", "Problem"}
    assert known <= bundles
    bundles -= IN_AN_ORDER
    found = {x for path, tree in files for x in built_by_place(bundles, path, tree)}
    assert not found


PARTS: dict[str, tuple[str, ...]] = {
    kind.__name__: tuple(inspect.signature(kind).parameters)
    for kind in (Scores, RowOptions, *subclasses(Given))
}
# Arguments whose names differ from those of their fields.
OF_OTHER_NAMES = {("logits", "probs")}


def test_each_argument_stands_under_its_field():
    """In the parts of a call, whose positions a type checker cannot tell apart."""
    found = 0
    for _, path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PARTS:
                fields = PARTS[ast.unparse(node.func)]
                pairs = [*zip(fields, node.args, strict=False)]
                pairs += [(str(k.arg), k.value) for k in node.keywords]
                for field, value in pairs:
                    name, found = ast.unparse(value), found + 1
                    same = name in (field, "None") or (field, name) in OF_OTHER_NAMES
                    assert same, f"{path.name}: {name} stands for {field}"
    assert found > 300


def test_an_option_stands_in_one_part():
    """A call hands each of its arguments to one part, or to none."""
    for function in FUNCTIONS.values():
        source = ast.parse(textwrap.dedent(inspect.getsource(function)))
        names = [
            ast.unparse(value)
            for node in ast.walk(source)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PARTS
            for value in (*node.args, *(k.value for k in node.keywords))
        ]
        twice = {name for name in names if names.count(name) > 1}
        assert not twice - {"None"}, function.__name__


PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (jxent, jxent.metrics, jxent.torch, jxent.keras)
    for name in module.__all__
}
FUNCTIONS = {name: f for name, f in PUBLIC.items() if inspect.isfunction(f)}


@pytest.mark.every_value
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_one_signature(name):
    """Which an editor shows whole: no overloads, and no options without names."""
    assert not typing.get_overloads(FUNCTIONS[name])
    kinds = {p.kind for p in inspect.signature(FUNCTIONS[name]).parameters.values()}
    assert inspect.Parameter.VAR_POSITIONAL not in kinds
    assert inspect.Parameter.VAR_KEYWORD not in kinds


RESULTS = FUNCTIONS | {
    f"{name}.__call__": vars(kind)["__call__"]
    for name, kind in PUBLIC.items()
    if isinstance(kind, type) and "__call__" in vars(kind)
}


@pytest.mark.every_value
@pytest.mark.parametrize("name", RESULTS)
def test_the_result_has_a_type(name):
    hints = typing.get_type_hints(RESULTS[name])
    assert hints["return"] is not typing.Any
