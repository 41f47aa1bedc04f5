"""Beyond the gradient: forward mode, second order, and each example's own gradient."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("256x256x8192",), "accelerator": ("8192x2048x131072",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}
DIRECTIONAL = ("jvp", "hessian-vector product")
# Rows whose own gradients of the kernel have so many numbers together, or 4 of them.
ELEMENTS = 2**24


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        rows, features, classes = shape
        few = min(rows, max(ELEMENTS // max(features * classes, 1), 4))
        for dtype in dtypes:
            for derivative in DIRECTIONAL:
                flat = shape._replace(features=0)
                yield Case("ad", "logits", flat, dtype, derivative)
                yield Case("ad", "head", shape, dtype, derivative)
            each = shape._replace(rows=few)
            yield Case("ad", "head", each, dtype, "per-example gradients")
