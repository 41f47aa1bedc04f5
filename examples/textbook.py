"""The textbook's cross-entropy in numbers: worked by hand, beside the library's.

    pip install -e ".[examples]"    # in a checkout of jxent
    python examples/textbook.py

goes from the entropy of a coin to a classifier that learns by the gradient p − y alone,
within a few seconds. Every line gives the number worked out by hand, then jxent's. It
draws textbook.png: the loss, and its slope, against the probability given to the truth.

                                                  by hand     jxent
    entropy, −Σ p ln p
      a fair coin, ln 2                           0.69315   0.69315
      ...
    gradient of the loss in the logits, p − y, and jax.grad's
      class 0                                    -0.34100  -0.34100
      class 1                                     0.24243   0.24243
      class 2                                     0.09857   0.09857
    irises, learnt by that gradient
      farthest from jax.grad         4e-09
      held-out cross-entropy        0.1143 nats
      held-out accuracy             94.67%
    picture  textbook.png
"""

import argparse
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, ORANGE, picture


LOGITS = [2.0, 1.0, 0.1]  # what a network says of three classes; the first is true


def show(what: str, by_hand: float, library: Array | float) -> None:
    """One line: the number worked by hand, and the library's beside it."""
    print(f"  {what:41} {by_hand:9.5f} {float(library):9.5f}")


# 1. Entropy: the surprise to expect ---------------------------------------------------


def entropies() -> None:
    """H(p) = −Σ p ln p, in nats: ln 2 nats are one bit."""
    print("entropy, −Σ p ln p")
    show("a fair coin, ln 2", math.log(2), jxent.entropy([0.5, 0.5]))
    loaded = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    show("a coin that falls on heads 9 times of 10", loaded, jxent.entropy([0.9, 0.1]))
    show("a fair die, ln 6", math.log(6), jxent.entropy([1 / 6] * 6))
    show("a coin with two heads", 0.0, jxent.entropy([1.0, 0.0]))


# 2. Softmax: from any numbers to probabilities ----------------------------------------


def softmax() -> list[float]:
    """p = exp z / Σ exp z"""
    powers = [math.exp(z) for z in LOGITS]
    by_hand = [power / sum(powers) for power in powers]
    classes = jnp.arange(3)
    log_p = jxent.softmax_log_prob(jnp.tile(jnp.array(LOGITS), (3, 1)), classes)
    print(f"softmax of {LOGITS}, exp z / Σ exp z")
    for c in classes:
        show(f"class {c}", by_hand[c], jnp.exp(log_p[c]))
    return by_hand


# 3. Cross-entropy: the surprise of one who believes p where q is true -----------------


def cross_entropies(p: list[float]) -> None:
    """H(q, p) = −Σ q ln p = H(q) + KL(q ‖ p)"""
    q = [0.7, 0.2, 0.1]
    pairs = list(zip(q, p, strict=True))
    entropy = -sum(t * math.log(t) for t in q)
    divergence = sum(t * math.log(t / s) for t, s in pairs)
    cross = -sum(t * math.log(s) for t, s in pairs)
    log_p = jnp.log(jnp.array(p))
    print(f"cross-entropy of that softmax p with the truth q = {q}")
    show("entropy H(q)", entropy, jxent.entropy(q))
    show("divergence KL(q ‖ p)", divergence, jxent.kl_divergence(log_p, jnp.array(q)))
    show("their sum", entropy + divergence, jxent.categorical_cross_entropy(p, q))
    show("−Σ q ln p", cross, jxent.softmax_cross_entropy(LOGITS, q))


# 4. The two losses: one class of many, yes or no --------------------------------------


def losses(p: list[float]) -> None:
    """With one true class all of q is there, and the sum has one term."""
    print("loss, if class 0 is true")
    loss = jxent.softmax_cross_entropy(LOGITS, jnp.array(0))
    show("−ln p₀", -math.log(p[0]), loss)
    show("ln Σ exp z − z₀", math.log(sum(map(math.exp, LOGITS))) - LOGITS[0], loss)
    print("binary loss, −y ln p − (1 − y) ln(1 − p)")
    for y, yes in ((1, 0.8), (0, 0.8)):
        by_hand = -y * math.log(yes) - (1 - y) * math.log(1 - yes)
        loss = jxent.binary_cross_entropy(yes, jnp.array(y))
        show(f"y = {y}, p = {yes}", by_hand, loss)
    z = math.log(0.8 / 0.2)
    loss = jxent.sigmoid_binary_cross_entropy(z, jnp.array(1))
    show("y = 1, from the logit ln(0.8/0.2)", math.log1p(math.exp(-z)), loss)


# 5. The gradient: what was said minus what is true ------------------------------------


def gradients(p: list[float]) -> None:
    """d loss / dz = p − y"""
    slopes = jax.grad(jxent.softmax_cross_entropy)(jnp.array(LOGITS), jnp.array(0))
    print("gradient of the loss in the logits, p − y, and jax.grad's")
    for c, y in enumerate([1, 0, 0]):
        show(f"class {c}", p[c] - y, slopes[c])


# 6. Learning: that gradient is all it takes -------------------------------------------


class Flowers(NamedTuple):
    x: Array  # (flowers, 5), four lengths in standard deviations, and a 1 for the bias
    species: Array  # (flowers,), integers below 3


def load_data() -> tuple[Flowers, Flowers]:
    """Half of the 150 irises to learn from, and the held-out half."""
    x, species = load_iris(return_X_y=True)
    seen_x, unseen_x, seen, unseen = train_test_split(
        x, species, test_size=0.5, stratify=species, random_state=0
    )
    mean, deviation = seen_x.mean(0), seen_x.std(0)

    def flowers(x: np.ndarray, species: np.ndarray) -> Flowers:
        lengths = np.pad((x - mean) / deviation, ((0, 0), (0, 1)), constant_values=1)
        return Flowers(jnp.asarray(lengths, jnp.float32), jnp.asarray(species))

    return flowers(seen_x, seen), flowers(unseen_x, unseen)


@jax.jit
def loss_of(kernel: Array, flowers: Flowers) -> Array:
    """The mean cross-entropy in nats of logits that are linear in the lengths."""
    logits = flowers.x @ kernel
    return jxent.softmax_cross_entropy(logits, flowers.species, reduction="mean")


@jax.jit
def gradient_by_hand(kernel: Array, flowers: Flowers) -> Array:
    """The chain rule on logits = x · kernel: xᵀ (p − y) / flowers."""
    y = jax.nn.one_hot(flowers.species, 3)
    p = jax.nn.softmax(flowers.x @ kernel)
    return flowers.x.T @ (p - y) / len(y)


def learn(seen: Flowers, args: argparse.Namespace) -> Array:
    """The kernel after gradient descent without jax.grad."""
    kernel = 0.1 * jax.random.normal(jax.random.key(args.seed), (5, 3))
    with progress(args.steps, args) as bar:
        for _ in range(args.steps):
            kernel = kernel - args.learning_rate * gradient_by_hand(kernel, seen)
            bar(float(loss_of(kernel, seen)))
    return kernel


def learning(args: argparse.Namespace) -> None:
    seen, unseen = load_data()
    kernel = learn(seen, args)
    apart = gradient_by_hand(kernel, seen) - jax.grad(loss_of)(kernel, seen)
    right = jnp.mean(jnp.argmax(unseen.x @ kernel, axis=-1) == unseen.species)
    print("irises, learnt by that gradient")
    print(f"  farthest from jax.grad   {jnp.abs(apart).max():11.0e}")
    print(f"  held-out cross-entropy   {loss_of(kernel, unseen):11.4f} nats")
    print(f"  held-out accuracy        {right:11.2%}")


# Picture ------------------------------------------------------------------------------


def loss_in_logit(z: Array) -> Array:
    """Of two classes, where the true one's logit is z and the other's 0."""
    return jxent.softmax_cross_entropy(jnp.stack([z, jnp.zeros(())]), jnp.array(0))


def loss_in_probability(p: Array) -> Array:
    """The same as a function of the true class's probability."""
    return jxent.categorical_cross_entropy(jnp.stack([p, 1 - p]), jnp.array(0))


def draw_loss(axes: Axes, p: Array, worked: list[float]) -> None:
    """−ln p, with the three classes of the worked softmax, were each the true one."""
    at = jnp.array(worked)
    axes.plot(p, jax.vmap(loss_in_probability)(p), color=BLUE, lw=2, label="−ln p")
    axes.axhline(math.log(3), color=GREY, lw=1, ls=":", label="guessing among 3, ln 3")
    style = {"color": ORANGE, "marker": "o", "ls": "", "zorder": 3}
    axes.plot(at, -jnp.log(at), **style, label=f"softmax of {LOGITS}")
    for c, x in enumerate(worked):
        axes.annotate(
            f"class {c}: {-math.log(x):.2f} nats",
            (x, -math.log(x)),
            (10, 6),
            textcoords="offset points",
        )
    axes.set(
        title="A truth held impossible costs without bound",
        xlabel="probability given to the truth",
        ylabel="loss (nats)",
        xlim=(0, 1),
        ylim=(0, 5),
    )
    axes.legend(**ABOVE)


def draw_slopes(axes: Axes, p: Array) -> None:
    """Of the same loss, in the probability and in the logit behind it."""
    in_p = jax.vmap(jax.grad(loss_in_probability))(p)
    in_z = jax.vmap(jax.grad(loss_in_logit))(jnp.log(p) - jnp.log1p(-p))
    axes.plot(p, in_p, color=BLUE, lw=2, label="in the probability, −1/p")
    axes.plot(p, in_z, color=ORANGE, lw=2, clip_on=False, label="in the logit, p − 1")
    axes.set(
        title="In the logit the slope is never steeper than 1",
        xlabel="probability given to the truth",
        ylabel="slope of the loss (nats per unit)",
        xlim=(0, 1),
        ylim=(-6, 0),
    )
    axes.legend(**ABOVE)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Work the textbook's cross-entropy out by hand, beside jxent.")
    add = parser.add_argument
    add(
        "--steps", type=positive, default=300, help="of gradient descent, on the irises"
    )
    add("--learning-rate", type=float, default=0.5, help="of gradient descent")
    add_shared(
        parser, output="textbook.png", seed="of the first kernel", smoke="fifty steps"
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.steps = 50
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    print(f"{'':43} {'by hand':>9} {'jxent':>9}")
    entropies()
    p = softmax()
    cross_entropies(p)
    losses(p)
    gradients(p)
    learning(args)
    with picture(args.output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2)
        inside = jnp.linspace(0.005, 0.995, 199)
        draw_loss(left, inside, p)
        draw_slopes(right, inside)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
