"""A batch as metrics and calibration see it: its rows, and what is known of each."""

from .batch import (
    batch_of as batch_of,
    ids_of as ids_of,
    is_binary as is_binary,
    measured as measured,
    metric_problem as metric_problem,
    quotient as quotient,
    total as total,
    weighed as weighed,
)
from .rows import (
    confidence as confidence,
    is_right as is_right,
    log_prob as log_prob,
    log_prob_and_prediction as log_prob_and_prediction,
    squared_error as squared_error,
)
