"""What the fused head sends between devices: on paper, and in the compiled program.

    python -m benchmarks.communication

Prints the bytes that a device sends per token of its own in a training step, with a
mesh of data × model devices, rows split over data and classes over model. A reduction
of B bytes over g devices sends 2 (g − 1)/g · B from each, a gather of B bytes
(g − 1)/g · B: what a ring does, and no algorithm less. The same count is then taken of
the program that XLA compiles for 8 devices of the host.
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


def _ring(devices: int) -> float:
    return 2 * (devices - 1) / devices


class Moved(NamedTuple):
    """One operation between devices."""

    operation: str
    shapes: tuple[tuple[int, ...], ...]
    width: int  # bytes of a number
    devices: int  # in a group
    in_loop: bool

    @property
    def numbers(self) -> int:
        return sum(map(math.prod, self.shapes))

    @property
    def sent(self) -> float:
        once = self.numbers * self.width
        if self.operation == "all-reduce":
            return _ring(self.devices) * once
        return _ring(self.devices) / 2 * once


_OPERATION = re.compile(
    r"= (?P<shapes>.*?) (?P<operation>all-reduce|all-gather|all-to-all|reduce-scatter|"
    r"collective-permute|collective-broadcast|ragged-all-to-all)(?P<start>-start)?\("
)
_SHAPE = re.compile(r"[a-z]+(\d+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLS = re.compile(r"(\w+)=(?:%?([\w.\-]+)|\{(%[^}]*)\})")


def moved(program: str) -> list[Moved]:
    """The operations between devices of a compiled program, as its text has them."""
    computation, found = "", []
    calls: dict[str, set[str]] = {}
    looped: list[str] = []
    for line in program.splitlines():
        if started := _COMPUTATION.match(line):
            computation = started[1]
            calls[computation] = set()
            continue
        for key, one, several in _CALLS.findall(line):
            names = re.findall(r"[\w.\-]+", one + several)
            calls.setdefault(computation, set()).update(names)
            if key == "body":
                looped += names
        if here := _OPERATION.search(line):
            types = _SHAPE.findall(here["shapes"])
            shapes = tuple(
                tuple(map(int, filter(None, s.split(",")))) for _, s in types
            )
            if here["start"] and here["operation"] != "all-reduce":
                shapes = shapes[len(shapes) // 2 :]  # operands stand before results
            width = int(types[0][0]) // 8
            found.append((computation, here["operation"], shapes, width, _group(line)))
    in_loop: set[str] = set()
    while looped:
        name = looped.pop()
        if name not in in_loop:
            in_loop.add(name)
            looped += calls.get(name, ())
    return [Moved(*rest, name in in_loop) for name, *rest in found]


def _group(line: str) -> int:
    """The devices that meet in an operation."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
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
        return jxent.linear_softmax_cross_entropy(
            hidden,
            kernel,
            labels,
            ignore_index=-100,
            reduction="mean",
            implementation=implementation,
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


if __name__ == "__main__":
    main()
