"""One call as one pytree: static settings, what each row has, and what all share."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import (
    Leaf,
    Shape,
    Shaped,
    Size,
    as_computed,
    cast,
    compute_dtype,
    count_over_devices,
    replaced,
)
from .._checks import Number, PerClass, PerRow
from .bundles import (
    CLASSES,
    CLASSES_AND_FEATURES,
    FEATURES_AND_CLASSES,
    NUMBER,
    ROWS,
    ROWS_AND_CLASSES,
    ROWS_AND_FEATURES,
    Axes,
    Maybe,
    after_merged,
    declared,
    map_fields,
)
from .resolved import Resolved


class RowLogits(NamedTuple):
    """The logits of rows: an array of them, or hidden states in its place."""

    array: Annotated[Maybe, ROWS_AND_CLASSES] = None
    hidden: Annotated[Maybe, ROWS_AND_FEATURES] = None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("kernel", "bias", "logit_soft_cap"),
    meta_fields=("vocab_axis", "precision"),
)
@dataclasses.dataclass(frozen=True)
class Head:
    """What turns rows into logits: for an array of logits the soft cap at most."""

    DATA: ClassVar[tuple[str, ...]] = ("kernel", "bias", "logit_soft_cap")

    kernel: Annotated[Leaf, FEATURES_AND_CLASSES] = None
    bias: Annotated[Leaf, CLASSES] = None
    logit_soft_cap: Annotated[Leaf, NUMBER, Number(off=math.inf, above=0)] = None
    vocab_axis: int = 1  # the kernel's axis of classes
    precision: Any = None  # of products with the kernel, as lax takes it, or ROUNDED

    @property
    def oriented(self) -> dict[str, Axes]:
        """The axes of fields that are stored in more than one order."""
        axes = FEATURES_AND_CLASSES if self.vocab_axis else CLASSES_AND_FEATURES
        return {"kernel": axes}


class Rows(NamedTuple):
    """What each row has: arrays with the rows' axes in front, or around the classes."""

    logits: tuple[RowLogits, ...] = (RowLogits(),)  # the row's, and another softmax's
    target: Any = None  # what the rows are compared with: a bundle of its own
    where: Annotated[Maybe, after_merged(ROWS)] = None
    class_where: Annotated[Maybe, ROWS_AND_CLASSES] = None  # False: impossible there
    weights: Annotated[Maybe, after_merged(ROWS), PerRow()] = None
    temperature: Annotated[Maybe, ROWS, PerRow(above=0)] = None


class Shared(NamedTuple):
    """What all rows share."""

    heads: tuple[Head, ...] = (Head(),)  # one for each of the rows' logits
    class_weights: Annotated[Maybe, CLASSES, PerClass()] = None
    class_mask: Annotated[Maybe, CLASSES, PerClass(boolean=True)] = None
    ignore_index: Annotated[Maybe, NUMBER] = None
    label_smoothing: Annotated[
        Maybe, after_merged(NUMBER), Number(low=0, high=1, off=0)
    ] = None
    z_loss: Annotated[Maybe, after_merged(NUMBER), Number(low=0, off=0)] = None
    margin: Annotated[Maybe, CLASSES, Number(off=0, or_per_class=True)] = None
    pos_weight: Annotated[Maybe, CLASSES, Number(off=1, or_per_class=True)] = None
    parameters: Annotated[tuple[Array, ...], after_merged(NUMBER)] = ()  # the formula's
    normalizer: Annotated[Maybe, after_merged(NUMBER)] = None


# The options that are declared with a check: the argument of that name goes through it.
CHECKS = {
    name: metadata[1]
    for bundle in (Rows, Shared, Head)
    for name, metadata in declared(bundle).items()
    if len(metadata) > 1
}


class HeadSharding(NamedTuple):
    """The mesh axes that LinearLogits enter `shard_map` over."""

    row_axes: tuple[tuple[str, ...], ...] = ()  # those that split each axis of rows
    class_axes: tuple[str, ...] = ()
    mesh: jax.sharding.AbstractMesh | None = None  # None: no mesh concerns the head

    @property
    def row_names(self) -> tuple[str, ...]:
        return sum(self.row_axes, ())


class Settings(NamedTuple):
    """Static options of one call: hashable, part of the jit cache's key."""

    axis: int  # of the classes; the last one for LinearLogits
    formula: Any = None  # None: statistics alone
    result: Any = None  # what the call returns
    reduction: str = "none"
    class_axis_name: tuple[str, ...] = ()  # bound mesh axes that split the classes
    batch_axis_name: tuple[str, ...] = ()  # bound mesh axes that split the rows
    statistics: tuple[Any, ...] = ()  # beside the maximum and Σ exp(z − maximum)
    reports: bool = True  # bad labels, under checkify
    implementation: str = "materialized"
    tile: Any = 0  # rows of a block of logits; symbolic as their count is
    block: int = 0  # classes of a block of logits
    piece: int = 0  # classes of a block that one product forms; 0 for all
    group: int = 0  # rows whose logits turn into gradients at a time; 0 for a tile's
    skips: bool = True  # whether tiles in which no row counts are skipped
    sharding: HeadSharding = HeadSharding()


_UNRESOLVED = Resolved()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("rows", "shared", "resolved"),
    meta_fields=("settings",),
)
@dataclasses.dataclass(frozen=True)
class Problem:
    """A checked problem: whole, or a device's part, a tile or a block of classes."""

    settings: Settings
    rows: Rows
    shared: Shared
    resolved: Resolved = _UNRESOLVED

    def replace(self, **fields: Any) -> "Problem":
        return Problem(
            fields.get("settings", self.settings),
            fields.get("rows", self.rows),
            fields.get("shared", self.shared),
            fields.get("resolved", self.resolved),
        )

    def with_settings(self, **fields: Any) -> "Problem":
        return self.replace(settings=self.settings._replace(**fields))

    def with_pair(self, pair: tuple[Rows, Shared]) -> "Problem":
        return self.replace(rows=pair[0], shared=pair[1])

    @property
    def pair(self) -> tuple[Rows, Shared]:
        return self.rows, self.shared

    @property
    def axis(self) -> int:
        return self.settings.axis

    @property
    def target(self) -> Any:
        return self.rows.target

    @property
    def has_head(self) -> bool:
        """Whether some logits are a product that is not formed."""
        return any(x.hidden is not None for x in self.rows.logits)

    @property
    def first_head(self) -> tuple[Array, Head]:
        """Hidden states and head of the first logits that are a product."""
        pairs = zip(self.rows.logits, self.shared.heads, strict=True)
        return next((x.hidden, h) for x, h in pairs if x.hidden is not None)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype that logits are computed in: that of all, where there are two."""
        arrays = [x for logits in self.rows.logits for x in logits]
        arrays += [head.kernel for head in self.shared.heads]
        return compute_dtype(*(x for x in arrays if x is not None))

    @property
    def like(self) -> Shaped:
        """The row's own logits, or their shape and dtype while they do not exist."""
        logits, head = self.rows.logits[0], self.shared.heads[0]
        if logits.array is not None:
            return logits.array
        assert logits.hidden is not None
        assert head.kernel is not None
        shape = (*logits.hidden.shape[:-1], head.kernel.shape[head.vocab_axis])
        return jax.ShapeDtypeStruct(shape, self.dtype)

    @property
    def classes(self) -> Size:
        """How many classes there are over all devices."""
        here = self.like.shape[self.axis]
        return count_over_devices(here, self.settings.class_axis_name)

    def along(
        self, moving: tuple[Rows, Shared], function: Callable[["Problem"], Any]
    ) -> Any:
        """The tangent of function(problem) along the tangents of the pair, which are
        None where nothing moves.

        What moves is float32 or better, so that gradients are summed in that.
        """
        moving = as_computed(moving)
        points = jax.tree.map(
            lambda m, x: None if m is None else cast(x, m.dtype),
            moving,
            self.pair,
            is_leaf=lambda m: m is None,
        )

        def at(values: tuple[Rows, Shared]) -> Any:
            return function(self.with_pair(replaced(self.pair, values)))

        return jax.jvp(at, (points,), (moving,))[1]


def is_bundle(tree: Any) -> bool:
    return isinstance(tree, Rows | Shared)


def one_axis_of_rows(tree: Any, shape: Shape) -> Any:
    """Bundles and arrays (rows, …) of a tree, with one axis of rows for `shape`."""
    count = math.prod(shape)

    def flat(x: Array) -> Array:
        return x.reshape(count, *x.shape[len(shape) :])

    def of_bundle(axes: Axes, x: Array) -> Array:
        return flat(x) if "rows" in axes.order else x

    def one(x: Any) -> Any:
        return map_fields(of_bundle, x) if is_bundle(x) else flat(x)

    return jax.tree.map(one, tree, is_leaf=is_bundle)
