"""How the tests have their programs compiled: most quickly, some as users do."""

import functools
import math
import re

import jax


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


def largest_array(text: str) -> int:
    """The most elements that any array of a compiled program has."""
    shapes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]+)\]", text)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)
