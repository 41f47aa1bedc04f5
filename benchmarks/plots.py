"""Time and memory against a size: every peer in one picture, named at its line."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np


matplotlib.use("agg")
import matplotlib.pyplot as plt

from . import tables
from .record import Record, Results


# jxent's stand out; its peers, named at their lines, need not.
COLOURS = {
    "jxent": "#2f6690",
    "jxent, materialized": "#16324a",
    "jxent, tiled": "#4b94cf",
    "jxent, streamed": "#e4572e",
    "Optax": "#404040",
    "by hand": "#6b6b6b",
    "bare products": "#8a8a8a",
    "PyTorch": "#8d6a8f",
    "Keras": "#94704f",
    "tokamax": "#4f807c",
    "jax-cce": "#85754a",
    "open_clip": "#7d5a5a",
}
# What fits at the end of a line.
SHORT = {
    "by hand, scan and checkpoint": "scan by hand",
    "PyTorch, linear_cross_entropy in chunks of 512": "PyTorch, chunks of 512",
    "tokamax, by default": "tokamax",
}
DEVICES = {"h100": "H100", "tpu-v5e": "TPU v5e"}
GRADIENT = "value and gradient"
STYLES = ("-", "--", ":", "-.")
STYLE: Any = {
    "svg.hashsalt": "jxent",  # the same numbers give the same file
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


def colour(name: str) -> str:
    """A layout's own, or its peer's."""
    return COLOURS.get(name) or COLOURS.get(name.partition(",")[0], "#7a7a7a")


def short(count: int) -> str:
    """1,024 as 1k, 1,048,576 as 1M; what is no multiple of them in full."""
    for unit, letter in ((2**20, "M"), (2**10, "k")):
        if count and count % unit == 0:
            return f"{count // unit}{letter}"
    return f"{count:,}"


def size_marks(axes: Any) -> None:
    """Bytes on a log axis, eight marks at the most."""
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    marks = [2.0**n for n in range(-8, 50) if low <= 2.0**n <= high]
    marks = marks[:: 1 + len(marks) // 8]
    axes.set_yticks(marks, [tables.size(m) for m in marks])


def apart(
    heights: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf
) -> list[float]:
    """The heights between low and high that keep the gap and move least."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    groups: list[list[float]] = []
    for level in np.asarray(heights)[order] - steps:
        groups.append([level])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    levels = np.concatenate([np.full(len(g), np.mean(g)) for g in groups])
    moved = np.empty(len(heights))
    moved[order] = np.clip(levels, low, high - steps[-1]) + steps
    return moved.tolist()


def label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Of each line's last point, x and y, its text in its colour, in one column."""
    to_points = 72 / axes.figure.dpi
    points = axes.transData.transform([end[:2] for end in ends]) * to_points
    low, high = axes.bbox.y0 * to_points, axes.bbox.y1 * to_points
    last = points[:, 0].max()
    moved = apart(points[:, 1].tolist(), 11, low, high + 4)
    for (*end, text, tint), (x, y), height in zip(ends, points, moved, strict=True):
        axes.annotate(
            text,
            end,
            (last - x + 17, height - y),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=tint,
            weight="bold" if text.startswith("jxent") else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": tint,
                "linewidth": 0.6,
                "linestyle": "-" if x == last else ":",
                "shrinkA": 3,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def sweep(records: Sequence[Record], along: str, **of: Any) -> list[Record]:
    """The records in which one size takes the most values while all else is equal."""
    sizes = {"rows", "features", "classes", "dtype", "target", "mesh", "ignored"}
    groups = defaultdict(list)
    for r in records:
        if r.status == "ok" and all(getattr(r, k) == v for k, v in of.items()):
            groups[tuple(getattr(r, k) for k in sorted(sizes - {along}))].append(r)
    wide = [g for g in groups.values() if len({getattr(r, along) for r in g}) > 1]
    return max(wide, key=lambda g: len({getattr(r, along) for r in g}), default=[])


class Panel(NamedTuple):
    """A quantity: what it is, where its axis ends, whether it is to Optax's."""

    title: str
    of: Callable[[Record], float]
    top: float = np.inf
    ratio: bool = False


# The marks of their axis, which ends at the last.
RATIOS = (*(2.0**n for n in range(-10, 0)), 0.75, 1, 1.5, 2, 3, 4)


def time_panel(records: Sequence[Record], along: str) -> Panel:
    """To Optax's, since each size was a case of its own; if it has none, per logit."""
    units = {
        getattr(r, along): r.seconds for r in records if r.peer == "Optax" and r.seconds
    }
    if not units:
        return Panel(
            "Time, ns a logit", lambda r: (r.seconds or 0) * 1e9 / (r.rows * r.classes)
        )

    def of(r: Record) -> float:
        unit = units.get(getattr(r, along))
        return (r.seconds or 0) / unit if unit else 0

    return Panel("Time, as a multiple of Optax’s", of, RATIOS[-1], ratio=True)


MEMORY = Panel("Temporary memory", lambda r: float(r.temporary_bytes or 0))


def _scales(axes: Any, panel: Panel, values: Sequence[float], *, shares: bool) -> None:
    """Log axes whose marks can be read; a share of rows on linear ones."""
    if shares:
        axes.set_xticks(values, [f"{v:.0%}" for v in values])
        axes.set_ylim(0, min(panel.top, axes.get_ylim()[1]))
    else:
        axes.set_xscale("log", base=2)
        marks = values[:: 1 + len(values) // 7]
        axes.set_xticks(marks, [short(int(v)) for v in marks])
    if panel is MEMORY:
        size_marks(axes)
        return
    if not shares:
        axes.set_yscale("log", base=2)
    if panel.ratio:
        axes.axhline(1, color=COLOURS["Optax"], linewidth=0.8, zorder=1)
    if panel.ratio and not shares:
        low, high = axes.get_ylim()
        low, high = min(low, 0.75), min(max(high, 1.5), panel.top)
        axes.set_ylim(low, high)
        axes.set_yticks([m for m in RATIOS if low <= m <= high])
    unit = " ×" if panel.ratio else ""
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.3g}{unit}")


def _too_high(axes: Any, x: float, y: float, top: float, look: dict) -> None:
    """A number in place of a point above the panel."""
    middle = axes.transAxes.inverted().transform(axes.transData.transform((x, top)))[0]
    axes.annotate(
        f"↑ {tables.digits(float(f'{y:.2g}'))} ×",
        (x, top),
        (0, 3),
        textcoords="offset points",
        ha="left" if middle < 0.1 else "right" if middle > 0.9 else "center",
        fontsize=7.5,
        **look,
    )


def _draw_panel(
    axes: Any,
    panel: Panel,
    found: Sequence[Record],
    along: str,
    names: Mapping[str, str],
) -> None:
    """A line for each peer and layout, or a dot."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for r in found:
        if panel.of(r):
            lines[r.peer, r.name].append((getattr(r, along), panel.of(r)))
    values = sorted({getattr(r, along) for r in found})
    seen: dict[str, int] = defaultdict(int)
    ends = []
    for (peer, name), points in lines.items():
        points.sort()
        ours, first = peer == "jxent", name == "jxent"
        axes.plot(
            *zip(*points, strict=True),
            "-" if ours else STYLES[seen[peer] % len(STYLES)],
            marker="o",
            color=colour(name),
            linewidth=3.2 if first else 1.8 if ours else 1,
            markersize=6 if first else 4 if ours else 2.5,
            zorder=3 if ours else 2,
        )
        seen[peer] += 1
        x, y = points[-1]
        text = names.get(name, name)
        if first and sum(peer == "jxent" for peer, _ in lines) > 1:
            text += ", by default"
        if x < values[-1] and len(points) > 1 and along != "ignored":
            text += f", to {short(int(x))}"
        ends.append((x, min(y, panel.top), text, colour(name)))
    _scales(axes, panel, values, shares=along == "ignored")
    for (_, name), points in lines.items():
        for x, y in points:
            if y > panel.top:
                _too_high(axes, x, y, panel.top, {"color": colour(name)})
    label_ends(axes, ends)


# In inches: left of a panel, the panel, and right of it the names of its lines.
MARKS, WIDTH, NAMES = 0.75, 2.9, 2.0
HEIGHT, ABOVE, BELOW = 4.9, 1.0, 0.55
PHONE = 3.7  # the width of a phone's screen, at the same size of letters


def picture(
    records: Sequence[Record],
    along: str,
    label: str,
    titles: tuple[str, str],
    panels: Sequence[Panel],
    *,
    phone: bool = False,
    names: Mapping[str, str] = SHORT,
) -> Any:
    """A panel for each quantity that was measured; on a phone below each other."""
    panels = [p for p in panels if any(map(p.of, records))]
    columns, rows = (1, len(panels)) if phone else (len(panels), 1)
    panel_width, ends = (PHONE - MARKS - 1.5, 1.5) if phone else (WIDTH, NAMES)
    above = ABOVE + 0.24 * phone
    panel_height = HEIGHT - ABOVE - BELOW
    width = columns * (MARKS + panel_width + ends)
    height = above + rows * (panel_height + BELOW) + (rows - 1) * BELOW
    figure, several = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False
    )
    figure.subplots_adjust(
        left=MARKS / width,
        right=1 - ends / width,
        bottom=BELOW / height,
        top=1 - above / height,
        wspace=(ends + MARKS) / panel_width,
        hspace=2 * BELOW / panel_height,
    )
    for axes, panel in zip(several.flat, panels, strict=True):
        axes.set_title(panel.title, pad=14)
        axes.set_xlabel(label)
        axes.grid(axis="x", visible=False)
        _draw_panel(axes, panel, records, along, names)
    first, second = titles
    if phone:
        second = second.replace("; ", "\n")
    look: Any = {"x": 0.15 / width, "va": "top"}
    top = 1 - 0.12 / height
    figure.text(y=top, s=first, weight="bold", fontsize=11, **look)
    figure.text(y=top - 0.24 / height, s=second, color="#555555", **look)
    return figure


def few(records: Sequence[Record]) -> list[Record]:
    """What can be told apart: jxent by default and streamed, and of each peer the
    variant that is quickest at the largest size. The table has the rest."""
    quickest: dict[str, Record] = {}
    size = max(r.rows * r.classes for r in records)
    for r in records:
        if r.rows * r.classes == size and r.peer not in ("jxent", "bare products"):
            best = quickest.setdefault(r.peer, r)
            if (r.seconds or 0) < (best.seconds or 0):
                quickest[r.peer] = r
    names = {"jxent", "jxent, streamed"} | {r.name for r in quickest.values()}
    return [r for r in records if r.name in names]


def _heads(records: Sequence[Record], where: str) -> Iterator[tuple]:
    """The fused head against the vocabulary, and against tokens."""
    target = records[0].target
    for along, label in (("classes", "vocabulary"), ("rows", "tokens")):
        of = {"suite": "linear", "operation": "head", "derivative": GRADIENT}
        found = sweep(records, along, target=target, **of)
        if found:
            found = few(found)
            one = found[0]
            fixed = f"{one.rows:,} tokens"
            axis = "classes in the vocabulary"
            if along == "rows":
                fixed, axis = f"{one.classes:,} classes", "tokens"
            titles = (
                "Fused head, value and gradients",
                f"{fixed}, {one.features:,} features, {one.dtype}; {where}",
            )
            panels = [time_panel(found, along), MEMORY]
            yield f"linear-{label}", found, along, axis, titles, panels


def _dense(records: Sequence[Record], where: str) -> Iterator[tuple]:
    """Logits in memory; of each number of classes the most rows."""
    for operation in ("logits", "logits, every option"):
        found = [
            r
            for r in records
            if (r.suite, r.operation, r.derivative) == ("dense", operation, GRADIENT)
            and r.status == "ok"
        ]
        found = [r for r in found if r.dtype == found[0].dtype]
        most = {r.classes: r.rows for r in sorted(found, key=lambda r: r.rows)}
        found = [r for r in found if r.rows == most[r.classes] and r.seconds]
        if len({r.classes for r in found}) > 1:
            titles = (
                operation.replace("logits", "Logits in memory"),
                f"Value and gradient of the mean, {found[0].dtype}; {where}",
            )
            name = "dense-every-option" if "," in operation else "dense"
            panels = [time_panel(found, "classes")]
            yield name, found, "classes", "classes", titles, panels


def _masked(records: Sequence[Record], where: str) -> Iterator[tuple]:
    found = sweep(records, "ignored", suite="masked", derivative=GRADIENT)
    found = [r for r in found if r.seconds]
    if found:
        one = found[0]
        titles = (
            "Fused head where labels are ignored, value and gradients",
            f"{one.rows:,} tokens, {one.classes:,} classes, {one.features:,} features, "
            f"{one.dtype}; {where}",
        )
        panels = [time_panel(found, "ignored")]
        yield "masked", found, "ignored", "share of ignored tokens", titles, panels


def _wanted(results: Results) -> Iterator[tuple]:
    """Name, records, and how they are drawn."""
    for target in sorted({r.target for r in results.records}):
        records = [r for r in results.records if r.target == target]
        where = str(results.device["kind"]).replace("(R)", "")
        if cores := results.device.get("cores"):
            where += f", {cores} cores"
        if target:
            where = f"compiled for {DEVICES.get(target, target)}, not run"
        yield from _heads(records, where)
        yield from _dense(records, where)
        yield from _masked(records, where)


# Opaque: read on a dark page too.
PAPER: Any = {"facecolor": "white", "bbox_inches": "tight", "pad_inches": 0.12}


def draw(results: Results, folder: Path) -> list[Path]:
    """Every picture that the records fill, as SVG and PNG; the paths of the SVGs.

    What has several panels is drawn for a phone as well.
    """
    paths = []
    with plt.rc_context(STYLE):
        for name, *arguments in _wanted(results):
            figure = picture(*arguments)
            path = folder / f"{name}.svg"
            # No date: the same records give the same files.
            figure.savefig(path, metadata={"Date": None}, **PAPER)
            figure.savefig(path.with_suffix(".png"), dpi=140, **PAPER)
            plt.close(figure)
            paths.append(path)
            if len(figure.axes) > 1:
                figure = picture(*arguments, phone=True)
                phone = folder / f"{name}_phone.svg"
                figure.savefig(phone, metadata={"Date": None}, **PAPER)
                plt.close(figure)
    return paths
