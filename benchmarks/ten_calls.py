"""Ten calls, ordinary and nasty, and what each library returns for them.

python -m benchmarks.ten_calls                                  a Markdown table
python -m benchmarks.ten_calls --output benchmarks/pictures     and a picture of it

Every library gets the same arrays and, of its own functions and options, those that fit
best. The truth is the formula in float64 on these arrays. Where a library's documents
define another number, and it returns that one, it is said to differ; where it has no
such option, there is nothing to call.
"""

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from . import session, tables, truth


os.environ.setdefault("KERAS_BACKEND", "jax")  # asked for when Keras is imported

# As a column is headed, and the module that a call of it is handed.
LIBRARIES = {
    "jxent": "jxent",
    "Optax": "optax",
    "Keras": "keras.losses",
    "PyTorch": "torch.nn.functional",
}
RIGHT, DIFFERS, WRONG, NO_OPTION, MISSING = "right", "differs", "wrong", "–", "missing"
MARKS = {RIGHT: "✓", DIFFERS: "≠", WRONG: "✗", NO_OPTION: "–", MISSING: ""}

DIGITS = 1e-5  # a float32 result is right to this share of it

Loss = Callable[..., Any]


class Call(NamedTuple):
    """One input, and how each library is called on it.

    Attributes:
      text: the input in words.
      arrays: arguments, of which the first is differentiated.
      truth: the loss in float64, or None where there is no number: the right answer is
        an error, or NaN throughout.
      losses: by library, a function of its module and the arrays.
      documented: by library, the loss as its documents define it, if otherwise.
      note: how those that differ come to their number.
    """

    text: str
    arrays: tuple[Any, ...]
    truth: Loss | None
    losses: Mapping[str, Loss]
    documented: Mapping[str, Loss] = {}
    note: str = ""


class Answer(NamedTuple):
    """Value and gradient, or the name of the exception, and what it is worth."""

    verdict: str
    value: float | None = None
    gradient: np.ndarray | None = None
    raised: str = ""

    @property
    def text(self) -> str:
        """ "0.4076 / 0.4264": the value, and the norm of the gradient."""
        if self.raised:
            return self.raised
        if self.value is None or self.gradient is None:
            return ""
        return f"{number(self.value)} / {number(float(np.linalg.norm(self.gradient)))}"


def number(x: float) -> str:
    if np.isnan(x):
        return "NaN"
    if 0 < abs(x) < 1e-4:
        return f"{x:.0e}".replace("e-0", "e-")
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{float(f'{x:.4g}') + 0:.10g}"


# The formulas, for the truth.


def rows(z, y):
    return logsumexp(z, -1) - z[jnp.arange(len(y)), y]


def mean(z, y):
    return rows(z, y).mean()


def kept_mean(z, y):
    """Of the rows that are not ignored: the others stay out of every computation."""
    kept = np.flatnonzero(np.asarray(y) >= 0)
    return mean(z[kept], jnp.asarray(y)[kept]) if len(kept) else 0 * z[:0].sum()


def binary(p, y):
    """0 log 0 = 0: of a label that is 0 or 1, one of the logarithms alone counts."""
    return -jnp.log(jnp.where(y == 1, p, 1 - p)).mean()


# Calls that several inputs share.

IGNORED, SMOOTHING = -100, 0.1


def _sparse(k, z, y, **options):
    return k.SparseCategoricalCrossentropy(from_logits=True, **options)(y, z)


PLAIN: dict[str, Loss] = {
    "jxent": lambda j, z, y: j.softmax_cross_entropy(z, y, reduction="mean"),
    "Optax": lambda o, z, y: o.softmax_cross_entropy_with_integer_labels(z, y).mean(),
    "Keras": _sparse,
    "PyTorch": lambda F, z, y: F.cross_entropy(z, y),
}


def _optax_ignoring(o, z, y):
    kept = y != IGNORED
    losses = o.softmax_cross_entropy_with_integer_labels(
        z, jnp.where(kept, y, 0), where=kept
    )
    return losses.sum() / kept.sum()


IGNORING = PLAIN | {
    "jxent": lambda j, z, y: j.softmax_cross_entropy(
        z, y, ignore_index=IGNORED, reduction="mean"
    ),
    "Optax": _optax_ignoring,
    "Keras": lambda k, z, y: _sparse(k, z, y, ignore_class=IGNORED),
}

DISTRIBUTIONS: dict[str, Loss] = {
    "jxent": PLAIN["jxent"],
    "Optax": lambda o, z, p: o.safe_softmax_cross_entropy(z, p).mean(),
    "Keras": lambda k, z, p: k.CategoricalCrossentropy(from_logits=True)(p, z),
    "PyTorch": PLAIN["PyTorch"],
}


def _keras_weighted(k, z, y, w):
    """Class weights are sample weights, as `fit` makes them."""
    kept = y != IGNORED
    ids = jnp.where(kept, y, 0)
    loss = k.CategoricalCrossentropy(from_logits=True, label_smoothing=SMOOTHING)
    return loss(jax.nn.one_hot(ids, z.shape[-1]), z, w[ids] * kept)


def _keras_weighted_documented(z, y, w):
    """A row's weight times its smoothed loss, over the number of all rows."""
    kept = y != IGNORED
    ids = jnp.where(kept, y, 0)
    smoothed = (1 - SMOOTHING) * rows(z, ids)
    smoothed += SMOOTHING * (logsumexp(z, -1) - z.mean(-1))
    return jnp.mean(smoothed * w[ids] * kept)


WEIGHTED: dict[str, Loss] = {
    "jxent": lambda j, z, y, w: j.softmax_cross_entropy(
        z,
        y,
        class_weights=w,
        label_smoothing=SMOOTHING,
        ignore_index=IGNORED,
        reduction="mean",
    ),
    "Keras": _keras_weighted,
    "PyTorch": lambda F, z, y, w: F.cross_entropy(z, y, w, label_smoothing=SMOOTHING),
}

BINARY: dict[str, Loss] = {
    "jxent": lambda j, p, y: j.binary_cross_entropy(p, y, reduction="mean"),
    "Keras": lambda k, p, y: k.BinaryCrossentropy()(y, p),
    "PyTorch": lambda F, p, y: F.binary_cross_entropy(p, y),
}


def calls(classes: int = 131072) -> list[Call]:
    """The ten; `classes` of the large bfloat16 logits."""
    z = np.array([[2, 0, 1], [0, 1, 3]], np.float32)
    y = np.array([0, 2], np.int32)
    impossible = z.copy()
    impossible[1, 0] = -np.inf
    garbage = z.copy()
    garbage[1] = np.nan
    generator = np.random.default_rng(0)
    offset = 1000 + 3 * generator.standard_normal((4, classes), np.float32)
    many = generator.integers(0, classes, 4, np.int32)
    three = np.concatenate([z, z[:1]])

    def ids(*labels):
        return np.array(labels, np.int32)

    return [
        Call("plain logits and labels", (z, y), mean, PLAIN),
        Call(
            "logits of ±10,000 and the wrong labels",
            (np.array([[1e4, -1e4, 0], [0, -1e4, 1e4]], np.float32), ids(1, 1)),
            mean,
            PLAIN,
        ),
        Call(
            "a logit of −inf where the target is 0",
            (impossible, np.eye(3, dtype=np.float32)[y]),
            lambda z, p: mean(z, p.argmax(-1)),
            DISTRIBUTIONS,
        ),
        Call(
            "an ignored row that holds NaN",
            (garbage, ids(0, IGNORED)),
            kept_mean,
            IGNORING,
        ),
        Call(
            "every row ignored (0 by convention)",
            (z, ids(IGNORED, IGNORED)),
            kept_mean,
            IGNORING,
            # A mean over no rows; with Optax the caller's own.
            dict.fromkeys(("Optax", "PyTorch"), lambda z, y: jnp.nan + 0 * z[:0].sum()),
            "0/0, a mean over no rows; with Optax the mean is the caller's.",
        ),
        Call("label 3 of classes 0, 1, 2", (z, ids(0, 3)), None, PLAIN),
        Call("label −1, which nothing ignores", (z, ids(0, -1)), None, PLAIN),
        Call(
            f"bfloat16, {classes:,} classes around 1,000",
            (offset.astype(jnp.bfloat16), many),
            mean,
            PLAIN,
            note="the loss is rounded to the logits' dtype.",
        ),
        Call(
            "class weights, smoothing, an ignored row",
            (three, ids(0, 2, IGNORED), np.array([1, 1, 4], np.float32)),
            lambda z, y, w: truth.logits(z, y, w, label_smoothing=SMOOTHING),
            WEIGHTED,
            {"Keras": _keras_weighted_documented},
            "a row's loss counts by its label's weight, over the number of all rows.",
        ),
        Call(
            "binary: probabilities 0 and 1, both right",
            (np.array([0, 1], np.float32), np.array([0, 1], np.float32)),
            binary,
            BINARY,
        ),
    ]


def _by_jax(loss: Loss, arrays: Sequence[Any]) -> tuple[Any, Any]:
    """In one compiled program, of the first array."""
    logits, *rest = map(jnp.asarray, arrays)
    return jax.jit(jax.value_and_grad(lambda z: loss(z, *rest)))(logits)


def _by_torch(loss: Loss, arrays: Sequence[Any]) -> tuple[Any, Any]:
    import torch

    def tensor(x):
        if np.issubdtype(x.dtype, np.integer):
            return torch.tensor(x).long()
        wide = torch.tensor(np.array(x, np.float32))
        return wide.bfloat16() if x.dtype == jnp.bfloat16 else wide

    logits, *rest = map(tensor, arrays)
    value = loss(logits.requires_grad_(), *rest)
    value.backward()
    lower = value.dtype == torch.bfloat16
    value = jnp.asarray(value.item(), jnp.bfloat16 if lower else jnp.float32)
    return value, (logits.grad if logits.grad is not None else 0 * logits).float()


def true_answer(loss: Loss, arrays: Sequence[Any]) -> tuple[Any, Any]:
    with jax.enable_x64(True):
        wide = truth.widened(tuple(map(jnp.asarray, arrays)))
        return jax.tree.map(np.asarray, _by_jax(loss, wide))


def near(
    got: tuple[Any, Any], true: tuple[Any, Any], of_value: float, of_gradient: float
) -> bool:
    """To these shares of the value, and of the gradient's largest entry."""
    gradient, right = (np.asarray(x, np.float64) for x in (got[1], true[1]))
    distance = np.max(np.abs(gradient - right), initial=0)
    size = max(1e-3, np.max(np.abs(right), initial=0))
    value = float(got[0])
    close = np.isclose(value, float(true[0]), of_value, 1e-6, equal_nan=True)
    return bool(close and distance <= of_gradient * size)


def answer(call: Call, library: str) -> Answer:
    """What the library returns, and whether it is right."""
    loss = call.losses.get(library)
    if loss is None:
        return Answer(NO_OPTION)
    try:
        module = importlib.import_module(LIBRARIES[library])
    except ImportError:
        return Answer(MISSING)
    evaluate = _by_torch if library == "PyTorch" else _by_jax
    try:
        got = evaluate(lambda *arrays: loss(module, *arrays), call.arrays)
    except (IndexError, ValueError) as error:
        verdict = RIGHT if call.truth is None else WRONG
        return Answer(verdict, raised=type(error).__name__)
    numbers = float(got[0]), np.asarray(got[1], np.float64)
    if call.truth is None:
        # The second row has the bad label: no number of it may look like a result.
        silent = np.isfinite(numbers[0]) or np.isfinite(numbers[1][1]).any()
        return Answer(WRONG if silent else RIGHT, *numbers)
    true = true_answer(call.truth, call.arrays)
    # bfloat16 logits have gradients of bfloat16, whose unit is 2⁻⁷.
    low = 2**-7
    of_gradient = low if call.arrays[0].dtype == jnp.bfloat16 else DIGITS
    if near(got, true, DIGITS, of_gradient):
        return Answer(RIGHT, *numbers)
    if jnp.result_type(got[0]) == jnp.bfloat16 and near(got, true, low, of_gradient):
        return Answer(DIFFERS, *numbers)  # a loss in the logits' dtype
    other = call.documented.get(library)
    if other and near(got, true_answer(other, call.arrays), DIGITS, of_gradient):
        return Answer(DIFFERS, *numbers)
    return Answer(WRONG, *numbers)


class Row(NamedTuple):
    """An input in words, the truth, and an answer for each library."""

    text: str
    truth: Answer
    answers: tuple[Answer, ...]
    note: str = ""


def measured(several: Sequence[Call]) -> list[Row]:
    found = []
    for call in several:
        true = Answer(RIGHT, raised="error or NaN")
        if call.truth is not None:
            true = Answer(RIGHT, *true_answer(call.truth, call.arrays))
        answers = tuple(answer(call, library) for library in LIBRARIES)
        found.append(Row(call.text, true, answers, call.note))
    return found


def cell(one: Answer) -> str:
    text = f"{MARKS[one.verdict]} {one.text}".strip()
    return f"**{text}**" if one.verdict == WRONG else text


def markdown(found: Sequence[Row]) -> str:
    columns = ("loss / ‖gradient‖", "truth", *LIBRARIES)
    cells = [(r.text, r.truth.text, *map(cell, r.answers)) for r in found]
    notes = [
        f"≠ {r.text}: {r.note}"
        for r in found
        if any(a.verdict == DIFFERS for a in r.answers)
    ]
    used = ("jax", "optax", "keras", "torch")
    there = [f"{k} {v}" for k, v in session.versions().items() if k in used]
    versions = f"Measured with {', '.join(there)}."
    return "\n\n".join([tables.markdown(columns, cells), *notes, versions])


def stored(table: str) -> list[Row]:
    """The rows of a table that `markdown` wrote, without their notes."""
    verdicts = {mark: verdict for verdict, mark in MARKS.items()}
    found = []
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        text, truth, *cells = (c.strip(" *") for c in line[1:-1].split("|"))
        pairs = [cell.partition(" ") for cell in cells]
        answers = (Answer(verdicts[mark], raised=of) for mark, _, of in pairs)
        found.append(Row(text, Answer(RIGHT, raised=truth), tuple(answers)))
    return found


def missing(found: Sequence[Row]) -> list[str]:
    """The libraries that are not installed."""
    columns = zip(*(r.answers for r in found), strict=True)
    return [
        name
        for name, answers in zip(LIBRARIES, columns, strict=True)
        if any(a.verdict == MISSING for a in answers)
    ]


COLOURS = {
    RIGHT: "#e3f1e6",
    DIFFERS: "#fdf0cf",
    WRONG: "#f6c9c2",
    NO_OPTION: "#f2f2f2",
    MISSING: "#ffffff",
}
LEGEND = {RIGHT: "right", DIFFERS: "differs, as documented", WRONG: "wrong"}
INK, GREY, BLUE = "#222222", "#666666", "#0072b2"


def _lines(one: Answer) -> tuple[str, str]:
    """The value, and the gradient below it."""
    value, _, gradient = one.text.partition(" / ")
    return value or MARKS[one.verdict], f"∇ {gradient}" if gradient else ""


def draw(found: Sequence[Row], *, phone: bool = False) -> Figure:
    """The table with coloured cells: in each the value, its gradient's norm below.

    Beside each row, or on a phone above it, stands what was called.
    """
    wide, narrow, row = (0, 0.96, 0.43) if phone else (2.75, 1.2, 0.43)  # inches
    above = 0.26 * phone
    columns = ("truth", *LIBRARIES)
    width = wide + narrow * len(columns)
    height = row * 1.6 + (row + above) * len(found) + row * phone
    figure = Figure(figsize=(width + 0.2, height + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.1, width + 0.1)
    axes.set_ylim(height, -0.1)
    write = functools.partial(axes.text, va="center", color=INK, fontsize=8.5)
    for i, name in enumerate(columns):
        colour = BLUE if name == "jxent" else INK
        x = wide + narrow * (i + 0.5)
        write(x, row / 2, name, ha="center", weight="bold", color=colour)
    for j, of in enumerate(found):
        top = row + (row + above) * j + above
        write(0.02, top - above / 2 if phone else top + row / 2, of.text)
        for i, one in enumerate((of.truth, *of.answers)):
            left = wide + narrow * i
            if i:
                colour = COLOURS[one.verdict]
                corner = left + 0.025, top + 0.025
                size = narrow - 0.05, row - 0.05
                axes.add_patch(Rectangle(corner, *size, color=colour, linewidth=0))
                mark = MARKS[one.verdict] if one.text else ""
                write(left + 0.08, top + row / 2, mark, color=GREY)
            value, gradient = _lines(one)
            middle, lift = left + narrow / 2 + 0.04 * bool(i), 0.075 * bool(gradient)
            write(middle, top + row / 2 - lift, value, ha="center")
            small = {"fontsize": 7, "color": GREY}
            write(middle, top + row / 2 + 0.1, gradient, ha="center", **small)
    bottom, x = height - row * 0.25, 0.02 if phone else wide + narrow + 0.025
    for verdict, text in LEGEND.items():
        corner = x, bottom - 0.09
        axes.add_patch(Rectangle(corner, 0.18, 0.18, color=COLOURS[verdict]))
        write(x + 0.09, bottom, MARKS[verdict], ha="center", color=GREY)
        write(x + 0.25, bottom, text, color=GREY)
        x += 0.5 + 0.062 * len(text)
    write(x, bottom, "–  no such option", color=GREY)
    bottom -= 0.3 * phone
    write(0.02, bottom, "loss, and below it ∇: the norm of its gradient", color=GREY)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ten_calls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, help="a folder for table and pictures")
    parser.add_argument(
        "--stored", action="store_true", help="draw the folder's table: measure nothing"
    )
    args = parser.parse_args(argv)
    if args.stored:
        found = stored((args.output / "ten_calls.md").read_text(encoding="utf-8"))
    else:
        found = measured(calls())
        print(text := markdown(found))
        if absent := missing(found):
            print("\nMissing here: " + ", ".join(absent))
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            (args.output / "ten_calls.md").write_text(text + "\n", encoding="utf-8")
    if args.output:
        with rc_context({"svg.hashsalt": "jxent"}):
            for name, phone in (("ten_calls", False), ("ten_calls_phone", True)):
                path = args.output / f"{name}.svg"
                figure = draw(found, phone=phone)
                figure.savefig(path, metadata={"Date": None}, facecolor="white")
    return 0


if __name__ == "__main__":
    sys.exit(main())
