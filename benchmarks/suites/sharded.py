"""Arrays split over 8 devices, classes over "model" and rows over "data".

On a processor the devices are virtual and share its cores: there the memory and the
collectives of the compiled programs are what counts, not the time.
"""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {"cpu": ("512x128x8192",), "accelerator": ("16384x2048x131072",)}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}
MESHES = ((2, 4), (8, 1), (1, 8))


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    dtypes = tuple(dtypes)
    for shape in shapes:
        for dtype in dtypes:
            for operation in ("logits, split", "head, split"):
                for mesh in MESHES:
                    yield Case(
                        "sharded",
                        operation,
                        shape._replace(features=0)
                        if operation == "logits, split"
                        else shape,
                        dtype,
                        "value and gradient",
                        mesh=mesh,
                    )
