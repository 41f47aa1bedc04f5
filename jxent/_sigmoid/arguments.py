"""Arguments of the binary losses: checks, shapes, and the way to the reduced losses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import _checks
from .._arrays import broadcast_like, compute_dtype, select
from .._checks import ArrayLike, Number
from .._compute.elements import element_by_element
from .._compute.slopes import tangent_apart
from .._compute.times import times
from .._formulas import checks_of_parameters
from .._linear_logits import LinearLogits
from .._problem.bad_labels import report_bad_labels
from .._problem.ids import equal
from .._problem.resolved import both
from .._reduction import combine
from .._solve.call import Formula, RowOptions, Scores
from .._solve.solve import solution
from .._targets.given import BinaryAnswers
from .sides import Exponent, exponent


class BinaryOperands(NamedTuple):
    """Logits or probabilities of any shape, and what broadcasts to it."""

    x: Array  # logits, or probabilities
    labels: Array
    label_smoothing: Array | None
    class_weights: Array | None
    pos_weight: Array | None
    where: Array | None
    weights: Array | None
    normalizer: Array | None
    ignore_index: Array | None = None
    parameters: tuple[Array | Exponent | None, ...] = ()


class BinarySettings(NamedTuple):
    """Static options of one call: hashable, part of the jit cache's key."""

    formula: Callable[..., Array]
    of_probabilities: bool
    reduction: str
    batch_axis_name: tuple[str, ...]


def check(
    function: str,
    name: str,
    x: ArrayLike,
    label: BinaryAnswers,
    rows: RowOptions,
    formula: Callable[..., Array],
) -> tuple[BinarySettings, BinaryOperands]:
    """Every argument of the binary family, checked and shaped."""
    order = f"{name}, labels"
    x = _checks.floating(function, name, x, beside=label.labels, order=order)
    y = _checks.label_array(function, "labels", label.labels)
    if y.ndim:
        _checks.same_shape(function, name, x, y)
    dtype = compute_dtype(x)

    classes = x.shape[-1] if x.ndim else None
    where = _checks.mask_of_rows(function, rows.where, x.shape)
    weights = _checks.weights_of_rows(
        function, rows.weights, x.shape, dtype, classes=classes
    )
    class_weights, pos_weight = label.class_weights, label.pos_weight
    if class_weights is not None:
        class_weights = _checks.real(
            function, "class_weights", class_weights, dtype, booleans=True
        )
        _checks.per_class(function, "class_weights", class_weights, x.shape[-1:])
    if pos_weight is not None:
        pos_weight = from_the_right(function, "pos_weight", pos_weight, x)
    _checks.reduction(function, rows.reduction, rows.normalizer)
    names = _checks.bound_axis_names(
        function, "batch_axis_name", rows.batch_axis_name, x, y
    )
    share, limits = label.label_smoothing, {"off": 0, "low": 0, "high": 1}
    operands = BinaryOperands(
        x=x,
        labels=y,
        label_smoothing=_checks.number_or_off(
            function, "label_smoothing", share, dtype, **limits
        ),
        class_weights=class_weights,
        pos_weight=pos_weight,
        where=where,
        weights=weights,
        normalizer=_checks.normalizer(function, rows.normalizer, dtype),
        ignore_index=_checks.ignorable_binary(function, label.ignore_index, y),
    )
    return BinarySettings(
        formula=formula,
        of_probabilities=name == "probs",
        reduction=rows.reduction,
        batch_axis_name=names,
    ), operands


def from_the_right(function: str, name: str, value: ArrayLike, x: Array) -> Array:
    """One for each class of the last axis, one number, or of the logits' rank."""
    value = _checks.real(function, name, value, compute_dtype(x))
    fits = value.ndim <= x.ndim and all(
        a in (1, b)
        for a, b in zip(value.shape, x.shape[x.ndim - value.ndim :], strict=True)
    )
    if not fits:
        hint = f"Any shape that broadcasts to {x.shape} will do."
        if value.shape == x.shape[: value.ndim]:
            hint = _checks.missing_axes(name, value.shape, x.shape)
        raise ValueError(
            f"{function}: expected {name} to be a number, or of shape {x.shape[-1:]}, "
            f"one for each class of the last axis, got {value.shape}. {hint}"
        )
    return value.reshape((1,) * (x.ndim - value.ndim) + value.shape)


def sigmoid_loss(
    function: str,
    logits: Scores,
    label: BinaryAnswers,
    rows: RowOptions,
    *,
    formula: Formula,
    of_elements: Callable[..., Array] | None = None,
) -> Array:
    """The losses of the elements, or with an axis of classes those of the rows.

    `of_elements` takes the place of the formula's function where that is faster: for
    elements alone, since blocks of classes would keep more arrays with it.
    """
    if not isinstance(logits.axis, tuple) or logits.axis:
        return solution(function, logits, label, rows, formula=formula)
    x = logits.logits
    _checks.without_classes(function, logits.of_classes(), x, label.labels)
    assert not isinstance(x, LinearLogits)
    function_of_elements = of_elements or formula.function
    settings, operands = check(function, "logits", x, label, rows, function_of_elements)
    checks = checks_of_parameters(formula.function)
    values = tuple(
        _parameter(function, name, value, checks[name], operands.x)
        for name, value in formula.parameters.items()
    )
    return loss(settings, operands._replace(parameters=values))


def _parameter(
    function: str, name: str, value: ArrayLike, check: Number, x: Array
) -> Any:
    if name == "alpha":
        _checks.in_range(function, name, value, low=check.low, high=check.high)
        return from_the_right(function, name, value, x)
    number = _checks.declared_number(function, name, value, check, compute_dtype(x))
    return exponent(value, number) if name.startswith("gamma") else number


@functools.partial(jax.jit, static_argnums=0)
def loss(settings: BinarySettings, a: BinaryOperands) -> Array:
    of_operands = functools.partial(_loss, settings)
    if settings.batch_axis_name:
        return of_operands(a)
    shape = a.x.shape if settings.reduction == "none" else ()
    return element_by_element(of_operands, a, shape=shape)


def _loss(settings: BinarySettings, a: BinaryOperands) -> Array:
    dtype = compute_dtype(a.x)
    x = a.x.astype(dtype)
    labels, keep, bad = broadcast_like(a.labels, x), a.where, None
    y = labels.astype(dtype)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        bad = (labels != 0) & (labels != 1)
        y = select(~bad, y, jnp.nan)
    if a.ignore_index is not None:
        keep = both(keep, ~equal(labels, a.ignore_index))
    usable, possible, of_element = keep, None, (a.pos_weight, *a.parameters)
    if a.weights is not None:
        # Dropped too, but computed where it can be: under a weight of 0 the loss is the
        # derivative in that weight.
        possible = (y >= 0) & (y <= 1) & ~jnp.isnan(x)
        if settings.of_probabilities:
            possible &= (x > 0) & (x < 1)
        possible |= a.weights != 0
        usable = possible if keep is None else keep & possible
    if usable is not None:
        x = select(usable, x, 0.5)
        y = select(usable, y, 0.5)
        of_element = tuple(_of_usable(usable, option, x) for option in of_element)
    if a.label_smoothing is not None:
        y = (1 - a.label_smoothing) * y + a.label_smoothing / 2
    losses = _of_elements(settings.formula, x, y, *of_element)
    if possible is not None:
        losses = select(possible, losses)
    if bad is not None:
        counts = both(keep, None if a.weights is None else a.weights != 0)
        bad = bad if counts is None else bad & counts
        losses = report_bad_labels(losses, labels, bad, 2)
    factor = None
    if a.class_weights is not None:
        factor = lax.expand_dims(a.class_weights, tuple(range(x.ndim - 1)))
        factor = factor if usable is None else _of_usable(usable, factor, x)
        losses = times(factor, losses)
    return combine(
        losses,
        keep=keep,
        weights=a.weights,
        class_factor=factor,
        reduction=settings.reduction,
        normalizer=a.normalizer,
        batch_axis_name=settings.batch_axis_name,
    )


def _of_usable(usable: Array, option: Any, like: Array) -> Any:
    """An option of the classes, 1 in elements that are dropped: it may be NaN there."""
    if not isinstance(option, Array) or option.size == 1:
        return option
    return select(usable, broadcast_like(option, like), 1)


# On a GPU XLA stores up to eight arrays of the logits' size between value and
# derivative; two passes over logits and labels read and write less.
@tangent_apart("gpu", static=1)
def _of_elements(formula: Callable[..., Array], *arguments: Any) -> Array:
    return formula(*arguments)
