"""The checked arguments of a metric of hidden @ kernel."""

from typing import Any

from ..._checks import ArrayLike, AxisName
from ..._layouts import BlockSizes, Implementation, with_layout
from ..._problem import Problem, head_problem


def head_metric(
    function: str,
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    *,
    class_axis_name: AxisName,
    batch_axis_name: AxisName,
    block_sizes: BlockSizes | None,
    implementation: Implementation | None,
    **options: Any,
) -> Problem:
    problem = head_problem(
        function,
        hidden,
        kernel,
        labels,
        where,
        ids_only=True,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        **options,
    )
    return with_layout(
        function,
        problem,
        class_axis_name=class_axis_name,
        batch_axis_name=batch_axis_name,
        block_sizes=block_sizes,
        implementation=implementation,
    )
