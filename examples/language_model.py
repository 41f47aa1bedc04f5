"""A small language model with a real vocabulary, whose logits are never all in memory.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/language_model.py

reads Python's own help topics once, 82,000 tokens out of the 131,072 of Mistral NeMo's
vocabulary (both come with packages: nothing is downloaded), in about three minutes on
two cores. It prints how well it foretells topics that it has not read, beside a guess
by frequency alone; the memory that the fused head saves; and what the model writes. It
draws language_model.png: the loss, and that memory.

    held-out perplexity
      by frequency alone   1,213.6
      before training      1,232.4
      after training         543.1
    temporary memory of a training step
      tokens    fused head    materialized logits
         512       107 MiB                293 MiB
       8,192       257 MiB              4,219 MiB
    writes   The "True" the "class" is" "None" and class,; the are *selfError" is ...
    picture  language_model.png

Python 3.11's topics gave these figures; those of other versions differ a little. The
step of 8,192 tokens is compiled only, not run.
"""

import argparse
from importlib.resources import files
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal, NamedTuple, TypeAlias

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
from pictures import ABOVE, BLUE, GREY, ORANGE, SKY, picture


CONTEXT = 64  # tokens in a window
FEATURES = 64
UNSEEN = 0.03  # what every token's count starts from
IGNORED = -100

Head: TypeAlias = Literal["materialized"] | None  # None: fused


# Data ---------------------------------------------------------------------------------


class Text(NamedTuple):
    """Token ids, in windows (windows, CONTEXT)."""

    training: Array
    held_out: Array  # of other topics


def load_tokenizer() -> Tekkenizer:
    """Mistral NeMo's: 131,072 tokens."""
    path = files("mistral_common") / "data" / "tekken_240718.json"
    return Tekkenizer.from_file(str(path))


def load_documents() -> list[str]:
    """Python's help topics, each without the paragraphs that an earlier one has."""
    seen = set()
    documents = []
    for _, text in sorted(topics.items()):
        new = [p for p in dict.fromkeys(text.split("\n\n")) if p not in seen]
        seen.update(new)
        documents.append("\n\n".join(new))
    return documents


def load_data(tokenizer: Tekkenizer) -> Text:
    """Every eighth topic is held out, the same ones for every seed."""

    def windows(documents: list[str]) -> Array:
        ids = [tokenizer.encode(text, bos=True, eos=True) for text in documents]
        stream = np.concatenate(ids).astype(np.int32)
        whole = len(stream) // CONTEXT * CONTEXT
        return jnp.asarray(stream[:whole].reshape(-1, CONTEXT))

    documents = load_documents()
    held_out = documents[::8]
    del documents[::8]
    return Text(windows(documents), windows(held_out))


# Model --------------------------------------------------------------------------------


class Block(nnx.Module):
    """Attention to the tokens so far, then two dense layers at each of them."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.norm1 = nnx.RMSNorm(features, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, features, decode=False, rngs=rngs)
        self.norm2 = nnx.RMSNorm(features, rngs=rngs)
        self.up = nnx.Linear(features, 4 * features, rngs=rngs)
        self.down = nnx.Linear(4 * features, features, rngs=rngs)

    def __call__(self, x: Array, mask: Array) -> Array:
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class LanguageModel(nnx.Module):
    """A decoder whose token embedding is its head, too.

    The embedding's last column is the head's bias, read by a feature that is always 1.
    It starts as the log of every token's frequency, so that the rest has context to
    learn.
    """

    def __init__(
        self,
        log_counts: np.ndarray,
        blocks: int,
        rngs: nnx.Rngs,
        features: int = FEATURES,
    ):
        init = {"embedding_init": nnx.initializers.normal(0.02), "rngs": rngs}
        self.tokens = nnx.Embed(len(log_counts), features, **init)
        table = self.tokens.embedding
        table[...] = table[...].at[:, -1].set(log_counts)
        self.positions = nnx.Embed(CONTEXT, features, **init)
        self.blocks = nnx.List([Block(features, rngs) for _ in range(blocks)])
        self.norm = nnx.RMSNorm(features, rngs=rngs)

    def __call__(self, tokens: Array) -> jxent.LinearLogits:
        """The logits of what follows each token of (windows, CONTEXT), not formed."""
        mask = nnx.make_causal_mask(tokens)
        x = self.tokens(tokens).at[..., -1].set(0)
        x = x + self.positions(jnp.arange(CONTEXT))
        for block in self.blocks:
            x = block(x, mask)
        hidden = self.norm(x).at[..., -1].set(1)
        return jxent.LinearLogits(hidden, self.tokens.embedding[...], vocab_axis=0)


def loss_of(model: LanguageModel, tokens: Array, implementation: Head) -> Array:
    """The mean cross-entropy of each next token, in nats."""
    return jxent.softmax_cross_entropy(
        model(tokens).replace(implementation=implementation),
        jxent.next_token_labels(tokens, ignore_index=IGNORED),
        ignore_index=IGNORED,
        reduction="mean",
    )


@nnx.jit(static_argnames="implementation", donate_argnums=(0, 1))
def train_step(
    model: LanguageModel,
    optimizer: nnx.Optimizer,
    tokens: Array,
    implementation: Head = None,
) -> Array:
    """One step down the gradient of the mean loss, which it returns."""
    value, gradients = nnx.value_and_grad(loss_of)(model, tokens, implementation)
    optimizer.update(model, gradients)
    return value


@nnx.jit
def evaluate(model: LanguageModel, tokens: Array) -> Array:
    """The loss of any number of windows at once: the logits are formed in tiles."""
    return loss_of(model, tokens, None)


# Training -----------------------------------------------------------------------------


class Curves(NamedTuple):
    """Mean cross-entropies in nats."""

    training: list[float]  # of every step's own tokens
    steps: list[int]  # after which the held-out text was read
    held_out: list[float]


def train(
    model: LanguageModel,
    optimizer: nnx.Optimizer,
    text: Text,
    args: argparse.Namespace,
) -> Curves:
    """Train the model in place."""
    steps = steps_of(text, args)
    rng = np.random.default_rng(args.seed)
    orders = [rng.permutation(len(text.training)) for _ in range(args.epochs)]
    rows = np.stack(orders)[:, : steps // args.epochs * args.batch_size]
    batches = text.training[rows.reshape(steps, args.batch_size)]
    curves = Curves([], [0], [float(evaluate(model, text.held_out))])
    with progress(steps, args) as bar:
        for step, tokens in enumerate(batches, 1):
            loss = float(train_step(model, optimizer, tokens))
            curves.training.append(loss)
            bar(loss)
            if step % max(1, steps // 4) == 0 or step == steps:
                curves.steps.append(step)
                curves.held_out.append(float(evaluate(model, text.held_out)))
    return curves


def steps_of(text: Text, args: argparse.Namespace) -> int:
    """How many: whole batches only, the remainder of an epoch waits."""
    return args.epochs * (len(text.training) // args.batch_size)


# Results ------------------------------------------------------------------------------


def unigram_loss(log_counts: np.ndarray, held_out: Array) -> float:
    """The held-out cross-entropy in nats of a guess by frequency alone."""
    log_p = jax.nn.log_softmax(log_counts)
    return -float(log_p[held_out[:, 1:]].mean())


@nnx.jit
def next_logits(model: LanguageModel, tokens: Array, last: Array) -> Array:
    """The logits of what follows one position of one window."""
    return model(tokens[None])[0, last].materialize()


def write(model: LanguageModel, tokenizer: Tekkenizer, prompt: str, seed: int) -> str:
    """The prompt and what the model continues it with, on one line."""
    ids = tokenizer.encode(prompt, bos=True, eos=False)[:CONTEXT]
    key = jax.random.key(seed)
    while len(ids) < CONTEXT:
        window = np.zeros(CONTEXT, np.int32)
        window[: len(ids)] = ids
        logits = next_logits(model, jnp.asarray(window), jnp.asarray(len(ids) - 1))
        at = jax.random.fold_in(key, len(ids))
        ids.append(int(jax.random.categorical(at, logits / 0.6)))
        if ids[-1] == tokenizer.eos_id:
            break
    return " ".join(tokenizer.decode(ids).split())


class Memory(NamedTuple):
    """Temporary MiB of a training step, beside parameters and optimizer state."""

    tokens: int  # in the step
    fused: float
    materialized: float


def memory_of(model: LanguageModel, optimizer: nnx.Optimizer, windows: int) -> Memory:
    """What the compiler reports. Compiled, not run."""
    tokens = jnp.zeros((windows, CONTEXT), jnp.int32)

    def mebibytes(implementation: Head) -> float:
        step = train_step.lower(model, optimizer, tokens, implementation).compile()
        return step.memory_analysis().temp_size_in_bytes / 2**20

    return Memory(tokens.size, mebibytes(None), mebibytes("materialized"))


# Picture ------------------------------------------------------------------------------


def draw_curves(
    axes: Axes, curves: Curves, unigram: float, tokens_per_step: int
) -> None:
    """Loss against tokens read, beside that of frequencies alone."""
    thousands = tokens_per_step / 1000
    read = thousands * np.arange(1, len(curves.training) + 1)
    at = thousands * np.array(curves.steps)
    label = "held out, by frequency alone"
    axes.axhline(unigram, color=GREY, lw=1.4, ls=":", label=label)
    axes.plot(read, curves.training, color=SKY, lw=1.4, label="training, each step")
    style = {"color": ORANGE, "lw": 2, "marker": "o", "clip_on": False}
    axes.plot(at, curves.held_out, **style, label="held out")
    axes.set(
        title=f"Held-out perplexity {np.exp(curves.held_out[-1]):,.0f},"
        f" by frequency alone {np.exp(unigram):,.0f}",
        xlabel="tokens read (thousands)",
        ylabel="mean cross-entropy (nats per token)",
        xlim=(0, at[-1]),
    )
    axes.legend(**ABOVE)


def draw_memory(axes: Axes, table: list[Memory]) -> None:
    """Two bars for each size of a step."""
    place = np.arange(len(table))
    bars = [
        axes.bar(place - 0.2, [m.fused for m in table], 0.36, color=BLUE),
        axes.bar(place + 0.2, [m.materialized for m in table], 0.36, color=SKY),
    ]
    for bar in bars:
        axes.bar_label(bar, fmt="{:,.0f}", padding=2)
    axes.set(
        title="Temporary memory of a training step",
        xlabel="tokens in the step",
        ylabel="temporary memory (MiB)",
        yscale="log",
        ylim=(10, 2 * max(m.materialized for m in table)),
        xlim=(-0.6, len(table) - 0.4),
    )
    axes.set_xticks(place, [f"{m.tokens:,}" for m in table])
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()
    axes.legend(bars, ["fused head", "materialized logits"], **ABOVE)


def draw(
    output: Path,
    curves: Curves,
    unigram: float,
    table: list[Memory],
    tokens_per_step: int,
) -> None:
    """The two panels, side by side."""
    with picture(output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        draw_curves(left, curves, unigram, tokens_per_step)
        draw_memory(right, table)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train a small language model with a vocabulary of 131,072.")
    add = parser.add_argument
    add("--epochs", type=positive, default=1, help="passes over the training text")
    add("--batch-size", type=positive, default=8, help="windows of 64 tokens per step")
    add("--blocks", type=positive, default=1, help="of attention and dense layers")
    add("--learning-rate", type=float, default=5e-3, help="Adam's, at its highest")
    add("--prompt", default="The", help="what the model continues")
    add_shared(
        parser,
        output="language_model.png",
        seed="of parameters, order and writing",
        smoke="four steps only",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    tokenizer = load_tokenizer()
    text = load_data(tokenizer)
    counts = np.bincount(np.asarray(text.training).ravel(), minlength=tokenizer.n_words)
    log_counts = np.log(counts + UNSEEN)
    sizes = [args.batch_size, 16 * args.batch_size]
    if args.smoke:
        text = Text(text.training[: 4 * args.batch_size], text.held_out[:8])
        sizes = sizes[:1]

    model = LanguageModel(log_counts, args.blocks, nnx.Rngs(args.seed))
    steps = steps_of(text, args)
    schedule = optax.warmup_cosine_decay_schedule(
        0, args.learning_rate, warmup_steps=steps // 20, decay_steps=steps
    )
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)
    table = [memory_of(model, optimizer, windows) for windows in sizes]
    curves = train(model, optimizer, text, args)
    unigram = unigram_loss(log_counts, text.held_out)

    print("held-out perplexity")
    print(f"  by frequency alone  {np.exp(unigram):8,.1f}")
    print(f"  before training     {np.exp(curves.held_out[0]):8,.1f}")
    print(f"  after training      {np.exp(curves.held_out[-1]):8,.1f}")
    print("temporary memory of a training step")
    print("  tokens    fused head    materialized logits")
    for m in table:
        print(f"  {m.tokens:6,}  {m.fused:8,.0f} MiB  {m.materialized:17,.0f} MiB")
    print(f"writes   {write(model, tokenizer, args.prompt, args.seed)}")
    draw(args.output, curves, unigram, table, args.batch_size * CONTEXT)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
