"""One softmax problem: its arguments as a pair of bundles, and what they imply."""

from .arguments import (
    OPTIONAL as OPTIONAL,
    Formula as Formula,
    Problem as Problem,
    checked_problem as checked_problem,
)
from .bad_labels import report_bad_labels as report_bad_labels
from .pair import (
    Axes as Axes,
    Head as Head,
    HeadSharding as HeadSharding,
    Maybe as Maybe,
    Rows as Rows,
    Settings as Settings,
    Shared as Shared,
    axis_of_classes as axis_of_classes,
    class_block as class_block,
    class_count as class_count,
    dtype_of as dtype_of,
    first_head as first_head,
    has_distributions as has_distributions,
    has_head as has_head,
    has_target as has_target,
    heads_of as heads_of,
    like_logits as like_logits,
    map_fields as map_fields,
    of_target as of_target,
    one_axis_of_rows as one_axis_of_rows,
    rows_of_head as rows_of_head,
)
from .resolved import (
    NO_CLASS as NO_CLASS,
    Resolved as Resolved,
    at_label as at_label,
    at_places as at_places,
    both as both,
    class_ids as class_ids,
    equal as equal,
    is_class as is_class,
    is_label as is_label,
    local_ids as local_ids,
    of_places as of_places,
    possible_classes as possible_classes,
    resolve as resolve,
    with_full_rows as with_full_rows,
)
