"""What no program can do without, and how fast this machine could do it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .case import Case
from .measure import interleaved, stopwatch
from .operations import widths


class Limits(NamedTuple):
    """Bytes and floating-point operations a second, the latter by dtype."""

    bandwidth: float
    flops: dict[str, float]


class Work(NamedTuple):
    """Bytes to and from memory, and floating-point operations of the products."""

    bytes: float
    flops: float


def work(case: Case) -> Work | None:
    """The least that a value, or a value and its gradients, cost.

    Logits that are larger than a cache are read for the normalizer, and for the
    gradient read again and written. A head reads its operands and writes their
    gradients; its logits are one product, its gradients two. Ignored rows need none.
    Pairs are the rows of a head whose kernel is the other side.
    """
    passes = {"forward": (1, 1, 1), "value and gradient": (3, 2, 3)}
    if case.derivative not in passes or not case.operation.startswith(
        ("logits", "head", "pairs")
    ):
        return None
    of_logits, of_head, products = passes[case.derivative]
    rows, features, classes = case.shape
    rows *= 1 - case.ignored
    low, high = (jnp.dtype(dtype).itemsize for dtype in widths(case.dtype))
    if not features:
        return Work(of_logits * rows * classes * low, 0)
    hidden = rows * features * low
    kernel = features * classes * high
    return Work(of_head * (hidden + kernel), 2 * products * rows * features * classes)


def floor(case: Case, limits: Limits) -> dict[str, float]:
    """The work's numbers for a record, and the seconds below which no program gets."""
    needed = work(case)
    if needed is None:
        return {}
    dtype = widths(case.dtype)[0]
    devices = case.mesh[0] * case.mesh[1] if case.mesh else 1
    if not case.platform and jax.default_backend() == "cpu":
        devices = 1  # virtual devices share one machine
    seconds = needed.bytes / limits.bandwidth
    if needed.flops:
        seconds = max(seconds, needed.flops / limits.flops[dtype])
    return {
        "floor_bytes": needed.bytes,
        "floor_flops": needed.flops,
        "floor_s": seconds / devices,
    }


def measured(dtypes: set[str], seconds: float) -> Limits:
    """By a copy of an array too large for a cache, and by products of square matrices.

    The best round counts, as a limit is what the machine can do. The copy donates its
    argument, so that fresh memory is not part of it.
    """
    small = jax.default_backend() == "cpu"
    size = 2**26 if small else 2**29
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = [jnp.zeros(size, jnp.float32)]

    def step():
        state[0] = copy(state[0])
        return state[0]

    n = 2048 if small else 8192
    watches = {"copy": stopwatch(step)}
    for dtype in sorted({widths(dtype)[0] for dtype in dtypes}):
        square = jnp.ones((n, n), dtype)
        product = jax.jit(jnp.matmul).lower(square, square).compile()
        watches[dtype] = stopwatch(lambda p=product, x=square: p(x, x))
    times = interleaved(watches, seconds=seconds)
    bandwidth = 8 * size / times.pop("copy").best
    return Limits(bandwidth, {k: 2 * n**3 / t.best for k, t in times.items()})
