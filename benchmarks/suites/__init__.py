"""The suites: each a table of cases.

SHAPES, DTYPES   machine → what is measured where nothing else is asked for
cases            shapes and dtypes → cases
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from ..case import Case, Shape
from . import (
    accuracy,
    ad,
    by_hand,
    dense,
    eager,
    forms,
    linear,
    many_labels,
    masked,
    pairs,
    post_training,
    sharded,
    tracing,
)


class Suite(Protocol):
    SHAPES: Mapping[str, tuple[str, ...]]
    DTYPES: Mapping[str, tuple[str, ...]]

    def cases(
        self, shapes: Iterable[Shape], dtypes: Iterable[str], /
    ) -> Iterable[Case]: ...


SUITES: dict[str, Suite] = {
    "dense": cast(Any, dense),
    "linear": cast(Any, linear),
    "sharded": cast(Any, sharded),
    "eager": cast(Any, eager),
    "ad": cast(Any, ad),
    "accuracy": cast(Any, accuracy),
    "masked": cast(Any, masked),
    "tracing": cast(Any, tracing),
    "post_training": cast(Any, post_training),
    "pairs": cast(Any, pairs),
    "many_labels": cast(Any, many_labels),
    "by_hand": cast(Any, by_hand),
    "forms": cast(Any, forms),
}

# What is measured where no suite is asked for: those of every loss take an hour.
BY_DEFAULT = tuple(name for name in SUITES if name not in ("by_hand", "forms"))
