"""What a training loop logs of a batch, as sums over its rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, select, sum_over_devices
from .._problem import Resolved, Rows, Settings, Shared, is_class
from .._reduction import weighed
from .._times import times
from .losses import losses_of, lse_squared


class LossSums(NamedTuple):
    """Sums over the rows of a batch, scalars. r is everything that multiplies a row.

    Sums of micro-batches or devices are added field by field,
    `jax.tree.map(jnp.add, a, b)`. What is divided by `weight` is a mean over all rows:
    loss / weight is `softmax_cross_entropy` with reduction="mean" and no z-loss.

    Attributes:
      loss: Σ r · cross-entropy, smoothing included and z-loss left out, in nats.
      z_loss: Σ r · z_loss · lse².
      entropy: Σ r · the entropy of the row's softmax, in nats.
      correct: Σ r over the rows whose largest logit is that of their label.
      weight: Σ r, what a mean divides by; `total_weight`.
    """

    loss: Array
    z_loss: Array
    entropy: Array
    correct: Array
    weight: Array


def sums_of(
    settings: Settings, rows: Rows, shared: Shared, resolved: Resolved
) -> LossSums:
    """The sums of class ids' losses, over all devices that split the rows."""
    unreduced = losses_of(settings, rows, shared._replace(z_loss=None), resolved)
    statistics, factor = unreduced.statistics, unreduced.class_factor
    assert resolved.ids is not None
    assert statistics is not None
    right = cast(lax.eq(statistics.argmax, resolved.ids), unreduced.losses.dtype)
    right = select(is_class(resolved.ids), right, jnp.nan)
    z_loss = lax.full_like(unreduced.losses, 0)
    if shared.z_loss is not None:
        z_loss = shared.z_loss * lse_squared(statistics, resolved, factor)

    def scaled(x: Array) -> Array:
        return x if factor is None else times(factor, x)

    sums = LossSums(
        loss=unreduced.losses,
        z_loss=z_loss,
        entropy=scaled(statistics.entropy),
        correct=scaled(right),
        weight=scaled(lax.full_like(unreduced.losses, 1)),
    )
    sums = jax.tree.map(
        lambda x: jnp.sum(weighed(x, resolved.keep, rows.weights)), sums
    )
    names = settings.batch_axis_name
    return sum_over_devices(sums, names)
