"""Row statistics of logits, which every softmax loss is a formula on."""

from .block import totals_of_block as totals_of_block
from .inputs import (
    CLASS_SCALE as CLASS_SCALE,
    Inputs as Inputs,
    effective_logits as effective_logits,
    inputs_of_block as inputs_of_block,
    labels_of_block as labels_of_block,
    with_logits as with_logits,
)
from .tangent import tangent_of_block as tangent_of_block
from .totals import (
    Totals as Totals,
    computed_rows as computed_rows,
    filled as filled,
    finish as finish,
    merge as merge,
    merge_devices as merge_devices,
    of_no_class as of_no_class,
    origin as origin,
)
