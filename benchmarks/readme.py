"""The benchmarks' numbers in README and site, from the stored runs, not by hand.

Between `<!-- benchmarks: NAME -->` and `<!-- end -->` stands what a function makes.
"""

import functools
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import tables
from .case import ARRAYS, MODELS
from .record import Record, Results, load


REPOSITORY = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
GRADIENT = "value and gradient"


@functools.cache
def _results(name: str) -> Results:
    return load(RESULTS / name)


def find(results: Results, suite: str, name: str, **of: Any) -> Record:
    """The one record of a peer's variant, "Optax" or "jxent, streamed"."""
    found = [
        r
        for r in results.records
        if r.suite == suite
        and r.name == name
        and all(getattr(r, k) == v for k, v in of.items())
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} records of {suite}: {name}, {of}")
    return found[0]


def _paragraph(text: str) -> str:
    """In lines as the README has them."""
    return textwrap.fill(unparted(" ".join(text.split())), 88, break_on_hyphens=False)


def unparted(text: str) -> str:
    """With no line's end between a number and its unit."""
    return re.sub(r"(?<=\d) (?=×|[KMG]iB\b|m?s\b|cores\b)", "\N{NO-BREAK SPACE}", text)


def _machine(results: Results) -> str:
    device, versions = results.device, results.versions
    return f"{device['cores']} cores ({device['kind']}, jax {versions['jax']})"


def processor(results: Results) -> str:
    """In words, for a sentence."""
    kind = re.sub(r"\(R\)| Processor", "", results.device["kind"])
    return f"{results.device['cores']} cores of an {kind}"


def _times(r: Record, unit: Record, strong: bool) -> str:
    """As a ratio, and for the unit of the ratios itself in seconds."""
    if r.seconds is None:
        return r.status
    if r == unit:
        return f"1 ({tables.duration(r.seconds)})"
    text = tables.ratio(r.seconds, unit.seconds)
    return f"**{text}**" if strong else text


def _memory(r: Record) -> str:
    return r.status if r.temporary_bytes is None else tables.size(r.temporary_bytes)


def _seconds(r: Record) -> float:
    if r.seconds is None:
        raise LookupError(f"{r.name} was not timed: {r.status}, {r.message}")
    return r.seconds


def _row(label: str, cells: Sequence[Record], units: Sequence[Record]) -> list[str]:
    strong = label.startswith("jxent")
    times = [_times(r, u, strong) for r, u in zip(cells, units, strict=True)]
    memory = tables.shown(cells[-1].temporary_bytes, tables.size)
    return [f"**{label}**" if strong else label, *times, memory]


# Output layers, features × classes.
HEADS = {
    "GPT-2": MODELS["gpt2"],
    "Llama 3": MODELS["llama3"],
    "Gemma 2": MODELS["gemma2"],
    "Qwen": MODELS["qwen"],
    "2¹⁷ classes": (2048, 131072),
}
HEAD = ("", "forward", "value and gradient", "temporary memory, with gradient")


def dense() -> str:
    results = _results("cpu")
    of = {"rows": 2048, "classes": 32768, "dtype": "float32"}
    derivatives = ("forward", GRADIENT)

    def both(name: str, operation: str) -> list[Record]:
        return [
            find(results, "dense", name, operation=operation, derivative=d, **of)
            for d in derivatives
        ]

    plain, every = "logits", "logits, every option"
    units = both("Optax", plain)
    rows = [
        _row("Optax, plain", units, units),
        _row("jxent, plain", both("jxent", plain), units),
        _row("PyTorch, plain", both("PyTorch", plain), units),
        _row("jxent, everything on", both("jxent", every), units),
        _row("Optax, everything on", both("Optax", every), units),
        _row("PyTorch, everything on", both("PyTorch", every), units),
    ]
    about = f"""On {_machine(results)}, float32 logits [2048, 32768], mean loss;
        *everything on* is class weights, ignored labels, smoothing and z-loss.
        `python -m benchmarks --suite dense`:"""
    return _paragraph(about) + "\n\n" + tables.markdown(HEAD, rows)


def compiled() -> str:
    tpu, gpu = _results("tpu-v5e"), _results("h100")
    of = {
        "rows": 8192,
        "classes": 131072,
        "dtype": "bfloat16",
        "derivative": GRADIENT,
    }
    plain, every = "logits", "logits, every option"
    limit = find(tpu, "dense", "jxent", operation=plain, **of).floor_bytes or 0
    rows = [["the limit: read twice, write once", tables.size(limit), "", ""]]
    for label, name, operation in (
        ("**jxent, plain**", "jxent", plain),
        ("**jxent, everything on**", "jxent", every),
        ("Optax behind a float32 cast, plain", "Optax", plain),
        ("Optax behind a float32 cast, everything on", "Optax", every),
    ):
        a, b = (find(x, "dense", name, operation=operation, **of) for x in (tpu, gpu))
        rows.append(
            [
                label,
                tables.shown(a.traffic_bytes, tables.size),
                tables.shown(a.temporary_bytes, tables.size),
                tables.shown(b.temporary_bytes, tables.size),
            ]
        )
    head = ("", "TPU v5e: HBM traffic", "TPU v5e: temporary", "H100: temporary")
    about = """\
Compiled, not run, for bfloat16 logits [8192, 131072] (2 GiB) by the compilers of a TPU
v5e and an H100, value and gradient. `python -m benchmarks compile --suite dense`, which
needs no such device:

"""
    return about + tables.markdown(head, rows)


def linear() -> str:
    results = _results("cpu-head")
    of = {"rows": 2048, "features": 512, "classes": 32768, "dtype": "float32"}

    def both(name: str) -> list[Record]:
        return [
            find(results, "linear", name, operation="head", derivative=d, **of)
            for d in ("forward", GRADIENT)
        ]

    units = both("Optax, materialized")
    torch = results.versions["torch"].partition("+")[0]
    rows = [
        _row(label, both(name), units)
        for label, name in (
            ("Optax, materialized", "Optax, materialized"),
            ("jxent", "jxent"),
            ("jxent, streamed", "jxent, streamed"),
            ("the bare products", "bare products"),
            ("a scan with checkpoint, by hand", "by hand, scan and checkpoint"),
            (
                f"PyTorch {torch}, `linear_cross_entropy` in chunks of 512",
                "PyTorch, linear_cross_entropy in chunks of 512",
            ),
            (f"jax-cce {results.versions['jax-cce']}", "jax-cce"),
        )
    ]
    about = f"""The fused head, float32 [2048, 512] @ [512, 32768], on
        {_machine(results)}, as a multiple of Optax on materialized logits.
        `python -m benchmarks --suite linear --shape 2048x512x32768`:"""
    table = tables.markdown(HEAD, rows)
    return "\n\n".join((_paragraph(about), table, _masked()))


def _masked() -> str:
    """The time of what is left where labels are ignored."""
    results = _results("cpu")
    cases = [r for r in results.records if r.suite == "masked" and r.name == "jxent"]
    one = cases[0]
    ratios = {}
    for r in cases:
        if r.derivative == GRADIENT:
            of = {"ignored": r.ignored, "derivative": GRADIENT}
            optax = find(results, "masked", "Optax, materialized", **of)
            ratios[r.ignored] = f"{_seconds(r) / _seconds(optax):.2f}"
    none, half, most = (ratios[share] for share in (0.0, 0.5, 0.9))
    return _paragraph(
        f"""Tokens that are ignored are skipped: on [{one.rows}, {one.features}] @
        [{one.features}, {one.classes}] value and gradients take {none} of Optax's time
        with no token ignored, {half} with half of them and {most} with nine of ten:
        `python -m benchmarks --suite masked`."""
    )


def compiled_linear() -> str:
    of = {"operation": "head", "dtype": "bfloat16", "derivative": GRADIENT}
    columns = {
        "materialized": "Optax, materialized",
        "a scan with checkpoint, by hand": "by hand, scan and checkpoint",
        "**jxent, tiled**": "jxent, tiled",
        "**jxent, streamed**": "jxent, streamed",
    }
    rows = []
    for label, (features, classes) in HEADS.items():
        sizes = {"rows": 8192, "features": features, "classes": classes}
        row = [f"{label}, {features:,} × {classes:,}"]
        for name in columns.values():
            both = (
                find(_results(t), "linear", name, **of, **sizes)
                for t in ("tpu-v5e", "h100")
            )
            row.append(" · ".join(_memory(r) for r in both))
        rows.append(row)
    about = """\
Compiled, not run: temporary memory of value and gradients of 8,192 tokens in bfloat16,
on a TPU v5e · on an H100. The scan by hand sums its gradients in bfloat16, jxent in
float32. `python -m benchmarks compile --suite linear`:

"""
    return about + tables.markdown(("output layer", *columns), rows)


def heads() -> str:
    """The layouts' memory on a TPU v5e, for three models' output layers."""
    of = {"operation": "head", "dtype": "bfloat16", "derivative": GRADIENT}
    names = ("Optax, materialized", "jxent, tiled", "jxent, streamed")
    rows = []
    for model in ("GPT-2", "Llama 3", "Gemma 2"):
        features, classes = HEADS[model]
        sizes = {"rows": 8192, "features": features, "classes": classes}
        found = (find(_results("tpu-v5e"), "linear", n, **of, **sizes) for n in names)
        rows.append([model, *map(_memory, found)])
    return tables.markdown(("", "logits", "tiled", "streamed"), rows)


def small() -> str:
    results = _results("cpu")
    of = {"rows": 128, "classes": 10, "derivative": "forward"}

    def time(name: str, operation: str, **rest: Any) -> str:
        found = find(results, "eager", name, operation=operation, **of | rest)
        return tables.duration(_seconds(found))

    step = {"operation": "logits", "derivative": GRADIENT, "protocol": "step"}

    added = _seconds(find(results, "tracing", "jxent", operation="import"))
    return _paragraph(
        f"""A call outside jit on [128, 10] takes {time("jxent", "rows")} where Optax
        takes {time("Optax", "rows")} (integer labels), and
        {time("jxent", "rows, distributions")} where it takes
        {time("Optax", "rows, distributions")} (distributions); a call of a jitted step
        of {ARRAYS} small arrays {time("jxent", **step)}, and {time("Optax", **step)}
        with Optax's loss in it: `python -m benchmarks --suite eager`. `import jxent`
        adds {tables.duration(added)} to `import jax`:
        `python -m benchmarks --suite tracing`."""
    )


def by_hand() -> str:
    results = _results("cpu-by-hand")
    about = f"""On {_machine(results)}; jxent's time as a multiple of that of the lines
        by hand, of a gradient with its value, and the temporary memory of both.
        `{results.command}`:"""
    text = tables.by_hand(results.records)
    smaller = text.replace("\n\n| ", "\n\n{.calls}\n| ")  # for the width of the page
    return _paragraph(about) + "\n\n" + smaller


def three() -> str:
    """The README's reasons, each with a link to its evidence."""
    head = {"rows": 2048, "classes": 32768, "dtype": "float32", "derivative": GRADIENT}
    every, plain = "logits, every option", "logits"
    cpu, of_head, tpu = map(_results, ("cpu", "cpu-head", "tpu-v5e"))
    unit = _seconds(find(cpu, "dense", "Optax", operation=plain, **head))

    def times(name: str, operation: str) -> str:
        found = find(cpu, "dense", name, operation=operation, **head)
        return f"{_seconds(found) / unit:.1f}"

    def fused(results: Results, name: str, **of: Any) -> Record:
        return find(results, "linear", name, operation="head", **of)

    features, classes = MODELS["llama3"]
    llama = {"rows": 8192, "features": features, "classes": classes}
    llama |= {"dtype": "bfloat16", "derivative": GRADIENT}
    small = head | {"features": 512}
    theirs = "Optax, materialized"
    slow = _seconds(fused(of_head, theirs, **small))

    def share(name: str) -> str:
        return f"{_seconds(fused(of_head, name, **small)) / slow:.2f}"

    lines = [
        """**Right where losses go wrong.** Padded rows add 0 to loss and gradient, even
        where their *logits* are NaN ([pad inputs with
        zeros](docs/when-it-does-not-work.md#the-loss-is-nan)); a label out of range
        gives NaN; logits around ±10,000 or in bfloat16 give a loss with float32's
        digits: [ten calls in four libraries](docs/benchmarks.md#right-and-wrong).""",
        f"""**Options are nearly free.** Value and gradient of the mean loss of float32
        logits [2048, 32768] take {times("jxent", plain)} × the time of Optax's plain
        loss, and {times("jxent", every)} × with class weights, ignored labels,
        smoothing and z-loss; Optax with the same four takes {times("Optax", every)} ×
        ({processor(cpu)}; [table](docs/benchmarks.md#logits-in-memory)).""",
        f"""**Large vocabularies fit.** In the picture, at 32k classes on
        {processor(of_head)}, jxent takes
        {_memory(fused(of_head, "jxent", **small))} of temporary memory in place of
        {_memory(fused(of_head, theirs, **small))}, and {share("jxent")} × the time of
        Optax; PyTorch's `linear_cross_entropy` in chunks takes
        {share("PyTorch, linear_cross_entropy in chunks of 512")} ×. Compiled for a TPU
        v5e, not run, loss and gradients of 8,192 tokens at Llama 3's output layer need
        {_memory(fused(tpu, "jxent, streamed", **llama))}, and with the logits in memory
        {_memory(fused(tpu, theirs, **llama))}
        ([tables](docs/benchmarks.md#the-fused-head)).""",
        """**Every derivative, on every mesh.** Forward, reverse, second-order and
        per-example derivatives are tested
        [against float64](docs/numerics.md#derivatives-of-every-order). Split over
        devices, rows and classes give the numbers of one device
        [but for rounding](docs/across-devices.md), tested on eight simulated ones.""",
    ]
    return "\n".join(
        textwrap.fill(
            unparted(" ".join(line.split())),
            96,
            initial_indent="- ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
        for line in lines
    )


SECTIONS: dict[str, Callable[[], str]] = {
    "three": three,
    "heads": heads,
    "dense": dense,
    "compiled": compiled,
    "linear": linear,
    "compiled linear": compiled_linear,
    "small": small,
    "by hand": by_hand,
}
_SECTION = re.compile(r"(<!-- benchmarks: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The text with every section made anew."""
    return _SECTION.sub(lambda m: f"{m[1]}\n{SECTIONS[m[2]]()}\n\n{m[3]}", text)


PAGES = ("README.md", "docs/fused-head.md", "docs/benchmarks.md")


def main(*, check: bool) -> int:
    """Writes the pages; with `check` only reports whether that would change them."""
    changed = 0
    for page in PAGES:
        path = REPOSITORY / page
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        if check:
            print(page, "is", "up to date" if new == old else "out of date")
        elif new != old:
            path.write_text(new, encoding="utf-8")
        changed += new != old
    return int(check and changed > 0)
