"""Row statistics of logits, which every softmax loss is a formula on."""

from .inputs import (
    NO_CLASS as NO_CLASS,
    Form as Form,
    Inputs as Inputs,
    is_label as is_label,
)
from .monoid import SoftmaxStatistics as SoftmaxStatistics
from .rule import (
    in_memory as in_memory,
    log_probabilities as log_probabilities,
)
