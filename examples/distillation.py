"""A small language model that learns from a larger one, in three ways.

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/distillation.py

trains the model of language_model.py on Python's help topics: the teacher. Then a
student of a quarter of its width reads the same tokens, and learns

    cross-entropy    from the next token alone,
    KL               from the teacher's whole distribution at each token, by its hidden
                     states and its table of embeddings: the logits of 131,072 classes
                     are never held, neither the student's nor the teacher's,
    top 32           from the teacher's 32 likeliest tokens, found once and stored with
                     their log-probabilities; all others count as one more class.

The last two learn from the next token as well, half and half. Within two minutes on two
cores the script prints what each student makes of topics that it has not read, and the
memory that a step takes, and draws distillation.png.

    held-out perplexity
      by frequency alone                   1,213.6
      teacher, 64 features                 1,049.4
      student, 16 features, cross-entropy  1,184.5
      student, 16 features, KL             1,144.0
      student, 16 features, top 32         1,156.1
    temporary memory of a step with KL, of 512 tokens
      fused heads                              152 MiB
      materialized logits                      779 MiB
    picture  distillation.png

Python 3.11's topics gave these figures; those of other versions differ a little.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import jxent
from command_line import add_shared, new_parser, positive, progress
from language_model import (
    FEATURES,
    IGNORED,
    UNSEEN,
    Head,
    LanguageModel,
    Memory,
    Text,
    draw_memory,
    evaluate,
    load_data,
    load_tokenizer,
    train_step,
    unigram_loss,
)
from pictures import ABOVE, BLUE, GREY, ORANGE, PEACH, picture


TOP = 32  # classes that a stored prediction of the teacher has


# The losses ---------------------------------------------------------------------------


class Batch(NamedTuple):
    """Tokens (windows, CONTEXT), and what the teacher made of them."""

    tokens: Array
    teacher: jxent.LinearLogits  # of shape (windows, CONTEXT, vocabulary)
    ids: Array  # the teacher's likeliest tokens (windows, CONTEXT, TOP)
    log_probs: Array  # and their log-probabilities


def cross_entropy(student: LanguageModel, batch: Batch, implementation: Head) -> Array:
    """From the next token alone."""
    return jxent.softmax_cross_entropy(
        student(batch.tokens).replace(implementation=implementation),
        jxent.next_token_labels(batch.tokens, ignore_index=IGNORED),
        ignore_index=IGNORED,
        reduction="mean",
    )


def full_kl(student: LanguageModel, batch: Batch, implementation: Head) -> Array:
    """KL(teacher ‖ student) over all classes, from two heads of different widths."""
    return jxent.softmax_kl_divergence(
        student(batch.tokens).replace(implementation=implementation),
        batch.teacher,
        reduction="mean",
    )


def top_k(student: LanguageModel, batch: Batch, implementation: Head) -> Array:
    """The same over the teacher's TOP classes, and one that stands for all others."""
    logits = student(batch.tokens).replace(implementation=implementation)
    log_probs = jxent.softmax_log_prob_at(logits, batch.ids)
    divergences = jxent.kl_divergence_with_log_targets(
        with_rest(log_probs), with_rest(batch.log_probs)
    )
    return jnp.mean(divergences)


def with_rest(log_probs: Array) -> Array:
    """With the log of what is left of the probability, as one more class."""
    rest = jnp.log1p(-jnp.sum(jnp.exp(log_probs), -1, keepdims=True))
    return jnp.concatenate([log_probs, rest], -1)


Loss = Callable[[LanguageModel, Batch, Head], Array]
WAYS: dict[str, Loss | None] = {  # beside cross-entropy
    "cross-entropy": None,
    "KL": full_kl,
    f"top {TOP}": top_k,
}


@nnx.jit(static_argnames=("way", "implementation"), donate_argnums=(0, 1))
def distill_step(
    student: LanguageModel,
    optimizer: nnx.Optimizer,
    batch: Batch,
    way: str,
    implementation: Head = None,
) -> Array:
    """One step down the gradient of the loss, which it returns."""

    def loss(student: LanguageModel) -> Array:
        own, other = cross_entropy(student, batch, implementation), WAYS[way]
        if other is None:
            return own
        return (own + other(student, batch, implementation)) / 2

    value, gradients = nnx.value_and_grad(loss)(student)
    optimizer.update(student, gradients)
    return value


# The teacher --------------------------------------------------------------------------


def new_optimizer(model: LanguageModel, steps: int) -> nnx.Optimizer:
    schedule = optax.warmup_cosine_decay_schedule(0, 5e-3, steps // 20, steps)
    return nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)


def train_teacher(
    log_counts: np.ndarray, batches: Array, args: argparse.Namespace
) -> LanguageModel:
    teacher = LanguageModel(log_counts, 1, nnx.Rngs(args.seed))
    optimizer = new_optimizer(teacher, len(batches))
    with progress(len(batches), args) as bar:
        for tokens in batches:
            bar(float(train_step(teacher, optimizer, tokens)))
    return teacher


@nnx.jit
def predict(teacher: LanguageModel, tokens: Array) -> Batch:
    """The logits without their kernel, and the TOP likeliest classes of each token."""
    logits = teacher(tokens)
    log_probs, ids = jxent.softmax_top_k(logits, TOP)
    # A jitted function returns arrays of its own: a copy of the kernel in each batch.
    return Batch(tokens, logits.replace(kernel=None), ids, log_probs)


def predictions(
    teacher: LanguageModel, batches: Array, args: argparse.Namespace
) -> list[Batch]:
    """What the students learn from, made once."""
    made, table = [], teacher.tokens.embedding[...]
    with progress(len(batches), args) as bar:
        for tokens in batches:
            batch = predict(teacher, tokens)
            made.append(batch._replace(teacher=batch.teacher.replace(kernel=table)))
            bar(-float(batch.log_probs[..., 0].mean()))
    return made


# The students -------------------------------------------------------------------------


class Student(NamedTuple):
    """A student's held-out cross-entropies in nats, each after some steps."""

    steps: list[int]
    held_out: list[float]


def train_student(
    way: str,
    log_counts: np.ndarray,
    batches: list[Batch],
    text: Text,
    args: argparse.Namespace,
) -> Student:
    student = LanguageModel(log_counts, 1, nnx.Rngs(args.seed), args.features)
    optimizer = new_optimizer(student, len(batches))
    result = Student([0], [float(evaluate(student, text.held_out))])
    with progress(len(batches), args) as bar:
        for step, batch in enumerate(batches, 1):
            bar(float(distill_step(student, optimizer, batch, way)))
            if step % max(1, len(batches) // 4) == 0 or step == len(batches):
                result.steps.append(step)
                result.held_out.append(float(evaluate(student, text.held_out)))
    return result


def memory_of(log_counts: np.ndarray, batch: Batch, args: argparse.Namespace) -> Memory:
    """Of a step with KL, as the compiler reports it. Compiled, not run."""
    student = LanguageModel(log_counts, 1, nnx.Rngs(args.seed), args.features)
    optimizer = new_optimizer(student, 20)

    def mebibytes(implementation: Head) -> float:
        step = distill_step.lower(student, optimizer, batch, "KL", implementation)
        return step.compile().memory_analysis().temp_size_in_bytes / 2**20

    return Memory(batch.tokens.size, mebibytes(None), mebibytes("materialized"))


# Picture ------------------------------------------------------------------------------


def draw(
    output: Path, students: dict[str, Student], teacher: float, memory: Memory
) -> None:
    """Left, perplexity against steps; right, the memory of a step."""
    colors = dict(zip(students, (BLUE, ORANGE, PEACH), strict=True))
    with picture(output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        left.axhline(np.exp(teacher), color=GREY, lw=1.4, ls=":", label="teacher")
        for way, student in students.items():
            left.plot(
                student.steps,
                np.exp(student.held_out),
                color=colors[way],
                lw=2,
                marker="o",
                clip_on=False,
                label=way,
            )
        best = min(students, key=lambda way: students[way].held_out[-1])
        left.set(
            title=f"Held-out perplexity: {best} leads with "
            f"{np.exp(students[best].held_out[-1]):,.0f}",
            xlabel="steps",
            ylabel="held-out perplexity",
            xlim=(0, max(next(iter(students.values())).steps)),
        )
        left.legend(**ABOVE | {"ncols": 4})
        draw_memory(right, [memory])
        right.set_title("Temporary memory of a step with KL")


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Distil a small language model from a larger one, three ways.")
    add = parser.add_argument
    add(
        "--steps", type=positive, default=40, help="of the teacher, and of each student"
    )
    add("--batch-size", type=positive, default=8, help="windows of 64 tokens per step")
    add("--features", type=positive, default=FEATURES // 4, help="width of a student")
    add_shared(
        parser,
        output="distillation.png",
        seed="of parameters and order",
        smoke="two steps",
    )
    args = parser.parse_args(argv)
    if args.smoke:
        args.steps, args.batch_size = 2, 4
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    tokenizer = load_tokenizer()
    text = load_data(tokenizer)
    if args.smoke:
        text = Text(text.training, text.held_out[:8])
    counts = np.bincount(np.asarray(text.training).ravel(), minlength=tokenizer.n_words)
    log_counts = np.log(counts + UNSEEN)
    order = np.random.default_rng(args.seed).permutation(len(text.training))
    rows = np.resize(order, (args.steps, args.batch_size))
    batches = text.training[rows]

    teacher = train_teacher(log_counts, batches, args)
    of_teacher = float(evaluate(teacher, text.held_out))
    learnt_from = predictions(teacher, batches, args)
    students = {
        way: train_student(way, log_counts, learnt_from, text, args) for way in WAYS
    }

    memory = memory_of(log_counts, learnt_from[0], args)

    by_frequency = unigram_loss(log_counts, text.held_out)
    print("held-out perplexity")
    print(f"  by frequency alone                  {np.exp(by_frequency):8,.1f}")
    print(f"  teacher, {FEATURES} features                {np.exp(of_teacher):8,.1f}")
    for way, student in students.items():
        name = f"student, {args.features} features, {way}"
        print(f"  {name:36}{np.exp(student.held_out[-1]):8,.1f}")
    print(f"temporary memory of a step with KL, of {memory.tokens:,} tokens")
    print(f"  fused heads                         {memory.fused:8,.0f} MiB")
    print(f"  materialized logits                 {memory.materialized:8,.0f} MiB")
    draw(args.output, students, of_teacher, memory)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
