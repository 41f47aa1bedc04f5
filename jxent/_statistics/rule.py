"""The statistics of logits in memory as one function with one derivative rule."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._arrays import along_classes, masked, moves, rows_to_classes, spread
from .._reduction import finite_slope
from .in_memory import block, like_rows
from .inputs import (
    NO_CLASS,
    Form,
    Inputs,
    effective_logits,
    is_label,
    mass_weights,
    origin,
)
from .monoid import SoftmaxStatistics, Totals, merge_devices


def finish(inputs: Inputs, t: Totals) -> Totals:
    """Labels relative, and what a row that is not finite gets: NaN, or 0 if dropped."""
    # A NaN reaches the sum on every platform, the maximum not where it is merged over
    # devices.
    finite = jnp.isfinite(t.maximum) & ~jnp.isnan(t.sum)
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
        if label_weight is not None:  # a weight of 0 would hide the NaN
            label_weight = masked(label_weight, ~jnp.isnan(label), 1)
    return t._replace(
        sum=jnp.where(finite, t.sum, fill if inputs.keep is None else fill + 1),
        label=label,
        label_weight=label_weight,
        weighted=where_finite(t.weighted),
        weight=None,
        expected=where_finite(t.expected),
        finite=finite,
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
    t = block(form, inputs)
    if form.class_axis_name:
        classes = inputs.logits.shape[form.axis]
        t = merge_devices(t, classes, form.class_axis_name)
    return finish(inputs, t)


@functools.partial(_totals.defjvp, symbolic_zeros=True)
def _totals_jvp(form: Form, primals: Any, tangents: Any) -> Any:
    (inputs,) = primals
    (dots,) = tangents
    totals = _totals(form, inputs)
    moved = moving(dots)
    # The checkpoint makes the raw inputs the only residuals: without it a bfloat16 loss
    # would keep float32 arrays of the logits' shape from forward to backward.
    # prevent_cse=False lets XLA still share the exponentials of value and gradient.
    of_logits = jax.checkpoint(functools.partial(tangent, form), prevent_cse=False)
    sums = of_logits(inputs, moved, totals)
    if form.class_axis_name:
        sums = lax.psum(sums, form.class_axis_name)
    return totals, with_tangents(totals, sums)


def moving(dots: Any) -> dict[str, Array]:
    """The tangents in a NamedTuple that are not zero by their kind."""
    return {
        name: dot for name, dot in zip(dots._fields, dots, strict=True) if moves(dot)
    }


def with_tangents(totals: Totals, sums: dict[str, Array]) -> Totals:
    """The tangent of `totals`, 0 in every field that is not among `sums`."""
    zeros = jax.tree.map(jax.custom_derivatives.zero_from_primal, totals)
    sums = {n: like_rows(getattr(zeros, n), x) for n, x in sums.items()}
    return zeros._replace(**sums)


@jax.custom_jvp
def _exp_of_live(rel: Array, live: Array) -> Array:
    """exp(rel) in live rows, else 0 with derivatives of 0, whatever the row holds.

    The mask stands after the exponential, so that this is the exponential of the value
    and XLA computes both once. Its own derivative must not be that of such a select: a
    row that holds NaN would turn it into 0 · NaN.
    """
    return masked(jnp.exp(rel), live)


@_exp_of_live.defjvp
def _exp_of_live_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (rel, live), (drel, _) = primals, tangents
    e = _exp_of_live(rel, live)
    return e, e * masked(drel, live)


def tangent(
    form: Form,
    inputs: Inputs,
    moved: dict[str, Array],
    totals: Totals,
) -> dict[str, Array]:
    """The tangents of the totals, linear in those of the inputs that are `moved`."""
    axis, finite = form.axis, totals.finite
    assert finite is not None
    # Rows that are dropped and cannot be computed have no tangent at all.
    live = None if inputs.keep is None else inputs.keep | finite

    def at_live_rows(x: Array) -> Array:
        if live is None:
            return x
        return masked(x, rows_to_classes(live, axis))

    if inputs.logit_soft_cap is not None or inputs.temperature is not None:
        # These have slopes of their own, which must not meet what a dropped row holds.
        inputs = inputs._replace(logits=at_live_rows(inputs.logits))
    through = [n for n in ("logits", "logit_soft_cap", "temperature") if n in moved]

    def effective(*values: Array) -> Array:
        return effective_logits(
            form, inputs._replace(**dict(zip(through, values, strict=True)))
        )

    sums: dict[str, Array] = {}
    if through:
        points = tuple(getattr(inputs, n) for n in through)
        z, dz = jax.jvp(effective, points, tuple(moved[n] for n in through))
        dz = at_live_rows(dz)
    else:
        z, dz = effective(), None
    rel = z - rows_to_classes(origin(totals.maximum), axis)
    if dz is not None:
        e = jnp.exp(rel)
        if live is not None:
            e = _exp_of_live(rel, spread(rows_to_classes(live, axis), rel))
        # NaN in the whole row where its statistics are: e times it is NaN everywhere.
        good = finite if live is None else finite | ~live
        if totals.label is not None:
            good &= ~jnp.isnan(totals.label)
        poison = masked(jnp.ones_like(totals.sum), good, jnp.nan)
        sums["sum"] = poison * jnp.sum(e * dz, axis)
        if totals.label is not None:
            assert inputs.labels is not None
            picked = is_label(form, inputs.labels, z)
            sums["label"] = jnp.sum(masked(dz, picked), axis)
        if form.weighted:
            sums["weighted"] = jnp.sum(mass_weights(form, inputs) * dz, axis)
        if form.expected:
            slope = e * (1 + masked(rel, e != 0))
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
        pick = is_label(form, inputs.labels, z).astype(z.dtype)
        sums["label_weight"] = jnp.sum(pick * dw, axis)
    return sums


def in_memory(form: Form, inputs: Inputs) -> tuple[SoftmaxStatistics, Array | None]:
    """Statistics of logits in memory, and the class weight of each row's label."""
    t, mass = _totals(form, inputs), None
    if inputs.distribution is not None:
        mass = jnp.sum(mass_weights(form, inputs), form.axis)
        if form.class_axis_name:
            mass = lax.psum(mass, form.class_axis_name)
    return assemble(inputs.keep, t, mass), t.label_weight


def assemble(keep: Array | None, t: Totals, mass: Array | None) -> SoftmaxStatistics:
    """The public statistics; `mass` is a distribution's, which `weighted` is of."""
    label, weighted = (t.label, t.weighted) if mass is None else (t.weighted, None)
    return SoftmaxStatistics(
        shift=_shift(keep, t),
        log_sum=jnp.log(t.sum),
        label_logit=label,
        label_mass=mass,
        weighted_logit=weighted,
        expected_logit=None if t.expected is None else t.expected / t.sum,
        argmax=t.argmax,
    )


def _shift(keep: Array | None, t: Totals) -> Array:
    """The maximum; where the row is not finite NaN, or 0 if it is dropped."""
    assert t.finite is not None
    fill = jnp.full_like(t.maximum, jnp.nan)
    if keep is not None:
        fill = masked(fill, keep)
    return jnp.where(t.finite, t.maximum, fill)


def log_probabilities(
    form: Form, inputs: Inputs, statistics: SoftmaxStatistics
) -> Float[Array, "..."]:
    """log p of every class, for formulas that are not functions of the statistics."""
    if inputs.keep is not None:
        usable = rows_to_classes(inputs.keep, form.axis) | jnp.isfinite(inputs.logits)
        logits = masked(inputs.logits, usable)
        inputs = inputs._replace(logits=logits)
    z = effective_logits(form, inputs)
    rel = z - rows_to_classes(statistics.shift, form.axis)
    return rel - rows_to_classes(statistics.log_sum, form.axis)
