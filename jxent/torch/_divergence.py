"""The divergence: PyTorch's arguments, mapped onto jxent's two."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _reduction
from .._arrays import compute_dtype
from .._checks import ArrayLike, flag
from .._probabilities.divergence import kl_divergence, kl_divergence_with_log_targets
from . import _checks
from ._reduce import or_nan, over_elements


def kl_div(
    input: ArrayLike,
    target: ArrayLike,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Float[Array, "..."]:
    """`torch.nn.functional.kl_div` of log-probabilities, element by element.

        loss = t (log t − input),   mean = Σ loss / elements,   batchmean = Σ loss / N

    Args:
      input: floating log-probabilities, any shape.
      target: t, probabilities, or log t with log_target; input and target broadcast
        against each other.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "batchmean", "mean" or "sum". The divergence of a batch of
        distributions is "batchmean"; "mean" divides by the classes too.
      log_target: whether the target holds log t.

    Returns:
      float32, or float64 for float64 arguments: of the broadcast shape, or a scalar.

    Differences:
      What has no mass counts 0: a log t of −inf, and an input of −inf where t = 0;
      PyTorch has NaN there, and in the gradient of t = 0. No warning about "mean".
      bfloat16 and float16 are computed and returned in float32.

    Example:
      >>> input = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
      >>> target = jnp.array([[1.0, 0.0], [0.5, 0.5]])
      >>> print(jxent.torch.kl_div(input, target, reduction="batchmean"))
      0.60199

    Source:
      PyTorch's function of this name.

    See also:
      `jxent.kl_divergence`, one number a distribution.
    """
    name = "kl_div"
    allowed = ("none", "batchmean", "mean", "sum")
    reduction = _checks.reduction(name, reduction, size_average, reduce, allowed)
    x = _checks.floating(name, "input", input, beside=target)
    t = _checks.floating(name, "target", target)
    _checks.broadcastable(name, x, t)
    log_target = flag(name, "log_target", log_target)
    return _kl_div(x, t, reduction=reduction, log_target=log_target)


@functools.partial(jax.jit, static_argnames=("reduction", "log_target"))
def _kl_div(x: Array, t: Array, *, reduction: str, log_target: bool) -> Array:
    dtype = compute_dtype(x, t)
    examples = x.shape[0] if x.ndim else 1
    shape = jnp.broadcast_shapes(x.shape, t.shape)
    x = jnp.broadcast_to(x.astype(dtype), shape)
    t = jnp.broadcast_to(t.astype(dtype), shape)
    divergence = kl_divergence_with_log_targets if log_target else kl_divergence
    # Each element as a sum over one class of its own.
    losses = divergence(x[..., None], t[..., None])
    if reduction != "batchmean":
        return over_elements(losses, None, reduction)
    count = jnp.asarray(examples, dtype)
    return or_nan(_reduction.reduce(losses, normalizer=count), count)
