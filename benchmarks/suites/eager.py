"""Calls from Python, 100 in a row: what a call costs in a notebook or a small loop.

Outside of jit; and in a jitted step that has the arrays of a model to hand over.
"""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("128x10",), "accelerator": ("128x10", "128x1000")}
DTYPES = {"cpu": ("float32",), "accelerator": ("float32",)}


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for shape in shapes:
        small = shape._replace(features=0)
        for dtype in dtypes:
            for operation in ("rows", "rows, distributions", "rows, sigmoid"):
                yield Case("eager", operation, small, dtype, protocol="eager")
            of = ("eager", "logits", small, dtype, "value and gradient")
            yield Case(*of, protocol="eager")
            yield Case(*of, protocol="step")
