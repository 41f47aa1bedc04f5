"""hidden @ kernel, in blocks of classes, summed in float32 or better."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, compute_dtype, is_moving
from .platform import by_platform


# In place of a precision, where hidden states are bfloat16: both factors are rounded to
# that, which is what a layer of that dtype does with a float32 kernel.
ROUNDED = "rounded to bfloat16"


def product_precision(precision: Any, hidden: Array) -> Any:
    """The precision of the products of `hidden`, if the caller asks for `precision`."""
    rounded = precision is None and hidden.dtype == jnp.bfloat16
    return ROUNDED if rounded else precision


def product(
    hidden: Array,
    kernel: Array,
    vocab_axis: int,
    precision: Any,
    *,
    transpose: bool = False,
) -> Array:
    """hidden @ kernel, or rows of logits @ kernelᵀ."""
    dtype = compute_dtype(hidden, kernel)
    contract = vocab_axis if transpose else 1 - vocab_axis
    # A float32 kernel would be cast as a whole, and the copy kept through a loop.
    narrow = kernel.dtype == jnp.bfloat16
    hidden, kernel = cast(hidden, dtype), cast(kernel, dtype)
    return dot(hidden, kernel, hidden.ndim - 1, contract, precision, narrow=narrow)


def dot(
    a: Array,
    b: Array,
    a_axis: int,
    b_axis: int,
    precision: Any,
    *,
    narrow: bool = True,
) -> Array:
    """The product of two arrays over one axis of each, summed in their dtype.

    What is to be rounded is handed over as float32 all the same, and casts that undo
    each other cost nothing. `narrow` is False where a CPU is to round nothing: a copy
    in bfloat16 would cost too much.
    """
    if precision != ROUNDED:
        return _dot(a_axis, b_axis, a, b, precision)
    # Of a vector XLA makes no product but a loop, which on a CPU takes no algorithm (in
    # jax 0.10). Nothing is rounded then.
    vector = a.size == a.shape[a_axis] or 1 in b.shape
    if a.dtype != jnp.float32 or vector:
        return _dot(a_axis, b_axis, a, b)
    return (_rounded_dot if narrow else _by_algorithm)(a_axis, b_axis, a, b)


def _dot(a_axis: int, b_axis: int, a: Array, b: Array, precision: Any = None) -> Array:
    return lax.dot_general(
        a,
        b,
        (((a_axis,), (b_axis,)), ((), ())),
        precision=precision,
        preferred_element_type=compute_dtype(a, b),
    )


def _by_algorithm(a_axis: int, b_axis: int, a: Array, b: Array) -> Array:
    """The rounding asked for as the product's algorithm, which transposes inherit.

    They give float32, where the transposes of a product of bfloat16 arrays would round
    each block's gradient. A CPU rounds nothing then.
    """
    return _dot(a_axis, b_axis, a, b, lax.DotAlgorithmPreset.BF16_BF16_F32)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _rounded_dot(a_axis: int, b_axis: int, a: Array, b: Array) -> Array:
    """The product of factors that are rounded to bfloat16, in float32."""

    def of_bfloat16(a: Array, b: Array) -> Array:
        return _dot(a_axis, b_axis, cast(a, jnp.bfloat16), cast(b, jnp.bfloat16))

    # A CPU multiplies in bfloat16 only what has that dtype, if it has instructions for
    # it; else XLA casts back.
    by_algorithm = functools.partial(_by_algorithm, a_axis, b_axis)
    return by_platform(a, b, cpu=of_bfloat16, default=by_algorithm)


@functools.partial(_rounded_dot.defjvp, symbolic_zeros=True)
def _rounded_dot_jvp(a_axis: int, b_axis: int, primals: Any, tangents: Any) -> Any:
    (a, b), (da, db) = primals, tangents
    terms = []
    if is_moving(da):
        terms.append(_by_algorithm(a_axis, b_axis, da, b))
    if is_moving(db):
        terms.append(_by_algorithm(a_axis, b_axis, a, db))
    return _rounded_dot(a_axis, b_axis, a, b), functools.reduce(lax.add, terms)
