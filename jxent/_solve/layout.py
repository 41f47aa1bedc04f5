"""The layout of a call: which one its LinearLogits take, and with which blocks."""

import math
from typing import Any

import jax
from jax import Array

from .._checks import AxisName, fail
from .._compute.platform import platform_of
from .._layouts.choice import PIECE, Sizes, chosen, rows_of_group, sizes_of, uses_of
from .._layouts.mesh import head_sharding, mesh_size
from .._linear_logits import BlockSizes, Implementation, LinearLogits, Logits
from .._problem.problem import HeadSharding, Problem, Settings
from .._targets.given import Given
from .arguments import checked_problem
from .plan import NOBODY, listener


def planned_problem(
    function: str,
    logits: Logits,
    label: Given,
    *,
    platform: str | None = None,
    **options: Any,
) -> Problem:
    """The checked problem of a call; with the layout of its LinearLogits.

    The options are those that are on. `platform` is that of the arrays, if it is known.
    """
    problem = checked_problem(function, logits, label, **options)
    several = logits, *label.more_logits.values()
    heads = [x for x in several if isinstance(x, LinearLogits)]
    if not heads:
        return problem
    return _with_layout(
        function,
        problem,
        platform=platform or platform_of(problem),
        class_axis_name=options.get("class_axis_name"),
        batch_axis_name=options.get("batch_axis_name"),
        block_sizes=_same_of_all(function, "block_sizes", heads),
        implementation=_same_of_all(function, "implementation", heads),
    )


def _same_of_all(function: str, field: str, heads: list[LinearLogits]) -> Any:
    """A field that all heads share; None in one of them leaves it to the other."""
    values = [x for head in heads if (x := getattr(head, field)) is not None]
    if values[1:] and values[0] != values[1]:
        fail(
            function,
            f"expected one {field} for logits and target_logits, got {values[0]!r} and "
            f"{values[1]!r}. Give it to one of them alone, or the same to both.",
        )
    return values[0] if values else None


def _with_layout(
    function: str,
    problem: Problem,
    *,
    platform: str,
    class_axis_name: AxisName,
    batch_axis_name: AxisName,
    block_sizes: BlockSizes | None,
    implementation: Implementation | None,
) -> Problem:
    """The problem with the mesh axes of its heads, their layout and their blocks."""
    settings, rows, (hidden, head) = problem.settings, problem.rows, problem.first_head
    assert head.kernel is not None
    others = tuple(jax.tree.leaves((rows.target, [x.array for x in rows.logits])))
    sharding = head_sharding(
        function,
        hidden,
        head.kernel,
        head.vocab_axis,
        others,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
    )
    heard = listener()
    operands = hidden, head.kernel, head.vocab_axis
    sizes = _sizes_on_device(*operands, sharding, platform)
    uses = uses_of(problem)
    scalar = settings.result.is_sum and settings.reduction != "none"
    split = bool(settings.class_axis_name + sharding.class_axes)
    layout, tile, block = chosen(
        function,
        sizes,
        scalar=scalar,
        split=split,
        uses=uses,
        block_sizes=block_sizes,
        implementation=implementation,
    )
    every_log_p = problem.target.needs_every_log_p(problem)
    _refuse_layout(function, settings, layout, scalar=scalar, every_log_p=every_log_p)
    settings = settings._replace(
        sharding=sharding,
        implementation=layout,
        tile=tile,
        block=block,
        group=0 if split else rows_of_group(sizes, uses, tile),
        skips=uses.drops or uses.weights or rows.class_where is not None,
    )
    fewest = max((s.fewest_classes for s in settings.statistics), default=0)
    if fewest and layout == "streamed":
        block = max(block, fewest)
        whole = block >= sizes.classes  # which no product has to copy
        piece = PIECE if sizes.platform == "cpu" and not whole else 0
        settings = settings._replace(block=block, piece=piece)
    if heard is not NOBODY:
        heard.layouts.append((function, layout, (tile, settings.block)))
    return problem.replace(settings=settings)


def _refuse_layout(
    function: str,
    settings: Settings,
    layout: Implementation,
    *,
    scalar: bool,
    every_log_p: bool,
) -> None:
    """Refuses a layout that cannot give the result, and names those that can."""
    if layout == "tiled" and not scalar:
        others = "'materialized'" if every_log_p else "'streamed' or 'materialized'"
        mean = ", or ask for reduction='mean' or 'sum', without statistics"
        mean = mean if settings.result.reduces else ""
        fail(
            function,
            "implementation='tiled' gives one number, the mean or the sum of a loss. "
            f"Give LinearLogits implementation={others}{mean}.",
        )
    if layout == "streamed" and every_log_p:
        tiled = "" if scalar else ", with reduction='mean' or 'sum'"
        fail(
            function,
            "label smoothing and distributions need every log p of a row, which a "
            "stream of blocks does not keep. Give LinearLogits "
            f"implementation='materialized' or 'tiled'{tiled}.",
        )


def _sizes_on_device(
    hidden: Array,
    kernel: Array,
    axis: int,
    sharding: HeadSharding,
    platform: str,
) -> Sizes:
    """The sizes of a device's part of a head; the kernel has its classes at `axis`."""
    shape = list(hidden.shape[:-1])
    for a, names in enumerate(sharding.row_axes):
        shape[a] //= mesh_size(sharding, names)
    return sizes_of(
        math.prod(shape),
        kernel.shape[1 - axis],
        kernel.shape[axis] // mesh_size(sharding, sharding.class_axes),
        hidden.dtype,
        kernel.dtype,
        platform,
    )
