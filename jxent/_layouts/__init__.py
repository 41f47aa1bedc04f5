"""How a problem's statistics are computed: in memory, streamed, tiled, on a mesh."""

from .choice import (
    BlockSizes as BlockSizes,
    Implementation as Implementation,
)
from .divergences import jensen_shannon_formula as jensen_shannon_formula
from .options import (
    HeadOptions as HeadOptions,
    LossOptions as LossOptions,
)
from .plan import (
    LinearSoftmaxPlan as LinearSoftmaxPlan,
    linear_softmax_plan as linear_softmax_plan,
)
from .solve import (
    head_solution as head_solution,
    planned_head as planned_head,
    prepared as prepared,
    solve as solve,
)
from .sums import LossSums as LossSums
