"""The inputs of a block's statistics: logits and labels, with the options applied."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._arrays import (
    cast,
    compute_dtype,
    is_moving,
    over_classes,
    over_rows,
    select,
)
from .._problem import (
    Maybe,
    Rows,
    Settings,
    Shared,
    both,
    dtype_of,
    has_distributions,
    has_target,
    is_label,
    of_places,
    of_target,
    possible_classes,
)
from .._product import product
from .._times import times


# Class weights enter Σ_c w_c (z_c − shift) times this power of 2, which rounds nothing:
# smoothing wants the mean over the classes, which may be finite where the sum is not.
CLASS_SCALE = 2.0**-32


class Inputs(NamedTuple):
    """The arrays that a block's statistics are computed from, in float32 or better."""

    z: Array  # (…, classes, …) effective logits, −inf where a class is impossible
    target: Maybe = None  # z's shape: class weights times a distribution
    even: Maybe = None  # CLASS_SCALE times class weights: (classes,), or z's shape
    target_z: Maybe = None  # the effective logits of the target, of z's shape


def logits_of(settings: Settings, rows: Rows, shared: Shared) -> Array:
    """Logits (…, classes, …) in float32 or better: those in memory, or what
    hidden (…, features) @ kernel + bias (classes,) gives."""
    if rows.logits is not None:
        z = cast(rows.logits, compute_dtype(rows.logits))
    else:
        assert rows.hidden is not None
        assert shared.kernel is not None
        axis, precision = settings.vocab_axis, settings.precision
        z = product(rows.hidden, shared.kernel, axis, precision)
    if shared.bias is not None:
        z = lax.add(z, over_rows(cast(shared.bias, z.dtype), settings.axis, z))
    return z


def with_logits(
    settings: Settings, rows: Rows, shared: Shared, *, bias: bool = True
) -> tuple[Rows, Shared]:
    """The pair with logits (…, classes) in place of hidden states and kernels.

    With `bias` these are added to the logits and leave the pair, else they stay in it.
    """
    unbiased = shared._replace(bias=None, target_bias=None)
    head, left = (shared, unbiased) if bias else (unbiased, shared)
    logits, target_logits = logits_of(settings, rows, head), None
    if has_target(rows):
        target_logits = logits_of(*of_target(settings, rows, head))
    rows = rows._replace(
        logits=logits, hidden=None, target_logits=target_logits, target_hidden=None
    )
    return rows, left._replace(kernel=None, target_kernel=None)


def inputs_of_block(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    ids: Maybe = None,
    computed: Maybe = None,
) -> Inputs:
    """The inputs of a block of classes, or of all: the one place that forms them.

    Plain JAX, which its own derivative follows. `ids` are (rows,), counted from the
    block's first class. `computed`, (rows,), is False for rows whose logits and labels
    may be anything: 0 takes their place before a function is applied whose derivative
    there could be infinite.
    """
    target_z = None
    computed_in = dtype_of(rows, shared)
    if has_target(rows):
        of_its_own = of_target(settings, rows, shared)
        target_z = effective_logits(*of_its_own, None, computed, computed_in)
    z = effective_logits(settings, rows, shared, ids, computed, computed_in)
    axis, dtype = settings.axis, z.dtype
    possible = possible_classes(rows, shared, axis, z)
    where_computed = None if computed is None else over_classes(computed, axis, z)
    if settings.several_labels:
        y = labels_of_block(settings, rows, shared, ids, z)
        return _both_sides(y, z, both(possible, where_computed))
    weights, target, even = shared.class_weights, None, None
    if has_distributions(settings, rows):
        assert rows.labels is not None
        target = cast(rows.labels, dtype)
        for mask in (where_computed, possible):
            target = target if mask is None else select(mask, target)
        if weights is not None:
            target = lax.mul(target, over_rows(weights, axis, z))
    if settings.even:
        if weights is None:
            even = lax.full_like(z, CLASS_SCALE, shape=(z.shape[axis],))
        else:
            even = lax.mul(lax.full_like(weights, CLASS_SCALE), weights)
        if possible is not None:
            even = select(possible, over_rows(even, axis, z))
    return Inputs(z=z, target=target, even=even, target_z=target_z)


def labels_of_block(
    settings: Settings, rows: Rows, shared: Shared, ids: Maybe, z: Array
) -> Array:
    """The labels of a block's classes, smoothed, of the shape of its logits `z`.

    `ids` (rows, places) are counted from the block's first class; None where `labels`
    has a number for every class.
    """
    if ids is None:
        assert rows.labels is not None
        y = cast(rows.labels, z.dtype)
    else:
        y = cast(of_places(rows.label_values, ids, settings.axis, z), z.dtype)
    smoothing = shared.label_smoothing
    if smoothing is None:
        return y
    return lax.add(times(1 - smoothing, y), lax.full_like(y, smoothing / 2))


def _both_sides(y: Array, z: Array, computed: Maybe) -> Inputs:
    """The two sides of several labels a row: z + log(1 − y), and log y − z as target_z.

    Both have the shape of z and y, and are −inf where 1 − y, or y, is 0, and where
    `computed`, of that shape too, is False.
    """

    def side(share: Array, z: Array) -> Array:
        some = both(computed, lax.ne(share, lax.full_like(share, 0)))
        assert some is not None
        return select(some, lax.add(z, lax.log(select(some, share, 1))), -jnp.inf)

    return Inputs(z=side(1 - y, z), target_z=side(y, lax.neg(z)))


def effective_logits(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    ids: Maybe,
    computed: Maybe,
    dtype: Any,
) -> Array:
    """Logits (…, classes, …) after the soft cap, the margin and the temperature.

    They are −inf where a class is impossible. `ids` (rows,) are the labels that the
    margin is subtracted from; `computed` (rows,) is that of `inputs_of_block`.
    """
    axis = settings.axis
    z = cast(logits_of(settings, rows, shared), dtype)
    where_computed = None
    if computed is not None:
        where_computed = over_classes(computed, axis, z)
    possible = possible_classes(rows, shared, axis, z)
    if shared.logit_soft_cap is not None or rows.temperature is not None:
        for mask in (where_computed, possible):
            z = z if mask is None else select(mask, z)
    if shared.logit_soft_cap is not None:
        z = soft_capped(z, shared.logit_soft_cap)
    if shared.margin is not None and ids is not None and settings.ids:
        margin = shared.margin
        margin = over_rows(margin, axis, z) if margin.ndim else jnp.full_like(z, margin)
        z = lax.select(is_label(ids, axis, z), lax.sub(z, margin), z)
    if rows.temperature is not None:
        temperature = rows.temperature
        if computed is not None:
            temperature = select(computed, temperature, 1)
        z = over_temperature(z, over_classes(temperature, axis, z))
    return z if possible is None else select(possible, z, -jnp.inf)


# With t = tanh(z/c), the derivatives of c t are 1 − t² in z and t − (1 − t²) z/c in c.
# Those at c = ∞, where z/c = 0 and t = 0, are the ones of z: 1 and 0. Written so, they
# need neither z itself beside z/c, nor a choice between the two forms of the value.
@jax.custom_jvp
def soft_capped(z: Float[Array, "..."], cap: Float[Array, ""]) -> Float[Array, "..."]:
    """c tanh(z/c), which for c = ∞ is z."""
    capped = lax.mul(lax.full_like(z, cap), lax.tanh(_ratio(z, cap)))
    finite = lax.full_like(z, lax.is_finite(cap), dtype=bool)
    return lax.select(finite, capped, z)


@functools.partial(soft_capped.defjvp, symbolic_zeros=True)
def _soft_capped_jvp(primals: Any, tangents: Any) -> Any:
    (z, cap), (dz, dcap) = primals, tangents
    ratio = _ratio(z, cap)
    t = lax.tanh(ratio)
    slope = lax.sub(lax.full_like(t, 1), lax.mul(t, t))
    terms = [lax.mul(slope, dz)] if is_moving(dz) else []
    if is_moving(dcap):
        terms.append((t - slope * ratio) * dcap)
    return soft_capped(z, cap), functools.reduce(lax.add, terms)


def _ratio(z: Array, cap: Array) -> Array:
    """z/c of z's shape, which is finite: where tanh is ±1 to the last bit, ±32 is as
    good. `cap` is a scalar."""
    large = lax.full_like(cap, jnp.finfo(z.dtype).max / 2**20)  # for c = ∞
    bound = lax.mul(lax.full_like(cap, 32), lax.abs(cap))
    bound = lax.stop_gradient(lax.min(bound, large))
    return lax.div(lax.clamp(lax.neg(bound), z, bound), lax.full_like(z, cap))


def over_temperature(z: Array, temperature: Array) -> Array:
    """z / temperature, both of the logits' shape; an infinite logit is not divided.

    The quotient would have an infinite derivative in the temperature, and 0 · ∞ is NaN;
    so is an infinite logit divided by an infinite temperature.
    """
    finite = lax.is_finite(z)
    return lax.select(finite, lax.div(select(finite, z), temperature), z)
