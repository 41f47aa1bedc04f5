"""Checks of arguments that several functions share, with the sentences that refuse.

Each check runs at trace time: it looks at shapes, dtypes, Python numbers and axis
names, never at the values of JAX's arrays. Each message says what was expected, what
came, and what to do.
"""

from .arrays import (
    ArrayLike as ArrayLike,
    array as array,
    as_array as as_array,
    exchanged as exchanged,
    fits as fits,
    floating as floating,
    id_array as id_array,
    integers as integers,
    known_values as known_values,
    label_array as label_array,
    real as real,
)
from .axes import (
    Axis as Axis,
    AxisName as AxisName,
    bound_axis_names as bound_axis_names,
    class_axis as class_axis,
    classes_last as classes_last,
    without_classes as without_classes,
)
from .labels import (
    are_class_ids as are_class_ids,
    compared as compared,
    ignorable as ignorable,
    ignorable_binary as ignorable_binary,
    labels_of_classes as labels_of_classes,
    rearranged as rearranged,
    same_shape as same_shape,
    several_classes as several_classes,
)
from .numbers import (
    dtype as dtype,
    end_of_beta as end_of_beta,
    flag as flag,
    in_range as in_range,
    integer as integer,
    is_integer as is_integer,
    is_number as is_number,
    is_on as is_on,
    number as number,
    number_or_off as number_or_off,
    positive_integer as positive_integer,
    top_k as top_k,
)
from .options import (
    REDUCTIONS as REDUCTIONS,
    Number as Number,
    PerClass as PerClass,
    PerRow as PerRow,
    block_sizes as block_sizes,
    boolean as boolean,
    declared_number as declared_number,
    margin_of_ids as margin_of_ids,
    mask_of_rows as mask_of_rows,
    missing_axes as missing_axes,
    normalizer as normalizer,
    one_of as one_of,
    option as option,
    per_class as per_class,
    per_row as per_row,
    precision as precision,
    reduction as reduction,
    row_or_class_mask as row_or_class_mask,
    weights_of_rows as weights_of_rows,
)
from .sparse import (
    SparseLabels as SparseLabels,
    class_ids_at as class_ids_at,
    class_ids_of_rows as class_ids_of_rows,
    no_sparse_labels as no_sparse_labels,
    sparse_labels as sparse_labels,
)
from .words import (
    fail as fail,
    no_attribute as no_attribute,
    shown as shown,
)
