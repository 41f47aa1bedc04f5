"""The pages' code of PyTorch and Keras: here, and with the libraries themselves."""

import os
import re
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import test_docs


DOCS = Path(__file__).parent.parent / "docs"
FENCE = re.compile(
    r"^:::\{tab-item\} (?P<tab>\w+)|^```(?P<kind>\{code-cell\}|python)\n"
    r"(?P<source>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page):
    """(tab or None for a cell, line, source) of a page's code, in its order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    tab = None
    for found in FENCE.finditer(text):
        if found["tab"]:
            tab = found["tab"]
            continue
        source = re.sub(r"\A(:.*\n|---\n.*?---\n)*", "", found["source"])
        line = text[: found.end() - len(source)].count("\n")
        yield tab if found["kind"] == "python" else None, line, source


PROGRAMS = [
    pytest.param(library, source, id=f"{library}-{page}")
    for page in ("cross-entropy-in-code.md", "coming-from.md")
    for _, _, source in blocks(page)
    for library in ("torch", "keras")
    if source.startswith(f"import {library}\n")
]


@pytest.fixture
def defaults():
    """JAX as readers have it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def imported(name):
    """A library, with the warnings of its own import."""
    os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            name,
            reason=f'needs {name}: pip install -e ".[parity]"',
            exc_type=ImportError,
        )


def run_tabs(tab, given, convert=lambda x: x):
    """Runs the calls in the tabs of a library on the arrays that the page makes."""
    names, count = {}, 0
    for of, line, source in blocks("coming-from.md"):
        if of is None:
            test_docs.run(line, source, names)
        elif of == tab and not source.startswith("import"):
            arrays = {
                name: convert(value)
                for name, value in names.items()
                if isinstance(value, jax.Array)
            }
            test_docs.run(line, source, arrays | given)
            count += 1
    assert count > 8


@pytest.mark.beyond_core
def test_the_facades(defaults):
    """They print what the page says that the libraries print."""
    torch = types.SimpleNamespace(**vars(jnp), tensor=jnp.array)
    run_tabs("PyTorch", {"F": jxent.torch, "torch": torch})
    ops = types.SimpleNamespace(one_hot=jax.nn.one_hot, moveaxis=jnp.moveaxis)
    run_tabs("Keras", {"keras": types.SimpleNamespace(losses=jxent.keras, ops=ops)})


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
def test_pytorch(defaults):
    torch = imported("torch")

    def tensor(x):
        x = torch.tensor(np.asarray(x))
        return x.long() if x.dtype == torch.int32 else x

    def show(x):
        print(x.tolist())

    given = {"F": torch.nn.functional, "torch": torch, "print": show}
    run_tabs("PyTorch", given, tensor)


def test_keras(defaults):
    run_tabs("Keras", {"keras": imported("keras")})


@pytest.mark.every_value
@pytest.mark.parametrize(("library", "program"), PROGRAMS)
def test_the_textbooks_program(library, program, defaults):
    """It learns its four points in the library itself."""
    module = imported(library)
    seed = module.manual_seed if library == "torch" else module.utils.set_random_seed
    seed(0)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(program, names)
        if library == "torch":
            loss = names["loss"].item()
        else:
            loss = names["net"].evaluate(names["x"], names["y"], verbose=0)
    assert loss < 0.1
