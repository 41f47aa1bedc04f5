"""Logits in memory: the losses that are timed and compiled, and their peers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jxent


Loss = Callable[..., jax.Array]

# Everything on: class weights, ignored labels, smoothing and z-loss.
EPSILON, Z_LOSS, IGNORED = 0.1, 1e-4, -100


def jxent_plain(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    del weights
    return jxent.softmax_cross_entropy(logits, labels, reduction="mean")


def jxent_everything(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    return jxent.softmax_cross_entropy(
        logits,
        labels,
        class_weights=weights,
        ignore_index=IGNORED,
        label_smoothing=EPSILON,
        z_loss=Z_LOSS,
        reduction="mean",
    )


def optax_plain(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Optax behind the cast to float32 that training code puts before it."""
    del weights
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def optax_everything(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """The same options as they are written with Optax: one-hot, smoothed, masked."""
    logits = logits.astype(jnp.float32)
    classes = logits.shape[-1]
    kept = labels != IGNORED
    ids = jnp.where(kept, labels, 0)
    targets = optax.smooth_labels(jax.nn.one_hot(ids, classes), EPSILON)
    losses = optax.softmax_cross_entropy(logits, targets * weights)
    losses = losses + Z_LOSS * weights[ids] * jax.nn.logsumexp(logits, -1) ** 2
    return jnp.sum(losses * kept) / jnp.sum(weights[ids] * kept)


LOSSES: dict[str, Loss] = {
    "Optax, plain": optax_plain,
    "jxent, plain": jxent_plain,
    "jxent, everything on": jxent_everything,
    "Optax, everything on": optax_everything,
}

PASSES: dict[str, Callable[[Loss], Callable[..., Any]]] = {
    "forward": lambda loss: loss,
    "value_and_grad": jax.value_and_grad,
}


def inputs(rows: int, classes: int, dtype: str) -> tuple[jax.Array, ...]:
    """Logits with a plausible spread, labels, and class weights around 1."""
    keys = jax.random.split(jax.random.key(0), 3)
    logits = 3 * jax.random.normal(keys[0], (rows, classes))
    labels = jax.random.randint(keys[1], (rows,), 0, classes)
    weights = jax.random.uniform(keys[2], (classes,), minval=0.5, maxval=1.5)
    return logits.astype(dtype), labels, weights
