"""Logits in memory, from ten classes to a vocabulary: plain, and with every option."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {
    "cpu": (
        "1677721x10",
        "16777x1000",
        "2048x32768",
        "64x262144",
    ),
    "accelerator": (
        "26843545x10",
        "268435x1000",
        "8192x32768",
        "8192x131072",
        "4096x262144",
    ),
}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        for dtype in dtypes:
            for operation in ("logits", "logits, every option"):
                for derivative in ("forward", "value and gradient"):
                    yield Case(
                        "dense",
                        operation,
                        shape._replace(features=0),
                        dtype,
                        derivative,
                    )
