"""How the fused head's cost grows with tokens and classes, and what the plan takes.

Each layout and each peer, in two sweeps: time and temporary memory on this machine,
and temporary memory compiled for accelerators. `choices` compares the plan's choice
with the quickest layout that fits 2 GiB.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from rich.console import Console

import jxent

from . import compiled, run, session
from .case import Case, Shape, machine
from .operations import widths
from .peers import heads
from .plots import DEVICES, PHONE, colour, plt, short, size_marks
from .record import Record, Results
from .targets import TARGETS


GRADIENT = "value and gradient"
TOKENS = tuple(2**n for n in range(9, 17))
CLASSES = tuple(2**n for n in range(11, 21))
VARIANTS = {
    "jxent": ("materialized", "tiled", "streamed"),
    "optax": ("materialized",),
    "by-hand": ("scan and checkpoint",),
}
MOST = 2**31  # bytes: what the plan grants tiles


def sweeps(features: int, rows: int, classes: int, dtype: str) -> list[Case]:
    """Over tokens of some classes, and over classes of some tokens."""
    shapes = [Shape(n, features, classes) for n in TOKENS]
    shapes += [Shape(rows, features, n) for n in CLASSES]
    return [
        Case("linear", "head", shape, dtype, GRADIENT)
        for shape in dict.fromkeys(shapes)
    ]


HERE = sweeps(64, 512, 8192, "float32")
ABSENT = sweeps(2048, 8192, 131072, "bfloat16")


def measure(
    progress: Console,
    here: Sequence[Case] = HERE,
    absent: Sequence[Case] = ABSENT,
    targets: Sequence[str] = tuple(DEVICES),
) -> list[Record]:
    """Run on this machine, and compiled for each target that has its compiler here."""
    peers = heads(VARIANTS)
    found = session.collected(here, functools.partial(run.run, peers=peers), progress)
    return found + compiled.on_targets(absent, peers, targets, progress)


def planned(one: Record) -> str:
    """The layout that the plan takes for a record's sizes."""
    low, high = widths(one.dtype)
    platform = TARGETS[one.target].platform if one.target else machine()
    logits = jxent.LinearLogits(
        jax.ShapeDtypeStruct((one.rows, one.features), low),
        jax.ShapeDtypeStruct((one.features, one.classes), high),
    )
    labels = jax.ShapeDtypeStruct((one.rows,), "int32")
    plan = jxent.plan(
        jxent.softmax_cross_entropy, platform={"cuda": "gpu"}.get(platform, platform)
    )
    return plan(logits, labels, reduction="mean").implementation


class Choice(NamedTuple):
    """The plan's choice of a layout beside the quickest that fits 2 GiB."""

    rows: int
    classes: int
    chosen: Record
    quickest: Record

    @property
    def ratio(self) -> float:
        return (self.chosen.seconds or 0) / (self.quickest.seconds or 1)


def choices(records: Sequence[Record]) -> list[Choice]:
    """One for each size that was timed."""
    sizes: dict[Any, dict[str, Record]] = {}
    for r in records:
        if r.peer == "jxent" and r.seconds and not r.target:
            sizes.setdefault((r.rows, r.classes), {})[r.variant] = r
    found = []
    for (rows, classes), layouts in sorted(sizes.items()):
        chosen = layouts.get(planned(next(iter(layouts.values()))))
        fitting = [r for r in layouts.values() if (r.temporary_bytes or 0) <= MOST]
        if chosen and fitting:
            quickest = min(fitting, key=lambda r: r.seconds or 0)
            found.append(Choice(rows, classes, chosen, quickest))
    return found


def table(results: Results) -> str:
    """Markdown: of each size, the plan's choice and the quickest that fits."""
    lines = [
        "| tokens | classes | planned | ms | MiB | quickest within 2 GiB | ratio |",
        "|---:|---:|---|---:|---:|---|---:|",
    ]
    for c in choices(results.records):
        ms, mib = (c.chosen.seconds or 0) * 1e3, (c.chosen.temporary_bytes or 0) / 2**20
        lines.append(
            f"| {c.rows:,} | {c.classes:,} | {c.chosen.variant} | {ms:.3g} | {mib:.3g} "
            f"| {c.quickest.variant} | {c.ratio:.2f} × |"
        )
    return "\n".join(lines) + "\n"


# Of each line: its text in the legend, its marks, its dashes.
LOOKS = {
    "jxent, streamed": ("jxent, streamed", "o", "-"),
    "jxent, tiled": ("jxent, tiled", "s", "-"),
    "jxent, materialized": ("jxent, materialized", "D", "-"),
    "Optax, materialized": ("Optax, materialized", "^", "--"),
    "by hand, scan and checkpoint": ("scan and checkpoint by hand", "v", "--"),
}


class Panel(NamedTuple):
    """One quantity of some records, against tokens or classes."""

    title: str
    target: str
    label: str
    of: Callable[[Record], float]


def _time(r: Record) -> float:
    return (r.seconds or 0) / r.rows / r.classes * 1e9


def _memory(r: Record) -> float:
    return float(r.temporary_bytes or 0)


def _panels(results: Results) -> list[Panel]:
    kind = f"{results.device.get('kind')}, {results.device.get('cores')} cores"
    panels = [
        Panel(f"{kind}: time", "", "ns a logit", _time),
        Panel(f"{kind}: memory", "", "temporary memory", _memory),
    ]
    for target, name in DEVICES.items():
        if any(r.target == target for r in results.records):
            title = f"Compiled for {name}"
            panels.append(Panel(title, target, "temporary memory", _memory))
    return panels


def _draw_panel(axes: Any, panel: Panel, found: Sequence[Record], along: str) -> None:
    for name, (text, marker, dashes) in LOOKS.items():
        points = [
            (getattr(r, along), panel.of(r))
            for r in sorted(found, key=lambda r: getattr(r, along))
            if r.name == name and panel.of(r)
        ]
        if not points:
            continue
        ours = name.startswith("jxent")
        axes.plot(
            *zip(*points, strict=True),
            dashes,
            color=colour(name),
            linewidth=2 if ours else 1.2,
            marker=marker,
            markersize=4,
            label=text,
        )
    chosen = [
        (getattr(r, along), panel.of(r))
        for r in found
        if r.peer == "jxent" and panel.of(r) and r.variant == planned(r)
    ]
    axes.plot(
        *zip(*chosen, strict=True),
        "o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor="#d62728",
        label="what the plan takes",
    )
    values = sorted({getattr(r, along) for r in found})
    axes.set_xscale("log", base=2)
    axes.set_xticks(values[::2], [short(n) for n in values[::2]])
    if panel.of is _time:
        axes.set_ylim(bottom=0)
        return
    size_marks(axes)


def draw(results: Results, *, phone: bool = False) -> Any:
    """Tokens on the left, classes on the right; a row for each quantity and device.

    On a phone one panel below the other, and first of all what the lines are.
    """
    found = [r for r in results.records if r.status == "ok"]
    panels = _panels(results)
    columns, width, legend = (1, PHONE, 1.3) if phone else (2, 7.2, 0.6)
    height = 2.7 * len(panels) * 2 / columns + legend
    figure, several = plt.subplots(
        len(panels) * 2 // columns, columns, figsize=(width, height), squeeze=False
    )
    several = several.reshape(len(panels), 2)
    for row, panel in enumerate(panels):
        here = [r for r in found if r.target == panel.target]
        for column, along in enumerate(("rows", "classes")):
            axes, other = several[row][column], {"rows": "classes", "classes": "rows"}
            sizes = [getattr(r, other[along]) for r in here]
            fixed = max(set(sizes), key=sizes.count)
            swept = [r for r in here if getattr(r, other[along]) == fixed]
            _draw_panel(axes, panel, swept, along)
            words = {"rows": "tokens", "classes": "classes"}
            one = swept[0]
            axes.set_xlabel(
                f"{words[along]}, of {fixed:,} {words[other[along]]} and "
                f"{one.features:,} features"
            )
            if phone or not column:
                axes.set_ylabel(panel.label)
                axes.set_title(f"{panel.title}, {one.dtype}", weight="bold")
    handles, labels = several[0][0].get_legend_handles_labels()
    if phone:
        figure.legend(handles, labels, loc="upper left", frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 1 - legend / height))
    else:
        figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
        figure.tight_layout(rect=(0, 0.05, 1, 1))
    return figure
