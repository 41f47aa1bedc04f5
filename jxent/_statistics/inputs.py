"""The inputs of a block's statistics: logits and labels, with the options applied."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._arrays import Leaf, cast, compute_dtype, over_classes, over_rows, select
from .._compute.product import product
from .._compute.slopes import with_slopes
from .._problem.bundles import Maybe, replace_fields
from .._problem.ids import ids_from
from .._problem.problem import Problem, RowLogits
from .._problem.resolve import possible_classes
from .._problem.resolved import both
from .statistic import found


class Part(NamedTuple):
    """A block of classes, from which target and statistics take what they read."""

    problem: Problem
    ids: Maybe  # (rows,) or (rows, k), counted from the block's first class
    computed: Maybe  # (rows,): False for rows whose logits and labels may be anything
    formed: tuple[Any, ...]  # logits that no option acted on, in the problem's dtype
    z: Any = None  # effective logits
    second: Maybe = None  # those of a second softmax of the row, of z's shape
    possible: Maybe = None  # of z's shape


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("z", "given", "first"),
    meta_fields=("statistics",),
)
@dataclasses.dataclass(frozen=True)
class Inputs:
    """The arrays that a block's statistics are computed from, in float32 or better."""

    statistics: tuple[Any, ...]  # static
    z: Leaf  # (…, classes, …) effective logits, −inf where a class is impossible
    given: Leaf = ()  # what each of the statistics reads beside them
    first: Leaf = None  # the number of the block's first class; None for 0

    def of(self, kind: Any) -> Any:
        return found(kind, self.statistics, self.given)

    def each(self, *of_each: tuple[Any, ...]) -> Iterator[Any]:
        """(statistic, given, …)"""
        return zip(self.statistics, self.given, *of_each, strict=True)


def logits_of(problem: Problem, index: int = 0) -> Array:
    """Logits (…, classes, …) in float32 or better: those in memory, or what
    hidden (…, features) @ kernel + bias (classes,) gives."""
    logits, head = problem.rows.logits[index], problem.shared.heads[index]
    if logits.array is not None:
        z = cast(logits.array, compute_dtype(logits.array))
    else:
        assert logits.hidden is not None
        assert head.kernel is not None
        z = product(logits.hidden, head.kernel, head.vocab_axis, head.precision)
    if head.bias is None:
        return z
    return lax.add(z, over_rows(cast(head.bias, z.dtype), problem.axis, z))


def with_logits(problem: Problem, *, bias: bool = True) -> Problem:
    """With logits (…, classes) in place of hidden states and kernels.

    With `bias` these are added to the logits and leave the problem, else they stay.
    """

    def without(**fields: None) -> Any:
        heads = (replace_fields(head, **fields) for head in problem.shared.heads)
        return problem.shared._replace(heads=tuple(heads))

    formed, left = problem, without(kernel=None, bias=None)
    if not bias:
        formed = problem.replace(shared=without(bias=None))
        left = without(kernel=None)
    logits = (logits_of(formed, index) for index in range(len(left.heads)))
    rows = problem.rows._replace(logits=tuple(RowLogits(array=z) for z in logits))
    return problem.replace(rows=rows, shared=left)


def inputs_of_block(
    problem: Problem, first: Maybe = None, computed: Maybe = None
) -> Inputs:
    """The inputs of a block of classes, or of all: the one place that forms them.

    Plain JAX, which its own derivative follows. `first` is the number of the block's
    first class over all devices, None for 0. `computed`, (rows,), is False for rows
    whose logits and labels may be anything: 0 takes their place before a function is
    applied whose derivative there could be infinite.
    """
    statistics, part = problem.settings.statistics, part_of(problem, first, computed)
    z, second = problem.target.logits(part)
    possible = possible_classes(problem)
    part = part._replace(z=z, second=second, possible=possible)
    given = tuple(s.given(part) for s in statistics)
    return Inputs(statistics=statistics, z=z, given=given, first=first)


def part_of(problem: Problem, first: Maybe, computed: Maybe) -> Part:
    """A block of classes, without its effective logits."""
    ids = problem.resolved.ids
    ids = None if ids is None else ids_from(ids, first)
    indices = range(len(problem.rows.logits))
    formed = tuple(cast(logits_of(problem, i), problem.dtype) for i in indices)
    return Part(problem=problem, ids=ids, computed=computed, formed=formed)


def effective_logits(
    part: Part, adjusted: Callable[[Array], Array] | None = None, *, index: int = 0
) -> Array:
    """Logits (…, classes, …) after the soft cap, what is `adjusted`, the temperature.

    They are −inf where a class is impossible. `index` is 1 for a second softmax.
    """
    problem, computed, z = part.problem, part.computed, part.formed[index]
    temperature, axis = problem.rows.temperature, problem.axis
    soft_cap = problem.shared.heads[index].logit_soft_cap
    possible = possible_classes(problem)
    if soft_cap is not None or temperature is not None:
        for mask in (over_classes_if(computed, axis, z), possible):
            z = z if mask is None else select(mask, z)
    if soft_cap is not None:
        z = soft_capped(z, soft_cap)
    if adjusted is not None:
        z = adjusted(z)
    if temperature is not None:
        # In a row that counts for nothing it may be anything.
        keep, weighted = problem.resolved.keep, problem.resolved.weighted
        if weighted is not None:
            inverse = lax.div(lax.full_like(temperature, 1), temperature)
            usable: Any = lax.is_finite(lax.square(inverse))  # its slope, too
            usable = both(keep, lax.bitwise_or(weighted, usable))
            temperature = select(usable, temperature, 1)
        z = over_temperature(z, temperature, axis)
    return z if possible is None else select(possible, z, -jnp.inf)


def over_classes_if(rows: Maybe, axis: int, like: Array) -> Maybe:
    """`rows` (rows,) with the shape of `like`, None for None."""
    return None if rows is None else over_classes(rows, axis, like)


# With t = tanh(z/c), the derivatives of c t are 1 − t² in z and t − (1 − t²) z/c in c.
# Those at c = ∞, where z/c = 0 and t = 0, are the ones of z: 1 and 0. Written so, they
# need neither z itself beside z/c, nor a choice between the two forms of the value.
@with_slopes(
    lambda z, cap: _slope_of_tanh(lax.tanh(_ratio(z, cap))),
    lambda z, cap: _slope_in_cap(_ratio(z, cap)),
)
def soft_capped(z: Float[Array, "..."], cap: Float[Array, ""]) -> Float[Array, "..."]:
    """c tanh(z/c), which for c = ∞ is z."""
    capped = lax.mul(lax.full_like(z, cap), lax.tanh(_ratio(z, cap)))
    finite = lax.full_like(z, lax.is_finite(cap), dtype=bool)
    return lax.select(finite, capped, z)


def _slope_of_tanh(t: Array) -> Array:
    return lax.sub(lax.full_like(t, 1), lax.mul(t, t))


def _slope_in_cap(ratio: Array) -> Array:
    t = lax.tanh(ratio)
    return t - _slope_of_tanh(t) * ratio


def _ratio(z: Array, cap: Array) -> Array:
    """z/c of z's shape, which is finite: where tanh is ±1 to the last bit, ±32 is as
    good. `cap` is a scalar."""
    large = lax.full_like(cap, jnp.finfo(z.dtype).max / 2**20)  # for c = ∞
    bound = lax.mul(lax.full_like(cap, 32), lax.abs(cap))
    bound = lax.stop_gradient(lax.min(bound, large))
    return lax.div(lax.clamp(lax.neg(bound), z, bound), lax.full_like(z, cap))


def over_temperature(z: Array, temperature: Array, axis: int) -> Array:
    """z times 1/temperature (rows,); an infinite logit is not divided.

    The quotient would have an infinite derivative in the temperature, and 0 · ∞ is NaN;
    so is an infinite logit divided by an infinite temperature.

    XLA makes the reciprocal of some divisors and not of others. Were z/T rounded in one
    way for the sum and in another for the gradient, p would be wrong by ε |z/T|.
    """
    finite = lax.is_finite(z)
    inverse = over_classes(lax.div(lax.full_like(temperature, 1), temperature), axis, z)
    return lax.select(finite, lax.mul(select(finite, z), inverse), z)
