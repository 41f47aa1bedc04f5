"""Row statistics of logits in memory, which are one block of all classes.

On a CPU that has all rows, values are formed by groups of rows, see
`_compute/groups.py`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from .._arrays import sum_over_devices, vary, varying_of
from .._compute.apart import held_apart
from .._compute.chunks import are_short
from .._compute.forms import on_cpu
from .._compute.groups import over_groups, rows_of_a_group
from .._problem.bundles import Maybe
from .._problem.ids import first_class
from .._problem.problem import Problem, Rows, Shared, one_axis_of_rows
from .._statistics.block import totals_of_block
from .._statistics.inputs import inputs_of_block, part_of
from .._statistics.totals import Totals, merge_devices


Tangents: TypeAlias = tuple[Rows, Shared]  # tangents, None where nothing moves
# of_block(problem, moving, first class, per row) -> a tree of arrays (rows,)
OfBlock: TypeAlias = Callable[[Problem, Tangents, Maybe, Any], Any]


def totals_in_memory(problem: Problem) -> Totals:
    """The totals (rows,) of logits (…, classes, …) in memory, before `finish`."""
    nothing = all(s.shares_nothing for s in problem.settings.statistics)
    short = are_short(problem.like, problem.axis)

    def of_block(problem: Problem, first: Maybe, _: Any) -> Totals:
        inputs, again = inputs_of_block(problem, first), None
        narrow = problem.like.dtype != inputs.z.dtype
        if narrow and short and not nothing:
            # XLA on a CPU would store the cast that the maximum and the sums share.
            logits = held_apart(problem.rows.logits)
            rows = problem.rows._replace(logits=logits)
            again = inputs_of_block(problem.replace(rows=rows), first)
        return totals_of_block(problem.axis, inputs, again)

    t = _by_groups(of_block, problem, shares_nothing=nothing)
    names = problem.settings.class_axis_name
    return merge_devices(t, names) if names else t


def sum_in_memory(
    of_block: OfBlock,
    problem: Problem,
    moving: Tangents | None,
    per_row: Any,
    shares_nothing: bool,
) -> Any:
    """Σ `of_block` over all classes of logits in memory; see `over_all_classes`."""
    if moving is None:
        nothing: Tangents = jax.tree.map(lambda _: None, problem.pair)
        of_value = lambda problem, *more: of_block(problem, nothing, *more)
        sums = _by_groups(of_value, problem, per_row, shares_nothing=shares_nothing)
    else:
        of_all = jax.checkpoint(of_block, prevent_cse=False)
        sums = of_all(problem, moving, first_class(problem), per_row)
    return sum_over_devices(sums, problem.settings.class_axis_name)


def _by_groups(
    of_block: Callable[[Problem, Maybe, Any], Any],
    problem: Problem,
    per_row: Any = (),
    *,
    shares_nothing: bool,
) -> Any:
    """`of_block(problem, first class, per row)`, arrays (rows,), by groups of rows.

    Not by groups if it `shares_nothing`, and the logits are those that were given.
    """
    like, where = problem.like, problem.rows.class_where
    size = rows_of_a_group(like, problem.axis)
    if where is not None and where.shape[:-1] != like.shape[:-1]:
        size = 0
    # How many classes are possible is asked when the sums are known.
    problem = problem.replace(resolved=problem.resolved._replace(classes=None))
    operands = problem, first_class(problem), per_row
    if not size or (shares_nothing and _as_given(problem)):
        return of_block(*operands)

    def by_groups(problem: Problem, first: Maybe, per_row: Any) -> Any:
        def of_groups(problem: Problem, per_row: Any) -> Any:
            def of_rows(part: Any) -> Any:
                rows, resolved, per_row = part
                here = problem.replace(rows=rows, resolved=resolved)
                return of_block(here, first, per_row)

            return over_groups(of_rows, (problem.rows, problem.resolved, per_row), size)

        return with_one_axis(of_groups)(problem, per_row)

    return on_cpu(*operands, form=by_groups, default=of_block, alone=True)


def _as_given(problem: Problem) -> bool:
    """Whether all effective logits are the arrays that were given."""
    formed = problem.target.logits(part_of(problem, first_class(problem), None))
    formed = (x for x in formed if x is not None)
    given = (x.array for x in problem.rows.logits)
    return all(x is y for x, y in zip(formed, given, strict=False))


def with_one_axis(body: Callable[..., Any]) -> Callable[..., Any]:
    """`body` of operands with one axis of rows."""

    def on_device(*operands: Any) -> Any:
        shape = operands[0].like.shape[:-1]
        problem, *more = one_axis_of_rows(operands, shape)
        problem, *more = vary((problem, *more), varying_of((problem, *more)))
        results = body(problem.with_settings(axis=1), *more)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), results)

    return on_device
