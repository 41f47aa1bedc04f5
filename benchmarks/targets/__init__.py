"""Devices that need not be there: XLA's real compilers run without them."""

import functools
import glob
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from ..limits import Limits


class MissingCompilerError(RuntimeError):
    """The compiler of a target is not installed; the message names its package."""


class Target(NamedTuple):
    """A kind of device.

    Attributes:
      platform: JAX's name of it, and `lowering`: that of its compiler.
      kind: a part of `device_kind` by which a real one is known.
      files: patterns of the files that tell that a driver has one.
      topology: devices of the kind, by their number, 1 or 8.
      limits: the maker's numbers, of one device.
    """

    platform: str
    lowering: str
    kind: str
    files: tuple[str, ...]
    topology: Callable[[int], topologies.TopologyDescription]
    limits: Limits

    def present(self) -> bool:
        """Whether this machine has one."""
        if not any(glob.glob(pattern) for pattern in self.files):
            return False
        return self.kind in jax.devices()[0].device_kind

    def devices(self, count: int) -> Sequence[Any]:
        return self.topology(count).devices


@functools.cache
def _tpu_v5e(count: int) -> topologies.TopologyDescription:
    if importlib.util.find_spec("libtpu") is None:
        raise MissingCompilerError("pip install -e '.[tpu]' brings its compiler")
    # Without these, libtpu asks a cloud's metadata server which machine this is, and
    # lets no other process compile.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    shape = {1: "1x1", 8: "2x4"}[count]
    one = {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {}
    return topologies.get_topology_desc(
        platform="tpu", topology_name=f"v5e:{shape}", **one
    )


@functools.cache
def _h100(count: int) -> topologies.TopologyDescription:
    plugins = importlib.util.find_spec("jax_plugins")
    if not plugins or not importlib.util.find_spec("jax_plugins.xla_cuda13"):
        raise MissingCompilerError("pip install -e '.[cuda]' brings its compiler")
    description = Path(__file__).with_name("h100.txt").read_text(encoding="utf-8")
    return topologies.get_topology_desc(
        platform="cuda", topology=f"1 x {count} x 1", target_config=description
    )


TARGETS = {
    "tpu-v5e": Target(
        "tpu",
        "tpu",
        "TPU v5 lite",
        ("/dev/accel*", "/dev/vfio/[0-9]*"),
        _tpu_v5e,
        # float32 products pass through the bfloat16 unit, once by default.
        Limits(819e9, {"bfloat16": 197e12, "float32": 197e12}),
    ),
    "h100": Target(
        "gpu",
        "cuda",
        "H100",
        ("/dev/nvidia[0-9]*",),
        _h100,
        # float32 products in TF32, by default.
        Limits(3352e9, {"bfloat16": 989e12, "float32": 494e12}),
    ),
}
