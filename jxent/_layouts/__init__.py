"""How a problem's statistics are computed: in memory, streamed, tiled, on a mesh."""

from .divergences import jensen_shannon_formula as jensen_shannon_formula
from .options import LossOptions as LossOptions
from .plan import (
    Plan as Plan,
    plan as plan,
)
from .solve import (
    planned_problem as planned_problem,
    prepared as prepared,
    solution as solution,
    solve as solve,
)
from .sums import LossSums as LossSums
