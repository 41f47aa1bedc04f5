"""Every public loss and metric of arrays beside the lines that one writes by hand.

The mean of each, and of pairs that of a batch. [n, 1] is one number a row.
"""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape
from ..textbook import ROWS, Row


SHAPES = {
    "cpu": ("1024x32768", "262144x10", "1000000x1"),
    "accelerator": ("8192x131072", "26843545x10", "100000000x1"),
}
DTYPES = dict.fromkeys(("cpu", "accelerator"), ("float32", "bfloat16"))
FEATURES = 256  # of pairs
MOST_PAIRS = 8192  # rows
FEW = 1024  # classes, of which a square matrix is small


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    dtypes = tuple(dtypes)
    for shape in shapes:
        for dtype in dtypes:
            for operation, row in ROWS.items():
                if _fits(row, shape):
                    for derivative in row.derivatives:
                        sizes = _sizes(row, shape)
                        yield Case("by_hand", operation, sizes, dtype, derivative)


def _fits(row: Row, shape: Shape) -> bool:
    if shape.classes < 2:
        return row.shapes == "elements"
    if row.shapes == "pairs":
        return shape.rows <= MOST_PAIRS
    return row.shapes != "few classes" or shape.classes <= FEW


def _sizes(row: Row, shape: Shape) -> Shape:
    """Of pairs a batch of as many rows; else logits."""
    if row.shapes == "pairs":
        return Shape(shape.rows, FEATURES, shape.rows)
    return shape._replace(features=0)
