"""Five classic mistakes around a cross-entropy, each trained beside the right version.

    pip install -e ".[examples]"    # in a checkout of jxent
    python examples/classic_mistakes.py

None of the five raises an error and all of them learn something, which is why they are
classics. Within a minute it trains ten small models on real digits, tumours and text,
prints what each reported while it trained and what it is worth on held-out data, and
draws classic_mistakes.png.

    losses in nats                       as reported         floor   held-out truth
                                         mistake   right            mistake   right
    A softmax layer before the loss       1.4906  0.0393   1.4612    0.1527  0.1194
    A sigmoid layer before the loss       0.5728  0.0466   0.5514    0.1093  0.1114
    A mixture's probabilities as logits   1.5751  0.1029   1.4612    0.2966  0.1972
    A mean of micro-batches' means        2.2180  2.3103             2.3758  2.3417
    Padding counted                       0.7738  2.3103             2.4583  2.3417
    picture  classic_mistakes.png

A loss on logits takes the softmax itself. Given probabilities, it cannot fall below
what the logits 1, 0, …, 0 cost: ln(e + K − 1) − 1 with K classes, its floor. The first
three mistakes learn all the same, later or less, while what they report looks hopeless;
other seeds leave some classes unlearnt. The last two report less than the right
version, and are worth less.
"""

import argparse
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.axes import Axes
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import BLUE, GREY, MIST, ORANGE, PEACH, picture


class Data(NamedTuple):
    x: Array | np.ndarray
    y: Array | np.ndarray


class Mistake(NamedTuple):
    """A loss function gone wrong, and all it takes to see that."""

    name: str
    wrong: Callable[[Any, Data], Array]  # of parameters and a batch, as `right`
    right: Callable[[Any, Data], Array]
    truth: Callable[[Any, Data], Array]  # the loss that the model is worth
    parameters: Any
    training: Data
    held_out: Data
    batch_size: int
    learning_rate: float  # Adam's, at the start
    floor: float | None = None  # which the wrong loss cannot fall below, in nats
    view: tuple[float, float | None] = (0, None)  # of the picture, in nats


# The models and the real data ---------------------------------------------------------


def halves(x: np.ndarray, y: np.ndarray) -> tuple[Data, Data]:
    """To learn from, and held out; the same ones for every seed."""
    seen_x, unseen_x, seen, unseen = train_test_split(
        x, y, test_size=0.5, stratify=y, random_state=0
    )
    return Data(seen_x, seen), Data(unseen_x, unseen)


def network(rng: np.random.Generator, *widths: int) -> list[Array]:
    """Kernels of dense layers."""
    shapes = pairwise(widths)
    kernels = [rng.normal(0, shape[0] ** -0.5, shape) for shape in shapes]
    return [jnp.asarray(kernel, jnp.float32) for kernel in kernels]


def logits_of(kernels: list[Array], x: Array) -> Array:
    for kernel in kernels[:-1]:
        x = jax.nn.relu(x @ kernel)
    return x @ kernels[-1]


# 1, 2 and 3: probabilities where the loss takes logits --------------------------------


def softmax_twice(rng: np.random.Generator, digits: tuple[Data, Data]) -> Mistake:
    """The model ends in a softmax, and the loss takes another."""

    def right(kernels: list[Array], batch: Data) -> Array:
        logits = logits_of(kernels, batch.x)
        return jxent.softmax_cross_entropy(logits, batch.y, reduction="mean")

    def wrong(kernels: list[Array], batch: Data) -> Array:
        probs = jax.nn.softmax(logits_of(kernels, batch.x))
        return jxent.softmax_cross_entropy(probs, batch.y, reduction="mean")

    floor = math.log(math.e + 10 - 1) - 1
    kernels = network(rng, 64, 32, 10)
    return Mistake(
        "A softmax layer before the loss",
        wrong,
        right,
        right,
        kernels,
        *digits,
        64,
        2e-2,
        floor,
    )


def sigmoid_twice(rng: np.random.Generator, tumours: tuple[Data, Data]) -> Mistake:
    """The same with yes and no: a no can be as good as 0, which costs ln 2."""

    def right(kernels: list[Array], batch: Data) -> Array:
        logits = logits_of(kernels, batch.x)[:, 0]
        return jxent.sigmoid_binary_cross_entropy(logits, batch.y, reduction="mean")

    def wrong(kernels: list[Array], batch: Data) -> Array:
        probs = jax.nn.sigmoid(logits_of(kernels, batch.x)[:, 0])
        return jxent.sigmoid_binary_cross_entropy(probs, batch.y, reduction="mean")

    yes = float(tumours[0].y.mean())
    floor = yes * math.log(1 + 1 / math.e) + (1 - yes) * math.log(2)
    kernels = network(rng, 30, 16, 1)
    return Mistake(
        "A sigmoid layer before the loss",
        wrong,
        right,
        right,
        kernels,
        *tumours,
        64,
        3e-3,
        floor,
    )


def probabilities_as_logits(
    rng: np.random.Generator, digits: tuple[Data, Data]
) -> Mistake:
    """A mean of two softmaxes has probabilities only; there is no layer to drop."""

    def mixture(experts: list[list[Array]], x: Array) -> Array:
        return sum(jax.nn.softmax(logits_of(one, x)) for one in experts) / 2

    def right(experts: list[list[Array]], batch: Data) -> Array:
        probs = mixture(experts, batch.x)
        return jxent.categorical_cross_entropy(probs, batch.y, reduction="mean")

    def wrong(experts: list[list[Array]], batch: Data) -> Array:
        probs = mixture(experts, batch.x)
        return jxent.softmax_cross_entropy(probs, batch.y, reduction="mean")

    floor = math.log(math.e + 10 - 1) - 1
    experts = [network(rng, 64, 32, 10) for _ in range(2)]
    return Mistake(
        "A mixture's probabilities as logits",
        wrong,
        right,
        right,
        experts,
        *digits,
        64,
        2e-2,
        floor,
    )


# 4 and 5: what a mean is over ---------------------------------------------------------

PAD, END, LENGTH = 0, 27, 20  # the letters are 1 to 26


def words() -> tuple[Data, Data]:
    """The words of Python's help topics, as they follow each other, padded.

    y has the character after each of x. Every eighth topic is held out.
    """

    def padded(documents: list[str]) -> Data:
        text = re.findall("[a-z]+", " ".join(documents).lower())
        table = np.full((len(text), LENGTH + 1), PAD, np.int32)
        for row, word in zip(table, text, strict=True):
            ids = [END, *(ord(letter) - 96 for letter in word[: LENGTH - 1]), END]
            row[: len(ids)] = ids
        return Data(table[:, :-1], table[:, 1:])

    documents = [text for _, text in sorted(topics.items())]
    held_out = documents[::8]
    del documents[::8]
    return padded(documents), padded(held_out)


def mean_of_real(table: Array, batch: Data) -> Array:
    """Over all but padding. The model: the logits of what follows each character."""
    return jxent.softmax_cross_entropy(
        table[batch.x], batch.y, ignore_index=PAD, reduction="mean"
    )


def mean_of_means(table: Array, text: tuple[Data, Data]) -> Mistake:
    """Accumulated over micro-batches of which some have more characters than others."""

    def micro_batches(batch: Data) -> list[Data]:
        """Four, of words of about the same length, as a bucketing loader gives."""
        order = jnp.argsort(jnp.sum(batch.y != PAD, axis=1))
        return [Data(batch.x[rows], batch.y[rows]) for rows in jnp.split(order, 4)]

    def wrong(table: Array, batch: Data) -> Array:
        return sum(mean_of_real(table, micro) for micro in micro_batches(batch)) / 4

    def right(table: Array, batch: Data) -> Array:
        characters = jxent.total_weight(batch.y, ignore_index=PAD)
        return sum(
            jxent.softmax_cross_entropy(
                table[micro.x],
                micro.y,
                ignore_index=PAD,
                reduction="mean",
                normalizer=characters,
            )
            for micro in micro_batches(batch)
        )

    return Mistake(
        "A mean of micro-batches' means",
        wrong,
        right,
        mean_of_real,
        table,
        *text,
        256,
        5e-2,
        view=(2.1, 2.7),
    )


def padding_counted(table: Array, text: tuple[Data, Data]) -> Mistake:
    """After padding comes padding: nothing is easier to foretell."""

    def wrong(table: Array, batch: Data) -> Array:
        return jxent.softmax_cross_entropy(table[batch.x], batch.y, reduction="mean")

    return Mistake(
        "Padding counted", wrong, mean_of_real, mean_of_real, table, *text, 256, 5e-2
    )


def mistakes(seed: int) -> list[Mistake]:
    rng = np.random.default_rng(seed)
    x, y = load_digits(return_X_y=True)
    digits = halves((x / 16).astype(np.float32), y.astype(np.int32))
    x, benign = load_breast_cancer(return_X_y=True)
    tumours = halves(scale(x).astype(np.float32), benign == 0)
    text, table = words(), jnp.zeros((END + 1, END + 1))
    return [
        softmax_twice(rng, digits),
        sigmoid_twice(rng, tumours),
        probabilities_as_logits(rng, digits),
        mean_of_means(table, text),
        padding_counted(table, text),
    ]


# Training -----------------------------------------------------------------------------


class Run(NamedTuple):
    """Mean losses in nats: the training's own, every step, and the truth, held out."""

    reported: list[float]
    steps: list[int]  # after which the held-out data was looked at
    held_out: list[float]


def train(
    mistake: Mistake,
    loss_of: Callable[[Any, Data], Array],
    args: argparse.Namespace,
    bar: Callable[[float], None],
) -> Run:
    """From the same parameters, over the same batches, by any loss."""
    tx = optax.adam(optax.cosine_decay_schedule(mistake.learning_rate, args.steps))
    parameters, state = mistake.parameters, tx.init(mistake.parameters)
    truth = jax.jit(mistake.truth)

    @jax.jit
    def step(parameters: Any, state: Any, batch: Data) -> tuple[Any, Any, Array]:
        value, gradients = jax.value_and_grad(loss_of)(parameters, batch)
        updates, state = tx.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, value

    rng = np.random.default_rng(args.seed)
    run = Run([], [0], [float(truth(parameters, mistake.held_out))])
    for count in range(1, args.steps + 1):
        rows = rng.choice(len(mistake.training.y), mistake.batch_size, replace=False)
        batch = Data(mistake.training.x[rows], mistake.training.y[rows])
        parameters, state, value = step(parameters, state, batch)
        run.reported.append(float(value))
        bar(run.reported[-1])
        if count % max(1, args.steps // 20) == 0:
            run.steps.append(count)
            run.held_out.append(float(truth(parameters, mistake.held_out)))
    return run


def recent(reported: list[float]) -> float:
    """The mean of the last tenth of the steps."""
    return float(np.mean(reported[-max(1, len(reported) // 10) :]))


# Picture ------------------------------------------------------------------------------


def smooth(values: list[float], rate: float = 0.1) -> list[float]:
    """The running mean that a progress bar shows."""
    running = [values[0]]
    for value in values[1:]:
        running.append((1 - rate) * running[-1] + rate * value)
    return running


def draw_mistake(axes: Axes, mistake: Mistake, wrong: Run, right: Run) -> None:
    """What each version reported, and what it was worth."""
    for run, colour, name in ((wrong, ORANGE, "mistake"), (right, BLUE, "right")):
        steps = np.arange(1, len(run.reported) + 1)
        style = {"color": colour, "lw": 2}
        axes.plot(steps, smooth(run.reported), **style, label=f"{name}, as reported")
        label = f"{name}, its truth on held-out data"
        axes.plot(run.steps, run.held_out, **style, ls="--", label=label)
    axes.set(
        title=mistake.name,
        xlabel="steps",
        ylabel="mean loss (nats)",
        xlim=(0, len(wrong.reported)),
        ylim=mistake.view,
    )
    if mistake.floor is not None:
        floor, end = mistake.floor, len(wrong.reported)
        axes.axhline(floor, color=GREY, lw=1.4, ls=":", label="floor of the mistake")
        style = {"ha": "right", "va": "top", "textcoords": "offset points"}
        axes.annotate(f"floor {floor:.3f}", (end, floor), (0, -5), color=GREY, **style)


def draw_floors(axes: Axes) -> None:
    """How little a second softmax leaves to learn, by the number of classes."""
    classes = np.geomspace(2, 1000, 100)
    guess, floor = np.log(classes), np.log(np.e + classes - 1) - 1
    axes.plot(classes, guess, color=GREY, lw=1.4, ls="--")
    axes.plot(classes, floor, color=GREY, lw=1.4, ls=":")
    axes.fill_between(classes, floor, guess, color=PEACH, alpha=0.5, lw=0)
    axes.fill_between(classes, 0, floor, color=MIST, lw=0)
    tilted = {"ha": "center", "va": "center", "rotation": 41}
    axes.text(70, 4.75, "guessing, ln K", **tilted)
    axes.text(70, 3.78, "left to learn", **tilted)
    axes.text(900, 1.0, "out of reach, below ln(e + K − 1) − 1", ha="right")
    axes.set(
        title="What a second softmax leaves to learn",
        xlabel="classes K",
        ylabel="loss (nats)",
        xscale="log",
        xlim=(2, 1000),
        ylim=(0, 7),
    )
    axes.xaxis.set_major_formatter("{x:g}")


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train five classic mistakes, each beside the right version.")
    add = parser.add_argument
    add("--steps", type=positive, default=300, help="of each training")
    add_shared(
        parser,
        output="classic_mistakes.png",
        seed="of parameters and batches",
        smoke="twenty steps only",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.steps = 20
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    table = mistakes(args.seed)
    with progress(2 * len(table) * args.steps, args) as bar:
        runs = [
            (train(one, one.wrong, args, bar), train(one, one.right, args, bar))
            for one in table
        ]
    print(f"{'losses in nats':36} as reported         floor   held-out truth")
    print(f"{'':36} mistake   right            mistake   right")
    for one, (wrong, right) in zip(table, runs, strict=True):
        floor = "" if one.floor is None else f"{one.floor:.4f}"
        print(
            f"{one.name:36} {recent(wrong.reported):7.4f} {recent(right.reported):7.4f}"
            f"   {floor:6}   {wrong.held_out[-1]:7.4f} {right.held_out[-1]:7.4f}"
        )
    with picture(args.output, 16, 10) as figure:
        *panels, last = figure.subplots(2, 3).flat
        for axes, one, (wrong, right) in zip(panels, table, runs, strict=True):
            draw_mistake(axes, one, wrong, right)
        draw_floors(last)
        for axes in (*panels, last):
            axes.set_title(axes.get_title(loc="left"), pad=10)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
