"""The statistics of logits in memory as one function with one derivative rule."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from .._reduction import finite_slope
from .in_memory import like_rows, one_pass, one_pass_gpu, two_pass
from .inputs import (
    NO_CLASS,
    Form,
    Inputs,
    along_classes,
    effective_logits,
    is_label,
    mass_weights,
    origin,
    rows_to_classes,
)
from .monoid import SoftmaxStatistics, Totals, merge_devices


def _live(maximum: Array, keep: Array | None) -> Array | None:
    """False where a row is dropped and cannot be computed; None if all are live."""
    return None if keep is None else keep | jnp.isfinite(maximum)


def _finish(inputs: Inputs, t: Totals) -> Totals:
    """Labels relative, and what a row without a finite maximum gets: NaN, or 0.

    `maximum` stays as it is: the derivative needs to know such rows.
    """
    finite = jnp.isfinite(t.maximum)
    nan = jnp.full_like(t.maximum, jnp.nan)
    zero = jnp.zeros_like(t.maximum)
    fill = nan
    if inputs.keep is not None:
        fill = jnp.where(inputs.keep, nan, zero)

    def where_finite(x: Array | None) -> Array | None:
        return None if x is None else jnp.where(finite, x, fill)

    label, label_weight = t.label, t.label_weight
    if label is not None:
        assert inputs.labels is not None
        nowhere = inputs.labels == NO_CLASS
        label = jnp.where(nowhere, nan, label - origin(t.maximum))
        label = jnp.where(finite, label, fill)
        if inputs.keep is not None:
            label = jnp.where(~inputs.keep & jnp.isnan(label), zero, label)
        if label_weight is not None:  # 1: a weight of 0 would hide the NaN
            label_weight = jnp.where(nowhere, zero + 1, label_weight)
    return t._replace(
        sum=jnp.where(finite, t.sum, fill if inputs.keep is None else fill + 1),
        label=label,
        label_weight=label_weight,
        weighted=where_finite(t.weighted),
        weight=None,
        expected=where_finite(t.expected),
    )


# The statistics are linear in e = exp(z − shift), and the shift is a constant:
#
#     d sum      = Σ e dz
#     d label    = dz_y
#     d weighted = Σ w dz + Σ dw (z − shift)
#     d expected = Σ e (1 + z − shift) dz
#
# JAX transposes this for reverse mode, into one elementwise pass over the logits:
#
#     dz = e (g_sum + g_expected (1 + z − shift)) + [c = y] g_label + w g_weighted
#
# and differentiates it again for higher orders. The maximum must not go through
# stop_gradient in it: jax 0.10 may differentiate the primal itself (see above), and
# then needs the maximum's own tangent there.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _totals(form: Form, inputs: Inputs) -> Totals:
    t = lax.platform_dependent(
        inputs,
        cpu=functools.partial(two_pass, form),
        cuda=functools.partial(one_pass_gpu, form),
        rocm=functools.partial(one_pass_gpu, form),
        default=functools.partial(one_pass, form),
    )
    if form.class_axis_name:
        classes = inputs.logits.shape[form.axis]
        t = merge_devices(t, inputs.labels, classes, form.class_axis_name)
    return _finish(inputs, t)


@functools.partial(_totals.defjvp, symbolic_zeros=True)
def _totals_jvp(form: Form, primals: Any, tangents: Any) -> Any:
    (inputs,) = primals
    (dots,) = tangents
    totals = _totals(form, inputs)
    moved = {
        name: dot
        for name, dot in zip(Inputs._fields, dots, strict=True)
        if dot is not None
        and not isinstance(dot, jax.custom_derivatives.SymbolicZero)
        and dot.dtype != jax.dtypes.float0
    }
    # The checkpoint makes the raw inputs the only residuals: without it a bfloat16 loss
    # would keep float32 arrays of the logits' shape from forward to backward.
    # prevent_cse=False lets XLA still share the exponentials of value and gradient.
    tangent = jax.checkpoint(functools.partial(_tangent, form), prevent_cse=False)
    sums = tangent(inputs, moved, totals.maximum, totals.label)
    zeros = Totals._make(None if x is None else _zero_tangent(x) for x in totals)
    sums = {n: like_rows(getattr(zeros, n), x) for n, x in sums.items()}
    return totals, zeros._replace(**sums)


def _zero_tangent(x: Array) -> Any:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)


def _tangent(
    form: Form,
    inputs: Inputs,
    moved: dict[str, Array],
    maximum: Array,
    label: Array | None,
) -> dict[str, Array]:
    axis = form.axis
    live = _live(maximum, inputs.keep)

    def at_live_rows(x: Array) -> Array:
        if live is None:
            return x
        return jnp.where(rows_to_classes(live, axis), x, jnp.zeros_like(x))

    if inputs.logit_soft_cap is not None or inputs.temperature is not None:
        # These have slopes of their own, which must not meet what a dropped row holds.
        inputs = inputs._replace(logits=at_live_rows(inputs.logits))
    through = [n for n in ("logits", "logit_soft_cap", "temperature") if n in moved]

    def effective(*values: Array) -> Array:
        return effective_logits(
            form, inputs._replace(**dict(zip(through, values, strict=True)))
        )

    sums: dict[str, Array] = {}
    rows = {n: getattr(inputs, n) for n in through}
    if through:
        z, dz = jax.jvp(
            effective, tuple(rows.values()), tuple(moved[n] for n in through)
        )
        dz = at_live_rows(dz)
    else:
        z, dz = effective(), None
    rel = z - rows_to_classes(origin(maximum), axis)
    if dz is not None:
        e = at_live_rows(jnp.exp(rel))
        # NaN in the whole row where its statistics are: e times it is NaN everywhere.
        good = jnp.isfinite(maximum) if live is None else jnp.isfinite(maximum) | ~live
        if label is not None:
            good &= ~jnp.isnan(label)
        poison = jnp.where(
            good, jnp.ones_like(maximum), jnp.full_like(maximum, jnp.nan)
        )
        sums["sum"] = poison * jnp.sum(e * dz, axis)
        if label is not None:
            assert inputs.labels is not None
            picked = is_label(form, inputs.labels, z.shape)
            sums["label"] = jnp.sum(jnp.where(picked, dz, jnp.zeros_like(dz)), axis)
        if form.weighted:
            sums["weighted"] = jnp.sum(mass_weights(form, inputs) * dz, axis)
        if form.expected:
            slope = jnp.where(e == 0, jnp.zeros_like(e), e * (1 + rel))
            sums["expected"] = poison * jnp.sum(slope * dz, axis)
    if form.weighted and ("distribution" in moved or "class_weights" in moved):
        dw = mass_weights(
            form,
            inputs._replace(
                distribution=moved.get("distribution"),
                class_weights=moved.get("class_weights"),
            ),
        )
        slope = at_live_rows(finite_slope(rel))
        step = jnp.sum(dw * slope, axis)
        sums["weighted"] = sums["weighted"] + step if "weighted" in sums else step
    if inputs.labels is not None and "class_weights" in moved:
        dw = along_classes(moved["class_weights"].astype(z.dtype), axis, z.ndim)
        pick = is_label(form, inputs.labels, z.shape).astype(z.dtype)
        sums["label_weight"] = jnp.sum(pick * dw, axis)
    if form.class_axis_name:
        sums = lax.psum(sums, form.class_axis_name)
    return sums


def in_memory(form: Form, inputs: Inputs) -> tuple[SoftmaxStatistics, Array | None]:
    """Statistics of logits in memory, and the class weight of each row's label."""
    t = _totals(form, inputs)
    label, mass, weighted = t.label, None, t.weighted
    if inputs.distribution is not None:
        label, weighted = t.weighted, None
        mass = jnp.sum(mass_weights(form, inputs), form.axis)
        if form.class_axis_name:
            mass = lax.psum(mass, form.class_axis_name)
    statistics = SoftmaxStatistics(
        shift=shift(inputs, t.maximum),
        log_sum=jnp.log(t.sum),
        label_logit=label,
        label_mass=mass,
        weighted_logit=weighted,
        expected_logit=None if t.expected is None else t.expected / t.sum,
        argmax=t.argmax,
    )
    return statistics, t.label_weight


def shift(inputs: Inputs, maximum: Array) -> Array:
    """The maximum; where it is not finite NaN, or 0 in a row that is dropped."""
    fill = jnp.full_like(maximum, jnp.nan)
    if inputs.keep is not None:
        fill = jnp.where(inputs.keep, fill, jnp.zeros_like(fill))
    return lax.stop_gradient(jnp.where(jnp.isfinite(maximum), maximum, fill))


def log_probabilities(
    form: Form, inputs: Inputs, statistics: SoftmaxStatistics
) -> Float[Array, "..."]:
    """log p of every class, for formulas that are not functions of the statistics."""
    if inputs.keep is not None:
        usable = rows_to_classes(inputs.keep, form.axis) | jnp.isfinite(inputs.logits)
        logits = jnp.where(usable, inputs.logits, jnp.zeros_like(inputs.logits))
        inputs = inputs._replace(logits=logits)
    z = effective_logits(form, inputs)
    rel = z - rows_to_classes(statistics.shift, form.axis)
    return rel - rows_to_classes(statistics.log_sum, form.axis)
