"""What a row is scored against, and the public functions on labels."""

from .bad_labels import report_bad_labels as report_bad_labels
from .labels import (
    next_token_labels as next_token_labels,
    smooth_labels as smooth_labels,
    total_weight as total_weight,
)
from .targets import (
    Target as Target,
    Wanted as Wanted,
    allowed_distribution as allowed_distribution,
    smoothed_distribution as smoothed_distribution,
    target as target,
    target_in_memory as target_in_memory,
    weigh_classes as weigh_classes,
)
