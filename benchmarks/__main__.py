"""Every number of the README: python -m benchmarks dense, linear, eager and so on."""

import argparse
import functools
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import jxent

from . import dense, linear
from .measure import interleaved, temporary_mib, traffic_gib
from .targets import TARGETS, MissingCompilerError, compile_for


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 1 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)


def run_dense(args: argparse.Namespace) -> None:
    """Time and temporary memory of losses on logits in memory, on this machine."""
    arrays = dense.inputs(args.rows, args.classes, args.dtype)
    for name, derive in dense.PASSES.items():
        compiled = {
            label: jax.jit(derive(loss)).lower(*arrays).compile()
            for label, loss in dense.LOSSES.items()
        }
        calls = {
            label: (lambda program=program: program(*arrays))
            for label, program in compiled.items()
        }
        times = interleaved(calls, rounds=args.rounds, title=name)
        unit = times["Optax, plain"].median
        show(
            f"{name} of the mean, {args.dtype} logits [{args.rows}, {args.classes}]",
            ["loss", "median ms", "middle half", "× Optax, plain", "temporary MiB"],
            [
                (
                    label,
                    f"{t.median * 1e3:.1f}",
                    f"{t.low * 1e3:.1f}–{t.high * 1e3:.1f}",
                    f"{t.median / unit:.2f}",
                    f"{temporary_mib(compiled[label]):.2f}",
                )
                for label, t in times.items()
            ],
        )


def run_linear(args: argparse.Namespace) -> None:
    """Time and temporary memory of losses of hidden @ kernel, on this machine."""
    problem = linear.inputs(args.rows, args.features, args.classes, args.dtype)
    masked = problem._replace(labels=linear.ignored(problem.labels, 0.5))
    mostly = problem._replace(labels=linear.ignored(problem.labels, 0.9))
    plain = linear.jxent_plain
    streamed = functools.partial(plain, implementation="streamed")
    ignoring = functools.partial(plain, ignore_index=linear.IGNORED)
    table = problem._replace(kernel=problem.kernel.T)
    of_table = functools.partial(plain, vocab_axis=0)
    losses = {
        "Optax, materialized": (linear.optax_materialized, problem),
        "jxent": (plain, problem),
        "jxent, streamed": (streamed, problem),
        "jxent, everything on": (linear.jxent_everything, problem),
        "Optax, embedding table": (linear.optax_table, table),
        "jxent, embedding table": (of_table, table),
        "jxent, half ignored": (ignoring, masked),
        "jxent, 90 % ignored": (ignoring, mostly),
    }
    absent = []
    if linear.has_chunked_tokamax():
        losses["tokamax, chunked_xla"] = (linear.tokamax_chunked, problem)
    else:
        absent.append("tokamax with chunked_xla")
    for name in dense.PASSES:
        grad = name != "forward"
        functions = {
            label: (
                jax.value_and_grad(loss, (0, 1)) if grad else loss,
                arguments,
            )
            for label, (loss, arguments) in losses.items()
        }
        if grad:
            functions["the three products"] = (linear.three_products, problem)
        compiled = {
            label: jax.jit(function).lower(*arguments).compile()
            for label, (function, arguments) in functions.items()
        }
        calls: dict[str, Callable[[], Any]] = {
            label: functools.partial(program, *functions[label][1])
            for label, program in compiled.items()
        }
        if grad and linear.has_chunked_torch():
            calls["PyTorch, chunks of 512"] = linear.torch_chunked(problem)
        elif grad:
            absent.append("PyTorch with linear_cross_entropy")
        times = interleaved(calls, rounds=args.rounds, title=name)
        unit = times["Optax, materialized"].median
        show(
            f"{name} of the mean, {args.dtype} [{args.rows}, {args.features}] @ "
            f"[{args.features}, {args.classes}]",
            ["loss", "median ms", "middle half", "× Optax", "temporary MiB"],
            [
                (
                    label,
                    f"{t.median * 1e3:.0f}",
                    f"{t.low * 1e3:.0f}–{t.high * 1e3:.0f}",
                    f"{t.median / unit:.2f}",
                    f"{temporary_mib(compiled[label]):.1f}"
                    if label in compiled
                    else "",
                )
                for label, t in times.items()
            ],
        )
    if absent:
        print("not installed:", ", ".join(absent))


def run_eager(args: argparse.Namespace) -> None:
    """Calls outside jit on [128, 10], 100 in a row: what one costs."""
    logits, labels, _ = dense.inputs(128, 10, "float32")
    yes = jax.nn.one_hot(labels, 10)

    calls = {
        "Optax softmax, integer labels": lambda: (
            optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        ),
        "jxent softmax, integer labels": lambda: jxent.softmax_cross_entropy(
            logits, labels
        ),
        "Optax softmax, distributions": lambda: optax.softmax_cross_entropy(
            logits, yes
        ),
        "jxent softmax, distributions": lambda: jxent.softmax_cross_entropy(
            logits, yes
        ),
        "Optax sigmoid": lambda: optax.sigmoid_binary_cross_entropy(logits, yes),
        "jxent sigmoid": lambda: jxent.sigmoid_binary_cross_entropy(logits, yes),
    }
    times = interleaved(calls, rounds=2 * args.rounds, title="eager", repeat=100)
    show(
        "outside jit, float32 [128, 10]",
        ["call", "median µs", "middle half"],
        [
            (name, f"{t.median * 1e6:.0f}", f"{t.low * 1e6:.0f}–{t.high * 1e6:.0f}")
            for name, t in times.items()
        ],
    )


def run_startup(args: argparse.Namespace) -> None:
    """What `import jxent` adds to `import jax`, in fresh interpreters."""
    code = (
        "import time, jax; start = time.perf_counter(); import jxent; "
        "print(time.perf_counter() - start)"
    )
    seconds = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in tqdm(range(args.rounds), desc="startup", leave=False)
    ]
    show(
        "import jxent after import jax",
        ["", "median ms", "largest ms"],
        [
            (
                "import",
                f"{statistics.median(seconds) * 1e3:.0f}",
                f"{max(seconds) * 1e3:.0f}",
            )
        ],
    )


def run_compile(args: argparse.Namespace) -> None:
    """Temporary memory and traffic, compiled for devices that are not there."""
    arguments = (
        jax.ShapeDtypeStruct((args.rows, args.classes), args.dtype),
        jax.ShapeDtypeStruct((args.rows,), jnp.int32),
        jax.ShapeDtypeStruct((args.classes,), jnp.float32),
    )
    for target in args.target or TARGETS:
        rows = []
        jobs = [(p, label) for p in dense.PASSES for label in dense.LOSSES]
        for name, label in tqdm(jobs, desc=target, leave=False):
            function = dense.PASSES[name](dense.LOSSES[label])
            try:
                compiled = compile_for(target, function, *arguments)
            except MissingCompilerError as error:
                print(f"{target}: skipped, {error}")
                break
            traffic = traffic_gib(compiled)
            rows.append(
                (
                    f"{label}: {name}",
                    f"{temporary_mib(compiled):.2f}",
                    "" if traffic is None else f"{traffic:.2f}",
                )
            )
        if rows:
            show(
                f"{target}, compiled, not run: {args.dtype} logits "
                f"[{args.rows}, {args.classes}]",
                ["loss", "temporary MiB", "HBM traffic GiB"],
                rows,
            )


def run_compile_linear(args: argparse.Namespace) -> None:
    """Temporary memory of losses of hidden @ kernel, compiled for absent devices."""
    labels = jax.ShapeDtypeStruct((args.rows,), jnp.int32)
    hidden = jax.ShapeDtypeStruct((args.rows, args.features), args.dtype)
    implementations = ("materialized", "tiled", "streamed")
    jobs = [
        (implementation, dtype, derivative)
        for implementation in implementations
        for dtype, derivative in (
            (args.dtype, "value_and_grad"),
            ("float32", "value_and_grad"),
            (args.dtype, "hessian-vector product"),
        )
        if derivative == "value_and_grad" or implementation == "streamed"
    ]
    for target in args.target or TARGETS:
        platform_name = {"cuda": "gpu"}.get(TARGETS[target][0], TARGETS[target][0])
        rows = []
        for implementation, dtype, derivative in tqdm(jobs, desc=target, leave=False):
            kernel = jax.ShapeDtypeStruct((args.features, args.classes), dtype)
            plan = jxent.linear_softmax_plan(
                hidden,
                kernel,
                reduction="mean",
                implementation=implementation,
                platform=platform_name,
            )
            loss = functools.partial(
                linear.jxent_plain,
                implementation=implementation,
                block_sizes=plan.block_sizes,
            )
            function = linear.hessian_vector_product(loss)
            if derivative == "value_and_grad":
                function = jax.value_and_grad(loss, (0, 1))
            try:
                compiled = compile_for(target, function, hidden, kernel, labels)
            except MissingCompilerError as error:
                print(f"{target}: skipped, {error}")
                break
            rows.append(
                (
                    f"{implementation}: {derivative}, kernel {dtype}",
                    str(plan.block_sizes),
                    f"{temporary_mib(compiled):.1f}",
                )
            )
        if rows:
            show(
                f"{target}, compiled, not run: {args.dtype} "
                f"[{args.rows}, {args.features}] @ [{args.features}, {args.classes}]",
                ["loss", "block sizes", "temporary MiB"],
                rows,
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    suites = parser.add_subparsers(required=True, metavar="suite")

    def suite(name: str, run, rows: int = 0, classes: int = 0, dtype: str = "float32"):
        sub = suites.add_parser(
            name,
            help=run.__doc__,
            description=run.__doc__,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run=run)
        if rows:
            sub.add_argument("--rows", type=int, default=rows, help="examples")
            sub.add_argument("--classes", type=int, default=classes, help="classes")
            sub.add_argument("--dtype", default=dtype, help="of the logits")
        return sub

    def add_rounds(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--rounds", type=int, default=15, help="interleaved rounds")

    add_rounds(suite("dense", run_dense, 2048, 32768))
    linear_suite = suite("linear", run_linear, 2048, 32768)
    linear_suite.add_argument("--features", type=int, default=512, help="of hidden")
    add_rounds(linear_suite)
    add_rounds(suite("eager", run_eager))
    add_rounds(suite("startup", run_startup))
    compile_suites = (
        suite("compile", run_compile, 8192, 131072, "bfloat16"),
        suite("compile-linear", run_compile_linear, 8192, 131072, "bfloat16"),
    )
    for sub in compile_suites:
        sub.add_argument(
            "--target", action="append", choices=TARGETS, help="all where not given"
        )
    compile_suites[1].add_argument(
        "--features", type=int, default=2048, help="of hidden"
    )
    args = parser.parse_args(argv)
    if args.run in (
        run_compile,
        run_compile_linear,
    ):  # a plugin that finds no device of its own steps back
        jax.config.update("jax_platforms", "cpu")
    device = jax.devices()[0]
    print(
        f"jxent {jxent.__version__}, jax {jax.__version__}, "
        f"optax {version('optax')}, Python {platform.python_version()}, "
        f"{device.platform} ({device.device_kind})"
    )
    args.run(args)


if __name__ == "__main__":
    main()
