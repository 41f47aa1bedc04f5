"""hidden @ kernel, in blocks of classes, summed in float32 or better."""

import jax.numpy as jnp
from jax import Array, lax

from ._arrays import cast, compute_dtype


def product(
    hidden: Array, kernel: Array, vocab_axis: int, *, low: bool, transpose: bool = False
) -> Array:
    """hidden @ kernel, or rows of logits @ kernelᵀ.

    Low: both factors are rounded to bfloat16, which is what a layer of that dtype does
    with a float32 kernel. They are handed over as float32, and the rounding is asked
    for as the product's algorithm: its transposes inherit it and give float32, where
    transposes of a bfloat16 product would round each block's gradient. Compilers for
    accelerators drop the casts; on a CPU a float32 product is the faster one.
    """
    dtype = compute_dtype(hidden, kernel)
    contract = vocab_axis if transpose else 1 - vocab_axis
    hidden, kernel = cast(hidden, dtype), cast(kernel, dtype)
    return dot(hidden, kernel, hidden.ndim - 1, contract, low)


def dot(a: Array, b: Array, a_axis: int, b_axis: int, low: bool) -> Array:
    """The product of two arrays over one axis of each, summed in their dtype."""
    precision = None
    # Of a vector XLA makes no product but a loop, which on a CPU takes no algorithm (in
    # jax 0.10). Nothing is rounded then.
    vector = a.size == a.shape[a_axis] or 1 in b.shape
    if low and a.dtype == jnp.float32 and not vector:
        precision = lax.DotAlgorithmPreset.BF16_BF16_F32
    return lax.dot_general(
        a,
        b,
        (((a_axis,), (b_axis,)), ((), ())),
        precision=precision,
        preferred_element_type=a.dtype,
    )
