"""Errors against float64, per dtype, and against the number of blocks.

Nothing is timed. bfloat16 operands are the truth's operands too: the error is that of
the computation, not of the cast.
"""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


# 50,257 and 12,289 are multiples of no block.
SHAPES = {"cpu": ("256x64x12289",), "accelerator": ("1024x768x50257",)}
DTYPES = dict.fromkeys(("cpu", "accelerator"), ("float32", "bfloat16", "mixed"))


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    dtypes = tuple(dtypes)
    for shape in shapes:
        for dtype in dtypes:
            flat = shape._replace(features=0)
            for operation, sizes in (
                ("logits", flat),
                ("logits, every option", flat),
                ("head, by blocks", shape),
            ):
                if dtype == "mixed" and sizes is flat:
                    continue  # logits are of one dtype
                yield Case(
                    "accuracy",
                    operation,
                    sizes,
                    dtype,
                    "value and gradient",
                    protocol="error",
                )
