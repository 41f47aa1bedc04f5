"""`plan`: the layout that a call chooses for its LinearLogits, and its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .. import _checks
from .._layouts.choice import BUDGET
from .._platform import assume_platform


class Plan(NamedTuple):
    """How a call computes the logits of its `LinearLogits`.

    Attributes:
      function: the loss, statistic or metric that takes them.
      implementation: "tiled", "streamed" or "materialized".
      block_sizes: (rows, classes) of a block of logits.
      temporary_bytes: what value and gradients in hidden and kernel need beside their
        operands and results, as predicted.
    """

    function: str
    implementation: str
    block_sizes: tuple[int, int]
    temporary_bytes: int


class Listener:
    """Hears which layouts are chosen while a function is traced."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self.plans: list[Plan] = []


# A value of a user context is a part of the key by which JAX keeps traces: what is
# jitted, and has been traced before, is traced again for a new listener.
_listening = jax.make_user_context(None)
NOBODY = Listener()


def listener() -> Listener:
    """That of the enclosing `plan`; NOBODY outside of one."""
    heard: Listener | None = _listening.value
    return NOBODY if heard is None else heard


def plan(
    function: Callable[..., Any], *, budget: int = BUDGET, platform: str | None = None
) -> Callable[..., Plan]:
    """The layout that a call chooses for its LinearLogits, and the memory it needs.

        jxent.plan(jxent.softmax_cross_entropy)(logits, labels, reduction="mean")

    It computes nothing, and chooses what the call itself would choose.

    Where a mesh splits the classes, logits of any size are streamed. All sizes and
    bytes here are those of one device.

    Otherwise small logits, 8 MiB or less, are materialized: nothing is faster.

    A larger scalar result is tiled, which multiplies no more than materialized logits
    do, if a slab of logits and the gradient of a bfloat16 kernel in float32 fit the
    budget; or materialized, if no rows can be dropped and the logits of all rows take
    less than these two. A slab has at most a quarter of all rows, or 128: up to 512 of
    them and 128 MiB on a CPU, 512 and 256 MiB on a GPU, 1024 and 512 MiB on a TPU.

    All else is streamed, results of rows and statistics among them. It takes the least
    memory and one more product of the logits' size. Its blocks of classes make 32 MiB
    of logits, 512 classes at most on a CPU, where they are to fit the cache, and 2048
    elsewhere. Given where or ignore_index, its blocks have an eighth of the rows each,
    so that blocks of dropped rows can be skipped, and up to 1024 classes on a CPU.

    Args:
      function: a loss, statistic, divergence or metric that takes `LinearLogits`; or a
        function of yours that calls one of them, jitted or not, its gradient too.
      budget: bytes that temporary arrays may take; 2 GiB by default.
      platform: "cpu", "gpu" or "tpu"; None for that of the arrays, the mesh in context
        or `jax.default_device`, as far as a call knows them, or JAX's default.

    Returns:
      A function of the arguments of `function`, which returns a `Plan`. Arrays may be
      mere shapes and dtypes, `jax.ShapeDtypeStruct`. Give implementation and
      block_sizes to the `LinearLogits` to keep to the plan.

    Numerics:
      The bytes are those of value and gradients; a metric alone takes less. They are
      modelled on XLA for a CPU, and are within 15% of what the compiler reports there,
      or 1 MiB, for each loss and for single options. Masks of classes, a soft cap or a
      temperature cost a second copy of a block. Arrays (rows, classes) of the caller
      are read a block at a time, but copied where rows may be dropped: once for tiles,
      three times for a stream. For accelerators casts and copies are left out, and
      compilers save more than them.

    Raises:
      ValueError: `function` takes no LinearLogits, or in more than one way: in several
        calls of jxent whose layouts differ. Also what the call itself raises.

    Example:
      >>> hidden = jax.ShapeDtypeStruct((8192, 2048), jnp.bfloat16)
      >>> table = jax.ShapeDtypeStruct((131072, 2048), jnp.float32)
      >>> labels = jax.ShapeDtypeStruct((8192,), jnp.int32)
      >>> plan = jxent.plan(jxent.softmax_cross_entropy, platform="tpu")(
      ...     jxent.LinearLogits(hidden, table, vocab_axis=0), labels, reduction="mean")
      >>> print(plan.implementation, plan.block_sizes)
      tiled (1024, 131072)

    Source:
      Measured: `python -m benchmarks --suite linear`.

    See also:
      `LinearLogits`.
    """
    if not callable(function):
        raise TypeError(
            "plan: expected a function, such as jxent.softmax_cross_entropy, got "
            f"{_checks.shown(function)}. Its arguments follow: "
            "plan(function)(*arguments)."
        )
    _checks.one_of("plan", "platform", platform, ("cpu", "gpu", "tpu"))
    _checks.python_number("plan", "budget", budget, low=0)

    def planned(*args: Any, **kwargs: Any) -> Plan:
        leaves, tree = jax.tree.flatten((args, kwargs))
        shapes = {
            i: x for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)
        }

        def traced(arrays: dict[int, Any]) -> None:
            every = [arrays.get(i, x) for i, x in enumerate(leaves)]
            args, kwargs = jax.tree.unflatten(tree, every)
            function(*args, **kwargs)

        heard = Listener(budget)
        with _listening(heard), assume_platform(platform):
            jax.eval_shape(traced, shapes)
        plans = dict.fromkeys(heard.plans)  # a loop may be traced more than once
        if len(plans) != 1:
            several = ", ".join(f"{p[0]} {p[1]!r} {p[2]}" for p in plans)
            hint = f"several: {several}. Plan each by itself"
            if not plans:
                hint = "none. Give LinearLogits where it takes logits"
            _checks.fail(
                "plan",
                "expected a function in which one call of jxent takes LinearLogits, "
                f"found {hint}.",
            )
        return next(iter(plans))

    return planned
