"""Functions of arrays that a mesh of the host's devices splits."""

import jax
from jax.sharding import (
    AxisType,
    NamedSharding,
    PartitionSpec as P,
)


AXES = "data", "model"
NAMES = {"batch_axis_name": "data", "class_axis_name": "model"}
KINDS = AxisType.Auto, AxisType.Explicit


def mesh_of(shape=(2, 2), kind=AxisType.Auto):
    return jax.make_mesh(shape, AXES, axis_types=(kind,) * 2)


def placed(mesh, arrays, specs):
    """Arrays on a mesh: a tree of them as their spec says."""

    def put(spec, part):
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(lambda x: jax.device_put(x, sharding), part)

    return jax.tree.map(put, specs, arrays, is_leaf=lambda x: isinstance(x, P))


def on_mesh(f, arrays, specs, *, results=None, shape=(2, 2), kind=AxisType.Auto):
    """f(*arrays) under jit, with the arrays split over a mesh that is in context.

    With the specs of its results f is inside a shard_map over all of the mesh.
    """
    mesh = mesh_of(shape, kind)
    with jax.set_mesh(mesh):
        if results is not None:
            f = jax.shard_map(f, in_specs=specs, out_specs=results)
        return jax.jit(f)(*placed(mesh, arrays, specs))
