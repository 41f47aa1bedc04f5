"""Which layout suits a problem, and in which blocks."""

from __future__ import annotations

import math
import operator
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .._formulas import cross_entropy
from .._problem import (
    Formula,
    Problem,
    Rows,
    Settings,
    Shared,
    has_distributions,
    has_target,
    head_problem,
)
from .._reduction import Reduction


Implementation: TypeAlias = Literal["tiled", "streamed", "materialized"]
BlockSizes: TypeAlias = tuple[SupportsIndex | None, SupportsIndex | None]

IMPLEMENTATIONS = ("tiled", "streamed", "materialized")
BUDGET = 2**31  # bytes
PIECE = 512  # classes of a product with a part of the kernel, which a CPU copies
# Bytes of logits that fit a CPU's cache, or a TPU's vector memory, with what is formed
# of them.
GROUP = {"cpu": 2**20, "tpu": 2**25}


class LinearSoftmaxPlan(NamedTuple):
    """How a fused head takes its logits.

    Attributes:
      implementation: "tiled", "streamed" or "materialized".
      block_sizes: (rows, classes) of a block of logits.
      temporary_bytes: what value and gradients in hidden and kernel need beside their
        operands and results, as predicted.
    """

    implementation: str
    block_sizes: tuple[int, int]
    temporary_bytes: int


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
    platform: str | None = None,
) -> Sizes:
    return Sizes(
        rows=rows,
        features=features,
        classes=classes,
        width=8 if jnp.float64 in (hidden_dtype, kernel_dtype) else 4,
        hidden_width=jnp.dtype(hidden_dtype).itemsize,
        kernel_width=jnp.dtype(kernel_dtype).itemsize,
        platform=platform or jax.default_backend(),
    )


class Uses(NamedTuple):
    """Which options a call uses, as far as these change its plan."""

    drops: bool = False  # rows, by where or ignore_index
    weights: bool = False
    bias: bool = False
    masks: bool = False  # of classes
    smoothing: bool = False
    distributions: bool = False
    soft_cap: bool = False
    temperature: bool = False
    several_ids: bool = False
    top_k: bool = False
    target: bool = False  # a head of its own


def uses_of(settings: Settings, rows: Rows, shared: Shared) -> Uses:
    return Uses(
        drops=rows.where is not None or shared.ignore_index is not None,
        weights=rows.weights is not None,
        bias=shared.bias is not None,
        masks=shared.class_mask is not None or rows.class_where is not None,
        smoothing=shared.label_smoothing is not None,
        distributions=has_distributions(settings, rows),
        soft_cap=shared.logit_soft_cap is not None,
        temperature=rows.temperature is not None,
        several_ids=rows.label_ids is not None,
        top_k=settings.top_k > 0,
        target=has_target(rows),
    )


def _floor(x: float, unit: int) -> int:
    return max(int(x) // unit * unit, unit)


def _blocks(implementation: str, s: Sizes, uses: Uses) -> tuple[int, int]:
    """Block sizes (rows, classes) in each layout."""
    if implementation == "materialized":
        return s.rows, s.classes
    heads = 1 + uses.target  # each has logits of its own
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
        if uses.top_k and s.platform == "cpu":
            # The largest of many classes are found faster than those of blocks of few.
            classes = min(s.classes, 2**15)
            rows = _floor(1024 * s.rows / classes, 8)
        elif uses.top_k:  # a block is stored, sorted, and stored again with its order
            rows, classes = min(rows, 1024), 2048
    return max(min(rows, s.rows), 1), max(min(classes, s.classes), 1)


def _copies(implementation: str, s: Sizes, uses: Uses) -> int:
    """How many further slabs of logits XLA holds, for what options make of the first.

    On a CPU its sums over classes read arrays in memory, and the derivative of what is
    done to logits reads these as they were before. Compilers for accelerators form all
    of it inside of the sums.
    """
    if s.platform != "cpu":
        return 0
    nonlinear = uses.soft_cap + uses.temperature
    linear = uses.masks or uses.distributions
    skips = uses.drops or uses.weights
    if implementation == "tiled":
        return 0  # they are as large as a group of rows
    if implementation == "streamed":
        return not uses.drops and (linear or uses.bias or uses.soft_cap)
    return (linear or uses.smoothing or nonlinear > 0) + (skips and nonlinear > 0)


def rows_of_group(s: Sizes, uses: Uses, tile: Any) -> int:
    """How many rows of a tile have their logits made gradients at a time; 0 for all.

    On a CPU, where options would otherwise take a second slab of logits; on a TPU for
    several ids a row, whose gradient is scattered into a copy of the slab.
    """
    grouped = {"cpu": any(uses), "tpu": uses.several_ids}.get(s.platform, False)
    if not grouped or not isinstance(tile, int):
        return 0
    rows = max(GROUP[s.platform] // (s.width * max(s.classes, 1)), 4)
    rows = 1 << rows.bit_length() - 1
    return rows if rows < tile else 0


def _temporaries(
    implementation: str, s: Sizes, blocks: tuple[int, int], uses: Uses
) -> int:
    """Bytes beside operands and results, of the value and both gradients."""
    rows, classes = blocks
    slabs = 1 + uses.target + _copies(implementation, s, uses)
    # Of a narrower dtype, an operand is cast to float32 and its gradient summed there.
    hidden = s.rows * s.features * s.width
    kernel = s.features * s.classes * s.width
    low_hidden, low_kernel = s.hidden_width < s.width, s.kernel_width < s.width
    cast = s.platform == "cpu"  # other compilers do without the cast operands
    if implementation == "materialized":
        operands = cast * (hidden * low_hidden + kernel * low_kernel)
        return slabs * s.rows * s.classes * s.width + operands
    if implementation == "streamed":
        of_kernel = s.features * classes * s.width
        block = rows * classes * s.width + of_kernel
        copies = 3 * s.rows * s.features * s.hidden_width + 2 * of_kernel
        # A CPU sums the gradient of the whole kernel in float32, others a block's.
        of_low = 2 * hidden * low_hidden + cast * kernel * low_kernel
        gradients = block + hidden + of_low + copies * uses.drops
        return max(gradients, slabs * rows * classes * s.width)
    operands = hidden + 2 * rows * s.features * s.width
    sums = hidden * low_hidden + kernel * low_kernel
    if cast and low_hidden and low_kernel:  # the logits' gradient in bfloat16
        slabs += 0.5
    slab = rows * s.classes * s.width
    groups = cast * any(uses) * min(2 * GROUP["cpu"], slab)
    return int(slabs * slab) + groups + operands + sums


def _choice(
    s: Sizes, uses: Uses, *, scalar: bool, split: bool, budget: int
) -> Implementation:
    small = s.rows * s.classes * s.width <= 8 * 2**20
    if small and not split:
        return "materialized"
    if scalar and not split:
        tiled = _temporaries("tiled", s, _blocks("tiled", s, uses), uses)
        if tiled <= budget:
            whole = _temporaries("materialized", s, (s.rows, s.classes), uses)
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
    budget: int = BUDGET,
) -> tuple[Implementation, Any, int]:
    """The layout, the rows of a tile and the classes of a block.

    What is asked for is kept; for the rest what suits is chosen.
    """
    _checks.one_of(function, "implementation", implementation, IMPLEMENTATIONS)
    if implementation == "tiled" and not scalar:
        _checks.fail(
            function,
            "implementation='tiled' gives one number, reduction='mean' or 'sum' "
            "without statistics. For results per row give 'streamed'.",
        )
    given = _checks.block_sizes(function, block_sizes)
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


def linear_softmax_plan(
    hidden: ArrayLike | jax.ShapeDtypeStruct,
    kernel: ArrayLike | jax.ShapeDtypeStruct,
    labels: ArrayLike | jax.ShapeDtypeStruct | None = None,
    *,
    bias: ArrayLike | jax.ShapeDtypeStruct | None = None,
    vocab_axis: SupportsIndex = -1,
    where: ArrayLike | jax.ShapeDtypeStruct | None = None,
    weights: ArrayLike | jax.ShapeDtypeStruct | None = None,
    class_mask: ArrayLike | jax.ShapeDtypeStruct | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | jax.ShapeDtypeStruct | None = None,
    reduction: Reduction = "none",
    return_statistics: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
    budget: int = BUDGET,
    platform: str | None = None,
) -> LinearSoftmaxPlan:
    """The layout that `linear_softmax_cross_entropy` would choose, and its memory.

    Small logits, 8 MiB or less, are materialized: nothing is faster.

    A scalar result is tiled, which multiplies no more than materialized logits do, if a
    slab of logits and the gradient of a bfloat16 kernel in float32 fit the budget; or
    materialized, if no rows can be dropped and the logits of all rows take less than
    these two. A slab has at most a quarter of all rows, or 128: up to 512 of them and
    128 MiB on a CPU, 512 and 256 MiB on a GPU, 1024 and 512 MiB on a TPU.

    All else is streamed: results per row, statistics, and classes split over a mesh. It
    takes the least memory and one more product of the logits' size. Its blocks of
    classes make 32 MiB of logits, 512 classes at most on a CPU, where they are to fit
    the cache, and 2048 elsewhere. Given where or ignore_index, its blocks have an
    eighth of the rows each, so that blocks of dropped rows can be skipped, and up to
    1024 classes on a CPU.

    The options are those of the loss; where they are arrays, their shape and dtype will
    do. Options of the loss that are not listed here do not change the plan.

    Args:
      hidden: (..., features), or its shape and dtype.
      kernel: (features, classes), or (classes, features) with vocab_axis=0; or its
        shape and dtype.
      labels: class ids or distributions, or their shape and dtype; None for class ids.
      bias: (classes,), or its shape and dtype.
      vocab_axis: the kernel's axis of classes.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that exist and are not masked, the label's own included. None for no
        smoothing.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where, weights, and the label's class weight (Σ_c q_c w_c
        for a distribution).
      return_statistics: also return the row statistics, entropy and argmax included.
      block_sizes: (rows, classes) of a block that the loss is given. The plan chooses
        what is None.
      implementation: the layout that the loss is given. The plan chooses for None.
      budget: bytes that temporary arrays may take; 2 GiB by default.
      platform: "cpu", "gpu" or "tpu"; None for where JAX runs by default.

    Returns:
      `LinearSoftmaxPlan`. Give its implementation and block_sizes to the loss to keep
      to it.

    Numerics:
      Sizes are in bytes. The prediction is modelled on XLA for a CPU, and is within 15%
      of what the compiler reports there. On a CPU options such as masks of classes, a
      soft cap or a temperature cost materialized and streamed logits a second copy. For
      accelerators casts and copies are left out, and compilers save more than them.

    Raises:
      ValueError: the shapes, block_sizes or implementation do not fit.

    Example:
      >>> hidden = jax.ShapeDtypeStruct((8192, 2048), jnp.bfloat16)
      >>> table = jax.ShapeDtypeStruct((131072, 2048), jnp.float32)
      >>> plan = jxent.linear_softmax_plan(
      ...     hidden, table, vocab_axis=0, reduction="mean", platform="tpu")
      >>> print(plan.implementation, plan.block_sizes)
      tiled (1024, 131072)

    Source:
      Measured: `python -m benchmarks --suite linear`.

    See also:
      `linear_softmax_cross_entropy`.
    """
    name = "linear_softmax_plan"
    arguments = {
        "hidden": hidden,
        "kernel": kernel,
        "labels": labels,
        "bias": bias,
        "where": where,
        "weights": weights,
        "class_mask": class_mask,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "logit_soft_cap": logit_soft_cap,
        "temperature": temperature,
        "vocab_axis": vocab_axis,
        "reduction": reduction,
        "return_statistics": return_statistics,
    }
    _checks.one_of(name, "platform", platform, ("cpu", "gpu", "tpu"))
    _checks.python_number(name, "budget", budget, low=0)
    return _planned(
        name,
        _problem_of_shapes(name, arguments),
        block_sizes=block_sizes,
        implementation=implementation,
        budget=budget,
        platform=platform,
    )


def _planned(
    function: str, problem: Problem, *, budget: int, platform: str | None, **asked: Any
) -> LinearSoftmaxPlan:
    settings, rows, shared = problem
    assert rows.hidden is not None
    assert shared.kernel is not None
    *row_shape, features = rows.hidden.shape
    count, classes = math.prod(row_shape), shared.kernel.shape[settings.vocab_axis]
    uses = uses_of(settings, rows, shared)
    scalar = settings.reduction != "none" and not settings.return_statistics
    dtypes = rows.hidden.dtype, shared.kernel.dtype
    sizes = sizes_of(count, features, classes, *dtypes, platform)
    layout, tile, block = chosen(
        function,
        sizes,
        scalar=scalar,
        split=False,
        uses=uses,
        budget=budget,
        **asked,
    )
    return LinearSoftmaxPlan(
        implementation=layout,
        block_sizes=(tile, block),
        temporary_bytes=_temporaries(layout, sizes, (tile, block), uses),
    )


def _problem_of_shapes(function: str, arguments: dict[str, Any]) -> Problem:
    """The loss's problem, of arguments in whose place shapes and dtypes may stand."""
    problems = []
    shapes = {
        name: x for name, x in arguments.items() if isinstance(x, jax.ShapeDtypeStruct)
    }

    def trace(shapes: dict[str, Array]) -> None:
        values: dict[str, Any] = arguments | shapes
        if values["labels"] is None:  # class ids
            hidden = values["hidden"]
            rows = hidden.shape[:-1] if hasattr(hidden, "shape") else ()
            values["labels"] = jnp.zeros(rows, jnp.int32)
        problem = head_problem(
            function, formula=Formula(function=cross_entropy, parameters={}), **values
        )
        problems.append(problem)

    jax.eval_shape(trace, shapes)
    return problems[0]
