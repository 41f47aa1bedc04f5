"""From the fused head's operands to losses of rows, materialized or streamed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .. import _labels, _reduction, _statistics
from .._arrays import masked
from .._softmax.problem import (
    Arrays,
    Losses,
    Plan,
    form_of,
    losses_in_memory,
    losses_of,
    reported,
)
from .._statistics import SoftmaxStatistics
from .product import Head, logits_dtype, logits_of
from .split import Split, enter, flat, placed, row_specs, shared_specs
from .streamed import Rows, Shared, Static, mass, streamed_totals


class Layout(NamedTuple):
    """How hidden @ kernel is taken: static under jit."""

    implementation: str
    vocab_axis: int
    rows: int  # in a tile
    classes: int  # in a block
    split: Split = Split()


def like_logits(head: Head, vocab_axis: int, split: Split) -> jax.ShapeDtypeStruct:
    """The shape and dtype of the logits of one device."""
    *rows, _ = head.hidden.shape
    for axis, names in enumerate(split.rows):
        rows[axis] //= split.size(names)
    classes = head.kernel.shape[vocab_axis] // split.size(split.classes)
    return jax.ShapeDtypeStruct((*rows, classes), logits_dtype(head))


def target_of(plan: Plan, layout: Layout, head: Head, a: Arrays) -> _labels.Target:
    """The target of each row, but for distributions and masks of its classes."""
    split = layout.split
    like = like_logits(head, layout.vocab_axis, split)

    def body(wanted: _labels.Wanted) -> _labels.Target:
        target = _labels.target(
            wanted,
            like,
            plan.axis,
            ids=plan.ids,
            class_axis_name=plan.class_axis_name + split.classes,
        )

        def of_rows(x: Array | None) -> Array | None:
            return None if x is None else jnp.broadcast_to(x, like.shape[:-1])

        return target._replace(
            share=of_rows(target.share),
            total_class_weight=of_rows(target.total_class_weight),
            mask=None,
            class_weights=None,
            smoothing=None,
        )

    specs = _specs(layout, a.wanted)
    target = enter(split, body, (a.wanted,), (specs,), split.row_spec)
    return target._replace(
        class_weights=a.wanted.class_weights, smoothing=a.wanted.label_smoothing
    )


def _specs(layout: Layout, wanted: _labels.Wanted) -> _labels.Wanted:
    """How what is wanted of the labels is split."""
    fields = wanted._asdict()
    names = ("labels", "row_where", "class_where", "weights")
    rows = row_specs(layout.split, {n: fields.pop(n) for n in names})
    return _labels.Wanted(
        **rows, **shared_specs(layout.split, fields, layout.vocab_axis)
    )


def on_devices(layout: Layout, head: Head, a: Arrays) -> tuple[Head, Arrays]:
    """All operands split as the rows of hidden and the classes of the kernel are.

    Explicit axes that split one otherwise, the labels of rows that are not split or the
    features of a kernel, would meet axes that differ: what they split is gathered.
    """
    split, axis = layout.split, layout.vocab_axis
    rows = {"hidden": head.hidden, "temperature": a.temperature}
    shared = {"kernel": head.kernel, "bias": head.bias}
    rows = placed(split, rows, row_specs(split, rows))
    shared = placed(split, shared, shared_specs(split, shared, axis))
    wanted = placed(split, a.wanted, _specs(layout, a.wanted))
    a = a._replace(wanted=wanted, temperature=rows.pop("temperature"))
    return Head(**rows, **shared), a


def one_axis_of_rows(head: Head, a: Arrays) -> tuple[Head, Arrays]:
    """Of logits with several axes of rows XLA on a CPU keeps a second copy."""
    shape, wanted = head.hidden.shape[:-1], a.wanted
    where, _ = class_where(a, shape)
    wanted = wanted._replace(
        labels=flat(wanted.labels, shape),
        row_where=flat(of_rows(wanted.row_where, shape), shape),
        class_where=None if where is None else where.reshape(-1, where.shape[-1]),
        weights=flat(of_rows(wanted.weights, shape), shape),
    )
    temperature = flat(of_rows(a.temperature, shape), shape)
    head = head._replace(hidden=flat(head.hidden, shape))
    return head, a._replace(wanted=wanted, temperature=temperature)


def without_dropped(
    plan: Plan, layout: Layout, head: Head, a: Arrays
) -> tuple[Head, Arrays]:
    """0 for the hidden states of dropped rows: a product would spread what they hold.

    A row of weight 0 stays, for the derivative in that weight, if its loss is finite.
    """
    target, hidden = target_of(plan, layout, head, a), head.hidden
    keep = target.keep
    if a.wanted.weights is not None:
        assert target.counted is not None
        usable = target.counted | jnp.all(jnp.isfinite(hidden), -1)
        keep = usable if keep is None else keep & usable
        a = a._replace(wanted=a.wanted._replace(row_where=keep))
    if keep is not None:
        hidden = masked(hidden, keep[..., None])
    return head._replace(hidden=hidden), a


def materialized(plan: Plan, layout: Layout, head: Head, a: Arrays) -> Losses:
    return losses_in_memory(plan, in_memory(layout, head, a))


def in_memory(layout: Layout, head: Head, a: Arrays) -> Arrays:
    """With the logits formed."""
    return a._replace(logits=logits_of(head, layout.vocab_axis))


def streamed(plan: Plan, layout: Layout, head: Head, a: Arrays) -> Losses:
    target, statistics, label_weight = streamed_statistics(plan, layout, head, a)
    return losses_of(plan, a, target, statistics, label_weight, _no_log_probabilities)


def _no_log_probabilities() -> Array:
    raise NotImplementedError("a formula that is not one on the statistics")


def streamed_statistics(
    plan: Plan, layout: Layout, head: Head, a: Arrays
) -> tuple[_labels.Target, SoftmaxStatistics, Array | None]:
    target = target_of(plan, layout, head, a)
    soft = a.wanted.labels is not None and not plan.ids
    shape = head.hidden.shape[:-1]
    where, common = class_where(a, shape)
    rows = Rows(
        head.hidden,
        labels=target.labels,
        given=a.wanted.labels if soft else None,
        class_where=None if common else where,
        keep=target.keep,
        counted=target.counted,
        temperature=of_rows(a.temperature, shape),
        share=target.share if soft else None,
    )
    shared = Shared(
        head.kernel,
        head.bias,
        class_weights=target.class_weights,
        class_mask=a.wanted.class_mask,
        class_where=where.reshape(1, -1) if where is not None and common else None,
        smoothing=target.smoothing if soft else None,
        logit_soft_cap=a.logit_soft_cap,
    )
    form = form_of(plan, a)
    names = plan.class_axis_name + layout.split.classes
    static = Static(
        form._replace(axis=1, class_axis_name=names),
        layout.vocab_axis,
        layout.rows,
        layout.classes,
        layout.split,
    )
    totals = streamed_totals(static, rows, shared)
    statistics = _statistics.assemble(
        target.counted, totals, totals.weight if soft else None
    )
    if soft:
        target = target._replace(mass=mass(static, rows, shared))
    statistics = reported(plan, a, statistics, head.kernel.shape[layout.vocab_axis])
    return target, statistics, totals.label_weight


def class_where(a: Arrays, shape: tuple[int, ...]) -> tuple[Array | None, bool]:
    """The mask of each row's classes, and whether it is the same for all rows."""
    where = a.wanted.class_where
    if where is None or where.size == where.shape[-1]:
        return where, True
    return jnp.broadcast_to(where, (*shape, where.shape[-1])), False


def of_rows(x: Array | None, shape: tuple[int, ...]) -> Array | None:
    return None if x is None else jnp.broadcast_to(x, shape)


def sums(a: Arrays, of: Losses) -> tuple[Array, Array]:
    """Σ r · loss and Σ r over the rows."""
    return _reduction.sums(of.losses, of.target.keep, a.wanted.weights, of.class_factor)
