"""A case becomes records: every peer is checked against the truth, then timed."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import limits, operations, truth
from .case import ARRAYS, Case
from .measure import Prepared, interleaved, program, stopwatch, summary
from .operations import OPERATIONS, Loss
from .peers import Peer
from .record import Record, record


class Contestant(NamedTuple):
    """A peer's way to compute a case."""

    peer: Peer
    variant: str
    loss: Loss

    @property
    def name(self) -> tuple[str, str]:
        return self.peer.NAME, self.variant


def contestants(case: Case, peers: Sequence[Peer]) -> Iterator[Contestant]:
    """Whoever has the operation, installed or not."""
    for peer in peers:
        if case.protocol in ("trace", "step") and hasattr(peer, "prepare"):
            continue  # nothing is traced
        for variant, loss in peer.LOSSES.get(case.operation, {}).items():
            if case.protocol == "import" or function(case, peer, loss) is not None:
                yield Contestant(peer, variant, loss)


def function(case: Case, peer: Peer, loss: Loss) -> Loss:
    """The peer's loss or derivative as a JAX function."""
    return getattr(peer, "derived", operations.derived)(case, loss)


def mesh(case: Case, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh | None:
    if case.mesh is None:
        return None
    automatic = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(case.mesh, ("data", "model"), automatic, devices=devices)


def on(mesh: jax.sharding.Mesh | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def prepare(case: Case, one: Contestant, arguments: tuple[Any, ...]) -> Prepared:
    """A call that gives the case's result, ready to be timed."""
    own = getattr(one.peer, "prepare", None)
    if own is not None:
        return own(case, one.loss, arguments)
    f = function(case, one.peer, one.loss)
    if case.protocol == "eager":
        return Prepared(lambda: f(*arguments), {})
    if case.protocol == "step":
        return Prepared(_step(f, arguments), {})
    return program(f, arguments)


def _step(f: Loss, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    """A call of a jitted function that also has `ARRAYS` small arrays to update."""
    step = jax.jit(lambda many, *args: (f(*args), [0.9 * x for x in many]))
    many = [jnp.full(8, i, jnp.float32) for i in range(ARRAYS)]
    return lambda: step(many, *arguments)[0]


# By dtype: of the value, and of derivatives, as a share of their norm. Some peers round
# the loss to bfloat16, whose unit is 2⁻⁷; a product in float32 has fewer digits on an
# accelerator, by default.
TOLERANCES = {
    "float32": (1e-5, 1e-4),
    "float32 on an accelerator": (1e-3, 2e-2),
    "bfloat16": (1e-2, 4e-2),
    "mixed": (1e-2, 4e-2),
}


@jax.jit
def _distance(got: jax.Array, true: jax.Array) -> jax.Array:
    """Largest |got − true|, ‖got − true‖ and ‖true‖."""
    off = jnp.ravel(got.astype(true.dtype) - true)
    return jnp.stack(
        [jnp.max(jnp.abs(off)), jnp.linalg.norm(off), jnp.linalg.norm(jnp.ravel(true))]
    )


def errors(got: Any, true: Any, leaf: Callable[[Any], Any] = lambda x: x):
    """Largest error of the value, relative and absolute, and of the derivatives.

    Derivatives are compared as ‖got − true‖ / ‖true‖.
    """
    got = [_in_one_place(leaf(x)) for x in jax.tree.leaves(got)]
    true = jax.tree.leaves(true)
    if [x.shape for x in got] != [x.shape for x in true]:
        shapes = [x.shape for x in got], [x.shape for x in true]
        raise ValueError("results of shapes {}, where {} are right".format(*shapes))
    with jax.enable_x64(True):
        pairs = zip(got, true, strict=True)
        distances = np.array([_distance(g, t) for g, t in pairs])
    absolute, off, size = distances.T
    relative = off / np.where(size, size, 1)
    # A NaN among them is the maximum.
    of_rest = float(np.max(relative[1:])) if len(relative) > 1 else None
    return float(absolute[0]), float(relative[0]), of_rest


def _in_one_place(x: Any) -> Any:
    """An array; on the host, if it was split over devices."""
    split = isinstance(x, jax.Array) and len(x.devices()) > 1
    return np.asarray(x) if split else x


def _checked(case: Case, one: Contestant, call: Callable[[], Any], true: Any):
    """The errors for a record; its status and message where they are too large."""
    absolute, of_value, of_rest = errors(
        jax.block_until_ready(call()), true, getattr(one.peer, "leaf", lambda x: x)
    )
    found: dict[str, Any] = {"error": absolute, "gradient_error": of_rest}
    kind = case.dtype
    if kind == "float32" and jax.default_backend() != "cpu":
        kind += " on an accelerator"
    first, rest = TOLERANCES[kind]
    if case.derivative == "per-example gradients":  # there is no value
        found, first = {"gradient_error": of_value}, rest
    elif case.derivative == "hessian-vector product":
        worst = float(np.maximum(of_value, of_rest or 0))
        found["gradient_error"], first = worst, rest
        found["error"] = None
    if not of_value <= first or not (of_rest or 0) <= rest:
        found["status"] = "wrong"
        worst = of_value if not of_value <= first else of_rest
        found["message"] = f"off by {worst:.2g} of its size"
    return found


def true_result(case: Case, arguments: tuple[jax.Array, ...]) -> Any:
    """In float64, on the same numbers."""
    with jax.enable_x64(True):
        loss = OPERATIONS[case.operation].truth
        return jax.jit(operations.derived(case, loss))(*truth.widened(arguments))


MISSING: dict[str, Any] = {"status": "missing", "message": "not installed"}


def failing(error: Exception) -> dict[str, Any]:
    """A status, and one line that tells what went wrong."""
    lines = str(error).strip().splitlines() or [""]
    message = f"{type(error).__name__}: {lines[0]}"[:200]
    return {"status": "failing", "message": message}


def run(
    case: Case,
    peers: Sequence[Peer],
    *,
    speed: limits.Limits | None = None,
    seconds: float = 2.0,
) -> Iterator[Record]:
    """A record per contestant; a raising or wrong one does not stop the others."""
    if case.protocol == "import":
        yield from _imports(case, peers, seconds)
        return
    with on(here := mesh(case)):
        arguments = operations.arrays(case)
        true = true_result(case, arguments)
        if here is not None:
            arguments = jax.device_put(arguments, operations.split(case, here))
        records: dict[tuple[str, str], dict[str, Any]] = {}
        calls: dict[tuple[str, str], Callable[[], Any]] = {}
        for one in contestants(case, peers):
            if not one.peer.available():
                yield record(case, *one.name, **MISSING)
                continue
            found: dict[str, Any] = limits.floor(case, speed) if speed else {}
            try:
                call, numbers = prepare(case, one, arguments)
                if case.protocol != "trace":
                    # What it needs may be imported, or has been traced before.
                    numbers.pop("trace_s", None)
                found |= numbers
                if getattr(one.peer, "IS_LOSS", True):
                    found |= _checked(case, one, call, true)
            except Exception as error:
                found |= failing(error)
            records[one.name] = found
            if found.get("status", "ok") == "ok":
                calls[one.name] = call
                if case.protocol == "trace":
                    calls[one.name] = functools.partial(_traced, case, one, arguments)
        del true  # its memory may be wanted
        for name, timing in _times(case, calls, seconds).items():
            records[name] |= timing
        for name, found in records.items():
            yield record(case, *name, **found)


def _times(case: Case, calls: Mapping[Any, Callable[[], Any]], seconds: float):
    """Fields of records by contestant."""
    if not calls or case.protocol == "error":
        return {}
    if case.protocol == "trace":
        return _trace_times(calls, seconds)
    repeat = 100 if case.protocol in ("eager", "step") else 1
    watches = {name: stopwatch(call, repeat) for name, call in calls.items()}
    times = interleaved(watches, seconds=seconds)
    return {
        name: {"seconds": t.median, "low": t.low, "high": t.high, "rounds": t.rounds}
        for name, t in times.items()
    }


def _traced(case: Case, one: Contestant, arguments: tuple[Any, ...]) -> tuple:
    """Seconds to trace and to compile, with nothing left of the last time."""
    jax.clear_caches()
    numbers = prepare(case, one, arguments).numbers
    return numbers["trace_s"], numbers["compile_s"]


def _trace_times(calls: Mapping[Any, Callable[[], Any]], seconds: float):
    """Medians of both; the spread is that of tracing."""
    pairs: dict[Any, list[tuple[float, float]]] = {name: [] for name in calls}
    start, rounds = time.perf_counter(), 0
    while rounds < (3 if seconds else 1) or time.perf_counter() - start < seconds:
        rounds += 1
        for name, call in calls.items():
            pairs[name].append(call())
    found = {}
    for name, values in pairs.items():
        trace, compiling = (summary(list(v)) for v in zip(*values, strict=True))
        found[name] = {
            "trace_s": trace.median,
            "low": trace.low,
            "high": trace.high,
            "rounds": trace.rounds,
            "compile_s": compiling.median,
        }
    return found


_IMPORT = (
    "import time, jax, jax.numpy; start = time.perf_counter(); import {}; "
    "print(time.perf_counter() - start)"
)


def _imports(case: Case, peers: Sequence[Peer], seconds: float) -> Iterator[Record]:
    """What an import adds to that of jax, in fresh interpreters that keep bytecode.

    Installed packages have theirs; a checkout, or one that may not be written to, would
    be compiled again at each import.
    """
    kept = tempfile.mkdtemp(prefix="bytecode")
    environment = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    }
    environment["PYTHONPYCACHEPREFIX"] = kept

    def watch(module: str) -> float:
        command = [sys.executable, "-c", _IMPORT.format(module)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        )
        return float(done.stdout)

    watches = {}
    for one in contestants(case, peers):
        if one.peer.available():
            watches[one.name] = functools.partial(watch, one.peer.MODULE)
            watches[one.name]()  # writes the bytecode
        else:
            yield record(case, *one.name, **MISSING)
    times = interleaved(watches, seconds=seconds)
    shutil.rmtree(kept)
    for name, t in times.items():
        numbers = {"seconds": t.median, "low": t.low, "high": t.high}
        yield record(case, *name, rounds=t.rounds, **numbers)
