"""Mutation testing: which small changes of the library does the suite not notice?

    python -m tools.mutants [--count 60] [--seed 0] [tests/test_linear.py …]

Each mutant is the library with one expression changed, in a temporary copy. The core
runs on it, then, if that passes, the rest of the suite; or the tests that are named.
"""

import argparse
import ast
import contextlib
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm


IGNORED = shutil.ignore_patterns(".git", ".venv*")
LIMIT = 3600  # seconds: a mutant may loop forever
# Inside the library arrays meet in functions of lax, not in operators.
SWAPS = "Add Sub, Mult Div, Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or"
SWAPS += ", add sub, mul div, lt le, gt ge, eq ne, max min, exp expm1, log log1p"
SWAPS += ", any all, zeros ones, zeros_like ones_like, pmax psum"
OTHER = {a: b for x in SWAPS.split(",") for a, b in (x.split(), x.split()[::-1])}


def changed(node):
    """The expression with one change, or None where none suits it."""
    new = copy.deepcopy(node)
    match new:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.Compare(ops=[op]):
            if other := OTHER.get(type(op).__name__):
                op.__class__ = getattr(ast, other)
                return new
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            return new.operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return ast.IfExp(test, orelse, body)
        case ast.Constant(value=bool() | int() | float() as x):
            return ast.Constant(not x if isinstance(x, bool) else x + 1)
        case ast.Attribute(value=of, attr=name) if name in OTHER:
            return ast.Attribute(of, OTHER[name])
        case ast.Call(args=[ast.Name() as first, ast.Name() as second, *rest]):
            return ast.Call(new.func, [second, first, *rest], new.keywords)


def mutants(tree, text, path):
    """(path, what changes, changed text) for every expression but an annotation's."""
    place = lambda line, n: sum(map(len, text.splitlines(True)[: line - 1])) + n
    for name, field in ast.iter_fields(tree):
        for node in field if isinstance(field, list) else [field]:
            if name not in ("annotation", "returns") and isinstance(node, ast.AST):
                if isinstance(node, ast.expr) and (new := changed(node)):
                    code = ast.unparse(new)
                    start = place(node.lineno, node.col_offset)
                    end = place(node.end_lineno, node.end_col_offset)
                    what = f"{path}:{node.lineno}: {ast.unparse(node)} -> {code}"
                    yield path, what, text[:start] + f"({code})".encode() + text[end:]
                if not isinstance(node, ast.JoinedStr):
                    yield from mutants(node, text, path)


def passes(folder, tests):
    """Whether these tests pass, those first that an earlier mutant failed."""
    run = [sys.executable, "-m", "pytest", "-x", "--failed-first", *tests]
    options = {"env": os.environ | {"PYTHONPATH": folder}, "capture_output": True}
    with contextlib.suppress(subprocess.TimeoutExpired):
        return not subprocess.run(run, cwd=folder, timeout=LIMIT, **options).returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("tests", nargs="*", help="arguments of pytest, for one run")
    given = parser.parse_args()
    stages = {"tests": given.tests} if given.tests else {"core": [], "rest": ["--rest"]}
    paths = sorted(Path("jxent").rglob("*.py"))
    texts = {p: p.read_bytes() for p in paths if p.parts[1] not in ("torch", "keras")}
    every = [m for p, x in texts.items() for m in mutants(ast.parse(x), x, p)]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(".", folder, dirs_exist_ok=True, ignore=IGNORED)
        if not all(passes(folder, tests) for tests in stages.values()):
            sys.exit("the tests fail without a mutant")
        chosen = random.Random(given.seed).sample(every, given.count)
        for path, what, text in (bar := tqdm(chosen, unit="mutant")):
            Path(folder, path).write_bytes(text)
            failed = (n for n, x in stages.items() if not passes(folder, x))
            bar.write(f"noticed by {next(failed, 'nothing')}: {what}")
            Path(folder, path).write_bytes(texts[path])


if __name__ == "__main__":
    main()
