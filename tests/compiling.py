"""How the tests have their programs compiled: most quickly, some as users do."""

import functools
import hashlib
import importlib.metadata
import math
import os
import platform
import re
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


# Nearly all programs here are compiled once and run once on a few numbers. XLA's own
# passes over a program run all the same; what is left out is LLVM's work on the loops.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}

# The way from fused operations to LLVM has a quicker predecessor, in jax 0.10.
if jax.__version_info__ < (0, 11):
    QUICKLY["xla_cpu_use_fusion_emitters"] = False
    AS_USERS["xla_cpu_use_fusion_emitters"] = True

# For programs that run for seconds: LLVM's first look at their loops pays.
TO_RUN_LONG = QUICKLY | {"xla_backend_optimization_level": 1}


def as_flags(options: dict[str, int | bool]) -> str:
    """Options of the compiler as the variable XLA_FLAGS has them."""
    return " ".join(f"--{name}={value}".lower() for name, value in options.items())


# For rounding, infinities and NaN, and for what a program holds in memory.
as_users_jit = functools.partial(jax.jit, compiler_options=AS_USERS)

# For tests of what a loss of logits in memory stores.
needs_fused_sums = pytest.mark.skipif(
    jax.__version_info__ < (0, 10, 2),
    reason="before jax 0.10.2 XLA on a CPU stores what it could sum as it forms it",
)


@functools.cache
def this_machine() -> str:
    """What a compiled program depends on beside itself, as a short name.

    JAX's own key of a program lacks the features of the CPU: a program that comes from
    a machine with more of them can crash.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = {line for line in lines if line.startswith(("flags", "Features"))}
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib")]
    parts = [platform.machine(), *versions, os.environ["XLA_FLAGS"], *sorted(features)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def keep_programs(folder: Path | None):
    """Has compiled programs kept in a folder and read from it, or does neither.

    JAX decides at its first program whether it has a cache, and which: hence the reset.
    The environment is for the processes that a test starts.
    """
    directory = "JAX_COMPILATION_CACHE_DIR"
    shortest = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    value = folder and str(folder)
    if value == os.environ.get(directory):
        return
    compilation_cache.reset_cache()
    jax.config.update(directory.lower(), value)
    jax.config.update(shortest.lower(), 0.0)
    os.environ[shortest] = "0"
    if value:
        os.environ[directory] = value
    else:
        del os.environ[directory]


def largest_array(text: str) -> int:
    """The most elements that any array of a compiled program has."""
    shapes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]+)\]", text)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)
