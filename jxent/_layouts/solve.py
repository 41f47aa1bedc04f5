"""From a checked problem to its result: `solve` goes through each part once."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import Shape, over_places, select, sum_over_devices
from .._checks import ArrayLike, AxisName, fail
from .._formulas import SoftmaxStatistics
from .._problem import (
    HeadSharding,
    Maybe,
    Problem,
    Resolved,
    Rows,
    Settings,
    Shared,
    both,
    head_problem,
    like_logits,
    one_axis_of_rows,
    resolve,
    with_full_rows,
)
from .._reduction import combine, weighed
from .._statistics import with_logits
from .choice import (
    PIECE,
    BlockSizes,
    Implementation,
    Sizes,
    chosen,
    rows_of_group,
    sizes_of,
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
from .sums import sums_of
from .tiled import tiled_total


def solve(problem: Problem) -> Any:
    """The loss of a problem, or its statistics if it has no formula."""
    solver = _statistics if problem.settings.formula is None else _loss
    # JAX keeps the traces of jitted functions by the mesh in use, and names an empty
    # one where it traces derivatives: named here, value and derivative share theirs.
    with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
        return solver(*problem)


def head_solution(function: str, *arrays: Any, **options: Any) -> Any:
    """`solve` of a fused head's arguments."""
    return solve(planned_head(function, *arrays, **options))


def planned_head(
    function: str,
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | None,
    where: ArrayLike | None,
    *,
    class_axis_name: AxisName,
    batch_axis_name: AxisName,
    block_sizes: BlockSizes | None,
    implementation: Implementation | None,
    **options: Any,
) -> Problem:
    """The checked problem of a fused head's arguments, with its layout."""
    problem = head_problem(
        function,
        hidden,
        kernel,
        labels,
        where,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        **options,
    )
    return _with_layout(
        function,
        problem,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )


def _with_layout(
    function: str,
    problem: Problem,
    *,
    class_axis_name: AxisName,
    batch_axis_name: AxisName,
    block_sizes: BlockSizes | None,
    implementation: Implementation | None,
) -> Problem:
    """The problem of the fused head with its mesh axes, its layout and its blocks."""
    settings, rows, shared = problem
    assert rows.hidden is not None
    assert shared.kernel is not None
    axis = settings.vocab_axis
    sharding = head_sharding(
        function,
        rows.hidden,
        shared.kernel,
        axis,
        rows.labels,
        class_axis_name,
        batch_axis_name,
    )
    sizes = _sizes_on_device(rows.hidden, shared.kernel, axis, sharding)
    uses = uses_of(settings, rows, shared)
    scalar = settings.formula is not None and settings.reduction != "none"
    split = bool(settings.class_axis_name + sharding.class_axes)
    layout, tile, block = chosen(
        function,
        sizes,
        scalar=scalar and not settings.return_statistics,
        split=split,
        uses=uses,
        block_sizes=block_sizes,
        implementation=implementation,
    )
    if layout == "streamed" and needs_every_log_p(settings, rows, shared):
        fail(
            function,
            "label smoothing and distributions need every log p of a row, which a "
            "stream of blocks does not keep. Give implementation='materialized' or, "
            "for one number, 'tiled'.",
        )
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
    return problem._replace(settings=settings)


def _sizes_on_device(
    hidden: Array, kernel: Array, axis: int, sharding: HeadSharding
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
    )


@functools.partial(jax.jit, static_argnums=0)
def _loss(settings: Settings, rows: Rows, shared: Shared) -> Any:
    """The loss, a scalar or of the rows' shape.

    With `return_statistics` it comes with `SoftmaxStatistics`; with `sums` the result
    is `LossSums`, which are scalars.
    """
    head_rows = None if rows.hidden is None else rows.hidden.shape[:-1]
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
    `top_k` they are (rows, k), with the ids (rows, k) of the k largest logits.
    """
    head_rows = None if rows.hidden is None else rows.hidden.shape[:-1]
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
    return jnp.moveaxis(result, -1, settings.axis) if settings.log_prob_at else result


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
    if rows.hidden is None:
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
    rows, resolved = _without_dropped(rows, resolved)
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
        assert rows.hidden is not None
        local = on_one_device(settings)._replace(axis=rows.hidden.ndim - 1)
        shape = rows.hidden.shape[:-1]
        resolved = resolve(local, rows, shared)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*shape, *x.shape[len(shape) :])), resolved
        )

    specs = specs_of(settings, rows), specs_of(settings, shared)
    return enter(settings.sharding, on_device, (rows, shared), specs, spec)


def _without_dropped(rows: Rows, resolved: Resolved) -> tuple[Rows, Resolved]:
    """Sets the hidden states of dropped rows to 0: products would spread their NaN.

    A row of weight 0 stays, for the derivative in that weight, if it is finite.
    """
    assert rows.hidden is not None
    keep: Maybe = resolved.keep
    if rows.weights is not None:
        assert resolved.weighted is not None
        finite = jnp.all(lax.is_finite(rows.hidden), -1)
        if rows.target_hidden is not None:
            finite &= jnp.all(lax.is_finite(rows.target_hidden), -1)
        keep = both(keep, resolved.weighted | finite)
    if keep is None:
        return rows, resolved
    where = lax.expand_dims(keep, (keep.ndim,))
    rows = rows._replace(hidden=select(where, rows.hidden))
    if rows.target_hidden is not None:
        rows = rows._replace(target_hidden=select(where, rows.target_hidden))
    return rows, resolved._replace(keep=keep)


def _total_weight(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """Σ r over the rows of all devices, r everything that multiplies one."""
    assert rows.hidden is not None
    factor = class_factor(settings, rows, shared, resolved)
    if factor is None:
        dtype = like_logits(settings, rows, shared).dtype
        factor = jnp.ones(rows.hidden.shape[:-1], dtype)
    weight = jnp.sum(weighed(factor, resolved.keep, rows.weights))
    return sum_over_devices(weight, settings.batch_axis_name)
