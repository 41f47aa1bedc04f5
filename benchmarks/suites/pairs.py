"""Pairs, each against all others of its batch: a matrix of similarities, or none."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("4096x512x4096",), "accelerator": ("32768x512x32768",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}
OPERATIONS = ("pairs", "pairs, one direction", "pairs, sigmoid")


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        square = shape._replace(classes=shape.rows)
        for dtype in dtypes:
            for operation in OPERATIONS:
                for derivative in ("forward", "value and gradient"):
                    yield Case("pairs", operation, square, dtype, derivative)
