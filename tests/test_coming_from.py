"""The README's lines of PyTorch and Keras: here, and with the libraries themselves."""

import os
import re
import warnings

import jax
import jax.numpy as jnp
import pytest

import jxent
from tests import test_docs


README = test_docs.README.read_text(encoding="utf-8")
ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|").split("|")]
    for line in README.partition("| PyTorch | Keras |")[2].splitlines()[2:]
    if line.startswith("| ")
][:7]
PROGRAMS = re.findall(r"^```py\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
Z = [[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]


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
            reason=f'needs {name}: pip install "jxent[parity]"',
            exc_type=ImportError,
        )


def arrays(array):
    return {
        "logits": array(Z),
        "labels": array([0, 2]),
        "w": array([1.0, 1.0, 2.0]),
        "probs": array([0.9, 0.2]),
        "yes": array([1.0, 0.0]),
        "one_hot": jax.nn.one_hot,
    }


def prints(names, column):
    """Every cell of a column prints what its row says."""
    lines = [(row[column], row[3]) for row in ROWS if row[column]]
    assert len(lines) > 4
    for line, number in lines:
        result = float(eval(line, names))
        assert test_docs.says(number, str(result)), f"{line}: {result}"


def test_the_table(defaults):
    """Its three columns, on JAX arrays."""
    assert len(ROWS) == 7
    names = arrays(jnp.array)
    prints({"F": jxent.torch, **names}, 0)
    prints({**vars(jxent.keras), **names}, 1)
    prints({**vars(jxent), **names}, 2)


def test_the_column_of_torch():
    """The same lines, run by PyTorch."""
    torch = imported("torch")
    prints({"F": torch.nn.functional, **arrays(torch.tensor)}, 0)


def test_the_column_of_keras(defaults):
    """The same lines, run by Keras."""
    keras = imported("keras")
    prints({**vars(keras.losses), **arrays(jnp.array)}, 1)


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_the_textbooks_program(defaults, name):
    """It learns its four points in the library itself."""
    library = imported(name)
    (program,) = (p for p in PROGRAMS if p.startswith(f"import {name}"))
    seed = library.manual_seed if name == "torch" else library.utils.set_random_seed
    seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test_docs.run(0, program, {})
