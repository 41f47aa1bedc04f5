"""What losses send between devices: on paper, and in the compiled program.

    python -m benchmarks.communication

Prints the bytes that a device sends per token of its own in a training step, with a
mesh of data × model devices, rows split over data and classes over model. A reduction
of B bytes over g devices sends 2 (g − 1)/g · B from each, a gather of B bytes
(g − 1)/g · B: what a ring does, and no algorithm less. The same count is then taken of
the program that XLA compiles for 8 devices of the host. And so for a batch of pairs,
whose columns are gathered, or travel in a ring.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import (
    AxisType,
    NamedSharding,
    PartitionSpec as P,
)

import jxent


class Step(NamedTuple):
    """One training step: sizes of the whole problem."""

    tokens: int
    features: int
    classes: int
    data: int  # devices that split the rows
    model: int  # devices that split the classes
    width: int = 2  # bytes of a number of hidden and kernel


def of_paper(step: Step) -> dict[str, float]:
    """Bytes that one device sends in a step, by what it sends."""
    tokens, classes = step.tokens // step.data, step.classes // step.model
    over_data, over_model = _ring(step.data), _ring(step.model)
    return {
        # the row maxima, then Σ exp(z − max) and the label's logit, in float32
        "statistics": over_model * 3 * 4 * tokens,
        "hidden gradient": over_model * step.width * tokens * step.features,
        "kernel gradient": over_data * step.width * classes * step.features,
        "mean": over_data * 2 * 4,
    }


def of_gathered_logits(step: Step) -> float:
    """Bytes that one device sends to give the others its part of the logits."""
    rows = step.tokens // step.data
    return (step.model - 1) * rows * (step.classes // step.model) * step.width


class Pairs(NamedTuple):
    """One training step of CLIP's loss: sizes of the whole batch."""

    batch: int
    features: int
    devices: int
    width: int = 4  # bytes of a number of the vectors


def of_paper_of_pairs(step: Pairs, implementation: str) -> dict[str, float]:
    """Bytes that one device sends in a step, by what it sends."""
    to_all, to_others = (
        factor * step.batch for factor in (_ring(step.devices), _ring(step.devices) / 2)
    )
    mean = _ring(step.devices) * 2 * 4
    if implementation == "gathered":
        return {
            "vectors": to_others * step.features * step.width,
            "gradients": to_others * step.features * step.width,
            # a column's maximum, Σ exp(z − max) and own logit, reduced; then the
            # derivatives in the latter two
            "statistics": to_all * (3 + 2) * 4,
            "mean": mean,
        }
    return {
        "vectors": 2 * to_others * step.features * step.width,
        "gradients": to_others * step.features * 4,
        # the same as they travel, and for the gradients the maximum again
        "statistics": to_others * (3 + 3) * 4,
        "mean": mean,
    }


def _ring(devices: int) -> float:
    return 2 * (devices - 1) / devices


class Moved(NamedTuple):
    """One operation between devices."""

    operation: str
    shapes: tuple[tuple[int, ...], ...]
    width: int  # bytes of a number
    devices: int  # in a group
    loops: tuple[int, ...]  # of each loop around it: how often it runs, 1 if unknown

    @property
    def in_loop(self) -> bool:
        return bool(self.loops)

    @property
    def numbers(self) -> int:
        return sum(map(math.prod, self.shapes))

    @property
    def sent(self) -> float:
        size = self.numbers * self.width * math.prod(self.loops)
        if self.operation == "collective-permute":
            return size
        if self.operation == "all-reduce":
            return _ring(self.devices) * size
        if self.operation == "reduce-scatter":  # its result is a device's share
            size *= self.devices
        return _ring(self.devices) / 2 * size


_OPERATION = re.compile(
    r"= (?P<shapes>.*?) (?P<operation>all-reduce|all-gather|all-to-all|reduce-scatter|"
    r"collective-permute|collective-broadcast|ragged-all-to-all)(?P<start>-start)?\("
)
_SHAPE = re.compile(r"[a-z]+(\d+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_TIMES = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLS = re.compile(r"(\w+)=(?:%?([\w.\-]+)|\{(%[^}]*)\})")


def moved(program: str) -> list[Moved]:
    """The operations between devices of a compiled program, as its text has them."""
    computation, found = "", []
    loops: dict[str, tuple[int, ...]] = {}  # around each computation
    called_by: dict[str, tuple[str, tuple[int, ...]]] = {}
    for line in program.splitlines():
        if started := _COMPUTATION.match(line):
            computation = started[1]
            continue
        for key, one, several in _CALLS.findall(line):
            times = _TIMES.search(line)
            loop = (int(times[1]) if times else 1,) if key == "body" else ()
            for name in re.findall(r"[\w.\-]+", one + several):
                called_by[name] = (computation, loop)
        if here := _OPERATION.search(line):
            types = _SHAPE.findall(here["shapes"])
            shapes = tuple(
                tuple(map(int, filter(None, s.split(",")))) for _, s in types
            )
            if here["start"] and here["operation"] == "collective-permute":
                shapes = shapes[1:2]  # its operand, its result, and what is no array
            elif here["start"] and here["operation"] != "all-reduce":
                shapes = shapes[len(shapes) // 2 :]  # operands stand before results
            width = int(types[0][0]) // 8
            found.append((here["operation"], shapes, width, _group(line), computation))

    def around(name: str) -> tuple[int, ...]:
        if name not in loops:
            caller, loop = called_by.get(name, ("", ()))
            loops[name] = around(caller) + loop if caller else loop
        return loops[name]

    return [Moved(*rest, around(name)) for *rest, name in found]


def _group(line: str) -> int:
    """The devices that meet in an operation."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return pairs[1].count("{")
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(tiled[1])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line)
    assert mesh is not None, line
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
    return math.prod(int(sizes[n]) for n in re.findall(r"'(\w+)'", mesh[2]))


SPLIT_KERNEL = P(None, "model")


def compiled(
    step: Step,
    implementation: str,
    devices: Any = None,
    *,
    forward: bool = False,
    kernel_spec: P = SPLIT_KERNEL,
) -> list[Moved]:
    """What a step sends, by its program for `devices`, or for those that are there."""
    grid = (step.data, step.model)
    kinds = (AxisType.Auto,) * 2
    mesh = jax.make_mesh(grid, ("data", "model"), axis_types=kinds, devices=devices)
    dtype = {2: jnp.bfloat16, 4: jnp.float32}[step.width]

    def array(dtype: Any, spec: P, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    hidden = array(dtype, P("data"), step.tokens, step.features)
    kernel = array(dtype, kernel_spec, step.features, step.classes)
    labels = array(jnp.int32, P("data"), step.tokens)

    def loss(hidden: Any, kernel: Any, labels: Any) -> Any:
        return jxent.softmax_cross_entropy(
            jxent.LinearLogits(hidden, kernel, implementation=implementation),
            labels,
            ignore_index=-100,
            reduction="mean",
            class_axis_name="model",
            batch_axis_name="data",
        )

    f = loss if forward else jax.value_and_grad(loss, (0, 1))
    split = NamedSharding(mesh, P()), (hidden.sharding, kernel.sharding)
    with jax.set_mesh(mesh):
        lowered = jax.jit(f, out_shardings=split[0] if forward else split).lower(
            hidden, kernel, labels
        )
        return moved(lowered.compile().as_text() or "")


def compiled_pairs(
    step: Pairs, implementation: str, devices: Any = None
) -> list[Moved]:
    """What a step of pairs sends, by its program."""
    grid, kinds = (step.devices,), (AxisType.Auto,)
    mesh = jax.make_mesh(grid, ("data",), axis_types=kinds, devices=devices)
    split = NamedSharding(mesh, P("data"))
    dtype = {2: jnp.bfloat16, 4: jnp.float32}[step.width]
    shape = (step.batch, step.features)
    x = jax.ShapeDtypeStruct(shape, dtype, sharding=split)

    def loss(x: Any, y: Any) -> Any:
        return jxent.contrastive_cross_entropy(
            x,
            y,
            reduction="mean",
            implementation=implementation,
            batch_axis_name="data",
        )

    f = jax.value_and_grad(loss, (0, 1))
    with jax.set_mesh(mesh):
        out = NamedSharding(mesh, P()), (split, split)
        lowered = jax.jit(f, out_shardings=out).lower(x, x)
        return moved(lowered.compile().as_text() or "")


TOKENS, FEATURES = 8192, 4096  # tokens of each part of the rows
CLASSES = (32_768, 131_072, 262_144, 1_048_576)
MESHES = ((1, 8), (8, 8), (32, 16), (256, 16))


def table() -> str:
    """Kilobytes that a device sends per token of its own, as Markdown."""
    meshes = [f"{d} × {m} = {d * m:,}" for d, m in MESHES]
    lines = [f"| classes | {' | '.join(meshes)} |", "|--:" * (1 + len(MESHES)) + "|"]
    for classes in CLASSES:
        cells = [f"{classes:,}"]
        for data, model in MESHES:
            step = Step(TOKENS * data, FEATURES, classes, data, model)
            sent = of_paper(step)
            whole = sum(sent.values())
            gathered = whole - sent["statistics"] + of_gathered_logits(step)
            kilobytes = [x / TOKENS / 1000 for x in (whole, gathered)]
            cells.append("{:,.0f} / {:,.0f}".format(*kilobytes))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    print(f"Each device holds {TOKENS:,} tokens of {FEATURES:,} bfloat16 features.")
    print("kB sent per token: classes split / logits gathered\n")
    print(table())
    step = Step(1024, 64, 4096, data=2, model=4, width=4)
    measured = sum(x.sent for x in compiled(step, "streamed"))
    print(f"\nOf {step}: on paper {sum(of_paper(step).values()):,.0f} bytes")
    print(f"in the program for {jax.device_count()} devices {measured:,.0f} bytes")
    pairs = Pairs(batch=4096, features=256, devices=8)
    for way in ("gathered", "ring"):
        paper = sum(of_paper_of_pairs(pairs, way).values())
        measured = sum(x.sent for x in compiled_pairs(pairs, way))
        print(f"\nOf {pairs}, {way}: on paper {paper:,.0f} bytes")
        print(f"in the program for {jax.device_count()} devices {measured:,.0f} bytes")


if __name__ == "__main__":
    main()
