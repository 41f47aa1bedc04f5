"""From the arguments of the softmax family to a loss: what every member shares."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer

from .. import _checks, _labels, _statistics
from .._arrays import masked, spread_rows
from .._checks import ArrayLike, Axis, AxisName
from .._reduction import combine, times
from .._statistics import Form, Inputs, SoftmaxStatistics
from .formulas import cross_entropy, row_losses


class Plan(NamedTuple):
    """What is known at trace time."""

    axis: int
    ids: bool
    class_axis_name: tuple[str, ...]
    formula: Callable[..., Array] = cross_entropy
    reduction: str = "none"
    batch_axis_name: tuple[str, ...] = ()
    return_statistics: bool = False
    entropy: bool = False
    argmax: bool = False
    traced: bool = False  # then a checkify may be around us


class Arrays(NamedTuple):
    """What is not."""

    logits: Array
    wanted: _labels.Wanted
    parameters: tuple[Array, ...] = ()  # of the formula
    z_loss: Array | None = None
    logit_soft_cap: Array | None = None
    temperature: Array | None = None
    normalizer: Array | None = None


def check(
    function: str,
    logits: ArrayLike,
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
    **plan: Any,
) -> tuple[Plan, Arrays]:
    """Every argument of the softmax family, checked and shaped."""
    x = _checks.floating(function, name, logits)
    front = _checks.class_axis(function, name, x, axis)
    y = None if labels is None else _checks.array(labels)
    if y is None and not labels_optional:
        raise TypeError(f"{function}: expected labels, got None.")
    class_names = _checks.bound_axis_names(
        function, "class_axis_name", class_axis_name, x, y
    )
    batch_names = _checks.bound_axis_names(
        function, "batch_axis_name", batch_axis_name, x, y
    )
    if not class_names:
        _checks.several_classes(function, name, x, front)
    ids = y is not None and _checks.are_class_ids(
        function, name, x, y, front, ids_only=ids_only
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

    def floats(value: ArrayLike) -> Array:
        return _checks.array(value).astype(dtype)

    if class_mask is not None:
        class_mask = _checks.boolean(function, "class_mask", class_mask)
        class_mask = _checks.per_class(function, "class_mask", class_mask, classes)
    if class_weights is not None:
        class_weights = floats(class_weights)
        class_weights = _checks.per_class(
            function, "class_weights", class_weights, classes
        )
    if weights is not None:
        weights = floats(weights)
        weights = _checks.per_row(function, "weights", weights, rows)
    if temperature is not None:
        _checks.number(function, "temperature", temperature, above=0)
        temperature = floats(temperature)
        temperature = _checks.per_row(function, "temperature", temperature, rows)
    if logit_soft_cap is not None:
        _checks.number(function, "logit_soft_cap", logit_soft_cap, above=0)
        logit_soft_cap = floats(logit_soft_cap)
        _checks.scalar(function, "logit_soft_cap", logit_soft_cap)
    _checks.number(function, "label_smoothing", label_smoothing, low=0, high=1)
    _checks.number(function, "z_loss", z_loss, low=0)
    _checks.reduction(function, reduction, normalizer)
    ignore = None
    if y is not None:
        ignore = _checks.ignorable(function, ignore_index, y, ids=ids)
    arrays = Arrays(
        x,
        _labels.Wanted(
            y,
            row_where,
            class_where,
            class_mask,
            weights,
            class_weights,
            ignore,
            _checks.off_or_scalar(function, "label_smoothing", label_smoothing, dtype),
        ),
        z_loss=_checks.off_or_scalar(function, "z_loss", z_loss, dtype),
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        normalizer=_checks.normalizer(function, normalizer, dtype),
    )
    settled = Plan(
        front,
        ids,
        class_names,
        reduction=reduction,
        batch_axis_name=batch_names,
        traced=isinstance(x, Tracer) or isinstance(y, Tracer),
        **plan,
    )
    return settled, arrays


def _inputs(plan: Plan, a: Arrays) -> tuple[_labels.Target, Form, Inputs]:
    target = _labels.target(
        a.wanted,
        a.logits,
        plan.axis,
        ids=plan.ids,
        class_axis_name=plan.class_axis_name,
    )
    smoothed_ids = plan.ids and target.smoothing is not None
    form = Form(
        plan.axis,
        plan.class_axis_name,
        weighted=target.distribution is not None
        or (smoothed_ids and plan.formula is cross_entropy),
        expected=plan.entropy,
        argmax=plan.argmax,
    )
    temperature = a.temperature
    if temperature is not None:
        rows = _checks.row_shape(a.logits.shape, plan.axis)
        temperature = jnp.broadcast_to(temperature, rows)
        temperature = spread_rows(temperature, a.logits, plan.axis)
    inputs = Inputs(
        a.logits,
        labels=target.labels,
        class_weights=target.class_weights if plan.ids else None,
        distribution=target.distribution,
        mask=target.mask,
        keep=target.counted,
        logit_soft_cap=a.logit_soft_cap,
        temperature=temperature,
    )
    return target, form, inputs


def _report(
    plan: Plan, a: Arrays, inputs: Inputs, statistics: SoftmaxStatistics
) -> None:
    label = statistics.label_logit
    if (
        not plan.traced
        or inputs.labels is None
        or a.wanted.labels is None
        or label is None
    ):
        return
    bad = jnp.isnan(label) & jnp.isfinite(statistics.shift)
    classes = a.logits.shape[plan.axis]
    if plan.class_axis_name:
        classes = classes * lax.axis_size(plan.class_axis_name)
    _labels.report_bad_labels(a.wanted.labels, bad, classes)


def _kept(statistics: SoftmaxStatistics, keep: Array | None) -> SoftmaxStatistics:
    """Statistics in which a dropped row is 0."""
    if keep is None:
        return statistics
    return jax.tree.map(lambda x: masked(x, keep), statistics)


@functools.partial(jax.jit, static_argnums=0)
def _loss(plan: Plan, a: Arrays) -> Any:
    target, form, inputs = _inputs(plan, a)
    statistics, label_weight = _statistics.in_memory(form, inputs)
    _report(plan, a, inputs, statistics)
    losses = row_losses(
        plan.formula,
        a.parameters,
        target,
        statistics,
        label_weight,
        lambda: _statistics.log_probabilities(form, inputs, statistics),
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
    loss = combine(
        losses,
        keep=target.keep,
        weights=a.wanted.weights,
        class_factor=class_factor,
        reduction=plan.reduction,
        normalizer=a.normalizer,
        batch_axis_name=plan.batch_axis_name,
    )
    if plan.return_statistics:
        return loss, _kept(statistics, target.keep)
    return loss


@functools.partial(jax.jit, static_argnums=0)
def _statistics_of(plan: Plan, a: Arrays) -> SoftmaxStatistics:
    target, form, inputs = _inputs(plan, a)
    if target.class_weights is not None and target.distribution is None:
        form = form._replace(weighted=True)
    statistics, _ = _statistics.in_memory(form, inputs)
    _report(plan, a, inputs, statistics)
    return _kept(statistics, target.keep)


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
    dtype = _checks.compute_dtype(arrays.logits)
    values = tuple(
        _checks.scalar(function, name, _checks.array(value).astype(dtype))
        for name, value in parameters.items()
    )
    return _loss(plan, arrays._replace(parameters=values))


def statistics_of(
    function: str, options: dict[str, Any], **settings: Any
) -> SoftmaxStatistics:
    """The statistics alone."""
    return _statistics_of(*check(function, **options, **settings))
