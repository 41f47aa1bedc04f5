"""The statistics of one block of logits, in the form that suits a platform."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax

from .._arrays import cast, select, vary, varying_of
from .._chunks import max_along, sum_along, zeros_from
from .._platform import by_platform
from .._problem.bundles import Maybe
from .inputs import Inputs
from .statistic import Block, Classes, cast_again, origin, relative
from .totals import Totals, merge, of_nothing


# Traced once for the value and for the rule that forms it again.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def totals_of_block(axis: int, inputs: Inputs, weighted: Maybe) -> Totals:
    """The statistics (rows,) of a block of logits, before `finish`.

    `weighted`, boolean (rows,), is False for rows whose statistics matter only as far
    as they are finite.
    """
    everywhere = varying_of((inputs, weighted))

    def form(function: Any) -> Any:
        return lambda *operands: vary(function(axis, *operands), everywhere)

    return by_platform(
        inputs,
        weighted,
        cpu=form(two_pass),
        gpu=form(one_pass_gpu),
        default=form(one_pass),
    )


def two_pass(axis: int, inputs: Inputs, weighted: Maybe) -> Totals:
    """The statistics (rows,): the maximum first, then sums relative to it, for a CPU.

    exp(z − maximum) stands here as it stands in the derivative, so that a compiler
    which sees both computes it once.
    """
    z, narrow = inputs.z, inputs.narrow
    maximum = max_along(cast_again(z, narrow, 1), axis)
    reads = tuple(_read(axis, inputs, s, given) for s, given in inputs.each())
    for read in reads:
        if read is not None and read[1] is not None:
            maximum = lax.max(maximum, read[1])
    shift = origin(maximum)
    total, exempt = sum_along(lax.exp(relative(z, shift, axis)), axis), None
    if weighted is not None:
        finite = lax.bitwise_and(lax.is_finite(maximum), lax.eq(total, total))
        exempt = lax.bitwise_not(lax.bitwise_or(weighted, finite))
    block = Block(
        axis=axis,
        z=cast_again(z, narrow, 2),
        shift=shift,
        maximum=maximum,
        exempt=exempt,
        narrow=narrow,
    )
    states = tuple(
        s.of_block(block, given) if read is None else read[0]
        for s, given, read in inputs.each(reads)
    )
    t = Totals(statistics=inputs.statistics, maximum=maximum, sum=total, states=states)
    return _numbered(inputs, t)


def _read(axis: int, inputs: Inputs, statistic: Any, given: Any) -> Any:
    """What the statistic reads off the logits, in their dtype."""
    z = inputs.z
    if not statistic.reads_as_given or inputs.narrow is None:
        return statistic.read(axis, z, given)
    read = statistic.read(axis, cast(z, inputs.narrow), given)
    return jax.tree.map(lambda x: cast(x, z.dtype), read)


def one_pass(axis: int, inputs: Inputs, weighted: Maybe) -> Totals:
    """The statistics (rows,) by one variadic reduction, which reads logits once: for a
    TPU."""
    singles, identity = _single_classes(axis, inputs, zeros_from)
    return _finished(axis, inputs, _merged_classes(singles, identity, axis))


def one_pass_gpu(axis: int, inputs: Inputs, weighted: Maybe) -> Totals:
    """`one_pass` for a GPU, with the last axis cut in 8: partial results are few then.

    Along any other axis XLA would store the float32 operands: two passes there.
    """
    ndim, classes = inputs.z.ndim, inputs.z.shape[-1]
    if axis != ndim - 1:
        return two_pass(axis, inputs, weighted)
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
