"""The cost of a fused head against the share of its rows that are ignored."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("2048x128x8192",), "accelerator": ("8192x2048x131072",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}
SHARES = (0.0, 0.5, 0.9)


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        for dtype in dtypes:
            for share in SHARES:
                yield Case(
                    "masked", "head, ignored", shape, dtype, "value and gradient", share
                )
            yield Case("masked", "head, ignored", shape, dtype, "forward", 0.5)
