"""The rule of the tiers: what each draws, and that every run draws the same."""

import collections
import itertools
import os
import re
import string
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.rationing import axes_of, cover, draw, draw_one, pairs_of


PRODUCT = dict(
    zip(
        map(str, range(5 * 4 * 3)),
        itertools.product("abcde", range(1, 5), (False, None, "both")),
        strict=True,
    )
)
# Of the product of losses and layouts, what there is.
TABLE = {
    f"{loss}-{layout}-{option}": (loss, layout, option)
    for loss in string.ascii_lowercase
    for layout in ("memory", "streamed", "tiled")
    for option in (False, True)
    if (layout == "memory" or loss in "aeiou") and (loss != "z" or not option)
}
TESTS = [f"tests/test_of_{name}.py::test_something" for name in string.ascii_letters]
of_both = pytest.mark.parametrize("combinations", [PRODUCT, TABLE], ids=len)


def met(combinations, size):
    """The values, or the pairs of them, that combinations have."""
    return {p for c in combinations for p in itertools.combinations(enumerate(c), size)}


@pytest.mark.every_value
@of_both
@pytest.mark.parametrize("test", TESTS[:5])
def test_a_draw_has_every_value_or_every_pair(test, combinations):
    """Of as few combinations as there are values of an axis, or not many more."""
    wanted = combinations.values()
    values, pairs = draw(test, combinations, 1), draw(test, combinations, 2)
    assert met([combinations[x] for x in values], 1) == met(wanted, 1)
    assert met([combinations[x] for x in pairs], 2) == met(wanted, 2)
    assert values <= pairs <= combinations.keys()
    assert len(values) <= (7 if combinations is PRODUCT else 27)
    assert len(pairs) <= (27 if combinations is PRODUCT else 67)


@pytest.mark.every_value
@of_both
def test_every_run_draws_the_same(combinations):
    """Also where a test is collected in another order."""
    backwards = dict(reversed(combinations.items()))
    for size in (1, 2):
        first = draw(TESTS[0], combinations, size)
        assert first == draw(TESTS[0], backwards, size)
    none = collections.Counter()
    assert draw_one(TESTS[0], combinations, none) == draw_one(TESTS[0], backwards, none)


@pytest.mark.every_value
@of_both
def test_different_tests_draw_different_combinations(combinations):
    """Few tests are enough for their cores to have every pair."""
    drawn = [draw(test, combinations, 1) for test in TESTS]
    assert len({frozenset(core) for core in drawn}) > len(TESTS) // 2
    together = [combinations[x] for core in drawn for x in core]
    assert met(together, 2) == met(combinations.values(), 2)


@of_both
def test_every_pair_is_met_by_few_tests(combinations):
    """Each is drawn for a new pair, as long as there is one."""
    seen, drawn = collections.Counter(), []
    for i in itertools.count():
        new = combinations[draw_one(str(i), combinations, seen)]
        if all(seen[pair] for pair in pairs_of(new)):
            break
        seen.update(pairs_of(new))
        drawn.append(new)
    assert met(drawn, 2) == met(combinations.values(), 2)
    assert len(drawn) <= (27 if combinations is PRODUCT else 67)


def test_a_single_axis_keeps_every_value():
    numbers = {str(i): (i,) for i in range(9)}
    for size in (1, 2):
        assert draw("test", numbers, size) == numbers.keys()


def test_what_covers_nothing_new_is_not_drawn():
    assert cover([("a",), ("a",), ("b",)], 1) == [0, 2]
    assert cover([("a", 1), ("b", 1), ("b", 2)], 2, drawn=[1]) == [1, 0, 2]


def test_axes_are_parameters_or_what_a_value_says():
    """Values are told apart by their type too; dictionaries by their items, and arrays
    by identity."""
    case, array = SimpleNamespace(axes=("loss", True)), np.ones(2)
    assert len(axes_of([case, 1, array])) == 4
    assert axes_of([1]) != axes_of([True])
    assert axes_of([array]) == axes_of([array]) != axes_of([np.ones(2)])
    assert axes_of([{"a": 1, "b": array}]) == axes_of([{"b": array, "a": 1}])
    assert axes_of([{"a": 1}]) != axes_of([{"a": 2}])
    one, other = (SimpleNamespace(kind="focal") for _ in range(2))
    assert axes_of([one]) != axes_of([other])
    assert axes_of([one], kinds=True) == axes_of([other], kinds=True)


# In a run of pytest -------------------------------------------------------------------

SUITE = """
from types import SimpleNamespace

import pytest

over_three_axes = lambda f: pytest.mark.parametrize("a", range(3))(
    pytest.mark.parametrize("b", range(3))(pytest.mark.parametrize("c", range(3))(f))
)

@over_three_axes
def test_rationed(a, b, c): ...

@pytest.mark.keep
@over_three_axes
def test_kept(a, b, c): ...

@pytest.mark.keep("0-0-0", "1-1-1", "2-2-2", "0-1-2")
@over_three_axes
def test_kept_by_name(a, b, c): ...

@pytest.mark.every_value
@over_three_axes
def test_of_every_value(a, b, c): ...

@pytest.mark.every_pair
@over_three_axes
def test_of_every_pair(a, b, c): ...

@pytest.mark.beyond_core
@over_three_axes
def test_beyond_the_core(a, b, c): ...

@pytest.mark.parametrize("a", [0, pytest.param(1, marks=pytest.mark.beyond_core)])
def test_partly_beyond_the_core(a): ...

@pytest.mark.parametrize("a", [0, pytest.param(1, marks=pytest.mark.beyond_core)])
@pytest.mark.parametrize("b", range(3))
def test_an_axis_beyond_the_core(a, b): ...

@pytest.mark.parametrize("a", [SimpleNamespace(kind=i // 2) for i in range(6)])
def test_of_three_kinds(a): ...

def test_without_parameters(): ...
"""


@pytest.fixture
def collected(tmp_path):
    """(options of a run) -> how many combinations of each test of the suite above."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    imports = "from tests.rationing import *"
    (tmp_path / "conftest.py").write_text(imports)

    def run(*options):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *options]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        names = re.findall(r"^test_suite\.py::(?:test_)?(\w+)", done.stdout, re.M)
        return done, collections.Counter(names)

    return run


@pytest.mark.beyond_core
def test_the_tiers_of_a_run(collected):
    """Each part in its own words: how many of three values of three axes it has."""
    core, whole, rest, pairs, full = (
        collected(*options)[1]
        for options in ([], ["--all"], ["--rest"], ["--pairs"], ["--full"])
    )
    of_27 = "rationed kept kept_by_name of_every_value of_every_pair beyond_the_core"
    every = {
        **dict.fromkeys(of_27.split(), 27),
        "partly_beyond_the_core": 2,
        "an_axis_beyond_the_core": 6,
        "of_three_kinds": 6,
        "without_parameters": 1,
    }
    assert full == every
    assert core + rest == whole
    one = dict.fromkeys("rationed of_three_kinds partly_beyond_the_core".split(), 1)
    one |= {"without_parameters": 1, "an_axis_beyond_the_core": 1}
    kept = {"kept": 27, "kept_by_name": 4}
    assert core == one | kept | dict.fromkeys(["of_every_value", "of_every_pair"], 3)
    of_values = {"rationed": 3, "beyond_the_core": 3, "of_three_kinds": 3}
    of_values["an_axis_beyond_the_core"] = 3 + 1
    of_values["of_every_pair"] = whole["of_every_pair"]
    assert 9 <= whole["of_every_pair"] <= 12
    of_values |= {"partly_beyond_the_core": 2, "kept_by_name": whole["kept_by_name"]}
    assert 4 <= whole["kept_by_name"] <= 7
    assert whole == core | of_values
    assert all(whole[name] <= n <= full[name] for name, n in pairs.items())
    for name in ("rationed", "of_every_value", "of_every_pair", "beyond_the_core"):
        assert 9 <= pairs[name] <= 12


@pytest.mark.beyond_core
def test_what_is_asked_for_runs(collected):
    """By node ids each, by a test's name every value, with -k what is left of the core.

    Of the whole these are 0-0-0 to 0-0-2, 1-0-0 and 2-0-0: the first has nothing of its
    own.
    """
    asked = ["0-0-0", "0-0-1", "0-0-2", "0-1-0", "0-1-1"]
    nodes = [f"test_suite.py::test_rationed[{x}]" for x in asked]
    nodes.append("test_suite.py::test_beyond_the_core[1-2-0]")
    assert collected(*nodes)[1] == {"rationed": 5, "beyond_the_core": 1}
    assert collected("test_suite.py::test_rationed")[1] == {"rationed": 3}
    left = ["-k", "test_rationed and 0-0"]
    assert collected(*left)[1] == {"rationed": 1}
    assert collected(*left, "--all")[1] == {"rationed": 4}


@pytest.mark.beyond_core
def test_a_name_to_keep_is_that_of_a_combination(collected, tmp_path):
    path = tmp_path / "test_suite.py"
    path.write_text(SUITE.replace('"0-1-2"', '"0-1-3"'))
    done, _ = collected()
    unknown = "{'test_suite.py::test_kept_by_name[0-1-3]'}"
    assert f"the mark keep names what is no test: {unknown}" in done.stderr
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
