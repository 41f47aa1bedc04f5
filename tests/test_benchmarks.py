"""The benchmarks: every suite end to end, what they say of peers, and their reports."""

import json
import math
import operator
import re
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jxent
import jxent.metrics
from benchmarks import (
    __main__ as command_line,
    compiled,
    device_clock,
    measure,
    metrics,
    readme,
    record,
    report,
    run,
    session,
    tables,
    textbook,
)
from benchmarks.case import Case, Shape, shape
from benchmarks.limits import Limits, floor
from benchmarks.operations import OPERATIONS, array, arrays
from benchmarks.peers import PEERS
from benchmarks.suites import SUITES
from benchmarks.targets import TARGETS


pytestmark = pytest.mark.usefixtures("as_users_have_it")
TINY = Shape(16, 8, 24)
SPEED = Limits(1e10, {"float32": 1e11, "bfloat16": 1e11})


def briefly(name):
    """A peer with the first variant of each operation alone."""
    peer = PEERS[name]
    losses = {op: dict(list(f.items())[:1]) for op, f in peer.LOSSES.items()}
    return SimpleNamespace(**(vars(peer) | {"LOSSES": losses}))


# The case of each suite that asks most of it.
HARDEST = {
    "dense": ("logits, every option", "value and gradient"),
    "linear": ("head", "value and gradient"),
    "sharded": ("head, split", "value and gradient"),
    "eager": ("rows", "forward"),
    "ad": ("head", "hessian-vector product"),
    "accuracy": ("head, by blocks", "value and gradient"),
    "masked": ("head, ignored", "value and gradient"),
    "tracing": ("logits", "value and gradient"),
    "post_training": ("head, log-probabilities and entropies", "value and gradient"),
    "pairs": ("pairs", "value and gradient"),
    "many_labels": ("head, many labels, ZLPR", "value and gradient"),
    "by_hand": ("softmax_focal_loss", "value and gradient"),
}


@pytest.mark.beyond_core
@pytest.mark.parametrize("suite", SUITES)
def test_suites_run_end_to_end(suite, monkeypatch):
    """Both peers are right, and what the suite is for is measured."""
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # other tests' programs
    operation, derivative = HARDEST[suite]
    cases = list(SUITES[suite].cases([TINY], ["float32"]))
    case = next(
        c for c in cases if (c.operation, c.derivative) == (operation, derivative)
    )
    other = "by-hand" if suite == "by_hand" else "optax"
    peers: list[Any] = [briefly("jxent"), briefly(other)]
    records = list(run.run(case, peers, speed=SPEED, seconds=0))
    names = ["jxent", tables.unit_of(suite)]
    assert [(r.peer, r.status) for r in records] == [(name, "ok") for name in names]
    for r in records:
        assert r.error is not None or r.gradient_error is not None
        assert r.trace_s if suite == "tracing" else r.seconds or suite == "accuracy"
        if suite == "sharded":
            assert "all-reduce" in r.collectives
    assert tables.compared(records).count("\n") == 3


@pytest.mark.beyond_core
def test_a_step_of_many_arrays_is_called_again_and_again():
    """And is a case of its own in the report."""
    cases = list(SUITES["eager"].cases([TINY], ["float32"]))
    step, alone = (
        next(c for c in cases if c.operation == "logits" and c.protocol == protocol)
        for protocol in ("step", "eager")
    )
    peers: list[Any] = [briefly("jxent"), briefly("optax"), briefly("torch")]
    records = list(run.run(step, peers, seconds=0))
    assert [(r.peer, r.status) for r in records] == [("jxent", "ok"), ("Optax", "ok")]
    assert all(r.seconds for r in records)
    records += list(run.run(alone, peers[:2], seconds=0))
    device = {"kind": "A processor", "platform": "cpu"}
    results = record.Results("", "", {}, device, {}, tuple(records))
    titles = re.findall("### (.*)", report.markdown(results))
    assert titles == [
        "logits: value and gradient, float32 [16, 24], in a jitted step of 100 arrays",
        "logits: value and gradient, float32 [16, 24]",
    ]


@pytest.mark.every_value
@pytest.mark.parametrize("suite", SUITES)
def test_every_case_has_jxent_and_another(suite):
    """And shapes for both kinds of machine."""
    for on in ("cpu", "accelerator"):
        shapes = [shape(text, on) for text in SUITES[suite].SHAPES[on]]
        for case in SUITES[suite].cases(shapes, SUITES[suite].DTYPES[on]):
            names = {c.peer.NAME for c in run.contestants(case, list(PEERS.values()))}
            assert {"jxent", tables.unit_of(suite)} <= names, case
            assert case.operation in OPERATIONS
            assert case.suite == suite


# What is in jxent's or jxent.metrics' __all__ and computes no loss of arrays.
NO_LOSSES = {
    "class_weights_of_counts",
    "fit_temperature",
    "fit_vector_scaling",
    "map_over_tiles",
    "next_token_labels",
    "plan",
    "reduce",
    "sequence_weights",
    "smooth_labels",
    "sum_over_tiles",
    "total_weight",
    "two_hot_labels",
    "with_statistics",
}


@pytest.mark.every_value
@pytest.mark.parametrize("module", [jxent, jxent.metrics])
def test_every_loss_and_metric_stands_beside_the_code_by_hand(module):
    measured = {operator.attrgetter(r.function)(jxent) for r in textbook.ROWS.values()}
    functions = {
        name: function
        for name in module.__all__
        if not isinstance(function := getattr(module, name), type)
    }
    assert {n for n, f in functions.items() if f not in measured} <= NO_LOSSES


@pytest.mark.beyond_core
def test_what_stands_beside_each_other_is_the_same():
    """Every row of the table, in one program."""
    case = Case("by_hand", "", Shape(12, 4, 7), "float32")
    names = {name for row in textbook.ROWS.values() for name in row.arguments}

    @jax.jit
    def both():
        arrays = {name: array(name, case) for name in sorted(names)}
        return {
            name: [
                f(*(arrays[a] for a in row.arguments))
                for f in (textbook.ours(row), row.by_hand)
            ]
            for name, row in textbook.ROWS.items()
        }

    for name, (ours, by_hand) in both().items():
        pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(by_hand), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6, err_msg=name)


def test_the_table_of_what_is_written_by_hand():
    of = ("by_hand", "entropy")

    def records(peer, seconds, temporary_bytes):
        for derivative, factor in (("forward", 1), ("value and gradient", 3)):
            numbers = {"seconds": factor * seconds, "temporary_bytes": temporary_bytes}
            case = Case(*of, Shape(8, 0, 4), "float32", derivative)
            yield record.record(case, peer, "", **numbers)

    text = tables.by_hand([*records("jxent", 3e-3, 0), *records("by hand", 2e-3, 512)])
    assert (
        re.sub(" +", " ", text)
        == """\
### float32 [8, 4]: jxent to by hand

| | forward | gradient | temporary | with gradient |
|---|---:|---:|---:|---:|
| entropy | 1.50 × | 1.50 × | 0 B for 512 B | 0 B for 512 B |"""
    )


def test_operations_are_chosen_by_a_part_of_their_name():
    words = "--suite by_hand --shape 8x4 --dtype float32 --operation sigmoid zlpr"
    cases = session.chosen_cases(command_line.parser().parse_args(words.split()), "cpu")
    assert {case.operation for case in cases} == {
        "sigmoid_binary_cross_entropy",
        "sigmoid_binary_cross_entropy, a row",
        "sigmoid_contrastive_loss",
        "sigmoid_focal_loss",
        "zlpr_loss",
    }


@pytest.mark.parametrize("text", ["16x24", "16x8x24"])
def test_metrics_beside_what_each_needs(text, capsys):
    metrics.main(["--shape", text, "--seconds=0"])
    title, *rows = re.findall(r"^(?:###|\| [a-z]).*", capsys.readouterr().out, re.M)
    assert title.startswith("### float32 [16, ")
    assert "1.00 ×" in rows[0]
    assert len(rows) == (2 if text == "16x24" else 4)


@pytest.mark.beyond_core
def test_imports_are_timed_in_fresh_interpreters():
    case = next(iter(SUITES["tracing"].cases([TINY], ["float32"])))
    absent = SimpleNamespace(**vars(PEERS["optax"]) | {"available": lambda: False})
    peers: list[Any] = [PEERS["jxent"], absent]
    missing, ours = run.run(case, peers, seconds=0)
    assert (ours.peer, ours.status, missing.status) == ("jxent", "ok", "missing")
    assert ours.seconds is not None
    assert 0 < ours.seconds < 10


def test_a_wrong_a_raising_and_a_missing_peer_are_told():
    """None of them stops the run, and none of them is timed."""

    def peer(name, loss, there=True):
        losses = {"logits": {"": loss}}
        return SimpleNamespace(NAME=name, LOSSES=losses, available=lambda: there)

    def right(logits, labels):
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])

    def raising(logits, labels):
        raise ValueError("not this one\nwith a second line")

    peers: list[Any] = [
        peer("wrong", lambda *args: 1.01 * right(*args)),
        peer("nan", lambda *args: np.nan * right(*args)),
        peer("shape", lambda *args: right(*args)[None]),
        peer("raising", raising),
        peer("absent", right, there=False),
        peer("right", right),
    ]
    case = Case("dense", "logits", TINY._replace(features=0), "float32")
    records = {r.peer: r for r in run.run(case, peers, seconds=0)}
    assert {name: r.status for name, r in records.items()} == {
        "absent": "missing",
        "wrong": "wrong",
        "nan": "wrong",
        "shape": "failing",
        "raising": "failing",
        "right": "ok",
    }
    assert records["wrong"].message == "off by 0.01 of its size"
    true = float(jax.tree.leaves(run.true_result(case, arrays(case)))[0])
    assert records["wrong"].error == pytest.approx(0.01 * true, rel=1e-3)
    assert records["raising"].message == "ValueError: not this one"
    assert records["absent"].message == "not installed"
    assert [name for name, r in records.items() if r.seconds] == ["right"]


def test_a_nan_is_an_error_wherever_it_stands():
    ones, nans = np.ones(3, np.float32), np.full(3, np.nan, np.float32)
    for i in range(3):
        got = [ones] * 3
        got[i] = nans
        assert any(map(math.isnan, filter(None, run.errors(got, [ones] * 3))))
    assert run.errors([ones] * 3, [ones] * 3) == (0, 0, 0)


def test_an_interrupted_run_keeps_what_is_measured(capsys):
    """A case that cannot be set up is told, and the next one follows."""
    cases = [Case("dense", "logits", Shape(n, 0, 8), "float32") for n in range(1, 5)]

    def measure(case):
        if case.shape.rows == 2:
            raise MemoryError("too large")
        if case.shape.rows == 4:
            raise KeyboardInterrupt
        return [record.record(case, "peer", "")]

    found = session.collected(cases, measure, Console(width=200))
    assert [(r.rows, r.peer, r.status) for r in found] == [
        (1, "peer", "ok"),
        (2, "every peer", "failing"),
        (3, "peer", "ok"),
    ]
    assert found[1].message == "MemoryError: too large"
    assert "interrupted" in capsys.readouterr().out


RESULTS = {
    "command": "python -m benchmarks --suite dense",
    "date": "2026-01-02",
    "versions": {"Python": "3.11.7", "jax": "0.10.2"},
    "device": {"platform": "cpu", "kind": "A processor", "cores": 2, "flags": {}},
    "limits": {"bandwidth": 2e10, "flops": {"float32": 1.5e11}},
    "records": [
        {
            "suite": "dense",
            "operation": "logits",
            "rows": 2048,
            "features": 0,
            "classes": 32768,
            "dtype": "float32",
            "derivative": "forward",
            **rest,
        }
        for rest in (
            {
                "peer": "Optax",
                "seconds": 0.043,
                "low": 0.0421,
                "high": 0.05,
                "error": 1e-7,
                "temporary_bytes": 52429,
                "floor_bytes": 268435456,
                "floor_flops": 0,
                "floor_s": 0.0134,
            },
            {
                "peer": "jxent",
                "seconds": 0.036,
                "low": 0.035,
                "high": 0.0361,
                "error": 1e-7,
                "temporary_bytes": 0,
                "floor_bytes": 268435456,
                "floor_flops": 0,
                "floor_s": 0.0134,
            },
            {"peer": "Keras", "status": "wrong", "message": "off by 0.5 of its size"},
            {
                "peer": "PyTorch",
                "variant": "eager",
                "status": "failing",
                "message": "E",
            },
            {"peer": "tokamax", "status": "missing", "message": "not installed"},
        )
    ],
}

REPORT = """\
# A processor

`python -m benchmarks --suite dense`, 2026-01-02

Python 3.11.7, jax 0.10.2

Device: platform cpu, cores 2

Measured: 20 GB/s of copying, products at 150 GFLOP/s in float32

Missing here: tokamax

## dense

Logits in memory, from ten classes to a vocabulary: plain, and with every option.

### logits: forward, float32 [2048, 32768]

The floor: 256 MiB, 13.4 ms.

| | median | middle half | to Optax | to floor | temporary | error | |
|---|---:|---:|---:|---:|---:|---:|---:|
| jxent | 36 ms | 35 ms–36.1 ms | 0.84 × | 2.69 × | 0 B | 1.0e-07 | |
| Optax | 43 ms | 42.1 ms–50 ms | 1.00 × | 3.21 × | 51.2 KiB | 1.0e-07 | |
| Keras | | | | | | | wrong: off by 0.5 of its size |
| PyTorch, eager | | | | | | | failing: E |
"""


def test_report_of_a_fixed_result_file(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    report.write(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.sub(" +", " ", text) == REPORT
    results = record.load(tmp_path)
    record.save(results, tmp_path / "again")
    assert record.load(tmp_path / "again") == results
    # A second size, and there is something to plot.
    others = [
        r._replace(classes=10, derivative="value and gradient") for r in results.records
    ]
    more = [r._replace(derivative="value and gradient") for r in results.records]
    record.save(results._replace(records=(*others, *more)), tmp_path / "swept")
    report.write(tmp_path / "swept")
    names = {path.name for path in (tmp_path / "swept").iterdir()}
    assert {"dense.svg", "dense.png"} <= names
    lines = (tmp_path / "again" / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + len(RESULTS["records"])
    assert lines[0].startswith("suite,operation,peer,variant,rows,features,classes")
    assert lines[0].endswith("date,device,versions,flags")
    assert lines[1].endswith(
        ',2026-01-02,A processor (cpu),"Python 3.11.7, jax 0.10.2",'
    )


@pytest.mark.beyond_core
def test_command_line(tmp_path, capsys, monkeypatch):
    """A run from the words of a shell to its files."""
    monkeypatch.setitem(vars(PEERS["keras"]), "available", lambda: False)
    words = "--suite eager --shape 16x8 --peers jxent keras --seconds 0 --output"
    assert command_line.main([*words.split(), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Missing here: Keras" in printed
    assert "### logits: value and gradient, float32 [16, 8]" in printed
    results = record.load(tmp_path)
    assert results.command.startswith("python -m benchmarks --suite eager")
    assert {r.status for r in results.records if r.peer == "jxent"} == {"ok"}
    assert results.limits["bandwidth"] > 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.md", "results.csv", "results.json"}


def test_a_target_without_its_compiler_says_what_brings_it(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = "compile --target tpu-v5e --target h100 --shape 16x8 --peers jxent"
    args = command_line.parser().parse_args(words.split())
    results = compiled.measured(args, "", Console(width=200))
    assert results.records == ()
    printed = capsys.readouterr().out
    assert "tpu-v5e: skipped, pip install -e '.[tpu]' brings its compiler" in printed
    assert "h100: skipped, pip install -e '.[cuda]' brings its compiler" in printed


def test_shapes():
    assert shape("64x32", "cpu") == Shape(64, 0, 32)
    assert shape("64x8x32", "cpu") == Shape(64, 8, 32)
    assert shape("llama3", "accelerator") == Shape(8192, 4096, 128256)
    assert shape("64xgpt2", "cpu") == Shape(64, 768, 50257)
    with pytest.raises(ValueError, match="got 'gpt5'"):
        shape("gpt5", "cpu")


def test_floor():
    """Two products for each gradient, one for the value; logits read twice, written."""
    case = Case(
        "linear", "head", Shape(1000, 100, 5000), "float32", "value and gradient"
    )
    found = floor(case, SPEED)
    assert found["floor_flops"] == 6 * 1000 * 100 * 5000
    assert found["floor_bytes"] == 2 * 4 * (1000 * 100 + 100 * 5000)
    assert found["floor_s"] == pytest.approx(found["floor_flops"] / 1e11)
    dense = Case("dense", "logits", Shape(10, 0, 100), "bfloat16", "value and gradient")
    assert floor(dense, SPEED)["floor_bytes"] == 3 * 10 * 100 * 2
    assert floor(case, TARGETS["h100"].limits)["floor_s"] > 0


def test_interleaved_takes_turns():
    """Each round starts with the next one, and each runs once before it is read."""
    read = []
    watches = {n: (lambda n=n: read.append(n) or float(len(read))) for n in "abc"}
    times = measure.interleaved(watches, seconds=1e-9)
    assert "".join(read) == "bbccaa" + "ccaabb" + "aabbcc"
    assert times["a"].rounds == 3
    assert times["a"].median == np.median([6, 10, 14])


def test_collectives_count_an_asynchronous_one_once():
    """And tell of those that a loop repeats, in what its body calls too."""
    text = """
%called (p: f32[8]) -> f32[8] {
  ROOT %d = s32[4,2] all-gather(%p), replica_groups={{0,1}}, metadata={op_name="all"}
}

%body.1 (p: f32[8]) -> f32[8] {
  %f = f32[8]{0} fusion(%p), kind=kLoop, calls=%called
}

ENTRY %main.2 (x: f32[8]) -> f32[8] {
  %a = f32[8]{0} all-reduce-start(%x), replica_groups=[1,2]<=[2], to_apply=%add
  %b = f32[8]{0} all-reduce-done(%a)
  %c = bf16[1024,512]{1,0} all-reduce(%y), replica_groups={{0,1}}, to_apply=%add
  %w = f32[8]{0} while(%x), condition=%condition, body=%body.1
}
"""
    assert measure.collectives(text) == (
        "1 all-gather in a loop (0.00 MiB), 2 all-reduce (1.00 MiB)"
    )


def test_device_clock_counts_overlapping_kernels_once():
    def line(name, *spans):
        events = [SimpleNamespace(start_ns=a, duration_ns=b - a) for a, b in spans]
        return SimpleNamespace(name=name, events=events)

    host = SimpleNamespace(name="/host:CPU", lines=[line("main", (0, 9e9))])
    streams = [line("Stream #1", (0, 2e9), (5e9, 6e9)), line("Stream #2", (1e9, 3e9))]
    gpu = SimpleNamespace(name="/device:GPU:0", lines=streams)
    modules = [line("XLA Modules", (1e9, 2e9)), line("XLA Ops", (0, 5e9))]
    tpu = SimpleNamespace(name="/device:TPU:0", lines=modules)
    assert device_clock.of_planes([host, gpu]) == pytest.approx(4)
    assert device_clock.of_planes([host, tpu]) == pytest.approx(1)
    with pytest.raises(RuntimeError, match="no device"):
        device_clock.of_planes([host])


def test_pages_are_made_from_the_stored_runs():
    found = []
    for page in readme.PAGES:
        text = (readme.REPOSITORY / page).read_text(encoding="utf-8")
        found += re.findall(r"<!-- benchmarks: (.*?) -->", text)
        assert readme.filled(text) == text
    assert found == list(readme.SECTIONS)
