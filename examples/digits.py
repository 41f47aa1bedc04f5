"""A convolutional digit classifier: Flax NNX, Optax, and the loss from jxent.

    pip install -e ".[examples]"    # in a checkout of jxent
    python examples/digits.py

learns half of the 1797 real 8×8 digits that come with scikit-learn, within half a
minute on two cores, prints how well it reads the other half, and draws digits.png: the
loss curves, the confusion matrix, and how far its confidence can be trusted.

    held-out accuracy             99.56%
    held-out cross-entropy        0.0746 nats
    expected calibration error    0.0582
    picture                       digits.png

Label smoothing buys accuracy with confidence. Over seeds 0 to 4, with and without it:

                             held-out accuracy    expected calibration error
    --label-smoothing 0.05   99.2 to 99.8 %       0.054 to 0.064
    --label-smoothing 0      98.6 to 99.0 %       0.004 to 0.009
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, MIST, ORANGE, PEACH, SKY, picture


CLASSES = 10


# Data ---------------------------------------------------------------------------------


class Digits(NamedTuple):
    images: Array  # (examples, 8, 8, 1), between 0 and 1
    labels: Array  # (examples,), integers


def load_data() -> tuple[Digits, Digits]:
    """The training and the held-out images, the same ones for every seed."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels.astype(np.int32), test_size=0.5, stratify=labels, random_state=0
    )
    return (
        Digits(jnp.asarray(train_x), jnp.asarray(train_y)),
        Digits(jnp.asarray(test_x), jnp.asarray(test_y)),
    )


# Model --------------------------------------------------------------------------------


class Classifier(nnx.Module):
    """Two convolutions and two dense layers, 8×8 images to ten logits."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(4 * 4 * 64, 128, rngs=rngs)
        self.dropout = nnx.Dropout(0.4, rngs=rngs)
        self.logits = nnx.Linear(128, CLASSES, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        x = nnx.relu(self.conv1(images))
        x = nnx.relu(self.conv2(x))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.hidden(x.reshape(len(x), -1)))
        return self.logits(self.dropout(x))


@nnx.jit(static_argnames="label_smoothing")
def train_step(
    model: Classifier, optimizer: nnx.Optimizer, batch: Digits, label_smoothing: float
) -> Array:
    """One step down the gradient of the mean loss, which it returns."""

    def loss(model: Classifier) -> Array:
        return jxent.softmax_cross_entropy(
            model(batch.images),
            batch.labels,
            label_smoothing=label_smoothing,
            reduction="mean",
        )

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


class Evaluation(NamedTuple):
    loss: Array  # the mean cross-entropy in nats, without smoothing
    accuracy: Array
    calibration_error: Array  # expected, in 15 bins of confidence
    confusion: Array  # (classes, classes), examples by label and prediction
    bins: jxent.metrics.ReliabilityBins  # accuracy against confidence


@nnx.jit
def evaluate(model: Classifier, data: Digits) -> Evaluation:
    """The loss and the metrics of held-out examples."""
    example = model(data.images), data.labels
    return Evaluation(
        loss=jxent.softmax_cross_entropy(*example, reduction="mean"),
        accuracy=jxent.metrics.accuracy(*example),
        calibration_error=jxent.metrics.calibration_error(*example),
        confusion=jxent.metrics.confusion_matrix(*example),
        bins=jxent.metrics.reliability_bins(*example),
    )


# Training -----------------------------------------------------------------------------


class Curves(NamedTuple):
    """Mean cross-entropies in nats, before the first epoch and after every one."""

    training: list[float]
    held_out: list[float]


def train(
    model: Classifier, training: Digits, held_out: Digits, args: argparse.Namespace
) -> Curves:
    """Train the model in place."""
    learner = nnx.view(model, deterministic=False)  # both hold the model's parameters
    examined = nnx.view(model, deterministic=True)
    examples = len(training.labels)
    steps = max(1, examples // args.batch_size)  # of an epoch; the remainder waits
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.epochs * steps)
    optimizer = nnx.Optimizer(learner, optax.adamw(schedule), wrt=nnx.Param)
    rng = np.random.default_rng(args.seed)
    curves = Curves([], [])

    def record() -> None:
        curves.training.append(float(evaluate(examined, training).loss))
        curves.held_out.append(float(evaluate(examined, held_out).loss))

    record()
    with progress(args.epochs * steps, args) as bar:
        for _ in range(args.epochs):
            order = rng.permutation(examples)[: steps * args.batch_size]
            for rows in order.reshape(steps, -1):
                batch = Digits(training.images[rows], training.labels[rows])
                loss = train_step(learner, optimizer, batch, args.label_smoothing)
                bar(float(loss))
            record()
    return curves


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
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.legend(**ABOVE)


def draw_confusion(axes: Axes, confusion: Array) -> None:
    """How often each digit is read as each; mistakes in a colour of their own."""
    counts = np.asarray(confusion, int)
    right = np.eye(CLASSES, dtype=bool)
    colours = np.select([counts == 0, right], [0, 1], 2)
    axes.imshow(colours, cmap=ListedColormap(["white", SKY, PEACH]), vmin=0, vmax=2)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, str(count), ha="center", va="center")
    axes.set(
        title=f"{np.trace(counts)} of {counts.sum()} held-out images read right",
        xlabel="predicted digit",
        ylabel="true digit",
        xticks=range(CLASSES),
        yticks=range(CLASSES),
    )
    between = np.arange(-0.5, CLASSES)
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color=MIST, lw=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.yaxis.labelpad = 8
    axes.set_anchor("N")
    keys = [
        Patch(color=SKY, label="images read right"),
        Patch(color=PEACH, label="wrong"),
    ]
    axes.legend(handles=keys, **ABOVE)


def draw_reliability(axes: Axes, below: Axes, result: Evaluation) -> None:
    """Accuracy against confidence, the gap between them, and how many images say so."""
    bins = jax.tree.map(np.asarray, result.bins)
    seen = bins.weight > 0
    middle = ((bins.edges[:-1] + bins.edges[1:]) / 2)[seen]
    width = bins.edges[1] * 0.92
    accuracy, confidence = bins.accuracy[seen], bins.confidence[seen]
    axes.bar(middle, accuracy, width, color=SKY, label="accuracy")
    gap = {"fill": False, "hatch": "////", "edgecolor": ORANGE, "lw": 1}
    axes.bar(
        middle, confidence - accuracy, width, accuracy, label="gap to confidence", **gap
    )
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="no gap")
    axes.set(
        title=f"Expected calibration error {result.calibration_error:.3f}",
        ylabel="accuracy (share right)",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    axes.tick_params(labelbottom=False)
    axes.legend(**ABOVE)
    below.bar(middle, bins.weight[seen], width, color=GREY)
    below.set(
        xlabel="confidence (probability of the predicted digit)",
        ylabel="images",
        yscale="log",
        ylim=(0.6, 1000),
        yticks=(1, 10, 100, 1000),
    )
    below.yaxis.set_major_formatter("{x:g}")
    below.minorticks_off()


def draw(output: Path, curves: Curves, result: Evaluation) -> None:
    """The three panels, side by side."""
    with picture(output, 16, 5.4) as figure:
        grid = figure.add_gridspec(4, 3, wspace=0.06)
        draw_curves(figure.add_subplot(grid[:, 0]), curves)
        draw_confusion(figure.add_subplot(grid[:, 1]), result.confusion)
        above = figure.add_subplot(grid[:3, 2])
        draw_reliability(above, figure.add_subplot(grid[3, 2], sharex=above), result)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train a small convolutional network on scikit-learn's digits.")
    add = parser.add_argument
    add("--epochs", type=positive, default=40, help="passes over the training images")
    add("--batch-size", type=positive, default=64, help="images per step")
    add("--learning-rate", type=float, default=3e-3, help="AdamW's, at the start")
    add("--label-smoothing", type=float, default=0.05, help="between 0 and 1")
    add_shared(
        parser,
        output="digits.png",
        seed="of parameters, dropout and order",
        smoke="three epochs only",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.epochs = 3
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    training, held_out = load_data()
    model = Classifier(nnx.Rngs(args.seed))
    curves = train(model, training, held_out, args)

    result = evaluate(nnx.view(model, deterministic=True), held_out)
    print(f"held-out accuracy           {result.accuracy:8.2%}")
    print(f"held-out cross-entropy      {result.loss:8.4f} nats")
    print(f"expected calibration error  {result.calibration_error:8.4f}")
    draw(args.output, curves, result)
    print(f"picture                       {args.output}")


if __name__ == "__main__":
    main()
