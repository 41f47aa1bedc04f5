"""What a statistic of a row of logits is: a static value, the functions of a monoid.

A row's statistics are numbers relative to its largest logit, its *shift*. Every problem
has that maximum and Σ_c exp(z_c − shift). What else it needs is a tuple of `Statistic`,
each in a file of its own beside this one. Its *state* is an array (rows,), or a
NamedTuple of some; the states stand in the order of the tuple, and no layout knows more
of them.

Shapes, here and in the modules beside: logits z, and all that is said to have their
shape, are (…, classes, …) with the classes at `axis`. "(rows,)" is that shape without
`axis`; rows may have several axes, or none.

A statistic whose state is a sum over the classes needs `of_block`, `of_class`,
`rescaled` and `tangent`. The other methods have defaults.
"""

import functools
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import over_classes, over_last_axis, select
from .._problem.bundles import Maybe
from .._problem.resolved import Resolved


State = TypeVar("State")


class Block(NamedTuple):
    """A block of logits in two passes: the maximum is known, sums are relative to it.

    z has the logits' shape, the other arrays are (rows,).
    """

    axis: int
    z: Array
    shift: Array
    maximum: Array


class Classes(NamedTuple):
    """Every class as a block of its own: its shift is its logit, z − shift is 0."""

    axis: int
    z: Array
    zero: Array  # of z's shape; it depends on all logits, so that it has a tangent


class Point(NamedTuple):
    """Where a block's statistics are differentiated. All but dz is held fixed."""

    axis: int
    z: Array
    rel: Array
    e: Array
    dz: Maybe  # the tangent of z; None for 0
    computed: Maybe  # (rows,), False for rows without tangents; None for none
    poison: Array  # (rows,), NaN in rows whose statistics are, else 1
    first: Maybe  # the block's first class; None for 0

    def sum(self, *products: tuple[Maybe, Maybe]) -> Maybe:
        """Σ_c of the products of those pairs that are there; None for 0."""
        terms = [lax.mul(x, y) for x, y in products if x is not None and y is not None]
        if not terms:
            return None
        return lax.reduce_sum(functools.reduce(lax.add, terms), (self.axis,))

    def poisoned(self, x: Maybe) -> Maybe:
        return None if x is None else lax.mul(self.poison, x)


class Move:
    """From the shift of some classes to that of more: what rescales their state."""

    def __init__(self, maximum: Array, total: Array, new: Array):
        self.old, self.new, self.sum = maximum, new, total

    @functools.cached_property
    def gap(self) -> Array:
        """old − new (rows,), where −inf − −inf = 0."""
        return gap_of(self.old, self.new)

    @functools.cached_property
    def factor(self) -> Array:
        return lax.exp(self.gap)

    @functools.cached_property
    def possible(self) -> Array:
        """False where no class was possible."""
        return lax.ne(self.gap, lax.full_like(self.gap, -jnp.inf))

    @functools.cached_property
    def step(self) -> Array:
        """The gap, but 0 where no class was possible: 0 · −inf = 0."""
        return select(self.possible, self.gap)


class Finished(NamedTuple):
    """What all states are finished with."""

    shift: Array
    flaw: Array  # 0 in computable rows, else NaN
    resolved: Resolved

    def filled(self, x: Array, unweighted: int = 0) -> Array:
        """`x` (rows,) or (rows, k), with NaN in rows that are not computable, or
        with the number `unweighted` in those of them that are not weighted either."""
        # Of several numbers a row, XLA on a CPU is slow at a loop over them alone.
        if x.ndim > self.flaw.ndim:
            flawed = select(over_last_axis(is_computable(self.flaw), x), x, jnp.nan)
        else:
            flawed = lax.add(x, self.flaw)
        weighted = self.resolved.weighted
        if weighted is None:
            return flawed
        known = lax.bitwise_or(weighted, is_computable(self.flaw))
        return select(over_last_axis(known, x), flawed, unweighted)


class Statistic(Generic[State]):
    """One statistic of a row's logits. A subclass is a frozen dataclass."""

    # Whether a row without a possible class has this statistic, too.
    may_be_empty: bool = False

    @property
    def shares_nothing(self) -> bool:
        """Whether its sums have no array of the logits' shape that a select gives, or
        that two of them use."""
        return False

    @property
    def fewest_classes(self) -> int:
        """How many classes a block of a stream has at least; 0 for any number."""
        return 0

    # Of a block --------------------------------------------------------------------

    def given(self, part: Any) -> Any:
        """What it reads beside the logits, of a `Part`: arrays that may have tangents.

        Plain JAX, which its own derivative follows.
        """
        return None

    def other_logits(self, given: Any) -> Maybe:
        """Logits among what is given, of the shape of the row's own."""
        return None

    def read(self, axis: int, z: Array, given: Any) -> tuple[State, Maybe] | None:
        """The state, if it is read off the logits before exponentials are formed.

        With it the largest logit that was read, (rows,) or None: the maximum then
        depends on it, and the exponentials may take the place of logits in memory.
        """
        return None

    def of_block(self, block: Block, given: Any) -> State:
        """The state (rows,) of a block in two passes; an array of the logits' shape
        stands for its sum over the classes."""
        raise NotImplementedError

    def of_class(self, classes: Classes, given: Any) -> State | None:
        """The states of single classes, of the logits' shape, which one reduction
        merges on a TPU or a GPU; None if `read` gives the state there, too."""
        return None

    def numbered_from(self, state: State, first: Maybe) -> State:
        """The state of a block, its class ids counted from the first class of all.

        `first` is the number of the block's first class, None for 0.
        """
        return state

    # The monoid --------------------------------------------------------------------

    def of_nothing(self, state: State) -> State:
        """The identity of `merge`: scalars, in the dtypes of `state`."""
        return jax.tree.map(lambda x: jnp.asarray(0, x.dtype), state)

    def rescaled(self, state: State, move: Move) -> State:
        """A state that is a sum over classes, moved to a larger shift."""
        raise NotImplementedError

    def merge(self, a: State, b: State, from_a: Move, from_b: Move) -> State:
        """The state of both; of scalars, too. By default the rescaled states' sum."""
        moved = self.rescaled(a, from_a), self.rescaled(b, from_b)
        return jax.tree.map(lax.add, *moved)

    def merge_devices(self, state: State, move: Move, names: tuple[str, ...]) -> State:
        """`merge` over mesh axes."""
        return lax.psum(self.rescaled(state, move), names)

    # Of all classes ----------------------------------------------------------------

    def flaw(self, state: State, resolved: Resolved) -> Maybe:
        """NaN in rows that this state shows to hold NaN, or nothing finite; else 0."""
        return None

    def finish(self, state: State, finished: Finished) -> State:
        return jax.tree.map(finished.filled, state)

    # The derivative ----------------------------------------------------------------

    def moving(self, state: State) -> Any:
        """The state with None for what has no tangent."""
        return state

    def is_known(self, state: State) -> Maybe:
        """False in rows whose gradient is NaN as the finished state is."""
        return None

    def tangent(self, at: Point, given: Any, moved: Any, state: State) -> Any:
        """The tangents of `moving`, of a block; None for 0. Linear in dz and `moved`.

        `moved` are the tangents of what is given, None where nothing moved; `state` is
        the finished one, of all classes.
        """
        raise NotImplementedError


def origin(maximum: Array) -> Array:
    """The shift (rows,): the maximum (rows,), or the least number for a smaller one."""
    return lax.max(maximum, lax.full_like(maximum, jnp.finfo(maximum.dtype).min))


def gap_of(old: Array, new: Array) -> Array:
    """old − new of two maxima (rows,), where −inf − −inf = 0."""
    return select(lax.ne(old, new), lax.sub(old, new))


def found(
    kind: type[Statistic[State]], statistics: tuple[Any, ...], of_each: tuple[Any, ...]
) -> Any:
    """What the statistic of that kind has; None if it is not asked for."""
    pairs = zip(statistics, of_each, strict=True)
    return next((its for statistic, its in pairs if isinstance(statistic, kind)), None)


def relative(z: Array, shift: Array, axis: int) -> Array:
    """z − shift, of the shape of z; `shift` is (rows,)."""
    return lax.sub(z, over_classes(shift, axis, z))


# Arithmetic in place of comparisons and selects: XLA on a CPU forms the statistics of
# short rows, and what a loss makes of them, in one loop if it meets no truth value.
def flaw_of(maximum: Array, total: Array, *, empty: bool) -> Array:
    """NaN in rows (rows,) that hold NaN or +∞, else 0; but for `empty`, also NaN in
    rows without a possible class, and in those of a tile that was skipped."""
    # A NaN reaches the sum on every platform, the maximum not where it is merged over
    # devices. The sum of a skipped row is 0, that of a possible class at least 1.
    maximum, total = lax.stop_gradient((maximum, total))
    if empty:
        maximum = lax.max(maximum, lax.full_like(maximum, 0))
        return lax.mul(lax.sub(maximum, maximum), total)
    return lax.div(lax.sub(maximum, maximum), total)


def is_computable(flaw: Array) -> Array:
    return lax.eq(flaw, lax.full_like(flaw, 0))


@jax.custom_jvp
def exp_of_computed(rel: Array, computed: Array) -> Array:
    """exp(rel) in computed rows, else 0 with derivatives of 0, whatever is there.

    The mask stands after the exponential, so that this is the exponential of the value
    and XLA computes both once. Its derivative must not be that of such a select: a row
    that holds NaN would turn it into 0 · NaN.
    """
    return select(computed, lax.exp(rel))


@exp_of_computed.defjvp
def _exp_of_computed_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (rel, computed), (drel, _) = primals, tangents
    e = exp_of_computed(rel, computed)
    return e, lax.mul(e, select(computed, drel))
