"""The fused head: real output layers, and sweeps over vocabulary and tokens."""

from collections.abc import Iterable, Iterator

from ..case import Case, Shape


SHAPES = {
    "cpu": (
        "2048x512x32768",
        "gpt2",
        # Over the vocabulary, and over tokens.
        "512x128x2048",
        "512x128x8192",
        "512x128x32768",
        "512x128x131072",
        "128x128x32768",
        "2048x128x32768",
    ),
    "accelerator": (
        "gpt2",
        "llama3",
        "gemma2",
        "qwen",
        "8192x2048x8192",
        "8192x2048x32768",
        "8192x2048x131072",
        "2048x2048x131072",
        "32768x2048x131072",
    ),
}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16",)}


def cases(shapes: Iterable[Shape], dtypes: Iterable[str]) -> Iterator[Case]:
    for i, shape in enumerate(shapes):
        for dtype in dtypes:
            yield Case("linear", "head", shape, dtype, "value and gradient")
            if i < 2:
                yield Case("linear", "head", shape, dtype, "forward")
            if i == 0:
                for operation in ("head, every option", "head, embedding table"):
                    yield Case("linear", operation, shape, dtype, "value and gradient")
