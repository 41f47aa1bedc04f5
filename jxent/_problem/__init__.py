"""One softmax problem: its arguments as a pair of bundles, and what they imply."""

from .arguments import (
    Formula as Formula,
    HeadArguments as HeadArguments,
    Problem as Problem,
    head_problem as head_problem,
    logits_problem as logits_problem,
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
    dtype_of as dtype_of,
    has_distributions as has_distributions,
    has_target as has_target,
    heads_of as heads_of,
    like_logits as like_logits,
    map_fields as map_fields,
    of_target as of_target,
    one_axis_of_rows as one_axis_of_rows,
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
