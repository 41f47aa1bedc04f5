"""Strict modes for every test, and what the tests share."""

import os


# Before jax starts: eight devices, so that meshes are real.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent


jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """float64 on, for derivatives and for results near the truth."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng(request):
    """A generator of its own for every test."""
    return np.random.default_rng(sum(map(ord, request.node.name)))


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    doctest_namespace.update(jxent=jxent, jnp=jnp, jax=jax)
