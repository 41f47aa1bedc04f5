"""Softmax statistics of rows and columns: those of logits in memory, block by block."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, select
from .._problem.bundles import Maybe
from .._statistics.at_ids import AtIds
from .._statistics.block import totals_of_block
from .._statistics.inputs import Inputs
from .._statistics.statistic import Statistic, origin
from .._statistics.totals import Totals, merge, merge_devices, of_nothing
from .._statistics.under_labels import UnderLabels
from .._statistics.weighted import WeightedSum
from .matrix import BlockLogits, MatrixBlock, Relation, own, places_in
from .statistics import Form


class LogSum(NamedTuple):
    """log Σ exp z over a relation, and what is compared with it.

    Attributes:
      over: the relation.
      label: whether the own pair's logit is compared.
      target: the relation whose logits' sum is compared; None for no such sum.
    """

    over: Relation
    label: bool = False
    target: Relation | None = None

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        weighted = () if self.target is None else (UnderLabels(),)
        return (AtIds(),) * self.label + weighted


@functools.cache
def softmax_form(rows: tuple[LogSum, ...], columns: tuple[LogSum, ...] = ()) -> Form:
    """The form whose statistics are a tuple of `Totals` for rows, one for columns."""
    directions = ((1, rows), (0, columns))

    def of_block(block: MatrixBlock, logits: BlockLogits) -> Any:
        return tuple(
            tuple(_totals(axis, log_sum, block, logits) for log_sum in log_sums)
            for axis, log_sums in directions
        )

    def tangent_of_block(
        block: MatrixBlock, logits: BlockLogits, moved: BlockLogits, t: Any
    ) -> Any:
        return tuple(
            tuple(
                _tangent(axis, log_sum, block, logits, moved, finished)
                for log_sum, finished in zip(log_sums, of_direction, strict=True)
            )
            for (axis, log_sums), of_direction in zip(directions, t, strict=True)
        )

    def each(function: Any) -> Any:
        return lambda *several: tuple(map(function, *several))

    return Form(
        of_block=of_block,
        of_nothing=each(lambda t: jax.tree.map(jnp.full_like, t, of_nothing(t))),
        merge=each(merge),
        merge_devices=lambda several, names: tuple(
            merge_devices(t, names) for t in several
        ),
        tangent_of_block=tangent_of_block,
    )


def _allowed(
    axis: int, log_sum: LogSum, block: MatrixBlock, logits: BlockLogits
) -> Array:
    z, mask = logits.biased if axis else logits.plain, log_sum.over(block)
    return z if mask is None else select(mask, z, -jnp.inf)


def _target(log_sum: LogSum, block: MatrixBlock, dtype: Any) -> Maybe:
    if log_sum.target is None:
        return None
    mask = log_sum.target(block)
    assert mask is not None
    return cast(mask, dtype)


def _totals(
    axis: int, log_sum: LogSum, block: MatrixBlock, logits: BlockLogits
) -> Totals:
    z = _allowed(axis, log_sum, block, logits)
    target, sides = _target(log_sum, block, z.dtype), block if axis else reversed(block)
    places = (places_in(*sides),) if log_sum.label else ()
    weights = () if target is None else (target,)
    inputs = Inputs(statistics=log_sum.statistics, z=z, given=places + weights)
    return totals_of_block(axis, inputs)


# With the shift a constant and e = exp(z − shift),
#
#     d sum = Σ e dz        d label = dz of the own pair        d target = Σ t dz
def _tangent(
    axis: int,
    log_sum: LogSum,
    block: MatrixBlock,
    logits: BlockLogits,
    moved: BlockLogits,
    t: Totals,
) -> Totals:
    z = _allowed(axis, log_sum, block, logits)
    dz = moved.biased if axis else moved.plain
    shift = lax.broadcast_in_dim(origin(t.maximum), z.shape, (1 - axis,))

    def total(x: Array) -> Array:
        return lax.reduce_sum(x, (axis,))

    target, states = _target(log_sum, block, z.dtype), ()
    if log_sum.label:
        states += (total(select(own(block), dz)),)
    if target is not None:
        states += (WeightedSum(sum=total(lax.mul(target, dz)), mass=None),)
    constant: Any = None
    return Totals(
        statistics=t.statistics,
        maximum=constant,
        sum=total(lax.mul(lax.exp(lax.sub(z, shift)), dz)),
        states=states,
    )


def log_sum_of(t: Totals) -> Array:
    """log Σ exp(z − shift); 0 where there is nothing."""
    return lax.log(select(lax.ne(t.sum, lax.full_like(t.sum, 0)), t.sum, 1))
