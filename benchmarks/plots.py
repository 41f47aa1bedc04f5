"""Time and memory against a size: every peer in one picture, log axes."""

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

from .record import Record, Results


# Told apart without colours too; jxent's are the thick ones.
COLOURS = {
    "jxent": "#0072b2",
    "Optax": "#d55e00",
    "by hand": "#009e73",
    "bare products": "#888888",
    "PyTorch": "#cc79a7",
    "Keras": "#e69f00",
    "tokamax": "#56b4e9",
    "jax-cce": "#8b6914",
}
GRADIENT = "value and gradient"
STYLES = ("-", "--", ":", "-.")
MARKERS = "osv^D"


def sweep(records: Sequence[Record], along: str, **of: Any) -> list[Record]:
    """The records in which one size takes the most values while all else is equal."""
    sizes = {"rows", "features", "classes", "dtype", "target", "mesh", "ignored"}
    groups = defaultdict(list)
    for r in records:
        if r.status == "ok" and all(getattr(r, k) == v for k, v in of.items()):
            groups[tuple(getattr(r, k) for k in sorted(sizes - {along}))].append(r)
    wide = [g for g in groups.values() if len({getattr(r, along) for r in g}) > 1]
    return max(wide, key=lambda g: len({getattr(r, along) for r in g}), default=[])


def _lines(axes: Any, records: Sequence[Record], along: str, y: Callable) -> None:
    lines = defaultdict(list)
    for r in records:
        if y(r):
            lines[r.peer, r.variant].append((getattr(r, along), y(r)))
    seen: dict[str, int] = defaultdict(int)
    for (peer, variant), points in lines.items():
        turn = seen[peer]
        seen[peer] += 1
        axes.plot(
            *zip(*sorted(points), strict=True),
            STYLES[turn % len(STYLES)],
            marker=MARKERS[turn % len(MARKERS)],
            color=COLOURS.get(peer),
            linewidth=2.5 if peer == "jxent" else 1.2,
            markersize=5 if peer == "jxent" else 4,
            label=f"{peer}, {variant}" if variant else peer,
        )


def _scales(axes: Any, records: Sequence[Record], along: str) -> None:
    """Log axes whose marks are numbers; a share of rows on linear ones."""
    values = sorted({getattr(r, along) for r in records})
    if along == "ignored":
        axes.set_ylim(bottom=0)
        axes.set_xticks(values, [f"{v:.0%}" for v in values])
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(values, [f"{v:,}" for v in values])
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1,) if high / low > 500 else (1, 2, 5))
    )
    axes.yaxis.set_major_formatter(lambda x, _: f"{x:,g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


def picture(
    records: Sequence[Record],
    along: str,
    label: str,
    title: str,
    panels: Mapping[str, Callable[[Record], float]],
) -> Any:
    """A panel for each quantity that was measured, with one legend."""
    panels = {unit: y for unit, y in panels.items() if any(map(y, records))}
    figure, several = plt.subplots(
        1, len(panels), figsize=(2.2 + 3.8 * len(panels), 4.2), squeeze=False
    )
    for axes, (unit, y) in zip(several[0], panels.items(), strict=True):
        _lines(axes, records, along, y)
        _scales(axes, records, along)
        axes.set_xlabel(label)
        axes.set_ylabel(unit)
        axes.grid(True, linewidth=0.4, alpha=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    lines = textwrap.wrap(title, 45 * len(panels) + 20)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10)
    figure.legend(
        *several[0][0].get_legend_handles_labels(),
        loc="outside right center",
        frameon=False,
        fontsize=8,
    )
    figure.set_layout_engine("constrained")
    return figure


TIME = {"ms": lambda r: (r.seconds or 0) * 1e3}
MEMORY = {"temporary memory, MiB": lambda r: (r.temporary_bytes or 0) / 2**20}
PER_LOGIT = {"ns a logit": lambda r: (r.seconds or 0) * 1e9 / (r.rows * r.classes)}


def _heads(records: Sequence[Record], target: str, where: str) -> Iterator[tuple]:
    """The fused head against the vocabulary, and against tokens."""
    for along, label in (("classes", "vocabulary"), ("rows", "tokens")):
        of = {"suite": "linear", "operation": "head", "derivative": GRADIENT}
        found = sweep(records, along, target=target, **of)
        if found:
            one = found[0]
            fixed = f"{one.rows:,} tokens"
            if along == "rows":
                fixed = f"{one.classes:,} classes"
            title = (
                f"Fused head, value and gradients: {fixed}, {one.features:,} features, "
                f"{one.dtype}{where}"
            )
            yield f"linear-{label}", found, along, label, title, TIME | MEMORY


def _dense(records: Sequence[Record], where: str) -> Iterator[tuple]:
    """Logits in memory, per logit; of each number of classes the most rows."""
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
            title = f"Mean of {operation}, value and gradient, {found[0].dtype}{where}"
            name = "dense-every-option" if "," in operation else "dense"
            yield name, found, "classes", "classes", title, PER_LOGIT


def _masked(records: Sequence[Record]) -> Iterator[tuple]:
    """As ratios: each share was a case of its own, at a time of its own."""
    found = sweep(records, "ignored", suite="masked", derivative=GRADIENT)
    units = {r.ignored: r.seconds for r in found if r.peer == "Optax" and r.seconds}
    found = [r for r in found if r.ignored in units and r.seconds]
    if len(units) > 1:
        title = "Fused head, value and gradients, where labels are ignored"
        panels = {"times Optax": lambda r: r.seconds / units[r.ignored]}
        yield "masked", found, "ignored", "share of ignored tokens", title, panels


def _wanted(results: Results) -> Iterator[tuple]:
    """Name, records, and how they are drawn."""
    for target in sorted({r.target for r in results.records}):
        records = [r for r in results.records if r.target == target]
        where = f"; compiled for {target}, not run" if target else ""
        yield from _heads(records, target, where)
        yield from _dense(records, where)
        yield from _masked(records)


def draw(results: Results, folder: Path) -> list[Path]:
    """Every picture that the records fill, as SVG and PNG; the paths of the SVGs."""
    paths = []
    # No date and no random names: the same records give the same files.
    with plt.rc_context({"svg.hashsalt": "jxent", "font.size": 9}):
        for name, *arguments in _wanted(results):
            figure = picture(*arguments)
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            figure.savefig(path.with_suffix(".png"), dpi=120)
            plt.close(figure)
            paths.append(path)
    return paths
