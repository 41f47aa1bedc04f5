"""What a row is scored against, and the public functions on labels."""

from .labels import (
    next_token_labels as next_token_labels,
    smooth_labels as smooth_labels,
    total_weight as total_weight,
)
from .targets import (
    Target as Target,
    Wanted as Wanted,
    report_bad_labels as report_bad_labels,
    target as target,
)
