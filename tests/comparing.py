"""What tests compare: trees of arrays, bits, and the words of an error."""

from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest


def close(got, wanted, tolerance=1e-12):
    """Trees whose leaves are equal up to a tolerance, relative and absolute."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def same(a, b, rtol=1e-6, atol=1e-8):
    """Two arrays, or what becomes one."""
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def same_bits(got, wanted):
    """Trees of the same arrays, dtypes included."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def factors_of(losses):
    """A number for every row, each another one."""
    return np.cos(np.arange(losses.size)).astype(losses.dtype).reshape(losses.shape)


def weighed_rows(losses):
    """One number in which every row counts differently."""
    return (losses * factors_of(losses)).sum()


def weighed(results):
    """One number in which every floating result counts, and not linearly."""
    total = 0.0
    for x in jax.tree.leaves(results):
        if jnp.issubdtype(x.dtype, jnp.floating):
            factors = np.cos(np.arange(x.size)).astype(x.dtype).reshape(x.shape)
            total = total + jnp.sum(factors * jnp.sin(x))
    return total


def floats(*shape):
    return jax.device_put(np.zeros(shape, np.float32))


def ints(*shape):
    return jax.device_put(np.zeros(shape, np.int32))


def untyped(x) -> Any:
    """Past the static type checker too."""
    return x


WAYS_TO_CALL = (
    lambda call: call(),
    lambda call: jax.jit(call)(),
    lambda call: jax.eval_shape(call),
)


def refuses(call, kind, text):
    """`call` raises this error and says this, in every mode: it waits for no value."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # the sentences are jxent's own
    try:
        for run in WAYS_TO_CALL:
            with pytest.raises(kind) as error:
                run(call)
            assert type(error.value) is kind
            assert str(error.value) == text, str(error.value)
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
