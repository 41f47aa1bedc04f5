"""Strings of digits, read without knowing where each digit is: CTC from hidden states.

    pip install -e ".[examples]"
    python examples/digit_strings.py

joins scikit-learn's handwritten digits to rows of up to six, each digit drawn out or
pressed to a random width, and trains a small convolutional network to read them. A
label is the string alone: connectionist temporal classification (CTC) sums over all
ways in which it may lie in the row. Its loss reads the log-probabilities of a frame at
the blank and at the string's own labels, and no others: `jxent.softmax_log_prob_at` of
`jxent.LinearLogits` gives these, so that with a vocabulary of words or characters the
logits never exist. Within two minutes on two cores it prints the error rate of digits
that the network has not seen, and draws digit_strings.png: rows, what is read in them,
and the paths.

    held-out strings, 1,000 of 0 to 6 digits
      cross-entropy of a string        0.1485 nats
      strings read right               94.20%
      digits wrong, missing or extra    1.87%
    temporary memory of loss and gradients, 4,096 frames, 32,768 classes
      CTC from hidden states               34 MiB
      optax.ctc_loss of logits          1,608 MiB
    picture  digit_strings.png
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, MIST, ORANGE, picture


LONGEST, WIDTH, STRIDE = 6, 96, 2  # digits, columns, columns of a frame
WIDTHS, GAPS = (6, 13), (0, 4)  # of a digit and between two, in columns
CLASSES, FEATURES = 11, 64  # the blank, which is class 0, and ten digits
HELD_OUT = 1000


# Loss ---------------------------------------------------------------------------------

IMPOSSIBLE = -1e30  # a logarithm of 0 whose derivative is 0 and not NaN


def ctc_loss(
    logits: Array | jxent.LinearLogits,
    logit_paddings: Array,
    labels: Array,
    label_paddings: Array,
    *,
    blank_id: int = 0,
) -> Array:
    """−log of the summed probability of all paths that spell the labels, (batch,).

    Arguments as of `optax.ctc_loss`: logits (batch, time, classes), labels (batch, n),
    and paddings, which are 1 behind the end of a row. A string that its frames are too
    few for has the loss +inf. In float32 a loss of nearly 0 may round to a little below
    0, as Optax's does: take no logarithm of it.
    """
    ids = jnp.where(label_paddings > 0, blank_id, labels)
    ids = jnp.pad(ids, ((0, 0), (1, 0)), constant_values=blank_id)
    at_frames = jnp.broadcast_to(ids[:, None], (*logit_paddings.shape, ids.shape[1]))
    log_p = jxent.softmax_log_prob_at(logits, at_frames, where=logit_paddings == 0)

    # The states of a path: blank, first label, blank, second label, …, blank.
    state = np.arange(2 * ids.shape[1] - 1)
    place = np.where(state % 2, (state + 1) // 2, 0)
    classes, log_p = ids[:, place], log_p[..., place]
    skips = (state >= 2) & (classes != jnp.roll(classes, 2, axis=1))  # a blank

    def frame(alpha: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        log_p, padding = now
        before = jnp.pad(alpha, ((0, 0), (2, 0)), constant_values=IMPOSSIBLE)
        skipped = jnp.where(skips, before[:, :-2], IMPOSSIBLE)
        stay_or_go = jnp.logaddexp(alpha, before[:, 1:-1])
        moved = log_p + jnp.logaddexp(stay_or_go, skipped)
        return jnp.where(padding[:, None] > 0, alpha, moved), None

    start = jnp.where(state == 0, 0.0, IMPOSSIBLE) + jnp.zeros_like(log_p[:, 0])
    by_time = jnp.moveaxis(log_p, 1, 0), logit_paddings.T
    alpha, _ = jax.lax.scan(frame, start, by_time)
    last = 2 * jnp.sum(label_paddings == 0, axis=1, keepdims=True)
    ends = (state == last) | ((state == last - 1) & (last > 0))
    loss = -jax.nn.logsumexp(jnp.where(ends, alpha, IMPOSSIBLE), axis=1)
    return jnp.where(loss > -IMPOSSIBLE / 2, jnp.inf, loss)


# Data ---------------------------------------------------------------------------------


class Strings(NamedTuple):
    images: Array  # (strings, 96, 8), columns first, between 0 and 1
    frames: Array  # (strings, 48), 1 for those that are padding
    labels: Array  # (strings, 6), classes of digits, 1 to 10
    paddings: Array  # (strings, 6), 1 for labels that are padding

    def at(self, rows: np.ndarray) -> "Strings":
        return Strings(*(part[rows] for part in self))


def stretched(digit: np.ndarray, width: int) -> np.ndarray:
    """Columns (8, rows) of a digit as `width` columns, those between two blended."""
    at = (np.arange(width) + 0.5) * len(digit) / width - 0.5
    left = np.clip(np.floor(at).astype(int), 0, len(digit) - 2)
    share = np.clip(at - left, 0, 1)[:, None]
    return (1 - share) * digit[left] + share * digit[left + 1]


def join(
    digits: np.ndarray, classes: np.ndarray, count: int, rng: np.random.Generator
) -> Strings:
    """Strings of random digits, lengths, widths and gaps."""
    images = np.zeros((count, WIDTH, digits.shape[2]), np.float32)
    labels = np.zeros((count, LONGEST), np.int32)
    ends = np.zeros(count, int)
    lengths = rng.integers(0, LONGEST + 1, count)
    for i, length in enumerate(lengths):
        ends[i] = rng.integers(*GAPS)
        for place, row in enumerate(rng.integers(len(digits), size=length)):
            columns = stretched(digits[row], rng.integers(*WIDTHS))
            images[i, ends[i] : ends[i] + len(columns)] = columns
            labels[i, place] = 1 + classes[row]
            ends[i] += len(columns) + rng.integers(*GAPS)
    frames = np.arange(WIDTH // STRIDE) * STRIDE >= np.maximum(ends, 2)[:, None]
    paddings = np.arange(LONGEST) >= lengths[:, None]
    return Strings(*map(jnp.asarray, (images, 1.0 * frames, labels, 1.0 * paddings)))


def load_data(args: argparse.Namespace) -> tuple[Strings, Strings]:
    """Strings to learn, and others of digits that are in none of them."""
    images, classes = load_digits(return_X_y=True)
    columns = images.reshape(-1, 8, 8).transpose(0, 2, 1) / 16
    train_x, test_x, train_y, test_y = train_test_split(
        columns, classes, test_size=0.25, stratify=classes, random_state=0
    )
    rng = np.random.default_rng(args.seed)
    training = join(train_x, train_y, args.strings, rng)
    return training, join(test_x, test_y, HELD_OUT, np.random.default_rng(0))


# Model --------------------------------------------------------------------------------


class Reader(nnx.Module):
    """Convolutions along a row; a frame of two columns sees fourteen of them."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(8, FEATURES, (5,), rngs=rngs)
        self.second = nnx.Conv(FEATURES, FEATURES, (5,), strides=STRIDE, rngs=rngs)
        self.third = nnx.Conv(FEATURES, FEATURES, (3,), rngs=rngs)
        self.norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, images: Array) -> jxent.LinearLogits:
        x = nnx.relu(self.first(images))
        x = nnx.relu(self.second(x))
        x = self.norm(x + nnx.relu(self.third(x)))
        kernel, bias = self.head.kernel[...], self.head.bias[...]
        return jxent.LinearLogits(self.dropout(x), kernel, bias)


def losses(model: Reader, batch: Strings) -> Array:
    return ctc_loss(model(batch.images), batch.frames, batch.labels, batch.paddings)


@nnx.jit
def train_step(model: Reader, optimizer: nnx.Optimizer, batch: Strings) -> Array:
    """One step down the gradient of the mean loss, which it returns."""
    loss = lambda model: jnp.mean(losses(model, batch))
    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def train(model: Reader, training: Strings, args: argparse.Namespace) -> list[float]:
    """Train the model in place. Returns the losses of all steps, in nats a string."""
    learner = nnx.view(model, deterministic=False)
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.steps)
    optimizer = nnx.Optimizer(learner, optax.adam(schedule), wrt=nnx.Param)
    rng = np.random.default_rng(args.seed)
    found = []
    with progress(args.steps, args) as bar:
        for _ in range(args.steps):
            rows = rng.integers(len(training.labels), size=args.batch_size)
            found.append(float(train_step(learner, optimizer, training.at(rows))))
            bar(found[-1])
    return found


# Reading ------------------------------------------------------------------------------


@nnx.jit
def likeliest(model: Reader, images: Array) -> Array:
    """The likeliest class of each frame, (strings, frames)."""
    return jxent.softmax_statistics(model(images), argmax=True).argmax


def read(path: np.ndarray) -> list[int]:
    """Greedy decoding: a class that repeats counts once, then blanks go."""
    changes = np.diff(path, prepend=0) != 0
    return [int(c) for c in path[changes] if c]


def distance(a: list[int], b: list[int]) -> int:
    """How many digits to change, add or drop to make one string of the other."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        above, row = row, np.full(len(b) + 1, i)
        for j, y in enumerate(b, 1):
            row[j] = min(above[j - 1] + (x != y), above[j] + 1, row[j - 1] + 1)
    return int(row[-1])


class Evaluation(NamedTuple):
    loss: float  # mean of the strings, in nats
    strings: float  # share that is read right
    errors: float  # edits for each digit


def evaluate(model: Reader, data: Strings) -> Evaluation:
    frames, labels, paddings = map(np.asarray, data[1:])
    paths = np.where(frames > 0, 0, likeliest(model, data.images))
    truth = [list(y[p == 0]) for y, p in zip(labels, paddings, strict=True)]
    edits = np.array([distance(read(p), y) for p, y in zip(paths, truth, strict=True)])
    loss = nnx.jit(losses)(model, data).mean()
    return Evaluation(
        float(loss), float(np.mean(edits == 0)), edits.sum() / np.sum(paddings == 0)
    )


@nnx.jit
def path_shares(model: Reader, one: Strings) -> Array:
    """How likely a path that spells the string is in each class, at each frame.

    The gradient of the loss in the logits is their softmax less that.
    """
    logits = model(one.images).materialize()
    loss = lambda z: ctc_loss(z, one.frames, one.labels, one.paddings).sum()
    return jax.nn.softmax(logits) - jax.grad(loss)(logits)


# Memory -------------------------------------------------------------------------------

SPEECH = {"rows": 8, "frames": 512, "features": 256, "classes": 32768, "labels": 64}


def memory_of(loss: Callable[..., Array]) -> float:
    """MiB of temporaries of a loss of hidden states and a kernel. Compiled, not run."""
    rows, frames, features, classes, labels = SPEECH.values()
    shapes = (
        (rows, frames, features),
        (features, classes),
        (rows, frames),
        (rows, labels),
    )
    h, w, t, n = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    y = jax.ShapeDtypeStruct((rows, labels), jnp.int32)
    step = jax.jit(jax.value_and_grad(lambda *x: loss(*x).sum(), (0, 1)))
    analysis = step.lower(h, w, t, y, n).compile().memory_analysis()
    return analysis.temp_size_in_bytes / 2**20


# Picture ------------------------------------------------------------------------------


def draw_losses(axes: Axes, found: list[float], held_out: float) -> None:
    steps = np.arange(1, len(found) + 1)
    window = min(25, len(found))
    smooth = np.convolve(found, np.ones(window) / window, "valid")
    axes.plot(steps, found, color=MIST, lw=1)
    axes.plot(steps[window - 1 :], smooth, color=BLUE, lw=2, label="training")
    axes.axhline(held_out, color=ORANGE, lw=1.5, ls="--", label="held out, at the end")
    axes.set(xlabel="steps", ylabel="nats a string", yscale="log", xlim=(0, len(found)))
    axes.set_title("CTC loss of a string")
    axes.legend(**ABOVE)


def draw_paths(image: Axes, paths: Axes, model: Reader, one: Strings) -> None:
    """Above the row of digits; below the classes of its paths over time."""
    shares = path_shares(model, one)
    frames = int(np.sum(one.frames[0] == 0))
    extent = 0, frames * STRIDE
    columns = np.asarray(one.images[0, : extent[1]]).T
    image.imshow(columns, cmap="Greys", aspect="auto", extent=(*extent, 8, 0))
    image.set(xticks=[], yticks=[], xlim=extent)
    path = np.asarray(likeliest(model, one.images))[0, :frames]
    text = "".join(str(c - 1) for c in read(path)) or "nothing"
    image.set_title(f"read as {text}", pad=6, fontsize=11)
    shown = np.asarray(shares)[0, :frames].T
    paths.imshow(
        shown, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower",
        extent=(*extent, -0.5, CLASSES - 0.5),
    )  # fmt: skip
    at = (np.arange(frames) + 0.5) * STRIDE
    paths.plot(at, path, color=ORANGE, lw=0, marker=".", ms=5)
    paths.set(xlim=extent, yticks=range(0, CLASSES, 2))
    paths.set_yticklabels(["blank", *map(str, range(1, 10, 2))], fontsize=8)


def draw(
    output: Path, model: Reader, found: list[float], data: Strings, result: Evaluation
) -> None:
    with picture(output, 13, 6.4) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.9))
        draw_losses(left.subplots(), found, result.loss)
        axes = right.subplots(4, 2, height_ratios=(1, 2.6, 1, 2.6))
        labels = np.asarray(data.labels)
        count = np.sum(labels > 0, axis=1)
        repeats = np.any((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] > 0), 1)
        for k, length in enumerate((3, 4, 5, 6)):
            row = np.flatnonzero((count == length) & (repeats == (length > 4)))[0]
            top, side = 2 * (k // 2), k % 2
            one = data.at(np.array([row]))
            draw_paths(axes[top, side], axes[top + 1, side], model, one)
        for bottom in axes[3]:
            bottom.set_xlabel("column")
        key = (
            "blue: where the paths that spell the string are; dots: the likeliest class"
        )
        right.supxlabel(key, color=GREY, fontsize=10, x=0.02, ha="left")


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Read strings of handwritten digits by CTC.")
    add = parser.add_argument
    add("--strings", type=positive, default=20000, help="to learn from")
    add("--steps", type=positive, default=2000, help="of training")
    add("--batch-size", type=positive, default=32, help="strings per step")
    add("--learning-rate", type=float, default=3e-3, help="Adam's, at the first step")
    add_shared(
        parser,
        output="digit_strings.png",
        seed="of strings, parameters and order",
        smoke="a few steps",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.strings, args.steps = 500, 20
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    training, held_out = load_data(args)
    model = nnx.view(Reader(nnx.Rngs(args.seed)), deterministic=True)
    found = train(model, training, args)
    result = evaluate(model, held_out)
    print(f"held-out strings, {HELD_OUT:,} of 0 to {LONGEST} digits")
    print(f"  cross-entropy of a string       {result.loss:7.4f} nats")
    print(f"  strings read right              {result.strings:7.2%}")
    print(f"  digits wrong, missing or extra  {result.errors:7.2%}")
    frames, classes = SPEECH["rows"] * SPEECH["frames"], SPEECH["classes"]
    fused = lambda h, w, *rest: ctc_loss(jxent.LinearLogits(h, w), *rest)
    whole = lambda h, w, *rest: optax.ctc_loss(h @ w, *rest)
    print(
        "temporary memory of loss and gradients, "
        f"{frames:,} frames, {classes:,} classes"
    )
    print(f"  CTC from hidden states        {memory_of(fused):9,.0f} MiB")
    print(f"  optax.ctc_loss of logits      {memory_of(whole):9,.0f} MiB")
    draw(args.output, model, found, held_out, result)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
