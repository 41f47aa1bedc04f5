"""The arguments of sum_over_tiles and map_over_tiles, checked and traced."""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array

from .. import _checks
from .._arrays import vary, varying_of
from .._checks import ArrayLike
from .kept import Kept, Traced, kept


class Tiled(NamedTuple):
    """A function over tiles, static under jit: for whole tiles and for the last one."""

    functions: tuple[Traced, ...]
    tile: int

    def __call__(self, params: Any, rows: Any) -> Any:
        """The results of a tile; `params` is (params, closed_over) of `Operands`."""
        params, closed_over = params
        size = jax.tree.leaves(rows)[0].shape[0]
        which = 0 if size == self.tile else -1
        return self.functions[which](closed_over[which], params, rows)


class Operands(NamedTuple):
    params: Any
    closed_over: tuple[list[Any], ...]  # by each of the functions
    rows: Any
    live: Array | None


def checked_operands(
    name: str,
    kind: str,
    function: Callable[..., Any],
    params: Any,
    rows: Any,
    *,
    tile: Any,
    where: ArrayLike | None,
    returns: Callable[[Any, int], None],
) -> tuple[Kept, Tiled, Operands]:
    """The arguments of a call, and the function traced for its sizes of tiles.

    `returns(shapes of the results, rows of the tile)` raises an error for results that
    are not allowed.
    """
    if not callable(function):
        raise TypeError(
            f"{name}: expected a {kind} that can be called with (params, a tile of "
            f"rows), got {type(function).__name__}. Give the function first."
        )
    params, rows = (
        jax.tree.map(functools.partial(_checks.as_array, name, of), tree)
        for of, tree in (("params", params), ("rows", rows))
    )
    count = _count_rows(name, rows)
    tile = max(min(_tile_size(name, tile), count), 1)
    live = None
    if where is not None:
        live = _checks.boolean(name, "where", where)
        if live.shape != (count,):
            _checks.fail(
                name,
                f"expected where of shape {(count,)}, one for each row, "
                f"got {live.shape}.",
            )
    given = params, rows, live
    params, rows, live = vary(given, varying_of(given))
    functions, closed_over = [], []
    known = kept(function)
    for size in _sizes(count, tile):
        traced, arrays, results = known.trace(params, _first.eval_shape(rows, size))
        returns(results, size)
        functions.append(traced)
        closed_over.append(arrays)
    return (
        known,
        Tiled(functions=tuple(functions), tile=tile),
        Operands(params=params, closed_over=tuple(closed_over), rows=rows, live=live),
    )


def _count_rows(function: str, rows: Any) -> int:
    shapes = [x.shape for x in jax.tree.leaves(rows)]
    if not shapes:
        _checks.fail(
            function,
            f"expected rows that hold at least one array, got {rows!r}. Give what each "
            "row has as rows (hidden states, labels), and what all share as params.",
        )
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        _checks.fail(
            function,
            "expected rows with the same number of rows along their first axis, got "
            f"shapes {shapes}.",
        )
    count = shapes[0][0]
    if not isinstance(count, int):
        _checks.fail(
            function,
            f"expected a number of rows that is known when the program is traced, got "
            f"{count}. Export for a batch size, or give a fused loss of jxent's own.",
        )
    return count


def _sizes(count: int, tile: int) -> list[int]:
    """How many rows the tiles have: whole ones, and the smaller last one."""
    whole, rest = divmod(count, tile)
    return [tile] * (whole > 0) + [rest] * (rest > 0 or not count)


@functools.partial(jax.jit, static_argnums=1)
def _first(rows: Any, size: int) -> Any:
    return jax.tree.map(lambda x: x[:size], rows)


def _tile_size(function: str, tile: Any) -> int:
    try:
        if isinstance(tile, bool):
            raise TypeError
        size = operator.index(tile)
    except TypeError:  # a float, or a number that is known only when the program runs
        raise TypeError(
            f"{function}: expected tile to be an integer, known when the program is "
            f"traced, got {tile!r}."
        ) from None
    if size < 1:
        _checks.fail(function, f"expected a tile of at least one row, got {size}.")
    return size
