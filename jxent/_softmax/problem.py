"""From the arguments of the softmax family to a loss: what every member shares."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import _checks, _labels, _statistics
from .._arrays import masked, spread_rows
from .._checks import ArrayLike, Axis, AxisName
from .._reduction import combine, times
from .._statistics import CLASS_SCALE, Form, Inputs, SoftmaxStatistics
from .formulas import cross_entropy, row_losses


class Plan(NamedTuple):
    """What is known at trace time."""

    axis: int
    ids: bool
    class_axis_name: tuple[str, ...]
    formula: Callable[..., Array] | None = cross_entropy  # None: statistics alone
    reduction: str = "none"
    batch_axis_name: tuple[str, ...] = ()
    return_statistics: bool = False
    entropy: bool = False
    argmax: bool = False
    told: bool = False  # of bad labels, by whoever calls


class Arrays(NamedTuple):
    """What is not."""

    logits: Array | None  # None while they are not formed
    wanted: _labels.Wanted
    parameters: tuple[Array, ...] = ()  # of the formula
    z_loss: Array | None = None
    logit_soft_cap: Array | None = None
    temperature: Array | None = None
    normalizer: Array | None = None


def check(
    function: str,
    logits: ArrayLike | jax.ShapeDtypeStruct,
    labels: ArrayLike | None,
    axis: Axis,
    where: ArrayLike | None,
    *,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: Any = None,
    label_smoothing: Any = 0.0,
    z_loss: Any = 0.0,
    logit_soft_cap: Any = None,
    temperature: ArrayLike | None = None,
    reduction: str = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    ids_only: bool = False,
    labels_optional: bool = False,
    name: str = "logits",
    seen: tuple[Array, ...] | None = None,
    **plan: Any,
) -> tuple[Plan, Arrays]:
    """Every argument of the softmax family, checked and shaped.

    Of a fused head `logits` are their shape and dtype alone, and `seen` the arrays
    whose mesh counts.
    """
    x: Any = logits
    fused = seen is not None
    if seen is None:
        order = f"{name}, labels"
        x = _checks.floating(function, name, logits, beside=labels, order=order)
        seen = (x,)
    for setting in ("return_statistics", "entropy", "argmax"):
        if setting in plan:
            plan[setting] = _checks.flag(function, setting, plan[setting])
    weighted = plan.get("formula", cross_entropy) is not None
    front = _checks.class_axis(function, name, x, axis, weighted=weighted)
    y = None
    if labels is not None:
        y = _checks.label_array(function, "labels", labels)
    if y is None and not labels_optional:
        raise TypeError(f"{function}: expected labels, got None.")
    class_names = _checks.bound_axis_names(
        function, "class_axis_name", class_axis_name, *seen, y
    )
    batch_names = _checks.bound_axis_names(
        function, "batch_axis_name", batch_axis_name, *seen, y
    )
    if not class_names:
        _checks.several_classes(function, name, x, front)
    ids = y is not None and _checks.are_class_ids(
        function, name, x, y, front, ids_only=ids_only, axis_is_free=not fused
    )
    if isinstance(front, tuple):
        if y is not None and not ids:
            y = _checks.classes_last(y, front)
        if where is not None:
            where = _checks.boolean(function, "where", where)
            if where.ndim == x.ndim:
                where = _checks.classes_last(jnp.broadcast_to(where, x.shape), front)
        x = _checks.classes_last(x, front)
        front = x.ndim - 1
    rows, classes = _checks.row_shape(x.shape, front), (x.shape[front],)
    dtype = _checks.compute_dtype(x)
    row_where, class_where = _checks.row_or_class_mask(function, where, x.shape, front)

    if class_mask is not None:
        class_mask = _checks.boolean(function, "class_mask", class_mask)
        class_mask = _checks.per_class(function, "class_mask", class_mask, classes)
    if class_weights is not None:
        class_weights = _checks.real(
            function, "class_weights", class_weights, dtype, booleans=True
        )
        class_weights = _checks.per_class(
            function, "class_weights", class_weights, classes
        )
    if weights is not None:
        weights = _checks.real(function, "weights", weights, dtype, booleans=True)
        weights = _checks.per_row(function, "weights", weights, rows)
    if temperature is not None:
        _checks.in_range(function, "temperature", temperature, above=0)
        temperature = _checks.real(function, "temperature", temperature, dtype)
        temperature = _checks.per_row(function, "temperature", temperature, rows)
    number_or_off = functools.partial(_checks.number_or_off, function, dtype=dtype)
    _checks.reduction(function, reduction, normalizer)
    ignore = None
    if y is not None:
        ignore = _checks.ignorable(function, ignore_index, y, ids=ids)
    arrays = Arrays(
        None if isinstance(x, jax.ShapeDtypeStruct) else x,
        _labels.Wanted(
            y,
            row_where,
            class_where,
            class_mask,
            weights,
            class_weights,
            ignore,
            number_or_off("label_smoothing", label_smoothing, off=0, low=0, high=1),
        ),
        z_loss=number_or_off("z_loss", z_loss, off=0, low=0),
        logit_soft_cap=number_or_off(
            "logit_soft_cap", logit_soft_cap, off=math.inf, above=0
        ),
        temperature=temperature,
        normalizer=_checks.normalizer(function, normalizer, dtype),
    )
    settled = Plan(
        front,
        ids,
        class_names,
        reduction=reduction,
        batch_axis_name=batch_names,
        **plan,
    )
    return settled, arrays


def form_of(plan: Plan, a: Arrays) -> Form:
    """The statistics that the formula, or who asks for statistics, needs."""
    soft = a.wanted.labels is not None and not plan.ids
    smoothed = plan.formula is cross_entropy and a.wanted.label_smoothing is not None
    bare = plan.formula is None and a.wanted.class_weights is not None
    return Form(
        plan.axis,
        plan.class_axis_name,
        weighted=soft or smoothed or bare,
        expected=plan.entropy,
        argmax=plan.argmax,
    )


def _in_memory(plan: Plan, a: Arrays) -> tuple[_labels.Target, Form, Inputs]:
    z = a.logits
    assert z is not None
    target = _labels.target_in_memory(
        a.wanted, z, plan.axis, ids=plan.ids, class_axis_name=plan.class_axis_name
    )
    temperature = a.temperature
    if temperature is not None:
        rows = _checks.row_shape(z.shape, plan.axis)
        temperature = jnp.broadcast_to(temperature, rows)
        temperature = spread_rows(temperature, z, plan.axis)
    inputs = Inputs(
        z,
        labels=target.labels,
        class_weights=target.class_weights if target.distribution is None else None,
        distribution=target.distribution,
        mask=target.mask,
        keep=target.counted,
        logit_soft_cap=a.logit_soft_cap,
        temperature=temperature,
    )
    return target, form_of(plan, a), inputs


def reported(
    plan: Plan, a: Arrays, statistics: SoftmaxStatistics, classes: int
) -> SoftmaxStatistics:
    """The statistics; under checkify with an error that names a bad label."""
    label = statistics.label_logit
    if plan.told or not plan.ids or label is None:
        return statistics
    assert a.wanted.labels is not None
    bad = jnp.isnan(label) & jnp.isfinite(statistics.shift)
    if plan.class_axis_name:
        classes = classes * lax.axis_size(plan.class_axis_name)
    label = _labels.report_bad_labels(label, a.wanted.labels, bad, classes)
    return statistics._replace(label_logit=label)


def kept(statistics: SoftmaxStatistics, keep: Array | None) -> SoftmaxStatistics:
    """Statistics in which a dropped row is 0, and class weights have their own size."""
    weighted = statistics.weighted_logit
    if weighted is not None:
        statistics = statistics._replace(weighted_logit=weighted / CLASS_SCALE)
    if keep is None:
        return statistics
    return jax.tree.map(lambda x: masked(x, keep), statistics)


class Losses(NamedTuple):
    """Losses of rows, before weights and reduction, and what these need."""

    losses: Array
    class_factor: Array | None
    target: _labels.Target
    statistics: SoftmaxStatistics


def losses_of(
    plan: Plan,
    a: Arrays,
    target: _labels.Target,
    statistics: SoftmaxStatistics,
    label_weight: Array | None,
    log_probabilities: Callable[[], Array],
) -> Losses:
    """The rows' losses, class weights and z-loss included."""
    assert plan.formula is not None
    losses = row_losses(
        plan.formula,
        a.parameters,
        target,
        statistics,
        label_weight,
        log_probabilities,
        plan.axis,
        plan.class_axis_name,
    )
    class_factor = label_weight if plan.ids else target.mass
    if a.z_loss is not None:
        penalty = statistics.lse
        if target.counted is not None:  # a dropped row's square may overflow
            usable = target.counted | jnp.isfinite(jnp.square(penalty))
            penalty = masked(penalty, usable)
        penalty = jnp.square(penalty)
        if class_factor is not None:
            penalty = times(class_factor, penalty)
        losses = losses + a.z_loss * penalty
    return Losses(losses, class_factor, target, statistics)


def losses_in_memory(plan: Plan, a: Arrays) -> Losses:
    target, form, inputs = _in_memory(plan, a)
    statistics, label_weight = _statistics.in_memory(form, inputs)
    statistics = reported(plan, a, statistics, inputs.logits.shape[plan.axis])
    return losses_of(
        plan,
        a,
        target,
        statistics,
        label_weight,
        lambda: _statistics.log_probabilities(form, inputs, statistics),
    )


def reduced(plan: Plan, a: Arrays, of: Losses) -> Any:
    """The loss as it was asked for, with statistics where these were."""
    loss = combine(
        of.losses,
        keep=of.target.keep,
        weights=a.wanted.weights,
        class_factor=of.class_factor,
        reduction=plan.reduction,
        normalizer=a.normalizer,
        batch_axis_name=plan.batch_axis_name,
    )
    if plan.return_statistics:
        return loss, kept(of.statistics, of.target.keep)
    return loss


@functools.partial(jax.jit, static_argnums=0)
def loss_in_memory(plan: Plan, a: Arrays) -> Any:
    return reduced(plan, a, losses_in_memory(plan, a))


def statistics_in_memory(
    plan: Plan, a: Arrays
) -> tuple[_labels.Target, SoftmaxStatistics]:
    target, form, inputs = _in_memory(plan, a)
    statistics, _ = _statistics.in_memory(form, inputs)
    statistics = reported(plan, a, statistics, inputs.logits.shape[plan.axis])
    return target, statistics


@functools.partial(jax.jit, static_argnums=0)
def _kept_statistics(plan: Plan, a: Arrays) -> SoftmaxStatistics:
    target, statistics = statistics_in_memory(plan, a)
    return kept(statistics, target.keep)


def loss_of(
    function: str,
    formula: Callable[..., Array],
    parameters: dict[str, ArrayLike],
    options: dict[str, Any],
) -> Any:
    """The loss of a formula with its parameters; `options` are a caller's arguments."""
    options = {k: v for k, v in options.items() if k not in parameters}
    also = options["return_statistics"]
    plan, arrays = check(
        function, **options, formula=formula, entropy=also, argmax=also
    )
    assert arrays.logits is not None
    dtype = _checks.compute_dtype(arrays.logits)
    values = tuple(
        _checks.number(function, name, value, dtype)
        for name, value in parameters.items()
    )
    return loss_in_memory(plan, arrays._replace(parameters=values))


def statistics_of(
    function: str, options: dict[str, Any], **settings: Any
) -> SoftmaxStatistics:
    """The statistics alone."""
    plan, arrays = check(function, **options, **settings, formula=None)
    return _kept_statistics(plan, arrays)
