"""A run's report: Markdown, CSV and JSON, and plots."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from . import plots, record, tables
from .case import ARRAYS
from .record import Record, Results
from .suites import SUITES


def _case(r: Record) -> tuple:
    return (
        r.target,
        r.suite,
        r.operation,
        r.rows,
        r.features,
        r.classes,
        r.dtype,
        r.derivative,
        r.ignored,
        r.mesh,
        r.protocol,
    )


def _title(r: Record) -> str:
    """What a table is of."""
    sizes = f"[{r.rows}, {r.classes}]"
    if r.features:
        sizes = f"[{r.rows}, {r.features}] @ [{r.features}, {r.classes}]"
    title = f"{r.operation}: {r.derivative}, {r.dtype} {sizes}"
    if r.operation == "import":
        title = "import, beyond that of jax"
    if r.ignored:
        title += f", {r.ignored:.0%} ignored"
    if r.mesh:
        title += f", mesh {r.mesh}"
    if r.protocol == "step":
        title += f", in a jitted step of {ARRAYS} arrays"
    return title


def _floor(r: Record) -> str:
    """The limit beside the times, in one sentence."""
    if r.floor_s is None:
        return ""
    work = tables.size(r.floor_bytes or 0)
    if r.floor_flops:
        work += f" and {tables.digits(r.floor_flops / 1e9)} GFLOP"
    return f"The floor: {work}, {tables.duration(r.floor_s)}."


def _head(results: Results) -> Iterator[str]:
    device = results.device
    yield f"# {device['kind']}"
    yield f"`{results.command}`, {results.date}"
    yield ", ".join(f"{name} {v}" for name, v in results.versions.items())
    about = [f"{k} {v}" for k, v in device.items() if k != "kind" and v]
    yield "Device: " + ", ".join(about)
    for name, limit in _limits(results).items():
        rates = [f"{v / 1e9:,.0f} GFLOP/s in {k}" for k, v in limit["flops"].items()]
        yield (
            f"{name}: {limit['bandwidth'] / 1e9:,.0f} GB/s of copying, products at "
            + ", ".join(rates)
        )
    if absent := record.missing(results.records):
        yield "Missing here: " + ", ".join(absent)


def _limits(results: Results) -> dict:
    if "bandwidth" in results.limits:
        return {"Measured": results.limits}
    return {f"{name}, by its maker": v for name, v in results.limits.items()}


def markdown(results: Results) -> str:
    """The whole report, case by case."""
    parts = list(_head(results))
    # Missing peers are named once, above.
    there = [r for r in results.records if r.status != "missing"]
    for (target, suite), records in groupby(there, lambda r: (r.target, r.suite)):
        about = (SUITES[suite].__doc__ or "").strip()
        parts += [f"## {suite}" + f", compiled for {target}" * bool(target), about]
        records = list(records)
        if suite == "by_hand":
            parts.append(tables.by_hand(records))
        for _, group in groupby(records, _case):
            case = list(group)
            floor = next((text for r in case if (text := _floor(r))), "")
            parts += [f"### {_title(case[0])}", floor, tables.compared(case)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(folder: Path) -> None:
    """report.md and the plots of a folder's results.json."""
    results = record.load(folder)
    text = markdown(results)
    pictures = plots.draw(results, folder)
    links = "".join(f"\n![{p.stem}]({p.name})\n" for p in pictures)
    (folder / "report.md").write_text(text + links, encoding="utf-8")


def save(results: Results, folder: Path) -> None:
    record.save(results, folder)
    write(folder)
