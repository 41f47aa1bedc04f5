"""Which combinations of its parameters a test runs with: four tiers by one rule.

The axes of a test are its parameters, as `pytest.mark.parametrize` names them. A value
with a tuple `axes`, such as a case of the table, stands for several axes.

- The core runs each test once, with the combination that has most pairs of values that
  no such test before it in its file has met.
- With `--all` each test meets every value of each axis, or one of each `kind` where
  values have that: the losses of a kind differ by their formula alone.
- With `--pairs` it meets every pair of values that any of its combinations has.
- With `--full` it meets every combination.

Each tier contains the one before it. The test's name decides between combinations that
are equally good: every run draws the same, and different tests draw different ones.

The rule covers greedily what pytest has collected after `-k`, `-m` and paths. A library
of covering arrays draws from the product of the axes with a predicate for the valid
combinations, and most are not: no loss has every kind of labels in every layout. On the
table in `cases`, allpairspy 2.5.1 misses 34 of the 188 pairs that there are.

With `pytest.mark.every_value` a test meets every value in the core too: tests that
compile nothing do, and that of dropped rows. With `every_pair` it meets every value in
the core, of whatever kind, and every pair with `--all`, as the comparison with the
oracles does. A test that the command line names meets every value. `pytest.mark.keep`
keeps a test or a `pytest.param` in every tier, and `pytest.mark.keep("id", …)` the
combinations with these ids. `pytest.mark.beyond_core` leaves a test or a `pytest.param`
out of the core; what the other parameters draw without it is drawn all the same.
"""

import itertools
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pytest


Combination = tuple[Hashable, ...]  # a value of every axis


def axes_of(parameters: Iterable[Any], kinds: bool = False) -> Combination:
    """The values of the axes: those of a value's `axes`, or the value itself.

    With `kinds` a value that has a `kind` is the same as others of it.
    """

    def hashable(value: Any) -> Hashable:
        if isinstance(value, dict):
            return tuple((name, hashable(x)) for name, x in sorted(value.items()))
        try:
            hash(value)
        except TypeError:  # an array is equal to itself alone
            return id(value)
        return type(value), value

    values = [x for several in parameters for x in getattr(several, "axes", (several,))]
    if kinds:
        values = [getattr(x, "kind", x) for x in values]
    return tuple(map(hashable, values))


def cover(combinations: Sequence[Combination], size: int, drawn: Iterable[int] = ()):
    """Indices of few combinations that have every value, or every pair, of all of them.

    `size` is 1 for values and 2 for pairs. Those that are `drawn` already are among the
    result. The earlier combination is taken where two of them add equally much.
    """
    parts = [set(itertools.combinations(enumerate(c), size)) for c in combinations]
    drawn = list(drawn)
    missing = set().union(*parts).difference(*(parts[i] for i in drawn))
    while missing:
        best = max(range(len(parts)), key=lambda i: len(parts[i] & missing))
        drawn.append(best)
        missing -= parts[best]
    return drawn


def draw(
    test: str,
    combinations: Mapping[str, Combination],
    size: int,
    drawn_before: Iterable[str] = (),
) -> set[str]:
    """Ids of combinations that have every value, or every pair, of all by their ids.

    Those that are drawn before are among them.
    """
    ids = shuffled(test, combinations)
    drawn = [i for i, x in enumerate(ids) if x in drawn_before]
    for n in range(1, size + 1):
        drawn = cover([combinations[x] for x in ids], n, drawn)
    return {ids[i] for i in drawn}


def draw_one(test: str, combinations: Mapping[str, Combination], met: Counter) -> str:
    """The id of the combination with most pairs that are not met, then the rarest."""

    def known(x: str) -> tuple[int, int]:
        times = [met[pair] for pair in pairs_of(combinations[x])]
        return -times.count(0), sum(times)

    return min(shuffled(test, combinations), key=known)


def pairs_of(combination: Combination) -> list[frozenset]:
    """Its values and pairs of values, whatever the order of the axes."""
    pairs = itertools.combinations_with_replacement(combination, 2)
    return [frozenset(pair) for pair in pairs]


def shuffled(test: str, ids: Iterable[str]) -> list[str]:
    return sorted(ids, key=lambda x: zlib.crc32(f"{test}[{x}]".encode()))


# For pytest ---------------------------------------------------------------------------


def pytest_addoption(parser):
    group = parser.getgroup("tiers", "how much of the suite runs: the core, or")
    for tier, text in {
        "all": "every value of each test's axes",
        "rest": "what --all adds to the core",
        "pairs": "every pair of these values",
        "full": "every combination of them",
    }.items():
        group.addoption(
            f"--{tier}", action="store_const", const=tier, dest="tier", help=text
        )


def tiers(items: Sequence[pytest.Item]) -> dict[str, set[str]]:
    """The node ids of each tier."""
    tests: dict[str, dict[str, pytest.Item]] = {}
    for item in items:
        test, _, combination = item.nodeid.partition("[")
        tests.setdefault(test, {})[combination.removesuffix("]")] = item
    of_tier: dict[str, set[str]] = {"core": set(), "all": set(), "pairs": set()}
    met_in: dict[str, Counter] = {}
    for test, by_id in tests.items():
        calls = {x: getattr(item, "callspec", None) for x, item in by_id.items()}
        params = {x: call.params.values() for x, call in calls.items() if call}
        axes = {x: axes_of(values) for x, values in params.items()}
        kinds = {x: axes_of(values, kinds=True) for x, values in params.items()}
        marks = {m.name for item in by_id.values() for m in item.iter_markers()}
        late = {x for x, i in by_id.items() if i.get_closest_marker("beyond_core")}

        met = met_in.setdefault(test.partition("::")[0], Counter())
        single = by_id.keys() - axes.keys()
        core = single - late
        core |= {x for x, item in by_id.items() if is_kept(item, x)}
        early = {x: kind for x, kind in kinds.items() if x not in late}
        if "every_pair" in marks:
            core |= draw(test, {x: axes[x] for x in early}, 1)
        elif "every_value" in marks or is_asked_for(test, items):
            core |= draw(test, early, 1)
        elif early and not core:
            one = draw_one(test, early, met)
            core.add(one)
            met.update(pairs_of(kinds[one]))

        # What runs beyond the core takes the place of nothing that the core may draw.
        whole = core | single | draw(test, early, 1)
        whole |= draw(test, kinds, 1, whole)
        pairs = draw(test, {x: axes[x] for x in early}, 2)
        pairs |= draw(test, axes, 2, pairs)
        if "every_pair" in marks:
            whole |= pairs
        pairs |= whole
        for tier, drawn in (("core", core), ("all", whole), ("pairs", pairs)):
            of_tier[tier] |= {by_id[x].nodeid for x in drawn}
    return of_tier | {"rest": of_tier["all"] - of_tier["core"]}


def is_asked_for(test: str, items: Sequence[pytest.Item]) -> bool:
    """Whether the command line names the test, or the class that it is in."""
    named = (x for x in items[0].config.args if "::" in x)
    return any(test == x or test.startswith(f"{x}::") for x in named)


def is_kept(item: pytest.Item, combination: str) -> bool:
    """Whether the mark `keep` holds for it, or its node id is asked for."""
    marks = item.iter_markers("keep")
    named = any(not mark.args or combination in mark.args for mark in marks)
    return named or item.nodeid in item.config.args


def unknown_names(items: Sequence[pytest.Item]) -> set[str]:
    """Node ids that the mark `keep` names and no test has."""
    named = {
        f"{item.nodeid.partition('[')[0]}[{combination}]"
        for item in items
        for mark in item.iter_markers("keep")
        for combination in mark.args
    }
    return named - {item.nodeid for item in items}


@pytest.hookimpl(wrapper=True)  # after -k and -m, before --last-failed
def pytest_collection_modifyitems(config, items):
    unknown = unknown_names(items)
    if unknown and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"the mark keep names what is no test: {unknown}")
    yield
    if config.option.tier != "full":
        chosen = tiers(items)[config.option.tier or "core"]
        dropped = [item for item in items if item.nodeid not in chosen]
        items[:] = [item for item in items if item.nodeid in chosen]
        config.hook.pytest_deselected(items=dropped)
