"""The statistics of one block of logits, in the form that suits a platform."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax

from .._arrays import select, vary, varying_of
from .._compute.chunks import held_apart_if_short, summed, zeros_from
from .._compute.platform import by_platform
from .inputs import Inputs
from .statistic import Block, Classes, origin, relative
from .totals import Totals, merge, of_nothing


# Traced once for the value and for the rule that forms it again.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def totals_of_block(axis: int, inputs: Inputs, again: Inputs | None = None) -> Totals:
    """The statistics (rows,) of a block of logits, before `finish`.

    `again` are the same inputs, which a CPU forms a second time after the maximum.
    """
    everywhere = varying_of(inputs)

    def form(function: Any) -> Any:
        return lambda inputs: vary(function(axis, inputs), everywhere)

    plain = form(two_pass)
    cpu = plain
    if again is not None:
        cpu = lambda inputs: vary(two_pass(axis, inputs, again), everywhere)
    one = {"gpu": form(one_pass_gpu), "tpu": form(one_pass)}
    return by_platform(inputs, cpu=cpu, **one, default=plain)


def two_pass(axis: int, inputs: Inputs, again: Inputs | None = None) -> Totals:
    """The statistics (rows,): the maximum first, then sums relative to it, for a CPU.

    exp(z − maximum) stands here as it stands in the derivative, so that a compiler
    which sees both computes it once.
    """
    z = inputs.z
    maximum = lax.reduce_max(z, (axis,))
    reads = tuple(s.read(axis, z, given) for s, given in inputs.each())
    for read in reads:
        if read is not None and read[1] is not None:
            maximum = lax.max(maximum, read[1])
    shift = origin(maximum)
    inputs = inputs if again is None else again
    z = inputs.z
    block = Block(
        axis=axis, z=z, shift=held_apart_if_short(shift, z, axis), maximum=maximum
    )
    states = tuple(
        s.of_block(block, given) if read is None else None
        for s, given, read in inputs.each(reads)
    )
    total, states = summed(
        axis,
        (lax.exp(relative(z, shift, axis)), states),
        shares_nothing=all(s.shares_nothing for s in inputs.statistics),
    )
    states = tuple(
        state if read is None else read[0]
        for state, read in zip(states, reads, strict=True)
    )
    t = Totals(statistics=inputs.statistics, maximum=maximum, sum=total, states=states)
    return _numbered(inputs, t)


def one_pass(axis: int, inputs: Inputs) -> Totals:
    """The statistics (rows,) by one variadic reduction, which reads logits once: for a
    TPU."""
    singles, identity = _single_classes(axis, inputs, zeros_from)
    return _finished(axis, inputs, _merged_classes(singles, identity, axis))


def one_pass_gpu(axis: int, inputs: Inputs) -> Totals:
    """`one_pass` for a GPU, with the last axis cut in 8: partial results are few then.

    Along any other axis XLA would store the float32 operands: two passes there.
    """
    ndim, classes = inputs.z.ndim, inputs.z.shape[-1]
    if axis != ndim - 1:
        return two_pass(axis, inputs)
    # XLA sees that these are 0: it would store those of two arrays of logits.
    zeros = lambda z: select(lax.full_like(z, False, bool), z)
    singles, identity = _single_classes(axis, inputs, zeros)
    if classes % 8 == 0:
        cut = (8, classes // 8)
        singles = jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *cut), singles)
        singles = _merged_classes(singles, identity, ndim)
    return _finished(axis, inputs, _merged_classes(singles, identity, ndim - 1))


def _merged_classes(singles: Totals, identity: Totals, axis: int) -> Totals:
    """Merges along `axis` what `_single_classes` gives: arrays without that axis."""
    return lax.reduce(singles, identity, merge, (axis,))


def _single_classes(
    axis: int, inputs: Inputs, zeros: Callable[[Array], Array]
) -> tuple[Totals, Totals]:
    """Every class as a block of its own: statistics of the logits' shape, and scalars,
    the identity of `merge`. `zeros` are made of an array, and depend on it."""
    z, zero = inputs.z, zeros(inputs.z)
    for other in (s.other_logits(given) for s, given in inputs.each()):
        if other is not None:  # so that each has a tangent if another has
            zero = lax.add(zero, zeros(other))
            z = lax.add(z, zero)
    classes = Classes(axis=axis, z=z, zero=zero)
    t = Totals(
        statistics=inputs.statistics,
        maximum=z,
        sum=lax.add(zero, lax.full_like(z, 1)),
        states=tuple(s.of_class(classes, given) for s, given in inputs.each()),
    )
    return t, of_nothing(t)


def _finished(axis: int, inputs: Inputs, t: Totals) -> Totals:
    """Adds the states that no reduction gives: read off the logits."""
    states = tuple(
        s.read(axis, inputs.z, given)[0] if x is None else x
        for s, given, x in inputs.each(t.states)
    )
    return _numbered(inputs, dataclasses.replace(t, states=states))


def _numbered(inputs: Inputs, t: Totals) -> Totals:
    states = tuple(s.numbered_from(x, inputs.first) for s, x in t.each())
    return dataclasses.replace(t, states=states)
