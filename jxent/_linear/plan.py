"""Which layout suits a problem, and in which blocks."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from .. import _checks
from .layout import Layout


Implementation: TypeAlias = Literal["tiled", "streamed", "materialized"]
BlockSizes: TypeAlias = tuple[int | None, int | None]

IMPLEMENTATIONS = ("tiled", "streamed", "materialized")
BUDGET = 2**31  # bytes


class Sizes(NamedTuple):
    """What a choice is made from."""

    rows: int
    features: int
    classes: int
    width: int  # bytes of a logit
    hidden_width: int
    kernel_width: int
    platform: str


def _platform() -> str:
    return jax.default_backend()


def _floor(x: float, unit: int) -> int:
    return max(int(x) // unit * unit, unit)


def _blocks(implementation: str, s: Sizes, droppable: bool) -> tuple[int, int]:
    """Block sizes (rows, classes) in each layout."""
    if implementation == "materialized":
        return s.rows, s.classes
    if implementation == "tiled":
        slab = 128 * 2**20
        rows = _floor(slab / (s.width * max(s.classes, 1)), 128)
        rows = min(rows, 512, _floor(s.rows / 4, 128))
        classes = 512 if s.platform == "cpu" else 4096
    else:
        slab = 32 * 2**20
        classes = _floor(slab / (s.width * max(s.rows, 1)), 256)
        classes = min(classes, 512 if s.platform == "cpu" else 2048)
        rows = s.rows
        if droppable:
            rows = _floor(s.rows / 8, 128)
    return max(min(rows, s.rows), 1), max(min(classes, s.classes), 1)


def _temporaries(
    implementation: str, s: Sizes, blocks: tuple[int, int]
) -> int:
    """Bytes beside operands and results, of the value and both gradients."""
    rows, classes = blocks
    if implementation == "materialized":
        return 2 * s.rows * s.classes * s.width
    kernel_gradient = 0
    if s.kernel_width < s.width:
        kernel_gradient = s.features * s.classes * s.width
    hidden = s.rows * s.features * s.width
    if implementation == "tiled":
        return rows * s.classes * s.width + kernel_gradient + hidden
    return 2 * s.rows * classes * s.width + hidden


def _choice(
    s: Sizes, *, scalar: bool, droppable: bool, split: bool, budget: int
) -> Implementation:
    small = s.rows * s.classes * s.width <= 8 * 2**20
    if small and not split:
        return "materialized"
    if scalar and not split:
        blocks = _blocks("tiled", s, droppable)
        if _temporaries("tiled", s, blocks) <= budget:
            return "tiled"
    return "streamed"


def chosen(
    function: str,
    rows: int,
    features: int,
    classes: int,
    vocab_axis: int,
    *,
    hidden_dtype: Any,
    kernel_dtype: Any,
    scalar: bool,
    split: bool,
    droppable: bool,
    block_sizes: BlockSizes | None,
    implementation: str | None,
    budget: int = BUDGET,
    platform: str | None = None,
) -> Layout:
    """The layout: what is asked for, and for the rest what suits."""
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        _checks.fail(
            function,
            f"expected implementation to be one of {IMPLEMENTATIONS} or None, got "
            f"{implementation!r}.",
        )
    if implementation == "tiled" and not scalar:
        _checks.fail(
            function,
            "implementation='tiled' gives one number, reduction='mean' or 'sum' "
            "without statistics. For results per row give 'streamed'.",
        )
    s = Sizes(
        rows,
        features,
        classes,
        8 if jnp.float64 in (hidden_dtype, kernel_dtype) else 4,
        jnp.dtype(hidden_dtype).itemsize,
        jnp.dtype(kernel_dtype).itemsize,
        platform or _platform(),
    )
    if implementation is None:
        implementation = _choice(
            s, scalar=scalar, droppable=droppable, split=split, budget=budget
        )
    wanted = block_sizes or (None, None)
    if len(wanted) != 2 or any(
        n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1)
        for n in wanted
    ):
        _checks.fail(
            function,
            "expected block_sizes to be a pair (rows, classes) of positive ints, None "
            f"where any will do, got {block_sizes!r}.",
        )
    default = _blocks(implementation, s, droppable)
    limits = max(rows, 1), max(classes, 1)
    blocks = [
        min(limit, d if w is None else w)
        for w, d, limit in zip(wanted, default, limits, strict=True)
    ]
    return Layout(implementation, vocab_axis, *blocks)
