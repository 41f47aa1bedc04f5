"""`linear_softmax_plan`: the layout that a call would choose, and its memory."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .._formulas import cross_entropy
from .._problem import Formula, Problem, head_problem
from .._reduction import Reduction
from .choice import (
    BUDGET,
    BlockSizes,
    Implementation,
    chosen,
    sizes_of,
    temporaries,
    uses_of,
)


class LinearSoftmaxPlan(NamedTuple):
    """How a fused head computes its logits.

    Attributes:
      implementation: "tiled", "streamed" or "materialized".
      block_sizes: (rows, classes) of a block of logits.
      temporary_bytes: what value and gradients in hidden and kernel need beside their
        operands and results, as predicted.
    """

    implementation: str
    block_sizes: tuple[int, int]
    temporary_bytes: int


def linear_softmax_plan(
    hidden: ArrayLike | jax.ShapeDtypeStruct,
    kernel: ArrayLike | jax.ShapeDtypeStruct,
    labels: ArrayLike | jax.ShapeDtypeStruct | None = None,
    *,
    bias: ArrayLike | jax.ShapeDtypeStruct | None = None,
    vocab_axis: SupportsIndex = -1,
    where: ArrayLike | jax.ShapeDtypeStruct | None = None,
    weights: ArrayLike | jax.ShapeDtypeStruct | None = None,
    class_mask: ArrayLike | jax.ShapeDtypeStruct | None = None,
    ignore_index: ArrayLike | None = None,
    label_smoothing: ArrayLike | None = 0.0,
    logit_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike | jax.ShapeDtypeStruct | None = None,
    reduction: Reduction = "none",
    return_statistics: bool = False,
    block_sizes: BlockSizes | None = None,
    implementation: Implementation | None = None,
    budget: int = BUDGET,
    platform: str | None = None,
) -> LinearSoftmaxPlan:
    """The layout that `linear_softmax_cross_entropy` would choose, and its memory.

    Small logits, 8 MiB or less, are materialized: nothing is faster.

    A scalar result is tiled, which multiplies no more than materialized logits do, if a
    slab of logits and the gradient of a bfloat16 kernel in float32 fit the budget; or
    materialized, if no rows can be dropped and the logits of all rows take less than
    these two. A slab has at most a quarter of all rows, or 128: up to 512 of them and
    128 MiB on a CPU, 512 and 256 MiB on a GPU, 1024 and 512 MiB on a TPU.

    All else is streamed: results per row, statistics, and classes split over a mesh. It
    takes the least memory and one more product of the logits' size. Its blocks of
    classes make 32 MiB of logits, 512 classes at most on a CPU, where they are to fit
    the cache, and 2048 elsewhere. Given where or ignore_index, its blocks have an
    eighth of the rows each, so that blocks of dropped rows can be skipped, and up to
    1024 classes on a CPU.

    The options are those of the loss; where they are arrays, their shape and dtype will
    do. Options of the loss that are not listed here do not change the plan.

    Args:
      hidden: (..., features), or its shape and dtype.
      kernel: (features, classes), or (classes, features) with vocab_axis=0; or its
        shape and dtype.
      labels: class ids or distributions, or their shape and dtype; None for class ids.
      bias: (classes,), or its shape and dtype.
      vocab_axis: the kernel's axis of classes.
      where: boolean. Of the losses' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the losses, a scalar or of the losses' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      class_mask: boolean (classes,). False marks classes that do not exist, such as the
        padding of a vocabulary.
      ignore_index: the class id that marks a dropped row.
      label_smoothing: ε, between 0 and 1: this share of the label is spread over all
        classes that exist and are not masked, the label's own included. None for no
        smoothing.
      logit_soft_cap: c, replaces each logit z by c · tanh(z/c) before anything else.
        None and an infinite c stand for no cap.
      temperature: divides the logits after the soft cap; a scalar or one a row. An
        infinite temperature makes all possible classes equally likely.
      reduction: "none", "mean" or "sum". mean = Σ r · loss / Σ r, where r is everything
        that multiplies a row: where, weights, and the label's class weight (Σ_c q_c w_c
        for a distribution).
      return_statistics: also return the row statistics, entropy and argmax included.
      block_sizes: (rows, classes) of a block that the loss is given. The plan chooses
        what is None.
      implementation: the layout that the loss is given. The plan chooses for None.
      budget: bytes that temporary arrays may take; 2 GiB by default.
      platform: "cpu", "gpu" or "tpu"; None for where JAX runs by default.

    Returns:
      `LinearSoftmaxPlan`. Give its implementation and block_sizes to the loss to keep
      to it.

    Numerics:
      Sizes are in bytes. The prediction is modelled on XLA for a CPU, and is within 15%
      of what the compiler reports there. On a CPU options such as masks of classes, a
      soft cap or a temperature cost materialized and streamed logits a second copy. For
      accelerators casts and copies are left out, and compilers save more than them.

    Raises:
      ValueError: the shapes, block_sizes or implementation do not fit.

    Example:
      >>> hidden = jax.ShapeDtypeStruct((8192, 2048), jnp.bfloat16)
      >>> table = jax.ShapeDtypeStruct((131072, 2048), jnp.float32)
      >>> plan = jxent.linear_softmax_plan(
      ...     hidden, table, vocab_axis=0, reduction="mean", platform="tpu")
      >>> print(plan.implementation, plan.block_sizes)
      tiled (1024, 131072)

    Source:
      Measured: `python -m benchmarks --suite linear`.

    See also:
      `linear_softmax_cross_entropy`.
    """
    name = "linear_softmax_plan"
    arguments = {
        "hidden": hidden,
        "kernel": kernel,
        "labels": labels,
        "bias": bias,
        "where": where,
        "weights": weights,
        "class_mask": class_mask,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "logit_soft_cap": logit_soft_cap,
        "temperature": temperature,
        "vocab_axis": vocab_axis,
        "reduction": reduction,
        "return_statistics": return_statistics,
    }
    _checks.one_of(name, "platform", platform, ("cpu", "gpu", "tpu"))
    _checks.python_number(name, "budget", budget, low=0)
    return _planned(
        name,
        _problem_of_shapes(name, arguments),
        block_sizes=block_sizes,
        implementation=implementation,
        budget=budget,
        platform=platform,
    )


def _planned(
    function: str, problem: Problem, *, budget: int, platform: str | None, **asked: Any
) -> LinearSoftmaxPlan:
    """The plan of a problem; `asked` are block_sizes and implementation of the call."""
    settings, rows, shared = problem
    assert rows.hidden is not None
    assert shared.kernel is not None
    *row_shape, features = rows.hidden.shape
    count, classes = math.prod(row_shape), shared.kernel.shape[settings.vocab_axis]
    uses = uses_of(settings, rows, shared)
    scalar = settings.reduction != "none" and not settings.return_statistics
    dtypes = rows.hidden.dtype, shared.kernel.dtype
    sizes = sizes_of(count, features, classes, *dtypes, platform)
    layout, tile, block = chosen(
        function,
        sizes,
        scalar=scalar,
        split=False,
        uses=uses,
        budget=budget,
        **asked,
    )
    return LinearSoftmaxPlan(
        implementation=layout,
        block_sizes=(tile, block),
        temporary_bytes=temporaries(layout, sizes, (tile, block), uses),
    )


def _problem_of_shapes(function: str, arguments: dict[str, Any]) -> Problem:
    """The loss's problem, from arguments that may be mere shapes and dtypes."""
    problems = []
    shapes = {
        name: x for name, x in arguments.items() if isinstance(x, jax.ShapeDtypeStruct)
    }

    def trace(shapes: dict[str, Array]) -> None:
        values: dict[str, Any] = arguments | shapes
        if values["labels"] is None:  # class ids
            hidden = values["hidden"]
            rows = hidden.shape[:-1] if hasattr(hidden, "shape") else ()
            values["labels"] = jnp.zeros(rows, jnp.int32)
        problem = head_problem(
            function, formula=Formula(function=cross_entropy, parameters={}), **values
        )
        problems.append(problem)

    jax.eval_shape(trace, shapes)
    return problems[0]
