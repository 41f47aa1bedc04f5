"""Several labels at once: what a gene of yeast does, learnt with four losses.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/many_labels.py

learns which of 14 functions each of 2,417 genes has, from 103 measurements of it that
come with river (nothing is downloaded), within a minute on two cores. It trains the
same network with four losses on five random splits, prints F1 scores of the genes held
out, with their standard deviation over the splits, and draws many_labels.png: the score
against the threshold, and the score of every label.

    held-out F1 (%)        micro        macro    macro, best threshold (nats)
      cross-entropy  63.6 ± 0.7  36.7 ± 0.6    46.9 at -1.50
      pos_weight     55.1 ± 0.4  46.2 ± 0.9    48.0 at -0.50
      asymmetric     60.8 ± 0.4  47.0 ± 0.6    47.0 at +0.00
      ZLPR           64.0 ± 0.8  37.2 ± 0.7    47.4 at -1.75
    picture          many_labels.png

Micro is the score of all decisions together, where the frequent labels outweigh the
rare ones, and macro is the mean of the labels' scores. In the first two columns the
answer is yes where a logit is above 0.

The losses differ in where the logits lie, hardly in how they order the genes: at its
best threshold each has a macro F1 of 47 to 48 %. (That threshold is the best one for
the held-out genes themselves, so that the score is an upper bound.) The asymmetric loss
has its best at 0, at the price of some micro F1. With pos_weight rare labels are found
too, but frequent ones are missed. ZLPR is no better here than cross-entropy.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.metadata import distribution
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, ORANGE, PEACH, SKY, picture


MEASUREMENTS, LABELS, HELD_OUT = 103, 14, 917
THRESHOLDS = np.linspace(-3, 3, 25)  # of a logit, in nats


# Data ---------------------------------------------------------------------------------


class Genes(NamedTuple):
    x: Array  # (genes, 103), in standard deviations from the training mean
    labels: Array  # (genes, 14), booleans: the functions that a gene has


def load_data() -> np.ndarray:
    """A row for each gene: its measurements, then 1 or 0 for each label."""
    path = distribution("river").locate_file("river/datasets/yeast.csv.gz")
    return np.loadtxt(str(path), np.float32, delimiter=",", skiprows=1)


def split(table: np.ndarray, seed: int) -> tuple[Genes, Genes]:
    """Training and held-out genes."""
    seen, unseen = train_test_split(table, test_size=HELD_OUT, random_state=seed)
    mean, deviation = (f(seen[:, :MEASUREMENTS], axis=0) for f in (np.mean, np.std))

    def genes(rows: np.ndarray) -> Genes:
        x = (rows[:, :MEASUREMENTS] - mean) / deviation
        return Genes(jnp.asarray(x), jnp.asarray(rows[:, MEASUREMENTS:] == 1))

    return genes(seen), genes(unseen)


# Losses -------------------------------------------------------------------------------


class Batch(NamedTuple):
    genes: Genes
    pos_weight: Array  # (14,), genes without a label for each that has it


Loss = Callable[[Array, Batch], Array]


def binary(logits: Array, batch: Batch) -> Array:
    return jxent.sigmoid_binary_cross_entropy(
        logits, batch.genes.labels, reduction="mean"
    )


def balanced(logits: Array, batch: Batch) -> Array:
    return jxent.sigmoid_binary_cross_entropy(
        logits, batch.genes.labels, pos_weight=batch.pos_weight, reduction="mean"
    )


def asymmetric(logits: Array, batch: Batch) -> Array:
    return jxent.asymmetric_loss(logits, batch.genes.labels, reduction="mean")


def zlpr(logits: Array, batch: Batch) -> Array:
    return jxent.zlpr_loss(logits, batch.genes.labels, reduction="mean")


class Way(NamedTuple):
    """A loss, and how the picture draws it."""

    loss: Loss
    color: str
    marker: str


LOSSES = {
    "cross-entropy": Way(binary, BLUE, "o"),
    "pos_weight": Way(balanced, SKY, "s"),
    "asymmetric": Way(asymmetric, ORANGE, "D"),
    "ZLPR": Way(zlpr, PEACH, "^"),
}


# Model --------------------------------------------------------------------------------


class Classifier(nnx.Module):
    """Two layers, 103 measurements to a logit for each of 14 labels."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(MEASUREMENTS, 128, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.logits = nnx.Linear(128, LABELS, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.logits(self.dropout(nnx.relu(self.hidden(x))))


@partial(nnx.jit, static_argnames="loss")
def train_step(
    model: Classifier, optimizer: nnx.Optimizer, batch: Batch, loss: Loss
) -> Array:
    """One step down the gradient of the mean loss, which it returns."""

    def loss_of(model: Classifier) -> Array:
        return loss(model(batch.genes.x), batch)

    value, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return value


# Training -----------------------------------------------------------------------------


def train(
    loss: Loss,
    tx: optax.GradientTransformation,
    training: Genes,
    seed: int,
    args: argparse.Namespace,
    bar: Callable[[float], None],
) -> Classifier:
    """A new model, trained."""
    model = Classifier(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rng = np.random.default_rng(seed)
    yes = jnp.sum(training.labels, axis=0)
    pos_weight = (len(training.x) - yes) / yes
    steps = len(training.x) // args.batch_size  # of an epoch; the remainder waits
    for _ in range(args.epochs):
        order = rng.permutation(len(training.x))[: steps * args.batch_size]
        for rows in order.reshape(steps, -1):
            genes = Genes(training.x[rows], training.labels[rows])
            bar(float(train_step(model, optimizer, Batch(genes, pos_weight), loss)))
    return nnx.view(model, deterministic=True)


class Scores(NamedTuple):
    """F1 scores of held-out genes."""

    micro: float  # of all decisions, yes where a logit is above 0
    by_label: np.ndarray  # (14,), the same, of each label
    macro: np.ndarray  # the mean over labels, at each of THRESHOLDS


def mean_of(scores: list[Scores]) -> Scores:
    return Scores(*(np.mean(field, axis=0) for field in zip(*scores, strict=True)))


def shown(scores: list[float]) -> str:
    """In percent: the mean of the splits and their standard deviation."""
    return f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores):.1f}"


def scores_of(logits: np.ndarray, labels: np.ndarray) -> Scores:
    def f1(average: str | None, threshold: float = 0.0) -> np.ndarray:
        return f1_score(labels, logits > threshold, average=average, zero_division=0)

    macro = [f1("macro", threshold) for threshold in THRESHOLDS]
    return Scores(float(f1("micro")), f1(None), np.array(macro))


# Picture ------------------------------------------------------------------------------


def draw_thresholds(axes: Axes, scores: dict[str, Scores]) -> None:
    """The macro F1 of every loss at every threshold, and a mark at 0."""
    axes.axvline(0, color=GREY, lw=1, ls=":")
    middle = len(THRESHOLDS) // 2
    for name, (_, color, marker) in LOSSES.items():
        macro = scores[name].macro
        axes.plot(THRESHOLDS, macro, color=color, lw=2)
        axes.plot(0, macro[middle], marker, color=color, ms=8, label=name)
    axes.set(
        title="Yes above a threshold: held-out macro F1",
        xlabel="threshold of the logit (nats)",
        ylabel="macro F1, mean of the splits",
        xlim=(THRESHOLDS[0], THRESHOLDS[-1]),
        ylim=(0, None),
    )
    axes.legend(**ABOVE | {"ncols": 4, "columnspacing": 1, "handletextpad": 0.1})


def draw_labels(axes: Axes, scores: dict[str, Scores], shares: np.ndarray) -> None:
    """The F1 of each label, yes above 0, against how many genes have it."""
    order = np.argsort(shares)
    for name, (_, color, marker) in LOSSES.items():
        by_label = scores[name].by_label[order]
        style = {"color": color, "marker": marker, "alpha": 0.9}
        axes.plot(100 * shares[order], by_label, lw=1.5, ms=6, **style)
    axes.set(
        title="Yes above 0: held-out F1 of each label",
        xlabel="genes that have the label (%)",
        ylabel="F1, mean of the splits",
        xscale="log",
        ylim=(0, None),
    )
    ticks = [1, 2, 5, 10, 20, 50]
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.minorticks_off()


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train four losses of several labels on the genes of yeast.")
    add = parser.add_argument
    add("--splits", type=positive, default=5, help="of the genes, one training each")
    add("--epochs", type=positive, default=20, help="passes over the training genes")
    add("--batch-size", type=positive, default=100, help="genes per step")
    add("--learning-rate", type=float, default=2e-3, help="AdamW's, at its height")
    add_shared(
        parser,
        output="many_labels.png",
        seed="of the first split, and of parameters and order",
        smoke="one split and three epochs only",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.splits, args.epochs = 1, 3
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    table = load_data()
    seeds = range(args.seed, args.seed + args.splits)
    steps = args.epochs * ((len(table) - HELD_OUT) // args.batch_size)
    schedule = optax.cosine_decay_schedule(args.learning_rate, steps)
    tx = optax.adamw(schedule)  # one object, so that a step compiles once for each loss
    found: dict[str, list[Scores]] = {name: [] for name in LOSSES}
    with progress(steps * len(seeds) * len(LOSSES), args) as bar:
        for seed in seeds:
            training, held_out = split(table, seed)
            for name, way in LOSSES.items():
                model = train(way.loss, tx, training, seed, args, bar)
                logits = np.asarray(model(held_out.x))
                found[name].append(scores_of(logits, np.asarray(held_out.labels)))

    print("held-out F1 (%)        micro        macro    macro, best threshold (nats)")
    scores = {name: mean_of(of_splits) for name, of_splits in found.items()}
    for name, of_splits in found.items():
        micro = [x.micro for x in of_splits]
        macro, curve = [x.by_label.mean() for x in of_splits], scores[name].macro
        best = np.argmax(curve)
        print(
            f"  {name:13}  {shown(micro)}  {shown(macro)}    "
            f"{100 * curve[best]:.1f} at {THRESHOLDS[best]:+.2f}"
        )
    shares = table[:, MEASUREMENTS:].mean(0)
    with picture(args.output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2)
        draw_thresholds(left, scores)
        draw_labels(right, scores, shares)
    print(f"picture          {args.output}")


if __name__ == "__main__":
    main()
