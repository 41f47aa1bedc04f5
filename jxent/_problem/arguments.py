"""From arguments to a checked problem: static settings, and the pair of bundles."""

from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import Shape, Shaped, count_over_devices, row_shape
from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._linear_logits import LinearLogits, Logits, checked_head
from .pair import (
    CHECKS,
    Maybe,
    Rows,
    Settings,
    Shared,
    dtype_of,
    has_distributions,
)


class Problem(NamedTuple):
    """One call: what is static, what each row has, and what all rows share."""

    settings: Settings
    rows: Rows
    shared: Shared


class Formula(NamedTuple):
    """A formula with its parameters, as they are passed by name.

    It is a function of log p; with several labels a row, of each logit and its label.
    Of a formula of every class `kept` says how many arrays of the logits' size XLA on a
    CPU keeps for the derivative.
    """

    function: Callable[..., Array]
    parameters: dict[str, ArrayLike]
    several_labels: bool = False
    kept: int = 2


def checked_problem(
    function: str,
    logits: Logits,
    labels: ArrayLike | SparseLabels | None,
    axis: Axis,
    where: ArrayLike | None,
    *,
    name: str = "logits",
    target_logits: Logits | None = None,
    ids_only: bool = False,
    labels_optional: bool = False,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    **options: Any,
) -> Problem:
    """The problem of logits (or probabilities), in memory or given as LinearLogits."""
    x = _operand(function, name, logits, beside=labels, order=f"{name}, labels")
    target = None
    like = x if isinstance(x, Array) else jax.ShapeDtypeStruct(x.shape, x.dtype)
    weighted = options.get("formula") is not None or name == "probs"
    front = _checks.class_axis(function, name, like, axis, weighted=weighted)
    if target_logits is not None:
        target = _operand(function, "target_logits", target_logits)
        _checks.compared(function, x.shape, target.shape, _hint_of_heads(x, target))
    if isinstance(x, LinearLogits) or isinstance(target, LinearLogits):
        front = _last_axis(function, like, axis, front)
    sparse = _sparse(function, labels, ids_only or name == "probs")
    y = _labels(function, None if sparse else labels, labels_optional or bool(sparse))
    arrays = *jax.tree.leaves((x, target)), y
    class_names, batch_names = (
        _checks.bound_axis_names(function, argument, names, *arrays)
        for argument, names in (
            ("class_axis_name", class_axis_name),
            ("batch_axis_name", batch_axis_name),
        )
    )
    shapes = function, name, like, y, front
    how = {"ids_only": ids_only, "axis_is_free": isinstance(x, Array)}
    ids = _are_class_ids(*shapes, options, split=class_names, **how)
    if isinstance(front, tuple):
        assert isinstance(x, Array)
        assert not isinstance(target, LinearLogits)
        if y is not None and not ids:
            y = _checks.classes_last(y, front)
        where = _where_of_axes(function, where, x.shape, front)
        if target is not None:
            target = _checks.classes_last(target, front)
        like = x = _checks.classes_last(x, front)
        front = x.ndim - 1
    rows, shared = Rows(labels=y), Shared()
    settings = Settings(
        axis=front, ids=ids, class_axis_name=class_names, batch_axis_name=batch_names
    )
    for of, operand in (("", x), ("target_", target)):
        settings, rows, shared = _with_operand(settings, rows, shared, of, operand)
    dtype = dtype_of(rows, shared)
    if sparse is not None:
        rows = _with_places(function, rows, sparse, like, front, dtype, options)
    return _with_options(
        function, settings, rows, shared, like.shape, dtype, where, **options
    )


def _where_of_axes(
    function: str, where: ArrayLike | None, shape: Shape, axes: tuple[int, ...]
) -> ArrayLike | None:
    """`where` with the classes' axes made one, the last, if it has them."""
    if where is None:
        return None
    where = _checks.boolean(function, "where", where)
    if where.ndim != len(shape):
        return where
    return _checks.classes_last(jnp.broadcast_to(where, shape), axes)


def _operand(
    function: str, name: str, logits: Logits, **beside: Any
) -> Array | LinearLogits:
    """Logits whose arrays are checked by themselves."""
    if not isinstance(logits, LinearLogits):
        return _checks.floating(function, name, logits, **beside)
    if name == "probs":
        _checks.as_array(function, name, logits)
    if beside.get("order"):
        beside["order"] = "LinearLogits(hidden, kernel), labels"
    return checked_head(function, name, logits, **beside)


def _with_operand(
    settings: Settings,
    rows: Rows,
    shared: Shared,
    of: str,
    x: Array | LinearLogits | None,
) -> tuple[Settings, Rows, Shared]:
    """Adds logits, or those of a target, to the fields whose names begin with `of`."""
    if not isinstance(x, LinearLogits):
        return settings, rows._replace(**{f"{of}logits": x}), shared
    static = {f"{of}vocab_axis": x.vocab_axis % 2, f"{of}precision": x.precision}
    of_all = {f"{of}kernel": x.kernel, f"{of}bias": x.bias}
    rows = rows._replace(**{f"{of}hidden": x.hidden})
    return settings._replace(**static), rows, shared._replace(**of_all)


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


def _are_class_ids(
    function: str,
    name: str,
    x: Shaped,
    labels: Maybe,
    axis: int | tuple[int, ...],
    options: dict[str, Any],
    *,
    split: tuple[str, ...],
    **how: bool,
) -> bool:
    """Whether labels are class ids; an error if they do not fit the logits.

    `split` are the mesh axes that the classes are split over.
    """
    formula: Formula | None = options.get("formula")
    several = formula is not None and formula.several_labels
    if not several and not split:
        _checks.several_classes(function, name, x, axis)
    if labels is None:
        return False
    if several:
        _checks.labels_of_classes(function, name, x, labels, axis)
        return False
    return _checks.are_class_ids(function, name, x, labels, axis, **how)


def _labels(function: str, labels: ArrayLike | None, optional: bool) -> Maybe:
    if labels is None and not optional:
        raise TypeError(f"{function}: expected labels, got None.")
    if labels is None:
        return None
    return _checks.label_array(function, "labels", labels)


def _sparse(function: str, labels: Any, refused: bool) -> SparseLabels | None:
    if refused:
        _checks.no_sparse_labels(function, labels)
    return labels if isinstance(labels, SparseLabels) else None


def _with_places(
    function: str,
    rows: Rows,
    sparse: SparseLabels,
    like: Shaped,
    axis: int,
    dtype: jnp.dtype,
    options: dict[str, Any],
) -> Rows:
    """The rows with several class ids each, and their values."""
    if options.get("log_prob_at"):
        ids = _checks.class_ids_at(function, "ids", sparse.ids, like.shape, axis)
        return rows._replace(label_ids=ids)
    ids, values = _checks.sparse_labels(function, sparse, like.shape, axis, dtype)
    return rows._replace(label_ids=ids, label_values=values)


def _with_options(
    function: str,
    settings: Settings,
    rows: Rows,
    shared: Shared,
    shape: Shape,
    dtype: jnp.dtype,
    where: ArrayLike | None,
    *,
    formula: Formula | None = None,
    ignore_index: Any = None,
    reduction: str = "none",
    normalizer: ArrayLike | None = None,
    **options: Any,
) -> Problem:
    """Adds every option; those declared with a check go through it."""
    axis = settings.axis
    labels = rows.labels if rows.label_ids is None else rows.label_ids
    distributions = has_distributions(settings, rows)
    classes = shape[axis]
    sizes = row_shape(shape, axis), classes, dtype
    row_where, class_where = _checks.row_or_class_mask(function, where, shape, axis)
    asked = {name: value for name, value in options.items() if name not in CHECKS}
    values = {
        name: _checks.option(function, name, value, CHECKS[name], *sizes)
        for name, value in options.items()
        if name in CHECKS and value is not None
    }
    _checks.reduction(function, reduction, normalizer)
    index = None
    if labels is not None:
        index = _checks.ignorable(function, ignore_index, labels, ids=not distributions)
        _checks.margin_of_ids(function, options.get("margin"), settings.ids)
    rows = rows._replace(
        where=row_where,
        class_where=class_where,
        **{name: x for name, x in values.items() if name in Rows._fields},
    )
    shared = shared._replace(
        ignore_index=index,
        parameters=_parameters(function, formula, dtype),
        normalizer=_checks.normalizer(function, normalizer, dtype),
        **{name: x for name, x in values.items() if name in Shared._fields},
    )
    settings = _with_statistics(
        function,
        settings,
        formula,
        shared,
        reduction=reduction,
        classes=classes,
        distributions=labels is not None and not settings.ids,
        **asked,
    )
    return Problem(settings=settings, rows=rows, shared=shared)


def _with_statistics(
    function: str,
    settings: Settings,
    formula: Formula | None,
    shared: Shared,
    *,
    reduction: str,
    classes: int,
    distributions: bool,
    return_statistics: bool = False,
    sums: bool = False,
    log_prob_at: bool = False,
    top_k: SupportsIndex | None = None,
    entropy: bool = False,
    argmax: bool = False,
    ranks: bool = False,
) -> Settings:
    """Adds to the settings what the formula and the requested statistics need."""
    return_statistics, entropy, argmax = (
        _checks.flag(function, name, value)
        for name, value in (
            ("return_statistics", return_statistics),
            ("entropy", entropy),
            ("argmax", argmax),
        )
    )
    if top_k is not None:
        everywhere = count_over_devices(classes, settings.class_axis_name)
        settings = settings._replace(top_k=_checks.top_k(function, top_k, everywhere))
    several = formula is not None and formula.several_labels
    smoothed = formula is not None and shared.label_smoothing is not None
    weighted = formula is None and shared.class_weights is not None
    return settings._replace(
        formula=None if formula is None else formula.function,
        kept=0 if formula is None else formula.kept,
        reduction=reduction,
        return_statistics=return_statistics,
        sums=sums,
        log_prob_at=log_prob_at,
        several_labels=several,
        even=(smoothed and not several) or (weighted and not distributions),
        expected=entropy or return_statistics or sums,
        argmax=argmax or return_statistics or sums,
        ranks=ranks,
    )


def _parameters(
    function: str, formula: Formula | None, dtype: jnp.dtype
) -> tuple[Array, ...]:
    if formula is None:
        return ()
    return tuple(
        _checks.number(function, name, value, dtype)
        for name, value in formula.parameters.items()
    )
