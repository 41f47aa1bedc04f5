"""A few steps of the fused head on 8 devices, of one process or of two.

python tests/training.py ADDRESS PROCESS
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec as P,
)

import jxent


ROWS, FEATURES, CLASSES, STEPS = 32, 8, 64, 4


def train() -> list[float]:
    """The mean loss of every step, on a mesh of 4 × 2 devices.

    Of two processes with half of the devices each, both axes of the mesh cross from one
    to the other.
    """
    rng = np.random.default_rng(0)
    places = np.array([[0, 4], [5, 1], [2, 6], [7, 3]])
    devices, kinds = np.array(jax.devices())[places], (AxisType.Auto,) * 2
    mesh = Mesh(devices, ("data", "model"), axis_types=kinds)

    def split(x, *spec):
        sharding = NamedSharding(mesh, P(*spec))
        return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])

    ids = rng.integers(0, CLASSES, ROWS)
    ids[rng.random(ROWS) < 0.3] = -100
    hidden = split(rng.normal(size=(ROWS, FEATURES)).astype(np.float32), "data")
    kernel = rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    kernel = split(kernel, None, "model")
    labels = split(ids.astype(np.int32), "data")

    def loss(kernel, hidden, labels, implementation):
        return jxent.softmax_cross_entropy(
            jxent.LinearLogits(
                hidden, kernel, block_sizes=(8, 4), implementation=implementation
            ),
            labels,
            ignore_index=-100,
            label_smoothing=0.1,
            reduction="mean",
            class_axis_name="model",
            batch_axis_name="data",
        )

    @functools.partial(jax.jit, static_argnums=3)
    def step(kernel, hidden, labels, implementation):
        arguments = kernel, hidden, labels, implementation
        value, slope = jax.value_and_grad(loss)(*arguments)
        return kernel - jnp.float32(0.5) * slope, value

    losses = []
    with jax.set_mesh(mesh):
        for i in range(STEPS):
            implementation = ("streamed", "tiled")[i % 2]
            kernel, value = step(kernel, hidden, labels, implementation)
            losses.append(float(value))
    return losses


if __name__ == "__main__":
    address, process = sys.argv[1], int(sys.argv[2])
    jax.config.update("jax_platforms", "cpu")
    jax.distributed.initialize(address, 2, process, initialization_timeout=60)
    assert (jax.local_device_count(), jax.device_count()) == (4, 8)
    print(json.dumps(train()))
    jax.distributed.shutdown()
