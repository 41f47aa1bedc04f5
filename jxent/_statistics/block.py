"""The statistics of one block of logits, in the form that suits a platform.

Shapes, here and in the modules beside: logits z, and all that is said to have their
shape, are (…, classes, …) with the classes at `axis`. "(rows,)" is that shape without
`axis`, which every statistic has; rows may have several axes, or none.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from .._arrays import (
    at_index,
    is_below,
    is_split,
    over_classes,
    over_rows,
    select,
    sharded_like,
    vary,
    varying_of,
)
from .._chunks import first_along, max_along, sum_along
from .._problem import Maybe, Settings, at_places, is_label
from .inputs import Inputs
from .totals import Totals, largest_of_devices, merge, of_no_class, origin


def totals_of_block(
    settings: Settings, inputs: Inputs, ids: Maybe, weighted: Maybe
) -> Totals:
    """The statistics (rows,) of a block of logits, before `finish`.

    `ids`, int32 (rows,) or (rows, places), are counted from the block's first class,
    out of range for labels of other blocks. `weighted`, boolean (rows,), is False for
    rows whose statistics matter only as far as they are finite.
    """
    if settings.several_labels:
        ids = None
    return _totals_of_block(settings, inputs, ids, weighted)


def _largest(settings: Settings, z: Array) -> tuple[Array, Array]:
    """The k largest logits and their ids, (rows, k), of equals the smaller id first."""
    z = jnp.moveaxis(z, settings.axis, -1)
    if not is_split(z):
        return _largest_on_device(z, settings.top_k)
    sharding = jax.typeof(z).sharding
    *rows, names = sharding.spec

    def on_device(z: Array) -> tuple[Array, Array]:
        logits, ids = _largest_on_device(z, settings.top_k)
        if names is None:
            return logits, ids
        split = names if isinstance(names, tuple) else (names,)
        return largest_of_devices(logits, ids, z.shape[-1], split, settings.top_k)

    return jax.shard_map(
        on_device,
        mesh=sharding.mesh,
        in_specs=P(*rows, names),
        out_specs=P(*rows, None),
    )(z)


def _largest_on_device(z: Array, k: int) -> tuple[Array, Array]:
    """Those of logits (rows, classes) that nothing splits, k or all there are.

    The k largest lie in the k chunks of classes whose largest are the largest. To look
    for these chunks first, and then among their classes, is faster where classes are
    many: on a CPU `lax.top_k` takes some ten times as long for a logit as a maximum.
    """
    *rows, classes = z.shape
    k = min(k, classes)
    size = 1 << (math.isqrt(classes // k).bit_length() - 1) if classes >= k else 1
    while classes % size:
        size //= 2
    if size < 4:
        logits, ids = lax.top_k(z, k)
        return logits, ids
    chunks = z.reshape(*rows, classes // size, size)
    axis = len(rows)
    _, chosen = lax.top_k(lax.reduce_max(chunks, (axis + 1,)), k)
    # In the order of their classes: `lax.top_k` takes the first of equals.
    chosen = lax.sort(chosen, dimension=axis)
    found = jnp.take_along_axis(chunks, chosen[..., None], axis, mode="clip")
    logits, place = lax.top_k(found.reshape(*rows, k * size), k)
    # `lax` takes a Python integer for one of 64 bits, where these are on.
    sizes = lax.full_like(place, size)
    chunk = at_index(chosen, lax.div(place, sizes), axis)
    return logits, chunk * size + lax.rem(place, sizes)


# Traced once for the value and for the rule that forms it again.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _totals_of_block(
    settings: Settings, inputs: Inputs, ids: Maybe, weighted: Maybe
) -> Totals:
    """`totals_of_block`, (rows,), in the form for the platform that it runs on."""
    everywhere = varying_of((inputs, ids, weighted))

    def form(function):
        return lambda *operands: vary(function(settings, *operands), everywhere)

    gpu = form(one_pass_gpu)
    return lax.platform_dependent(
        inputs,
        ids,
        weighted,
        cpu=form(two_pass),
        cuda=gpu,
        rocm=gpu,
        default=form(one_pass),
    )


def two_pass(settings: Settings, inputs: Inputs, ids: Maybe, weighted: Maybe) -> Totals:
    """The statistics (rows,): the maximum first, then sums relative to it, for a CPU.

    exp(z − maximum) stands here as it stands in the derivative, so that a compiler
    which sees both computes it once.
    """
    axis, z = settings.axis, inputs.z
    maximum, label, top = max_along(z, axis), None, None
    if settings.top_k:
        label, top = _largest(settings, z)
    if ids is not None and is_split(z):
        label = _label_of_split(axis, z, ids)
    elif ids is not None:
        # Whatever the id, what is read is one of the logits and changes no maximum. So
        # it is read before the exponentials are formed, and these may take the place of
        # logits in memory.
        own = at_index(z, ids, axis)
        label = select(is_below(ids, z.shape[axis]), own)
        if ids.ndim == z.ndim:
            own = lax.reduce_max(own, (own.ndim - 1,))
        maximum = lax.max(maximum, own)
    start = origin(maximum)
    rel = lax.sub(z, over_classes(start, axis, z))
    e = lax.exp(rel)
    total = sum_along(e, axis)
    t = Totals(maximum=maximum, sum=total, label=label, top=top)
    exempt = None
    if weighted is not None:
        finite = lax.bitwise_and(lax.is_finite(maximum), lax.eq(total, total))
        exempt = lax.bitwise_not(lax.bitwise_or(weighted, finite))
    if inputs.target is not None:
        t = t._replace(
            target=_weighted_sum(axis, z, inputs.target, start, exempt),
            mass=sum_along(inputs.target, axis),
        )
    if inputs.even is not None:
        t = t._replace(
            even=_weighted_sum(axis, z, inputs.even, start, exempt),
            even_mass=mass_of(axis, inputs.even, start),
        )
    if inputs.target_z is not None:
        compared = None if settings.several_labels else rel
        t = t._replace(**_of_two(axis, inputs.target_z, compared))
    if settings.expected:
        # The barrier keeps XLA from storing what the sums share.
        rel = lax.sub(z, over_classes(lax.optimization_barrier(start), axis, z))
        e = lax.exp(rel)
        # In place of a select, which XLA on a CPU would store: 0 · −∞ = 0, as exp is 0
        # long before.
        terms = lax.mul(e, lax.max(rel, lax.full_like(rel, -1e6)))
        t = t._replace(expected=sum_along(terms, axis))
    if settings.argmax:
        t = t._replace(argmax=first_along(z, maximum, axis))
    return t


def _of_two(axis: int, target_z: Array, rel: Maybe) -> dict[str, Maybe]:
    """The statistics (rows,) of a target softmax, whose logits are `target_z`.

    `rel` is z − shift of the logits that are compared with it, of the same shape; None
    for no comparison, and then `cross` is None.
    """
    maximum = lax.reduce_max(target_z, (axis,))
    target_rel = lax.sub(target_z, over_classes(origin(maximum), axis, target_z))
    e, cross = lax.exp(target_rel), None
    if rel is not None:
        gap = select(lax.ne(e, lax.full_like(e, 0)), lax.sub(target_rel, rel))
        cross = sum_along(lax.mul(e, gap), axis)
    return {
        "target_maximum": maximum,
        "target_sum": sum_along(e, axis),
        "cross": cross,
    }


def _label_of_split(axis: int, z: Array, ids: Array) -> Array:
    """The labels' logits, of the shape of `ids`, without a gather along a split axis,
    which is refused; 0 for classes of other blocks."""
    if ids.ndim == z.ndim:
        return at_places(z, ids, axis)
    return lax.reduce_sum(select(is_label(ids, axis, z), z), (axis,))


def mass_of(axis: int, w: Array, rows: Array) -> Array:
    """Σ_c w_c, of the shape of `rows`; w is (classes,), or of the logits' shape."""
    if w.ndim == 1 and rows.ndim != 0:
        total = lax.reduce_sum(w, (0,))
        return sharded_like(lax.broadcast(total, rows.shape), rows)
    return lax.reduce_sum(w, (axis if w.ndim > 1 else 0,))


def _weighted_sum(axis: int, z: Array, w: Array, start: Array, exempt: Maybe) -> Array:
    """Σ_c w_c (z_c − start), (rows,), for logits of any offset, without a temporary.

    z has the logits' shape, w that or (classes,); `start` and `exempt` are (rows,).

    For one w in all rows the product Σ_c w_c z_c − start · Σ_c w_c is the fastest form
    on a CPU, but where logits lie far from 0 it cancels, and its parts may overflow
    where the sum of the terms does not. It is kept where it is finite and no row loses
    more than two bits, which is so unless logits share a large offset; else the terms
    are formed one by one. `exempt` are rows that get no statistics; in others, those of
    weight 0 too, the derivatives in weights and smoothing see these sums.
    """

    def one_by_one() -> Array:
        # The barrier keeps XLA from storing z − start to share it with the exponents,
        # and the second operand of the reduction from storing the terms.
        full = over_rows(w, axis, z) if w.ndim == 1 else w
        rel = lax.sub(z, over_classes(lax.optimization_barrier(start), axis, z))
        possible = lax.ne(z, lax.full_like(z, -jnp.inf))
        terms = lax.mul(select(possible, rel), full)
        no_mass = lax.eq(full, lax.full_like(full, 0))
        lost = select(lax.bitwise_or(possible, no_mass), zeros_of_logits(z), 1)
        zero = jnp.zeros((), z.dtype)
        total, impossible_mass = lax.reduce(
            (terms, lost),
            (zero, zero),
            lambda a, b: (lax.add(a[0], b[0]), lax.add(a[1], b[1])),
            (axis,),
        )
        none_lost = lax.eq(impossible_mass, lax.full_like(impossible_mass, 0))
        return select(none_lost, total, -jnp.inf)

    if w.ndim > 1 or is_split(z):
        return one_by_one()
    offset = lax.mul(start, mass_of(axis, w, start))
    # Without a precision a GPU may round the factors to 10 bits.
    whole = lax.dot_general(
        z, w, (((axis,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    product = lax.sub(whole, offset)
    fine = lax.bitwise_and(lax.is_finite(whole), lax.is_finite(product))
    four = lax.full_like(product, 4)
    close = lax.le(lax.abs(offset), lax.mul(four, lax.abs(product)))
    fine = lax.bitwise_and(fine, close)
    if exempt is not None:
        fine = lax.bitwise_or(fine, exempt)
    return lax.cond(lax.reduce_and(fine, range(fine.ndim)), lambda: product, one_by_one)


def zeros_of_logits(z: Array) -> Array:
    """Zeros of z's shape that depend on z.

    jax 0.10 may differentiate a reduction of several operands (second order through a
    scan), and then needs a tangent of each.
    """
    return lax.min(lax.abs(z), lax.full_like(z, 0))


def one_pass(settings: Settings, inputs: Inputs, ids: Maybe, weighted: Maybe) -> Totals:
    """The statistics (rows,) by one variadic reduction, which reads logits once: for a
    TPU."""
    operands, identity = _single_classes(settings, inputs, ids)
    totals = _reduce(operands, identity, settings.axis)
    return _finished(settings, totals, inputs, ids)


def one_pass_gpu(
    settings: Settings, inputs: Inputs, ids: Maybe, weighted: Maybe
) -> Totals:
    """`one_pass` for a GPU, with the last axis cut in 8: partial results are few then.

    Along any other axis XLA would store the float32 operands: two passes there.
    """
    ndim, classes = inputs.z.ndim, inputs.z.shape[-1]
    if settings.axis != ndim - 1:
        return two_pass(settings, inputs, ids, weighted)
    operands, identity = _single_classes(settings, inputs, ids)
    if classes % 8 == 0:
        cut = (8, classes // 8)
        operands = jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *cut), operands)
        operands = _reduce(operands, identity, ndim)
    totals = _reduce(operands, identity, ndim - 1)
    return _finished(settings, totals, inputs, ids)


def _reduce(operands: Totals, identity: Totals, axis: int) -> Totals:
    """Merges along `axis` what `_single_classes` gives: arrays without that axis."""
    return lax.reduce(operands, identity, merge, (axis,))


def _finished(settings: Settings, t: Totals, inputs: Inputs, ids: Maybe) -> Totals:
    """Adds argmax as integers, and the logits of several labels or of the top k."""
    if t.argmax is not None:
        t = t._replace(argmax=t.argmax.astype(jnp.int32))
    if ids is not None and ids.ndim == inputs.z.ndim:
        t = t._replace(label=at_places(inputs.z, ids, settings.axis))
    if settings.top_k:
        label, top = _largest(settings, inputs.z)
        t = t._replace(label=label, top=top)
    return t


def _single_classes(
    settings: Settings, inputs: Inputs, ids: Maybe
) -> tuple[Totals, Totals]:
    """Every class as a block of its own: statistics of the logits' shape, and scalars,
    the identity of `merge`."""
    axis, z, target_z = settings.axis, inputs.z, inputs.target_z
    zero = zeros_of_logits(z)
    if target_z is not None:  # so that each has a tangent if the other has
        zero = lax.add(zero, zeros_of_logits(target_z))
        z, target_z = lax.add(z, zero), lax.add(target_z, zero)
    t = Totals(maximum=z, sum=lax.add(zero, lax.full_like(z, 1)))
    if ids is not None and ids.ndim < z.ndim:
        t = t._replace(label=select(is_label(ids, axis, z), z))
    if inputs.target is not None:
        t = t._replace(target=zero, mass=lax.add(zero, inputs.target))
    if inputs.even is not None:
        even = inputs.even
        even = over_rows(even, axis, z) if even.ndim == 1 else even
        t = t._replace(even=zero, even_mass=lax.add(zero, even))
    if target_z is not None:
        cross = None if settings.several_labels else zero
        t = t._replace(target_maximum=target_z, target_sum=t.sum, cross=cross)
    if settings.expected:
        t = t._replace(expected=zero)
    if settings.argmax:
        # As a number, for the tangent's sake: exact up to 2^24 classes.
        dtype = z.dtype if z.shape[axis] <= 2**24 else jnp.int32
        classes = lax.broadcasted_iota(jnp.int32, z.shape, axis).astype(dtype)
        t = t._replace(argmax=sharded_like(classes, z) + zero.astype(dtype))
    return t, of_no_class(t)
