"""The names, their documentation, and how the package is put together."""

import ast
import functools
import importlib
import importlib.metadata
import importlib.resources
import inspect
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jxent
from jxent._checks.words import SHORT


pytestmark = pytest.mark.every_value


PACKAGE = Path(inspect.getfile(jxent)).parent
REPOSITORY = Path(__file__).parent.parent

# Each imports only from those before it.
LAYERS = [
    "_signatures",
    "_arrays",
    "_compute",
    "_checks",
    "_sums",
    "_reduction",
    "_not_an_array",
    "_linear_logits",
    "_problem",
    "_statistics",
    "_formulas",
    "_tiles",
    "_layouts",
    "_targets",
    "_solve",
    "_labels",
    "_softmax",
    "_sigmoid",
    "_contrastive",
    "_probabilities",
    "_measures",
    "_calibration",
    "metrics",
    "torch",
    "keras",
]
PUBLIC_MODULES = {"metrics", "torch", "keras"}


def public_names():
    return {
        name
        for name, value in vars(jxent).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }


def test_all_is_sorted_and_complete():
    """`__all__` lists exactly the public names, classes first, as Python sorts them."""
    for face in FACES.values():
        assert list(face.__all__) == sorted({*face.__all__})
    assert set(jxent.__all__) - PUBLIC_MODULES == public_names()


def test_no_module_is_public_by_accident():
    """Only underscored modules, and the faces that are meant to be imported."""
    for name, value in vars(jxent).items():
        if inspect.ismodule(value) and value.__name__.startswith("jxent."):
            assert name.startswith("_") or name in PUBLIC_MODULES


FACES = {
    "jxent": jxent,
    "jxent.metrics": jxent.metrics,
    "jxent.torch": jxent.torch,
    "jxent.keras": jxent.keras,
}


HINTS = """\
jxent cross_entropy: Did you mean taylor_cross_entropy or \
binary_cross_entropy or softmax_cross_entropy?
jxent Softmax_Crossentropy: Did you mean softmax_cross_entropy or
jxent reliability_bins: Did you mean jxent.metrics.reliability_bins?
jxent top_k_accuracy: Did you mean jxent.metrics.top_k_accuracy?
jxent reliability_bin: Did you mean jxent.metrics.reliability_bins or
jxent acuracy: Did you mean jxent.metrics.accuracy or
jxent tourch: Did you mean torch?
jxent linear_regression: It has LinearLogits, LossSums,
jxent metric: Did you mean metrics?
jxent bce: Did you mean sigmoid_binary_cross_entropy or binary_cross_entropy?
jxent bce_with_logits: Did you mean sigmoid_binary_cross_entropy?
jxent CE: Did you mean softmax_cross_entropy?
jxent kl_div: Did you mean softmax_kl_divergence or kl_divergence?
jxent info_nce: Did you mean contrastive_cross_entropy?
jxent ece: Did you mean jxent.metrics.calibration_error?
jxent.metrics ppl: Did you mean perplexity?
jxent.keras bce: Did you mean binary_crossentropy?
jxent.torch bce_with_logits: Did you mean binary_cross_entropy_with_logits?
jxent.metrics accuracies: Did you mean accuracy
jxent.torch BCEWithLogits: Did you mean BCEWithLogitsLoss or BCELoss?
jxent.torch nn: It has BCELoss, BCEWithLogitsLoss, CrossEntropyLoss,
jxent.keras losses: It has BinaryCrossentropy,
jxent.keras categorical_cross_entropy: Did you mean categorical_crossentropy or
"""


@pytest.mark.parametrize("line", HINTS.strip("\n").split("\n"))
def test_a_name_that_is_not_there(line):
    """The error names the nearest that are, or all; hasattr and getattr go on."""
    named, _, hint = line.partition(": ")
    module, name = named.split()
    face = FACES[module]
    with pytest.raises(AttributeError) as error:
        getattr(face, name)
    start = f"module {module!r} has no attribute {name!r}. {hint}"
    assert str(error.value).startswith(start)
    assert not hasattr(face, name)
    assert getattr(face, name, None) is None


TAKES = "Losses and metrics take LinearLogits in place of logits: call "
OF_HEAD = "(LinearLogits(hidden, kernel, bias), "


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("softmax_cross_entropy", f"softmax_cross_entropy{OF_HEAD}…)"),
        ("sigmoid_focal_loss", f"sigmoid_focal_loss{OF_HEAD}labels, axis=-1)"),
        ("asymmetric_loss", f"asymmetric_loss{OF_HEAD}labels, axis=-1)"),
        (
            "softmax_plan",
            "plan(softmax_cross_entropy)(LinearLogits(hidden, kernel), labels)",
        ),
        ("accuracy", f"accuracy{OF_HEAD}…)"),
    ],
)
def test_the_names_of_a_family_for_products_are_gone(name, call):
    """The error spells the call that takes their place."""
    module = "jxent.metrics" if name == "accuracy" else "jxent"
    with pytest.raises(AttributeError) as error:
        getattr(FACES[module], f"linear_{name}")
    text = f"module {module!r} has no attribute 'linear_{name}'. {TAKES}{call}."
    assert str(error.value) == text


def test_short_names_stand_for_public_ones():
    names = {name for face in FACES.values() for name in face.__all__}
    for short, meant in SHORT.items():
        assert {*meant} <= names, short


def test_the_subpackages_are_listed():
    """`dir` shows them before they are loaded."""
    code = "import jxent; print(*dir(jxent)); print(*vars(jxent))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    shown, loaded = map(str.split, result.stdout.splitlines())
    assert PUBLIC_MODULES <= {*shown}
    assert not PUBLIC_MODULES & {*loaded}
    assert {*jxent.__all__} <= {*dir(jxent)}


def test_version():
    """`__version__` is the installed distribution's."""
    assert jxent.__version__ == importlib.metadata.version("jxent")


def test_types_are_shipped():
    """py.typed lies in the package, so that type checkers read the annotations."""
    assert importlib.resources.files("jxent").joinpath("py.typed").is_file()


# Documentation ------------------------------------------------------------------------

FUNCTIONS = {
    name: value
    for face in (jxent, jxent.metrics)
    for name in face.__all__
    if inspect.isfunction(value := getattr(face, name))
}
OPTIONS = {p for f in FUNCTIONS.values() for p in inspect.signature(f).parameters}
SECTIONS = ["Args", "Returns", "Numerics", "Raises", "Example", "Source", "See also"]
SECTIONS_OF_FACES = ["Args", "Returns", "Differences", "Example", "Source", "See also"]
# Named after nothing in the literature, or without a number to speak of.
WITHOUT = {"reduce": {"Source"}, "next_token_labels": {"Numerics"}}


def sections_of(name):
    text = inspect.getdoc(FUNCTIONS.get(name) or getattr(jxent, name)) or ""
    found = re.findall(r"^([A-Z][A-Za-z ]*):$", text, re.MULTILINE)
    return text, found


@pytest.mark.parametrize("face", [jxent.torch, jxent.keras])
def test_the_docstrings_of_a_face_have_their_sections(face):
    for function in (getattr(face, name) for name in face.__all__):
        text = inspect.getdoc(function) or ""
        found = re.findall(r"^([A-Z][A-Za-z ]*):$", text, re.MULTILINE)
        assert inspect.isclass(function) or found == SECTIONS_OF_FACES


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_docstring_has_its_sections(name):
    """One line first, then the sections in one order."""
    text, found = sections_of(name)
    first, _, rest = text.partition("\n")
    assert first.endswith(".")
    assert not rest or rest.startswith("\n")
    expected = [s for s in SECTIONS if s not in WITHOUT.get(name, ())]
    assert found == expected


@pytest.mark.parametrize(
    "name", ["Plan", "LossSums", "SparseLabels", "SoftmaxStatistics"]
)
def test_the_fields_of_a_bundle_are_documented(name):
    """Each field has its line under Attributes, in their order."""
    text, _ = sections_of(name)
    attributes = text.partition("Attributes:\n")[2].partition("\n\n")[0]
    fields = re.findall(r"^  (\w+): ", attributes, re.MULTILINE)
    assert tuple(fields) == getattr(jxent, name)._fields


METHODS = {
    "SoftmaxStatistics": ("lse", "log_prob", "entropy"),
    "Plan": ("temporary_bytes",),
    "LinearLogits": ("shape", "ndim", "dtype", "replace", "materialize", "__getitem__"),
}


def test_properties_and_methods_are_documented():
    """And the sections of their classes: each argument has its line in test_docs."""
    for name, methods in METHODS.items():
        for method in methods:
            assert inspect.getdoc(getattr(getattr(jxent, name), method)), (name, method)
        of_head = [s for s in SECTIONS if s != "Returns"]
        wanted = of_head if name == "LinearLogits" else ["Attributes"]
        assert sections_of(name)[1] == wanted


@pytest.mark.parametrize("module", FACES)
def test_references_lead_somewhere(module):
    """What stands under See also is a public name or an option."""
    face = importlib.import_module(module)
    found = 0
    for name in face.__all__:
        value = getattr(face, name)
        text = (inspect.getdoc(value) or "").partition("\nSee also:\n")[2]
        for reference in re.findall(r"`([\w.]+)`", text):
            found += 1
            there = jxent if reference.startswith("jxent.") else face
            names = reference.removeprefix("jxent.").split(".")
            public = functools.reduce(lambda x, n: getattr(x, n, None), names, there)
            assert public is not None or reference in OPTIONS, (name, reference)
    assert found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_documented_and_annotated(name):
    """Each parameter has a type, and a place in Args; the result has a type."""
    signature = inspect.signature(FUNCTIONS[name])
    assert signature.return_annotation is not inspect.Signature.empty
    text, _ = sections_of(name)
    listed = text.partition("Args:\n")[2].partition("\nReturns:")[0]
    entries = re.findall(r"^  (\w[\w,\s]*?):\s", listed, re.MULTILINE)
    documented = {n.strip() for entry in entries for n in entry.split(",")}
    assert documented == set(signature.parameters)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty


def test_one_option_has_one_default():
    """The same option means the same in every function that has it."""
    defaults = {}
    for name, function in FUNCTIONS.items():
        for parameter in inspect.signature(function).parameters.values():
            defaults.setdefault(parameter.name, {})[name] = parameter.default
    allowed = {
        "axis": {  # all axes; none
            "reduce",
            "sigmoid_binary_cross_entropy",
            "sigmoid_focal_loss",
            "asymmetric_loss",
        },
        "reduction": {"reduce"},  # the mean
        "alpha": {"symmetric_cross_entropy"},  # not a balance of yes and no
        "beta": {  # not a mixture's share
            "class_weights_of_counts",
            "symmetric_cross_entropy",
        },
        "entropy": set(),
        "temperature": {
            "supervised_contrastive_cross_entropy",
            "ntxent",
        },  # the papers'
        # the id it writes; what pads the ids that a sampler kept
        "ignore_index": {"next_token_labels", "softmax_log_prob_among"},
    }
    for option, by_function in defaults.items():
        values = {
            repr(value)
            for name, value in by_function.items()
            if name not in allowed.get(option, ())
            and value is not inspect.Parameter.empty
        }
        assert len(values) <= 1, (option, by_function)


# Modules ------------------------------------------------------------------------------


def modules():
    """Dotted names below the package, and their syntax trees."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        yield parts, path, ast.parse(path.read_text(encoding="utf-8"))


def imports_of(parts, path, tree):
    """What a module imports from the package, as dotted names below it."""
    here = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = here[: len(here) - node.level + 1]
            elif (node.module or "").split(".")[0] == "jxent":
                base = ()
            else:
                continue
            inside = tuple((node.module or "").removeprefix("jxent").split("."))
            base += tuple(part for part in inside if part)
            for name in node.names:
                yield base + (name.name,)
        elif isinstance(node, ast.Import):
            for name in node.names:
                first, *rest = name.name.split(".")
                if first == "jxent":
                    yield tuple(rest)


def graph():
    """Edges between modules: who imports whom."""
    found = list(modules())
    known = {parts for parts, *_ in found}
    edges = {}
    for parts, path, tree in found:
        targets = set()
        for target in imports_of(parts, path, tree):
            while target not in known:  # a name in a module, not a module
                target = target[:-1]
            targets.add(target)
        edges[parts] = targets
    return edges


def test_every_module_has_a_layer():
    """A new part says where it stands."""
    assert {parts[0] for parts, *_ in modules() if parts} <= set(LAYERS)


def test_imports_go_one_way():
    """A part imports only from the parts before it."""
    for parts, targets in graph().items():
        if not parts:
            continue
        for target in targets:
            if not target:
                pytest.fail(f"{'.'.join(parts)} imports the package's own face")
            if target[0] != parts[0]:
                assert LAYERS.index(target[0]) < LAYERS.index(parts[0]), (parts, target)


def test_imports_have_no_cycle():
    """Module by module, inside packages too."""
    edges = graph()
    done, path = set(), []

    def visit(node):
        assert node not in path, path[path.index(node) :]
        if node in done:
            return
        path.append(node)
        for target in edges[node]:
            visit(target)
        done.add(path.pop())

    for node in edges:
        visit(node)
    assert done == set(edges)


def test_import_brings_in_nothing_but_jax():
    """`import jxent` loads no framework, and no package that JAX does not load."""
    loaded = "{m.split('.')[0] for m in sys.modules if m.split('.')[0] not in known}"
    code = (
        "import sys; import jax, jax.numpy, jax.experimental.checkify; "
        "known = {m.split('.')[0] for m in sys.modules} | sys.stdlib_module_names; "
        f"import jxent; print(*sorted({loaded}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert set(result.stdout.split()) <= {"jxent", "jaxtyping", "wadler_lindig"}


def test_a_copied_folder_works(tmp_path):
    """Where no installer knows the package, its version is unknown, and no more."""
    shutil.copytree(REPOSITORY / "jxent", tmp_path / "jxent")
    code = (
        "import importlib.metadata as metadata, jax.numpy as jnp\n"
        "of = metadata.version\n"
        "def version(name):\n"
        "    if name == 'jxent': raise metadata.PackageNotFoundError(name)\n"
        "    return of(name)\n"
        "metadata.version = version\n"
        "import jxent\n"
        "print(jxent.__version__, jxent.__file__)\n"
        "print(jxent.softmax_cross_entropy(jnp.zeros(4), jnp.array(0)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    first, loss = result.stdout.splitlines()
    assert first == f"unknown {tmp_path / 'jxent' / '__init__.py'}"
    assert abs(float(loss) - math.log(4)) < 1e-6


def sources():
    for folder in ("jxent", "tests", "tools", "examples", "benchmarks"):
        yield from sorted((REPOSITORY / folder).rglob("*.py"))


# What the library can do without: tests/test_reported_labels.py takes it away.
PRIVATE = [("bad_labels.py", "jax._src.checkify.error_checks")]


def test_no_private_module_of_jax_is_imported():
    """Anywhere, but for one name: what JAX keeps to itself may go with any release."""
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            found += [
                (path.name, name)
                for name in names
                if re.match(r"(jax|jaxlib)\b.*\._(?!_)", name)
            ]
    assert len(list(sources())) > 10
    assert found == PRIVATE
