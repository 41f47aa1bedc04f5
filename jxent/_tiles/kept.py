"""What is kept of a loss from call to call: its traces, and its compiled sums.

As under `jax.jit`, a loss is known by the function object, and for as long as that
lives: a lambda made for one call leaves nothing behind.
"""

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
from jax.core import eval_jaxpr


class Traced(NamedTuple):
    """A traced loss, a function of the arrays that it closes over too.

    Hashable: a jaxpr equals nothing but itself.
    """

    jaxpr: Any
    out_tree: Any

    def __call__(self, closed_over: list[Any], *arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        return self.out_tree.unflatten(eval_jaxpr(self.jaxpr, closed_over, *leaves))


class Kept:
    """What is kept of one loss. Nothing in it may hold on to the loss itself."""

    def __init__(self, loss: Callable[..., Any]):
        self._loss = loss
        self._jitted = jax.jit(loss)
        self._compiled: dict[Hashable, Callable[[Any], Any]] = {}

    def trace(self, *arguments: Any) -> tuple[Traced, list[Any], Any]:
        """The traced loss, the arrays that it closes over, the shapes it returns."""
        traced = self._jitted.trace(*arguments)
        closed, result = traced.jaxpr, traced.out_info
        if len(closed.in_avals) > len(jax.tree.leaves(arguments)):
            # The loss closes over tracers, and JAX has made arguments of them. This
            # shows their values, from the same trace; but for arrays JAX would keep
            # something more at each call.
            closed = jax.make_jaxpr(self._loss)(*arguments)
        return (
            Traced(jaxpr=closed.jaxpr, out_tree=jax.tree.structure(result)),
            closed.consts,
            result,
        )

    def compiled(
        self, function: Callable[[Any, Any], Any], static: Hashable
    ) -> Callable[[Any], Any]:
        """`function(static, operands)` as a compiled function of the operands."""
        if static not in self._compiled:
            # Not static_argnums: JAX's caches hold a static argument for longer than
            # the function lives.
            self._compiled[static] = jax.jit(functools.partial(function, static))
        return self._compiled[static]


_kept: weakref.WeakKeyDictionary[Callable[..., Any], Kept] = weakref.WeakKeyDictionary()


def kept(loss: Callable[..., Any]) -> Kept:
    try:
        if loss not in _kept:
            _kept[loss] = Kept(functools.partial(_call, weakref.ref(loss)))
        return _kept[loss]
    except TypeError:  # it has no hash, or no weak references: each call is the first
        return Kept(functools.partial(loss))


def _call(loss: Callable[[], Any], *arguments: Any) -> Any:
    return loss()(*arguments)
