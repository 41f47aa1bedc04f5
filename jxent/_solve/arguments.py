"""From arguments to a checked problem: static settings, and the pair of bundles."""

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import Shape, Shaped, compute_dtype, count_over_devices, row_shape
from .._checks import ArrayLike, Axis, AxisName
from .._formulas import checks_of_parameters
from .._linear_logits import LinearLogits, Logits, checked_head
from .._problem.bundles import replace_fields
from .._problem.problem import CHECKS, Head, Problem, RowLogits, Rows, Settings, Shared
from .._targets.given import Given
from .._targets.target import Like
from .call import Formula
from .results import LOSS, Result


Names: TypeAlias = tuple[str, ...]


def checked_problem(
    function: str,
    logits: Logits,
    label: Given,
    *,
    name: str = "logits",
    axis: Axis = None,
    where: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    formula: Formula | None = None,
    **options: Any,
) -> Problem:
    """The problem of logits (or probabilities), in memory or given as LinearLogits."""
    order = f"{name}, labels"
    x = _operand(function, name, logits, beside=label.array, order=order)
    like_x = x if isinstance(x, Array) else jax.ShapeDtypeStruct(x.shape, x.dtype)
    weighted = formula is not None or name == "probs"
    front = _checks.class_axis(function, name, like_x, axis, weighted=weighted)
    operands = [x]
    for its_name, more in label.more_logits.items():
        y = _operand(function, its_name, more, compared=x)
        _checks.compared(function, x.shape, y.shape, _hint_of_heads(x, y))
        operands.append(y)
    linear = any(isinstance(y, LinearLogits) for y in operands)
    if linear:
        front = _last_axis(function, like_x, axis, front)
    like = Like(name=name, x=like_x, axis=front, axis_is_free=not linear)
    target = label.target(function, like)
    arrays = operands, target
    class_names = _checks.bound_axis_names(
        function, "class_axis_name", class_axis_name, arrays
    )
    batch_names = _checks.bound_axis_names(
        function, "batch_axis_name", batch_axis_name, arrays
    )
    if label.one_softmax and not class_names:
        _checks.several_classes(function, name, like_x, front)
    if isinstance(front, tuple):
        if where is not None:
            where = _checks.boolean(function, "where", where)
            if where.ndim == like_x.ndim:
                where = jnp.broadcast_to(where, like_x.shape)
                where = _checks.classes_last(where, front)
        operands = [like.classes_last(y) for y in operands if isinstance(y, Array)]
    shape, at = like.shape, like.classes_at
    row_where, class_where = _checks.row_or_class_mask(function, where, shape, at)
    parts = [_of_rows_and_shared(y) for y in operands]
    rows = Rows(
        logits=tuple(of_rows for of_rows, _ in parts),
        target=target,
        where=row_where,
        class_where=class_where,
    )
    shared = Shared(heads=tuple(head for _, head in parts))
    settings = _settings(at, formula, class_names, batch_names)
    problem, sizes = Problem(settings, rows, shared), (shape, compute_dtype(*operands))
    weighted = hasattr(label, "class_weights")
    problem = _with_options(function, problem, *sizes, formula, weighted, **options)
    return label.arranged(problem)


def _settings(
    axis: int, formula: Formula | None, class_names: Names, batch_names: Names
) -> Settings:
    return Settings(
        axis=axis,
        formula=None if formula is None else formula.function,
        class_axis_name=class_names,
        batch_axis_name=batch_names,
    )


def _operand(
    function: str, name: str, logits: Logits, **beside: Any
) -> Array | LinearLogits:
    """Logits whose arrays are checked by themselves."""
    if not isinstance(logits, LinearLogits):
        return _checks.floating(function, name, logits, **beside)
    beside.pop("compared", None)
    if name == "probs":
        _checks.as_array(function, name, logits)
    if beside.get("order"):
        beside["order"] = "LinearLogits(hidden, kernel), labels"
    return checked_head(function, name, logits, **beside)


_NO_HEAD = Head()


def _of_rows_and_shared(logits: Array | LinearLogits) -> tuple[RowLogits, Head]:
    if isinstance(logits, Array):
        return RowLogits(array=logits), _NO_HEAD
    return RowLogits(hidden=logits.hidden), Head(
        kernel=logits.kernel,
        bias=logits.bias,
        vocab_axis=logits.vocab_axis % 2,
        precision=logits.precision,
    )


def _hint_of_heads(x: Array | LinearLogits, target: Array | LinearLogits) -> str:
    """What to do about a head of other classes than what it is compared with."""
    arrays = isinstance(x, Array) and isinstance(target, Array)
    if arrays or x.shape[:-1] != target.shape[:-1]:
        return ""
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
            f"logits of shape {like.shape}. Give axis=-1, and labels in that order.",
        )
    return last


def _with_options(
    function: str,
    problem: Problem,
    shape: Shape,
    dtype: jnp.dtype,
    formula: Formula | None,
    takes_class_weights: bool,
    *,
    result: Result = LOSS,
    ignore_index: Any = None,
    reduction: str = "none",
    normalizer: ArrayLike | None = None,
    **options: Any,
) -> Problem:
    """Adds every option; those declared with a check go through it."""
    settings, rows, shared = problem.settings, problem.rows, problem.shared
    axis, target = settings.axis, rows.target
    of_rows: dict[str, Any] = {}
    of_shared: dict[str, Any] = {}
    if options:
        sizes = row_shape(shape, axis), shape[axis], dtype
        of_heads: dict[str, Any] = {"logit_soft_cap": None}
        of_heads["target_logit_soft_cap"] = None
        for name, value in options.items():
            check = CHECKS[name.removeprefix("target_")]
            x = _checks.option(
                function, name, value, check, *sizes, class_weights=takes_class_weights
            )
            fields = of_rows if name in Rows._fields else of_shared
            (of_heads if name in of_heads else fields)[name] = x
        if any(cap is not None for cap in of_heads.values()):
            of_shared["heads"] = tuple(
                replace_fields(head, logit_soft_cap=cap)
                for head, cap in zip(shared.heads, of_heads.values(), strict=False)
            )
        target.check_margin(function, options.get("margin"))
    _checks.reduction(function, reduction, normalizer)
    index = target.ignore_index(function, ignore_index)
    if index is not None:
        of_shared["ignore_index"] = index
    if formula is not None and formula.parameters:
        of_shared["parameters"] = _parameters(function, formula, dtype)
    if normalizer is not None:
        of_shared["normalizer"] = _checks.normalizer(function, normalizer, dtype)
    if of_rows:
        rows = rows._replace(**of_rows)
    if of_shared:
        shared = shared._replace(**of_shared)
    classes = count_over_devices(shape[axis], settings.class_axis_name)
    of_result = result.statistics(function, classes)
    of_target = target.statistics(Problem(settings, rows, shared))
    settings = settings._replace(
        result=result,
        reduction=reduction,
        statistics=(*of_target, *of_result),
    )
    return Problem(_one_object(settings), rows, shared)


# A jitted function finds its program by comparing settings, which is quick only where
# they are the same object.
@functools.cache
def _one_object(settings: Settings) -> Settings:
    return settings


def _parameters(function: str, formula: Formula, dtype: jnp.dtype) -> tuple[Array, ...]:
    checks = checks_of_parameters(formula.function)
    return tuple(
        _checks.declared_number(function, name, value, checks[name], dtype)
        for name, value in formula.parameters.items()
    )
