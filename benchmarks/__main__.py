"""Measures jxent beside its peers, on this machine or compiled for another.

python -m benchmarks                          every suite but by_hand and forms, of an
                                              hour each: ten minutes on two cores
python -m benchmarks --suite linear --shape llama3 --dtype bfloat16
python -m benchmarks --suite by_hand --shape 262144x10 --operation sigmoid entropy
python -m benchmarks --suite forms            what each form for a platform brings
python -m benchmarks compile --target h100    XLA's real compiler, no such device
python -m benchmarks report FOLDER            tables and plots of a stored run
python -m benchmarks readme                   the README's numbers from stored runs
"""

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


# Read when the libraries start. PyTorch's threads shall not spin while JAX is timed,
# and JAX shall leave it memory of a device that both use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from rich.console import Console

from . import compiled, readme, report, session
from .case import MODELS
from .peers import PEERS
from .suites import SUITES
from .targets import TARGETS


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("run", "compile", "report", "readme")
    parser.add_argument("command", nargs="?", default="run", choices=commands)
    parser.add_argument("folder", nargs="*", type=Path, help="of results, for report")
    add = parser.add_argument
    several = functools.partial(add, nargs="+", action="extend")
    shapes = (
        f"ROWSxCLASSES, ROWSxFEATURESxCLASSES, or the output layer of {_list(MODELS)}"
    )
    several("--suite", choices=SUITES, metavar="SUITE", help=_list(SUITES))
    several("--shape", help=f"{shapes}, with ROWSx before it or not")
    several("--operation", help="those alone whose name has this text in it")
    several("--dtype", help="float32, bfloat16, or mixed: a float32 kernel")
    several("--peers", choices=PEERS, metavar="PEER", help=_list(PEERS))
    several("--target", choices=TARGETS, help="what to compile for; all if not given")
    add("--output", type=Path, help="a folder for results.json, tables and plots")
    add("--seconds", type=float, default=1.0, help="of timing per case (%(default)s)")
    add("--check", action="store_true", help="readme: fail where it is out of date")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    console = Console()
    progress = Console(stderr=True)
    command = shlex.join(["python", "-m", "benchmarks", *argv])
    if args.command == "readme":
        return readme.main(check=args.check)
    if args.command == "report":
        for folder in args.folder:
            report.write(folder)
            console.print(f"{folder}/report.md")
        return 0
    measure = compiled.measured if args.command == "compile" else session.measured
    results = measure(args, command, progress)
    console.print()
    console.print(
        report.markdown(results), markup=False, highlight=False, soft_wrap=True
    )
    if args.output:
        report.save(results, args.output)
        console.print(f"\n{args.output}/report.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
