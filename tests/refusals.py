"""`python -m tests.refusals` writes the sentences of `refusals.txt`.

A paragraph there has comments, calls that are refused, and the error of all of them. A
new entry is its call: the command evaluates it and writes what it says. A test compares
all of them.
"""

import itertools
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

import jxent
from jxent import keras, metrics, torch
from tests.comparing import floats, ints, untyped


FILE = Path(__file__).with_suffix(".txt")


# What the calls are made of -----------------------------------------------------------


def bools(*shape):
    return jax.device_put(np.zeros(shape, np.bool_))


def wide(*shape):
    """NumPy integers that int32 does not hold."""
    return np.full(shape, 2**32)


# Made here, not in a call, they are no tracers where that is jitted.
HIDDEN, KERNEL = floats(4, 3), floats(3, 5)


def head(hidden=HIDDEN, kernel=KERNEL, bias=None, **options):
    """Logits of 4 rows and 5 classes."""
    return jxent.LinearLogits(hidden, kernel, bias, **untyped(options))


class Layer:
    """A module of some framework, in place of its array."""

    def __init__(self):
        self.name = "head"
        self.kernel = floats(2, 3)
        self.bias = np.zeros(3)


def one_loss(x):
    return jxent.softmax_cross_entropy(x, ints(4))


def with_sums(x):
    return jxent.softmax_cross_entropy_sums(x, ints(4))


NAMES = {
    "jax": jax,
    "jnp": jnp,
    "np": np,
    "optax": optax,
    "P": P,
    "jxent": jxent,
    "metrics": metrics,
    "torch": torch,
    "keras": keras,
    "floats": floats,
    "ints": ints,
    "bools": bools,
    "wide": wide,
    "HIDDEN": HIDDEN,
    "KERNEL": KERNEL,
    "head": head,
    "Layer": Layer,
    "one_loss": one_loss,
    "with_sums": with_sums,
    "loss_sums": jxent.LossSums(*5 * [floats()]),
    "accuracy_sums": metrics.AccuracySums(*2 * [floats()]),
}


# The file -----------------------------------------------------------------------------


def paragraphs(text: str) -> list[tuple[list[str], list[str], str]]:
    """The comments, the calls and the error of each."""
    found = []
    for paragraph in text.rstrip("\n").split("\n\n"):
        comments: list[str] = []
        calls: list[str] = []
        error: list[str] = []
        for line in paragraph.split("\n"):
            if line.startswith("#"):
                comments.append(line)
            elif line.startswith("    "):
                calls[-1] += f" {line.strip()}"
            elif line.startswith("  "):
                error.append(line.strip())
            else:
                calls.append(line)
        found.append((comments, calls, " ".join(error)))
    return found


def entries() -> dict[str, str]:
    """Each call with its error."""
    text = FILE.read_text(encoding="utf-8")
    return {call: error for _, calls, error in paragraphs(text) for call in calls}


def written(text: str, error_of: Callable[[str], str]) -> str:
    """The same calls with these errors."""
    found = []
    for comments, calls, _ in paragraphs(text):
        lines = [*comments]
        for error, same in itertools.groupby(calls, error_of):
            lines += [wrapped(call, "", "    ") for call in same]
            lines += [wrapped(error, "  ", "  "), ""]
        found.append("\n".join(lines).rstrip("\n"))
    return "\n\n".join(found) + "\n"


def wrapped(text: str, first: str, rest: str) -> str:
    """In lines of 90 characters, none of which ends inside of short brackets."""
    brackets = r"[(\[][^()\[\]]{1,30}[)\]]"
    glued = re.sub(brackets, lambda x: x[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    lines = textwrap.wrap(
        glued,
        90,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
    assert " ".join(line.strip() for line in lines) == text, f"not by words: {text!r}"
    return "\n".join(lines)


def refusal(call: str) -> str:
    """What a call raises."""
    try:
        eval(call, NAMES)
    except (AttributeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"not refused: {call}")


if __name__ == "__main__":
    from tests import conftest  # noqa: F401  the modes of all tests

    before = FILE.read_text(encoding="utf-8")
    FILE.write_text(written(before, refusal), encoding="utf-8")
