"""Where a problem lies on a mesh: which mesh axes split it, and the work of one device.

A loop over blocks of an array that is split would move the blocks between devices. So
the fused head enters `jax.shard_map` over the axes that split its rows and classes,
each device takes its own part, and what is summed over devices is summed once. Where
a `shard_map` of the caller's binds these axes, the arrays are already that part.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from .. import _checks
from .._arrays import is_split, vary
from .._problem.bundles import Axes, map_fields
from .._problem.problem import HeadSharding, Problem, Settings, is_bundle


def mesh_size(sharding: HeadSharding, names: tuple[str, ...]) -> int:
    """How many devices mesh axes have together."""
    mesh = sharding.mesh
    return math.prod(mesh.shape[n] for n in names) if mesh else 1


def row_spec(sharding: HeadSharding) -> PartitionSpec:
    """The spec of an array (rows,), or with more axes behind, which stay whole."""
    return PartitionSpec(*(n or None for n in sharding.row_axes))


def _mesh_of(*arrays: Array | None) -> AbstractMesh | None:
    """The mesh in context, or where none is set that of an argument."""
    here = jax.sharding.get_abstract_mesh()
    if not here.empty:
        return here
    for x in arrays:
        if x is not None:
            mesh: Any = jax.typeof(x).sharding.mesh
            if not mesh.empty:
                return mesh.abstract_mesh
    return None


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec, or of an argument."""
    return entry if isinstance(entry, tuple) else (entry,) if entry else ()


def _typed(x: Array) -> tuple[tuple[str, ...], ...]:
    """The explicit mesh axes that split each axis of an array."""
    sharding: Any = jax.typeof(x).sharding
    entries = map(_names, sharding.spec)
    return (*entries, *[()] * (x.ndim - len(sharding.spec)))


def head_sharding(
    function: str,
    hidden: Array,
    kernel: Array,
    vocab_axis: int,
    others: tuple[Array | None, ...] = (),
    *,
    class_axis_name: _checks.AxisName = None,
    batch_axis_name: _checks.AxisName,
) -> HeadSharding:
    """Explicit mesh axes come from the arrays' types, automatic ones from the names."""
    mesh = _mesh_of(hidden, kernel, *others)
    if mesh is None:
        return HeadSharding()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))

    def automatic(names: _checks.AxisName) -> tuple[str, ...]:
        return tuple(n for n in _names(names) if kinds.get(n) == AxisType.Auto)

    *row_axes, _ = _typed(hidden)
    named = automatic(batch_axis_name)
    if row_axes and named:
        everything = row_axes[0] + named
        parts = math.prod(mesh.shape[n] for n in everything)
        if hidden.shape[0] % parts == 0:
            row_axes[0] = everything
    taken = sum(row_axes, ())
    typed = _typed(kernel)[vocab_axis]
    classes = tuple(n for n in typed + automatic(class_axis_name) if n not in taken)
    if not taken and not classes and AxisType.Explicit not in kinds.values():
        return HeadSharding()
    sharding = HeadSharding(row_axes=tuple(row_axes), class_axes=classes, mesh=mesh)
    count, parts = kernel.shape[vocab_axis], mesh_size(sharding, classes)
    if count % parts:
        _checks.fail(
            function,
            f"expected classes that divide evenly over the {parts} devices of mesh "
            f"axes {classes}, got {count}. Pad the kernel by {-count % parts} classes, "
            "and give a class_mask that is False for them.",
        )
    return sharding


def specs_of(settings: Settings, bundle: Any) -> Any:
    """How each field of a bundle is split: by the axes that it is declared with.

    Axes of size 1 are broadcast, so they are not sharded; features never are.
    """
    sharding = settings.sharding

    def spec(axes: Axes, x: Any) -> PartitionSpec:
        entries: list[tuple[str, ...]] = []
        for axis in axes.order:
            if axis == "rows":
                entries += sharding.row_axes
            else:
                entries.append(sharding.class_axes if axis == "classes" else ())
        sizes = zip(entries, x.shape, strict=False)
        divided = (n if size % mesh_size(sharding, n) == 0 else () for n, size in sizes)
        return PartitionSpec(*(n or None for n in divided))

    return map_fields(spec, bundle)


def vary_fields(bundle: Any, everywhere: frozenset[str], settings: Settings) -> Any:
    """Operands of a loop that may differ between devices, so that the sums over devices
    that JAX puts into their derivatives stand outside of the loop.

    What acts after the merge of the classes must not differ along their mesh axes: its
    derivative would be summed over them, and every device has all of it.
    """

    def one(axes: Axes, x: Array) -> Array:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        acts_on_logits = floating and not axes.after_merge
        here = everywhere
        if not acts_on_logits and not _has_classes(axes, x):
            here = everywhere - set(settings.class_axis_name)
        return vary(x, here)

    return map_fields(one, bundle)


def _has_classes(axes: Axes, x: Array) -> bool:
    """Whether an array has the axis of classes: class ids, among labels, have none."""
    return "classes" in axes.order and x.ndim >= len(axes.order)


def gradients_over_devices(
    settings: Settings, gradients: Any, operands: Any, specs: Any
) -> Any:
    """Gradients of one device's part, summed over the axes that do not split them.

    Between devices they travel in bfloat16 where the operand is, as gradients in JAX
    do: in float32 they would be twice the bytes.
    """
    sharding = settings.sharding

    def total(axes: Axes, x: Array, spec: Any, operand: Array) -> Array:
        names = set(sharding.row_names)
        if not axes.after_merge:
            names |= set(sharding.class_axes)
        names -= {n for entry in spec for n in _names(entry)}
        if not names:
            return x
        low = operand.dtype == jnp.bfloat16
        y = x.astype(jnp.bfloat16) if low else x
        return lax.psum(y, tuple(sorted(names))).astype(x.dtype)

    return map_fields(total, gradients, specs, operands)


def resharded(mesh: AbstractMesh | None, tree: Any, specs: Any) -> Any:
    """Arrays split by their specs as far as the mesh's axes are explicit."""
    if mesh is None:
        return tree
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))

    def explicit(entry: Any) -> tuple[str, ...]:
        return tuple(n for n in _names(entry) if kinds[n] == AxisType.Explicit)

    def one(x: Array, spec: PartitionSpec) -> Array:
        split = tuple(explicit(n) for n in spec)
        split = (*split, *[()] * (x.ndim - len(split)))
        if split == _typed(x):
            return x
        entries = PartitionSpec(*(n or None for n in split))
        return jax.sharding.reshard(x, NamedSharding(mesh, entries))

    return jax.tree.map(one, tree, specs)


def on_devices(problem: Problem) -> Problem:
    """All operands split as the rows of hidden and the classes of the kernel are.

    Explicit axes may split an operand in another way, such as labels whose rows are not
    split in `hidden`, or the features of a kernel. It is gathered along these axes,
    because JAX would refuse to combine it with the others.
    """
    settings = problem.settings
    specs = tuple(specs_of(settings, x) for x in problem.pair)
    return problem.with_pair(resharded(settings.sharding.mesh, problem.pair, specs))


def like_logits_on_mesh(problem: Problem) -> Problem:
    """All operands split as explicit axes split the logits, so that all can meet."""
    z, axis = problem.rows.logits[0].array, problem.axis
    if z is None or not is_split(z):
        return problem
    entries = _typed(z)
    mesh: Any = jax.typeof(z).sharding.mesh
    of_rows = entries[:axis] + entries[axis + 1 :]

    def one(axes: Axes, x: Array) -> Array:
        names: tuple[tuple[str, ...], ...] = ()
        if "rows" in axes.order:
            whole = x.ndim == z.ndim and "classes" in axes.order
            names = entries if whole else (*of_rows, *[()] * (x.ndim - len(of_rows)))
            x = jnp.broadcast_to(x, z.shape) if whole else x
        elif x.ndim:
            names = (entries[axis],)
        spec = PartitionSpec(*(n or None for n in names))
        return jax.sharding.reshard(x, NamedSharding(mesh, spec))

    rows, shared = (map_fields(one, x) for x in problem.pair)
    return problem.with_pair((rows, shared))


# A derivative rule calls `enter`; none is called inside of it. JAX's own rule for a
# `shard_map` within one of the caller's splits its intermediate results along axes that
# are bound already, and fails (seen in 0.10.2 and 0.12.0). Under the checkpoint there
# are no intermediate results, only operands.
def enter(
    sharding: HeadSharding,
    body: Callable[..., Any],
    operands: tuple[Any, ...],
    specs: tuple[Any, ...],
    out_specs: Any,
) -> Any:
    """`body` of each device's part of the operands."""
    operands = resharded(sharding.mesh, operands, specs)
    names = sharding.row_names + sharding.class_axes
    if not names:
        return body(*operands)
    return jax.shard_map(
        jax.checkpoint(body, prevent_cse=False),
        mesh=sharding.mesh,
        in_specs=specs,
        out_specs=out_specs,
        axis_names=set(names),
    )(*operands)


def on_one_device(settings: Settings) -> Settings:
    """The settings inside `enter`: the mesh axes of the classes are bound there."""
    names = settings.class_axis_name + settings.sharding.class_axes
    return settings._replace(class_axis_name=names, sharding=HeadSharding())


def of_parts(function: Callable[..., Any], problem: Problem, *more: Any) -> Any:
    """function(problem, *more), a tree of arrays (rows, …), of each device's part.

    `more` are pairs of tangents, or trees of arrays (rows, …) such as totals.
    """
    settings = problem.settings
    spec = row_spec(settings.sharding)

    def specs(tree: Any) -> Any:
        return specs_of(settings, tree) if is_bundle(tree) else spec

    def on_device(problem: Problem, *more: Any) -> Any:
        return function(problem.replace(settings=on_one_device(settings)), *more)

    # How many classes are possible may be one number for all rows.
    resolved = problem.resolved._replace(classes=None)
    operands = (problem.replace(resolved=resolved), *more)
    in_specs = jax.tree.map(specs, operands, is_leaf=is_bundle)
    return enter(settings.sharding, on_device, operands, in_specs, spec)
