"""A policy gradient on sequences of different lengths, checked against the exact one.

    pip install -e ".[examples]"    # in a checkout of jxent
    python examples/policy_gradient.py

A small network learns, by REINFORCE alone, to write balanced brackets such as (()()):
each sequence that it ends at the right moment is rewarded by its length. There are only
511 sequences, so the expected reward and its gradient can be had exactly, by going
through all of them. Within half a minute the script compares the sampled gradient with
the exact one, learns, and draws policy_gradient.png.

    gradient of the loss, from the exact policy gradient
      with every sequence, weighted      3e-07 of its length
      with 16,384 sampled sequences    4.0°
      with a mean of their means      24.1°
    exact expected reward, 1 at most
      before                            0.0178
      after                             0.9900
      after, by the exact gradient      0.9944
    of 14 full balanced sequences       9 written
    picture  policy_gradient.png

The loss is one mean over the real tokens of all micro-batches. Dividing each sequence
by its own number of tokens first, a common mistake, gives a gradient that does not
approach the exact one, however many sequences are sampled.
"""

import argparse
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

import jxent
from command_line import add_shared, new_parser, positive, progress
from pictures import ABOVE, BLUE, GREY, ORANGE, SKY, picture


OPEN, CLOSE, END = range(3)
LENGTH = 8  # brackets at most; END follows by itself
MICRO = 4  # micro-batches in a batch


# Task ---------------------------------------------------------------------------------


class Sequences(NamedTuple):
    """Any number of them; what follows END is padding."""

    tokens: Array  # (sequences, LENGTH), integers
    chosen: Array  # (sequences, LENGTH), whether the policy chose the token
    reward: Array  # (sequences,)


def judge(tokens: Array) -> Sequences:
    """Length / LENGTH for what is balanced and not empty, 0 for the rest."""
    ended = jnp.cumsum(tokens == END, axis=1)
    real = ended == 0
    step = jnp.where(real, jnp.where(tokens == OPEN, 1, -1), 0)
    depth = jnp.cumsum(step, axis=1)
    balanced = (depth[:, -1] == 0) & jnp.all(depth >= 0, axis=1)
    reward = jnp.where(balanced, jnp.sum(real, axis=1) / LENGTH, 0)
    return Sequences(tokens, ended - (tokens == END) == 0, reward)


def every_sequence() -> Sequences:
    """All that can be written, each once: 2⁰ + 2¹ + … + 2⁸."""
    rows = [
        (*brackets, *[END] * (LENGTH - length))
        for length in range(LENGTH + 1)
        for brackets in product((OPEN, CLOSE), repeat=length)
    ]
    return judge(jnp.array(rows))


# Policy -------------------------------------------------------------------------------


class Policy(nnx.Module):
    """What to write next, from all that is written: two dense layers to 3 logits."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(LENGTH * 3, 64, rngs=rngs)
        self.logits = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """(sequences, LENGTH, 3): before each token, from the ones that precede it."""
        before = jnp.tri(LENGTH, k=-1)[:, :, None]
        written = jax.nn.one_hot(tokens, 3)[:, None] * before
        x = written.reshape(len(tokens), LENGTH, LENGTH * 3)
        return self.logits(nnx.tanh(self.hidden(x)))


@nnx.jit(static_argnames="sequences")
def sample(policy: Policy, key: Array, sequences: int) -> Sequences:
    """Written token by token; after END comes END."""

    def write(at: int, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, going = so_far
        logits = policy(tokens)[:, at]
        token = jax.random.categorical(jax.random.fold_in(key, at), logits)
        token = jnp.where(going, token, END)
        return tokens.at[:, at].set(token), going & (token != END)

    nothing = jnp.full((sequences, LENGTH), END), jnp.ones(sequences, bool)
    tokens, _ = jax.lax.fori_loop(0, LENGTH, write, nothing)
    return judge(tokens)


# The gradient, sampled and exact ------------------------------------------------------


def loss_of(
    policy: Policy,
    batch: Sequences,
    baseline: Array,
    entropy_weight: float,
    normalizer: Array,
    weights: Array | None = None,
) -> Array:
    """−Σ (advantage · log π + β H) / normalizer over the tokens that were chosen."""
    logits = policy(batch.tokens)
    log_prob = jxent.softmax_log_prob(logits, batch.tokens, where=batch.chosen)
    entropy = jxent.softmax_entropy(logits, where=batch.chosen)
    advantage = (batch.reward - baseline)[:, None]
    return -jxent.reduce(
        advantage * log_prob + entropy_weight * entropy,
        where=batch.chosen,
        weights=weights,
        normalizer=normalizer,
    )


gradient = nnx.jit(nnx.grad(loss_of))


class Exact(NamedTuple):
    """What going through every sequence tells of a policy."""

    reward: Array  # expected
    tokens: Array  # expected number of chosen ones in a sequence
    probability: Array  # (sequences,)
    gradient: Any  # of −(reward + β · entropy of the tokens) / tokens


@nnx.jit
def exact(policy: Policy, sequences: Sequences, entropy_weight: float) -> Exact:
    """By jax.grad of the expectation itself: no log-derivative, no sample, no jxent."""

    def expectation(policy: Policy) -> tuple[Array, tuple[Array, Array, Array]]:
        log_p = jax.nn.log_softmax(policy(sequences.tokens))
        chosen = jnp.take_along_axis(log_p, sequences.tokens[..., None], axis=2)
        each = jnp.sum(jnp.where(sequences.chosen, chosen[..., 0], 0), axis=1)
        probability = jnp.exp(each)
        reward = probability @ sequences.reward
        # The bonus, as it is used, takes the states that are met as given.
        entropy = jnp.where(sequences.chosen, -jnp.sum(jnp.exp(log_p) * log_p, 2), 0)
        bonus = jax.lax.stop_gradient(probability) @ jnp.sum(entropy, axis=1)
        tokens = jax.lax.stop_gradient(probability) @ jnp.sum(sequences.chosen, axis=1)
        value = -(reward + entropy_weight * bonus) / tokens
        return value, (reward, tokens, probability)

    gradients, told = nnx.grad(expectation, has_aux=True)(policy)
    return Exact(*told, gradients)


def flat(gradients: Any) -> Array:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradients)])


def angle(a: Array, b: Array) -> float:
    """Between two gradients, in degrees."""
    cosine = a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)
    return float(jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1))))


def weighted_error(
    policy: Policy, everything: Sequences, entropy_weight: float
) -> float:
    """How far the loss's gradient is from the exact one, with no sampling between them.

    Each sequence once, weighted by its probability, in place of many sampled ones.
    """
    truth = exact(policy, everything, entropy_weight)
    weights = truth.probability[:, None]
    args = everything, truth.reward, entropy_weight, truth.tokens, weights
    apart = flat(gradient(policy, *args)) - flat(truth.gradient)
    return float(jnp.linalg.norm(apart) / jnp.linalg.norm(flat(truth.gradient)))


class Sums(NamedTuple):
    """Gradients of a micro-batch. What both are divided by, an angle does not see."""

    over_tokens: Array
    of_means: Array  # each sequence divided by its own number of tokens


@nnx.jit
def sampled_sums(
    policy: Policy, key: Array, baseline: Array, entropy_weight: float
) -> Sums:
    batch = sample(policy, key, 256)
    given = batch, baseline, entropy_weight, jnp.ones(())
    own = 1 / jnp.sum(batch.chosen, axis=1, keepdims=True)
    return Sums(flat(gradient(policy, *given)), flat(gradient(policy, *given, own)))


class Angles(NamedTuple):
    """Degrees from the exact gradient, the means of several runs."""

    sequences: list[float]  # how many were sampled
    global_mean: list[float]
    mean_of_means: list[float]


def sampled_angles(
    policy: Policy,
    everything: Sequences,
    runs: int,
    chunks: int,
    args: argparse.Namespace,
) -> Angles:
    """Of the gradients summed over ever more micro-batches of 256 sequences."""
    truth = exact(policy, everything, args.entropy_weight)
    target = flat(truth.gradient)

    def one_run(key: Array) -> Angles:
        total = Sums(0, 0)
        angles = Angles([], [], [])
        for chunk in range(1, chunks + 1):
            at = jax.random.fold_in(key, chunk)
            more = sampled_sums(policy, at, truth.reward, args.entropy_weight)
            total = jax.tree.map(jnp.add, total, more)
            if chunk & (chunk - 1) == 0:  # a power of two
                angles.sequences.append(256 * chunk)
                angles.global_mean.append(angle(total.over_tokens, target))
                angles.mean_of_means.append(angle(total.of_means, target))
        return angles

    keys = jax.random.split(jax.random.key(args.seed + 1), runs)
    return Angles(*np.mean([one_run(key) for key in keys], axis=0).tolist())


# Training -----------------------------------------------------------------------------


@nnx.jit
def train_step(
    policy: Policy, optimizer: nnx.Optimizer, batch: Sequences, entropy_weight: float
) -> Array:
    """One step down the gradient, accumulated over micro-batches; returns the loss."""
    tokens = jxent.total_weight(batch.tokens, where=batch.chosen)
    baseline = jnp.mean(batch.reward)
    total, accumulated = jnp.zeros(()), None
    for rows in jnp.split(jnp.arange(len(batch.tokens)), MICRO):
        micro = Sequences(*(part[rows] for part in batch))
        loss, gradients = nnx.value_and_grad(loss_of)(
            policy, micro, baseline, entropy_weight, tokens
        )
        total = total + loss
        accumulated = (
            gradients
            if accumulated is None
            else jax.tree.map(jnp.add, accumulated, gradients)
        )
    optimizer.update(policy, accumulated)
    return total


class Curve(NamedTuple):
    """The exact expected reward while the policy learns."""

    steps: list[int]
    reward: list[float]


def train(policy: Policy, everything: Sequences, args: argparse.Namespace) -> Curve:
    """Train the policy in place."""
    optimizer = nnx.Optimizer(policy, optax.adam(args.learning_rate), wrt=nnx.Param)
    key = jax.random.key(args.seed)
    curve = Curve([], [])

    def record(step: int) -> None:
        curve.steps.append(step)
        told = exact(policy, everything, args.entropy_weight)
        curve.reward.append(float(told.reward))

    record(0)
    with progress(args.steps, args) as bar:
        for step in range(1, args.steps + 1):
            size = MICRO * args.batch_size
            batch = sample(policy, jax.random.fold_in(key, step), size)
            bar(float(train_step(policy, optimizer, batch, args.entropy_weight)))
            if step % max(1, args.steps // 50) == 0:
                record(step)
    return curve


def follow_exact(
    policy: Policy, everything: Sequences, args: argparse.Namespace
) -> Curve:
    """The same steps down the exact gradient."""
    update = nnx.jit(lambda optimizer, *given: optimizer.update(*given))
    optimizer = nnx.Optimizer(policy, optax.adam(args.learning_rate), wrt=nnx.Param)
    curve = Curve([], [])
    for step in range(args.steps + 1):
        told = exact(policy, everything, args.entropy_weight)
        curve.steps.append(step)
        curve.reward.append(float(told.reward))
        update(optimizer, policy, told.gradient)
    return curve


# Picture ------------------------------------------------------------------------------


def draw_angles(axes: Axes, angles: Angles) -> None:
    """Against the number of sequences, both logarithmic."""
    n = np.array(angles.sequences)
    fair = angles.global_mean[0] * np.sqrt(n[0] / n)
    axes.plot(n, fair, color=GREY, lw=1, ls=":", label="1/√n")
    style = {"lw": 2, "marker": "o"}
    axes.plot(n, angles.global_mean, **style, color=BLUE, label="global mean")
    label = "mean of every sequence's mean"
    axes.plot(n, angles.mean_of_means, **style, color=ORANGE, label=label)
    axes.set(
        title="One mean over all tokens approaches the exact gradient",
        xlabel="sequences sampled",
        ylabel="angle to the exact policy gradient (degrees)",
        xscale="log",
        yscale="log",
    )
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.legend(**ABOVE)


def draw_reward(axes: Axes, sampled: Curve, ideal: Curve) -> None:
    """The exact expected reward of both policies, up to the most there is."""
    axes.plot(ideal.steps, ideal.reward, color=SKY, lw=4, label="by the exact gradient")
    axes.plot(*sampled, color=BLUE, lw=2, label="by the sampled gradient")
    axes.axhline(1, color=GREY, lw=1, ls=":", label="the most")
    axes.set(
        title=f"Expected reward {sampled.reward[0]:.3f} before,"
        f" {sampled.reward[-1]:.3f} after",
        xlabel="steps",
        ylabel="exact expected reward (share of the most)",
        xlim=(0, sampled.steps[-1]),
        ylim=(0, 1.04),
    )
    axes.legend(**ABOVE)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Learn to write balanced brackets by a policy gradient.")
    add = parser.add_argument
    add("--steps", type=positive, default=150, help="of training")
    add("--batch-size", type=positive, default=64, help="sequences per micro-batch")
    add("--learning-rate", type=float, default=5e-3, help="Adam's")
    add("--entropy-weight", type=float, default=0.05, help="of the bonus on each token")
    add_shared(
        parser,
        output="policy_gradient.png",
        seed="of parameters and sampling",
        smoke="twenty steps",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.steps = 20
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    everything = every_sequence()
    policy = Policy(nnx.Rngs(args.seed))
    error = weighted_error(policy, everything, args.entropy_weight)
    runs, chunks = (1, 16) if args.smoke else (4, 64)
    angles = sampled_angles(policy, everything, runs, chunks, args)
    ideal = follow_exact(Policy(nnx.Rngs(args.seed)), everything, args)
    curve = train(policy, everything, args)

    told = exact(policy, everything, args.entropy_weight)
    full = np.asarray(told.probability)[np.asarray(everything.reward) == 1]
    print("gradient of the loss, from the exact policy gradient")
    print(f"  with every sequence, weighted  {error:9.0e} of its length")
    print(f"  with {256 * chunks:6,} sampled sequences  {angles.global_mean[-1]:5.1f}°")
    print(f"  with a mean of their means     {angles.mean_of_means[-1]:5.1f}°")
    print("exact expected reward, 1 at most")
    print(f"  before                         {curve.reward[0]:9.4f}")
    print(f"  after                          {curve.reward[-1]:9.4f}")
    print(f"  after, by the exact gradient   {ideal.reward[-1]:9.4f}")
    print(f"of {len(full)} full balanced sequences    {np.sum(full > 0.01):4} written")
    with picture(args.output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2)
        draw_angles(left, angles)
        draw_reward(right, curve, ideal)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
