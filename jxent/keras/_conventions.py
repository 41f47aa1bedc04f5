"""What Keras does to probabilities and labels before a loss, by jxent's functions."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from .. import (
    _checks as _core_checks,
    _reduction,
)
from .._arrays import compute_dtype, select
from .._checks import ArrayLike
from .._labels.labels import smooth_labels
from .._probabilities.floored_log import floored_log, floored_log_1_minus


# Keras keeps probabilities this far from 0 and 1: keras.config.epsilon().
EPSILON = 1e-7


def log(p: Array) -> Array:
    """log p of a probability kept from 0 as Keras does; its derivative stays 1/p."""
    return floored_log(_inside(p), jnp.log(jnp.asarray(EPSILON, p.dtype)))


def log_1_minus(p: Array) -> Array:
    """log(1 − p), kept from 1 − p = 0 as far as Keras's subtraction does."""
    gap = 1 - jnp.asarray(1 - EPSILON, p.dtype)
    return floored_log_1_minus(_inside(p), jnp.log(gap))


def _inside(p: Array) -> Array:
    return select(~(p > 1), select(~(p < 0), p), 1)


def normalized(p: Array, axis: int) -> Array:
    return p / jnp.sum(p, axis, keepdims=True)


def mean(losses: Array, axis: int) -> Array:
    return _reduction.reduce(losses, axis=axis)


def class_sum(losses: Array, factors: Array, axis: int) -> Array:
    return _reduction.reduce(losses, weights=factors, axis=axis, reduction="sum")


def share_of(function: str, value: ArrayLike | None, x: Array) -> Array | None:
    """None for None and a Python 0."""
    return _core_checks.number_or_off(
        function, "label_smoothing", value, compute_dtype(x), off=0, low=0, high=1
    )


def smoothed(y: Array, smoothing: Array | None, axis: int) -> Array:
    return y if smoothing is None else smooth_labels(y, smoothing, axis=axis)


def towards_half(y: Array, smoothing: Array | None) -> Array:
    """Smoothing over two classes, yes and no."""
    return smoothed(jnp.stack([y, 1 - y]), smoothing, 0)[0]


# Each function checks its arguments, and hands them to one compiled call.
compiled = functools.partial(jax.jit, static_argnames=("from_logits", "axis"))


def at_least_two(x: Array, from_logits: bool, axis: int) -> tuple[Array, bool]:
    """y_pred in the dtype of the computation; one class alone is certain."""
    x = x.astype(compute_dtype(x))
    if x.shape[axis] == 1:
        return jnp.ones_like(x), False
    return x, from_logits
