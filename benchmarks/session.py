"""A run on this machine: from the command line to results."""

import argparse
import datetime
import functools
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from . import limits, run
from .case import Case, machine, shape
from .peers import PEERS, Peer
from .record import Record, Results, load, record
from .suites import BY_DEFAULT, SUITES


DISTRIBUTIONS = ("jxent", "jax", "jaxlib", "optax", "torch", "keras", "tokamax")
DISTRIBUTIONS += ("jax-cce", "open-clip-torch", "libtpu", "jax-cuda13-plugin")
DEVICES = 8  # of the sharded suite, virtual where there are fewer


def chosen_peers(args: argparse.Namespace) -> list[Peer]:
    return [PEERS[name] for name in PEERS if not args.peers or name in args.peers]


def chosen_cases(args: argparse.Namespace, on: str) -> list[Case]:
    """Of the suites that are asked for, in the shapes and dtypes, and operations."""
    cases = []
    for name in args.suite or BY_DEFAULT:
        suite = SUITES[name]
        shapes = [shape(text, on) for text in args.shape or suite.SHAPES[on]]
        cases += suite.cases(shapes, args.dtype or suite.DTYPES[on])
    some = args.operation or [""]
    return [case for case in cases if any(text in case.operation for text in some)]


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's own name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device() -> dict[str, Any]:
    one = jax.devices()[0]
    kind = _processor() if one.platform == "cpu" else one.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    flags = {
        k: v for k in ("XLA_FLAGS", "LIBTPU_INIT_ARGS") if (v := os.environ.get(k))
    }
    return {
        "platform": one.platform,
        "kind": kind,
        "count": jax.device_count(),
        "cores": cores or os.cpu_count(),
        # Of other programs too: where it is high, ratios are worth more than times.
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "flags": flags,
    }


def progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def described(case: Case) -> str:
    return f"{case.suite}: {case.operation} {case.shape}, {case.derivative}"


def collected(
    cases: Sequence[Case],
    measure: Callable[[Case], Iterable[Record]],
    console: Console,
    label: str = "",
) -> list[Record]:
    """Case by case, under a progress bar; Ctrl-C ends it and keeps what is measured.

    Where there is no terminal to draw a bar on, a line tells of each case. A case that
    cannot be set up, since it is too large, say, is a record that says so.
    """
    found: list[Record] = []
    with progress(console) as bar:
        task = bar.add_task("", total=len(cases))
        for case in cases:
            text = label + described(case)
            bar.update(task, description=text)
            if not console.is_terminal:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            try:
                found += measure(case)
            except KeyboardInterrupt:
                console.print("interrupted: the cases that are done are kept")
                break
            except Exception as error:
                found += [record(case, "every peer", "", **run.failing(error))]
            bar.advance(task)
    return found


def _apart(args: argparse.Namespace, suite: str, console: Console) -> Results:
    """A suite in a process of its own, whose processor counts as several devices."""
    console.print(f"{suite}: in a process with {DEVICES} virtual devices")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks", "--suite", suite]
        for name in ("shape", "dtype", "peers"):
            if values := getattr(args, name):
                command += [f"--{name}", *values]
        command += ["--seconds", str(args.seconds), "--output", folder]
        flag = f"--xla_force_host_platform_device_count={DEVICES}"
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        environment = os.environ | {"XLA_FLAGS": flags}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return load(Path(folder))


def measured(args: argparse.Namespace, command: str, console: Console) -> Results:
    """Every case on this machine, and the machine's own speed."""
    cases = chosen_cases(args, machine())
    alone = [c for c in cases if c.mesh is None or jax.device_count() >= DEVICES]
    speed = limits.measured({c.dtype for c in alone}, args.seconds)
    options = {"speed": speed, "seconds": args.seconds}
    measure = functools.partial(run.run, peers=chosen_peers(args), **options)
    found = collected(alone, measure, console)
    about = device()
    if len(alone) < len(cases):
        if jax.default_backend() == "cpu":
            apart = _apart(args, "sharded", console)
            found += apart.records
            flags = apart.device["flags"]
            about["flags"] |= {f"{k} of sharded": v for k, v in flags.items()}
        else:
            console.print(f"sharded: left out, it needs {DEVICES} devices")
    return Results(
        command,
        datetime.date.today().isoformat(),
        versions(),
        about,
        speed._asdict(),
        tuple(found),
    )
