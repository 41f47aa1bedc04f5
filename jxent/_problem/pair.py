"""One softmax problem as a pair of bundles: what each row has, and what all rows share.

Every option is declared here, once, as a field. Its annotation says which axes it has,
of "rows", "classes" and "features", and from these follows how it is cut into blocks of
classes and tiles of rows, how it is split over the axes of a mesh, and along which mesh
axes it may vary.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias, get_type_hints

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import Shape, block_along, compute_dtype
from .._checks import Number, PerClass, PerRow


Maybe: TypeAlias = Array | None


class Axes(NamedTuple):
    """The axes of a field, in their order.

    A field that acts on logits has its derivative summed over the devices that split
    the classes. One that acts `after_merge`, on what the statistics of all classes
    give, has the same derivative on each of them.
    """

    order: tuple[str, ...]
    after_merge: bool = False


def _after_merge(axes: Axes) -> Axes:
    return axes._replace(after_merge=True)


_ROWS = Axes(order=("rows",))
_ROWS_AND_CLASSES = Axes(order=("rows", "classes"))
_ROWS_AND_PLACES = Axes(order=("rows", "places"))  # several class ids a row
_ROWS_AND_FEATURES = Axes(order=("rows", "features"))
_FEATURES_AND_CLASSES = Axes(order=("features", "classes"))  # or the other way
_CLASSES = Axes(order=("classes",))
_NUMBER = Axes(order=())


class Rows(NamedTuple):
    """What each row has: arrays with the rows' axes in front, or around the classes."""

    logits: Annotated[Maybe, _ROWS_AND_CLASSES] = None
    hidden: Annotated[Maybe, _ROWS_AND_FEATURES] = None  # in place of logits
    labels: Annotated[Maybe, _ROWS_AND_CLASSES] = None  # class ids have the rows alone
    label_ids: Annotated[Maybe, _ROWS_AND_PLACES] = None  # in place of labels
    label_values: Annotated[Maybe, _after_merge(_ROWS_AND_PLACES)] = None  # None: 1
    where: Annotated[Maybe, _after_merge(_ROWS)] = None
    class_where: Annotated[Maybe, _ROWS_AND_CLASSES] = None  # False: impossible there
    weights: Annotated[Maybe, _after_merge(_ROWS), PerRow()] = None
    temperature: Annotated[Maybe, _ROWS, PerRow(above=0)] = None
    target_logits: Annotated[Maybe, _ROWS_AND_CLASSES] = None  # in place of labels
    target_hidden: Annotated[Maybe, _ROWS_AND_FEATURES] = None


class Shared(NamedTuple):
    """What all rows share."""

    kernel: Annotated[Maybe, _FEATURES_AND_CLASSES] = None
    bias: Annotated[Maybe, _CLASSES] = None
    class_weights: Annotated[Maybe, _CLASSES, PerClass()] = None
    class_mask: Annotated[Maybe, _CLASSES, PerClass(boolean=True)] = None
    ignore_index: Annotated[Maybe, _NUMBER] = None
    label_smoothing: Annotated[
        Maybe, _after_merge(_NUMBER), Number(low=0, high=1, off=0)
    ] = None
    z_loss: Annotated[Maybe, _after_merge(_NUMBER), Number(low=0, off=0)] = None
    logit_soft_cap: Annotated[Maybe, _NUMBER, Number(off=math.inf, above=0)] = None
    margin: Annotated[Maybe, _CLASSES, Number(off=0, or_per_class=True)] = None
    pos_weight: Annotated[Maybe, _CLASSES, Number(off=1, or_per_class=True)] = None
    target_kernel: Annotated[Maybe, _FEATURES_AND_CLASSES] = None
    target_bias: Annotated[Maybe, _CLASSES] = None
    target_logit_soft_cap: Annotated[Maybe, _NUMBER, Number(off=math.inf, above=0)] = (
        None
    )
    parameters: Annotated[
        tuple[Array, ...], _after_merge(_NUMBER)
    ] = ()  # the formula's
    normalizer: Annotated[Maybe, _after_merge(_NUMBER)] = None


class HeadSharding(NamedTuple):
    """The mesh axes that the fused head enters `shard_map` over."""

    row_axes: tuple[tuple[str, ...], ...] = ()  # those that split each axis of rows
    class_axes: tuple[str, ...] = ()
    mesh: jax.sharding.AbstractMesh | None = None  # None: no mesh concerns the head

    @property
    def row_names(self) -> tuple[str, ...]:
        return sum(self.row_axes, ())


class Settings(NamedTuple):
    """Static options of one call: hashable, part of the jit cache's key."""

    axis: int  # of the classes; the last one for the fused head
    ids: bool  # labels are class ids, not distributions
    several_labels: bool = False  # each class has a binary label of its own
    formula: Callable[..., Array] | None = None  # None: statistics alone
    kept: int = 0  # see Formula
    reduction: str = "none"
    return_statistics: bool = False
    sums: bool = False  # of what a training loop logs, in place of the loss
    log_prob_at: bool = False  # log-probabilities of several ids, in place of the loss
    class_axis_name: tuple[str, ...] = ()  # bound mesh axes that split the classes
    batch_axis_name: tuple[str, ...] = ()  # bound mesh axes that split the rows
    even: bool = False  # Σ w (z − shift) over all classes, which smoothing needs
    expected: bool = False  # Σ e (z − shift), which the entropy needs
    argmax: bool = False
    top_k: int = 0  # how many of the largest logits to find; 0 for none
    ranks: bool = False  # of labels among the classes, which no statistics tell
    reports: bool = True  # bad labels, under checkify
    vocab_axis: int = 1  # the kernel's axis of classes
    precision: Any = None  # of products with the kernel, as lax takes it, or ROUNDED
    target_vocab_axis: int = 1  # the same of the target's head
    target_precision: Any = None
    implementation: str = "materialized"
    tile: Any = 0  # rows of a block of logits; symbolic as their count is
    block: int = 0  # classes of a block of logits
    piece: int = 0  # classes of a block that one product forms; 0 for all
    group: int = 0  # rows whose logits turn into gradients at a time; 0 for a tile's
    skips: bool = True  # whether tiles in which no row counts are skipped
    sharding: HeadSharding = HeadSharding()


def _declared(bundle: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(bundle, include_extras=True)
    return {name: hint.__metadata__ for name, hint in hints.items()}


DECLARED = {Rows: _declared(Rows), Shared: _declared(Shared)}
# The options that are declared with a check: the argument of that name goes through it.
CHECKS = {
    name: metadata[1]
    for bundle in DECLARED.values()
    for name, metadata in bundle.items()
    if len(metadata) > 1
}


def axes_of(bundle: Rows | Shared, name: str) -> Axes:
    return DECLARED[type(bundle)][name][0]


def map_fields(function: Callable[..., Any], bundle: Any, *others: Any) -> Any:
    """The bundle with function(axes, name, value, …) for each value that is not None.

    A bundle of tangents or gradients is one, too: None where there is no tangent.
    """

    def field(name: str, value: Any, *more: Any) -> Any:
        axes = axes_of(bundle, name)
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            several = zip(value, *more, strict=True)
            return tuple(
                None if x is None else function(axes, name, x, *xs)
                for x, *xs in several
            )
        return None if value is None else function(axes, name, value, *more)

    columns = zip(bundle._fields, bundle, *others, strict=True)
    return type(bundle)(**{name: field(name, *values) for name, *values in columns})


def axis_of_classes(settings: Settings, axes: Axes, name: str, x: Array) -> int | None:
    """The axis of `x` that runs over the classes; None where it has none.

    Rows are one axis here, in front.
    """
    if "classes" not in axes.order:
        return None
    if name in ("kernel", "target_kernel"):
        of_target = name == "target_kernel"
        axis = settings.target_vocab_axis if of_target else settings.vocab_axis
    else:
        axis = axes.order.index("classes")
    return axis if x.ndim > axis else None


def class_block(
    settings: Settings, bundle: Any, start: Any, size: int, *, linear: bool = False
) -> Any:
    """A bundle's block of classes [start, start + size).

    Linear: of tangents, in operations that JAX can transpose.
    """
    along = lax.dynamic_slice_in_dim if linear else block_along

    def cut(axes: Axes, name: str, x: Array) -> Array:
        axis = axis_of_classes(settings, axes, name, x)
        if axis is None or x.shape[axis] == 1:
            return x
        return along(x, start, size, axis)

    return map_fields(cut, bundle)


def has_distributions(settings: Settings, rows: Rows) -> bool:
    """Whether the labels give a number for every class."""
    return rows.labels is not None and not settings.ids


class Head(NamedTuple):
    """A product hidden @ kernel: the names of its fields, and its settings."""

    logits: str
    hidden: str
    kernel: str
    vocab_axis: int
    precision: Any


def heads_of(settings: Settings) -> tuple[Head, Head]:
    """The head whose logits are scored, and that of a target."""
    own = Head(
        logits="logits",
        hidden="hidden",
        kernel="kernel",
        vocab_axis=settings.vocab_axis,
        precision=settings.precision,
    )
    target = Head(
        logits="target_logits",
        hidden="target_hidden",
        kernel="target_kernel",
        vocab_axis=settings.target_vocab_axis,
        precision=settings.target_precision,
    )
    return own, target


def first_head(settings: Settings, rows: Rows) -> Head:
    """The head of the logits; that of the target where the logits are an array."""
    own, target = heads_of(settings)
    return target if rows.hidden is None else own


def has_head(rows: Rows) -> bool:
    """Whether logits, or those of the target, are a product that is not formed."""
    return rows.hidden is not None or rows.target_hidden is not None


def rows_of_head(rows: Rows) -> Shape:
    """The shape of the rows of a problem that has a head."""
    hidden = rows.target_hidden if rows.hidden is None else rows.hidden
    assert hidden is not None
    return hidden.shape[:-1]


def class_count(settings: Settings, rows: Rows, shared: Shared) -> int:
    """How many classes a problem that has a head has on this device."""
    head = first_head(settings, rows)
    return getattr(shared, head.kernel).shape[head.vocab_axis]


def has_target(rows: Rows) -> bool:
    """Whether the rows are compared with a softmax, not scored against labels."""
    return rows.target_logits is not None or rows.target_hidden is not None


def of_target(
    settings: Settings, rows: Rows, shared: Shared
) -> tuple[Settings, Rows, Shared]:
    """The target's own logits or head, as if it were the problem's.

    Masks and temperature are those of both.
    """
    settings = settings._replace(
        vocab_axis=settings.target_vocab_axis, precision=settings.target_precision
    )
    rows = rows._replace(logits=rows.target_logits, hidden=rows.target_hidden)
    shared = shared._replace(
        kernel=shared.target_kernel,
        bias=shared.target_bias,
        logit_soft_cap=shared.target_logit_soft_cap,
    )
    return settings, rows, shared


def one_axis_of_rows(tree: Any, shape: Shape) -> Any:
    """A bundle, or a tree of arrays (rows, …), with one axis of rows for `shape`."""
    count = math.prod(shape)

    def flat(x: Array) -> Array:
        return x.reshape(count, *x.shape[len(shape) :])

    if isinstance(tree, Rows | Shared):
        return map_fields(
            lambda axes, _, x: flat(x) if "rows" in axes.order else x, tree
        )
    return jax.tree.map(flat, tree)


def dtype_of(rows: Rows, shared: Shared) -> jnp.dtype:
    """The dtype that logits are computed in: that of both, where there are two."""
    operands = (
        *(rows.logits, rows.hidden, rows.target_logits, rows.target_hidden),
        *(shared.kernel, shared.target_kernel),
    )
    return compute_dtype(*(x for x in operands if x is not None))


def like_logits(
    settings: Settings, rows: Rows, shared: Shared
) -> Array | jax.ShapeDtypeStruct:
    """The logits, or their shape and dtype while they do not exist."""
    if rows.logits is not None:
        return rows.logits
    assert rows.hidden is not None
    shape = (*rows.hidden.shape[:-1], class_count(settings, rows, shared))
    return jax.ShapeDtypeStruct(shape, dtype_of(rows, shared))
