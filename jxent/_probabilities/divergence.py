"""Entropy and Kullback–Leibler divergences of probabilities."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._arrays import compute_dtype, select
from .._checks import ArrayLike, Axis
from .._compute.apart import constant
from .._compute.times import times_loss
from .sums import sum_of_terms
from .x_log_y import minus_x_log_x


def _entropy(p: Array) -> Array:
    return minus_x_log_x(p)


def _kl(log_q: Array, t: Array) -> Array:
    return times_loss(t, -log_q) - minus_x_log_x(t)


def _kl_log(log_q: Array, log_t: Array) -> Array:
    # Where log t is −∞, log q may be too.
    lowest = constant(-float(jnp.finfo(log_t.dtype).max) / 2, log_t)
    finite = jnp.maximum(lowest, log_t)
    return times_loss(jnp.exp(log_t), finite - log_q)


def _generalized_kl(log_q: Array, t: Array) -> Array:
    return _kl(log_q, t) + jnp.exp(log_q) - t


class _Sum(NamedTuple):
    term: Callable[..., Array]
    axes: tuple[int, ...]


@functools.partial(jax.jit, static_argnums=0)
def _sum_of_terms(plan: _Sum, arrays: tuple[Array, ...], where: Array | None) -> Array:
    """Σ of the terms where `where` allows, in float32 or better."""
    if where is None:
        return sum_of_terms(plan.term, plan.axes, *arrays)
    dtype = compute_dtype(*arrays)
    values = [x.astype(dtype) for x in arrays]
    # Twice: the terms left out must not poison the gradient either.
    safe = [select(where, x, 0.5) for x in values]
    terms = plan.term(*safe)
    return jnp.sum(select(where, terms), plan.axes)


def _targets(function: str, name: str, x: ArrayLike) -> Array:
    """Integers may be probabilities, of one-hot targets, but no logarithms of these."""
    x = _checks.as_array(function, name, x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        if name == "targets":
            return x
        raise TypeError(
            f"{function}: expected floating {name}, got dtype {x.dtype}. For targets "
            "that are no logarithms, one-hot say, call kl_divergence."
        )
    return _checks.floating(function, name, x)


def _divergence(
    function: str,
    term: Callable[..., Array],
    axis: Axis,
    where: ArrayLike | None,
    **named: ArrayLike,
) -> Array:
    (name, first), *rest = named.items()
    last, order = [*named.values()][-1], ", ".join(named)
    x = _checks.floating(function, name, first, beside=last, order=order)
    arrays = (x, *(_targets(function, n, other) for n, other in rest))
    for other_name, other in zip(named, arrays, strict=True):
        if other.shape != x.shape:
            hint = _checks.rearranged(other_name, other.shape, x.shape)
            _checks.fail(
                function,
                f"expected {other_name} of the shape of {name}, {x.shape}, "
                f"got {other.shape}. {hint or 'Neither broadcasts.'}",
            )
    front = _checks.class_axis(function, name, x, axis)
    axes = front if isinstance(front, tuple) else (front,)
    mask = None
    if where is not None:
        if len(axes) == 1:
            rows, classes = _checks.row_or_class_mask(function, where, x.shape, axes[0])
            mask = classes if rows is None else lax.expand_dims(rows, axes)
        else:
            mask = _checks.boolean(function, "where", where)
            mask = _checks.per_row(
                function, "where", mask, x.shape, f"the {name}' shape"
            )
    return _sum_of_terms(_Sum(term=term, axes=axes), arrays, mask)


def entropy(
    probs: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """The entropy of probabilities, in nats.

        H = −Σ_c p_c log p_c

    Args:
      probs: floating probabilities, shape (..., classes, ...); taken as they are.
      axis: the class axis, several, or None for all.
      where: boolean. Of the probabilities' rank: False leaves a class out. Of the rows'
        rank or a scalar: False makes the row 0.

    Returns:
      Entropies, of the probabilities' shape without `axis`; float32, or float64 for
      float64 probabilities. Divide by log 2 for bits.

    Numerics:
      0 log 0 = 0. The derivative at p = 0 is +inf; a huge number (1.8e19 in float32)
      stands for it, so that directions which leave p alone add 0. A negative
      probability gives NaN.

    Raises:
      TypeError: probs are not floating, or where is.
      ValueError: a shape does not fit.

    Example:
      >>> coin_and_certainty = jnp.array([[0.5, 0.5], [1.0, 0.0]])
      >>> print(jxent.entropy(coin_and_certainty))
      [0.69315 0.     ]

    Source:
      Shannon (1948), "A Mathematical Theory of Communication".

    See also:
      `softmax_entropy` for logits, `kl_divergence`.
    """
    return _divergence("entropy", _entropy, axis, where, probs=probs)


def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """The Kullback–Leibler divergence of predictions from targets, in nats.

        KL = Σ_c t_c (log t_c − log q_c)

    Args:
      log_predictions: log q, floating, shape (..., classes, ...).
      targets: t, probabilities of the same shape, floating or integer (one-hot).
      axis: the class axis, several, or None for all.
      where: boolean. Of the probabilities' rank: False leaves a class out. Of the rows'
        rank or a scalar: False makes the row 0.

    Returns:
      Divergences, of that shape without `axis`; float32, or float64 for float64 inputs.

    Numerics:
      0 log 0 = 0, and a log q of −inf where t = 0 counts 0; where t > 0 it gives +inf.
      Every derivative is finite; a huge number (1.8e19 in float32) stands for an
      infinite one.

    Raises:
      TypeError: log_predictions are not floating, targets are boolean, or where is
        floating.
      ValueError: shapes differ.

    Example:
      >>> log_q = jnp.log(jnp.array([0.5, 0.5]))
      >>> print(jxent.kl_divergence(log_q, jnp.array([1.0, 0.0])))
      0.69315

    Source:
      Optax's function of this name.

    See also:
      `kl_divergence_with_log_targets`, `generalized_kl_divergence`, `entropy`.
    """
    return _divergence(
        "kl_divergence",
        _kl,
        axis,
        where,
        log_predictions=log_predictions,
        targets=targets,
    )


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """The Kullback–Leibler divergence where the targets are logarithms too, in nats.

        KL = Σ_c exp(log t_c) (log t_c − log q_c)

    Args:
      log_predictions: log q, floating, shape (..., classes, ...).
      log_targets: log t, of the same shape.
      axis: the class axis, several, or None for all.
      where: boolean. Of the probabilities' rank: False leaves a class out. Of the rows'
        rank or a scalar: False makes the row 0.

    Returns:
      Divergences, of that shape without `axis`; float32, or float64 for float64 inputs.

    Numerics:
      A log t of −inf counts 0, also where log q is −inf.

    Raises:
      TypeError: an input is not floating, or where is.
      ValueError: shapes differ.

    Example:
      >>> log_q, log_t = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, -jnp.inf])
      >>> print(jxent.kl_divergence_with_log_targets(log_q, log_t))
      0.69315

    Source:
      Optax's function of this name.

    See also:
      `kl_divergence`.
    """
    return _divergence(
        "kl_divergence_with_log_targets",
        _kl_log,
        axis,
        where,
        log_predictions=log_predictions,
        log_targets=log_targets,
    )


def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """The Kullback–Leibler divergence of masses that need not sum to 1, in nats.

        KL = Σ_c t_c (log t_c − log q_c) + q_c − t_c

    Args:
      log_predictions: log q, floating, shape (..., classes, ...).
      targets: t ≥ 0, of the same shape, floating or integer.
      axis: the class axis, several, or None for all.
      where: boolean. Of the probabilities' rank: False leaves a class out. Of the rows'
        rank or a scalar: False makes the row 0.

    Returns:
      Divergences, of that shape without `axis`; float32, or float64 for float64 inputs.

    Numerics:
      As in `kl_divergence`.

    Raises:
      As `kl_divergence`.
      ValueError: shapes differ.

    Example:
      >>> log_q = jnp.log(jnp.array([0.5, 0.5]))
      >>> print(jxent.generalized_kl_divergence(log_q, jnp.array([1.0, 0.5])))
      0.19315

    Source:
      Optax's function of this name; Csiszár (1975).

    See also:
      `kl_divergence`.
    """
    return _divergence(
        "generalized_kl_divergence",
        _generalized_kl,
        axis,
        where,
        log_predictions=log_predictions,
        targets=targets,
    )
