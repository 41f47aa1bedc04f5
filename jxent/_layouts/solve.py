"""From a checked problem to its result: `solve` goes through each part once."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import Shape, over_places, select, sum_over_devices
from .._checks import ArrayLike, Axis, AxisName, SparseLabels, fail
from .._formulas import SoftmaxStatistics
from .._linear_logits import BlockSizes, Implementation, LinearLogits, Logits
from .._problem import (
    HeadSharding,
    Maybe,
    Problem,
    Resolved,
    Rows,
    Settings,
    Shared,
    both,
    checked_problem,
    dtype_of,
    first_head,
    has_head,
    heads_of,
    like_logits,
    one_axis_of_rows,
    resolve,
    rows_of_head,
    with_full_rows,
)
from .._reduction import combine, weighed
from .._statistics import with_logits
from .choice import (
    PIECE,
    Sizes,
    Uses,
    chosen,
    rows_of_group,
    sizes_of,
    temporaries,
    uses_of,
)
from .losses import (
    class_factor,
    losses_of,
    needs_every_log_p,
    statistics_of,
)
from .mesh import (
    enter,
    head_sharding,
    like_logits_on_mesh,
    mesh_size,
    on_devices,
    on_one_device,
    row_spec,
    specs_of,
)
from .plan import NOBODY, Plan, listener
from .sums import sums_of
from .tiled import tiled_total


def solve(problem: Problem) -> Any:
    """The loss of a problem, or its statistics if it has no formula."""
    solver = _statistics if problem.settings.formula is None else _loss
    # JAX keeps the traces of jitted functions by the mesh in use, and names an empty
    # one where it traces derivatives: named here, value and derivative share theirs.
    with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
        return solver(*problem)


def solution(
    function: str,
    logits: Logits,
    labels: ArrayLike | SparseLabels | None,
    axis: Axis,
    where: ArrayLike | None,
    **options: Any,
) -> Any:
    """The result of a call: what every loss and statistic of logits returns."""
    return solve(planned_problem(function, logits, labels, axis, where, **options))


def planned_problem(
    function: str,
    logits: Logits,
    labels: ArrayLike | SparseLabels | None,
    axis: Axis,
    where: ArrayLike | None,
    *,
    target_logits: Logits | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    **options: Any,
) -> Problem:
    """The checked problem of a call; with the layout of its LinearLogits."""
    problem = checked_problem(
        function,
        logits,
        labels,
        axis,
        where,
        target_logits=target_logits,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        **options,
    )
    if not has_head(problem.rows):
        return problem
    heads = [x for x in (logits, target_logits) if isinstance(x, LinearLogits)]
    return _with_layout(
        function,
        problem,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
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
    settings, rows, shared = problem
    head = first_head(settings, rows)
    hidden, kernel = getattr(rows, head.hidden), getattr(shared, head.kernel)
    sharding = head_sharding(
        function,
        hidden,
        kernel,
        head.vocab_axis,
        (rows.labels, rows.logits, rows.target_logits),
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
    )
    heard = listener()
    sizes = _sizes_on_device(hidden, kernel, head.vocab_axis, sharding, heard.platform)
    every_log_p = needs_every_log_p(settings, rows, shared)
    uses = uses_of(settings, rows, shared, every_log_p=every_log_p)
    scalar = settings.formula is not None and settings.reduction != "none"
    split = bool(settings.class_axis_name + sharding.class_axes)
    scalar = scalar and not settings.return_statistics
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
    _refuse_layout(function, settings, layout, scalar=scalar, every_log_p=every_log_p)
    settings = settings._replace(
        sharding=sharding,
        implementation=layout,
        tile=tile,
        block=block,
        group=0 if split else rows_of_group(sizes, uses, tile),
        skips=uses.drops or uses.weights or rows.class_where is not None,
    )
    if settings.top_k and layout == "streamed":
        block = max(block, settings.top_k)
        whole = block >= sizes.classes  # which no product has to copy
        piece = PIECE if sizes.platform == "cpu" and not whole else 0
        settings = settings._replace(block=block, piece=piece)
    if heard is not NOBODY:
        heard.plans.append(_plan(function, settings, sizes, uses))
    return problem._replace(settings=settings)


def _plan(function: str, settings: Settings, sizes: Sizes, uses: Uses) -> Plan:
    layout, blocks = settings.implementation, (settings.tile, settings.block)
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
        reduces = settings.formula is not None and not settings.sums
        mean = ", or ask for reduction='mean' or 'sum', without statistics"
        fail(
            function,
            "implementation='tiled' gives one number, the mean or the sum of a loss. "
            f"Give LinearLogits implementation={others}{mean * reduces}.",
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


@functools.partial(jax.jit, static_argnums=0)
def _loss(settings: Settings, rows: Rows, shared: Shared) -> Any:
    """The loss, a scalar or of the rows' shape.

    With `return_statistics` it comes with `SoftmaxStatistics`; with `sums` the result
    is `LossSums`, which are scalars.
    """
    head_rows = rows_of_head(rows) if has_head(rows) else None
    settings, rows, shared, resolved = prepared(settings, rows, shared)
    if settings.implementation == "tiled":
        if settings.reduction == "mean" and shared.normalizer is None:
            weight = _total_weight(settings, rows, shared, resolved)
            shared = shared._replace(normalizer=weight)
        total = tiled_total(settings, rows, shared, resolved)
        return sum_over_devices(total, settings.batch_axis_name)
    if settings.sums:
        return sums_of(settings, rows, shared, resolved)
    normalizer, shared = shared.normalizer, shared._replace(normalizer=None)
    unreduced = losses_of(settings, rows, shared, resolved)
    loss = combine(
        unreduced.losses,
        keep=resolved.keep,
        weights=rows.weights,
        class_factor=unreduced.class_factor,
        reduction=settings.reduction,
        normalizer=normalizer,
        batch_axis_name=settings.batch_axis_name,
    )
    result = loss
    if settings.return_statistics:
        result = loss, _zero_where_dropped(unreduced.statistics, resolved)
    return result if head_rows is None else _with_row_axes(settings, result, head_rows)


@functools.partial(jax.jit, static_argnums=0)
def _statistics(settings: Settings, rows: Rows, shared: Shared) -> Any:
    """The statistics, of the rows' shape; or the log-probabilities asked for.

    With `log_prob_at` these are (…, places, …), the places at the classes' axis. With
    `top_k` they are (…, k, …), with the ids (…, k, …) of the k largest logits.
    """
    head_rows = rows_of_head(rows) if has_head(rows) else None
    settings, rows, shared, resolved = prepared(settings, rows, shared)
    statistics, t, _ = statistics_of(settings, rows, shared, resolved)
    statistics, top = _zero_where_dropped((statistics, t.top), resolved)
    result: Any = statistics
    if settings.log_prob_at:
        result = _log_probs(statistics, resolved)
    elif settings.top_k:
        result = _log_probs(statistics, resolved), top
    if head_rows is not None:
        return _with_row_axes(settings, result, head_rows)
    if settings.log_prob_at or settings.top_k:
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, settings.axis), result)
    return result


def _log_probs(statistics: SoftmaxStatistics, resolved: Resolved) -> Array:
    """Log-probabilities (rows, places), 0 for padding."""
    label = statistics.label_logit
    assert label is not None
    log_probs = lax.sub(label, over_places(statistics.log_sum, label))
    if resolved.scored is not None:
        log_probs = select(resolved.scored, log_probs)
    return log_probs


def _with_row_axes(settings: Settings, tree: Any, shape: Shape) -> Any:
    """A tree of arrays (rows, …) as (*shape, …): with the rows' axes of the caller."""
    axes = settings.axis  # of rows, in front of the classes
    return jax.tree.map(
        lambda x: x.reshape(*shape, *x.shape[axes:]) if x.ndim else x, tree
    )


def _zero_where_dropped(statistics: Any, resolved: Resolved) -> Any:
    """Sets every field of the statistics to 0 in rows that are dropped."""
    keep = resolved.keep
    if keep is None:
        return statistics
    return jax.tree.map(lambda x: select(over_places(keep, x), x), statistics)


def prepared(
    settings: Settings, rows: Rows, shared: Shared
) -> tuple[Settings, Rows, Shared, Resolved]:
    """Prepares the pair for its layout, and resolves labels and masks.

    Rows of a head keep their axes where a mesh may split each of them. Else they become
    one axis: with several, XLA on a CPU keeps a second copy of the logits.
    """
    rows, shared = with_full_rows(settings, rows, shared)
    if not has_head(rows):
        rows, shared = like_logits_on_mesh(settings, rows, shared)
        return settings, rows, shared, resolve(settings, rows, shared)
    like = like_logits(settings, rows, shared)
    rows = _broadcast_class_where(rows, like.shape)
    if settings.sharding.mesh is None:
        rows = one_axis_of_rows(rows, like.shape[:-1])
        settings = settings._replace(axis=1)
    else:
        rows, shared = on_devices(settings, rows, shared)
    resolved = _resolved_on_devices(settings, rows, shared)
    rows, resolved = _without_dropped(settings, rows, resolved)
    if settings.implementation == "materialized":
        rows, shared = with_logits(settings, rows, shared)
        settings = settings._replace(sharding=HeadSharding())
        rows, shared = like_logits_on_mesh(settings, rows, shared)
    return settings, rows, shared, resolved


def _broadcast_class_where(rows: Rows, shape: Shape) -> Rows:
    """The rows with `class_where` broadcast to `shape`, its last axis excepted."""
    where = rows.class_where
    if where is not None:
        where = jnp.broadcast_to(where, (*shape[:-1], where.shape[-1]))
    return rows._replace(class_where=where)


def _resolved_on_devices(settings: Settings, rows: Rows, shared: Shared) -> Resolved:
    """`resolve` on each device's part, with every field broadcast to all rows."""
    spec = row_spec(settings.sharding)

    def on_device(rows: Rows, shared: Shared) -> Resolved:
        shape = rows_of_head(rows)
        local = on_one_device(settings)._replace(axis=len(shape))
        resolved = resolve(local, rows, shared)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*shape, *x.shape[len(shape) :])), resolved
        )

    specs = specs_of(settings, rows), specs_of(settings, shared)
    return enter(settings.sharding, on_device, (rows, shared), specs, spec)


def _without_dropped(
    settings: Settings, rows: Rows, resolved: Resolved
) -> tuple[Rows, Resolved]:
    """Sets the hidden states of dropped rows to 0: products would spread their NaN.

    A row of weight 0 stays, for the derivative in that weight, if it is finite.
    """
    keep: Maybe = resolved.keep
    hidden = {
        head.hidden: x
        for head in heads_of(settings)
        if (x := getattr(rows, head.hidden)) is not None
    }
    if rows.weights is not None:
        assert resolved.weighted is not None
        finite = [jnp.all(lax.is_finite(x), -1) for x in hidden.values()]
        keep = both(keep, resolved.weighted | functools.reduce(lax.bitwise_and, finite))
    if keep is None:
        return rows, resolved
    where = lax.expand_dims(keep, (keep.ndim,))
    rows = rows._replace(**{name: select(where, x) for name, x in hidden.items()})
    return rows, resolved._replace(keep=keep)


def _total_weight(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """Σ r over the rows of all devices, r everything that multiplies one."""
    factor = class_factor(settings, rows, shared, resolved)
    if factor is None:
        factor = jnp.ones(rows_of_head(rows), dtype_of(rows, shared))
    weight = jnp.sum(weighed(factor, resolved.keep, rows.weights))
    return sum_over_devices(weight, settings.batch_axis_name)
