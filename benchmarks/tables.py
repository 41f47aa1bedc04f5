"""Records as Markdown tables: on a terminal, in a file and in the README."""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .record import Record


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as rich draws it; columns that no row fills are left out."""
    rows = [tuple(row) for row in rows]
    filled = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in rows)]
    table = Table(box=box.MARKDOWN)
    for i in filled:
        table.add_column(columns[i], justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(row[i] for i in filled))
    text = io.StringIO()
    console = Console(file=text, width=1000, color_system=None, markup=False)
    console.print(table, highlight=False)
    lines = [line.strip() for line in text.getvalue().splitlines() if line.strip()]
    # rich rules every column alike; numbers stand right.
    lines[1] = "|".join(["", "---", *["---:"] * (len(filled) - 1), ""])
    return "\n".join(lines)


def digits(x: float) -> str:
    """Three of them, or the whole number: 0.0123, 1.23, 12.3, 1,234."""
    if x == 0:
        return "0"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{float(f'{x:.3g}'):.12g}"


def _in_units(x: float, units: Sequence[tuple[float, str]]) -> str:
    scale, unit = next((u for u in units if x >= u[0]), units[-1])
    return f"{digits(x / scale)} {unit}"


def duration(seconds: float) -> str:
    return _in_units(seconds, ((1, "s"), (1e-3, "ms"), (1e-6, "µs")))


def size(count: float) -> str:
    return _in_units(count, ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")))


def shown(x: Any, how: Callable[[Any], str]) -> str:
    return "" if x is None else how(x)


def ratio(numerator: float | None, denominator: float | None) -> str:
    if numerator is None or not denominator:
        return ""
    value = numerator / denominator
    return f"{value:.2f} ×" if value < 10 else f"{digits(value)} ×"


def error(x: float) -> str:
    return f"{x:.1e}"


Column = tuple[str, Callable[[Record, "Record | None"], str]]

COLUMNS: tuple[Column, ...] = (
    ("", lambda r, _: r.name),
    ("median", lambda r, _: shown(r.seconds, duration)),
    ("middle half", lambda r, _: _spread(r)),
    ("to Optax", lambda r, unit: ratio(r.seconds, unit.seconds) if unit else ""),
    ("to floor", lambda r, _: ratio(r.seconds, r.floor_s)),
    ("temporary", lambda r, _: shown(r.temporary_bytes, size)),
    ("traffic", lambda r, _: shown(r.traffic_bytes, size)),
    ("roofline", lambda r, _: shown(r.roofline_s, duration)),
    ("roofline to floor", lambda r, _: ratio(r.roofline_s, r.floor_s)),
    ("collectives", lambda r, _: r.collectives),
    ("trace", lambda r, _: shown(r.trace_s, duration)),
    ("compile", lambda r, _: shown(r.compile_s, duration)),
    ("error", lambda r, _: shown(r.error, error)),
    ("of gradient", lambda r, _: shown(r.gradient_error, error)),
    ("", lambda r, _: "" if r.status == "ok" else f"{r.status}: {r.message}"),
)


def _spread(r: Record) -> str:
    """Of the seconds, or where there are none of the time to trace."""
    if r.low is None or r.high is None:
        return ""
    return f"{duration(r.low)}–{duration(r.high)}"


def unit_of(suite: str) -> str:
    """The peer whose time is the unit of a suite's ratios."""
    return {"by_hand": "by hand", "forms": "plain forms"}.get(suite, "Optax")


def reference(records: Iterable[Record]) -> Record | None:
    """The record whose time is the unit of the others', if it was timed."""
    timed = (r for r in records if r.peer == unit_of(r.suite) and r.seconds)
    return next(timed, None)


def compared(records: Sequence[Record]) -> str:
    """One case: its peers, the fastest first, those without a time last."""
    unit = reference(records)
    order = sorted(records, key=lambda r: (r.status != "ok", r.seconds or 0.0))
    rows = [[show(r, unit) for _, show in COLUMNS] for r in order]
    of_suite = f"to {unit_of(records[0].suite)}"
    titles = [of_suite if title == "to Optax" else title for title, _ in COLUMNS]
    return markdown(titles, rows)


DERIVATIVES = ("forward", "value and gradient", "jvp")
BY_HAND = ("", "forward", "gradient", "jvp", "temporary", "with gradient")


def by_hand(records: Sequence[Record]) -> str:
    """The suite of that name in short: a table for each dtype and shape.

    A line of each function: jxent's times as multiples of those by hand, of a gradient
    with its value, and the temporaries of both. Pairs stand with the logits of as many
    rows.
    """
    tables: dict[str, dict[str, dict[tuple[str, str], Record]]] = {}
    titles: dict[tuple[str, int], str] = {}
    for r in records:
        if not r.features:
            title = titles.setdefault((r.dtype, r.rows), _logits(r))
        else:
            title = titles.get((r.dtype, r.rows), _logits(r))
        cells = tables.setdefault(title, {}).setdefault(r.operation, {})
        cells[r.peer, r.derivative] = r
    return "\n\n".join(
        f"### {title}: jxent to by hand\n\n"
        + markdown(BY_HAND, [[name, *_cells(of)] for name, of in lines.items()])
        for title, lines in tables.items()
    )


def _logits(r: Record) -> str:
    return f"{r.dtype} [{r.rows}, {r.classes}]"


def _cells(of: dict[tuple[str, str], Record]) -> list[str]:
    """Ratios of the times of each derivative, then memory without and with gradient."""

    def both(derivative: str) -> tuple[Record | None, Record | None]:
        return of.get(("jxent", derivative)), of.get(("by hand", derivative))

    def time(derivative: str) -> str:
        ours, theirs = both(derivative)
        return ratio(ours.seconds, theirs.seconds) if ours and theirs else ""

    def memory(derivative: str) -> str:
        ours, theirs = (r and r.temporary_bytes for r in both(derivative))
        known = ours is not None and theirs is not None
        return f"{size(ours)} for {size(theirs)}" if known else ""

    times = map(time, DERIVATIVES)
    return [*times, memory("forward"), memory("value and gradient")]
