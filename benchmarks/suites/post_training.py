"""Results of rows: log-probabilities and entropies, and the sums that a loop logs."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("512x512x16384",), "accelerator": ("8192x2048x131072",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}
OPERATIONS = ("head, log-probabilities and entropies", "head, sums")


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        for dtype in dtypes:
            for operation in OPERATIONS:
                for derivative in ("forward", "value and gradient"):
                    yield Case("post_training", operation, shape, dtype, derivative)
