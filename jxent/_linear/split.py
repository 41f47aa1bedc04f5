"""The fused head on a mesh: which mesh axes split it, and the work of one device.

A loop over blocks of an array that is split would move the blocks between devices. So
the head enters `jax.shard_map` over the axes that split its rows and classes, each
device takes its own part, and what is summed over devices is summed once. Where these
axes are bound, by a `shard_map` of the caller's, that part is what came.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from .. import _checks
from .._arrays import vary
from .product import Head


class Split(NamedTuple):
    """The mesh axes to enter `shard_map` over: static under jit."""

    rows: tuple[tuple[str, ...], ...] = ()  # those of each axis of rows
    classes: tuple[str, ...] = ()
    mesh: AbstractMesh | None = None  # None: no axis of one concerns the head

    @property
    def row_names(self) -> tuple[str, ...]:
        return sum(self.rows, ())

    @property
    def names(self) -> tuple[str, ...]:
        return self.row_names + self.classes

    @property
    def row_spec(self) -> PartitionSpec:
        return PartitionSpec(*(n or None for n in self.rows))

    def size(self, names: tuple[str, ...]) -> int:
        return math.prod(self.mesh.shape[n] for n in names) if self.mesh else 1


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


def split_of(
    function: str,
    head: Head,
    vocab_axis: int,
    labels: Array | None,
    class_axis_name: _checks.AxisName,
    batch_axis_name: _checks.AxisName,
) -> Split:
    """Explicit axes are read off the types, automatic ones are those that are named."""
    mesh = _mesh_of(head.hidden, head.kernel, labels)
    if mesh is None:
        return Split()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))

    def automatic(names: _checks.AxisName) -> tuple[str, ...]:
        return tuple(n for n in _names(names) if kinds.get(n) == AxisType.Auto)

    *rows, _ = _typed(head.hidden)
    named = automatic(batch_axis_name)
    if rows and named:
        everything = rows[0] + named
        parts = math.prod(mesh.shape[n] for n in everything)
        if head.hidden.shape[0] % parts == 0:
            rows[0] = everything
    taken = sum(rows, ())
    typed = _typed(head.kernel)[vocab_axis]
    classes = tuple(n for n in typed + automatic(class_axis_name) if n not in taken)
    if not taken and not classes and AxisType.Explicit not in kinds.values():
        return Split()
    split = Split(tuple(rows), classes, mesh)
    count, parts = head.kernel.shape[vocab_axis], split.size(classes)
    if count % parts:
        _checks.fail(
            function,
            f"expected classes that divide evenly over the {parts} devices of mesh "
            f"axes {classes}, got {count}. Pad the kernel by {-count % parts} classes, "
            "and give a class_mask that is False for them.",
        )
    return split


# Specs and reductions by the names of fields. What is of rows may differ along the axes
# that split the rows alone, anything else along those of the classes as well: rows'
# temperatures and ε/K, too, whose derivatives are sums over classes.

_OF_ROWS = {"labels", "row_where", "keep", "counted", "weights"}
_OF_NEITHER = {"ignore_index", "label_smoothing", "z_loss"}


def flat(tree: Any, shape: tuple[int, ...]) -> Any:
    """Arrays with one axis of rows in place of those of `shape`."""
    count = math.prod(shape)
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[len(shape) :]), tree)


def _fields(tree: Any) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else tree._asdict()


def _like(tree: Any, fields: dict[str, Any]) -> Any:
    return fields if isinstance(tree, dict) else tree._replace(**fields)


def _spec(split: Split, x: Array, names: list[tuple[str, ...]]) -> PartitionSpec:
    """Axes of size 1, which are broadcast, stay whole."""
    sizes = zip(names, x.shape, strict=False)  # features, at the end, are never split
    divided = (n if count % split.size(n) == 0 else () for n, count in sizes)
    return PartitionSpec(*(n or None for n in divided))


def row_specs(split: Split, tree: Any) -> Any:
    """How arrays with the rows' axes in front are split."""

    def spec(name: str, x: Array | None) -> PartitionSpec | None:
        if x is None:
            return None
        names = [*split.rows]
        if x.ndim > len(names) and name != "hidden":
            names.append(split.classes)
        return _spec(split, x, names)

    return _like(tree, {n: spec(n, x) for n, x in _fields(tree).items()})


def shared_specs(split: Split, tree: Any, vocab_axis: int) -> Any:
    """How arrays that all rows share are split."""

    def spec(name: str, x: Array | None) -> PartitionSpec | None:
        if x is None or not x.ndim:
            return None if x is None else PartitionSpec()
        axis = vocab_axis if name == "kernel" else x.ndim - 1
        return _spec(split, x, [*[()] * axis, split.classes])

    return _like(tree, {n: spec(n, x) for n, x in _fields(tree).items()})


def vary_fields(
    tree: Any, everywhere: frozenset[str], class_axis_name: tuple[str, ...]
) -> Any:
    """The operands of a loop, so that sums over devices stand outside of it.

    What is of rows must not differ along the axes of the classes: its derivative would
    be summed over them, and every device has all of it.
    """
    of_rows = everywhere - set(class_axis_name)
    few = _OF_ROWS | _OF_NEITHER
    return _like(
        tree,
        {
            n: vary(x, of_rows if n in few else everywhere)
            for n, x in _fields(tree).items()
        },
    )


def sums_of_devices(
    split: Split, gradients: dict[str, Array], operands: Any, specs: Any
) -> dict[str, Array]:
    """Gradients of one device's part, summed over the axes that do not split them.

    Between devices they travel in bfloat16 where the operand is, as gradients in JAX
    do: in float32 they would be twice the bytes.
    """

    def total(name: str, x: Array) -> Array:
        names = set(split.row_names)
        if name not in _OF_ROWS | _OF_NEITHER:
            names |= set(split.classes)
        names -= {n for entry in getattr(specs, name) for n in _names(entry)}
        if not names:
            return x
        low = getattr(operands, name).dtype == jnp.bfloat16
        y = x.astype(jnp.bfloat16) if low else x
        return lax.psum(y, tuple(sorted(names))).astype(x.dtype)

    return {n: total(n, x) for n, x in gradients.items()}


def placed(split: Split, tree: Any, specs: Any) -> Any:
    """Arrays split by their specs as far as the mesh's axes are explicit."""
    mesh = split.mesh
    if mesh is None:
        return tree
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))

    def explicit(entry: Any) -> tuple[str, ...]:
        return tuple(n for n in _names(entry) if kinds[n] == AxisType.Explicit)

    def one(x: Array, spec: PartitionSpec) -> Array:
        wanted = tuple(explicit(n) for n in spec)
        wanted = (*wanted, *[()] * (x.ndim - len(wanted)))
        if wanted == _typed(x):
            return x
        entries = PartitionSpec(*(n or None for n in wanted))
        return jax.sharding.reshard(x, NamedSharding(mesh, entries))

    return jax.tree.map(one, tree, specs)


# Derivative rules stand outside of what is entered: JAX's own rule for a `shard_map`
# within one of the caller's hands its intermediate results over split along axes that
# are bound already, and fails (seen in 0.10.2 and 0.12.0). Under the checkpoint there
# are none, only operands.
def enter(
    split: Split,
    body: Callable[..., Any],
    operands: tuple[Any, ...],
    specs: tuple[Any, ...],
    out_specs: Any,
) -> Any:
    """`body` of each device's part of the operands."""
    operands = placed(split, operands, specs)
    if not split.names:
        return body(*operands)
    return jax.shard_map(
        jax.checkpoint(body, prevent_cse=False),
        mesh=split.mesh,
        in_specs=specs,
        out_specs=out_specs,
        axis_names=set(split.names),
    )(*operands)
