"""A divergence of two softmaxes that is a sum over the classes: a second pass.

With q = softmax(z'), p = softmax(z), a formula (see `OfTwo`) gives weights w', w, and
for each class a and b such that

    D = Σ w' q a + w p b,   where Σ w' q da + w p db = 0

It needs the normalizers of both softmaxes, hence the second pass. With the means
A = Σ q a and B = Σ p b, and as d log q = dz' − Σ q dz' and d log p = dz − Σ p dz,

    dD = Σ w' q (a − A) dz' + Σ w p (b − B) dz + A dw' + B dw

which is one more pass, whatever has a tangent. The terms in A and B come from the two
means, the tangents of the normalizers: so the rule does not read those of the totals.
JAX derives the derivatives of this rule, which go through A, B and the totals.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import moving_of, over_classes, select, vary, varying_of
from .._compute.apart import constant, held_apart, unseen
from .._compute.chunks import are_short, sum_along
from .._formulas import OfTwo, Pair
from .._layouts.totals import over_all_classes
from .._problem.bundles import Maybe
from .._problem.problem import Problem
from .._statistics.inputs import Inputs, inputs_of_block
from .._statistics.second_softmax import SecondSoftmax
from .._statistics.statistic import origin, relative
from .._statistics.totals import Totals, computed_rows


class DivergenceSums(NamedTuple):
    """Of a block, or of all classes, (rows,): D, and A and B if asked for."""

    divergence: Array
    of_target: Maybe = None
    of_logits: Maybe = None


@jax.custom_jvp
def divergence_of(problem: Problem, t: Totals) -> Array:
    """The divergences (rows,), from the finished totals `t` (rows,)."""
    return _sums(problem, t, of_target=False, of_logits=False).divergence


def _sums(
    problem: Problem, t: Totals, *, of_target: bool, of_logits: bool
) -> DivergenceSums:
    """D of all classes, and the means A and B where they are asked for."""

    value_alone = not (of_target or of_logits)
    nothing = value_alone and _formula(problem).shares_nothing
    short = are_short(problem.like, problem.axis)
    # What the sums share a TPU forms in one pass; on a GPU XLA would store it, and on a
    # CPU where rows are not in groups.
    storing = ("gpu", "cpu") if nothing or short else ("gpu",)

    def of_block(problem: Problem, _: Any, first: Maybe, t: Totals) -> DivergenceSums:
        formula, computed = _formula(problem), computed_rows(problem.resolved, t)
        inputs = inputs_of_block(problem, None, computed)
        parameters, axis = problem.shared.parameters, problem.axis

        def terms(t: Totals) -> tuple[Pair, Array, Array]:
            return _terms(axis, formula, inputs, parameters, computed, t)

        # The second barrier stands behind the first: two of one array are merged.
        t = held_apart(t, *storing)
        summands = formula.summands(*terms(t), *parameters)
        pair, a, b = terms(held_apart(t, *storing))
        of_classes = DivergenceSums(
            divergence=summands,
            of_target=lax.mul(pair.q, a) if of_target else None,
            of_logits=lax.mul(pair.p, b) if of_logits else None,
        )
        return jax.tree.map(lambda x: sum_along(x, axis), of_classes)

    return over_all_classes(of_block, problem, per_row=t, shares_nothing=nothing)


def _formula(problem: Problem) -> OfTwo:
    formula: Any = problem.settings.formula
    return formula


@functools.partial(divergence_of.defjvp, symbolic_zeros=True)
def _divergence_of_jvp(primals: Any, tangents: Any) -> Any:
    problem, t = primals
    rows, shared = moving_of(tangents[0].pair)
    moves = lambda *trees: bool(jax.tree.leaves(trees))
    rest = moves(rows._replace(logits=()), shared._replace(heads=()))
    logits, target = (
        rest or moves(*pair) for pair in zip(rows.logits, shared.heads, strict=True)
    )
    sums = _sums(problem, t, of_target=target, of_logits=logits)
    parameters = problem.shared.parameters

    def of_block(problem: Problem, moving: Any, first: Maybe, known: Any) -> Array:
        # Else XLA on a CPU keeps what the sums were made of.
        t, sums = unseen(known)
        computed = computed_rows(problem.resolved, t)
        fixed = problem.shared.parameters, computed, t, sums

        def divergence_at(problem: Problem) -> Array:
            inputs = inputs_of_block(problem, None, computed)
            return _fixed_divergence(problem.axis, _formula(problem), inputs, fixed)

        return problem.along(moving, divergence_at)

    moving = rows, shared._replace(parameters=(None,) * len(parameters))
    tangent = over_all_classes(of_block, problem, moving, (t, sums))
    pairs = zip(parameters, shared.parameters, strict=True)
    dots = tuple(jnp.zeros_like(x) if dx is None else dx for x, dx in pairs)
    if any(dx is not None for dx in shared.parameters):
        of_target, of_logits = jax.jvp(_formula(problem).weights, parameters, dots)[1]
        tangent += sums.of_target * of_target + sums.of_logits * of_logits
    return sums.divergence, tangent


def _terms(
    axis: int,
    formula: OfTwo,
    inputs: Inputs,
    parameters: tuple[Array, ...],
    computed: Maybe,
    t: Totals,
) -> tuple[Pair, Array, Array]:
    """Both softmaxes, a and b, of the logits' shape."""
    z, second_z, second = inputs.z, inputs.of(SecondSoftmax), t[SecondSoftmax]

    def over(rows: Array) -> Array:
        return over_classes(rows, axis, z)

    def of_computed(x: Array) -> Array:
        return x if computed is None else select(over(computed), x)

    def softmax(z: Array, shift: Array, total: Array) -> tuple[Array, Array]:
        rel = of_computed(relative(z, shift, axis))
        p = lax.div(lax.exp(rel), over(total))
        return p, lax.sub(rel, over(lax.log(total)))

    shift, second_shift = origin(t.maximum), origin(second.maximum)
    q, log_q = softmax(second_z, second_shift, second.sum)
    p, log_p = softmax(z, shift, t.sum)
    # log(p/q) = (z − a) − (z' − a') − constant. Logits relative to their maximum are
    # rounded, and the difference of nearly equal ones is not; but other offsets of two
    # rows would round that, and leave first.
    apart = lax.min(lax.sub(shift, second_shift), lax.full_like(shift, 1))
    apart = lax.max(constant(-1.0, apart), apart)  # it may be infinite
    far = lax.floor(lax.abs(apart))  # 0 or 1
    of_sums = lax.log(lax.div(t.sum, second.sum)) + lax.mul(1 - far, apart)
    offset, second_offset = (over(lax.mul(far, x)) for x in (shift, second_shift))
    # Two infinities have no difference: the least number stands in place of one. The
    # minimum is that number: XLA would store a constant that several sums share.
    least = over(lax.min(shift, lax.full_like(shift, jnp.finfo(z.dtype).min)))
    d = lax.sub(lax.max(lax.sub(z, offset), least), lax.sub(second_z, second_offset))
    log_ratio = of_computed(lax.sub(d, over(of_sums)))
    pair = Pair(q=q, p=p, log_q=log_q, log_p=log_p, log_ratio=log_ratio)
    return pair, *formula.ratios(pair, *parameters)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _fixed_divergence(axis: int, formula: OfTwo, inputs: Inputs, fixed: Any) -> Array:
    """The divergence of all classes, here for its derivative in the inputs alone."""
    *_, sums = fixed
    return vary(sums.divergence, varying_of((inputs, fixed)))


@functools.partial(_fixed_divergence.defjvp, symbolic_zeros=True)
def _fixed_divergence_jvp(
    axis: int, formula: OfTwo, primals: Any, tangents: Any
) -> Any:
    inputs, fixed = primals
    parameters, computed, t, sums = fixed
    pair, a, b = _terms(axis, formula, inputs, parameters, computed, t)
    of_target, of_logits = formula.weights(*parameters)
    moved: Inputs = moving_of(tangents[0])

    def total(weight: Any, p: Array, ratio: Array, mean: Array, dz: Array) -> Array:
        # A weight may be 0, beside which the ratio may be infinite.
        weight = jnp.asarray(weight, p.dtype)
        counts = lax.full_like(p, lax.ne(weight, jnp.zeros_like(weight)), dtype=bool)
        centered = select(counts, lax.sub(ratio, over_classes(mean, axis, p)))
        factor = lax.mul(p, centered)
        return lax.mul(weight, lax.reduce_sum(lax.mul(factor, dz), (axis,)))

    terms, second_dz = [], moved.of(SecondSoftmax)
    if second_dz is not None:
        terms.append(total(of_target, pair.q, a, sums.of_target, second_dz))
    if moved.z is not None:
        terms.append(total(of_logits, pair.p, b, sums.of_logits, moved.z))
    tangent = functools.reduce(lax.add, terms)
    value = _fixed_divergence(axis, formula, *primals)
    return value, vary(tangent, varying_of(primals))
