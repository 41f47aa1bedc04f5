"""Pictures for the README, and the numbers that they show, in benchmarks/pictures.

python -m benchmarks.pictures memory      compiles for an H100 and a TPU v5e, 10 minutes
python -m benchmarks.pictures accuracy    measures on this machine, a minute
python -m benchmarks.pictures growth      both, 25 minutes
python -m benchmarks.pictures memory --stored    draws the numbers that are there again
"""

import argparse
import datetime
import functools
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from . import compiled, growth, record, run, session, tables
from .case import Case, Shape, machine, shape
from .growth import VARIANTS
from .peers import PEERS, heads, only
from .plots import COLOURS, PAPER, PHONE, STYLE, colour, label_ends, plt, short
from .record import Record, Results
from .suites import SUITES
from .targets import TARGETS


FOLDER = Path(__file__).with_suffix("")


# Memory against tokens.

TOKENS = tuple(2**n for n in range(10, 17))
FEATURES, CLASSES, DTYPE = 2048, 131072, "bfloat16"
DEVICES = {"h100": ("H100", 80e9), "tpu-v5e": ("TPU v5e", 16e9)}


def compile_heads(
    progress: Console,
    tokens: Sequence[int] = TOKENS,
    sizes: tuple[int, int] = (FEATURES, CLASSES),
    targets: Sequence[str] = tuple(DEVICES),
) -> list[Record]:
    """Heads for each number of tokens and each target that has its compiler here."""
    peers = heads(VARIANTS)
    derivative = "value and gradient"
    shapes = (Shape(n, *sizes) for n in tokens)
    cases = [Case("linear", "head", shape, DTYPE, derivative) for shape in shapes]
    if not any(TARGETS[name].present() for name in targets):
        # A plugin that finds no device of its own would only complain.
        jax.config.update("jax_platforms", "cpu")
    return compiled.on_targets(cases, peers, targets, progress)


# Of each line: what is written at its end, and its marks.
LOOKS = {
    "jxent, streamed": ("jxent, streamed", "o"),
    "jxent, tiled": ("jxent, tiled", "s"),
    "jxent, materialized": ("jxent, materialized", "D"),
    "Optax, materialized": ("Optax", "^"),
    "by hand, scan and checkpoint": ("by hand, bf16 sums", "v"),
}
SIZES = [2.0**n for n in range(17, 40, 3)]  # 128 KiB, 1 MiB, 8 MiB


def _memory_axes(axes: Any, target: str, tokens: Sequence[int]) -> None:
    """Log axes with sizes on them, and how much the device has."""
    name, memory = DEVICES[target]
    axes.set_title(f"Compiled for {name}", weight="bold")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_yticks(SIZES, [tables.size(x) for x in SIZES])
    axes.set_xlabel("tokens")
    axes.set_xlim(tokens[0] / 1.2, tokens[-1] * 1.2)
    axes.axhline(memory, color="#bbbbbb", linewidth=1)
    axes.annotate(
        f"the device has {memory / 1e9:.0f} GB",
        (tokens[0], memory),
        (0, 4),
        textcoords="offset points",
        fontsize=8,
        color="#777777",
    )


def _memory_lines(axes: Any, found: Sequence[Record], tokens: Sequence[int]) -> None:
    """Each with its name at its end, which comes early where nothing fits any more."""
    own = [2.0 * n * found[0].classes for n in tokens]
    axes.plot(tokens, own, ":", color="#555555", linewidth=1.3)
    ends: list[Any] = [(tokens[-1], own[-1], "the logits", "#555555")]
    for name, (text, marker) in LOOKS.items():
        points = [(r.rows, r.temporary_bytes) for r in found if r.name == name]
        if not points:
            continue
        ours = name.startswith("jxent")
        axes.plot(
            *zip(*points, strict=True),
            color=colour(name),
            linewidth=2.2 if ours else 1.1,
            marker=marker,
            markersize=4.5,
        )
        ends.append((*points[-1], text, colour(name)))
    label_ends(axes, ends)


def draw_memory(results: Results, *, phone: bool = False) -> Any:
    """A panel for each target; on a phone one below the other."""
    found = [r for r in results.records if r.status == "ok" and r.temporary_bytes]
    targets = [name for name in DEVICES if any(r.target == name for r in found)]
    count = len(targets)
    size = (PHONE, 0.6 + 3.6 * count) if phone else (0.6 + 4.3 * count, 4.4)
    figure, several = plt.subplots(
        *((count, 1) if phone else (1, count)), figsize=size, sharey=True
    )
    tokens = sorted({r.rows for r in found})
    low = min(r.temporary_bytes or 0 for r in found)
    place = {"left": 0.1, "right": 0.835, "top": 0.83, "bottom": 0.11, "wspace": 0.62}
    if phone:
        place = {"left": 0.18, "right": 0.6, "top": 0.9, "bottom": 0.06, "hspace": 0.32}
    figure.subplots_adjust(**place)
    panels = list(zip(np.atleast_1d(several), targets, strict=True))
    for axes, target in panels:
        _memory_axes(axes, target, tokens)
        axes.set_xticks(tokens[:: 1 + phone], map(short, tokens[:: 1 + phone]))
    panels[0][0].set_ylim(low / 2, 3 * max(m for _, m in DEVICES.values()))
    for axes, target in panels:
        _memory_lines(axes, [r for r in found if r.target == target], tokens)
    for axes, _ in panels[: None if phone else 1]:
        axes.set_ylabel("temporary memory in HBM")
    one, space = found[0], "\n" if phone else " "
    figure.suptitle(
        f"Cross-entropy of {one.dtype} [tokens, {one.features:,}] @"
        f"{space}[{one.features:,}, {one.classes:,}], value and gradients",
        x=0.012,
        ha="left",
        multialignment="left",
        fontsize=10.5,
    )
    return figure


# Errors against float64.


WIDENED = "cast to float32"
LIBRARIES = {"jxent": "jxent", "optax": "Optax", "keras": "Keras", "torch": "PyTorch"}


def _losses(name: str) -> dict[str, dict[str, Any]]:
    """A peer's losses as they are called, and behind the cast that users add."""
    rows: Any = PEERS[name].LOSSES["rows"][""]

    def wide(logits):
        return logits.float() if name == "torch" else logits.astype("float32")

    def mean(logits, labels):
        return rows(logits, labels).mean()

    def widened(logits, labels):
        return rows(wide(logits), labels)

    def widened_mean(logits, labels):
        return mean(wide(logits), labels)

    if name == "jxent":  # which casts by itself
        return {"rows": {"": rows}, "logits": {"": mean}}
    return {
        "rows": {"": rows, WIDENED: widened},
        "logits": {"": mean, WIDENED: widened_mean},
    }


def measure_errors(
    progress: Console,
    sizes: Sequence[str] | None = None,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
) -> list[Record]:
    """Of each row's loss, and of the mean's gradient, on the accuracy suite's sizes."""
    suite = SUITES["accuracy"]
    sizes = sizes or suite.SHAPES[machine()]
    shapes = [shape(text, machine())._replace(features=0) for text in sizes]
    parts = {"rows": "forward", "logits": "value and gradient"}
    cases = [
        Case("accuracy", operation, flat, dtype, derivative, protocol="error")
        for flat in shapes
        for dtype in dtypes
        for operation, derivative in parts.items()
    ]
    peers = [only(name, _losses(name)) for name in LIBRARIES]
    return session.collected(cases, functools.partial(run.run, peers=peers), progress)


def _shown(records: Sequence[Record], dtype: str) -> list[str]:
    """The names of a dtype's lines, as they are measured; float32 needs no cast."""
    names = dict.fromkeys(r.name for r in records if r.dtype == dtype)
    return [n for n in names if dtype != "float32" or WIDENED not in n]


ERRORS: dict[str, tuple[str, Callable[[Record], float | None]]] = {
    "Loss: the worst row, nats": ("rows", lambda r: r.error),
    "Gradient: ‖error‖ / ‖gradient‖": ("logits", lambda r: r.gradient_error),
}


def _error_panel(axes: Any, found: Sequence[Record], lines: list, y: Callable) -> None:
    """A dot for each library and dtype, with its number."""
    for r in found:
        if (r.dtype, r.name) not in lines or not y(r):
            continue
        height = -lines.index((r.dtype, r.name))
        size = 9 if r.peer == "jxent" else 6.5
        axes.plot(y(r), height, "o", color=colour(r.peer), markersize=size)
        axes.annotate(
            f"{y(r):.1e}".replace("e-0", "e−"),
            (y(r), height),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color="#444444",
        )
    values = [v for r in found if (v := y(r))]
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 4, max(values) * 30)


def draw_errors(results: Results, *, phone: bool = False) -> Any:
    """A panel for the loss and one for its gradient; the dtypes one below the other.

    On a phone the panels stand below each other, too.
    """
    dtypes = list(dict.fromkeys(r.dtype for r in results.records))
    there = [r for r in results.records if r.status in ("ok", "wrong")]
    lines: list[Any] = []
    for dtype in dtypes:
        lines += [(dtype, name) for name in _shown(there, dtype)] + [None]
    lines.pop()
    height = 1.3 + 0.24 * len(lines)
    size = (PHONE, 2 * height + 0.6) if phone else (9.2, height)
    figure, several = plt.subplots(
        *((2, 1) if phone else (1, 2)), figsize=size, sharey=True
    )
    for axes, (title, (operation, y)) in zip(several, ERRORS.items(), strict=True):
        axes.set_title(title)
        _error_panel(axes, [r for r in there if r.operation == operation], lines, y)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    marks = [-i for i, line in enumerate(lines) if line]
    names = [line[1].replace(", ", ": ") for line in lines if line]
    for axes in several[: None if phone else 1]:
        axes.set_yticks(marks, names)
        for label in axes.get_yticklabels():
            if label.get_text() == "jxent":
                label.set(color=COLOURS["jxent"], weight="bold")
    several[0].set_ylim(0.6 - len(lines), 0.6 + phone)
    one = there[0]
    title = (
        f"Error against float64, logits [{one.rows:,}, {one.classes:,}]. "
        "Keras's loss classes cast by themselves, its functions do not."
    )
    figure.suptitle(
        "\n".join(textwrap.wrap(title, 44)) if phone else title,
        x=0.01,
        ha="left",
        fontsize=10.5,
    )
    figure.tight_layout()
    # Which logits they were given: left of the names, on a phone above them.
    if not phone:
        figure.subplots_adjust(left=0.29)
    for dtype in dtypes:
        of = [-i for i, line in enumerate(lines) if line and line[0] == dtype]
        if phone:
            for axes in several:
                axes.annotate(
                    f"{dtype} logits",
                    (0.01, of[0] + 1),
                    xycoords=("figure fraction", "data"),
                    va="center",
                    weight="bold",
                )
            continue
        several[0].annotate(
            f"{dtype}\nlogits",
            (0.01, sum(of) / len(of)),
            xycoords=("figure fraction", "data"),
            va="center",
            weight="bold",
        )
    return figure


PICTURES: dict[str, tuple[Callable[[Console], list[Record]], Callable[..., Any]]]
PICTURES = {
    "memory": (compile_heads, draw_memory),
    "accuracy": (measure_errors, draw_errors),
    "growth": (growth.measure, growth.draw),
}
TABLES = {"growth": growth.table}


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, **PAPER)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("picture", choices=PICTURES)
    parser.add_argument(
        "--stored", action="store_true", help="measure nothing: draw what is there"
    )
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="FOLDER")
    args = parser.parse_args(argv)
    measure, draw = PICTURES[args.picture]
    numbers = args.output / args.picture
    if not args.stored:
        records = measure(Console(stderr=True))
        results = Results(
            f"python -m benchmarks.pictures {args.picture}",
            datetime.date.today().isoformat(),
            session.versions(),
            session.device(),
            {},
            tuple(records),
        )
        record.save(results, numbers)
    results = record.load(numbers)
    with plt.rc_context(STYLE):
        save(draw(results), path := numbers.with_suffix(".svg"))
        save(draw(results, phone=True), args.output / f"{args.picture}_phone.svg")
    if args.picture in TABLES:
        text = TABLES[args.picture](results)
        numbers.with_suffix(".md").write_text(text, encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
