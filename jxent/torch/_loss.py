"""What PyTorch's loss classes share: options, immutable, and a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from .._checks import REDUCTIONS, ArrayLike
from . import _checks


class TorchLoss:
    """Options, immutable and compared by value: a pytree of its array weights alone.

    Whatever is no array belongs to the tree's structure, so that a loss without array
    weights has no leaves, and is a valid static argument.
    """

    _function: ClassVar[Callable[..., Array]]
    _reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten, lambda aux, leaves: _unflatten(cls, aux, leaves)
        )

    def __post_init__(self, size_average: bool | None, reduce: bool | None) -> None:
        attributes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value.item()
            for name, value in vars(self).items()
            if isinstance(value, list | np.generic)
        }
        attributes["reduction"] = _checks.reduction(
            type(self).__name__,
            vars(self)["reduction"],
            size_average,
            reduce,
            self._reductions,
        )
        vars(self).update(attributes)

    def __call__(self, input: ArrayLike, target: ArrayLike) -> Float[Array, "..."]:
        return type(self)._function(input, target, **vars(self))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        (ours, our_options), (theirs, their_options) = _split(self), _split(other)
        same = all(theirs.get(n) is x for n, x in ours.items())
        return same and our_options == their_options and ours.keys() == theirs.keys()

    def __hash__(self) -> int:
        arrays, options = _split(self)
        if arrays:
            raise TypeError(
                f"{type(self).__name__}: expected a hashable loss, got an array as "
                f"{' and '.join(arrays)}. Pass the loss as an argument of jit that is "
                "not static, or give a tuple of numbers."
            )
        return hash((type(self), options))


def _split(loss: Any) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    arrays, options = {}, []
    for field in dataclasses.fields(loss):
        value = getattr(loss, field.name)
        if isinstance(value, str | int | float | tuple | None):
            options.append((field.name, value))
        else:
            arrays[field.name] = value
    return arrays, tuple(options)


def _flatten(loss: TorchLoss) -> Any:
    arrays, options = _split(loss)
    children = [(jax.tree_util.GetAttrKey(n), x) for n, x in arrays.items()]
    return children, (tuple(arrays), options)


def _unflatten(cls: type, aux: Any, children: Any) -> Any:
    names, options = aux
    loss = object.__new__(cls)
    vars(loss).update(options)
    vars(loss).update(zip(names, children, strict=True))
    return loss
