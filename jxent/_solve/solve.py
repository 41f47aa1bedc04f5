"""From a checked problem to its result: `solve` goes through each part once."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import Shape, row_shape, select, sum_over_devices
from .._checks import ArrayLike, Axis, AxisName, fail
from .._layouts.choice import (
    PIECE,
    Sizes,
    Uses,
    chosen,
    rows_of_group,
    sizes_of,
    temporaries,
    uses_of,
)
from .._layouts.mesh import (
    head_sharding,
    like_logits_on_mesh,
    mesh_size,
    of_parts,
    on_devices,
)
from .._layouts.tiled import tiled_total
from .._linear_logits import BlockSizes, Implementation, LinearLogits, Logits
from .._problem.bundles import Maybe
from .._problem.problem import HeadSharding, Problem, Settings, one_axis_of_rows
from .._problem.resolve import resolve, with_full_rows
from .._problem.resolved import Resolved, both
from .._reduction import weighed
from .._statistics.inputs import with_logits
from .._targets.given import Given
from .arguments import OPTIONAL, checked_problem
from .plan import NOBODY, Plan, listener


def solution(
    function: str,
    logits: Logits,
    given: Given,
    axis: Axis,
    where: ArrayLike | None,
    **options: Any,
) -> Any:
    """The result of a call: what every loss and statistic of logits returns."""
    return solve(planned_problem(function, logits, given, axis, where, **options))


def solve(problem: Problem) -> Any:
    """The result of a problem."""
    # JAX keeps the traces of jitted functions by the mesh in use, and names an empty
    # one where it traces derivatives: named here, value and derivative share theirs.
    with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
        return _result(problem)


def planned_problem(
    function: str,
    logits: Logits,
    given: Given,
    axis: Axis,
    where: ArrayLike | None,
    **options: Any,
) -> Problem:
    """The checked problem of a call; with the layout of its LinearLogits."""
    # Most options are None, and each part that they go through would look at them.
    asked: dict[str, Any] = {
        name: value
        for name, value in options.items()
        if value is not None or name not in OPTIONAL
    }
    problem = checked_problem(function, logits, given, axis, where, **asked)
    several = logits, *given.more_logits.values()
    heads = [x for x in several if isinstance(x, LinearLogits)]
    if not heads:
        return problem
    return _with_layout(
        function,
        problem,
        class_axis_name=asked.get("class_axis_name"),
        batch_axis_name=asked.get("batch_axis_name"),
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
    sizes = _sizes_on_device(*operands, sharding, heard.platform)
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
        budget=heard.budget,
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
        blocks = tile, settings.block
        heard.plans.append(_plan_of(function, layout, sizes, blocks, uses))
    return problem.replace(settings=settings)


def _plan_of(
    function: str,
    layout: Implementation,
    sizes: Sizes,
    blocks: tuple[int, int],
    uses: Uses,
) -> Plan:
    return Plan(
        function=function,
        implementation=layout,
        block_sizes=blocks,
        temporary_bytes=temporaries(layout, sizes, blocks, uses),
    )


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
    platform: str | None,
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


@jax.jit
def _result(problem: Problem) -> Any:
    """The result, a tree of scalars or of arrays with the rows' axes of the caller."""
    settings, shape = problem.settings, None
    if problem.has_head:
        shape = problem.like.shape[:-1]
    problem = prepared(problem)
    if settings.implementation == "tiled":
        return _tiled(problem)
    result = settings.result.of(problem)
    return result if shape is None else _with_row_axes(problem.axis, result, shape)


def _tiled(problem: Problem) -> Array:
    """The loss as one number, from tiles of rows."""
    settings, shared = problem.settings, problem.shared
    if settings.reduction == "mean" and shared.normalizer is None:
        shared = shared._replace(normalizer=total_weight_of(problem))
    total = tiled_total(problem.replace(shared=shared))
    return sum_over_devices(total, settings.batch_axis_name)


def _with_row_axes(axes: int, tree: Any, shape: Shape) -> Any:
    """A tree of arrays with so many axes of rows as (*shape, …)."""
    return jax.tree.map(
        lambda x: x.reshape(*shape, *x.shape[axes:]) if x.ndim else x, tree
    )


def prepared(problem: Problem) -> Problem:
    """Prepares the problem for its layout, and resolves labels and masks.

    Rows of a head keep their axes where a mesh may split each of them. Else they become
    one axis: with several, XLA on a CPU keeps a second copy of the logits.
    """
    problem = with_full_rows(problem)
    if not problem.has_head:
        problem = like_logits_on_mesh(problem)
        return problem.replace(resolved=resolve(problem))
    problem = _with_full_class_where(problem)
    if problem.settings.sharding.mesh is None:
        pair = one_axis_of_rows(problem.pair, problem.like.shape[:-1])
        problem = problem.with_pair(pair).with_settings(axis=1)
    else:
        problem = on_devices(problem)
    problem = problem.replace(resolved=of_parts(_resolved, problem))
    problem = _without_dropped(problem)
    if problem.settings.implementation == "materialized":
        problem = with_logits(problem).with_settings(sharding=HeadSharding())
        problem = like_logits_on_mesh(problem)
    return problem


def _with_full_class_where(problem: Problem) -> Problem:
    """With `class_where` broadcast to all rows, its last axis excepted."""
    where = problem.rows.class_where
    if where is None:
        return problem
    where = jnp.broadcast_to(where, (*problem.like.shape[:-1], where.shape[-1]))
    return problem.replace(rows=problem.rows._replace(class_where=where))


def _resolved(problem: Problem) -> Resolved:
    """With every field broadcast to all rows."""
    shape = problem.like.shape[:-1]
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x, (*shape, *x.shape[len(shape) :])),
        resolve(problem),
    )


def _without_dropped(problem: Problem) -> Problem:
    """Sets the hidden states of dropped rows to 0: products would spread their NaN.

    A row of weight 0 stays, for the derivative in that weight, if it is finite.
    """
    rows, resolved = problem.rows, problem.resolved
    keep: Maybe = resolved.keep
    if rows.weights is not None:
        assert resolved.weighted is not None
        states = [x.hidden for x in rows.logits if x.hidden is not None]
        finite = [jnp.all(lax.is_finite(hidden), -1) for hidden in states]
        keep = both(keep, resolved.weighted | functools.reduce(lax.bitwise_and, finite))
    if keep is None:
        return problem
    where = lax.expand_dims(keep, (keep.ndim,))
    logits = tuple(
        x if x.hidden is None else x._replace(hidden=select(where, x.hidden))
        for x in rows.logits
    )
    resolved = resolved._replace(keep=keep)
    return problem.replace(rows=rows._replace(logits=logits), resolved=resolved)


def total_weight_of(problem: Problem) -> Array:
    """Σ r over the rows of all devices, r everything that multiplies one."""
    factor, keep = problem.target.factor(problem), problem.resolved.keep
    if factor is None:
        shape, dtype = row_shape(problem.like.shape, problem.axis), problem.dtype
        # As `keep` is split over explicit axes, where there is one.
        ones = jnp.ones(shape, dtype)
        factor = ones if keep is None else lax.full_like(keep, 1, dtype)
    weight = jnp.sum(weighed(factor, keep, problem.rows.weights))
    return sum_over_devices(weight, problem.settings.batch_axis_name)
