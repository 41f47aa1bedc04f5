"""Layout 2: statistics of hidden @ kernel, in a scan over blocks of classes.

Of the logits one block exists at a time. The derivative forms each block again: four
products of the logits' size where materialized logits need three.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import _labels, _statistics
from .._arrays import along_classes, masked, vary, varying_of
from .._checks import compute_dtype
from .._statistics import NO_CLASS, Form, Inputs, Totals
from .._tiles import live_first, over_tiles, zeros_of
from .product import Head, columns, is_low, logits_of, product
from .split import Split, enter, flat, row_specs, shared_specs, vary_fields


class Rows(NamedTuple):
    """What each row has; None where there is none."""

    hidden: Array
    labels: Array | None = None  # class ids
    given: Array | None = None  # distributions, as they came
    class_where: Array | None = None  # (rows, classes) or (rows, 1)
    keep: Array | None = None
    counted: Array | None = None
    temperature: Array | None = None
    share: Array | None = None  # ε/K


class Shared(NamedTuple):
    """What all rows share."""

    kernel: Array
    bias: Array | None = None
    class_weights: Array | None = None
    class_mask: Array | None = None
    class_where: Array | None = None  # (1, classes)
    smoothing: Array | None = None
    logit_soft_cap: Array | None = None


class Static(NamedTuple):
    form: Form
    vocab_axis: int
    rows: int  # in a tile
    classes: int  # in a block
    split: Split = Split()


def over_blocks(
    step: Callable[[Any, Array | int, int], Any], carry: Any, total: int, block: int
) -> Any:
    """`step(carry, start, size) -> carry` over blocks of `total` classes.

    The last one may be smaller: classes are never padded.
    """
    full = total // block
    if full > 1:
        starts = jnp.arange(full, dtype=jnp.int32) * block
        carry, _ = lax.scan(lambda c, s: (step(c, s, block), None), carry, starts)
    elif full:
        carry = step(carry, 0, block)
    if total % block:
        # Were it a constant, XLA would pad the last block's gradient to all classes and
        # add whole arrays, where it updates the sum of the others in place.
        start = lax.optimization_barrier(jnp.int32(full * block))
        carry = step(carry, start, total % block)
    return carry


def _count(static: Static, shared: Shared) -> int:
    return shared.kernel.shape[static.vocab_axis]


def _local_labels(static: Static, labels: Array, shared: Shared, start: Any) -> Array:
    """Class ids as a block counts them; out of its range where it has them not."""
    here = _statistics.local_labels(static.form, labels, _count(static, shared))
    return jnp.where(labels == NO_CLASS, labels, here - start)


def _block_target(rows: Rows, shared: Shared, start: Any, size: int) -> _labels.Target:
    mask, weights = None, shared.class_weights
    named = shared.class_mask
    named = None if named is None else named[None]
    for some in (named, shared.class_where, rows.class_where):
        if some is not None:
            some = columns(some, 1, start, size)
            mask = some if mask is None else mask & some
    return _labels.Target(
        labels=None,
        distribution=None,
        keep=rows.keep,
        counted=rows.counted,
        mask=mask,
        class_weights=None if weights is None else columns(weights, 0, start, size),
        smoothing=shared.smoothing,
        share=rows.share,
        total_class_weight=None,
        mass=None,
    )


def _like(rows: Rows, shared: Shared, size: int) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a block of logits."""
    dtype = compute_dtype(rows.hidden, shared.kernel)
    return jax.ShapeDtypeStruct((rows.hidden.shape[0], size), dtype)


def _q(target: _labels.Target, given: Array, like: jax.ShapeDtypeStruct) -> Array:
    t = _labels.allowed_distribution(target, given, like, 1)
    return _labels.smoothed_distribution(target, t, like, 1)


def mass(static: Static, rows: Rows, shared: Shared) -> Array:
    """Σ_c w_c t_c of a distribution t, before smoothing."""

    @functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(4,))
    def of_block(
        total: Array, rows: Rows, shared: Shared, start: Any, size: int
    ) -> Array:
        assert rows.given is not None
        like = _like(rows, shared, size)
        target = _block_target(rows, shared, start, size)
        given = columns(rows.given, 1, start, size)
        t = _labels.allowed_distribution(target, given, like, 1)
        return total + jnp.sum(_labels.weigh_classes(target, t, like, 1), 1)

    def body(rows: Rows, shared: Shared) -> Array:
        shape = rows.hidden.shape[:-1]
        rows, shared = _varied(static, flat(rows, shape), shared)
        total = over_blocks(
            lambda total, start, size: of_block(total, rows, shared, start, size),
            jnp.zeros_like(rows.hidden[:, 0], dtype=_like(rows, shared, 0).dtype),
            _count(static, shared),
            static.classes,
        )
        names = static.form.class_axis_name
        return (lax.psum(total, names) if names else total).reshape(shape)

    return _enter(static, body, rows, shared)


def _block_inputs(
    static: Static, rows: Rows, shared: Shared, start: Any, size: int
) -> Inputs:
    kernel, bias = shared.kernel, shared.bias
    kernel = columns(kernel, static.vocab_axis, start, size)
    bias = None if bias is None else columns(bias, 0, start, size)
    z = logits_of(Head(rows.hidden, kernel, bias), static.vocab_axis)
    target = _block_target(rows, shared, start, size)
    labels = distribution = None
    if rows.labels is not None:
        labels = _local_labels(static, rows.labels, shared, start)
    if rows.given is not None:
        given = columns(rows.given, 1, start, size)
        distribution = _q(target, given, _like(rows, shared, size))
    mask = target.mask
    return Inputs(
        z,
        labels,
        class_weights=target.class_weights if distribution is None else None,
        distribution=distribution,
        mask=None if mask is None else jnp.broadcast_to(mask, z.shape),
        keep=rows.counted,
        logit_soft_cap=shared.logit_soft_cap,
        temperature=rows.temperature,
    )


def _block_form(static: Static) -> Form:
    return static.form._replace(class_axis_name=())


def _live(static: Static, rows: Rows) -> Array | None:
    """The rows for which there is something to do; None where none can be left out.

    A row of weight 0 is one of them: its statistics are the derivative in that weight,
    and the tangents of its statistics those of the logits' gradient in that weight.
    """
    return None if static.rows >= rows.hidden.shape[0] else rows.keep


def _sorted(live: Array | None, *trees: Any) -> tuple[Any, ...]:
    """Rows and what goes with them, the live ones in front; and the way back."""
    if live is None:
        return *trees, lambda results: results
    trees, _, back = live_first(trees, live)
    take = lambda x: jnp.take(x, back, 0, unique_indices=True)
    return *trees, functools.partial(jax.tree.map, take)


def _varied(static: Static, rows: Any, shared: Any) -> tuple[Any, Any]:
    names = static.form.class_axis_name
    everywhere = varying_of((rows, shared))
    return vary_fields(rows, everywhere, names), vary_fields(shared, everywhere, names)


def _enter(
    static: Static, body: Callable[..., Any], rows: Rows, shared: Shared, *more: Any
) -> Any:
    """Results of rows; `more` are tangents of rows, tangents of shared, and totals."""
    split = static.split
    specs = [row_specs(split, rows), shared_specs(split, shared, static.vocab_axis)]
    if more:
        row_dots, dots, totals = more
        specs += [
            {n: getattr(specs[0], n) for n in row_dots},
            {n: getattr(specs[1], n) for n in dots},
            jax.tree.map(lambda _: split.row_spec, totals),
        ]
    operands = (rows, shared, *more)
    return enter(split, body, operands, tuple(specs), split.row_spec)


def _of_rows(static: Static, shared: Shared, rows: Rows) -> Totals:
    """The statistics of a tile of rows over all blocks of classes."""

    def of_block(start: Any, size: int) -> Totals:
        inputs = _block_inputs(static, rows, shared, start, size)
        t = _statistics.block(_block_form(static), inputs)
        return t if t.argmax is None else t._replace(argmax=t.argmax + start)

    def step(t: Totals, start: Any, size: int) -> Totals:
        return _statistics.merge(t, of_block(start, size))

    total = _count(static, shared)
    size = min(static.classes, total)
    if size == total:
        return of_block(0, size)
    nothing: Totals = zeros_of(lambda: of_block(0, size))
    nothing = nothing._replace(maximum=jnp.full_like(nothing.maximum, -jnp.inf))
    if nothing.argmax is not None:  # above all classes
        last = jnp.full_like(nothing.argmax, 2**31 - 1)
        nothing = nothing._replace(argmax=last)
    return over_blocks(step, nothing, total, size)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def streamed_totals(static: Static, rows: Rows, shared: Shared) -> Totals:
    return _enter(static, functools.partial(_totals, static), rows, shared)


def _totals(static: Static, rows: Rows, shared: Shared) -> Totals:
    shape = rows.hidden.shape[:-1]
    rows, shared = _varied(static, flat(rows, shape), shared)
    rows, unsorted = _sorted(_live(static, rows), rows)
    _, t = over_tiles(
        lambda _, part: (None, _of_rows(static, shared, part)),
        None,
        rows,
        static.rows,
        _live(static, rows),
    )
    t = t._replace(sum=masked(t.sum, t.sum != 0, 1))  # of skipped rows
    names, weight = static.form.class_axis_name, t.weight
    if names:
        t = _statistics.merge_devices(t, _count(static, shared), names)
    soft = rows.given is not None
    if soft and names:
        weight = lax.psum(weight, names)
    inputs = Inputs(rows.hidden, labels=rows.labels, keep=rows.counted)
    t = _statistics.finish(inputs, t)
    t = unsorted(t._replace(weight=weight if soft else None))
    return jax.tree.map(lambda x: x.reshape(shape), t)


# The tangent of each block is that of logits in memory, taken at logits that are formed
# again. Classes are the outer loop, so that a block's share of the kernel's gradient is
# complete when it is left: one product over all rows, or a sum over tiles of them in
# float32. The checkpoint makes JAX's transpose form the logits again, too.
@functools.partial(streamed_totals.defjvp, symbolic_zeros=True)
def _jvp(static: Static, primals: Any, tangents: Any) -> Any:
    rows, shared = primals
    row_dots, dots = map(_statistics.moving, tangents)
    totals = streamed_totals(static, rows, shared)
    body = functools.partial(_tangents, static)
    sums = _enter(static, body, rows, shared, row_dots, dots, totals)
    return totals, _statistics.with_tangents(totals, sums)


def _tangents(
    static: Static,
    rows: Rows,
    shared: Shared,
    row_dots: dict[str, Array],
    dots: dict[str, Array],
    totals: Totals,
) -> dict[str, Array]:
    shape = rows.hidden.shape[:-1]
    rows, row_dots, totals = flat((rows, row_dots, totals), shape)
    names = static.form.class_axis_name
    everywhere = varying_of((rows, shared, row_dots, dots))
    rows, shared, row_dots, dots = (
        vary_fields(x, everywhere, names) for x in (rows, shared, row_dots, dots)
    )
    rows, row_dots, totals, unsorted = _sorted(
        _live(static, rows), rows, row_dots, totals
    )
    live = _live(static, rows)
    if "hidden" in row_dots:  # the gradients of all blocks are summed: in float32
        row_dots["hidden"] = row_dots["hidden"].astype(compute_dtype(rows.hidden))

    @functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(4,))
    def of_block(
        operands: Any, row_dots: Any, dots: Any, start: Any, size: int
    ) -> dict[str, Array]:
        rows, shared, totals, live = operands
        blocks = {n: _block_dot(static, n, x, start, size) for n, x in dots.items()}

        def step(carry: Any, part: Any) -> tuple[Any, dict[str, Array]]:
            rows, row_dots, totals = part
            inputs = _block_inputs(static, rows, shared, start, size)
            moved = _moved(static, rows, shared, row_dots, blocks, start, size)
            sums = _statistics.tangent(_block_form(static), inputs, moved, totals)
            if "distribution" in moved:
                sums["weight"] = jnp.sum(moved["distribution"], 1)
            return carry, sums

        part = rows, row_dots, totals
        return over_tiles(step, None, part, static.rows, live, remember=False)[1]

    def step(sums: Any, start: Any, size: int) -> Any:
        # vmap makes the condition on live rows a select, of its operands too: all of
        # them must vary as the rows do.
        start = vary(jnp.asarray(start, jnp.int32), everywhere)
        operands = rows, shared, totals, live
        here = of_block(operands, row_dots, dots, start, size)
        return jax.tree.map(jnp.add, sums, here)

    total = _count(static, shared)
    size = min(static.classes, total)
    nothing = zeros_of(
        lambda *dots: of_block((rows, shared, totals, live), *dots, 0, size),
        row_dots,
        dots,
    )
    sums = over_blocks(step, nothing, total, size)
    if names:
        sums = lax.psum(sums, names)
    return jax.tree.map(lambda x: x.reshape(shape), unsorted(sums))


def _block_dot(static: Static, name: str, dot: Array, start: Any, size: int) -> Array:
    """A block of the tangent of a shared operand, in float32 or better."""
    axis = {"kernel": static.vocab_axis, "bias": 0, "class_weights": 0}.get(name)
    if axis is not None:
        dot = columns(dot, axis, start, size)
    return dot.astype(compute_dtype(dot))


def _moved(
    static: Static,
    rows: Rows,
    shared: Shared,
    row_dots: dict[str, Array],
    dots: dict[str, Array],
    start: Any,
    size: int,
) -> dict[str, Array]:
    """The tangents of a block's inputs."""
    moved = {n: dots[n] for n in ("class_weights", "logit_soft_cap") if n in dots}
    if "temperature" in row_dots:
        moved["temperature"] = row_dots["temperature"]
    low = is_low(rows.hidden)
    terms = []
    if "hidden" in row_dots:
        kernel = columns(shared.kernel, static.vocab_axis, start, size)
        terms.append(product(row_dots["hidden"], kernel, static.vocab_axis, low=low))
    if "kernel" in dots:
        terms.append(product(rows.hidden, dots["kernel"], static.vocab_axis, low=low))
    if "bias" in dots:
        bias = along_classes(dots["bias"], 1, 2)
        shape = (rows.hidden.shape[0], size)
        terms.append(jnp.broadcast_to(bias, shape))
    if terms:
        moved["logits"] = sum(terms[1:], terms[0])
    if rows.given is not None:
        points: dict[str, Array | None] = {
            "given": columns(rows.given, 1, start, size),
            "share": rows.share,
            "class_weights": shared.class_weights,
            "smoothing": shared.smoothing,
        }
        target = _block_target(rows, shared, start, size)
        points["class_weights"] = target.class_weights
        step = {n: x for n, x in (row_dots | dots).items() if n in points}
        if "given" in step:
            step["given"] = columns(step["given"], 1, start, size)
        step = {
            n: x.astype(point.dtype)
            for n, x in step.items()
            if (point := points[n]) is not None
        }
        moved.pop("class_weights", None)
        if step:
            like = _like(rows, shared, size)

            def q(some: dict[str, Array]) -> Array:
                here = points | some
                given = here.pop("given")
                assert given is not None
                return _q(target._replace(**here), given, like)

            _, moved["distribution"] = jax.jvp(
                q, ({n: points[n] for n in step},), (step,)
            )
    return moved
