"""Results: one row per peer and case, in memory, JSON and CSV."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .case import Case


class Record(NamedTuple):
    """A row of results; what was not measured is None.

    Seconds and bytes throughout. `error` is that of the value in nats, or of each row's
    loss where there are many; `gradient_error` is ‖got − true‖ / ‖true‖. Of a compiled
    program for an absent device `target` tells which.
    """

    suite: str
    operation: str
    peer: str
    variant: str
    rows: int
    features: int
    classes: int
    dtype: str
    derivative: str
    ignored: float = 0.0
    protocol: str = "time"
    mesh: str = ""
    target: str = ""
    status: Literal["ok", "wrong", "failing", "missing"] = "ok"
    message: str = ""
    error: float | None = None
    gradient_error: float | None = None
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int | None = None
    trace_s: float | None = None
    compile_s: float | None = None
    temporary_bytes: int | None = None
    traffic_bytes: float | None = None
    roofline_s: float | None = None
    collectives: str = ""
    floor_bytes: float | None = None
    floor_flops: float | None = None
    floor_s: float | None = None

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.variant}" if self.variant else self.peer


class Results(NamedTuple):
    """A run: how it was made and on what, and its records."""

    command: str
    date: str
    versions: dict[str, str]
    device: dict[str, Any]
    limits: dict[str, Any]
    records: tuple[Record, ...]


def record(case: Case, peer: str, variant: str, **numbers: Any) -> Record:
    mesh = "×".join(map(str, case.mesh)) if case.mesh else ""
    return Record(
        case.suite,
        case.operation,
        peer,
        variant,
        *case.shape,
        case.dtype,
        case.derivative,
        case.ignored,
        case.protocol,
        mesh,
        **numbers,
    )


def _rounded(x: Any) -> Any:
    """Four digits: more than a clock is worth, and files that can be read."""
    return float(f"{x:.4g}") if isinstance(x, float) else x


def save(results: Results, folder: Path) -> None:
    """results.json, which `load` reads, and results.csv, a row per record.

    Each row of the latter ends with the date, the device, the versions and the flags of
    its run: rows of many runs can stand in one table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{k: _rounded(v) for k, v in r._asdict().items()} for r in results.records]
    # A line a record, of what it has: the file can be read, and compared with another.
    short = ({k: v for k, v in row.items() if v not in (None, "")} for row in rows)
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in short)
    head = results._asdict()
    del head["records"]
    text = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
    text += f',\n "records": [\n  {lines}\n ]\n}}\n'
    (folder / "results.json").write_text(text, encoding="utf-8")
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        run = _of_run(results)
        writer = csv.DictWriter(file, (*Record._fields, *run), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | run for row in rows)


def _of_run(results: Results) -> dict[str, str]:
    versions = ", ".join(f"{k} {v}" for k, v in results.versions.items())
    flags = " ".join(f"{k}={v}" for k, v in results.device.get("flags", {}).items())
    device = f"{results.device['kind']} ({results.device['platform']})"
    return {
        "date": results.date,
        "device": device,
        "versions": versions,
        "flags": flags,
    }


def load(path: Path) -> Results:
    """Of a results.json, or of the folder that holds one."""
    path = path / "results.json" if path.is_dir() else path
    whole = json.loads(path.read_text(encoding="utf-8"))
    empty = {"operation": "", "peer": "", "variant": "", "dtype": "", "derivative": ""}
    records = tuple(Record(**(empty | row)) for row in whole.pop("records"))
    return Results(**whole, records=records)


def missing(records: Iterable[Record]) -> list[str]:
    """The peers that are not installed."""
    return sorted({r.peer for r in records if r.status == "missing"})
