"""One call as one pytree: its bundles, and what is resolved before any statistic."""

from .bad_labels import (
    report_bad_labels as report_bad_labels,
    reported as reported,
)
from .bundles import (
    ROWS as ROWS,
    ROWS_AND_CLASSES as ROWS_AND_CLASSES,
    ROWS_AND_PLACES as ROWS_AND_PLACES,
    Axes as Axes,
    Maybe as Maybe,
    after_merged as after_merged,
    axis_of_classes as axis_of_classes,
    class_block as class_block,
    declared as declared,
    map_fields as map_fields,
    replace_fields as replace_fields,
)
from .ids import (
    at_label as at_label,
    at_places as at_places,
    class_ids as class_ids,
    equal as equal,
    first_class as first_class,
    ids_from as ids_from,
    is_label as is_label,
    of_places as of_places,
)
from .problem import (
    CHECKS as CHECKS,
    Head as Head,
    HeadSharding as HeadSharding,
    Problem as Problem,
    RowLogits as RowLogits,
    Rows as Rows,
    Settings as Settings,
    Shared as Shared,
    is_bundle as is_bundle,
    one_axis_of_rows as one_axis_of_rows,
)
from .resolve import (
    possible_classes as possible_classes,
    resolve as resolve,
    with_full_rows as with_full_rows,
    without_masked as without_masked,
)
from .resolved import (
    NO_CLASS as NO_CLASS,
    NOWHERE as NOWHERE,
    Resolved as Resolved,
    both as both,
    is_class as is_class,
)
