"""What metrics cost beside what every metric needs: a log-sum-exp, or the fused loss.

python -m benchmarks.metrics                     a Markdown table
python -m benchmarks.metrics --shape 2048x32768 512x512x32768

Of logits in memory, accuracy, top-5 accuracy, perplexity and calibration error in one
program, beside `jax.nn.logsumexp` of the same logits. Of a fused head each metric
alone, beside its streamed loss.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax

import jxent
from jxent import metrics

from . import measure, tables
from .case import Case, Shape, shape
from .operations import arrays


def _of_logits(logits: jax.Array, labels: jax.Array) -> Any:
    functions = (metrics.accuracy, metrics.top_k_accuracy, metrics.perplexity)
    values = [f(logits, labels) for f in functions]
    return values, metrics.calibration_error(logits, labels, bins=15)


def _programs(sizes: Shape) -> tuple[str, dict[str, Callable[..., Any]]]:
    """The operation whose arguments they take; what all cost beside comes first."""
    if not sizes.features:
        return "logits", {
            "jax.nn.logsumexp": lambda logits, _: jax.nn.logsumexp(logits, -1),
            "four metrics": _of_logits,
        }
    functions = {
        "streamed loss": jxent.softmax_cross_entropy,
        "accuracy": metrics.accuracy,
        "top_k_accuracy": metrics.top_k_accuracy,
        "perplexity": metrics.perplexity,
    }
    return "head", {name: _of_head(f) for name, f in functions.items()}


def _of_head(function: Callable[..., Any]) -> Callable[..., Any]:
    def streamed(hidden: jax.Array, kernel: jax.Array, labels: jax.Array) -> Any:
        logits = jxent.LinearLogits(hidden, kernel, implementation="streamed")
        return function(logits, labels)

    return streamed


def measured(sizes: Shape, seconds: float) -> str:
    """A table of medians, in one interleaved run."""
    operation, functions = _programs(sizes)
    inputs = arrays(Case("metrics", operation, sizes, "float32"))
    programs = {name: measure.program(f, inputs) for name, f in functions.items()}
    watches = {name: measure.stopwatch(p.call) for name, p in programs.items()}
    timings = measure.interleaved(watches, seconds=seconds * len(programs))
    first = next(iter(timings.values())).median
    rows = [
        [
            name,
            tables.duration(timing.median),
            tables.ratio(timing.median, first),
            tables.size(programs[name].numbers["temporary_bytes"]),
        ]
        for name, timing in timings.items()
    ]
    title = f"float32 {sizes}, {next(iter(timings.values())).rounds} rounds"
    head = ["", "median", "to the first", "temporary"]
    return f"### {title}\n\n{tables.markdown(head, rows)}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", nargs="+", default=["8192x32768", "2048x512x32768"])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each program")
    args = parser.parse_args(argv)
    for text in args.shape:
        print(measured(shape(text, "cpu"), args.seconds), end="\n\n")


if __name__ == "__main__":
    main()
