"""From the statistics of rows to their losses, in memory or streamed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import (
    cast,
    compute_dtype,
    count_over_devices,
    over_classes,
    over_places,
    over_rows,
    select,
    sum_over_devices,
)
from .._chunks import sum_along
from .._formulas import (
    SoftmaxStatistics,
    is_linear,
    log_above,
    reverse_of_id,
    symmetric,
)
from .._problem import (
    Maybe,
    Resolved,
    Rows,
    Settings,
    Shared,
    at_label,
    has_distributions,
    has_target,
    is_class,
    like_logits,
    local_ids,
    possible_classes,
    report_bad_labels,
)
from .._reduction import weighed
from .._statistics import (
    CLASS_SCALE,
    Inputs,
    Totals,
    computed_rows,
    filled,
    inputs_of_block,
)
from .._times import finite_slope, times
from .divergences import divergences_of
from .mesh import enter, on_one_device, row_spec, specs_of
from .several_labels import losses_of_several_labels
from .totals import totals


class Losses(NamedTuple):
    """Unreduced losses (rows,), with what the reduction needs."""

    losses: Array
    class_factor: Maybe  # what the classes multiply a row with; None for 1
    statistics: SoftmaxStatistics | None  # None where a row has no one softmax


def count_classes(settings: Settings, rows: Rows, shared: Shared) -> int:
    """The number of classes over all devices."""
    here = like_logits(settings, rows, shared).shape[settings.axis]
    return count_over_devices(here, settings.class_axis_name)


def reported(
    x: Array, settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """`x` unchanged; under checkify an error names a bad label."""
    if not settings.reports:
        return x
    if resolved.ids is None:
        return x
    labels = rows.labels if rows.label_ids is None else rows.label_ids
    assert labels is not None
    bad = lax.bitwise_not(is_class(resolved.ids))
    count = count_classes(settings, rows, shared)
    return report_bad_labels(x, labels, bad, count)


def statistics_of(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> tuple[SoftmaxStatistics, Totals, Maybe]:
    """The public statistics, smoothing left out, and the totals that they come from.

    With several ids a row also the mass of each, (rows, places).
    """
    t = totals(settings, rows, shared, resolved)
    label, mass, masses = t.target, t.mass, None
    weighted = expected = None
    if t.label is not None:
        t = t._replace(label=reported(t.label, settings, rows, shared, resolved))
        label = t.label
    if t.label is not None and rows.label_ids is not None and not settings.log_prob_at:
        masses = _of_known(label_masses(settings, rows, shared, resolved), t.label)
        assert masses is not None
        label, mass = _sum_of_places(times(masses, t.label)), _sum_of_places(masses)
    if t.even is not None and mass is None:
        weighted = lax.div(t.even, lax.full_like(t.even, CLASS_SCALE))
    if t.expected is not None:
        expected = lax.div(t.expected, t.sum)
    statistics = SoftmaxStatistics(
        shift=filled(t, t.maximum, resolved),
        log_sum=lax.log(t.sum),
        label_logit=label,
        label_mass=mass,
        weighted_logit=weighted,
        expected_logit=expected,
        argmax=t.argmax,
    )
    return statistics, t, masses


def _sum_of_places(x: Array) -> Array:
    """Sums (rows, places) to (rows,)."""
    return lax.reduce_sum(x, (x.ndim - 1,))


def _of_known(masses: Maybe, label: Array) -> Maybe:
    """The masses of labels, 1 where the label is NaN: a mass of 0 would hide that."""
    return None if masses is None else select(lax.eq(label, label), masses, 1)


def class_factor(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Maybe:
    """What the classes multiply a row with, (rows,); None for 1."""
    masses = label_masses(settings, rows, shared, resolved)
    if masses is None or rows.label_ids is None:
        return masses
    return _sum_of_places(masses)


def label_masses(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Maybe:
    """The class weight of a row's label, w_y; None for 1.

    v_k w_k (rows, places) for several ids with values v, Σ_c w_c t_c (rows,) for a
    distribution t.
    """
    none = rows.labels is None and rows.label_ids is None
    if (
        none
        or settings.several_labels
        or (settings.ids and shared.class_weights is None)
    ):
        return None

    def on_device(rows: Rows, shared: Shared, resolved: Resolved) -> Array:
        local = on_one_device(settings)
        like = like_logits(local, rows, shared)
        w, axis, names = shared.class_weights, local.axis, local.class_axis_name
        if settings.ids:
            assert w is not None
            assert resolved.ids is not None
            return at_label(local, w, resolved.ids, like)
        if rows.label_ids is not None:
            return _masses_of_places(local, rows, shared, resolved, like)
        assert rows.labels is not None
        t = rows.labels.astype(like.dtype)
        if resolved.keep is not None:
            t = select(over_classes(resolved.keep, axis, like), t)
        possible = possible_classes(rows, shared, axis, like)
        t = t if possible is None else select(possible, t)
        t = t if w is None else t * over_rows(w, axis, like)
        total = lax.reduce_sum(t, (axis,))
        return sum_over_devices(total, names)

    resolved = resolved._replace(classes=None)
    if rows.hidden is None:
        return on_device(rows, shared, resolved)
    spec = row_spec(settings.sharding)
    specs = (
        specs_of(settings, rows),
        specs_of(settings, shared),
        jax.tree.map(lambda _: spec, resolved),
    )
    return enter(settings.sharding, on_device, (rows, shared, resolved), specs, spec)


def _masses_of_places(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    like: Array | jax.ShapeDtypeStruct,
) -> Array:
    """v_k w_k (rows, places): values times class weights, each 1 if there are none.

    They are 0 in dropped rows and in places that are not scored. `like` has the shape
    of the logits.
    """
    ids, values = resolved.ids, rows.label_values
    assert ids is not None
    dtype = compute_dtype(like)
    masses = lax.full_like(ids, 1, dtype=dtype)
    if values is not None:
        masses = cast(values, dtype)
        if resolved.weighted is not None:  # what is not weighted may hold anything
            weighted = over_places(resolved.weighted, masses)
            masses = select(lax.bitwise_or(weighted, lax.is_finite(masses)), masses)
    if shared.class_weights is not None:
        masses = masses * at_label(settings, shared.class_weights, ids, like)
    for mask in (resolved.keep, resolved.scored):
        if mask is not None:
            masses = select(over_places(mask, masses), masses)
    return masses


def _log_p(statistics: SoftmaxStatistics) -> Array:
    """`log_prob`, but −0 where p is 1: a loss of −log p is 0 there, and not −0."""
    mass, log_sum = statistics.label_mass, statistics.log_sum
    assert statistics.label_logit is not None
    log_sum = log_sum if mass is None else times(mass, log_sum)
    return lax.neg(lax.sub(log_sum, statistics.label_logit))


def needs_every_log_p(settings: Settings, rows: Rows, shared: Shared) -> bool:
    """Whether the statistics of a row are not enough for its loss.

    So it is where a formula that is not linear in log p is summed over the classes,
    with the weights that smoothing or a distribution gives them.
    """
    formula = settings.formula
    if formula is None or settings.several_labels or is_linear(formula):
        return False
    return has_distributions(settings, rows) or shared.label_smoothing is not None


def losses_of(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Losses:
    """The losses (rows,), with class weights, smoothing and z-loss."""
    if has_target(rows):
        divergences = divergences_of(settings, rows, shared, resolved)
        return Losses(losses=divergences, class_factor=None, statistics=None)
    if settings.several_labels:
        losses = losses_of_several_labels(settings, rows, shared, resolved)
        losses = reported(losses, settings, rows, shared, resolved)
        return Losses(losses=losses, class_factor=None, statistics=None)
    statistics, t, masses = statistics_of(settings, rows, shared, resolved)
    function = settings.formula
    assert function is not None
    label, factor = statistics.label_logit, statistics.label_mass
    assert label is not None
    if settings.ids:
        factor = _of_known(class_factor(settings, rows, shared, resolved), label)

    def formula(log_p: Array) -> Array:
        return function(log_p, *shared.parameters)

    all_classes, distributions = None, has_distributions(settings, rows)
    if needs_every_log_p(settings, rows, shared):
        all_classes = _all_classes(settings, rows, shared, resolved, statistics, t)
    if masses is not None:
        assert t.label is not None
        log_p = lax.sub(t.label, over_places(statistics.log_sum, t.label))
        losses = _sum_of_places(times(masses, formula(log_p)))
    elif all_classes is None or not distributions:
        losses = formula(_log_p(statistics))
    else:
        inputs, over = all_classes
        losses = over(inputs.target, formula)
    if settings.ids and factor is not None:
        losses = times(factor, losses)
    if shared.label_smoothing is not None:
        if all_classes is not None:
            inputs, over = all_classes
            even = over(inputs.even, formula)
        else:
            assert t.even is not None
            assert t.even_mass is not None
            even = formula(t.even - times(t.even_mass, statistics.log_sum))
        share = smoothing_share(settings, rows, shared, resolved)
        # NaN, which a factor of 0 would hide
        bad = select(lax.ne(losses, losses), losses)
        losses = times(1 - shared.label_smoothing, losses)
        losses = lax.add(lax.add(losses, times(share, even)), bad)
    if settings.formula is symmetric:
        reverse = _reverse(settings, rows, shared, resolved, statistics, t)
        reverse = reverse if factor is None else times(factor, reverse)
        losses = lax.add(losses, times(shared.parameters[1], reverse))
    if shared.z_loss is not None:
        losses = losses + shared.z_loss * lse_squared(statistics, resolved, factor)
    return Losses(losses=losses, class_factor=factor, statistics=statistics)


def smoothing_share(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    *,
    scale: float = CLASS_SCALE,
) -> Array:
    """ε/K, divided by `scale`: what smoothing gives each of the K possible classes.

    A scalar, or (rows,) where the number of possible classes differs between rows.
    """
    smoothing = shared.label_smoothing
    assert smoothing is not None
    count = resolved.classes
    if count is None:
        return smoothing / (scale * count_classes(settings, rows, shared))
    count = lax.max(count, lax.full_like(count, 1)).astype(smoothing.dtype)
    return smoothing / (scale * count)


def lse_squared(
    statistics: SoftmaxStatistics, resolved: Resolved, factor: Maybe
) -> Array:
    """lse² (rows,), times `factor` (rows,) if there is one.

    It is 0 in a row that is not weighted and whose lse² is not finite.
    """
    lse = statistics.lse
    if resolved.weighted is not None:  # the square of another row may overflow
        lse = select(resolved.weighted | lax.is_finite(lax.square(lse)), lse)
    square = lax.mul(lse, lse)  # 2 lse, in the slope of lax.square, may overflow
    return square if factor is None else times(factor, square)


def _all_classes(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    statistics: SoftmaxStatistics,
    t: Totals,
) -> tuple[Inputs, Callable[..., Array]]:
    """The logits' inputs, read once more, and (q, f) → Σ_c q_c f(log p_c), (rows,).

    q is (classes,) or has the logits' shape (…, classes, …); f acts element by element.
    """
    assert rows.logits is not None
    axis, names = settings.axis, settings.class_axis_name
    ids = resolved.ids if settings.ids else None
    if ids is not None:
        ids = local_ids(settings, ids, rows.logits.shape[axis])
    computed = computed_rows(resolved, t)
    with_even = settings._replace(even=shared.label_smoothing is not None)
    inputs = inputs_of_block(with_even, rows, shared, ids, computed)
    z = inputs.z
    log_p = z - over_classes(statistics.shift, axis, z)
    log_p = log_p - over_classes(statistics.log_sum, axis, z)
    if computed is not None:
        log_p = select(over_classes(computed, axis, z), log_p)

    def over(q: Maybe, formula: Callable[[Array], Array]) -> Array:
        assert q is not None
        q = over_rows(q, axis, z) if q.ndim == 1 else q
        safe = lax.select(q == 0, finite_slope(log_p), log_p)
        total = sum_along(times(q, formula(safe)), axis)
        return sum_over_devices(total, names)

    return inputs, over


def _reverse(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    resolved: Resolved,
    statistics: SoftmaxStatistics,
    t: Totals,
) -> Array:
    """−Σ_c p_c max(log q_c, A) of the smoothed labels q, (rows,)."""
    log_zero = shared.parameters[-1]
    kept, share = lax.full_like(log_zero, 1), lax.full_like(statistics.log_sum, 0)
    if shared.label_smoothing is not None:
        kept = 1 - shared.label_smoothing
        share += smoothing_share(settings, rows, shared, resolved, scale=1.0)
    if settings.ids:
        own, other = log_above(kept + share, log_zero), log_above(share, log_zero)
        return reverse_of_id(statistics.log_prob, own, other)
    unweighted = shared._replace(class_weights=None)
    if rows.label_ids is None:
        inputs, over = _all_classes(settings, rows, unweighted, resolved, statistics, t)
        assert inputs.target is not None
        q = times(kept, inputs.target) + over_classes(share, settings.axis, inputs.z)
        return over(log_above(q, log_zero), lambda log_p: -lax.exp(log_p))
    assert t.label is not None
    masses, places = _of_equal_ids(settings, rows, unweighted, resolved)
    shares, log_sum = (over_places(x, masses) for x in (share, statistics.log_sum))
    own, other = times(kept, masses) + shares, log_above(share, log_zero)
    gain = log_above(own, log_zero) - over_places(other, masses)
    return -other - _sum_of_places(gain * lax.exp(t.label - log_sum) / places)


def _of_equal_ids(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> tuple[Array, Array]:
    """Two arrays (rows, places): the total mass of the place's class over all places of
    the row, and how many places of the row have that class."""
    masses, ids = label_masses(settings, rows, shared, resolved), resolved.ids
    assert masses is not None
    assert ids is not None
    same = ids[..., None] == ids[..., None, :]
    total = jnp.sum(jnp.where(same, masses[..., None, :], 0), -1)
    return total, jnp.sum(same, -1, dtype=masses.dtype)


def total_of(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> Array:
    """Σ r · loss over the rows of this device, a scalar."""
    losses = losses_of(settings, rows, shared, resolved).losses
    return jnp.sum(weighed(losses, resolved.keep, rows.weights))
