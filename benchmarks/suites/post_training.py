"""Results of rows, what a loop logs, and what a student learns from a teacher."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape
from ..operations import WIDER


SHAPES = {"cpu": ("512x512x16384",), "accelerator": ("8192x2048x131072",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}
OPERATIONS = (
    "head",  # beside which the others are to be seen
    "head, log-probabilities and entropies",
    "head, sums",
    "head, several ids",
    "head, sampling replay",
    "two heads, KL",
    WIDER,
    "two heads, Jensen-Shannon",
)
TOP_K = "head, top k"


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        for dtype in dtypes:
            for operation in OPERATIONS:
                for derivative in ("forward", "value and gradient"):
                    yield Case("post_training", operation, shape, dtype, derivative)
            yield Case("post_training", TOP_K, shape, dtype)
