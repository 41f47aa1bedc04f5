"""What is measured: a case is a row of a suite's table."""

import re
from typing import Literal, NamedTuple

import jax


class Shape(NamedTuple):
    """Logits [rows, classes], of hidden [rows, features] where there are features."""

    rows: int
    features: int
    classes: int

    def __str__(self) -> str:
        if self.features:
            return f"[{self.rows}, {self.features}] @ [{self.features}, {self.classes}]"
        return f"[{self.rows}, {self.classes}]"


class Case(NamedTuple):
    """One comparison of every peer that has the operation.

    Attributes:
      suite: the suite it belongs to.
      operation: what is computed, a key of `operations.OPERATIONS` and of the peers'
        tables.
      shape: the sizes.
      dtype: of logits, or of hidden and kernel; "mixed" is bfloat16 hidden states and a
        float32 kernel.
      derivative: a key of `operations.DERIVATIVES`.
      ignored: the share of rows whose label is ignored.
      protocol: "time" compiled programs, "eager" calls outside jit, calls of a jitted
        "step" of many arrays, "error" alone, "trace" and compile time, "import" time.
      mesh: (data, model), where arrays are split over devices.
      platform: what is compiled for, where that is not where JAX runs.
    """

    suite: str
    operation: str
    shape: Shape
    dtype: str
    derivative: str = "forward"
    ignored: float = 0.0
    protocol: Literal["time", "eager", "step", "error", "trace", "import"] = "time"
    mesh: tuple[int, int] | None = None
    platform: str | None = None


# The output layers of released language models.
MODELS = {
    "gpt2": (768, 50257),
    "llama3": (4096, 128256),
    "gemma2": (2304, 256000),
    "qwen": (4096, 151936),
}

ARRAYS = 100  # that a "step" has beside its loss's own

# Tokens that go with a name alone: what a step has, or what two cores can wait for.
ROWS = {"cpu": 256, "accelerator": 8192}


def machine() -> Literal["cpu", "accelerator"]:
    """The column of the suites' tables that fits where JAX runs."""
    return "cpu" if jax.default_backend() == "cpu" else "accelerator"


def shape(text: str, on: str) -> Shape:
    """ "2048x32768", "2048x512x32768", "llama3" or "64xllama3" as sizes."""
    named = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*)", text)
    if named and named[2] in MODELS:
        return Shape(int(named[1] or ROWS[on]), *MODELS[named[2]])
    if re.fullmatch(r"\d+x\d+(x\d+)?", text):
        sizes = [int(n) for n in text.split("x")]
        return Shape(sizes[0], sizes[1] if len(sizes) > 2 else 0, sizes[-1])
    raise ValueError(
        "expected a shape as ROWSxCLASSES, ROWSxFEATURESxCLASSES, or one of "
        f"{', '.join(MODELS)} with or without ROWSx before it, got {text!r}."
    )
