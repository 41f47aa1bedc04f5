"""Which layout suits a problem, and in which blocks."""

import math
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp

from .. import _checks
from .._checks import ArrayLike
from .._reduction import Reduction
from .layout import Layout


Implementation: TypeAlias = Literal["tiled", "streamed", "materialized"]
BlockSizes: TypeAlias = tuple[SupportsIndex | None, SupportsIndex | None]

IMPLEMENTATIONS = ("tiled", "streamed", "materialized")
BUDGET = 2**31  # bytes


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
    """What a choice is made from."""

    rows: int
    features: int
    classes: int
    width: int  # bytes of a logit
    hidden_width: int
    kernel_width: int
    platform: str


def _sizes(
    rows: int,
    features: int,
    classes: int,
    hidden_dtype: Any,
    kernel_dtype: Any,
    platform: str | None,
) -> Sizes:
    return Sizes(
        rows,
        features,
        classes,
        8 if jnp.float64 in (hidden_dtype, kernel_dtype) else 4,
        jnp.dtype(hidden_dtype).itemsize,
        jnp.dtype(kernel_dtype).itemsize,
        platform or jax.default_backend(),
    )


def head_axis(
    function: str,
    hidden: _checks.Shaped,
    kernel: _checks.Shaped,
    vocab_axis: SupportsIndex,
) -> int:
    """The kernel's class axis counted from the front; an error if shapes do not fit."""
    vocab_axis = _checks.integer(function, "vocab_axis", vocab_axis)
    if not hidden.ndim:
        _checks.fail(
            function, "expected hidden of shape (..., features), got a scalar."
        )
    if kernel.ndim != 2 or vocab_axis not in (-2, -1, 0, 1):
        _checks.fail(
            function,
            "expected a kernel of two axes and their class axis, got shape "
            f"{kernel.shape} and vocab_axis={vocab_axis}. Reshape a kernel of more.",
        )
    axis = vocab_axis % 2
    features, classes = kernel.shape[1 - axis], kernel.shape[axis]
    if hidden.shape[-1] != features:
        hint = "The kernel is (features, classes)."
        if axis == 0:
            hint = "With vocab_axis=0 the kernel is (classes, features)."
        if hidden.shape[-1] == classes:
            hint += f" For its transpose give vocab_axis={axis - 1}."
        _checks.fail(
            function,
            f"expected hidden of shape (..., {features}) for a kernel of shape "
            f"{kernel.shape} with vocab_axis={vocab_axis}, got {hidden.shape}. {hint}",
        )
    return axis


def _floor(x: float, unit: int) -> int:
    return max(int(x) // unit * unit, unit)


def _blocks(implementation: str, s: Sizes, droppable: bool) -> tuple[int, int]:
    """Block sizes (rows, classes) in each layout."""
    if implementation == "materialized":
        return s.rows, s.classes
    if implementation == "tiled":
        # Each tile reads and writes the kernel's gradient: larger tiles, less traffic.
        most = {"cpu": 512, "tpu": 1024}.get(s.platform, 512)
        slab = {"cpu": 128, "tpu": 512}.get(s.platform, 256) * 2**20
        rows = _floor(slab / (s.width * max(s.classes, 1)), 128)
        rows = min(rows, most, _floor(s.rows / 4, 128))
        classes = 1024 if s.platform == "cpu" else s.classes
    else:
        slab = 32 * 2**20
        classes = _floor(slab / (s.width * max(s.rows, 1)), 256)
        classes = min(classes, 512 if s.platform == "cpu" else 2048)
        rows = s.rows
        if droppable:
            rows = _floor(s.rows / 8, 128)
    return max(min(rows, s.rows), 1), max(min(classes, s.classes), 1)


def _temporaries(implementation: str, s: Sizes, blocks: tuple[int, int]) -> int:
    """Bytes beside operands and results, of the value and both gradients."""
    rows, classes = blocks
    # Of a narrower dtype, an operand is cast to float32 and its gradient summed there.
    hidden = s.rows * s.features * s.width
    kernel = s.features * s.classes * s.width
    low_hidden, low_kernel = s.hidden_width < s.width, s.kernel_width < s.width
    cast = s.platform == "cpu"  # other compilers do without the cast operands
    if implementation == "materialized":
        operands = cast * (hidden * low_hidden + kernel * low_kernel)
        return s.rows * s.classes * s.width + operands
    if implementation == "streamed":
        block = (s.rows + s.features) * classes * s.width
        return block + hidden + 2 * hidden * low_hidden
    operands = hidden + 2 * rows * s.features * s.width
    sums = hidden * low_hidden + (1 + cast) * kernel * low_kernel
    return rows * s.classes * s.width + operands + sums


def _choice(
    s: Sizes, *, scalar: bool, droppable: bool, split: bool, budget: int
) -> Implementation:
    small = s.rows * s.classes * s.width <= 8 * 2**20
    if small and not split:
        return "materialized"
    if scalar and not split:
        tiled = _temporaries("tiled", s, _blocks("tiled", s, droppable))
        if tiled <= budget:
            whole = _temporaries("materialized", s, (s.rows, s.classes))
            # Of materialized logits no row is skipped.
            return "materialized" if whole <= tiled and not droppable else "tiled"
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
    _checks.one_of(function, "implementation", implementation, IMPLEMENTATIONS)
    if implementation == "tiled" and not scalar:
        _checks.fail(
            function,
            "implementation='tiled' gives one number, reduction='mean' or 'sum' "
            "without statistics. For results per row give 'streamed'.",
        )
    s = _sizes(rows, features, classes, hidden_dtype, kernel_dtype, platform)
    if implementation is None:
        implementation = _choice(
            s, scalar=scalar, droppable=droppable, split=split, budget=budget
        )
    wanted = _checks.block_sizes(function, block_sizes)
    default = _blocks(implementation, s, droppable)
    limits = max(rows, 1), max(classes, 1)
    tile, block = (
        min(limit, d if w is None else w)
        for w, d, limit in zip(wanted, default, limits, strict=True)
    )
    return Layout(implementation, vocab_axis, tile, block)


def linear_softmax_plan(
    hidden: ArrayLike | jax.ShapeDtypeStruct,
    kernel: ArrayLike | jax.ShapeDtypeStruct,
    *,
    vocab_axis: SupportsIndex = -1,
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
    the cache, and 2048 elsewhere. Given weights, where or ignore_index, its blocks have
    an eighth of the rows each, so that blocks of dropped rows can be skipped.

    Args:
      hidden: (..., features), or its shape and dtype.
      kernel: (features, classes), or (classes, features) with vocab_axis=0; or its
        shape and dtype.
      vocab_axis: the kernel's axis of classes.
      reduction, return_statistics: what the loss is asked for.
      block_sizes, implementation: what is settled already.
      budget: bytes that temporary arrays may take; 2 GiB unless told.
      platform: "cpu", "gpu" or "tpu"; None for where JAX runs by default.

    Returns:
      `LinearSoftmaxPlan`, of a loss that is not given weights, where or ignore_index;
      give its implementation and block_sizes to the loss to keep to it.

    Numerics:
      Sizes are in bytes. The prediction is for rows that all count, and modelled on XLA
      for a CPU; for accelerators casts are left out, and compilers save more than them.

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
    h, k = (
        x if isinstance(x, jax.ShapeDtypeStruct) else _checks.as_array(name, n, x)
        for n, x in (("hidden", hidden), ("kernel", kernel))
    )
    _checks.reduction(name, reduction, None)
    return_statistics = _checks.flag(name, "return_statistics", return_statistics)
    _checks.one_of(name, "platform", platform, ("cpu", "gpu", "tpu"))
    _checks.python_number(name, "budget", budget, low=0)
    axis = head_axis(name, h, k, vocab_axis)
    layout = chosen(
        name,
        math.prod(h.shape[:-1]),
        k.shape[1 - axis],
        k.shape[axis],
        axis,
        hidden_dtype=h.dtype,
        kernel_dtype=k.dtype,
        scalar=reduction != "none" and not return_statistics,
        split=False,
        droppable=False,
        block_sizes=block_sizes,
        implementation=implementation,
        budget=budget,
        platform=platform,
    )
    sizes = _sizes(
        math.prod(h.shape[:-1]),
        k.shape[1 - axis],
        k.shape[axis],
        h.dtype,
        k.dtype,
        platform,
    )
    blocks = layout.rows, layout.classes
    return LinearSoftmaxPlan(
        layout.implementation,
        blocks,
        _temporaries(layout.implementation, sizes, blocks),
    )
