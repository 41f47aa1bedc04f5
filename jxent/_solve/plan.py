"""`plan`: the layout that a call chooses for its LinearLogits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _checks
from .._compute.platform import assume_platform, platform_of


Layout: TypeAlias = tuple[str, str, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Program:
    """A function with its arguments, shapes in place of arrays, for the compiler.

    Any two are equal: plans are that choose the same.
    """

    function: Callable[..., Any] = dataclasses.field(repr=False, compare=False)
    leaves: list[Any] = dataclasses.field(repr=False, compare=False)
    tree: Any = dataclasses.field(repr=False, compare=False)
    platform: str = dataclasses.field(repr=False, compare=False)
    inside_shard_map: bool = dataclasses.field(repr=False, compare=False)

    def temporary_bytes(self, *, gradients: bool) -> int | None:
        elsewhere = self.platform != platform_of(())
        if elsewhere or self.inside_shard_map or _is_inside_shard_map():
            return None
        leaves = enumerate(self.leaves)
        shapes = {i: x for i, x in leaves if isinstance(x, jax.ShapeDtypeStruct)}
        args, kwargs = jax.tree.unflatten(self.tree, range(len(self.leaves)))
        own = {*jax.tree.leaves(args[:1] or kwargs)}
        moving = {i for i, x in shapes.items() if i in own and _is_floating(x)}

        def value(some: dict[int, Any], others: dict[int, Any]) -> Any:
            every = [(some | others).get(i, x) for i, x in enumerate(self.leaves)]
            args, kwargs = jax.tree.unflatten(self.tree, every)
            return self.function(*args, **kwargs)

        def total(some: dict[int, Any], others: dict[int, Any]) -> Array:
            results = filter(_is_floating, jax.tree.leaves(value(some, others)))
            sums = (jnp.sum(x).astype(jnp.float32) for x in results)
            return sum(sums, jnp.zeros((), jnp.float32))

        program = jax.value_and_grad(total) if gradients else value
        some = {i: shapes[i] for i in moving}
        others = {i: x for i, x in shapes.items() if i not in moving}
        report = jax.jit(program).lower(some, others).compile().memory_analysis()
        return None if report is None else report.temp_size_in_bytes


class Plan(NamedTuple):
    """How a call computes the logits of its `LinearLogits`.

    Attributes:
      function: the loss, statistic or metric that takes them.
      implementation: "tiled", "streamed" or "materialized".
      block_sizes: (rows, classes) of a block of logits.
      program: the call that is planned, for the compiler.
    """

    function: str
    implementation: str
    block_sizes: tuple[int, int]
    program: Program

    def temporary_bytes(self, *, gradients: bool) -> int | None:
        """What the call needs beside its operands and results, as the compiler says.

        It compiles the call for abstract arrays and runs nothing: a few seconds for the
        head of a language model.

        Args:
          gradients: whether to compile value and gradients, those in the floating
            arrays of the first argument; otherwise the value alone.

        Returns:
          The bytes, on a mesh those of one device. None if nothing can be compiled
          here: for another platform than the one that JAX runs on, inside of
          `shard_map`, or where the compiler does not tell.
        """
        gradients = _checks.flag("temporary_bytes", "gradients", gradients)
        return self.program.temporary_bytes(gradients=gradients)


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _shape_of(x: Any) -> Any:
    """The shape and dtype of an array, with its place on a mesh; all else unchanged."""
    if not isinstance(x, Array | np.ndarray):
        return x
    sharding = getattr(x, "sharding", None)
    on_mesh = sharding if isinstance(sharding, jax.sharding.NamedSharding) else None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_mesh)


def _is_inside_shard_map() -> bool:
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


class Listener:
    """Hears which layouts are chosen while a function is traced."""

    def __init__(self) -> None:
        self.layouts: list[Layout] = []


# A value of a user context is a part of the key by which JAX keeps traces: what is
# jitted, and has been traced before, is traced again for a new listener.
_listening = jax.make_user_context(None)
NOBODY = Listener()


def listener() -> Listener:
    """That of the enclosing `plan`; NOBODY outside of one."""
    heard: Listener | None = _listening.value
    return NOBODY if heard is None else heard


def plan(
    function: Callable[..., Any], *, platform: str | None = None
) -> Callable[..., Plan]:
    """The layout that a call chooses for its LinearLogits.

        jxent.plan(jxent.softmax_cross_entropy)(logits, labels, reduction="mean")

    It computes nothing, compiles nothing, and chooses what the call itself would
    choose. The plan's `temporary_bytes` asks the compiler for the memory of the call.

    Where a mesh splits the classes, logits of any size are streamed. All sizes and
    bytes here are those of one device.

    Otherwise small logits, 8 MiB or less, are materialized: nothing is faster.

    A larger scalar result is tiled, which multiplies no more than materialized logits
    do, if a slab of logits and the gradient of a bfloat16 kernel in float32 fit 2 GiB;
    or materialized, if no rows can be dropped and the logits of all rows take less than
    these two. A slab has at most a quarter of all rows, or 128: up to 512 of
    them and 128 MiB on a CPU, 512 and 256 MiB on a GPU, 1024 and 512 MiB on a TPU.

    All else is streamed, results of rows and statistics among them. It takes the least
    memory and one more product of the logits' size. Its blocks of classes make 32 MiB
    of logits, 512 classes at most on a CPU, where they are to fit the cache, and 2048
    elsewhere. Given where or ignore_index, its blocks have an eighth of the rows each,
    so that blocks of dropped rows can be skipped, and up to 1024 classes on a CPU.

    Args:
      function: a loss, statistic, divergence or metric that takes `LinearLogits`; or a
        function of yours that calls one of them, jitted or not, its gradient too.
      platform: "cpu", "gpu" or "tpu"; None for that of the arrays, the mesh in context
        or `jax.default_device`, as far as a call knows them, or JAX's default.

    Returns:
      A function of the arguments of `function`, which returns a `Plan`. Arrays may be
      mere shapes and dtypes, `jax.ShapeDtypeStruct`. Give implementation and
      block_sizes to the `LinearLogits` to keep to the plan.

    Numerics:
      A plan does not change a result by more than rounding.

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

    def planned(*args: Any, **kwargs: Any) -> Plan:
        leaves, tree = jax.tree.flatten((args, kwargs))
        shapes = {
            i: x for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)
        }

        def traced(arrays: dict[int, Any]) -> None:
            every = [arrays.get(i, x) for i, x in enumerate(leaves)]
            args, kwargs = jax.tree.unflatten(tree, every)
            function(*args, **kwargs)

        heard = Listener()
        with _listening(heard), assume_platform(platform):
            planned_for = platform_of(leaves)
            jax.eval_shape(traced, shapes)
        layouts = dict.fromkeys(heard.layouts)  # a loop may be traced more than once
        if len(layouts) != 1:
            several = ", ".join(
                f"{name} {how!r} {sizes}" for name, how, sizes in layouts
            )
            hint = f"several: {several}. Plan each by itself"
            if not layouts:
                hint = "none. Give LinearLogits where it takes logits"
            _checks.fail(
                "plan",
                "expected a function in which one call of jxent takes LinearLogits, "
                f"found {hint}.",
            )
        inside = _is_inside_shard_map()
        leaves = [*map(_shape_of, leaves)]
        program = Program(function, leaves, tree, planned_for, inside)
        ((name, implementation, block_sizes),) = layouts
        return Plan(
            function=name,
            implementation=implementation,
            block_sizes=block_sizes,
            program=program,
        )

    return planned
