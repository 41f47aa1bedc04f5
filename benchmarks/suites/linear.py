"""The fused head: real output layers, and sweeps over vocabulary and tokens."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {
    "cpu": (
        "512x512x16384",
        # Over the vocabulary, and over tokens.
        "128x64x2048",
        "128x64x8192",
        "128x64x32768",
        "128x64x131072",
        "512x64x8192",
        "2048x64x8192",
    ),
    "accelerator": (
        "8192x2048x131072",
        "gpt2",
        "llama3",
        "gemma2",
        "qwen",
        "8192x2048x8192",
        "8192x2048x32768",
        "2048x2048x131072",
        "32768x2048x131072",
    ),
}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for i, shape in enumerate(shapes):
        for dtype in dtypes:
            yield Case("linear", "head", shape, dtype, "value and gradient")
            if i == 0:
                yield Case("linear", "head", shape, dtype, "forward")
                for operation in ("head, every option", "head, embedding table"):
                    yield Case("linear", operation, shape, dtype, "value and gradient")
