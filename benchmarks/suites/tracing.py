"""Time to trace and to compile from nothing, and what an import adds to that of jax."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("256x64x4096",), "accelerator": ("1024x768x50257",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    yield Case("tracing", "import", Shape(0, 0, 0), "float32", protocol="import")
    dtypes = tuple(dtypes)
    for shape in shapes:
        flat = shape._replace(features=0)
        for dtype in dtypes:
            for operation in ("logits", "logits, every option", "head"):
                yield Case(
                    "tracing",
                    operation,
                    shape if operation == "head" else flat,
                    dtype,
                    "value and gradient",
                    protocol="trace",
                )
