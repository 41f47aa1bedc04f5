"""Strict modes for every test, and what the tests share."""

import gc
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from jxent._compute.platform import assume_platform
from tests.compiling import QUICKLY, as_flags, keep_programs, this_machine
from tests.rationing import (  # noqa: F401
    pytest_addoption,
    pytest_collection_modifyitems,
)


# Before jax starts its devices: eight of them, so that meshes are real.
flags = as_flags({"xla_force_host_platform_device_count": 8} | QUICKLY)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


# Progress bars show every step, however fast a machine is.
os.environ["TQDM_MININTERVAL"] = "0"

# What JAX traces it keeps, and leaves no cycles: a walk over all of it finds nothing.
gc.set_threshold(100_000, 10, 1000)

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


# The platforms whose forms a CPU runs too, where a test has the mark `each_platform`.
OTHERS = "gpu", "tpu"

# What a worker holds at the end of the suite, in bytes: programs, mostly.
OF_A_WORKER = 3 * 2**30


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers():
    """One worker for each core, as far as there is memory for them."""
    cores = yield
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory // OF_A_WORKER))


@pytest.fixture
def x64():
    """float64 on, for derivatives and for results near the truth."""
    with jax.enable_x64(True):
        yield


def pytest_generate_tests(metafunc):
    """The mark `each_platform` gives a test another axis: whose forms it runs."""
    marks = {m.name for m in metafunc.definition.iter_markers()}
    if "each_platform" in marks and not marks & {"compiles", "own_platform"}:
        others = [pytest.param(x, marks=pytest.mark.beyond_core) for x in OTHERS]
        here = pytest.param(None, id=pytest.HIDDEN_PARAM)
        metafunc.parametrize("platform", [here, *others], indirect=True)


@pytest.fixture(autouse=True)
def platform(request):
    """A CPU runs the forms of another platform; None is for its own."""
    with assume_platform(getattr(request, "param", None)):
        yield


@pytest.fixture
def as_users_have_it():
    """JAX's default promotions, which Keras and other peers rely on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def rng(request):
    """A generator of its own for every test."""
    return np.random.default_rng(sum(map(ord, request.node.name)))


@pytest.fixture
def batch(x64, rng):
    """Six logits, ids that avoid the masked class, and distributions of any mass."""
    from tests.cases import CLASSES, REAL  # after the flags above

    x = 3 * rng.normal(size=(6, CLASSES))
    y = rng.choice(np.flatnonzero(REAL), 6)
    return x, y, rng.uniform(0, 1, (6, CLASSES))


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    doctest_namespace.update(jxent=jxent, jnp=jnp, jax=jax)


def pytest_runtest_setup(item):
    """Programs come from pytest's cache where they can, but not in CI: each is new."""
    folder = None
    if "CI" not in os.environ and not item.get_closest_marker("compiles"):
        folder = item.config.cache.mkdir(f"programs-{this_machine()}")
    keep_programs(folder)


def pytest_collection_finish():
    """What is imported stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """One look for what the tests left behind; pytest's five find nothing new."""
    gc.collect()
    gc.freeze()
