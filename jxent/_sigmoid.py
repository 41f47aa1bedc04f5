"""Binary and multi-label losses: formulas in log σ(z) and log σ(−z)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from . import _checks
from ._arrays import broadcast_like, compute_dtype, select
from ._checks import ArrayLike, AxisName
from ._reduction import Reduction, combine, times


# The formulas -------------------------------------------------------------------------


def binary(log_p: Array, log_q: Array, y: Array, pos_weight: Array | None) -> Array:
    """−(w⁺ y log p + (1 − y) log q), q = 1 − p"""
    positive = y if pos_weight is None else pos_weight * y
    return times(positive, -log_p) + times(1 - y, -log_q)


def focal(
    z: Array, log_p: Array, log_q: Array, y: Array, gamma: Array, alpha: Array | None
) -> Array:
    """α_t (1 − p_t)^γ · binary, p_t = y p + (1 − y) q, α_t = y α + (1 − y)(1 − α)"""
    loss = binary(log_p, log_q, y, None)
    weight = jnp.exp(times(gamma, _log_miss(z, y)))
    loss = times(weight, loss)
    if alpha is None:
        return loss
    return times(alpha * y + (1 - alpha) * (1 - y), loss)


# log(1 − p_t) = log m, m = y σ(−z) + (1 − y) σ(z). With u = σ(−z)/m, d = σ(z)/m and the
# shares y u + (1 − y) d = 1 of the two terms,
#
#     d log m = ((1 − y) d σ(−z) − y u σ(z)) dz + (u − d) dy
#     d u     = −u ((1 − y) d dz + (u − d) dy)
#     d d     = d (y u dz − (u − d) dy)
#
# u and d are formed from logarithms: m itself underflows for a confident z.
@jax.custom_jvp
def _log_miss(z: Array, y: Array) -> Array:
    of_1 = jnp.log(y) - jax.nn.softplus(z)
    return jnp.logaddexp(of_1, jnp.log1p(-y) - jax.nn.softplus(-z))


@_log_miss.defjvp
def _log_miss_jvp(primals: Any, tangents: Any) -> Any:
    (z, y), (dz, dy) = primals, tangents
    u, d = _ratios(z, y)
    slope_z = (1 - y) * d * jax.nn.sigmoid(-z) - y * u * jax.nn.sigmoid(z)
    return _log_miss(z, y), slope_z * dz + (u - d) * dy


@jax.custom_jvp
def _ratios(z: Array, y: Array) -> tuple[Array, Array]:
    """u and d, at most a huge number (see finite_slope)."""
    largest = jnp.finfo(z.dtype).max
    z = jnp.clip(z, -largest, largest)  # −∞ + z is −∞
    log_y, log_not_y = jnp.log(y), jnp.log1p(-y)
    u = jnp.exp(-jnp.logaddexp(log_y, log_not_y + z))
    d = jnp.exp(-jnp.logaddexp(log_y - z, log_not_y))
    return jnp.minimum(u, _huge(u)), jnp.minimum(d, _huge(d))


@_ratios.defjvp
def _ratios_jvp(primals: Any, tangents: Any) -> Any:
    (z, y), (dz, dy) = primals, tangents
    u, d = _ratios(z, y)
    du = -u * ((1 - y) * d * dz + (u - d) * dy)
    dd = d * (y * u * dz - (u - d) * dy)
    return (u, d), (select(u != _huge(u), du), select(d != _huge(d), dd))


def _huge(x: Array) -> Array:
    return jnp.sqrt(jnp.asarray(jnp.finfo(x.dtype).max, x.dtype))


# The public functions -----------------------------------------------------------------


class _Arrays(NamedTuple):
    x: Array  # logits, or probabilities
    labels: Array
    label_smoothing: Array | None
    class_weights: Array | None
    pos_weight: Array | None
    where: Array | None
    weights: Array | None
    normalizer: Array | None
    parameters: tuple[Array | None, ...] = ()


class _Plan(NamedTuple):
    formula: Callable[..., Array]
    of_probabilities: bool
    reduction: str
    batch_axis_name: tuple[str, ...]


def check(
    function: str,
    name: str,
    x: ArrayLike,
    labels: ArrayLike,
    *,
    formula: Callable[..., Array],
    pos_weight: ArrayLike | None = None,
    class_weights: ArrayLike | None,
    label_smoothing: Any,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    reduction: str,
    normalizer: ArrayLike | None,
    batch_axis_name: AxisName,
) -> tuple[_Plan, _Arrays]:
    """Every argument of the binary family, checked and shaped."""
    order = f"{name}, labels"
    x = _checks.floating(function, name, x, beside=labels, order=order)
    y = _checks.label_array(function, "labels", labels)
    if y.ndim:
        _checks.same_shape(function, name, x, y)
    dtype = compute_dtype(x)

    if where is not None:
        where = _checks.boolean(function, "where", where)
        where = _checks.per_row(function, "where", where, x.shape)
    if weights is not None:
        weights = _checks.real(function, "weights", weights, dtype, booleans=True)
        weights = _checks.per_row(function, "weights", weights, x.shape)
    if class_weights is not None:
        class_weights = _checks.real(
            function, "class_weights", class_weights, dtype, booleans=True
        )
        _checks.per_class(function, "class_weights", class_weights, x.shape[-1:])
    if pos_weight is not None:
        pos_weight = _from_the_right(function, "pos_weight", pos_weight, x)
    _checks.reduction(function, reduction, normalizer)
    names = _checks.bound_axis_names(function, "batch_axis_name", batch_axis_name, x, y)
    arrays = _Arrays(
        x=x,
        labels=y,
        label_smoothing=_checks.number_or_off(
            function, "label_smoothing", label_smoothing, dtype, off=0, low=0, high=1
        ),
        class_weights=class_weights,
        pos_weight=pos_weight,
        where=where,
        weights=weights,
        normalizer=_checks.normalizer(function, normalizer, dtype),
    )
    return _Plan(
        formula=formula,
        of_probabilities=name == "probs",
        reduction=reduction,
        batch_axis_name=names,
    ), arrays


def _from_the_right(function: str, name: str, value: ArrayLike, x: Array) -> Array:
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


@functools.partial(jax.jit, static_argnums=0)
def loss(plan: _Plan, a: _Arrays) -> Array:
    dtype = compute_dtype(a.x)
    x, y = a.x.astype(dtype), a.labels.astype(dtype)
    y = broadcast_like(y, x)
    keep = usable = a.where
    possible = None
    if a.weights is not None:
        # Dropped too, but computed where it can be: under a weight of 0 the loss is the
        # derivative in that weight.
        possible = (y >= 0) & (y <= 1) & ~jnp.isnan(x)
        if plan.of_probabilities:
            possible &= (x > 0) & (x < 1)
        possible |= a.weights != 0
        usable = possible if keep is None else keep & possible
    if usable is not None:
        x = select(usable, x, 0.5)
        y = select(usable, y, 0.5)
    if a.label_smoothing is not None:
        y = (1 - a.label_smoothing) * y + a.label_smoothing / 2
    losses = plan.formula(x, y, a.pos_weight, *a.parameters)
    if possible is not None:
        losses = select(possible, losses)
    factor = None
    if a.class_weights is not None:
        factor = jax.lax.expand_dims(a.class_weights, tuple(range(x.ndim - 1)))
        losses = times(factor, losses)
    return combine(
        losses,
        keep=keep,
        weights=a.weights,
        class_factor=factor,
        reduction=plan.reduction,
        normalizer=a.normalizer,
        batch_axis_name=plan.batch_axis_name,
    )


def _binary_of_logits(z: Array, y: Array, pos_weight: Array | None) -> Array:
    return binary(-jax.nn.softplus(-z), -jax.nn.softplus(z), y, pos_weight)


def _focal_of_logits(
    z: Array,
    y: Array,
    pos_weight: Array | None,
    gamma: Array,
    alpha: Array | None,
) -> Array:
    del pos_weight  # α takes its place
    return focal(z, -jax.nn.softplus(-z), -jax.nn.softplus(z), y, gamma, alpha)


def sigmoid_binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Binary cross-entropy of logits with yes/no labels, element by element.

        loss = −(w⁺ y log p + (1 − y) log(1 − p)),   p = σ(z) = 1/(1 + exp(−z))

    One logit for each yes/no question: (batch,) for one, (batch, classes) for several
    labels that may all hold at once.

    Args:
      logits: floating, any shape.
      labels: of the logits' shape, boolean, integer or floating: 1 for yes, 0 for no,
        or a probability. One number is the label of every element; no other shape
        broadcasts.
      pos_weight: w⁺ multiplies the y-term: a number, or one for each class of the last
        axis (any shape that broadcasts from the right). n_no / n_yes balances.
      class_weights: factors of the losses, one for each class of the last axis.
      label_smoothing: ε moves labels towards ½, y (1 − ε) + ε/2. None for no smoothing.
      where: boolean, a scalar or of the losses' rank (axes of size 1 allowed). False
        drops an element.
      weights: factors of the losses, shaped like where. Exactly 0 drops as well.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r over all elements,
        r = where · weights · class_weights.
      normalizer: what the mean divides by in place of Σ r.
      batch_axis_name: the mesh axes that the elements are split over, inside
        `jax.shard_map`: the mean and the sum run over them too.

    Returns:
      The losses in nats, of the logits' shape, or a scalar; float32, or float64 for
      float64 logits.

    Numerics:
      bfloat16 and float16 are computed in float32; each gradient has its input's dtype.
      Exact at every logit, ±inf included: 0 or +inf, with a finite gradient. No
      epsilon, no clip. A dropped element is exactly 0 with gradient 0, whatever it
      holds.

    Raises:
      TypeError: logits are not floating, where is floating, or a bool stands for a
        number.
      ValueError: shapes differ, or a Python number is out of range.

    Example:
      >>> logits = jnp.array([2.0, -1.0, jnp.inf])
      >>> print(jxent.sigmoid_binary_cross_entropy(logits, jnp.array([1, 0, 1])))
      [0.12693 0.31326 0.     ]

      A GAN's discriminator, whose logits are all of real examples, or all of fakes:

      >>> real, fake = jnp.array([2.0, 0.5]), jnp.array([-1.0, 0.0])
      >>> print(jxent.sigmoid_binary_cross_entropy(real, 1.0, reduction="mean")
      ...     + jxent.sigmoid_binary_cross_entropy(fake, 0.0, reduction="mean"))
      0.8037

    Source:
      Optax's function of this name, which broadcasts labels of any shape and computes
      bfloat16 in bfloat16; PyTorch's `BCEWithLogitsLoss` for pos_weight; Keras's
      `BinaryCrossentropy(from_logits=True)` for label_smoothing.

    See also:
      `binary_cross_entropy` for probabilities, `sigmoid_focal_loss`.
    """
    plan, arrays = check(
        "sigmoid_binary_cross_entropy",
        "logits",
        logits,
        labels,
        formula=_binary_of_logits,
        pos_weight=pos_weight,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        where=where,
        weights=weights,
        reduction=reduction,
        normalizer=normalizer,
        batch_axis_name=batch_axis_name,
    )
    return loss(plan, arrays)


def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
    class_weights: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "none",
    normalizer: ArrayLike | None = None,
    batch_axis_name: AxisName = None,
) -> Float[Array, "..."]:
    """Sigmoid focal loss: binary cross-entropy that cares less for what is right.

        loss = α_t (1 − p_t)^γ · −(y log p + (1 − y) log(1 − p)),   p = σ(z)
        p_t = y p + (1 − y)(1 − p),   α_t = y α + (1 − y)(1 − α)

    Args:
      logits: floating, any shape.
      labels: of the logits' shape, boolean, integer or floating: 1 for yes, 0 for no,
        or a probability. One number is the label of every element; no other shape
        broadcasts.
      alpha: α between 0 and 1, the weight of label 1; None for no weighting.
      gamma: γ, at least 0. At 0 this is binary cross-entropy.
      class_weights: factors of the losses, one for each class of the last axis.
      label_smoothing: ε moves labels towards ½, y (1 − ε) + ε/2. None for no smoothing.
      where: boolean, a scalar or of the losses' rank (axes of size 1 allowed). False
        drops an element.
      weights: factors of the losses, shaped like where. Exactly 0 drops as well.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r over all elements, r =
        where · weights · class_weights.
      normalizer: what the mean divides by in place of Σ r.
      batch_axis_name: the mesh axes that the elements are split over, inside
        `jax.shard_map`: the mean and the sum run over them too.

    Returns:
      The losses in nats, of the logits' shape, or a scalar; float32, or float64 for
      float64 logits.

    Numerics:
      As in `sigmoid_binary_cross_entropy`. (1 − p_t)^γ is formed in log space: every
      derivative is finite for every γ.

    Raises:
      As `sigmoid_binary_cross_entropy`.
      ValueError: also for gamma or alpha, as Python numbers, out of range.

    Example:
      >>> logits = jnp.array([2.0, -1.0, 0.0])
      >>> print(jxent.sigmoid_focal_loss(logits, jnp.array([1, 0, 1]), alpha=0.25))
      [0.00045 0.01699 0.04332]

    Source:
      Lin et al. (2017), "Focal Loss for Dense Object Detection",
      https://arxiv.org/abs/1708.02002; Optax's function of this name.

    See also:
      `softmax_focal_loss`, `sigmoid_binary_cross_entropy`.
    """
    name = "sigmoid_focal_loss"
    plan, arrays = check(
        name,
        "logits",
        logits,
        labels,
        formula=_focal_of_logits,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        where=where,
        weights=weights,
        reduction=reduction,
        normalizer=normalizer,
        batch_axis_name=batch_axis_name,
    )
    dtype = compute_dtype(arrays.x)
    gamma = _checks.number(name, "gamma", gamma, dtype, low=0)
    if alpha is not None:
        _checks.in_range(name, "alpha", alpha, low=0, high=1)
        alpha = _from_the_right(name, "alpha", alpha, arrays.x)
    return loss(plan, arrays._replace(parameters=(gamma, alpha)))
