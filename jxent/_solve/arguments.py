"""From arguments to a checked problem: static settings, and the pair of bundles."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import Shape, Shaped, count_over_devices, row_shape
from .._checks import ArrayLike, Axis, AxisName
from .._formulas import OfTwo
from .._linear_logits import LinearLogits, Logits, checked_head
from .._problem.bundles import replace_fields
from .._problem.problem import CHECKS, Head, Problem, RowLogits, Rows, Settings, Shared
from .._targets.given import Given
from .._targets.target import Like
from .results import Loss, LossAndStatistics, Result


class Formula(NamedTuple):
    """A formula with its parameters, as they are passed by name."""

    function: Callable[..., Array] | OfTwo
    parameters: dict[str, ArrayLike]


def checked_problem(
    function: str,
    logits: Logits,
    given: Given,
    axis: Axis,
    where: ArrayLike | None,
    *,
    name: str = "logits",
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    **options: Any,
) -> Problem:
    """The problem of logits (or probabilities), in memory or given as LinearLogits."""
    order = f"{name}, labels"
    operands = [_operand(function, name, logits, beside=given.labels, order=order)]
    if given.second_logits is not None:
        operands.append(_operand(function, "target_logits", given.second_logits))
        x, second = operands
        _checks.compared(function, x.shape, second.shape, _hint_of_heads(x, second))
    x, linear = operands[0], any(isinstance(y, LinearLogits) for y in operands)
    like_x = x if isinstance(x, Array) else jax.ShapeDtypeStruct(x.shape, x.dtype)
    weighted = options.get("formula") is not None or name == "probs"
    front = _checks.class_axis(function, name, like_x, axis, weighted=weighted)
    if linear:
        front = _last_axis(function, like_x, axis, front)
    like = Like(name=name, x=like_x, axis=front, axis_is_free=not linear)
    target = given.target(function, like)
    arrays = jax.tree.leaves((operands, target))
    class_names, batch_names = (
        _checks.bound_axis_names(function, argument, names, *arrays)
        for argument, names in (
            ("class_axis_name", class_axis_name),
            ("batch_axis_name", batch_axis_name),
        )
    )
    if given.one_softmax and not class_names:
        _checks.several_classes(function, name, like_x, front)
    if isinstance(front, tuple):
        if where is not None:
            where = _checks.boolean(function, "where", where)
            if where.ndim == like_x.ndim:
                where = jnp.broadcast_to(where, like_x.shape)
                where = _checks.classes_last(where, front)
        operands = [like.classes_last(y) for y in operands if isinstance(y, Array)]
    parts = [_of_rows_and_shared(y) for y in operands]
    rows = Rows(logits=tuple(of_rows for of_rows, _ in parts), target=target)
    shared = Shared(heads=tuple(head for _, head in parts))
    settings = Settings(
        axis=like.classes_at, class_axis_name=class_names, batch_axis_name=batch_names
    )
    problem = Problem(settings, rows, shared)
    return _with_options(function, problem, like.shape, where, **options)


def _operand(
    function: str, name: str, logits: Logits, **beside: Any
) -> Array | LinearLogits:
    """Logits whose arrays are checked by themselves."""
    if not isinstance(logits, LinearLogits):
        return _checks.floating(function, name, logits, **beside)
    if name == "probs":
        _checks.as_array(function, name, logits)
    return checked_head(function, name, logits)


def _of_rows_and_shared(logits: Array | LinearLogits) -> tuple[RowLogits, Head]:
    if isinstance(logits, Array):
        return RowLogits(array=logits), Head()
    return RowLogits(hidden=logits.hidden), Head(
        kernel=logits.kernel,
        bias=logits.bias,
        vocab_axis=logits.vocab_axis % 2,
        precision=logits.precision,
    )


def _hint_of_heads(x: Array | LinearLogits, target: Array | LinearLogits) -> str:
    """What to do about a head whose classes, or rows, are not those of the other."""
    if isinstance(x, Array) and isinstance(target, Array):
        return ""
    if x.shape[:-1] != target.shape[:-1]:
        return "Of two hidden states only the last axes, the features, may differ."
    return (
        "Pad the kernel of fewer classes, and give a class_mask that is False for the "
        "classes that only one of them has."
    )


def _last_axis(
    function: str, like: Shaped, axis: Axis, front: int | tuple[int, ...]
) -> int:
    """The class axis of LinearLogits, counted from the front; no other is possible."""
    last = like.ndim - 1
    if front not in (last, (last,)):
        _checks.fail(
            function,
            f"LinearLogits have their classes in the last axis, got axis={axis!r} for "
            f"logits of shape {like.shape}. Leave axis out, and give labels in that "
            "order.",
        )
    return last


def _with_options(
    function: str,
    problem: Problem,
    shape: Shape,
    where: ArrayLike | None,
    *,
    result: Result | None = None,
    return_statistics: bool = False,
    formula: Formula | None = None,
    ignore_index: Any = None,
    reduction: str = "none",
    normalizer: ArrayLike | None = None,
    **options: Any,
) -> Problem:
    """Adds every option; those declared with a check go through it."""
    settings, (rows, shared), target = problem.settings, problem.pair, problem.target
    axis, dtype = settings.axis, problem.dtype
    sizes = row_shape(shape, axis), shape[axis], dtype
    row_where, class_where = _checks.row_or_class_mask(function, where, shape, axis)
    values = {
        name: _checks.option(
            function, name, value, CHECKS[name.removeprefix("target_")], *sizes
        )
        for name, value in options.items()
        if value is not None
    }
    _checks.reduction(function, reduction, normalizer)
    index = target.ignore_index(function, ignore_index)
    target.check_margin(function, options.get("margin"))
    soft_caps = (values.get("logit_soft_cap"), values.get("target_logit_soft_cap"))
    heads = (
        head if soft_cap is None else replace_fields(head, logit_soft_cap=soft_cap)
        for head, soft_cap in zip(shared.heads, soft_caps, strict=False)
    )
    rows = rows._replace(
        where=row_where,
        class_where=class_where,
        **{name: x for name, x in values.items() if name in Rows._fields},
    )
    shared = shared._replace(
        heads=tuple(heads),
        ignore_index=index,
        parameters=_parameters(function, formula, dtype),
        normalizer=_checks.normalizer(function, normalizer, dtype),
        **{name: x for name, x in values.items() if name in Shared._fields},
    )
    with_statistics = _checks.flag(function, "return_statistics", return_statistics)
    if result is None:
        result = LossAndStatistics() if with_statistics else Loss()
    classes = count_over_devices(shape[axis], settings.class_axis_name)
    of_result = result.statistics(function, classes)
    settings = settings._replace(
        formula=None if formula is None else formula.function,
        result=result,
        reduction=reduction,
    )
    problem = Problem(settings, rows, shared)
    return problem.with_settings(statistics=(*target.statistics(problem), *of_result))


def _parameters(
    function: str, formula: Formula | None, dtype: jnp.dtype
) -> tuple[Array, ...]:
    if formula is None:
        return ()
    return tuple(
        _checks.number(function, name, value, dtype)
        for name, value in formula.parameters.items()
    )
