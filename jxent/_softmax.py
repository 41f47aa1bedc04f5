"""Softmax losses: formulas in the log-probability, on the statistics of a layout."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from . import _checks, _labels, _statistics
from ._checks import ArrayLike, Axis, AxisName
from ._reduction import Reduction, combine, times
from ._statistics import Form, Inputs, SoftmaxStatistics


# The formulas -------------------------------------------------------------------------
#
# A loss is Σ_c q_c f(log p_c) over the row's target q. Cross-entropy alone is linear in
# log p, which is why its whole sum is a function of the row statistics.


def cross_entropy(log_p: Array) -> Array:
    """f = −log p"""
    return -log_p


def focal(log_p: Array, gamma: Array) -> Array:
    """f = −(1 − p)^γ log p"""
    # In log space: (1 − p)^γ itself has no finite slope at p = 1 where γ < 1. Where p
    # rounds to 1, the weight is the constant 0^γ.
    below_one = log_p < 0
    safe = jnp.where(below_one, log_p, jnp.full_like(log_p, -1))
    log_miss = jnp.log(-jnp.expm1(safe))
    log_miss = jnp.where(below_one, log_miss, jnp.full_like(log_p, -jnp.inf))
    weight = jnp.exp(times(jnp.broadcast_to(gamma, log_p.shape), log_miss))
    return times(weight, -log_p)


def poly(log_p: Array, epsilon: Array) -> Array:
    """f = −log p + ε (1 − p)"""
    return -log_p - epsilon * jnp.expm1(log_p)


# From logits in memory to a loss ------------------------------------------------------


class Plan(NamedTuple):
    """What is known at trace time."""

    function: str
    axis: int
    ids: bool
    class_axis_name: tuple[str, ...]
    formula: Callable[..., Array] = cross_entropy
    reduction: str = "none"
    batch_axis_name: tuple[str, ...] = ()
    return_statistics: bool = False
    entropy: bool = False
    argmax: bool = False


class Arrays(NamedTuple):
    """What is not."""

    logits: Array
    wanted: _labels.Wanted
    weights: Array | None = None
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
    name: str = "logits",
    **plan: Any,
) -> tuple[Plan, Arrays]:
    """Every argument of the softmax family, checked and shaped."""
    x = _checks.floating(function, name, logits)
    front = _checks.class_axis(function, name, x, axis)
    y = None if labels is None else _checks.array(labels)
    if isinstance(front, tuple):
        if y is not None and y.ndim == x.ndim:
            y = _checks.classes_last(y, front)
        if where is not None:
            where = _checks.boolean(function, "where", where)
            if where.ndim == x.ndim:
                where = _checks.classes_last(jnp.broadcast_to(where, x.shape), front)
        x = _checks.classes_last(x, front)
        front = x.ndim - 1
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
    rows, classes = _checks.row_shape(x.shape, front), (x.shape[front],)
    dtype = _checks.compute_dtype(x)
    row_where, class_where = _checks.row_or_class_mask(function, where, x.shape, front)

    def floats(name: str, value: ArrayLike) -> Array:
        return _checks.array(value).astype(dtype)

    if class_mask is not None:
        class_mask = _checks.boolean(function, "class_mask", class_mask)
        class_mask = _checks.per_class(function, "class_mask", class_mask, classes)
    if class_weights is not None:
        class_weights = floats("class_weights", class_weights)
        class_weights = _checks.per_class(
            function, "class_weights", class_weights, classes
        )
    if weights is not None:
        weights = floats("weights", weights)
        weights = _checks.per_row(function, "weights", weights, rows)
    if temperature is not None:
        _checks.number(function, "temperature", temperature, above=0)
        temperature = floats("temperature", temperature)
        temperature = _checks.per_row(function, "temperature", temperature, rows)
    if logit_soft_cap is not None:
        _checks.number(function, "logit_soft_cap", logit_soft_cap, above=0)
        logit_soft_cap = floats("logit_soft_cap", logit_soft_cap)
        _checks.scalar(function, "logit_soft_cap", logit_soft_cap)
    _checks.number(function, "label_smoothing", label_smoothing, low=0, high=1)
    _checks.number(function, "z_loss", z_loss, low=0)
    _checks.reduction(function, reduction, normalizer)
    smoothing = _checks.off_or_scalar(label_smoothing, dtype)
    if smoothing is not None:
        _checks.scalar(function, "label_smoothing", smoothing)
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
            class_weights,
            ignore,
            smoothing,
        ),
        weights=weights,
        z_loss=_checks.off_or_scalar(z_loss, dtype),
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        normalizer=None if normalizer is None else floats("normalizer", normalizer),
    )
    settled = Plan(
        function,
        front,
        ids,
        class_names,
        reduction=reduction,
        batch_axis_name=batch_names,
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
    rows = _checks.row_shape(a.logits.shape, plan.axis)
    # A row whose weight is 0 is dropped like any other, but its loss is still computed
    # where it can be: it is the derivative in that weight.
    keep = target.keep
    if a.weights is not None:
        weighty = jnp.broadcast_to(a.weights != 0, rows)
        keep = weighty if keep is None else keep & weighty
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
        temperature = jnp.broadcast_to(temperature, rows)
    inputs = Inputs(
        a.logits,
        labels=target.labels,
        class_weights=target.class_weights if plan.ids else None,
        distribution=target.distribution,
        mask=target.mask,
        keep=keep,
        logit_soft_cap=a.logit_soft_cap,
        temperature=temperature,
    )
    return target, form, inputs


def _report(
    plan: Plan, a: Arrays, inputs: Inputs, statistics: SoftmaxStatistics
) -> None:
    label = statistics.label_logit
    if inputs.labels is None or a.wanted.labels is None or label is None:
        return
    bad = jnp.isnan(label) & jnp.isfinite(statistics.shift)
    classes = a.logits.shape[plan.axis]
    if plan.class_axis_name:
        classes = classes * lax.axis_size(plan.class_axis_name)
    _labels.report_bad_labels(a.wanted.labels, bad, classes)


def _kept(
    statistics: SoftmaxStatistics, keep: Array | None
) -> SoftmaxStatistics:
    """Statistics in which a dropped row is 0."""
    if keep is None:
        return statistics
    return jax.tree.map(lambda x: jnp.where(keep, x, jnp.zeros_like(x)), statistics)


def row_losses(
    formula: Callable[..., Array],
    parameters: tuple[Array, ...],
    target: _labels.Target,
    statistics: SoftmaxStatistics,
    label_weight: Array | None,
    log_probabilities: Callable[[], Array],
    axis: int,
    class_axis_name: tuple[str, ...],
) -> Float[Array, "..."]:
    """Σ_c q_c f(log p_c), from the statistics where they tell it."""

    def over_classes(factors: Array) -> Array:
        values = formula(log_probabilities(), *parameters)
        total = jnp.sum(times(jnp.broadcast_to(factors, values.shape), values), axis)
        return lax.psum(total, class_axis_name) if class_axis_name else total

    if target.distribution is not None:
        if formula is cross_entropy:
            return -statistics.log_prob
        return over_classes(target.distribution)
    loss = formula(statistics.log_prob, *parameters)
    if label_weight is not None:
        loss = times(label_weight, loss)
    if target.smoothing is None or target.spread is None:
        return loss
    if formula is cross_entropy:
        assert target.total_class_weight is not None
        assert statistics.weighted_logit is not None
        total = jnp.broadcast_to(target.total_class_weight, loss.shape)
        even = times(total, statistics.log_sum) - statistics.weighted_logit
    else:
        ndim = loss.ndim + 1
        if target.class_weights is None:
            weights = jnp.ones((1,) * ndim, loss.dtype)
        else:
            weights = target.class_weights.astype(loss.dtype)
            weights = _statistics.along_classes(weights, axis, ndim)
        if target.mask is not None:
            weights = jnp.where(target.mask, weights, jnp.zeros_like(weights))
        even = over_classes(weights)
    spread = jnp.broadcast_to(target.spread, loss.shape)
    rest = jnp.broadcast_to(1 - target.smoothing, loss.shape)
    return times(rest, loss) + times(spread, even)


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
        penalty = jnp.square(statistics.lse)
        if class_factor is not None:
            penalty = times(class_factor, penalty)
        losses = losses + a.z_loss * penalty
    loss = combine(
        losses,
        keep=target.keep,
        weights=a.weights,
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


# The public functions -----------------------------------------------------------------


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    z_loss: ArrayLike = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    return_statistics: bool = False,
) -> Any:
    """Softmax cross-entropy of logits with class ids or distributions.

        loss = −Σ_c q_c log p_c,   p = softmax(z),   log p_c = z_c − log Σ_k exp(z_k)

    where q is onehot(y) for a class id y. With class weights w and label smoothing ε
    over K classes, q_c = w_c ((1 − ε) onehot(y)_c + ε/K).

    Args:
      logits: floating, shape (..., classes, ...), at least two classes.
      labels: the rank decides. One less than the logits': integer class ids, of the
        logits' shape without `axis`. The same: distributions of the logits' shape and
        any dtype; they need not sum to 1. Labels never broadcast.
      axis: the class axis. A tuple names several that together make up the classes, an
        id then counts through them in their order; None stands for all.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row.
      class_weights: (classes,), w above.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1, spread over all classes, the label's
        included, that exist and are not masked.
      z_loss: adds z_loss · lse², lse = log Σ_c exp(z_c), times the row's class weight.
      logit_soft_cap: c replaces z by c · tanh(z/c), before anything else.
      temperature: divides the logits after the soft cap; a scalar or one a row.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where, weights, and the label's class weight
        (Σ_c q_c w_c for a distribution).
      normalizer: what the mean divides by in place of Σ r; a global token count, say.
      class_axis_name: the mesh axis (or axes) that the classes are split over, inside
        `jax.shard_map`. Labels stay global ids. Per-class arguments are split alike.
      batch_axis_name: the mesh axes that the rows are split over: the mean and the sum
        run over them too.
      return_statistics: also return the row statistics, entropy and argmax included.

    Returns:
      The losses in nats, of the logits' shape without `axis`, or a scalar; float32, or
      float64 for float64 logits. With return_statistics a pair (loss,
      `SoftmaxStatistics`).

    Numerics:
      bfloat16 and float16 are computed in float32; each gradient has its input's dtype.
      Nothing is clipped and no epsilon is added. 0 · ∞ counts as 0: a logit of −inf is
      an impossible class. As the label's own class it makes the loss +inf, with a
      finite gradient. A row of −inf alone, or a logit of +inf, gives NaN. A dropped row
      is exactly 0 and so is its gradient, whatever it holds. So is a row with every
      class masked. An id outside [0, classes) that is not ignore_index, or on a masked
      class, makes loss and gradient of its row NaN; under `jax.experimental.checkify`
      it is an error with a message. Nothing left to average gives 0 with gradient 0.
      Target mass on masked classes is dropped. Every derivative exists, forward and
      reverse, to any order. `jax.grad` inside `shard_map(check_vma=False)` is wrong by
      JAX itself: leave check_vma on.

    Raises:
      TypeError: logits are not floating, ids not integers, or a mask is floating.
      ValueError: shapes do not fit, a Python number is out of range, or an axis name is
      unknown.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_cross_entropy(logits, jnp.array([0, 2])))
      [0.23954 0.09492]
      >>> labels = jnp.array([0, -100])
      >>> print(jxent.softmax_cross_entropy(
      ...     logits, labels, ignore_index=-100, reduction="mean"))
      0.23954

    Source:
      Optax's `softmax_cross_entropy`, `softmax_cross_entropy_with_integer_labels` and
      `safe_softmax_cross_entropy`, whose calls work here unchanged under each name.
      Label smoothing as in Szegedy et al., https://arxiv.org/abs/1512.00567; z-loss as
      in Chowdhery et al. (PaLM), https://arxiv.org/abs/2204.02311.

    See also:
      `categorical_cross_entropy` for probabilities, `sigmoid_binary_cross_entropy` for
      yes/no labels, `next_token_labels` for language models.
    """
    plan, arrays = check(
        "softmax_cross_entropy",
        logits,
        labels,
        axis,
        where,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        return_statistics=return_statistics,
        entropy=return_statistics,
        argmax=return_statistics,
    )
    return _loss(plan, arrays)


# Optax splits these by the kind of labels and by what −inf does; here both are told
# from the labels, and −inf is safe.
softmax_cross_entropy_with_integer_labels = softmax_cross_entropy
safe_softmax_cross_entropy = softmax_cross_entropy


def softmax_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    gamma: ArrayLike = 2.0,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    z_loss: ArrayLike = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    return_statistics: bool = False,
) -> Any:
    """Softmax focal loss: cross-entropy that cares less for what is already right.

        loss = −Σ_c q_c (1 − p_c)^γ log p_c,   p = softmax(logits)

    Args:
      logits, labels, axis, where: as in `softmax_cross_entropy`.
      gamma: γ, at least 0. At 0 this is cross-entropy.
      weights, class_weights, class_mask, ignore_index, label_smoothing, z_loss,
        logit_soft_cap, temperature, reduction, normalizer, class_axis_name,
        batch_axis_name, return_statistics: as in `softmax_cross_entropy`. The paper's α
        per class is `class_weights`.

    Returns:
      The losses in nats, of the logits' shape without `axis`, or a scalar, as
      `softmax_cross_entropy` returns them.

    Numerics:
      As in `softmax_cross_entropy`. (1 − p)^γ is formed in log space, so that every
      derivative is finite for every γ; where p rounds to 1 the loss and its gradient
      are 0 for γ > 0.

    Raises:
      As `softmax_cross_entropy`; ValueError also for a negative Python number as gamma.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_focal_loss(logits, jnp.array([0, 2]), gamma=2.0))
      [0.01088 0.00078]

    Source:
      Lin et al. (2017), "Focal Loss for Dense Object Detection",
      https://arxiv.org/abs/1708.02002, with a softmax; on distributions as Keras's
      `CategoricalFocalCrossentropy`.

    See also:
      `sigmoid_focal_loss`, `softmax_cross_entropy`.
    """
    name = "softmax_focal_loss"
    plan, arrays = check(
        name,
        logits,
        labels,
        axis,
        where,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        formula=focal,
        return_statistics=return_statistics,
        entropy=return_statistics,
        argmax=return_statistics,
    )
    return _loss(plan, _with_parameter(name, arrays, "gamma", gamma, low=0))


def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    z_loss: ArrayLike = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    batch_axis_name: AxisName = None,
    return_statistics: bool = False,
) -> Any:
    """Poly-1 loss: cross-entropy with another first term of its series in 1 − p.

        loss = Σ_c q_c (−log p_c + ε (1 − p_c)),   p = softmax(logits)

    Args:
      logits, labels: as in `softmax_cross_entropy`, class ids included.
      epsilon: ε, 2 for ImageNet in the paper; at 0 this is cross-entropy.
      axis, where, weights, class_weights, class_mask, ignore_index, label_smoothing,
        z_loss, logit_soft_cap, temperature, reduction, normalizer, class_axis_name,
        batch_axis_name, return_statistics: as in `softmax_cross_entropy`.

    Returns:
      The losses in nats, of the logits' shape without `axis`, or a scalar, as
      `softmax_cross_entropy` returns them.

    Numerics:
      As in `softmax_cross_entropy`.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.poly_loss_cross_entropy(logits, jnp.array([0, 2]), epsilon=2.0))
      [0.66556 0.27603]

    Source:
      Leng et al. (2022), "PolyLoss", https://arxiv.org/abs/2204.12511; Optax's function
      of this name, which takes distributions only.

    See also:
      `softmax_focal_loss`, `softmax_cross_entropy`.
    """
    name = "poly_loss_cross_entropy"
    plan, arrays = check(
        name,
        logits,
        labels,
        axis,
        where,
        weights=weights,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        formula=poly,
        return_statistics=return_statistics,
        entropy=return_statistics,
        argmax=return_statistics,
    )
    return _loss(plan, _with_parameter(name, arrays, "epsilon", epsilon))


def _with_parameter(
    function: str, arrays: Arrays, name: str, value: ArrayLike, **limits: float
) -> Arrays:
    _checks.number(function, name, value, **limits)
    parameter = _checks.array(value).astype(_checks.compute_dtype(arrays.logits))
    return arrays._replace(parameters=(_checks.scalar(function, name, parameter),))


def softmax_log_prob(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """The log-probability of each row's class id: log p_y, p = softmax(logits).

        log p_y = z_y − log Σ_c exp(z_c)

    Args:
      logits: floating, shape (..., classes, ...).
      labels: integer class ids (actions, tokens), of the logits' shape without `axis`.
      axis, where, class_mask, ignore_index, logit_soft_cap, temperature,
        class_axis_name: as in `softmax_cross_entropy`.

    Returns:
      Log-probabilities in nats, of the logits' shape without `axis`; float32, or
      float64 for float64 logits. Reduce them with `reduce`.

    Numerics:
      As in `softmax_cross_entropy`; never above 0. A dropped row gives 0.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(jxent.softmax_log_prob(logits, jnp.array([0, 2])))
      [-0.23954 -0.09492]

    Source:
      The per-token log-probability of policy gradients, TRL's `selective_log_softmax`.

    See also:
      `softmax_entropy`, `reduce`, `softmax_cross_entropy`.
    """
    plan, arrays = check(
        "softmax_log_prob",
        logits,
        labels,
        axis,
        where,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        ids_only=True,
    )
    return _statistics_of(plan, arrays).log_prob


def softmax_entropy(
    logits: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_mask: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """The entropy of each row's softmax.

        H = −Σ_c p_c log p_c,   p = softmax(logits)

    Args:
      logits: floating, shape (..., classes, ...).
      axis, where, class_mask, logit_soft_cap, temperature, class_axis_name: as in
        `softmax_cross_entropy`.

    Returns:
      Entropies in nats, from 0 to log(classes), of the logits' shape without `axis`;
      float32, or float64 for float64 logits. Reduce them with `reduce`.

    Numerics:
      Formed relative to the row maximum, H = log Σ exp(z − max) − E_p[z − max], which
      loses nothing where logits are large. A class of −inf adds 0. A dropped row, or
      one with every class masked, gives 0; a row of −inf alone or with +inf, NaN.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> print(jxent.softmax_entropy(jnp.array([[0.0, 0.0], [0.0, -jnp.inf]])))
      [0.69315 0.     ]

    Source:
      Shannon (1948); the entropy bonus of policy gradients.

    See also:
      `entropy` for probabilities, `softmax_log_prob`, `reduce`.
    """
    plan, arrays = check(
        "softmax_entropy",
        logits,
        None,
        axis,
        where,
        class_mask=class_mask,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        entropy=True,
    )
    return _statistics_of(plan, arrays).entropy


def softmax_statistics(
    logits: ArrayLike,
    labels: ArrayLike | None = None,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    class_axis_name: AxisName = None,
    entropy: bool = False,
    argmax: bool = False,
) -> SoftmaxStatistics:
    """The row statistics that every softmax loss is a formula on, for losses of yours.

        shift = max_c z_c,   log_sum = log Σ_c exp(z_c − shift),   lse = shift + log_sum

    Args:
      logits: floating, shape (..., classes, ...).
      labels: class ids or distributions as in `softmax_cross_entropy`, or None.
      axis, where, class_mask, ignore_index, logit_soft_cap, temperature,
        class_axis_name: as in `softmax_cross_entropy`.
      class_weights: (classes,), for `weighted_logit` = Σ_c w_c (z_c − shift); with a
        distribution t they make its q_c = w_c t_c instead.
      entropy: also take `expected_logit`, which the property `entropy` needs.
      argmax: also take the class of the largest logit.

    Returns:
      `SoftmaxStatistics`, a NamedTuple whose fields have the logits' shape without
      `axis`, with the properties lse, log_prob and entropy, in nats; float32, or
      float64 for float64 logits.

    Numerics:
      As in `softmax_cross_entropy`. Fields are relative to the row maximum; prefer them
      to differences of lse. All are differentiable, shift as a constant. A dropped row
      is 0 in every field.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> s = jxent.softmax_statistics(
      ...     logits, jnp.array([0, 1]), entropy=True, argmax=True)
      >>> print(s.log_prob, s.entropy, s.argmax == jnp.array([0, 1]))
      [-0.23954 -3.09492] [0.66561 0.36551] [ True False]

    Source:
      Milakov and Gimelshein (2018), "Online normalizer calculation for softmax",
      https://arxiv.org/abs/1805.02867, for statistics that merge.

    See also:
      `softmax_cross_entropy` with return_statistics=True: loss and statistics at once.
    """
    plan, arrays = check(
        "softmax_statistics",
        logits,
        labels,
        axis,
        where,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_index=ignore_index,
        logit_soft_cap=logit_soft_cap,
        temperature=temperature,
        class_axis_name=class_axis_name,
        entropy=entropy,
        argmax=argmax,
    )
    return _statistics_of(plan, arrays)
