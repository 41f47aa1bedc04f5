r"""A preference, taught to a small language model by direct preference optimization.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/preference.py

trains the model of language_model.py on Python's help topics for a while, then teaches
it a rule that code can check: stay on one line for 12 tokens. The model continues each
prompt twice. Where one continuation keeps the rule and the other breaks it, they are a
pair: chosen and rejected. DPO needs only the log-probabilities of their tokens, so the
logits of 131,072 classes are never all in memory. Within two minutes on two cores the
script trains, measures the policy on prompts from topics that no training has seen, and
draws preference.png: how often the rule is kept, and how far the policy moves from the
reference, which is the model before DPO.

    held-out prompts                     before    after
      continuations on one line           27.3%    75.3%
      pairs ranked right                  50.0%    80.2%
      reward margin (nats)                 0.00     0.28
      KL to the reference, k1 (nats)       0.00     2.54
      KL to the reference, k3 (nats)       0.00     2.33
    temporary memory of a step of 2,048 tokens
      fused head                     21 MiB
      materialized logits         1,041 MiB
    before   ' and seguido, will territor not name\n  module " combinations'
    after    '      들어오1enter-custom which then. aPEfor statement'
    picture  preference.png

A pair is ranked right if the chosen continuation has the larger reward; a tie counts
half. Both estimators of the KL are sums over the tokens that the policy samples: with
d = log p_reference − log p_policy of a token, k1 = −d and k3 = eᵈ − d − 1.

Python 3.11's topics gave these figures; those of other versions differ a little.
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
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

import jxent
from command_line import add_shared, new_parser, positive, progress
from language_model import (
    CONTEXT,
    IGNORED,
    UNSEEN,
    Head,
    LanguageModel,
    Memory,
    load_data,
    load_tokenizer,
    train_step,
)
from pictures import ABOVE, BLUE, ORANGE, PEACH, SKY, picture


PROMPT = 32  # tokens of real text
ROOM = 12  # tokens that the model continues it with


# The loss -----------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Two continuations of each prompt: [:, 0] is chosen, [:, 1] is rejected."""

    tokens: Array  # (pairs, 2, CONTEXT), integers
    completion: Array  # (pairs, 2, CONTEXT), whether the model wrote the token
    reference: Array  # (pairs, 2), log-probabilities before the training


def log_prob_of(
    model: LanguageModel, tokens: Array, completion: Array, implementation: Head = None
) -> Array:
    """The log-probability of each next token that the model wrote, 0 for the others."""
    return jxent.softmax_log_prob(
        model(tokens).replace(implementation=implementation),
        jxent.next_token_labels(tokens, where=completion, ignore_index=IGNORED),
        ignore_index=IGNORED,
    )


def dpo_loss(
    model: LanguageModel, pairs: Pairs, beta: float, implementation: Head = None
) -> tuple[Array, Array]:
    """The mean of −log σ(βΔ), and the reward margins βΔ, (pairs,)."""
    log_prob = log_prob_of(model, pairs.tokens, pairs.completion, implementation)
    chosen, rejected = (log_prob.sum(axis=-1) - pairs.reference).T
    margin = beta * (chosen - rejected)
    return jxent.sigmoid_binary_cross_entropy(margin, 1.0, reduction="mean"), margin


@nnx.jit(static_argnames="implementation")
def dpo_step(
    policy: LanguageModel,
    optimizer: nnx.Optimizer,
    pairs: Pairs,
    beta: float,
    implementation: Head = None,
) -> Array:
    """One step down the gradient of the DPO loss, which it returns."""
    gradient = nnx.value_and_grad(dpo_loss, has_aux=True)
    (value, _), gradients = gradient(policy, pairs, beta, implementation)
    optimizer.update(policy, gradients)
    return value


log_probs = nnx.jit(log_prob_of)
loss_and_margins = nnx.jit(dpo_loss)


# Continuations and the rule -----------------------------------------------------------


def prompts_of(windows: Array) -> Array:
    """Cut real text into prompts of PROMPT tokens, padded with zeros to CONTEXT."""
    return jnp.pad(windows.reshape(-1, PROMPT), ((0, 0), (0, CONTEXT - PROMPT)))


def find_line_breaks(tokenizer: Tekkenizer) -> Array:
    """Whether the text of each token has a line break, (vocabulary,)."""
    ids = range(tokenizer.n_words)
    return jnp.array(["\n" in tokenizer.decode([token]) for token in ids])


def draw_tokens(table: Array, rows: tuple[Array, Array]) -> Array:
    """Draw a token for each hidden state, where the cumulative p reaches u."""
    hidden, u = rows
    p = jax.nn.softmax(hidden @ table.T)
    below = jnp.cumsum(p, axis=-1)
    return jnp.sum(below < u[:, None] * below[:, -1:], axis=-1)


class Written(NamedTuple):
    """Prompts with the model's continuations."""

    tokens: Array  # (..., CONTEXT), integers
    completion: Array  # (..., CONTEXT), whether the model wrote the token
    kept: Array  # (...,), whether the continuation keeps the rule


@nnx.jit
def sample(model: LanguageModel, prompts: Array, breaks: Array, key: Array) -> Written:
    """Continue each prompt token by token, with the logits of 16 prompts at a time."""

    def write(at: int, tokens: Array) -> Array:
        u = jax.random.uniform(jax.random.fold_in(key, at), prompts.shape[:1])
        logits = model(tokens)[:, at - 1]
        drawn = jxent.map_over_tiles(
            draw_tokens, logits.kernel, (logits.hidden, u), tile=16
        )
        return tokens.at[:, at].set(drawn)

    tokens = jax.lax.fori_loop(PROMPT, PROMPT + ROOM, write, prompts)
    at = jnp.arange(CONTEXT)
    completion = (at >= PROMPT) & (at < PROMPT + ROOM)
    kept = ~jnp.any(breaks[tokens] & completion, axis=-1)  # the rule
    return Written(tokens, jnp.broadcast_to(completion, tokens.shape), kept)


def make_pairs(
    reference: LanguageModel, prompts: Array, breaks: Array, key: Array
) -> Pairs:
    """Continue each prompt twice; the continuation that keeps the rule is chosen.

    Prompts of which both continuations keep the rule, or both break it, are left out.
    """
    written = sample(reference, jnp.repeat(prompts, 2, axis=0), breaks, key)
    log_prob = log_probs(reference, written.tokens, written.completion).sum(axis=-1)
    first, second = np.asarray(written.kept).reshape(-1, 2).T
    at = 2 * np.flatnonzero(first != second)
    chosen = np.where(first[at // 2], at, at + 1)
    rows = np.stack([chosen, 2 * at + 1 - chosen], axis=1)
    return Pairs(written.tokens[rows], written.completion[rows], log_prob[rows])


# Training -----------------------------------------------------------------------------


def pretrain(
    log_counts: np.ndarray, windows: Array, args: argparse.Namespace
) -> LanguageModel:
    """The model of language_model.py, after some steps of 8 windows."""
    model = LanguageModel(log_counts, 1, nnx.Rngs(args.seed))
    steps = args.pretraining
    schedule = optax.warmup_cosine_decay_schedule(0, 5e-3, steps // 20, steps)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)
    order = np.random.default_rng(args.seed).permutation(len(windows))
    with progress(steps, args) as bar:
        for step in range(steps):
            rows = np.take(order, range(8 * step, 8 * step + 8), mode="wrap")
            bar(float(train_step(model, optimizer, windows[rows])))
    return model


class Measured(NamedTuple):
    """What held-out prompts show after some steps."""

    step: int
    kept: float  # share of continuations that keep the rule
    right: float  # share of pairs whose chosen continuation has the larger reward
    margin: float  # mean reward margin of the pairs, in nats
    k1: float  # KL to the reference by two estimators, in nats per continuation
    k3: float
    written: list[list[int]]  # the tokens of the continuations


def train(
    reference: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    prompts: Array,
    breaks: Array,
    args: argparse.Namespace,
) -> list[Measured]:
    """Train a copy of the reference on pairs; measure it on the held-out ones."""
    policy = nnx.clone(reference)
    optimizer = nnx.Optimizer(policy, optax.adam(args.learning_rate), wrt=nnx.Param)

    def measure(step: int) -> Measured:
        written = sample(policy, prompts, breaks, jax.random.key(args.seed))
        now = log_probs(policy, written.tokens, written.completion)
        d = log_probs(reference, written.tokens, written.completion) - now
        _, margin = loss_and_margins(policy, held_out, args.beta)
        return Measured(
            step,
            float(written.kept.mean()),
            float(jnp.heaviside(margin.round(4), 0.5).mean()),  # a tie is half right
            float(margin.mean()),
            k1=float(-d.sum(axis=-1).mean()),
            k3=float((jnp.expm1(d) - d).sum(axis=-1).mean()),
            written=written.tokens[:, PROMPT : PROMPT + ROOM].tolist(),
        )

    curve = [measure(0)]
    rng = np.random.default_rng(args.seed)
    with progress(args.steps, args) as bar:
        for step in range(1, args.steps + 1):
            rows = rng.integers(len(pairs.tokens), size=args.batch_size)
            batch = Pairs(*(part[rows] for part in pairs))
            bar(float(dpo_step(policy, optimizer, batch, args.beta)))
            if step % max(1, args.steps // 4) == 0 or step == args.steps:
                curve.append(measure(step))
    return curve


def memory_of(model: LanguageModel, args: argparse.Namespace) -> Memory:
    """What the compiler reports for a step. Compiled, not run."""
    optimizer = nnx.Optimizer(model, optax.adam(args.learning_rate), wrt=nnx.Param)
    shape = args.batch_size, 2, CONTEXT
    tokens = jnp.zeros(shape, jnp.int32)
    pairs = Pairs(tokens, jnp.zeros(shape, bool), jnp.zeros(shape[:2]))

    def mebibytes(implementation: Head) -> float:
        step = dpo_step.lower(model, optimizer, pairs, args.beta, implementation)
        return step.compile().memory_analysis().temp_size_in_bytes / 2**20

    return Memory(tokens.size, mebibytes(None), mebibytes("materialized"))


# Picture ------------------------------------------------------------------------------


def draw(output: Path, curve: list[Measured]) -> None:
    """Left, how often the rule is kept; right, the distance from the reference."""
    steps = [m.step for m in curve]

    def line(axes: Axes, values: list[float], color: str, label: str) -> None:
        style = {"lw": 2, "marker": "o", "clip_on": False}
        axes.plot(steps, values, **style, color=color, label=label)

    with picture(output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2)
        kept = [100 * m.kept for m in curve]
        line(left, kept, BLUE, "continuations on one line")
        line(left, [100 * m.right for m in curve], SKY, "pairs ranked right")
        line(right, [m.k3 for m in curve], PEACH, "KL, by k3")
        line(right, [m.k1 for m in curve], ORANGE, "KL, by k1")
        line(right, [m.margin for m in curve], BLUE, "reward margin")
        left.set_title(f"On one line: {kept[0]:.0f}% before, {kept[-1]:.0f}% after")
        right.set_title(
            f"KL to the reference: {curve[-1].k3:.1f} nats after {steps[-1]} steps"
        )
        left.set(ylabel="share on held-out prompts (%)", ylim=(0, 100))
        lowest = min(min(m.k1, m.k3, m.margin) for m in curve)
        right.set(ylabel="nats per continuation", ylim=(min(0, lowest), None))
        for axes in (left, right):
            axes.set(xlabel="steps of DPO", xlim=(0, steps[-1]), xticks=steps)
            axes.legend(**ABOVE)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Teach a small language model, by DPO, to stay on one line.")
    add = parser.add_argument
    add("--pretraining", type=positive, default=64, help="steps of 8 windows before it")
    add("--prompts", type=positive, default=400, help="of which pairs are made")
    add("--steps", type=positive, default=24, help="of DPO")
    add("--batch-size", type=positive, default=16, help="pairs in a step")
    add("--beta", type=float, default=0.1, help="of the reward")
    add("--learning-rate", type=float, default=1e-3, help="of DPO, Adam's")
    add_shared(
        parser,
        output="preference.png",
        seed="of parameters, order and sampling",
        smoke="two steps",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.pretraining, args.prompts, args.steps, args.batch_size = 2, 16, 2, 4
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    tokenizer = load_tokenizer()
    text = load_data(tokenizer)
    breaks = find_line_breaks(tokenizer)
    counts = np.bincount(np.asarray(text.training).ravel(), minlength=tokenizer.n_words)
    reference = pretrain(np.log(counts + UNSEEN), text.training, args)

    key, other = jax.random.split(jax.random.key(args.seed))
    prompts = jax.random.permutation(key, prompts_of(text.training))[: args.prompts]
    held_out = prompts_of(text.held_out)[: args.prompts]
    pairs = make_pairs(reference, prompts, breaks, key)
    held_pairs = make_pairs(reference, held_out, breaks, other)
    curve = train(reference, pairs, held_pairs, held_out, breaks, args)
    memory = memory_of(reference, args)

    before, after = curve[0], curve[-1]
    print(f"held-out prompts {'before':>26} {'after':>8}")
    for name, field, form in (
        ("continuations on one line", "kept", "9.1%"),
        ("pairs ranked right", "right", "9.1%"),
        ("reward margin (nats)", "margin", "z9.2f"),
        ("KL to the reference, k1 (nats)", "k1", "z9.2f"),
        ("KL to the reference, k3 (nats)", "k3", "z9.2f"),
    ):
        values = (getattr(m, field) for m in (before, after))
        print(f"  {name:32}" + "".join(f"{x:{form}}" for x in values))
    print(f"temporary memory of a step of {memory.tokens:,} tokens")
    print(f"  fused head                {memory.fused:7,.0f} MiB")
    print(f"  materialized logits       {memory.materialized:7,.0f} MiB")
    shown = next(
        (i for i, ids in enumerate(before.written) if "\n" in tokenizer.decode(ids)), 0
    )
    print(f"before   {tokenizer.decode(before.written[shown])!r}")
    print(f"after    {tokenizer.decode(after.written[shown])!r}")
    draw(args.output, curve)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
