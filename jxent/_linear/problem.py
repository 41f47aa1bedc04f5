"""From the arguments of the fused head's functions to a loss or statistics."""

import functools
import math
from typing import Any

import jax

from .. import _checks
from .._checks import ArrayLike
from .._reduction import settled
from .._softmax.formulas import cross_entropy
from .._softmax.problem import (
    Arrays,
    Losses,
    Plan,
    check,
    kept,
    reduced,
    statistics_in_memory,
)
from .._statistics import SoftmaxStatistics
from .layout import (
    Layout,
    in_memory,
    like_logits,
    materialized,
    on_devices,
    one_axis_of_rows,
    streamed,
    streamed_statistics,
    without_dropped,
)
from .plan import chosen, head_axis
from .product import Head, logits_dtype
from .split import split_of
from .tiled import tiled_sums


def head_of(
    function: str,
    hidden: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None,
    vocab_axis: int,
    labels: ArrayLike | None,
) -> tuple[Head, int]:
    """The operands, checked, and the kernel's class axis counted from the front."""
    floating = functools.partial(
        _checks.floating, function, beside=labels, order="hidden, kernel, labels"
    )
    h, k = floating("hidden", hidden), floating("kernel", kernel)
    axis = head_axis(function, h, k, vocab_axis)
    b = None
    if bias is not None:
        b = _checks.floating(function, "bias", bias)
        _checks.per_class(function, "bias", b, (k.shape[axis],))
    return Head(h, k, b), axis


def checked(
    function: str,
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | None,
    *,
    bias: ArrayLike | None,
    vocab_axis: int,
    block_sizes: tuple[int | None, int | None] | None,
    implementation: str | None,
    where: ArrayLike | None = None,
    **options: Any,
) -> tuple[Plan, Layout, Head, Arrays]:
    """Every argument, checked."""
    head, axis = head_of(function, hidden, kernel, bias, vocab_axis, labels)
    rows = head.hidden.shape[:-1]
    dtype = logits_dtype(head)
    logits = jax.ShapeDtypeStruct((*rows, head.kernel.shape[axis]), dtype)
    seen = tuple(x for x in head if x is not None)
    plan, a = check(function, logits, labels, -1, where, seen=seen, **options)
    split = split_of(
        function,
        head,
        axis,
        a.wanted.labels,
        options.get("class_axis_name"),
        options.get("batch_axis_name"),
    )
    here = like_logits(head, axis, split).shape
    scalar = plan.formula is not None and plan.reduction != "none"
    layout = chosen(
        function,
        math.prod(here[:-1]),
        head.kernel.shape[1 - axis],
        here[-1],
        axis,
        kernel_dtype=head.kernel.dtype,
        hidden_dtype=head.hidden.dtype,
        scalar=scalar and not plan.return_statistics,
        split=bool(plan.class_axis_name + split.classes),
        droppable=a.wanted.weights is not None
        or a.wanted.row_where is not None
        or a.wanted.ignore_index is not None,
        block_sizes=block_sizes,
        implementation=implementation,
    )
    return plan, layout._replace(split=split), head, a


def _losses(plan: Plan, layout: Layout, head: Head, a: Arrays) -> Losses:
    if layout.implementation == "materialized":
        return materialized(plan, layout, head, a)
    return streamed(plan, layout, head, a)


def _prepared(
    plan: Plan, layout: Layout, head: Head, a: Arrays
) -> tuple[Plan, Head, Arrays]:
    """Rows keep their axes where a mesh may split each of them; else they are one."""
    if layout.split.mesh is None:
        plan = plan._replace(axis=1)
        head, a = one_axis_of_rows(head, a)
    else:
        head, a = on_devices(layout, head, a)
    return plan, *without_dropped(plan, layout, head, a)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _loss(plan: Plan, layout: Layout, head: Head, a: Arrays) -> Any:
    rows = head.hidden.shape[:-1]
    plan, head, a = _prepared(plan, layout, head, a)
    if layout.implementation == "tiled":
        total, denominator = tiled_sums(plan, layout, head, a)
        return settled(
            total, denominator, plan.reduction, a.normalizer, plan.batch_axis_name
        )
    results = reduced(plan, a, _losses(plan, layout, head, a))
    return jax.tree.map(lambda x: x.reshape(rows) if x.ndim else x, results)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _statistics(plan: Plan, layout: Layout, head: Head, a: Arrays) -> SoftmaxStatistics:
    rows = head.hidden.shape[:-1]
    plan, head, a = _prepared(plan, layout, head, a)
    if layout.implementation == "materialized":
        target, statistics = statistics_in_memory(plan, in_memory(layout, head, a))
    else:
        target, statistics, _ = streamed_statistics(plan, layout, head, a)
    return jax.tree.map(lambda x: x.reshape(rows), kept(statistics, target.keep))


def loss_of(function: str, options: dict[str, Any]) -> Any:
    also = options["return_statistics"]
    return _loss(
        *checked(function, **options, formula=cross_entropy, entropy=also, argmax=also)
    )


def statistics_of(
    function: str, options: dict[str, Any], **settings: Any
) -> SoftmaxStatistics:
    return _statistics(*checked(function, **options, **settings, formula=None))
