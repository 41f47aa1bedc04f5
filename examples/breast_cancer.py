"""Yes or no: a two-layer network tells malignant from benign tumours.

    pip install -e ".[examples]"    # in a checkout of jxent
    python examples/breast_cancer.py

learns scikit-learn's breast-cancer table, 30 measurements of cell nuclei of each of 569
patients, within a quarter of a minute. It trains five times, each time without another
fifth of the patients, prints how well these are judged by the network that has not seen
them, and draws breast_cancer.png: the loss curves, and every patient's log-odds.

    held-out accuracy         97.36%
    malignant tumours found   95.75%
    benign tumours spared     98.32%
    held-out cross-entropy    0.0695 nats
    picture                   breast_cancer.png

In PyTorch, the same training step reads

    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
    loss_fn = nn.BCEWithLogitsLoss()
    loss = loss_fn(model(x).squeeze(-1), malignant.float())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

and in Keras

    model = Sequential([Dense(16, activation="relu"), Dense(1)])
    model.compile("adam", BinaryCrossentropy(from_logits=True))
    model.fit(x, malignant)

Here the labels stay booleans, and their shape must be that of the logits: nothing
broadcasts (patients, 1) with (patients,) to a table of pairs.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, ORANGE, PEACH, SKY, picture


# Data ---------------------------------------------------------------------------------


class Patients(NamedTuple):
    x: Array  # (patients, 30), in standard deviations from the training mean
    malignant: Array  # (patients,), booleans


def folds() -> list[tuple[Patients, Patients]]:
    """Training and held-out patients, five times: each patient is held out once."""
    x, benign = load_breast_cancer(return_X_y=True)

    def patients(rows: np.ndarray, seen: np.ndarray) -> Patients:
        standardised = (x[rows] - x[seen].mean(0)) / x[seen].std(0)
        malignant = jnp.asarray(benign[rows] == 0)
        return Patients(jnp.asarray(standardised, jnp.float32), malignant)

    split = StratifiedKFold(5, shuffle=True, random_state=0).split(x, benign)
    return [(patients(seen, seen), patients(unseen, seen)) for seen, unseen in split]


# Model --------------------------------------------------------------------------------


class Classifier(nnx.Module):
    """Two layers, 30 measurements to one logit: the log-odds of a malignant tumour."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(30, 16, rngs=rngs)
        self.logit = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.logit(nnx.relu(self.hidden(x)))[:, 0]


def loss_of(model: Classifier, batch: Patients) -> Array:
    """The mean cross-entropy in nats. The model ends in a logit, not in a sigmoid."""
    return jxent.sigmoid_binary_cross_entropy(
        model(batch.x), batch.malignant, reduction="mean"
    )


@nnx.jit
def train_step(model: Classifier, optimizer: nnx.Optimizer, batch: Patients) -> Array:
    """One step down the gradient of the mean loss, which it returns."""
    value, gradients = nnx.value_and_grad(loss_of)(model, batch)
    optimizer.update(model, gradients)
    return value


evaluate = nnx.jit(loss_of)


# Training -----------------------------------------------------------------------------


class Curves(NamedTuple):
    """Mean cross-entropies in nats, before the first epoch and after every one."""

    training: list[float]
    held_out: list[float]


def train(
    model: Classifier,
    tx: optax.GradientTransformation,
    training: Patients,
    held_out: Patients,
    args: argparse.Namespace,
    bar: Callable[[float], None],
) -> Curves:
    """Train the model in place."""
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rng = np.random.default_rng(args.seed)
    curves = Curves([], [])

    def record() -> None:
        curves.training.append(float(evaluate(model, training)))
        curves.held_out.append(float(evaluate(model, held_out)))

    record()
    steps = len(training.x) // args.batch_size  # of an epoch; the remainder waits
    for _ in range(args.epochs):
        order = rng.permutation(len(training.x))[: steps * args.batch_size]
        for rows in order.reshape(steps, -1):
            batch = Patients(training.x[rows], training.malignant[rows])
            bar(float(train_step(model, optimizer, batch)))
        record()
    return curves


# Picture ------------------------------------------------------------------------------


def draw_curves(axes: Axes, curves: Curves) -> None:
    """Both losses against epochs, the means of the five trainings."""
    epochs = range(len(curves.training))
    axes.axhline(np.log(2), color=GREY, lw=1, ls=":", label="a coin, ln 2")
    axes.plot(epochs, curves.training, color=BLUE, lw=2, label="training")
    axes.plot(epochs, curves.held_out, color=ORANGE, lw=2, label="held out")
    axes.set(
        title=f"Held-out loss {curves.held_out[-1]:.3f} nats",
        xlabel="epochs",
        ylabel="mean binary cross-entropy (nats)",
        xlim=(0, epochs[-1]),
        ylim=(0, None),
    )
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.legend(**ABOVE)


def draw_patients(axes: Axes, logits: np.ndarray, malignant: np.ndarray) -> None:
    """Patients by their held-out log-odds; the side of 0 is the verdict."""
    right = np.sum((logits > 0) == malignant)
    low, high = np.floor(logits.min()), np.ceil(logits.max())
    axes.hist(
        [logits[~malignant], logits[malignant]],
        bins=np.arange(low, high + 1),
        stacked=True,
        color=[SKY, PEACH],
        label=["benign", "malignant"],
    )
    axes.axvline(0, color=GREY, lw=1, ls=":", label="even odds")
    axes.set(
        title=f"{right} of {len(logits)} patients judged right, held out",
        xlabel="logit: log-odds of a malignant tumour (nats)",
        ylabel="patients (per nat)",
        xlim=(low, high),
    )
    axes.legend(**ABOVE)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train a two-layer network on scikit-learn's breast cancers.")
    add = parser.add_argument
    add("--epochs", type=positive, default=20, help="passes over the training patients")
    add("--batch-size", type=positive, default=32, help="patients per step")
    add("--learning-rate", type=float, default=3e-3, help="AdamW's")
    add_shared(
        parser,
        output="breast_cancer.png",
        seed="of parameters and order",
        smoke="three epochs only",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.epochs = 3
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    data = folds()
    steps = sum(args.epochs * (len(seen.x) // args.batch_size) for seen, _ in data)
    tx = optax.adamw(args.learning_rate)  # one object, so that a step compiles once
    curves, logits = [], []
    with progress(steps, args) as bar:
        for seen, unseen in data:
            model = Classifier(nnx.Rngs(args.seed))
            curves.append(train(model, tx, seen, unseen, args, bar))
            logits.append(np.asarray(model(unseen.x)))
    mean = Curves(*np.mean(curves, axis=0).tolist())
    logits = np.concatenate(logits)
    malignant = np.concatenate([unseen.malignant for _, unseen in data])

    found = logits > 0
    print(f"held-out accuracy        {np.mean(found == malignant):7.2%}")
    print(f"malignant tumours found  {found[malignant].mean():7.2%}")
    print(f"benign tumours spared    {1 - found[~malignant].mean():7.2%}")
    print(f"held-out cross-entropy   {mean.held_out[-1]:7.4f} nats")
    with picture(args.output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2)
        draw_curves(left, mean)
        draw_patients(right, logits, malignant)
    print(f"picture                   {args.output}")


if __name__ == "__main__":
    main()
