"""Sums of losses over tiles of rows: gradients formed together with the value."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from .._arrays import masked, vary, varying, varying_of
from .._checks import compute_dtype
from .._labels import Wanted, report_bad_labels
from .._softmax.problem import Arrays, Plan, losses_in_memory
from .._statistics import NO_CLASS, Form, is_label, moving, soft_capped
from .._tiles import along, live_first, over_tiles, zeros_of
from .layout import (
    Layout,
    class_where,
    like_logits,
    materialized,
    of_rows,
    streamed,
    sums,
    target_of,
)
from .product import Head, dot, is_low, logits_of, product
from .split import (
    Split,
    enter,
    flat,
    placed,
    row_specs,
    shared_specs,
    sums_of_devices,
    vary_fields,
)
from .streamed import over_blocks


class TileRows(NamedTuple):
    """What each row has."""

    hidden: Array
    labels: Array
    row_where: Array | None
    class_where: Array | None
    weights: Array | None
    temperature: Array | None


class TileShared(NamedTuple):
    """What all rows share."""

    kernel: Array
    bias: Array | None
    class_mask: Array | None
    class_where: Array | None  # (1, classes)
    class_weights: Array | None
    ignore_index: Array | None
    label_smoothing: Array | None
    z_loss: Array | None
    logit_soft_cap: Array | None


class Static(NamedTuple):
    plan: Plan
    layout: Layout


def tiled_sums(
    plan: Plan, layout: Layout, head: Head, a: Arrays
) -> tuple[Array, Array]:
    """Σ r · loss and Σ r over the rows."""
    shape, wanted = head.hidden.shape[:-1], a.wanted
    assert wanted.labels is not None
    where, common = class_where(a, shape)
    rows = TileRows(
        head.hidden,
        wanted.labels,
        of_rows(wanted.row_where, shape),
        None if common else where,
        of_rows(wanted.weights, shape),
        of_rows(a.temperature, shape),
    )
    shared = TileShared(
        head.kernel,
        head.bias,
        wanted.class_mask,
        where if common else None,
        wanted.class_weights,
        wanted.ignore_index,
        wanted.label_smoothing,
        a.z_loss,
        a.logit_soft_cap,
    )
    split = layout.split
    rows = placed(split, rows, row_specs(split, rows))
    everywhere = varying_of((rows, shared))
    rows, shared = (
        vary_fields(x, everywhere, plan.class_axis_name) for x in (rows, shared)
    )
    # Bad labels are told of once, outside of the loop.
    static = Static(plan._replace(told=True), layout)
    total, denominator = _sums(static, rows, shared)
    if plan.ids:
        total = _reported(total, static, rows, shared)
    return total, denominator


def _local(static: Static) -> Static:
    """What is static for one device's rows, when their axes are one."""
    plan, layout = static
    names = plan.class_axis_name + layout.split.classes
    return Static(
        plan._replace(axis=1, class_axis_name=names), layout._replace(split=Split())
    )


def _flat(rows: TileRows, shared: TileShared) -> tuple[TileRows, TileShared]:
    where = shared.class_where
    if where is not None:
        shared = shared._replace(class_where=where.reshape(1, -1))
    return flat(rows, rows.hidden.shape[:-1]), shared


def _reported(
    total: Array, static: Static, rows: TileRows, shared: TileShared
) -> Array:
    """The total; under checkify with an error that names a bad label."""
    split, axis = static.layout.split, static.layout.vocab_axis
    plan, layout = _local(static)
    names = plan.class_axis_name

    def bad_labels(rows: TileRows, shared: TileShared) -> Array:
        shape = rows.hidden.shape[:-1]
        rows, shared = _flat(rows, shared)
        head, a = _problem(rows, shared)
        target = target_of(plan, layout, head, a)
        assert target.labels is not None
        bad = target.labels == NO_CLASS
        like = like_logits(head, axis, Split())
        possible = shared.class_mask
        possible = None if possible is None else possible[None]
        for mask in (possible, shared.class_where, rows.class_where):
            if mask is not None:
                mask = jnp.broadcast_to(mask, like.shape)
                here = is_label(Form(1, names), target.labels, mask) & ~mask
                count = jnp.sum(here, 1, dtype=jnp.int32)
                count = lax.psum(count, names) if names else count
                bad |= count > 0
        if target.counted is not None:
            bad &= target.counted
        return bad.reshape(shape)

    specs = row_specs(split, rows), shared_specs(split, shared, axis)
    bad = enter(split, bad_labels, (rows, shared), specs, split.row_spec)
    classes = shared.kernel.shape[axis]
    if static.plan.class_axis_name:
        classes = classes * lax.axis_size(static.plan.class_axis_name)
    return report_bad_labels(total, rows.labels, bad, classes)


def _problem(rows: TileRows, shared: TileShared) -> tuple[Head, Arrays]:
    head = Head(rows.hidden, shared.kernel, shared.bias)
    where = rows.class_where if shared.class_where is None else shared.class_where
    wanted = Wanted(
        rows.labels,
        rows.row_where,
        where,
        shared.class_mask,
        rows.weights,
        shared.class_weights,
        shared.ignore_index,
        shared.label_smoothing,
    )
    arrays = Arrays(
        None,
        wanted,
        z_loss=shared.z_loss,
        logit_soft_cap=shared.logit_soft_cap,
        temperature=rows.temperature,
    )
    return head, arrays


def _values(static: Static, rows: TileRows, shared: TileShared) -> Any:
    head, a = _problem(rows, shared)
    return sums(a, materialized(static.plan, static.layout, head, a))


def _streamed_sums(
    static: Static, rows: TileRows, shared: TileShared
) -> tuple[Array, Array]:
    head, a = _problem(rows, shared)
    return sums(a, streamed(static.plan, static.layout, head, a))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sums(static: Static, rows: TileRows, shared: TileShared) -> tuple[Array, Array]:
    return _streamed_sums(static, rows, shared)  # the cheaper way to the value alone


@functools.partial(_sums.defjvp, symbolic_zeros=True)
def _sums_jvp(static: Static, primals: Any, tangents: Any) -> Any:
    rows, shared = primals
    row_dots, dots = map(moving, tangents)
    names = tuple(row_dots), tuple(dots)
    values, slopes = _slopes(static, names, rows, shared)
    out_dots = tuple(
        along(s[0] | s[1], row_dots | dots, v)
        for s, v in zip(slopes, values, strict=True)
    )
    return values, out_dots


def _basis(values: tuple[Array, Array]) -> tuple[tuple[Array, Array], ...]:
    """The cotangents that pick the first and the second of two numbers."""
    (a, b), zero = map(jnp.ones_like, values), jnp.zeros_like
    return (a, zero(b)), (zero(a), b)


# ∂/∂hidden = g kernelᵀ and ∂/∂kernel = hiddenᵀ g for a tile's g = ∂/∂logits, which the
# loss in memory tells. Its own derivative is that of the streamed layout, the same
# function in less memory.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _slopes(
    static: Static,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    rows: TileRows,
    shared: TileShared,
) -> Any:
    """The two sums, and the slopes of each in what is named of rows and shared."""
    split, axis = static.layout.split, static.layout.vocab_axis
    specs = row_specs(split, rows), shared_specs(split, shared, axis)
    out_specs = [
        tuple(
            {n: getattr(s, n) for n in some} for s, some in zip(specs, ns, strict=True)
        )
        for ns in (names, _of_options(names))
    ]
    out_specs = ((PartitionSpec(),) * 2, out_specs)
    body = functools.partial(_local_slopes, static, names, specs)
    return enter(split, body, (rows, shared), specs, out_specs)


def _of_options(
    names: tuple[tuple[str, ...], tuple[str, ...]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What Σ r may depend on."""
    head = ("hidden", "kernel", "bias")
    in_rows, in_shared = (tuple(n for n in some if n not in head) for some in names)
    return in_rows, in_shared


def _local_slopes(
    static: Static,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    specs: tuple[TileRows, TileShared],
    rows: TileRows,
    shared: TileShared,
) -> Any:
    split, shape = static.layout.split, rows.hidden.shape[:-1]
    given = rows, shared
    static = _local(static)
    plan, layout = static
    rows, shared = _flat(rows, shared)
    everywhere = varying_of((rows, shared))
    rows, shared = (
        vary_fields(x, everywhere, plan.class_axis_name) for x in (rows, shared)
    )
    axis, low = layout.vocab_axis, is_low(rows.hidden)
    in_rows, in_shared = _of_options(names)
    cap = None if "logit_soft_cap" in in_shared else shared.logit_soft_cap

    def step(carry: Any, part: TileRows) -> Any:
        z = logits_of(_problem(part, shared)[0], axis)
        if cap is not None:
            z = soft_capped(z, cap)

        def of_logits(z: Array, some_rows: Any, some_shared: Any) -> Any:
            _, a = _problem(part._replace(**some_rows), shared._replace(**some_shared))
            if cap is not None:
                a = a._replace(logit_soft_cap=None)
            return sums(a, losses_in_memory(plan, a._replace(logits=z)))

        values, pull = jax.vjp(
            of_logits,
            z,
            {n: getattr(part, n) for n in in_rows},
            {n: getattr(shared, n) for n in in_shared},
        )
        of_total, of_r = _basis(values)
        g, *slopes = pull(of_total)
        _, *r_slopes = pull(of_r)
        if cap is not None:
            slope = 1 - jnp.square(z / cap)
            # A masked class has no slope, whatever its logit; any other NaN is in g.
            g = g * masked(slope, ~jnp.isnan(slope), 1)
        # On a CPU the barrier lets g take the place of the logits in memory; elsewhere
        # it would keep compilers from forming g inside of the products.
        g = lax.platform_dependent(g, cpu=lax.optimization_barrier, default=lambda g: g)
        total, sums_of_slopes = carry
        total = jax.tree.map(jnp.add, total, values)
        by_rows = [
            {n: x.astype(compute_dtype(x)) for n, x in s[0].items()}
            for s in (slopes, r_slopes)
        ]
        if "hidden" in names[0]:
            dhidden = product(g, shared.kernel, axis, low=low, transpose=True)
            by_rows[0]["hidden"] = dhidden
        new = [
            {n: old[n] + x.astype(old[n].dtype) for n, x in s[1].items()}
            for old, s in zip(sums_of_slopes, (slopes, r_slopes), strict=True)
        ]
        if "bias" in names[1]:
            new[0]["bias"] = sums_of_slopes[0]["bias"] + jnp.sum(g, 0)
        if "kernel" in names[1]:
            new[0]["kernel"] = _add_product(
                sums_of_slopes[0]["kernel"], part.hidden, g, layout, low
            )
        return (total, new), by_rows

    live, back = None, None
    head, a = _problem(rows, shared)
    target = target_of(plan, layout, head, a)
    counted = target.keep if "weights" in names[0] else target.counted
    if counted is not None and layout.rows < rows.hidden.shape[0]:
        rows, live, back = live_first(
            rows, jnp.broadcast_to(counted, rows.labels.shape[:1])
        )
        if plan.class_axis_name and varying(live):
            # Devices that meet in a sum must agree on whether to take part.
            longest = lax.pmax(jnp.sum(live, dtype=jnp.int32), tuple(varying(live)))
            live = vary(lax.iota(jnp.int32, live.shape[0]) < longest, varying(live))
    first = jax.tree.map(lambda x: x[: layout.rows], rows)

    def start(names: Any) -> dict[str, Array]:
        values = {n: getattr(shared, n) for n in names}
        return {n: jnp.zeros_like(x, dtype=compute_dtype(x)) for n, x in values.items()}

    zero = zeros_of(lambda: _values(static, first, shared))
    carry = (zero, [start(names[1]), start(in_shared)])
    (values, shared_slopes), row_slopes = over_tiles(
        step, carry, rows, layout.rows, live
    )
    if back is not None:
        row_slopes = jax.tree.map(lambda x: jnp.take(x, back, 0), row_slopes)
    row_slopes = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), row_slopes)
    if split.row_names:
        values = lax.psum(values, split.row_names)
    slopes = [
        tuple(map(functools.partial(sums_of_devices, split), pair, given, specs))
        for pair in zip(row_slopes, shared_slopes, strict=True)
    ]
    return values, slopes


@_slopes.defjvp
def _slopes_jvp(static: Static, names: Any, primals: Any, tangents: Any) -> Any:
    def again(rows: TileRows, shared: TileShared) -> Any:
        def f(some_rows: Any, some_shared: Any) -> Any:
            return _streamed_sums(
                static, rows._replace(**some_rows), shared._replace(**some_shared)
            )

        values, pull = jax.vjp(
            f,
            {n: getattr(rows, n) for n in names[0]},
            {n: getattr(shared, n) for n in names[1]},
        )
        slopes = [pull(of) for of in _basis(values)]
        for n in ("hidden", "kernel", "bias"):
            for s in slopes[1]:
                s.pop(n, None)
        return values, jax.tree.map(lambda x: x.astype(compute_dtype(x)), slopes)

    _, dots = jax.jvp(again, primals, tangents)
    return _slopes(static, names, *primals), dots


def _add_product(
    total: Array, hidden: Array, g: Array, layout: Layout, low: bool
) -> Array:
    """total + hiddenᵀ g, a block of classes at a time: so it takes no memory."""
    dtype = total.dtype
    hidden = hidden.astype(dtype)
    transposed = hidden.T

    def step(total: Array, start: Any, size: int) -> Array:
        block = lax.dynamic_slice_in_dim(g, start, size, 1)
        if layout.vocab_axis:
            here = dot(transposed, block, 1, 0, low)
        else:
            here = dot(block, hidden, 0, 0, low)
        old = lax.dynamic_slice_in_dim(total, start, size, layout.vocab_axis)
        return lax.dynamic_update_slice_in_dim(
            total, old + here, start, layout.vocab_axis
        )

    return over_blocks(step, total, g.shape[1], layout.classes)
