"""Every public loss and metric of arrays, in the forms of this platform and in plain
ones.

What a form brings in time and temporary memory: a form that brings nothing may go.
"""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape
from . import by_hand
from .by_hand import DTYPES, SHAPES  # noqa: F401


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for case in by_hand.cases(shapes, dtypes):
        yield case._replace(suite="forms", operation=f"{case.operation}, forms")
