"""Logits that are given as a product, in place of an array of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from . import _checks
from ._arrays import Leaf, compute_dtype, over_rows
from ._checks import ArrayLike
from ._compute.product import product, product_precision
from ._not_an_array import NotAnArray


Implementation: TypeAlias = Literal["tiled", "streamed", "materialized"]
BlockSizes: TypeAlias = tuple[SupportsIndex | None, SupportsIndex | None]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("hidden", "kernel", "bias"),
    meta_fields=("vocab_axis", "precision", "block_sizes", "implementation"),
)
@dataclasses.dataclass(frozen=True, init=False, eq=False, repr=False)
class LinearLogits(NotAnArray):
    """The logits hidden @ kernel + bias as a value, which stands for an array of them.

        logits[..., c] = Σ_d hidden[..., d] kernel[d, c] + bias[c]

    Every loss, statistic, divergence and metric of logits takes it in place of an
    array, and a model may return it where it would return logits. For 8,192 tokens and
    131,072 classes the logits are 4 GiB in float32, and their gradient as much again;
    here one block of them exists at a time. Logits of 8 MiB or less are formed whole,
    since that is quickest.

    Args:
      hidden: floating, shape (..., features).
      kernel: floating, (features, classes) as in a dense layer; or (classes, features)
        with vocab_axis=0, as an embedding table, which is not copied.
      bias: (classes,), added to the logits; or None.
      vocab_axis: the kernel's axis of classes.
      precision: the precision of the products with the kernel, those of the gradients
        too, as `jnp.dot` takes it; not a pair. None is the platform's own, and bfloat16
        for a bfloat16 hidden. With any other the factors are float32.
      block_sizes: (rows, classes) of a block; None, or a None in it, for what suits.
      implementation: "streamed" scans blocks of classes, and forms each again for the
        derivative: the least memory. "tiled", for a mean or a sum, takes tiles of rows
        and forms gradients with the value: no product twice. "materialized" holds the
        logits. None chooses by size; `plan` says what. Under a `jax.vmap` it sees the
        rows of one call alone: give "streamed" there, or all rows to one call.

    It is a pytree, whose leaves are hidden, kernel and bias: an argument or a result of
    jitted functions, and what `jax.grad` differentiates, whose gradient is LinearLogits
    again. It has the `shape`, `ndim` and `dtype` of the logits; `logits[index]` are
    some of its rows. Nothing is checked until a loss takes it. Where a `jax.vmap` or a
    scan returns it, JAX stacks its kernel too: `out_axes=logits.replace(hidden=0,
    kernel=None)` keeps one, and in_axes and in_specs are written in the same way.

    Numerics:
      A bfloat16 hidden is multiplied with the kernel in bfloat16, as a layer of that
      dtype does; on a CPU a float32 kernel is not rounded for it. Tiles, and every
      implementation on a TPU or a GPU, then round p − y for the products of the
      gradients, as that layer does: the gradient of hidden is 1.1 to 2 times as far
      from the truth as by its own rounding, more where the entries of the kernel have a
      mean far from 0; with precision="highest" by its own rounding alone. Every sum is
      in float32: logits, statistics, and the gradients of hidden and kernel, which are
      rounded once, to their own dtype. Errors do not grow with the number of blocks.
      Rows that ignore_index, where or a weight of 0 drops may hold anything. A masked
      class may have any bias, but its part of the kernel must be finite. Blocks of
      nothing but rows that ignore_index or where drops are skipped when the program
      runs; "tiled" also skips those of weight 0, "streamed" does not, because a row of
      weight 0 has derivatives in that weight. Every derivative exists, forward and
      reverse, to any order, in each implementation.

      Outside of `jax.shard_map`, on arrays that a mesh splits, a loss enters it itself:
      over the axes that class_axis_name and batch_axis_name name, and over explicit
      axes by the arrays' types, without names. Rows and classes stay where they are; a
      kernel that is split over the rows' axes as well is gathered once. An automatic
      axis that splits an array and is not named is left to the compiler, which may
      gather blocks inside of the loops. Of automatic axes batch_axis_name means those
      of the first axis of rows; where it does not divide, every device has all rows.
      block_sizes and the plan are those of one device. JAX (0.10 to 0.12) cannot take
      `checkify` of a streamed gradient through what is entered; of the value, and of
      tiles, it can.

    Raises:
      By the loss that takes it, ValueError: hidden, kernel and bias do not fit each
      other, block_sizes or implementation are not among the above, `axis` is not the
      last, or the classes do not divide over their devices: pad the kernel, and give a
      class_mask.

    Example:
      >>> logits = jxent.LinearLogits(
      ...     jnp.array([[1.0, 0.0], [0.0, 2.0]]),
      ...     jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.5]]))
      >>> print(jxent.softmax_cross_entropy(logits, jnp.array([0, 2])))
      [0.23954 0.09492]
      >>> logits
      LinearLogits(hidden=float32[2,2], kernel=float32[2,3])

    Source:
      Wijmans et al. (2024), "Cut Your Losses in Large-Vocabulary Language Models",
      https://arxiv.org/abs/2411.09009, for streaming classes; Hsu et al. (2024), "Liger
      Kernel", https://arxiv.org/abs/2410.10989, for gradients by tiles of rows.

    See also:
      `plan`, `softmax_cross_entropy`; `sum_over_tiles` for other heads and formulas.
    """

    hidden: Array
    kernel: Array
    bias: Array | None
    vocab_axis: int
    precision: lax.PrecisionLike
    block_sizes: tuple[int | None, int | None] | None
    implementation: Implementation | None

    # eq=False alone would leave a hash by identity, for a static argument that compiles
    # anew in every call; and __getitem__ alone would make a sequence without an end.
    __hash__ = None  # pyright: ignore[reportAssignmentType]
    __iter__ = None

    def __init__(
        self,
        hidden: Leaf,
        kernel: Leaf,
        bias: Leaf = None,
        *,
        vocab_axis: SupportsIndex = -1,
        precision: lax.PrecisionLike = None,
        block_sizes: BlockSizes | list[SupportsIndex | None] | None = None,
        implementation: Implementation | None = None,
    ) -> None:
        # JAX rebuilds the value with tracers and with axes, users with specs, and a
        # stack of several has more axes: so nothing is checked here.
        fields = {
            "hidden": _array_of(hidden),
            "kernel": _array_of(kernel),
            "bias": _array_of(bias),
            "vocab_axis": _normal_axis(vocab_axis),
            "precision": precision,
            "block_sizes": tuple(block_sizes)
            if isinstance(block_sizes, list)
            else block_sizes,
            "implementation": implementation,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[Any, ...]:
        """(..., classes), the shape of hidden @ kernel."""
        return (*self.hidden.shape[:-1], self.kernel.shape[self.vocab_axis])

    @property
    def ndim(self) -> int:
        """The number of axes of hidden @ kernel."""
        return len(self.hidden.shape)

    @property
    def dtype(self) -> np.dtype:
        """The dtype in which the logits are computed: float32, or float64."""
        return compute_dtype(self.hidden, self.kernel)

    def __getitem__(self, index: Any) -> LinearLogits:
        """Some of the rows, by an index of any axes but that of the classes."""
        entries = index if isinstance(index, tuple) else (index,)
        last = entries[-1] if entries else Ellipsis
        every_class = isinstance(last, slice) and last == slice(None)
        ellipsis = any(entry is Ellipsis for entry in entries)
        open_end = last is Ellipsis if ellipsis else _indexed(entries) < self.ndim
        if not (every_class or open_end):
            raise IndexError(
                f"LinearLogits of shape {self.shape} are indexed by rows, of shape "
                f"{self.shape[:-1]}, got {index!r}. To take classes, index kernel and "
                "bias."
            )
        return self.replace(hidden=self.hidden[index])

    def replace(self, **fields: Any) -> LinearLogits:
        """The same value but for some fields."""
        return dataclasses.replace(self, **fields)

    def materialize(self) -> Float[Array, "..."]:
        """The logits as an array, float32 or float64, for what needs them whole."""
        head = checked_head("LinearLogits.materialize", "", self)
        axis = head.vocab_axis % 2
        z = product(head.hidden, head.kernel, axis, head.precision)
        if head.bias is None:
            return z
        return lax.add(z, over_rows(head.bias.astype(z.dtype), z.ndim - 1, z))

    def __repr__(self) -> str:
        parts = [
            f"{field.name}={_shown(value)}"
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None
            and not (field.name == "vocab_axis" and value == -1)
        ]
        return f"LinearLogits({', '.join(parts)})"


Logits: TypeAlias = ArrayLike | LinearLogits


def _indexed(entries: tuple[Any, ...]) -> int:
    """How many axes the entries of an index take."""

    def axes(entry: Any) -> int:
        if entry is None or entry is Ellipsis:
            return 0
        return entry.ndim if getattr(entry, "dtype", None) == np.bool_ else 1

    return sum(map(axes, entries))


def _array_of(x: Any) -> Any:
    """`x`, or the array that it stands for, as a list or a `flax.nnx.Param` does."""
    if isinstance(x, Array | np.ndarray | LinearLogits):
        return x
    if isinstance(x, list):
        try:
            return jnp.asarray(x)
        except (TypeError, ValueError, OverflowError):
            return x  # a loss refuses it
    to_array: Callable[[], Array] | None = getattr(x, "__jax_array__", None)
    return x if to_array is None else to_array()


def _normal_axis(axis: Any) -> Any:
    """−1 for 1 and 0 for −2: trees of two heads are compared by it."""
    if not _checks.is_integer(axis) or isinstance(axis, np.bool_):
        return axis  # a loss refuses it
    return {1: -1, -2: 0}.get(int(axis), int(axis))


def _shown(x: Any) -> str:
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return f"{np.dtype(x.dtype).name}[{','.join(map(str, x.shape))}]"
    return repr(x)


def checked_head(
    function: str, argument: str, logits: LinearLogits, **beside: Any
) -> LinearLogits:
    """The logits with leaves that are arrays and fit, and the precision of products.

    `argument` is what the function calls them; `beside` goes to `_checks.floating`.
    """
    of = f"{argument}." if argument else ""
    hidden = _checks.floating(function, f"{of}hidden", logits.hidden, **beside)
    kernel = _checks.floating(function, f"{of}kernel", logits.kernel, **beside)
    axis = _class_axis(function, of, hidden, kernel, logits.vocab_axis)
    bias = logits.bias
    if bias is not None:
        bias = _checks.floating(function, f"{of}bias", bias)
        classes = kernel.shape[axis : axis + 1]
        _checks.per_class(function, f"{of}bias", bias, classes)
    precision = _checks.precision(function, logits.precision)
    return logits.replace(
        hidden=hidden,
        kernel=kernel,
        bias=bias,
        vocab_axis=axis,
        precision=product_precision(precision, hidden),
    )


def _class_axis(
    function: str, of: str, hidden: Array, kernel: Array, vocab_axis: SupportsIndex
) -> int:
    """The kernel's class axis counted from the front; an error if shapes do not fit."""
    vocab_axis = _checks.integer(function, f"{of}vocab_axis", vocab_axis)
    if not hidden.ndim:
        _checks.fail(
            function, f"expected {of}hidden of shape (..., features), got a scalar."
        )
    if kernel.ndim != 2 or vocab_axis not in (-1, 0):
        hint = "Reshape it, or give vocab_axis -1 or 0."
        if kernel.ndim == 3:
            hint = (
                "A jax.vmap or scan that returns LinearLogits stacks their kernel: for "
                "one kernel give jax.vmap out_axes=LinearLogits(0, None); for a stack "
                "of heads, jax.vmap the loss."
            )
        _checks.fail(
            function,
            f"expected {of}kernel of shape (features, classes), or (classes, features) "
            f"with vocab_axis=0, got {kernel.shape} with vocab_axis={vocab_axis}. "
            f"{hint}",
        )
    axis = vocab_axis % 2
    features, classes = kernel.shape[1 - axis], kernel.shape[axis]
    if hidden.shape[-1] != features:
        hint = "A kernel is (features, classes)."
        if axis == 0:
            hint = "With vocab_axis=0 a kernel is (classes, features)."
        if hidden.shape[-1] == classes:
            hint += f" For its transpose give vocab_axis={axis - 1}."
        elif kernel.shape[-1:] == hidden.shape[:-1]:
            hint = f"Are {of}hidden and {of}kernel exchanged? The call is "
            hint += "LinearLogits(hidden, kernel)."
        _checks.fail(
            function,
            f"expected {of}hidden of shape (..., {features}) for {of}kernel of shape "
            f"{kernel.shape} with vocab_axis={vocab_axis}, got {hidden.shape}. {hint}",
        )
    return axis
