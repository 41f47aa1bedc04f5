"""Programs for devices that are not there, by their real compilers.

What a compiler reports is no measurement of a device, and stays labelled so. Where the
device is there, the same programs run on it and are timed by its own clock.
"""

import argparse
import datetime
import functools
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from rich.console import Console

from . import device_clock, limits, operations, run, session
from .case import Case
from .measure import program
from .peers import Peer
from .record import Record, Results, record
from .targets import TARGETS, MissingCompilerError, Target


def _program(case: Case, one: run.Contestant, target: Target) -> dict[str, Any]:
    """The compiler's numbers of one program, for one device or the case's mesh."""
    count = case.mesh[0] * case.mesh[1] if case.mesh else 1
    devices = target.devices(count)
    mesh = run.mesh(case, devices)
    abstract = jax.eval_shape(lambda: operations.arrays(case))
    if mesh is None:
        places = [jax.sharding.SingleDeviceSharding(devices[0])] * len(abstract)
    else:
        places = operations.split(case, mesh)
    arguments = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        for x, place in zip(abstract, places, strict=True)
    ]
    with run.on(mesh):
        function = run.function(case, one.peer, one.loss)
        return program(function, arguments, (target.lowering,)).numbers


def _on_device(case: Case, one: run.Contestant) -> dict[str, Any]:
    """The same program on this machine's devices, and their time."""
    with run.on(mesh := run.mesh(case)):
        arguments = operations.arrays(case)
        if mesh is not None:
            arguments = jax.device_put(arguments, operations.split(case, mesh))
        call, numbers = run.prepare(case, one, arguments)
        return numbers | device_clock.seconds(call)


def records(
    case: Case, *, peers: Sequence[Peer], name: str, real: bool
) -> Iterator[Record]:
    target = TARGETS[name]
    from_nothing = case.protocol == "trace"
    case = case._replace(protocol="time", platform=target.platform)
    if case.mesh and jax.device_count() < case.mesh[0] * case.mesh[1]:
        real = False
    for one in run.contestants(case, peers):
        if hasattr(one.peer, "prepare"):
            continue  # no JAX program
        if not one.peer.available():
            yield record(case, *one.name, **run.MISSING, target=name)
            continue
        found: dict[str, Any] = limits.floor(case, target.limits)
        if from_nothing:
            jax.clear_caches()
            if one.peer.MODULE:
                importlib.import_module(one.peer.MODULE)
        try:
            if real:
                found |= _on_device(case, one)
            else:
                found |= _program(case, one, target)
        except Exception as error:
            found |= run.failing(error)
        if not from_nothing:  # its parts may have been traced before
            found.pop("trace_s", None)
        yield record(case, *one.name, **found, target=name)


def on_targets(
    cases: Sequence[Case], peers: Sequence[Peer], names: Sequence[str], console: Console
) -> list[Record]:
    """Every case for each target that has its compiler here; run where it is there."""
    found: list[Record] = []
    for name in names:
        try:
            TARGETS[name].devices(1)
        except (MissingCompilerError, RuntimeError) as error:
            console.print(f"{name}: skipped, {error}", markup=False, soft_wrap=True)
            continue
        real = TARGETS[name].present()
        measure = functools.partial(records, peers=peers, name=name, real=real)
        found += session.collected(cases, measure, console, f"{name}: ")
    return found


def measured(args: argparse.Namespace, command: str, console: Console) -> Results:
    """Every case for each target that has its compiler here."""
    targets = args.target or list(TARGETS)
    real = [name for name in targets if TARGETS[name].present()]
    if not real:
        # A plugin that finds no device of its own would only complain.
        jax.config.update("jax_platforms", "cpu")
    peers = session.chosen_peers(args)
    cases = session.chosen_cases(args, "accelerator")
    # Imports are no programs, a step is no other one, and ignored rows are of the data.
    left_out = ("import", "step")
    cases = [c for c in cases if c.protocol not in left_out and not c.ignored]
    found = on_targets(cases, peers, targets, console)
    return Results(
        command,
        datetime.date.today().isoformat(),
        session.versions(),
        {"platform": "compiled, not run", "kind": ", ".join(targets), "flags": {}}
        if not real
        else session.device(),
        {name: TARGETS[name].limits._asdict() for name in targets},
        tuple(found),
    )
