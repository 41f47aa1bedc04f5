"""Row statistics of logits: each is one file, and the rule goes over all of them."""

from .argmax import Argmax as Argmax
from .at_ids import AtIds as AtIds
from .block import totals_of_block as totals_of_block
from .evenly import (
    CLASS_SCALE as CLASS_SCALE,
    Evenly as Evenly,
)
from .expected import Expected as Expected
from .inputs import (
    Inputs as Inputs,
    Part as Part,
    effective_logits as effective_logits,
    inputs_of_block as inputs_of_block,
    over_classes_if as over_classes_if,
    part_of as part_of,
    with_logits as with_logits,
)
from .second_softmax import (
    Second as Second,
    SecondSoftmax as SecondSoftmax,
)
from .statistic import (
    Statistic as Statistic,
    origin as origin,
)
from .tangent import (
    or_zeros as or_zeros,
    tangent_of_block as tangent_of_block,
)
from .top_k import (
    Largest as Largest,
    TopK as TopK,
)
from .totals import (
    Totals as Totals,
    computed_rows as computed_rows,
    filled as filled,
    finish as finish,
    merge as merge,
    merge_devices as merge_devices,
    of_nothing as of_nothing,
)
from .under_labels import UnderLabels as UnderLabels
from .weighted import WeightedSum as WeightedSum
