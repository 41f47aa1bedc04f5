"""From the arguments of a call to its result."""

from .arguments import (
    Formula as Formula,
    checked_problem as checked_problem,
)
from .options import LossOptions as LossOptions
from .plan import (
    Plan as Plan,
    plan as plan,
)
from .results import (
    LargestClasses as LargestClasses,
    LogProbsAt as LogProbsAt,
    LossSums as LossSums,
    RowStatistics as RowStatistics,
    Sums as Sums,
)
from .solve import (
    planned_problem as planned_problem,
    prepared as prepared,
    solution as solution,
    total_weight_of as total_weight_of,
)
