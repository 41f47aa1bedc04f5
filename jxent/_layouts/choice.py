"""The layout and the blocks that suit a problem, and the memory that they take."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._linear_logits import BlockSizes, Implementation
from .._problem.bundles import ROWS_AND_CLASSES, Axes, map_fields
from .._problem.problem import Problem


IMPLEMENTATIONS = ("tiled", "streamed", "materialized")
BUDGET = 2**31  # bytes
FEWEST_ROWS = 128  # of a tile whose rows have all of their classes
PIECE = 512  # classes of a product with a part of the kernel, which a CPU copies
# Bytes of logits that fit a CPU's cache, or a TPU's vector memory, with what is formed
# of them.
GROUP = {"cpu": 2**20, "tpu": 2**25}


class Sizes(NamedTuple):
    """Sizes and platform, from which the layout is chosen."""

    rows: Any
    features: int
    classes: int
    width: int  # bytes of a logit
    hidden_width: int
    kernel_width: int
    platform: str


def sizes_of(
    rows: Any,
    features: int,
    classes: int,
    hidden_dtype: Any,
    kernel_dtype: Any,
    platform: str,
) -> Sizes:
    return Sizes(
        rows=rows,
        features=features,
        classes=classes,
        width=8 if jnp.float64 in (hidden_dtype, kernel_dtype) else 4,
        hidden_width=jnp.dtype(hidden_dtype).itemsize,
        kernel_width=jnp.dtype(kernel_dtype).itemsize,
        platform=platform,
    )


class Uses(NamedTuple):
    """Which options a call uses, as far as these change its plan."""

    drops: bool = False  # rows, by where or ignore_index
    weights: bool = False
    bias: bool = False
    masks: bool = False  # of classes
    smoothing: bool = False
    of_every_class: bool = False  # a number of the target for each of them
    soft_cap: bool = False
    temperature: bool = False
    scattered: bool = False  # the gradient is, at several classes a row
    large_blocks: bool = False
    whole_rows: bool = False  # whatever the blocks, for the ranks of labels
    heads: int = 1  # how many logits of a row do not exist
    arrays: int = 0  # how many beside them do, of which a block is copied
    # Arrays of a block's size that a CPU keeps for a derivative, beside the logits; if
    # a row is no more than a sum over its classes, its value takes one less.
    kept: int = 0
    summed: bool = False
    # Bytes of a class in arrays (rows, classes) of the caller: labels, masks, a target.
    given: int = 0
    listed: bool = False  # lists of positives, of which booleans of a block are made
    class_where: bool = False
    weighed: bool = False  # whether a mean divides by the mass of distributions


def uses_of(problem: Problem) -> Uses:
    """The options of a problem that change its plan."""
    settings, (rows, shared), target = problem.settings, problem.pair, problem.target
    head = shared.heads[0]
    of_blocks = any(s.fewest_classes for s in settings.statistics)
    keeps_terms = any(s.keeps_terms for s in settings.statistics)
    keeps_terms = keeps_terms and settings.formula is None
    ignored = target.drops and shared.ignore_index is not None

    def width(axes: Axes, x: Array) -> int:
        return x.dtype.itemsize * (axes.order == ROWS_AND_CLASSES.order)

    return Uses(
        drops=rows.where is not None or ignored,
        weights=rows.weights is not None,
        bias=head.bias is not None,
        masks=shared.class_mask is not None or rows.class_where is not None,
        smoothing=shared.label_smoothing is not None,
        of_every_class=target.of_every_class,
        soft_cap=head.logit_soft_cap is not None,
        temperature=rows.temperature is not None,
        scattered=target.scattered,
        large_blocks=of_blocks,
        whole_rows=settings.result.whole_rows,
        heads=sum(x.hidden is not None for x in rows.logits),
        arrays=sum(x.array is not None for x in rows.logits),
        kept=target.kept_arrays(problem) or int(of_blocks or keeps_terms),
        summed=keeps_terms or target.is_sum(problem),
        given=sum(jax.tree.leaves(map_fields(width, rows))),
        listed=target.listed,
        class_where=rows.class_where is not None,
        weighed=target.weighed,
    )


def _floor(x: float, unit: int) -> int:
    """x rounded down to a multiple of `unit`, and at least one `unit`."""
    return max(int(x) // unit * unit, unit)


def _blocks(implementation: str, s: Sizes, uses: Uses) -> tuple[int, int]:
    """Block sizes (rows, classes) in each layout."""
    if implementation == "materialized":
        return s.rows, s.classes
    heads = uses.heads  # each has logits of its own
    if implementation == "tiled":
        # Each tile reads and writes the kernel's gradient: larger tiles, less traffic.
        most = {"cpu": 512, "tpu": 1024}.get(s.platform, 512)
        slab = {"cpu": 128, "tpu": 512}.get(s.platform, 256) * 2**20
        rows = _floor(slab / (heads * s.width * max(s.classes, 1)), 128)
        rows = min(rows, most // heads, _floor(s.rows / 4, 128))
        classes = 1024 if s.platform == "cpu" else s.classes
    else:
        slab = 32 * 2**20
        classes = _floor(slab / (heads * s.width * max(s.rows, 1)), 256)
        # With fewer rows a block adds to the kernel's gradient more often.
        most = 2048 if s.platform != "cpu" else 1024 if uses.drops else 512
        classes = min(classes, most)
        rows = _floor(s.rows / 8, 128) if uses.drops else s.rows
        if uses.large_blocks and s.platform == "cpu":
            # The largest of many classes are found faster than those of blocks of few.
            classes = min(s.classes, 2**15)
            rows = _floor(1024 * s.rows / classes, 8)
        elif uses.large_blocks:
            # A block is stored, sorted, and stored again with its order.
            rows, classes = min(rows, 1024), 2048
        elif uses.whole_rows:  # as many logits, but a product needs rows
            rows = max(rows * classes // max(s.classes, 1), FEWEST_ROWS)
            classes = s.classes
    return max(min(rows, s.rows), 1), max(min(classes, s.classes), 1)


def _slabs(implementation: str, s: Sizes, uses: Uses) -> tuple[int, int]:
    """How many arrays of a block's size exist at a time: for the value, and with both.

    On a CPU XLA's sums over classes read arrays in memory, and the derivative of an
    option that acts on logits reads them as they were before it. Compilers for
    accelerators apply formulas and options inside of the sums.
    """
    heads = uses.heads
    if s.platform != "cpu" or implementation == "tiled":
        return heads, heads  # all else is as large as a group of rows
    nonlinear = uses.soft_cap or uses.temperature
    mask = uses.masks and not uses.class_where
    if implementation == "streamed":
        cap = (uses.soft_cap or uses.bias) and not uses.summed
        # A sum over classes that keeps one or two arrays stores none of a block's size.
        kept = uses.kept > 2 * uses.summed and uses.kept - uses.summed
        value = max(kept, cap) + (uses.summed and uses.temperature)
        value += uses.masks and (uses.large_blocks or uses.whole_rows)
        value = heads + max(value, uses.arrays)
        return value, heads + mask + max(uses.kept - 2, 0)
    if not uses.kept:
        linear = mask or (uses.smoothing and not uses.drops)
        skips = uses.drops or uses.weights
        copies = (linear or nonlinear) + (skips and nonlinear)
    elif uses.summed and (uses.of_every_class or uses.scattered):
        copies = max(uses.kept - mask, 1) + uses.temperature
    else:
        copies = uses.kept + (nonlinear and uses.heads == 1)
        copies += mask and (uses.summed or uses.large_blocks)
    return heads + copies, heads + copies


def rows_of_group(s: Sizes, uses: Uses, tile: Any) -> int:
    """How many rows of a tile turn their logits into gradients at a time; 0 for all.

    On a CPU, where options would otherwise take a second slab of logits; on a TPU for
    several ids a row, whose gradient is scattered into a copy of the slab.
    """
    grouped = {"cpu": (uses != Uses()), "tpu": uses.scattered}.get(s.platform, False)
    if not (grouped and isinstance(tile, int) and isinstance(s.classes, int)):
        return 0
    rows = max(GROUP[s.platform] // (s.width * max(s.classes, 1)), 4)
    rows = 1 << rows.bit_length() - 1
    return rows if rows < tile else 0


def temporaries(
    implementation: str, s: Sizes, blocks: tuple[int, int], uses: Uses
) -> int:
    """Bytes that the value and both gradients need beside operands and results."""
    rows, classes = blocks
    of_value, slabs = _slabs(implementation, s, uses)
    cast = s.platform == "cpu"  # other compilers do without the cast operands
    # Where a mask meets an array of all rows, XLA on a CPU stores what comes of it.
    tiled = implementation == "tiled"
    meets = tiled and uses.weighed and uses.masks
    whole = cast * meets * s.rows * s.classes * s.width
    # Rows that are sorted, so that those which are dropped come last, are copied.
    drops = uses.drops or (tiled and uses.class_where)
    reordered = drops * s.rows * s.classes * uses.given
    # Of a narrower dtype, an operand is cast to float32 and its gradient summed there.
    hidden = s.rows * s.features * s.width
    kernel = s.features * s.classes * s.width
    low_hidden, low_kernel = s.hidden_width < s.width, s.kernel_width < s.width
    if implementation == "materialized":
        operands = cast * (hidden * low_hidden + kernel * low_kernel)
        labels = cast * uses.listed * s.rows * s.classes
        return slabs * s.rows * s.classes * s.width + operands + labels
    block = rows * classes * s.width
    if uses.whole_rows:  # of ranks, which have no derivative
        block = max(block, FEWEST_ROWS * s.classes * s.width)
        return max(of_value * block + reordered, whole)
    if implementation == "streamed":
        of_kernel = s.features * classes * s.width
        copies = 3 * (s.rows * s.features * s.hidden_width + reordered)
        copies += 2 * (of_kernel + block)
        # A CPU sums the gradient of the whole kernel in float32, others a block's.
        of_low = 2 * hidden * low_hidden + cast * kernel * low_kernel
        gradients = slabs * block + of_kernel + hidden + of_low + copies * uses.drops
        labels = cast * uses.listed * rows * classes
        return max(gradients, of_value * block + labels, whole)
    operands = hidden + 2 * rows * s.features * s.width
    sums = hidden * low_hidden + kernel * low_kernel
    if cast and low_hidden and low_kernel:  # the logits' gradient in bfloat16
        slabs += 0.5
    slab = rows * s.classes * s.width
    groups = cast * (uses != Uses()) * min(4 * GROUP["cpu"], slab)
    given = cast * rows * s.classes * uses.given + reordered
    return max(int(slabs * slab) + given + groups + operands + sums, whole)


def _choice(
    s: Sizes, uses: Uses, *, scalar: bool, split: bool, budget: int
) -> Implementation:
    """The layout that suits the sizes; `budget` is in bytes."""
    small = s.rows * s.classes * s.width <= 8 * 2**20
    if small and not split:
        return "materialized"
    if scalar and not split:
        tiled = temporaries("tiled", s, _blocks("tiled", s, uses), uses)
        if tiled <= budget:
            whole = temporaries("materialized", s, (s.rows, s.classes), uses)
            # Of materialized logits no row is skipped.
            skips = uses.drops or uses.weights
            return "materialized" if whole <= tiled and not skips else "tiled"
    return "streamed"


def chosen(
    function: str,
    s: Sizes,
    *,
    scalar: bool,
    split: bool,
    uses: Uses,
    block_sizes: BlockSizes | None,
    implementation: Implementation | None,
    budget: int,
) -> tuple[Implementation, Any, Any]:
    """The layout, the rows of a tile and the classes of a block.

    What the caller gives is kept; the rest is chosen by sizes, platform and options.
    """
    _checks.one_of(function, "implementation", implementation, IMPLEMENTATIONS)
    given = _checks.block_sizes(function, block_sizes)
    if not isinstance(s.classes, int):
        return _of_unknown_classes(function, s, implementation)
    if not isinstance(s.rows, int):
        return _of_unknown_rows(s, given, implementation)
    if implementation is None:
        implementation = _choice(s, uses, scalar=scalar, split=split, budget=budget)
    default = _blocks(implementation, s, uses)
    limits = max(s.rows, 1), max(s.classes, 1)
    tile, block = (
        min(limit, d if w is None else w)
        for w, d, limit in zip(given, default, limits, strict=True)
    )
    return implementation, tile, block


def _of_unknown_classes(
    function: str, s: Sizes, implementation: Implementation | None
) -> tuple[Implementation, Any, Any]:
    """The layout for a count of classes that is symbolic: they are not cut into blocks,
    since a loop over blocks would have to know how many there are."""
    if implementation not in (None, "materialized"):
        _checks.fail(
            function,
            "expected a number of classes that is known when the program is traced, "
            f"for implementation={implementation!r}, got {s.classes}. Give None or "
            "'materialized', which forms the logits.",
        )
    return "materialized", s.rows, s.classes


def _of_unknown_rows(
    s: Sizes, given: BlockSizes, implementation: Implementation | None
) -> tuple[Implementation, Any, int]:
    """The layout for a count of rows that is symbolic, as `jax.export` has it.

    Streamed needs the least memory whatever the count. All rows are one tile: a loop
    over tiles would have to know how many there are.
    """
    usual = s._replace(rows=2048)
    _, default = _blocks("streamed", usual, Uses())
    block = default if given[1] is None else operator.index(given[1])
    return implementation or "streamed", s.rows, min(block, s.classes)
