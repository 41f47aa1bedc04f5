"""Row statistics of logits, which every softmax loss is a formula on."""

from .in_memory import block as block
from .inputs import (
    CLASS_SCALE as CLASS_SCALE,
    NO_CLASS as NO_CLASS,
    Form as Form,
    Inputs as Inputs,
    is_label as is_label,
    local_labels as local_labels,
    soft_capped as soft_capped,
)
from .monoid import (
    SoftmaxStatistics as SoftmaxStatistics,
    Totals as Totals,
    merge as merge,
    merge_devices as merge_devices,
)
from .rule import (
    assemble as assemble,
    finish as finish,
    in_memory as in_memory,
    log_probabilities as log_probabilities,
    moving as moving,
    tangent as tangent,
    with_tangents as with_tangents,
)
