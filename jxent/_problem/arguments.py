"""From arguments to a checked problem: static settings, and the pair of bundles."""

from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import _checks
from .._arrays import Shape, Shaped, compute_dtype, count_over_devices, row_shape
from .._checks import ArrayLike, Axis, AxisName, SparseLabels
from .._product import ROUNDED
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


class HeadArguments(NamedTuple):
    """The arguments of one of two heads, as the caller passes them."""

    hidden: ArrayLike
    kernel: ArrayLike
    bias: ArrayLike | None
    vocab_axis: SupportsIndex


class Formula(NamedTuple):
    """A formula with its parameters, as they are passed by name.

    It is a function of log p; with several labels a row, of each logit and its label.
    """

    function: Callable[..., Array]
    parameters: dict[str, ArrayLike]
    several_labels: bool = False


def logits_problem(
    function: str,
    logits: ArrayLike,
    labels: ArrayLike | None,
    axis: Axis,
    where: ArrayLike | None,
    *,
    name: str = "logits",
    target_logits: ArrayLike | None = None,
    ids_only: bool = False,
    labels_optional: bool = False,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    **options: Any,
) -> Problem:
    """The problem of logits (or probabilities) in memory."""
    order = f"{name}, labels"
    x = _checks.floating(function, name, logits, beside=labels, order=order)
    weighted = options.get("formula") is not None or name == "probs"
    front = _checks.class_axis(function, name, x, axis, weighted=weighted)
    sparse = _sparse(function, labels, ids_only or name == "probs")
    y = _labels(function, None if sparse else labels, labels_optional or bool(sparse))
    class_names = _checks.bound_axis_names(
        function, "class_axis_name", class_axis_name, x, y
    )
    batch_names = _checks.bound_axis_names(
        function, "batch_axis_name", batch_axis_name, x, y
    )
    shapes = function, name, x, y, front
    ids = _are_class_ids(*shapes, options, split=class_names, ids_only=ids_only)
    _fits(function, None if ids or sparse else labels, options)
    target = None
    if target_logits is not None:
        target = _checks.floating(function, "target_logits", target_logits)
        _checks.compared(function, "logits", x.shape, target)
    if isinstance(front, tuple):
        if y is not None and not ids:
            y = _checks.classes_last(y, front)
        if where is not None:
            where = _checks.boolean(function, "where", where)
            if where.ndim == x.ndim:
                where = _checks.classes_last(jnp.broadcast_to(where, x.shape), front)
        if target is not None:
            target = _checks.classes_last(target, front)
        x = _checks.classes_last(x, front)
        front = x.ndim - 1
    settings = Settings(
        axis=front, ids=ids, class_axis_name=class_names, batch_axis_name=batch_names
    )
    rows = Rows(logits=x, labels=y, target_logits=target)
    if sparse is not None:
        rows = _with_places(function, rows, sparse, x, front, compute_dtype(x), options)
    operands = rows, Shared()
    dtype = dtype_of(*operands)
    return _with_options(
        function, settings, *operands, x.shape, dtype, where, **options
    )


def head_problem(
    function: str,
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | None,
    where: ArrayLike | None,
    *,
    vocab_axis: SupportsIndex,
    precision: lax.PrecisionLike = None,
    target: HeadArguments | None = None,
    ids_only: bool = False,
    labels_optional: bool = False,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    **options: Any,
) -> Problem:
    """The problem of hidden @ kernel, whose logits do not exist."""
    beside = {"beside": labels, "order": "hidden, kernel, labels"}
    h = _checks.floating(function, "hidden", hidden, **beside)
    k = _checks.floating(function, "kernel", kernel, **beside)
    vocab = head_axis(function, h, k, vocab_axis)
    like = jax.ShapeDtypeStruct((*h.shape[:-1], k.shape[vocab]), compute_dtype(h, k))
    axis = like.ndim - 1
    sparse = _sparse(function, labels, ids_only)
    y = _labels(function, None if sparse else labels, labels_optional or bool(sparse))
    class_names = _checks.bound_axis_names(
        function, "class_axis_name", class_axis_name, h, k, y
    )
    batch_names = _checks.bound_axis_names(
        function, "batch_axis_name", batch_axis_name, h, k, y
    )
    shapes = function, "logits", like, y, axis
    how = {"ids_only": ids_only, "axis_is_free": False}
    ids = _are_class_ids(*shapes, options, split=class_names, **how)
    _fits(function, None if ids or sparse else labels, options)
    given_precision = _checks.precision(function, precision)
    precision = _precision(given_precision, h)
    settings = Settings(
        axis=axis,
        ids=ids,
        class_axis_name=class_names,
        batch_axis_name=batch_names,
        vocab_axis=vocab,
        precision=precision,
    )
    rows, shared = Rows(hidden=h, labels=y), Shared(kernel=k)
    if sparse is not None:
        rows = _with_places(function, rows, sparse, like, axis, like.dtype, options)
    if target is not None:
        rows, shared, vocab = _with_target(function, rows, shared, target, like.shape)
        settings = settings._replace(
            target_vocab_axis=vocab,
            target_precision=_precision(given_precision, rows.target_hidden),
        )
        options["target_bias"] = target.bias
    operands = rows, shared
    dtype = dtype_of(*operands)
    return _with_options(
        function, settings, *operands, like.shape, dtype, where, **options
    )


def _precision(precision: Any, hidden: Any) -> Any:
    rounded = precision is None and hidden.dtype == jnp.bfloat16
    return ROUNDED if rounded else precision


def _with_target(
    function: str, rows: Rows, shared: Shared, target: HeadArguments, shape: Shape
) -> tuple[Rows, Shared, int]:
    """The pair with a target's head, and the class axis of its kernel."""
    h = _checks.floating(function, "target_hidden", target.hidden)
    k = _checks.floating(function, "target_kernel", target.kernel)
    vocab = head_axis(function, h, k, target.vocab_axis, "target_")
    _checks.same_rows_and_classes(function, shape, (*h.shape[:-1], k.shape[vocab]))
    rows = rows._replace(target_hidden=h)
    return rows, shared._replace(target_kernel=k), vocab


def head_axis(
    function: str,
    hidden: Shaped,
    kernel: Shaped,
    vocab_axis: SupportsIndex,
    of: str = "",
) -> int:
    """The kernel's class axis counted from the front; an error if shapes do not fit.

    `of` stands before the arguments' names.
    """
    vocab_axis = _checks.integer(function, f"{of}vocab_axis", vocab_axis)
    if not hidden.ndim:
        _checks.fail(
            function, f"expected {of}hidden of shape (..., features), got a scalar."
        )
    if kernel.ndim != 2 or vocab_axis not in (-2, -1, 0, 1):
        _checks.fail(
            function,
            f"expected a {of}kernel of two axes and their class axis, got shape "
            f"{kernel.shape} and {of}vocab_axis={vocab_axis}. Reshape a kernel of "
            "more.",
        )
    axis = vocab_axis % 2
    features, classes = kernel.shape[1 - axis], kernel.shape[axis]
    if hidden.shape[-1] != features:
        hint = f"The {of}kernel is (features, classes)."
        if axis == 0:
            hint = f"With {of}vocab_axis=0 the {of}kernel is (classes, features)."
        if hidden.shape[-1] == classes:
            hint += f" For its transpose give {of}vocab_axis={axis - 1}."
        _checks.fail(
            function,
            f"expected {of}hidden of shape (..., {features}) for a {of}kernel of shape "
            f"{kernel.shape} with {of}vocab_axis={vocab_axis}, got {hidden.shape}. "
            f"{hint}",
        )
    return axis


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


def _fits(function: str, distribution: Any, options: dict[str, Any]) -> None:
    """Refuses integers of a distribution that JAX does not hold."""
    formula: Formula | None = options.get("formula")
    if formula is None or not formula.several_labels:
        _checks.fits(function, "labels", distribution)


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
    factors = {"class_weights": "class_weights" in options}
    values = {
        name: _checks.option(function, name, value, CHECKS[name], *sizes, **factors)
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
        reduction=reduction,
        return_statistics=return_statistics,
        sums=sums,
        log_prob_at=log_prob_at,
        several_labels=several,
        even=(smoothed and not several) or (weighted and not distributions),
        expected=entropy or return_statistics or sums,
        argmax=argmax or return_statistics or sums,
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
