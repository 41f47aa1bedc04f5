"""The docstrings and the README: what they say is so, and their examples run."""

import ast
import contextlib
import doctest
import inspect
import operator
import pydoc
import re

import jax
import jax.numpy as jnp
import pytest

import jxent
from docs.extensions.formulas import CODE, pieces, tex
from docs.extensions.parameters import OPTIONS, with_headings
from docs.extensions.prints import expected_prints, says
from tests import pages
from tests.pages import DOCS, README
from tools import option_sentences


pytestmark = pytest.mark.every_value


@pytest.mark.parametrize(
    ("want", "got", "same"),
    [
        ("0.23954", "0.239541", True),
        ("0.23954", "0.23956", False),
        ("0.23954", "-0.23954", False),
        ("[0.69315 0.     ]", "[0.6931472 0. ]", True),
        ("[0.69315 0.     ]", "[0.6931472 0. 0.]", False),
        ("[2. 0.]", "[ 2.0 0.0]", True),
        ("3", "4", False),
        ("3.0", "3.04", True),
        ("3.0", "3.1", False),
        ("≈ 0.97", "0.93", True),
        ("≈ 0.97", "0.91", False),
        ("1.5e-3", "0.00154", True),
        ("1.5e-3", "0.0016", False),
        ("float32[8]", "float32[8]", True),
        ("float32[8]", "float32[9]", False),
        ("[ True False]", "[True False]", True),
        ("[ True False]", "[True True]", False),
        ("loss 0.5", "lose 0.5", False),
        ("nan", "0.0", False),
        ("[0. 1.]", "[0.4 1.3]", False),
        ("[1000. 0.]", "[1000. 0.]", True),
    ],
)
def test_what_counts_as_the_same(want, got, same):
    """The comparison that the other tests here rest on."""
    assert says(want, got) is same


@pytest.mark.parametrize(
    ("formula", "want"),
    [
        (
            "log p_c = z_c − log Σ_k exp(z_k)",
            r"\log p_{c}=z_{c}-\log \sum_{k}\,\exp (z_{k})",
        ),
        (
            "√(x_b²)   over bins that hold",
            r"\sqrt{x_{b}^{2}}\quad \text{over bins that hold}",
        ),
        (
            "p_m^γ₋ · log_sum,  1e-7",
            r"p_{m}^{\gamma _{-}}\cdot \text{log_sum},\quad 10^{-7}",
        ),
    ],
)
def test_formulas_of_docstrings_as_tex(formula, want):
    assert tex(formula) == want
    assert not CODE.search(formula)


def test_a_formula_in_pieces_for_a_phone():
    """Before what joins two terms, not before a sign, nor inside of two brackets."""
    formula = tex("loss = −(w y log p + (1 − y) log(1 − p)),   p = σ(z)")
    found = pieces(formula)
    assert "".join(found) == formula
    assert [piece[0] for piece in found] == [*r"\=+\="]
    assert found[-2:] == [r"\quad p", r"=\sigma (z)"]


def test_a_long_list_of_parameters_has_headings():
    """None is lost, and each group keeps the order of the signature."""
    lines = (inspect.getdoc(jxent.softmax_cross_entropy) or "").splitlines()
    made = with_headings(lines)
    assert [f"{title}:" for title in OPTIONS if f"{title}:" in made] == [
        line for line in made if line.removesuffix(":") in OPTIONS
    ]
    assert sorted(filter(None, lines)) == sorted(
        line for line in made if line and line.removesuffix(":") not in OPTIONS
    )
    short = ["Args:", "  x: a number.", "  where: a mask.", "", "Returns:", "  x."]
    assert with_headings(short) == short


class Checker(doctest.OutputChecker):
    def check_output(self, want, got, optionflags):
        return says(want, got)


MODULES = {
    "jxent": jxent,
    "jxent.metrics": jxent.metrics,
    "jxent.torch": jxent.torch,
    "jxent.keras": jxent.keras,
}
DOCUMENTED = MODULES | {
    f"{module}.{name}": getattr(values, name)
    for module, values in MODULES.items()
    for name in values.__all__
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_examples(name, capsys):
    """They run with jax, jnp and jxent given, and print what stands below them."""
    value = DOCUMENTED[name]
    given = {"jax": jax, "jnp": jnp, "jxent": jxent}
    text = inspect.getdoc(value) or ""
    test = doctest.DocTestParser().get_doctest(text, given, name, None, None)
    if inspect.isfunction(value) or name.startswith(("jxent.torch.", "jxent.keras.")):
        assert any(example.want for example in test.examples)
    result = doctest.DocTestRunner(Checker(), verbose=False).run(test)
    assert result.failed == 0, capsys.readouterr().out


# What an editor shows -----------------------------------------------------------------

EXPLAINED = [
    (module, name)
    for module, values in MODULES.items()
    for name in values.__all__
    if not issubclass(type(getattr(values, name)), type)
    or "__init__" in vars(getattr(values, name))
]


@pytest.mark.parametrize(("module", "name"), EXPLAINED)
def test_every_option_has_its_sentence(module, name):
    """In the order of the signature, and the same one wherever it means the same.

    `python -m tools.option_sentences` writes them from where they are at home.
    """
    value = getattr(MODULES[module], name)
    sentences = option_sentences.entries(inspect.getdoc(value) or "")
    assert list(sentences) == option_sentences.options(value)
    assert sentences == option_sentences.expected_entries(module, name)
    for text in sentences.values():
        assert text
        assert "as in `" not in text
    # They are copied only where they are true.
    every, signature = " ".join(sentences.values()), str(inspect.signature(value))
    assert "Logits" in signature or "for `LinearLogits`" not in every
    assert "labels" in signature or "Labels stay" not in every
    of_losses = "Of the losses' shape", "the mean and the sum run"
    assert "reduction" in signature or not any(text in every for text in of_losses)
    options = {x for names in OPTIONS.values() for x in names.split() if "_" in x}
    assert options & {*re.findall(r"\w+", every)} <= sentences.keys()


def test_every_function_says_where_its_options_are_explained():
    for module in MODULES:
        known = {*option_sentences.homes(module)}
        known |= {*option_sentences.AT_HOME[module].split()}
        assert known == {name for of, name in EXPLAINED if of == module}


def test_there_is_nothing_to_write():
    """`python -m tools.option_sentences` finds every docstring, decorated ones too."""
    for module in option_sentences.HOMES:
        for name in option_sentences.homes(module):
            path, text = option_sentences.rewritten(module, name)
            assert text == path.read_text(encoding="utf-8"), name
            assert f"\n{option_sentences.MARK}\n" in text, name


@pytest.mark.parametrize(("module", "name"), EXPLAINED)
def test_help_shows_the_signature_as_written(module, name):
    """One argument a line, its annotation as in the source."""
    value = getattr(MODULES[module], name)
    signature = inspect.signature(value)
    assert str(signature) in re.sub(
        r"^ \|  ", "", pydoc.plain(pydoc.render_doc(value)), flags=re.MULTILINE
    )
    lines = str(signature).splitlines()
    if len(lines) > 1:
        shown = [line.strip(" ,").partition(":")[0] for line in lines[1:-1]]
        assert [name for name in shown if name != "*"] == list(signature.parameters)
    assert "Union" not in str(signature)
    assert max(map(len, lines)) <= 88


# Pages --------------------------------------------------------------------------------

PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def named(tree):
    """What a cell assigns or defines; not what it imports."""
    stored = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return stored | {getattr(node, "name", "") for node in tree.body}


@pytest.mark.parametrize("page", PAGES)
def test_what_the_cells_of_a_page_use_is_shown(page):
    """Whoever copies the visible cells misses the imports, and nothing else."""
    hidden, shown = set(), set()
    for block in filter(operator.attrgetter("cell"), pages.blocks(DOCS / page)):
        tree = ast.parse(block.source)
        if re.search(r"hide-input|remove", block.options):
            hidden |= named(tree)
            continue
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        shown |= named(tree)
        assert not used & hidden - shown


# README -------------------------------------------------------------------------------


def test_the_oldest_jax_is_the_same_wherever_it_is_named():
    pyproject = (README.parent / "pyproject.toml").read_text(encoding="utf-8")
    oldest = re.findall(r'"jax>=([0-9.]+)"', pyproject)[0]
    assert f"oldest supported JAX ({oldest})" in README.read_text(encoding="utf-8")
    versions = (DOCS / "versions.md").read_text(encoding="utf-8")
    assert f"| JAX | {oldest} and newer |" in versions


def test_readme(tmp_path, monkeypatch, as_users_have_it):
    """Its blocks run from top to bottom in one namespace, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    names, found = {"__name__": "__main__"}, pages.blocks(README)
    for block in found:
        pages.run(block, names)
    assert any(expected_prints(block.source) for block in found)
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize(
    ("source", "fails"),
    [
        ("x = 2.0\nprint(x / 3)  # 0.667\n", False),
        ("print([[1], [2]])\n# [[1],\n#  [2]]\n", False),
        ("print([[1], [2]])\n# [[1],\n#  [3]]\n", True),
        ("x = 2.0\nprint(x / 3)  # 0.668\n", True),
        ("print(\n    [1, 2],\n)  # [1, 2]\n", False),
        ("print(\n    [1, 2],\n)  # [1, 3]\n", True),
        ("print('é')  # é\n", False),
        ("2 + 1  # 3\n", True),
        ("print('é')  # e\n", True),
    ],
)
def test_readme_results_are_compared(source, fails):
    """A print with another result than its comment fails."""
    with pytest.raises(AssertionError) if fails else contextlib.nullcontext():
        pages.run(pages.Block(True, None, "", source, 0, "a page"), {})
