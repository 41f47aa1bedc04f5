"""Sums of a batch's rows, as objects that are added field by field."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ._checks import fail, shown


# Not typing.Self: checkers at run time, which see methods one by one, refuse it.
_Sums = TypeVar("_Sums", bound="AddsUp")


class AddsUp:
    """A base of NamedTuples, whose own + would join the fields of both in one tuple."""

    __slots__ = ()
    __array_ufunc__ = None  # numbers of NumPy leave their operators to those here

    def __add__(self: _Sums, other: _Sums | int) -> _Sums:
        """The sums of both, field by field. 0, where `sum` starts, adds nothing."""
        if type(other) is int and not other:
            return self
        name, other_name = type(self).__name__, type(other).__name__
        if type(other) is not type(self):
            came = other_name if isinstance(other, tuple) else shown(other)
            raise TypeError(
                f"{name}: expected {name} to add, got {came}. Sums of one kind are "
                "added field by field, a + b or sum([a, b])."
            )
        _check_shapes(name, self, other)
        return _added(self, other)

    __radd__ = __add__

    def __mul__(self, factor: Any) -> Any:
        mean = "compute()" if hasattr(self, "compute") else "loss / sums.weight"
        raise TypeError(
            f"{type(self).__name__}: expected sums to be added, got the factor or "
            f"divisor {shown(factor)}. Their mean is sums.{mean}; to scale each field, "
            "jax.tree.map(lambda x: x * factor, sums)."
        )

    __rmul__ = __truediv__ = __mul__


def _check_shapes(name: str, a: Any, b: Any) -> None:
    for field, x, y in zip(a._fields, a, b, strict=True):
        if jnp.shape(x) != jnp.shape(y):
            fail(
                name,
                f"expected {field} of shape {jnp.shape(x)} to add, got {jnp.shape(y)}. "
                "Bins need the same edges; to add up a stack of sums, "
                "jax.tree.map(lambda x: x.sum(0), stack).",
            )


@jax.jit
def _added(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)
