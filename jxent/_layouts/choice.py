"""The layout and the blocks that suit a problem."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax.numpy as jnp

from .. import _checks
from .._arrays import Size
from .._linear_logits import BlockSizes, Implementation
from .._problem.problem import Problem


IMPLEMENTATIONS = ("tiled", "streamed", "materialized")
BUDGET = 2**31  # bytes that tiles and what is summed beside them may take
FEWEST_ROWS = 128  # of a tile whose rows have all of their classes
PIECE = 512  # classes of a product with a part of the kernel, which a CPU copies
# Bytes of logits that fit a CPU's cache, or a TPU's vector memory, with what is formed
# of them.
GROUP = {"cpu": 2**20, "tpu": 2**25}


class Sizes(NamedTuple):
    """Sizes and platform, from which the layout is chosen."""

    rows: Size
    features: Size
    classes: Size
    width: int  # bytes of a logit
    hidden_width: int
    kernel_width: int
    platform: str


def sizes_of(
    rows: Size,
    features: Size,
    classes: Size,
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
    """What a call uses, as far as this changes its layout."""

    drops: bool = False  # rows, by where or ignore_index
    weights: bool = False
    reads: bool = False  # a bias or a distribution, beside the logits
    class_where: bool = False
    options: bool = False  # that act on logits, or terms of each class
    scattered: bool = False  # the gradient is, at several classes a row
    large_blocks: bool = False
    whole_rows: bool = False  # whatever the blocks, for the ranks of labels
    heads: int = 1  # how many logits of a row do not exist


def uses_of(problem: Problem) -> Uses:
    settings, (rows, shared), target = problem.settings, problem.pair, problem.target
    head = shared.heads[0]
    acting = shared.class_mask, shared.label_smoothing, rows.temperature
    acting = *acting, head.logit_soft_cap
    ignored = target.drops and shared.ignore_index is not None
    return Uses(
        drops=rows.where is not None or ignored,
        weights=rows.weights is not None,
        class_where=rows.class_where is not None,
        reads=head.bias is not None or target.of_every_class,
        options=any(x is not None for x in acting)
        or (target.scattered or target.has_terms or target.needs_every_log_p(problem)),
        scattered=target.scattered,
        large_blocks=any(s.fewest_classes for s in settings.statistics),
        whole_rows=settings.result.whole_rows,
        heads=sum(x.hidden is not None for x in rows.logits),
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


def rows_of_group(s: Sizes, uses: Uses, tile: Any) -> int:
    """How many rows of a tile turn their logits into gradients at a time; 0 for all.

    On a CPU, where options would otherwise take a second slab of logits; on a TPU for
    several ids a row, whose gradient is scattered into a copy of the slab.
    """
    grouped = {"cpu": uses != Uses(), "tpu": uses.scattered}.get(s.platform, False)
    if not (grouped and isinstance(tile, int) and isinstance(s.classes, int)):
        return 0
    rows = max(GROUP[s.platform] // (s.width * max(s.classes, 1)), 4)
    rows = 1 << rows.bit_length() - 1
    return rows if rows < tile else 0


def _choice(s: Sizes, uses: Uses, *, scalar: bool, split: bool) -> Implementation:
    """The layout that suits the sizes."""
    small = s.rows * s.classes * s.width <= 8 * 2**20
    if small and not split:
        return "materialized"
    if not scalar or split:
        return "streamed"
    # Bytes: an operand of a narrower dtype has its gradient summed in float32, and is
    # cast to that on a CPU. There an option takes a second array of logits.
    on_cpu = s.platform == "cpu"
    hidden = s.rows * s.features * s.width
    low_hidden = hidden * (s.hidden_width < s.width)
    low_kernel = s.features * s.classes * s.width * (s.kernel_width < s.width)
    tile, _ = _blocks("tiled", s, uses)
    row = uses.heads * s.classes * s.width
    # Rows of a mask are sorted, so that those without a class come last, and copied.
    mask = uses.class_where * s.rows * s.classes
    tiles = (
        tile * (row + 2 * s.features * s.width)
        + hidden
        + low_hidden
        + low_kernel
        + mask
    )
    whole = s.rows * row * (1 + (on_cpu and uses.options))
    whole += on_cpu * (low_hidden + low_kernel)
    if tiles > BUDGET:
        return "streamed"
    # Of materialized logits no row is skipped.
    skips = uses.drops or uses.weights
    return "materialized" if whole <= tiles and not skips else "tiled"


def chosen(
    function: str,
    s: Sizes,
    *,
    scalar: bool,
    split: bool,
    uses: Uses,
    block_sizes: BlockSizes | None,
    implementation: Implementation | None,
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
        implementation = _choice(s, uses, scalar=scalar, split=split)
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
