"""The statistics of a row: its maximum, Σ exp(z − shift), and the states of others.

The statistics of two blocks of classes merge into those of both (`merge`), so that a
row may be taken in one piece, streamed block by block, or split over devices. Kept
relative, they lose nothing where logits are large: around 1e4 in float32 the form
lse − z_y is off by 5e-4.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import Leaf, vary, varying_of
from .._problem.bundles import Maybe
from .._problem.resolved import Resolved, both
from .statistic import (
    Finished,
    Move,
    State,
    Statistic,
    flaw_of,
    found,
    is_computable,
    origin,
)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("maximum", "sum", "states", "flaw"),
    meta_fields=("statistics",),
)
@dataclasses.dataclass(frozen=True)
class Totals:
    """Statistics (rows,) of one or more blocks of classes.

    `flaw` comes last: NaN where the row holds NaN, or nothing finite; else 0.
    """

    statistics: tuple[Statistic, ...]  # static: what beside maximum and sum
    maximum: Leaf
    sum: Leaf
    states: Leaf = ()  # one for each statistic
    flaw: Leaf = None

    @property
    def computable(self) -> Array:
        """Boolean (rows,): where there is no flaw."""
        return is_computable(self.flaw)

    def of(self, kind: type[Statistic[State]]) -> State | None:
        """The state of the statistic of that kind; None if it is not asked for."""
        return found(kind, self.statistics, self.states)

    def __getitem__(self, kind: type[Statistic[State]]) -> State:
        """The state of the statistic of that kind, which is asked for."""
        state = self.of(kind)
        assert state is not None
        return state

    def each(self, *of_each: tuple[Any, ...]) -> Iterator[Any]:
        """(statistic, state, …)"""
        return zip(self.statistics, self.states, *of_each, strict=True)


def computed_rows(resolved: Resolved, t: Totals) -> Maybe:
    """Boolean (rows,), False where a row may hold anything; None where none may.

    A row of weight 0 is computed, if its statistics are finite: they are the derivative
    in its weight.
    """
    if resolved.weighted is None:
        return None
    return both(resolved.keep, lax.bitwise_or(resolved.weighted, t.computable))


def of_nothing(like: Totals) -> Totals:
    """The identity of `merge`: scalars, in the dtypes of `like`."""
    dtype = like.sum.dtype
    states = tuple(None if x is None else s.of_nothing(x) for s, x in like.each())
    return Totals(
        statistics=like.statistics,
        maximum=jnp.asarray(-jnp.inf, dtype),
        sum=jnp.asarray(0, dtype),
        states=states,
    )


def merge(a: Totals, b: Totals) -> Totals:
    """The statistics (rows,) of two blocks of classes together.

    `lax.reduce` calls it on scalars.
    """
    maximum = lax.max(a.maximum, b.maximum)
    from_a, from_b = (Move(t.maximum, t.sum, maximum) for t in (a, b))
    total = lax.add(lax.mul(a.sum, from_a.factor), lax.mul(b.sum, from_b.factor))
    states = tuple(
        None if x is None else s.merge(x, y, from_a, from_b)
        for s, x, y in a.each(b.states)
    )
    return Totals(statistics=a.statistics, maximum=maximum, sum=total, states=states)


def merge_devices(t: Totals, names: tuple[str, ...]) -> Totals:
    """`merge` over the mesh axes that split the classes."""
    maximum = lax.pmax(t.maximum, names)
    move = Move(t.maximum, t.sum, maximum)
    total = lax.psum(lax.mul(t.sum, move.factor), names)
    states = tuple(s.merge_devices(x, move, names) for s, x in t.each())
    return Totals(statistics=t.statistics, maximum=maximum, sum=total, states=states)


def finish(t: Totals, resolved: Resolved) -> Totals:
    """Makes labels relative, and fills rows that are not computable.

    The maximum stays as it is: so the derivative forms the exponentials as the value
    does, and XLA computes both once.
    """
    empty = any(s.may_be_empty for s in t.statistics)
    flaws = [flaw_of(t.maximum, t.sum, empty=empty)]
    flaws += [s.flaw(x, resolved) for s, x in t.each()]
    flaw = functools.reduce(lax.add, [x for x in flaws if x is not None])
    finished = Finished(shift=origin(t.maximum), flaw=flaw, resolved=resolved)
    t = Totals(
        statistics=t.statistics,
        maximum=t.maximum,
        sum=finished.filled(t.sum, 1),
        states=tuple(s.finish(x, finished) for s, x in t.each()),
        flaw=flaw,
    )
    # Each field's tangent may vary along every mesh axis that any field varies along.
    return vary(t, varying_of((t, resolved.ids, resolved.weighted)))


def filled(t: Totals, x: Array, resolved: Resolved) -> Array:
    """`x` (rows,), NaN in rows that are not computable, 0 if not weighted either."""
    return Finished(shift=t.maximum, flaw=t.flaw, resolved=resolved).filled(x)
