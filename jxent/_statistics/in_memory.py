"""Layout 1: the statistics of logits in memory, in the form that suits a platform."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import along_classes, is_split, masked, rows_to_classes, spread
from .inputs import (
    Form,
    Inputs,
    effective_logits,
    is_label,
    local_labels,
    mass_weights,
    origin,
)
from .monoid import Totals, merge


def block(form: Form, inputs: Inputs) -> Totals:
    """The statistics of one block of logits, in the form that suits the platform."""
    return lax.platform_dependent(
        inputs,
        cpu=functools.partial(two_pass, form),
        cuda=functools.partial(one_pass_gpu, form),
        rocm=functools.partial(one_pass_gpu, form),
        default=functools.partial(one_pass, form),
    )


def two_pass(form: Form, inputs: Inputs) -> Totals:
    """The maximum first, then sums relative to it: what suits a CPU.

    exp(z − maximum) stands here as it stands in the derivative, so that a compiler
    which sees both computes it once.
    """
    axis = form.axis
    z = effective_logits(form, inputs)
    maximum = jnp.max(z, axis)
    rel = z - rows_to_classes(origin(maximum), axis)
    e = jnp.exp(rel)
    label = label_weight = weighted = weight = expected = argmax = None
    if inputs.labels is not None:
        label, label_weight = _pick(form, inputs, z)
    total = jnp.sum(e, axis)
    if form.weighted:
        spoiled = ~jnp.isfinite(maximum) | jnp.isnan(total)
        weighted, weight = _weighted_sums(form, inputs, z, origin(maximum), spoiled)
    if form.expected:
        expected = jnp.sum(e * masked(rel, e != 0), axis)
    if form.argmax:
        classes = along_classes(lax.iota(jnp.int32, z.shape[axis]), axis, z.ndim)
        largest = z == rows_to_classes(maximum, axis)
        classes = jnp.where(largest, spread(classes, z), z.shape[axis] - 1)
        argmax = jnp.min(classes, axis)
    t = Totals(
        maximum,
        total,
        label,
        label_weight,
        weighted,
        weight,
        expected,
        argmax,
    )
    return like_rows(maximum, t)


def like_rows(rows: Array, tree: Any) -> Any:
    """The same numbers, varying over the mesh as `rows` do inside `shard_map`."""
    return jax.tree.map(lambda x: x + jnp.zeros_like(rows, dtype=x.dtype), tree)


def _pick(form: Form, inputs: Inputs, z: Array) -> tuple[Array, Array | None]:
    """The label's logit, NaN where its class is masked, and its class weight."""
    assert inputs.labels is not None
    axis, classes = form.axis, z.shape[form.axis]
    if is_split(z):
        return _pick_by_comparison(form, inputs, z)
    local = local_labels(form, inputs.labels, classes)
    here = (local >= 0) & (local < classes)
    index = masked(local, here)

    def take(x: Array) -> Array:
        at = rows_to_classes(index, axis)
        return jnp.take_along_axis(x, at, axis, mode="clip").squeeze(axis)

    label = take(z)
    if inputs.mask is not None:
        allowed = take(jnp.broadcast_to(inputs.mask, z.shape))
        label = masked(label, allowed, jnp.nan)
    label = masked(label, here)
    if inputs.class_weights is None:
        return label, None
    w = jnp.take(inputs.class_weights.astype(z.dtype), index, mode="clip")
    return label, masked(w, here)


def _label_operands(form: Form, inputs: Inputs, z: Array) -> tuple[Array, Array | None]:
    assert inputs.labels is not None
    picked = is_label(form, inputs.labels, z)
    label = z
    if inputs.mask is not None:
        label = masked(z, inputs.mask, jnp.nan)
    label = masked(label, picked)
    if inputs.class_weights is None:
        return label, None
    w = along_classes(inputs.class_weights.astype(z.dtype), form.axis, z.ndim)
    return label, masked(spread(w, z), picked)


def _pick_by_comparison(
    form: Form, inputs: Inputs, z: Array
) -> tuple[Array, Array | None]:
    label, weight = _label_operands(form, inputs, z)
    picked = jnp.sum(label, form.axis)
    return picked, None if weight is None else jnp.sum(weight, form.axis)


def _weighted_sums(
    form: Form, inputs: Inputs, z: Array, start: Array, spoiled: Array
) -> tuple[Array, Array]:
    """Σ_c w_c (z_c − start) and Σ_c w_c, for logits of any offset, without a temporary.

    For one w in all rows the product Σ_c w_c z_c − start · Σ_c w_c is the fastest form
    on a CPU, but where logits lie far from 0 it cancels, and its parts may overflow
    where the sum of the terms does not. It is kept where it is finite and no row loses
    more than two bits, which is so unless logits share a large offset; else the terms
    are formed one by one. Rows that count for nothing are exempt where they are
    `spoiled` and get no statistics: in others the derivatives in weights and smoothing
    see these sums.
    """
    axis, w = form.axis, mass_weights(form, inputs)
    weight = jnp.broadcast_to(jnp.sum(jnp.broadcast_to(w, z.shape), axis), start.shape)

    def one_by_one() -> Array:
        # The barrier keeps XLA from storing z − start to share it with the exponents,
        # and the second operand of the reduction from storing the terms.
        rel = z - rows_to_classes(lax.optimization_barrier(start), axis)
        impossible = z == -jnp.inf
        terms = masked(rel, ~impossible) * w
        lost = masked(_zeros(z), ~(impossible & (w != 0)), 1)
        zero = jnp.zeros((), z.dtype)
        total, impossible_mass = lax.reduce(
            (terms, lost),
            (zero, zero),
            lambda a, b: (a[0] + b[0], a[1] + b[1]),
            (axis,),
        )
        return masked(total, ~(impossible_mass > 0), -jnp.inf)

    per_row = inputs.distribution is not None or inputs.mask is not None
    if per_row or is_split(z):
        return one_by_one(), weight
    vector = jnp.broadcast_to(w.reshape(-1), (z.shape[axis],))
    offset = start * jnp.sum(vector)
    # Without a precision a GPU may round the factors to 10 bits.
    whole = jnp.tensordot(z, vector, ((axis,), (0,)), precision=lax.Precision.HIGHEST)
    product = whole - offset
    fine = jnp.isfinite(whole) & jnp.isfinite(product)
    fine &= jnp.abs(offset) <= 4 * jnp.abs(product)
    if inputs.keep is not None:
        fine |= spoiled & ~inputs.keep
    return lax.cond(jnp.all(fine), lambda: product, one_by_one), weight


def _zeros(z: Array) -> Array:
    """Zeros that depend on z.

    jax 0.10 may differentiate a reduction of several operands (second order through a
    scan), and then needs a tangent of each.
    """
    return jnp.minimum(jnp.abs(z), jnp.zeros_like(z))


def one_pass(form: Form, inputs: Inputs) -> Totals:
    """One variadic reduction that reads the logits once: what suits a TPU."""
    operands, identity = _single_classes(form, inputs)
    return _integral(_reduce(operands, identity, form.axis))


def _reduce(operands: Totals, identity: Totals, axis: int) -> Totals:
    return Totals(*lax.reduce(operands, identity, merge, (axis,)))


def _integral(t: Totals) -> Totals:
    return t._replace(argmax=None if t.argmax is None else t.argmax.astype(jnp.int32))


def one_pass_gpu(form: Form, inputs: Inputs) -> Totals:
    """The same on a GPU, the last axis cut in 8, which keeps the partial results few.

    Along any other axis XLA would store the float32 operands: two passes there.
    """
    ndim, classes = inputs.logits.ndim, inputs.logits.shape[-1]
    if form.axis != ndim - 1:
        return two_pass(form, inputs)
    operands, identity = _single_classes(form, inputs)
    if classes % 8 == 0:
        cut = (8, classes // 8)
        operands = jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *cut), operands)
        operands = _reduce(operands, identity, ndim)
    return _integral(_reduce(operands, identity, ndim - 1))


def _single_classes(form: Form, inputs: Inputs) -> tuple[Totals, Totals]:
    """Every class as a block of its own, and the identity of `merge`."""
    z = effective_logits(form, inputs)
    zero = _zeros(z)
    label = label_weight = weighted = weight = expected = argmax = None
    if inputs.labels is not None:
        label, label_weight = _label_operands(form, inputs, z)
        label_weight = None if label_weight is None else label_weight + zero
    if form.weighted:
        weighted, weight = zero, zero + mass_weights(form, inputs)
    if form.expected:
        expected = zero
    if form.argmax:
        # As a number, for the tangent's sake: exact up to 2^24 classes.
        dtype = z.dtype if z.shape[form.axis] <= 2**24 else jnp.int32
        argmax = lax.broadcasted_iota(jnp.int32, z.shape, form.axis).astype(dtype)
        argmax = argmax + zero.astype(dtype)
    operands = Totals(
        z, zero + 1, label, label_weight, weighted, weight, expected, argmax
    )
    neutral = (-jnp.inf, 0, 0, 0, 0, 0, 0, 2**31 - 1, None)  # argmax: above all
    identity = Totals._make(
        None if x is None else jnp.asarray(n, x.dtype)
        for x, n in zip(operands, neutral, strict=True)
    )
    return operands, identity
