"""Interleaved timing, and what the compiler reports."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from tqdm import tqdm


class Timing(NamedTuple):
    """Seconds a call: the median, and the middle half of the rounds."""

    median: float
    low: float
    high: float


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, rounds: int, title: str, repeat: int = 1
) -> dict[str, Timing]:
    """Times the calls in turn, round after round, so that drift meets all alike.

    Each round starts one call later, so that no call always follows the same one. With
    `repeat` a turn is that many calls in a row, and the last one is waited for.
    """
    for call in calls.values():
        for _ in range(2):
            jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    turns = list(calls.items())
    for _ in tqdm(range(rounds), desc=title, leave=False):
        turns.append(turns.pop(0))
        for name, call in turns:
            start = time.perf_counter()
            for _ in range(repeat - 1):
                call()
            jax.block_until_ready(call())
            seconds[name].append((time.perf_counter() - start) / repeat)
    timings = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        timings[name] = Timing(median, low, high)
    return timings


def temporary_mib(compiled: Any) -> float:
    """Memory beyond inputs and outputs, from the compiler's own report."""
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def traffic_gib(compiled: Any) -> float | None:
    """Bytes moved between memory and chip, where the compiler tells (on a TPU)."""
    cost = compiled.cost_analysis()
    if isinstance(cost, list):
        cost = cost[0] if cost else None
    moved = (cost or {}).get("bytes accessed")
    return None if moved is None else moved / 2**30
