"""The language model on many devices: rows split over "data", tokens over "model".

    pip install -e ".[all-examples]"    # in a checkout of jxent
    python examples/sharded_language_model.py

trains the model of language_model.py for a few steps twice, on one device and on a mesh
of all, and shows that the losses are the same. With no accelerators it makes 8 devices
of the host's processor. The table of 131,072 tokens, embedding and head in one, is
split over "model": no device has all of it, nor ever any logits of the others' tokens.
All that it takes is where arrays lie, and two names in the call of the loss. It draws
sharded_language_model.png: the losses, and the memory of a device.

    no accelerators: 8 devices made of the processor
    loss (nats)    one device    mesh of 2 × 4    difference
      step      1      6.703764         6.703765         5e-07
      step     10      6.617210         6.617211         1e-06
      step     20      6.440698         6.440700         2e-06
      step     30      6.572610         6.572609        -1e-06
      step     40      6.597945         6.597945         5e-07
      step     50      6.051997         6.051996        -1e-06
      held out         6.828653         6.828653         0e+00
    memory of a device (MiB)
      state                  97               25
      temporary              69               32
    picture  sharded_language_model.png

Python 3.13's topics gave these figures; those of other versions differ a little.

On a host with TPUs or GPUs the same command takes all of its devices. On several hosts
start it on each with --distributed. A TPU pod, Slurm and Open MPI tell JAX of the other
hosts; elsewhere say it: --coordinator 10.0.0.1:1234 --processes 2 --process 0 on the
first, --process 1 on the second.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec as P,
)
from matplotlib.axes import Axes

import jxent
from command_line import add_shared, new_parser, positive, progress
from language_model import IGNORED, UNSEEN, LanguageModel, load_data, load_tokenizer
from pictures import ABOVE, BLUE, ORANGE, SKY, picture


# Devices ------------------------------------------------------------------------------


def start(args: argparse.Namespace) -> None:
    """The other hosts, and what a processor is to be: before JAX looks for devices."""
    if args.distributed:
        jax.distributed.initialize(args.coordinator, args.processes, args.process)
    jax.config.update("jax_num_cpu_devices", 8 // (args.processes or 1))
    if jax.default_backend() == "cpu" and jax.process_index() == 0:
        print(f"no accelerators: {jax.device_count()} devices made of the processor")


def mesh_of(devices: list[jax.Device], model: int) -> Mesh:
    """Devices as data × model."""
    shape, kinds = (len(devices) // model, model), (AxisType.Auto,) * 2
    return jax.make_mesh(shape, ("data", "model"), axis_types=kinds, devices=devices)


# Training -----------------------------------------------------------------------------


def loss_of(model: LanguageModel, tokens: Array) -> Array:
    """The mean cross-entropy of each next token, in nats, over all devices."""
    return jxent.softmax_cross_entropy(
        model(tokens),
        jxent.next_token_labels(tokens, ignore_index=IGNORED),
        ignore_index=IGNORED,
        reduction="mean",
        class_axis_name="model",
        batch_axis_name="data",
    )


class Run(NamedTuple):
    """What one mesh gave: losses in nats, and MiB of one device."""

    losses: list[float]
    held_out: float
    state: float  # parameters and Adam's moments
    temporary: float  # in a step


def split(mesh: Mesh, tree: Any, spec: Callable[[Any], P]) -> Any:
    """Arrays on the devices, each in the parts that its spec tells."""
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, spec(x))), tree)


def train(
    mesh: Mesh,
    log_counts: np.ndarray,
    batches: np.ndarray,
    held_out: np.ndarray,
    args: argparse.Namespace,
) -> Run:
    """A model of its own, from the same seed, trained on the devices of the mesh."""
    model = LanguageModel(log_counts, args.blocks, nnx.Rngs(args.seed))
    optimizer = nnx.Optimizer(model, optax.adam(args.learning_rate), wrt=nnx.Param)
    form, state = nnx.split((model, optimizer))

    def of_state(x: Array) -> P:  # the table and its two moments
        return P("model") if x.shape[:1] == log_counts.shape else P()

    state = split(mesh, state, of_state)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, tokens: Array) -> tuple[Any, Array]:
        model, optimizer = nnx.merge(form, state)
        value, gradients = nnx.value_and_grad(loss_of)(model, tokens)
        optimizer.update(model, gradients)
        return nnx.state((model, optimizer)), value

    @jax.jit
    def evaluate(state: Any, tokens: Array) -> Array:
        model, _ = nnx.merge(form, state)
        return loss_of(model, tokens)

    rows = lambda x: P("data")
    losses = []
    with jax.set_mesh(mesh), progress(len(batches), args) as bar:
        tokens = split(mesh, batches[0], rows)
        compiled = step.lower(state, tokens).compile()
        for batch in batches:
            state, value = compiled(state, split(mesh, batch, rows))
            losses.append(float(value))
            bar(losses[-1])
        unseen = float(evaluate(state, split(mesh, held_out, rows)))
    memory = compiled.memory_analysis()
    mebibytes = [
        x / 2**20 for x in (memory.argument_size_in_bytes, memory.temp_size_in_bytes)
    ]
    return Run(losses, unseen, *mebibytes)


# Picture ------------------------------------------------------------------------------


def draw_losses(axes: Axes, one: Run, all_of_them: Run, name: str) -> None:
    """The losses of each step, one run upon the other."""
    steps = np.arange(1, len(one.losses) + 1)
    axes.plot(steps, one.losses, color=SKY, lw=5, label="one device")
    style = {"color": ORANGE, "lw": 0, "marker": "o", "ms": 5}
    axes.plot(steps, all_of_them.losses, **style, label=name)
    axes.set(
        title="The same losses",
        xlabel="step",
        ylabel="mean cross-entropy (nats per token)",
    )
    axes.legend(**ABOVE)


def draw_memory(axes: Axes, one: Run, all_of_them: Run, name: str) -> None:
    """What a device holds, and what a step takes beside it."""
    runs, names = (one, all_of_them), ("one device", name)
    state, temporary = [r.state for r in runs], [r.temporary for r in runs]
    bars = [
        axes.bar(names, state, 0.5, color=BLUE, label="parameters and optimizer"),
        axes.bar(
            names, temporary, 0.5, bottom=state, color=SKY, label="temporary in a step"
        ),
    ]
    for bar, color in zip(bars, ("white", "black"), strict=True):
        axes.bar_label(bar, fmt="{:,.0f}", label_type="center", color=color)
    axes.set(title="Memory of each device", ylabel="memory (MiB)")
    axes.legend(**ABOVE)


def draw(output: Path, one: Run, all_of_them: Run, name: str) -> None:
    """The two panels, side by side."""
    with picture(output, 13, 5.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
        draw_losses(left, one, all_of_them, name)
        draw_memory(right, one, all_of_them, name)


# Command line -------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser("Train a small language model on a mesh of devices.")
    add = parser.add_argument
    add("--model", type=positive, default=4, help="devices that the vocabulary is on")
    add("--steps", type=positive, default=50, help="of training, in each of two runs")
    add("--batch-size", type=positive, default=8, help="windows of 64 tokens per step")
    add("--blocks", type=positive, default=1, help="of attention and dense layers")
    add("--learning-rate", type=float, default=3e-3, help="Adam's")
    add("--distributed", action="store_true", help="on several hosts")
    add("--coordinator", help="address and port of the first host")
    add("--processes", type=positive, help="how many hosts")
    add("--process", type=int, help="which of them this is, from 0")
    add_shared(
        parser,
        output="sharded_language_model.png",
        seed="of parameters and order",
        smoke="three steps only",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    start(args)
    devices = jax.devices()
    if len(devices) % args.model:
        raise SystemExit(
            f"expected --model to divide the {len(devices)} devices, got {args.model}"
        )
    tokenizer = load_tokenizer()
    text = load_data(tokenizer)
    training, held_out = map(np.asarray, text)
    counts = np.bincount(training.ravel(), minlength=tokenizer.n_words)
    steps = 3 if args.smoke else args.steps
    held_out = held_out[: 16 if args.smoke else len(held_out) // 16 * 16]
    rng = np.random.default_rng(args.seed)
    chosen = rng.choice(len(training), steps * args.batch_size)
    batches = training[chosen].reshape(steps, args.batch_size, -1)

    everything = np.log(counts + UNSEEN), batches, held_out, args
    one = train(mesh_of(jax.local_devices()[:1], 1), *everything)
    mesh = mesh_of(devices, args.model)
    all_of_them = train(mesh, *everything)
    if jax.process_index():
        return
    name = f"mesh of {mesh.shape['data']} × {mesh.shape['model']}"
    print(f"loss (nats)    one device  {name:>15}    difference")
    for i, (a, b) in enumerate(zip(one.losses, all_of_them.losses, strict=True), 1):
        if i in (1, steps) or i % (steps // 5 or 1) == 0:
            print(f"  step {i:6}  {a:12.6f}  {b:15.6f}  {b - a:12.0e}")
    a, b = one.held_out, all_of_them.held_out
    print(f"  held out     {a:12.6f}  {b:15.6f}  {b - a:12.0e}")
    print("memory of a device (MiB)")
    print(f"  state        {one.state:12,.0f}  {all_of_them.state:15,.0f}")
    print(f"  temporary    {one.temporary:12,.0f}  {all_of_them.temporary:15,.0f}")
    draw(args.output, one, all_of_them, name)
    print(f"picture  {args.output}")


if __name__ == "__main__":
    main()
