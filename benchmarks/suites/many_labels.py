"""Many labels a row of very many classes, given as lists of the positives."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("1024x512x32768",), "accelerator": ("1024x768x1000000",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}
OPERATIONS = (
    "head",  # the softmax, beside which the others are to be seen
    "head, many labels",
    "head, many labels, ZLPR",
)


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        for dtype in dtypes:
            for operation in OPERATIONS:
                for derivative in ("forward", "value and gradient"):
                    yield Case("many_labels", operation, shape, dtype, derivative)
