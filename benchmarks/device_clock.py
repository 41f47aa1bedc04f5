"""Time as a device counts it: what its profile says it was busy."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

from .measure import summary


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """The length of a union of intervals: kernels on two streams count once."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(last - max(first, end), 0.0)
        end = max(end, last)
    return total


def of_planes(planes: Iterable[Any]) -> float:
    """Seconds that the first device of a profile was busy.

    A TPU's profile has a line of whole programs; a GPU's has one of kernels per stream.
    """
    for plane in planes:
        if not plane.name.startswith("/device:") or "CUSTOM" in plane.name:
            continue
        lines = list(plane.lines)
        whole = [line for line in lines if line.name == "XLA Modules"]
        events = [e for line in whole or lines for e in line.events]
        spans = [(e.start_ns, e.start_ns + e.duration_ns) for e in events]
        if spans:
            return busy(spans) / 1e9
    raise RuntimeError("the profile holds no device's events")


def seconds(call: Callable[[], Any], rounds: int = 10) -> dict[str, Any]:
    """Fields of a record: a profile per round, after two rounds to warm up."""
    for _ in range(2):
        jax.block_until_ready(call())
    values = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                jax.block_until_ready(call())
            (path,) = Path(folder).rglob("*.xplane.pb")
            values.append(of_planes(jax.profiler.ProfileData.from_file(path).planes))
    t = summary(values)
    return {"seconds": t.median, "low": t.low, "high": t.high, "rounds": t.rounds}
