"""The public functions on labels."""

from .class_weights import (
    class_weights_of_counts as class_weights_of_counts,
)
from .labels import (
    next_token_labels as next_token_labels,
    smooth_labels as smooth_labels,
)
from .sequences import sequence_weights as sequence_weights
from .total_weight import total_weight as total_weight
