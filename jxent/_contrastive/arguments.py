"""The arguments that contrastive losses share, checked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import (
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
)

import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._checks import ArrayLike, AxisName
from .._compute.platform import platform_of
from .._layouts.mesh import head_sharding
from .._problem.bundles import Maybe
from .._problem.problem import HeadSharding
from .._solve.call import RowOptions


BlockSizes: TypeAlias = tuple[SupportsIndex | None, SupportsIndex | None]
Implementation: TypeAlias = Literal["gathered", "ring"]
Function = TypeVar("Function", bound=Callable[..., Any])


class ContrastiveSettings(NamedTuple):
    """Static options of one call: hashable, part of the jit cache's key."""

    platform: str
    reduction: str = "none"
    batch_axis_name: tuple[str, ...] = ()  # bound mesh axes that split the batch
    block_sizes: tuple[int | None, int | None] = (None, None)
    ring: bool = False  # whether each device has its own columns alone
    sharding: HeadSharding = HeadSharding()  # of a batch that is seen whole


class Options(NamedTuple):
    """The options that act on the losses (batch,)."""

    where: Maybe
    weights: Maybe
    normalizer: Maybe


def called_elsewhere(**names: str) -> Callable[[Function], Function]:
    """Makes an argument that only a sibling of the function takes an error that helps.

    `names` has what to give in place of each.
    """

    def decorated(function: Function) -> Function:
        @functools.wraps(function)
        def checked(*arguments: Any, **named: Any) -> Any:
            for name in names.keys() & named.keys():
                raise TypeError(
                    f"{function.__name__}: got an unexpected argument {name!r}. Give "
                    f"{names[name]}."
                )
            return function(*arguments, **named)

        return cast(Function, checked)

    return decorated


def vectors(
    function: str, name: str, x: ArrayLike, *, labels: ArrayLike | None = None
) -> Array:
    """`x`, floating (batch, features); `labels` may have been exchanged with it."""
    order = f"{name}, labels"
    x = _checks.floating(function, name, x, beside=labels, order=order)
    if x.ndim != 2:
        _checks.fail(
            function,
            f"expected {name} of shape (batch, features), got {x.shape}. "
            "Map over further axes with jax.vmap.",
        )
    return x


def both_of_pairs(function: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = vectors(function, "x", x), vectors(function, "y", y)
    if x.shape != y.shape:
        hint = _checks.rearranged("y", y.shape, x.shape)
        if x.shape[1] == y.shape[1]:
            hint = "Vectors without a partner are extra_candidates."
        _checks.fail(
            function,
            f"expected x and y of one shape, pair i being x[i] and y[i], got {x.shape} "
            f"and {y.shape}. {hint or 'Project them to the same features.'}",
        )
    return x, y


def extra_vectors(function: str, extra: ArrayLike | None, like: Array) -> Maybe:
    if extra is None:
        return None
    name = "extra_candidates"
    extra = vectors(function, name, extra)
    if extra.shape[1] != like.shape[1]:
        _checks.fail(
            function,
            f"expected {name} with the {like.shape[1]} features of y, "
            f"got shape {extra.shape}.",
        )
    return extra


def integers_of(function: str, name: str, ids: ArrayLike | None, batch: Any) -> Maybe:
    """`ids`, one integer for each row of the batch."""
    if ids is None:
        return None
    ids = _checks.integers(function, name, ids)
    if ids.shape != (batch,):
        _checks.fail(
            function,
            f"expected {name} of shape {(batch,)}, one for each row of the batch, "
            f"got {ids.shape}.",
        )
    return ids


def checked_pairs(
    function: str,
    x: Array,
    dtype: jnp.dtype,
    rows: RowOptions,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
) -> tuple[ContrastiveSettings, Options]:
    """The options that all contrastive losses take, for a batch x (batch, features)."""
    batch, batch_axis_name = x.shape[:1], rows.batch_axis_name
    _checks.reduction(function, rows.reduction, rows.normalizer)
    where = _checks.mask_of_rows(function, rows.where, batch)
    weights = _checks.weights_of_rows(function, rows.weights, batch, dtype)
    _checks.one_of(function, "implementation", implementation, get_args(Implementation))
    names = _checks.bound_axis_names(function, "batch_axis_name", batch_axis_name, x)
    sharding = head_sharding(function, x, x, 0, batch_axis_name=batch_axis_name)
    ring = implementation == "ring"
    if ring and not names and not sharding.row_names:
        _no_ring(function, batch, batch_axis_name)
    settings = ContrastiveSettings(
        platform=platform_of((x, where, weights)),
        reduction=rows.reduction,
        batch_axis_name=names,
        block_sizes=_checks.block_sizes(function, block_sizes, "columns"),
        ring=ring,
        sharding=sharding,
    )
    options = Options(
        where=where,
        weights=weights,
        normalizer=_checks.normalizer(function, rows.normalizer, dtype),
    )
    return settings, options


def _no_ring(function: str, batch: Any, batch_axis_name: AxisName) -> NoReturn:
    came, remedy = "no batch_axis_name", "Name the mesh axes that split the batch."
    if batch_axis_name is not None:
        came = f"a batch of {batch[0]} for batch_axis_name={batch_axis_name!r}"
        remedy = "Pad it to a multiple of the devices, and drop the padding with where."
    _checks.fail(
        function,
        "implementation='ring' needs a batch that mesh axes split evenly, got "
        f"{came}. {remedy}",
    )
