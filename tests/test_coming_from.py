"""The pages' code of PyTorch and Keras: here, and with the libraries themselves."""

import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import pages
from tests.facades import installed


pytestmark = pytest.mark.usefixtures("as_users_have_it")
PROGRAMS = [
    pytest.param(library, block.source, id=f"{library}-{page}")
    for page in ("cross-entropy-in-code.md", "coming-from.md")
    for block in pages.blocks(pages.DOCS / page)
    for library in ("torch", "keras")
    if block.source.startswith(f"import {library}\n")
]


def run_tabs(tab, given, convert=lambda x: x):
    """Runs the calls in the tabs of a library on the arrays that the page makes."""
    names, count = {}, 0
    for block in pages.blocks(pages.DOCS / "coming-from.md"):
        if block.cell:
            pages.run(block, names)
        elif block.tab == tab and not block.source.startswith("import"):
            arrays = {
                k: convert(x) for k, x in names.items() if isinstance(x, jax.Array)
            }
            pages.run(block, arrays | given)
            count += 1
    assert count > 8


@pytest.mark.beyond_core
def test_the_facades():
    """They print what the page says that the libraries print."""
    torch = types.SimpleNamespace(**vars(jnp), tensor=jnp.array)
    run_tabs("PyTorch", {"F": jxent.torch, "torch": torch})
    ops = types.SimpleNamespace(one_hot=jax.nn.one_hot, moveaxis=jnp.moveaxis)
    run_tabs("Keras", {"keras": types.SimpleNamespace(losses=jxent.keras, ops=ops)})


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
def test_pytorch():
    torch = installed("torch")

    def tensor(x):
        x = torch.tensor(np.asarray(x))
        return x.long() if x.dtype == torch.int32 else x

    def show(x):
        print(x.tolist())

    given = {"F": torch.nn.functional, "torch": torch, "print": show}
    run_tabs("PyTorch", given, tensor)


def test_keras():
    run_tabs("Keras", {"keras": installed("keras")})


@pytest.mark.every_value
@pytest.mark.parametrize(("library", "program"), PROGRAMS)
def test_the_textbooks_program(library, program):
    """It learns its four points in the library itself."""
    module = installed(library)
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
