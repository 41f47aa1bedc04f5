"""Programs and what the compiler says of them; interleaved timing."""

import itertools
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from .communication import moved


class Prepared(NamedTuple):
    """A call that is ready to be timed, and what was learnt on the way."""

    call: Callable[[], Any]
    numbers: dict[str, Any]


class Timing(NamedTuple):
    """Seconds a call: the median, the middle half, the rounds and the best of them."""

    median: float
    low: float
    high: float
    rounds: int
    best: float


def program(
    function: Callable[..., Any],
    arguments: Iterable[Any],
    platforms: tuple[str, ...] | None = None,
) -> Prepared:
    """`function` compiled ahead of time, so that no call is timed with its compiler.

    For `platforms` where the arguments are only described, on devices of another kind.
    """
    arguments = tuple(arguments)
    start = time.perf_counter()
    # A function of its own: JAX would remember another call's program.
    traced = jax.jit(lambda *args: function(*args)).trace(*arguments)
    middle = time.perf_counter()
    compiled = traced.lower(lowering_platforms=platforms).compile()
    numbers = {
        "trace_s": middle - start,
        "compile_s": time.perf_counter() - middle,
        **compiler_numbers(compiled),
    }
    return Prepared(lambda: compiled(*arguments), numbers)


def compiler_numbers(compiled: Any) -> dict[str, Any]:
    """Temporary memory, and traffic and collectives where there are any.

    A compiler counts the body of a loop once, so that its traffic and roofline time
    say nothing of a program with loops; they are left out of it.
    """
    text = compiled.as_text() or ""
    numbers: dict[str, Any] = {}
    memory = compiled.memory_analysis()
    if memory is not None:
        numbers["temporary_bytes"] = memory.temp_size_in_bytes
    numbers["collectives"] = collectives(text)
    cost = compiled.cost_analysis()
    if isinstance(cost, list):
        cost = cost[0] if cost else None
    # Where a compiler has no model of its device, as on a CPU, it has no roofline time
    # either, and its bytes are those of the program's text.
    modelled = bool(cost) and cost.get("optimal_seconds", 0) > 0
    if modelled and not re.search(r"\bwhile\(", text):
        numbers["traffic_bytes"] = cost["bytes accessed"]
        numbers["roofline_s"] = cost["optimal_seconds"]
    return numbers


def collectives(text: str) -> str:
    """ "2 all-reduce (0.25 MiB)": what a compiled program sends, by the results' size.

    One in a loop is counted once, and said to be there.
    """
    count, size = Counter[str](), Counter[str]()
    for m in moved(text):
        name = m.operation + " in a loop" * m.in_loop
        count[name] += 1
        size[name] += m.numbers * m.width
    return ", ".join(
        f"{n} {name} ({size[name] / 2**20:.2f} MiB)"
        for name, n in sorted(count.items())
    )


def stopwatch(call: Callable[[], Any], repeat: int = 1) -> Callable[[], float]:
    """Seconds of one call among `repeat` in a row, of which the last is waited for."""

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(repeat - 1):
            call()
        jax.block_until_ready(call())
        return (time.perf_counter() - start) / repeat

    return seconds


def interleaved(
    watches: Mapping[Any, Callable[[], float]],
    *,
    seconds: float,
    at_most: int = 50,
) -> dict[Any, Timing]:
    """Reads the watches in turn, round after round, so that drift meets all alike.

    Each is run once before it is read: what the one before it left in caches and heap
    (a gigabyte given back, to be asked for again) would else count as its own. Each
    round starts one later. There are as many rounds as fit into `seconds`, but 3 at
    least, and 1 where seconds is 0.
    """
    at_least = 3 if seconds else 1
    values: dict[Any, list[float]] = {name: [] for name in watches}
    turns = list(watches)
    start = time.perf_counter()
    for done in itertools.count(1):
        turns.append(turns.pop(0))
        for name in turns:
            watches[name]()
            values[name].append(watches[name]())
        spent = time.perf_counter() - start
        if done >= at_most or (
            done >= at_least and spent * (done + 1) / done > seconds
        ):
            break
    return {name: summary(v) for name, v in values.items()}


def summary(values: list[float]) -> Timing:
    if len(values) < 2:
        return Timing(*values * 3, 1, *values)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(median, low, high, len(values), min(values))
