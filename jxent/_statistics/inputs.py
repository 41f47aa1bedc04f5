"""What row statistics are functions of: logits, labels, weights and masks."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from .._arrays import along_classes, masked, moves, rows_to_classes, spread
from .._checks import compute_dtype


# An id that names no class. It matches none on any shard, and its label statistic and
# the derivatives of that are NaN.
NO_CLASS = -(2**31)

# Class weights enter Σ_c w_c (z_c − shift) times this power of 2, which rounds nothing:
# smoothing wants the mean over the classes, which may be finite where the sum is not.
CLASS_SCALE = 2.0**-32


class Form(NamedTuple):
    """Which statistics are wanted, and along which axis: static under jit."""

    axis: int
    class_axis_name: tuple[str, ...] = ()  # bound mesh axes that split the classes
    weighted: bool = False
    expected: bool = False
    argmax: bool = False


class Inputs(NamedTuple):
    """The arrays that row statistics are functions of."""

    logits: Float[Array, "..."]
    labels: Integer[Array, "..."] | None = None  # int32 global class ids, or NO_CLASS
    class_weights: Float[Array, " classes"] | None = None
    distribution: Float[Array, "..."] | None = None  # in place of both
    mask: Bool[Array, "..."] | None = None  # logits' rank; False: impossible class
    keep: Bool[Array, "..."] | None = None  # False: the row counts for nothing
    logit_soft_cap: Float[Array, ""] | None = None
    temperature: Float[Array, "..."] | None = None  # the rows' rank


def effective_logits(form: Form, inputs: Inputs) -> Float[Array, "..."]:
    """The logits after cast, soft cap, temperature and mask, in this order."""
    z = inputs.logits.astype(compute_dtype(inputs.logits))
    if inputs.mask is not None:  # here for the slopes of what follows
        z = masked(z, inputs.mask)
    if inputs.logit_soft_cap is not None:
        z = soft_capped(z, inputs.logit_soft_cap)
    if inputs.temperature is not None:
        # An infinite logit stays what it is, whatever the temperature: its own slope
        # in the temperature would be infinite and turn 0 · ∞ into NaN, as would its
        # quotient by an infinite temperature.
        temperature = rows_to_classes(inputs.temperature, form.axis)
        finite = jnp.isfinite(z)
        sign = jnp.sign(lax.stop_gradient(temperature))
        z = jnp.where(finite, masked(z, finite) / temperature, z * sign)
    if inputs.mask is not None:
        z = masked(z, inputs.mask, -jnp.inf)
    return z


# With t = tanh(z/c), the derivatives of c t are 1 − t² in z and t − (1 − t²) z/c in c.
# Those at c = ∞, where z/c = 0 and t = 0, are the ones of z: 1 and 0. Written so, they
# need neither z itself beside z/c, nor a choice between the two forms of the value.
@jax.custom_jvp
def soft_capped(z: Float[Array, "..."], cap: Float[Array, ""]) -> Float[Array, "..."]:
    """c tanh(z/c), which for c = ∞ is z."""
    return lax.select(jnp.isinf(cap), z, cap * lax.tanh(_ratio(z, cap)))


@functools.partial(soft_capped.defjvp, symbolic_zeros=True)
def _soft_capped_jvp(primals: Any, tangents: Any) -> Any:
    (z, cap), (dz, dcap) = primals, tangents
    ratio = _ratio(z, cap)
    t = lax.tanh(ratio)
    slope = 1 - t * t
    terms = [slope * dz] if moves(dz) else []
    if moves(dcap):
        terms.append((t - slope * ratio) * dcap)
    return soft_capped(z, cap), sum(terms[1:], terms[0])


def _ratio(z: Array, cap: Array) -> Array:
    """z/c, which is finite: where tanh is ±1 to the last bit, ±32 is as good."""
    large = jnp.asarray(jnp.finfo(z.dtype).max / 2**20, z.dtype)  # for c = ∞
    bound = lax.stop_gradient(lax.min(32 * lax.abs(cap), large))
    return lax.clamp(-bound, z, bound) / cap


def mass_weights(form: Form, inputs: Inputs) -> Array:
    """What `weighted` is taken with, broadcast against the logits; 0 where masked.

    A distribution as it is, class weights times CLASS_SCALE.
    """
    ndim = inputs.logits.ndim
    dtype = compute_dtype(inputs.logits)
    if inputs.distribution is not None:
        w = inputs.distribution.astype(dtype)
    elif inputs.class_weights is not None:
        w = CLASS_SCALE * inputs.class_weights.astype(dtype)
        w = along_classes(w, form.axis, ndim)
    else:
        w = jnp.full((1,) * ndim, CLASS_SCALE, dtype)
    w = spread(w, inputs.logits)
    if inputs.mask is not None:
        w = masked(w, inputs.mask)
    return w


def origin(maximum: Array) -> Array:
    return masked(maximum, jnp.isfinite(maximum))


def local_labels(form: Form, labels: Array, classes: int) -> Array:
    """Class ids as this shard counts them; out of range where another holds them."""
    if not form.class_axis_name:
        return labels
    offset = lax.axis_index(form.class_axis_name) * classes
    return jnp.where(labels == NO_CLASS, labels, labels - offset)


def is_label(form: Form, labels: Array, z: Array) -> Array:
    """Compares every class with the row's label: a one-hot that is never stored."""
    classes = z.shape[form.axis]
    local = rows_to_classes(local_labels(form, labels, classes), form.axis)
    ids = along_classes(lax.iota(jnp.int32, classes), form.axis, z.ndim)
    return spread(ids == local, z)
