"""Devices that need not be there: XLA's real compilers run without them."""

import importlib.util
import os
from pathlib import Path

import jax
from jax.experimental import topologies


class MissingCompilerError(RuntimeError):
    """The compiler of a target is not installed; the message names its package."""


def _tpu_v5e() -> topologies.TopologyDescription:
    if importlib.util.find_spec("libtpu") is None:
        raise MissingCompilerError("pip install 'jxent[tpu]' brings its compiler")
    # Without these, libtpu asks a cloud's metadata server which machine this is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    return topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:1x1x1", chips_per_host_bounds=(1, 1, 1)
    )


def _h100() -> topologies.TopologyDescription:
    plugins = importlib.util.find_spec("jax_plugins")
    if not plugins or not importlib.util.find_spec("jax_plugins.xla_cuda13"):
        raise MissingCompilerError("pip install 'jxent[cuda]' brings its compiler")
    description = Path(__file__).with_name("h100.txt").read_text()
    return topologies.get_topology_desc(
        platform="cuda", topology="1 x 1 x 1", target_config=description
    )


TARGETS = {"tpu-v5e": ("tpu", _tpu_v5e), "h100": ("cuda", _h100)}


def compile_for(target: str, function, *arguments: jax.ShapeDtypeStruct):
    """`function` compiled ahead of time for one device of the target."""
    platform, topology = TARGETS[target]
    one = jax.sharding.SingleDeviceSharding(topology().devices[0])
    placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one) for x in arguments]
    traced = jax.jit(function).trace(*placed)
    return traced.lower(lowering_platforms=(platform,)).compile()
