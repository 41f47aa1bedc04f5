"""Every example of the docstrings and of the README runs and prints what it says."""

import ast
import contextlib
import doctest
import inspect
import io
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jxent
from tests import reference


README = Path(__file__).parent.parent / "README.md"
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?!\w)")


def tolerance(number):
    """Half a unit of the last digit written, and a little; 0 for an integer."""
    digits, _, exponent = number.lower().partition("e")
    if "." not in digits and not exponent:
        return 0.0
    decimals = len(digits.partition(".")[2])
    return 0.51 * 10.0 ** (int(exponent or 0) - decimals)


def says(want, got):
    """Whether `got` is what `want` says, numbers to the precision that is written.

    White space counts only between words.
    """

    def words(text):
        text = re.sub(r"([\[\](),{}])", r" \1 ", NUMBER.sub(" # ", text))
        return text.split()

    if words(want) != words(got):
        return False
    pairs = zip(NUMBER.findall(want), NUMBER.findall(got), strict=True)
    return all(abs(float(a) - float(b)) <= tolerance(a) for a, b in pairs)


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
        ("1.5e-3", "0.00154", True),
        ("1.5e-3", "0.0016", False),
        ("float32[8]", "float32[8]", True),
        ("float32[8]", "float32[9]", False),
        ("[ True False]", "[True False]", True),
        ("[ True False]", "[True True]", False),
        ("loss 0.5", "lose 0.5", False),
        ("nan", "0.0", False),
    ],
)
def test_what_counts_as_the_same(want, got, same):
    """The comparison that the other tests here rest on."""
    assert says(want, got) is same


class Checker(doctest.OutputChecker):
    def check_output(self, want, got, optionflags):
        return says(want, got)


@pytest.mark.parametrize("name", ["jxent", *jxent.__all__])
def test_docstring_examples(name, capsys):
    """They run with jax, jnp and jxent given, and print what stands below them."""
    value = getattr(jxent, name, jxent)
    given = {"jax": jax, "jnp": jnp, "jxent": jxent}
    text = inspect.getdoc(value) or ""
    test = doctest.DocTestParser().get_doctest(text, given, name, None, None)
    if inspect.isfunction(value):
        assert any(example.want for example in test.examples)
    result = doctest.DocTestRunner(Checker(), verbose=False).run(test)
    assert result.failed == 0, capsys.readouterr().out


# README -------------------------------------------------------------------------------


def blocks():
    """The python blocks of the README, each at its own line, and where they begin."""
    text = README.read_text(encoding="utf-8")
    for block in re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```\s*$", text, re.M | re.S):
        if block[1] == "python":
            yield text[: block.start(2)].count("\n"), block[2]


def expected_prints(source):
    """Lines of statements that end in `# text` after a print: {first line: text}."""
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        assert node.end_lineno is not None
        last = lines[node.end_lineno - 1]
        assert node.end_col_offset is not None
        rest = last.encode()[node.end_col_offset :].decode().strip()
        if ast.unparse(node).startswith("print(") and rest.startswith("#"):
            found[node.lineno] = rest.lstrip("# ").removeprefix("->").strip()
    return found


def run(first, source, names):
    """Runs a block statement by statement, and compares what is printed."""
    wanted = expected_prints(source)
    for node in ast.parse(source).body:
        module = ast.Module([node], [])
        ast.increment_lineno(module, first)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(module, README.name, "exec"), names)
        text = wanted.pop(node.lineno - first, None)
        if text is not None:
            where = f"{README.name}, line {node.lineno}"
            assert says(text, printed.getvalue()), f"{where}: {printed.getvalue()}"
    assert not wanted


def test_readme(tmp_path, monkeypatch):
    """Its blocks run from top to bottom in one namespace, in an empty directory."""
    found = list(blocks())
    assert found, "README has no python blocks"
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    # Readers have JAX's defaults.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for first, source in found:
            run(first, source, names)
    prints = [text for _, source in found for text in expected_prints(source).values()]
    assert prints, "README shows no results"


def test_reference():
    """It is that of today's signatures: `python -m tests.reference` writes it."""
    text = README.read_text(encoding="utf-8")
    assert text.count("\n## Reference\n") == 1
    assert reference.placed(text) == text


def test_reference_names_everything():
    """Each public function, and each of its parameters."""
    text = reference.section()
    for name, function in inspect.getmembers(jxent, inspect.isfunction):
        if not name.startswith("_"):
            assert re.search(rf"\b{name}\b", text)
            for parameter in inspect.signature(function).parameters:
                assert re.search(rf"[`( ]{parameter}\b", text)


@pytest.mark.parametrize(
    ("source", "fails"),
    [
        ("x = 2.0\nprint(x / 3)  # 0.667\n", False),
        ("x = 2.0\nprint(x / 3)  # -> 0.667\n", False),
        ("x = 2.0\nprint(x / 3)  # 0.668\n", True),
        ("print(\n    [1, 2],\n)  # [1, 2]\n", False),
        ("print(\n    [1, 2],\n)  # [1, 3]\n", True),
        ("print('é')  # é\n", False),
        ("print('é')  # e\n", True),
    ],
)
def test_readme_results_are_compared(source, fails):
    """A print with another result than its comment fails."""
    with pytest.raises(AssertionError) if fails else contextlib.nullcontext():
        run(0, source, {})
