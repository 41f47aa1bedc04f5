"""The code of README and of the site's pages: its blocks, run as readers have JAX."""

import ast
import contextlib
import functools
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jxent
from docs.extensions.prints import expected_prints, says


REPOSITORY = Path(__file__).parent.parent
README, DOCS = REPOSITORY / "README.md", REPOSITORY / "docs"
FENCE = re.compile(
    r"^:::\{tab-item\} (?P<tab>\w+)|^```(?P<kind>\{code-cell\}|python)[^\n]*\n"
    r"(?P<options>(?::[^\n]*\n|---\n.*?---\n)*)(?P<source>.*?)^```\s*$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """Code between fences; `line` counts those above it."""

    cell: bool  # or of a page that no build runs
    tab: str | None  # the one that it stands in, or after
    options: str
    source: str
    line: int
    page: str


@functools.cache
def blocks(page: Path) -> list[Block]:
    """A page's code, in its order."""
    found, tab = [], None
    text = page.read_text(encoding="utf-8")
    for block in FENCE.finditer(text):
        tab = block["tab"] or tab
        if source := block["source"]:
            line = text[: block.start("source")].count("\n")
            cell = block["kind"] == "{code-cell}"
            found.append(Block(cell, tab, block["options"], source, line, page.name))
    return found


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """JAX's promotions as readers have them."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def run(block: Block, names: dict[str, Any]) -> None:
    """Runs a block statement by statement, and compares what is printed."""
    wanted = expected_prints(block.source)
    for node in ast.parse(block.source).body:
        module = ast.Module([node], [])
        ast.increment_lineno(module, block.line)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(module, block.page, "exec"), names)
        assert node.end_lineno is not None
        lines = range(node.lineno - block.line, node.end_lineno - block.line + 1)
        for line in wanted.keys() & lines:  # the one print of a loop, or the node
            text = wanted.pop(line)
            where = f"{block.page}, line {node.lineno}"
            assert says(text, printed.getvalue()), f"{where}: {printed.getvalue()}"
    assert not wanted


def made(node: ast.AST) -> set[str]:
    """What a statement assigns or defines."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    names = [inner for inner in ast.walk(node) if isinstance(inner, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


GIVEN = {"math": math, "jax": jax, "jnp": jnp, "np": np, "jxent": jxent}


@functools.cache
def statements(page: str, names: str, after: str) -> list[Any]:
    """The first statements of a page below a text that make these names, compiled."""
    path, wanted, found = DOCS / page, set(names.split()), []
    text = path.read_text(encoding="utf-8")
    assert text.count(after) == 1 or not after, f"{page} has {after!r} not once"
    first = text[: text.find(after)].count("\n") if after else 0
    for block in blocks(path):
        for node in ast.parse(block.source).body if block.line >= first else []:
            if made(node) & wanted:
                found.append(compile(ast.Module([node], []), page, "exec"))
                wanted -= made(node)
    assert not wanted, f"{page} makes no {wanted}"
    return found


def recipe(page: str, names: str, *, after: str = "", **inputs: Any) -> dict[str, Any]:
    """What a page's code makes of a test's inputs: {name: value}.

    Of its statements below the text `after`, the first that makes each name is run.
    """
    given = GIVEN | inputs
    with defaults():
        for code in statements(page, names, after):
            exec(code, given)
    return given
