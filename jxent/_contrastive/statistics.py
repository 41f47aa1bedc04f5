"""Statistics of a similarity matrix's rows and columns: one pass over its blocks.

A *form* says which statistics these are. A block gives a part of those of its rows and
a part of those of its columns, and parts merge. Two nested loops go over the blocks,
rows outside, so that one product serves both directions.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import cast, like_moving, moving_of, replaced, vary, varying_of, zeros_of
from .matrix import (
    NO_PARTNER,
    BlockLogits,
    MatrixBlock,
    Side,
    apart,
    precision_of,
    similarities,
    with_bias,
)
from .ring import over_others, sum_over_others


class Form(NamedTuple):
    """Which statistics of rows and columns: functions, static under jit.

    Statistics are pytrees: those of rows of arrays (rows,), those of columns of arrays
    (columns,). Either may have no leaves.
    """

    # (block, logits) -> (of its rows, of its columns)
    of_block: Callable[[MatrixBlock, BlockLogits], tuple[Any, Any]]
    # statistics -> those of no block at all, in these shapes and dtypes
    of_nothing: Callable[[Any], Any]
    merge: Callable[[Any, Any], Any]
    merge_devices: Callable[[Any, tuple[str, ...]], Any]
    # (block, logits, their tangents, statistics of all blocks) -> tangents of these,
    # linear in those of the logits; None for a constant
    tangent_of_block: Callable[
        [MatrixBlock, BlockLogits, BlockLogits, Any], tuple[Any, Any]
    ]


class Matrix(NamedTuple):
    """What a matrix of logits is made of, its sides cut into blocks."""

    rows: Side
    columns: Side
    scale: Array  # in the dtype of the logits


def in_blocks(side: Side, size: Any) -> Side:
    """The side as (blocks, size, …). What fills up the last block has keep=False."""
    count = side.vectors.shape[0]
    blocks = max(-(-count // size), 1)
    missing = blocks * size - count
    if missing and side.keep is None:
        side = side._replace(keep=jnp.ones(count, bool))

    def cut(name: str, x: Array) -> Array:
        if missing:
            fill = lax.full_like(x, NO_PARTNER if name == "place" else 0, shape=())
            x = lax.pad(x, fill, [(0, missing, 0)] + [(0, 0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, size, *x.shape[1:])

    arrays = {name: x for name, x in side._asdict().items() if x is not None}
    starts = lax.mul(lax.iota(jnp.int32, blocks), jnp.int32(size))
    cut_arrays = {name: cut(name, x) for name, x in arrays.items()}
    return side._replace(**cut_arrays, start=starts)


def _over_blocks(
    of_block: Callable[[Any, Any], tuple[Any, Any]],
    merge: Callable[[Any, Any], Any],
    of_nothing: Callable[[Any], Any],
    rows: Any,
    columns: Any,
) -> tuple[Any, Any]:
    """The merged results of all blocks, (blocks, size) for rows and for columns.

    `rows` and `columns` are trees of arrays (blocks, size, …), of which `of_block`
    takes one block each. `of_nothing` are the values to begin with.
    """

    # JAX keeps its trace: the one that shows the shapes of results is the loop's, too.
    of_block = jax.jit(of_block, inline=True)

    def over_rows(of_columns: Any, rows: Any) -> tuple[Any, Any]:
        def over_columns(of_rows: Any, there: tuple[Any, Any]) -> tuple[Any, Any]:
            columns, of_columns = there
            parts = of_block(rows, columns)
            return merge(of_rows, parts[0]), merge(of_columns, parts[1])

        of_rows, of_columns = _scan(over_columns, of_no_rows, (columns, of_columns))
        return of_columns, of_rows

    shapes = zeros_of(of_block, _first_block(rows), _first_block(columns))
    of_no_rows, of_no_columns = map(of_nothing, shapes)
    count = jax.tree.leaves(columns)[0].shape[0]
    of_columns = jax.tree.map(lambda x: lax.broadcast(x, (count,)), of_no_columns)
    of_columns, of_rows = _scan(over_rows, of_columns, rows)
    return of_rows, of_columns


def _scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any) -> Any:
    """`lax.scan`; of one block no loop, so that derivatives share what it computes."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return lax.scan(step, carry, xs)
    carry, one = step(carry, _first_block(xs))
    return carry, jax.tree.map(lambda x: lax.expand_dims(x, (0,)), one)


def _first_block(blocks: Any) -> Any:
    return jax.tree.map(lambda x: lax.index_in_dim(x, 0, keepdims=False), blocks)


class Devices(NamedTuple):
    """Bound mesh axes that split the rows, and whether they split the columns, too."""

    names: tuple[str, ...] = ()
    ring: bool = False


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def statistics(form: Form, devices: Devices, matrix: Matrix) -> tuple[Any, Any]:
    """The statistics (blocks, size) of the rows and columns that this device has."""
    of_part = functools.partial(_of_part, form)
    home, columns = (matrix.scale, matrix.rows), matrix.columns
    t = of_part(home, columns)
    if not devices.names:
        return t
    if not devices.ring:
        return t[0], form.merge_devices(t[1], devices.names)
    home, columns = (matrix.scale, apart(matrix.rows)), apart(columns)
    of_others = over_others(
        of_part, devices.names, form.merge, form.of_nothing, home, columns
    )
    return form.merge(t[0], of_others[0]), form.merge(t[1], of_others[1])


def _of_part(form: Form, home: tuple[Array, Side], columns: Side) -> tuple[Any, Any]:
    """The statistics of a device's rows and some columns, of their part of a matrix."""
    scale, rows = home
    precision = precision_of(rows.vectors, columns.vectors)

    def of_block(rows: Side, columns: Side) -> Any:
        z = scale * similarities(precision, rows.vectors, columns.vectors)
        logits = with_bias(z, rows.bias, columns.bias)
        return form.of_block(MatrixBlock(rows=rows, columns=columns), logits)

    return _over_blocks(of_block, form.merge, form.of_nothing, rows, columns)


# With s the scale and G = ∂loss/∂logits, a block of which is a function of the logits
# there and of the statistics of all blocks,
#
#     ∂/∂(s x) = G y        ∂/∂y = s Gᵀ x        ∂/∂s = ⟨∂/∂(s x), x⟩
#
# so that the scale takes no sum over blocks. That is the transpose of the tangent
# below, a sum over blocks like the statistics themselves, in which s dx + ds x and s dy
# stand in place of dx, dy and ds. They are float32 or better: so are the sums of the
# transpose. The checkpoints make it form each block's logits again: four products of
# the matrix's size, where a matrix in memory needs three.
@functools.partial(statistics.defjvp, symbolic_zeros=True)
def _matrix_jvp(form: Form, devices: Devices, primals: Any, tangents: Any) -> Any:
    (matrix,), (moving,) = primals, moving_of(tangents)
    t = statistics(form, devices, matrix)
    moving = _scaled(matrix, moving)
    (scale, *sides), of_sides = vary(
        ((matrix.scale, *matrix[:2]), t), varying_of((matrix, moving, t))
    )
    tangent = functools.partial(_tangent, form)

    def part(sides: Any) -> Any:
        rows, columns = zip(sides, moving[:2], of_sides, strict=True)
        return (scale, rows), columns

    of_rows, of_columns = tangent(*part(sides))
    if devices.ring:
        others = part(map(apart, sides))
        of_others = sum_over_others(tangent, devices.names, *others)
        of_rows, of_columns = add((of_rows, of_columns), of_others)
    elif devices.names:
        of_columns = lax.psum(of_columns, devices.names)
    zeros = jax.tree.map(jax.custom_derivatives.zero_from_primal, t)
    moved = jax.tree.map(
        lambda x, zero: zero if x is None else x,
        (of_rows, of_columns),
        zeros,
        is_leaf=lambda x: x is None,
    )
    return t, moved


def _scaled(matrix: Matrix, moving: Any) -> Any:
    """The tangents with s dx + ds x for dx, s dy for dy, and None for ds."""
    moving = _cast(moving, matrix.scale.dtype)
    dx, dy, ds = moving.rows.vectors, moving.columns.vectors, moving.scale
    terms = [] if dx is None else [matrix.scale * dx]
    if ds is not None:
        terms.append(ds * cast(matrix.rows.vectors, ds.dtype))
    dx = functools.reduce(lax.add, terms) if terms else None
    dy = None if dy is None else matrix.scale * dy
    return moving._replace(
        rows=moving.rows._replace(vectors=dx),
        columns=moving.columns._replace(vectors=dy),
        scale=None,
    )


def _tangent(form: Form, home: Any, columns: Any) -> tuple[Any, Any]:
    """Tangents of the statistics of a device's rows and of some columns.

    Rows and columns come with their tangents, as `_scaled` has them, and with their
    statistics.
    """
    scale, rows = home
    precision = precision_of(rows[0].vectors, columns[0].vectors)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_block(rows: Any, columns: Any) -> Any:
        (rows, drows, of_rows), (columns, dcolumns, of_columns) = rows, columns
        x, y = _cast((rows.vectors, columns.vectors), scale.dtype)
        tangents = drows.vectors, dcolumns.vectors

        def at(points: Any) -> Array:
            return similarities(precision, *replaced((x, y), points))

        products, dz = jax.jvp(at, (like_moving(tangents, (x, y)),), (tangents,))
        logits = with_bias(scale * products, rows.bias, columns.bias)
        moved = with_bias(dz, drows.bias, dcolumns.bias)
        block = MatrixBlock(rows=rows, columns=columns)
        return form.tangent_of_block(block, logits, moved, (of_rows, of_columns))

    return _over_blocks(of_block, add, lambda zeros: zeros, rows, columns)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: cast(x, dtype), tree)


def add(a: Any, b: Any) -> Any:
    """The sum of two trees of arrays."""
    return jax.tree.map(lax.add, a, b)
