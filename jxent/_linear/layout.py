"""From the fused head's operands to losses of rows, materialized or streamed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .. import _labels, _reduction, _statistics
from .._arrays import masked, vary, varying_of
from .._softmax.problem import (
    Arrays,
    Losses,
    Plan,
    form_of,
    losses_in_memory,
    losses_of,
)
from .._statistics import SoftmaxStatistics
from .._tiles import live_first
from .product import Head, logits_dtype, logits_of
from .streamed import Rows, Shared, Static, mass, streamed_totals


class Layout(NamedTuple):
    """How hidden @ kernel is taken: static under jit."""

    implementation: str
    vocab_axis: int
    rows: int  # in a tile
    classes: int  # in a block


def like_logits(head: Head, vocab_axis: int) -> jax.ShapeDtypeStruct:
    shape = (head.hidden.shape[0], head.kernel.shape[vocab_axis])
    return jax.ShapeDtypeStruct(shape, logits_dtype(head))


def target_of(plan: Plan, layout: Layout, head: Head, a: Arrays) -> _labels.Target:
    """The target, but for distributions."""
    return _labels.target(
        a.wanted,
        like_logits(head, layout.vocab_axis),
        1,
        ids=plan.ids,
        class_axis_name=plan.class_axis_name,
    )


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
        usable = target.counted | jnp.all(jnp.isfinite(hidden), 1)
        keep = usable if keep is None else keep & usable
        a = a._replace(wanted=a.wanted._replace(row_where=keep))
    if keep is not None:
        hidden = masked(hidden, keep[:, None])
    return head._replace(hidden=hidden), a


def materialized(plan: Plan, layout: Layout, head: Head, a: Arrays) -> Losses:
    z = logits_of(head, layout.vocab_axis)
    return losses_in_memory(plan, a._replace(logits=z))


def streamed(plan: Plan, layout: Layout, head: Head, a: Arrays) -> Losses:
    target, statistics, label_weight = streamed_statistics(plan, layout, head, a)
    return losses_of(plan, a, target, statistics, label_weight, _no_log_probabilities)


def _no_log_probabilities() -> Array:
    raise NotImplementedError("a formula that is not one on the statistics")


def streamed_statistics(
    plan: Plan, layout: Layout, head: Head, a: Arrays
) -> tuple[_labels.Target, SoftmaxStatistics, Array | None]:
    target = target_of(plan, layout, head, a)
    count = head.hidden.shape[0]
    soft = a.wanted.labels is not None and not plan.ids

    def of_rows(x: Array | None) -> Array | None:
        return None if x is None else jnp.broadcast_to(x, (count,))

    mask = target.mask
    common = mask is None or mask.shape[0] == 1
    rows = Rows(
        head.hidden,
        labels=target.labels,
        given=a.wanted.labels if soft else None,
        mask=None if common else mask,
        keep=of_rows(target.keep),
        counted=of_rows(target.counted),
        temperature=of_rows(a.temperature),
        share=of_rows(target.share) if soft else None,
        weights=of_rows(a.wanted.weights),
    )
    shared = Shared(
        head.kernel,
        head.bias,
        class_weights=target.class_weights,
        mask=mask if common else None,
        smoothing=target.smoothing if soft else None,
        logit_soft_cap=a.logit_soft_cap,
    )
    skip = rows.counted is not None and layout.rows < count
    static = Static(
        form_of(plan, a), layout.vocab_axis, layout.rows, layout.classes, skip
    )
    back = None
    if skip and rows.counted is not None:
        rows, _, back = live_first(rows, rows.counted)
    everywhere = varying_of((rows, shared))
    shared = vary(shared, everywhere)
    rows = vary(rows, everywhere - set(plan.class_axis_name))
    rows = rows._replace(
        hidden=vary(rows.hidden, everywhere),
        given=vary(rows.given, everywhere),
        temperature=vary(rows.temperature, everywhere),
        share=vary(rows.share, everywhere),
    )
    totals = streamed_totals(static, rows, shared)
    total_mass = mass(static, rows, shared) if soft else None
    if back is not None:
        totals, total_mass = jax.tree.map(
            lambda x: jnp.take(x, back, 0, unique_indices=True), (totals, total_mass)
        )
    statistics = _statistics.assemble(
        target.counted, totals, totals.weight if soft else None
    )
    target = target._replace(mass=total_mass)
    return target, statistics, totals.label_weight


def sums(a: Arrays, of: Losses) -> tuple[Array, Array]:
    """Σ r · loss and Σ r over the rows."""
    return _reduction.sums(of.losses, of.target.keep, a.wanted.weights, of.class_factor)
