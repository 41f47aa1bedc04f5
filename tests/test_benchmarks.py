"""The benchmarks and their pictures: every suite and command end to end.

What they say of peers; and what is committed is made from the stored runs.
"""

import csv
import math
import operator
import re
from pathlib import Path
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
    growth,
    measure,
    metrics,
    pictures,
    plots,
    readme,
    record,
    report,
    run,
    session,
    tables,
    ten_calls,
    textbook,
    vocabulary,
)
from benchmarks.case import Case, Shape, shape
from benchmarks.limits import Limits, floor
from benchmarks.operations import OPERATIONS, array, arrays
from benchmarks.peers import PEERS
from benchmarks.suites import SUITES
from benchmarks.targets import TARGETS, MissingCompilerError
from tests.cases import NO_ROW


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
    "forms": ("softmax_focal_loss, forms", "value and gradient"),
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
    other = {"by_hand": "by-hand", "forms": "plain-forms"}.get(suite, "optax")
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
            assert case.protocol != "step" or "PyTorch" not in names


# What computes no loss of arrays, by the reason for which it has no row among those.
NO_LOSSES = {
    name
    for name, reason in NO_ROW.items()
    if re.match("makes|fits|of (losses or|a caller|a function)", reason)
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


RUNS = sorted(path.parent for path in readme.RESULTS.glob("*/results.json"))


@pytest.mark.every_value
@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_committed_reports_are_those_of_the_stored_numbers(folder, tmp_path):
    """Word for word, and the stored numbers those that a run writes."""
    results = record.load(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.partition("\n![")[0] == report.markdown(results)
    record.save(results, tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()


@pytest.mark.beyond_core
def test_a_report_links_to_its_plots(tmp_path):
    folder = readme.RESULTS / "cpu-head"
    report.save(record.load(folder), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        path.name for path in folder.iterdir()
    }
    made, stored = (path / "report.md" for path in (tmp_path, folder))
    assert made.read_bytes() == stored.read_bytes()


@pytest.mark.beyond_core
def test_command_line(tmp_path, capsys, monkeypatch):
    """A run from the words of a shell to its files.

    A step of many arrays is a case of its own, called again and again.
    """
    monkeypatch.setitem(vars(PEERS["keras"]), "available", lambda: False)
    words = "--suite eager --shape 16x8 --peers jxent optax keras --seconds 0 --output"
    assert command_line.main([*words.split(), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Missing here: Keras" in printed
    title = "### logits: value and gradient, float32 [16, 8]"
    assert f"{title}\n" in printed
    assert f"{title}, in a jitted step of 100 arrays\n" in printed
    results = record.load(tmp_path)
    assert results.command.startswith("python -m benchmarks --suite eager")
    assert {r.status for r in results.records if r.peer != "Keras"} == {"ok"}
    steps = [r for r in results.records if r.protocol == "step"]
    assert {r.peer for r in steps if r.seconds} == {"jxent", "Optax"}
    assert results.limits["bandwidth"] > 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.md", "results.csv", "results.json"}
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["peer"], row["status"]) for row in csv.DictReader(file)]
    assert rows == [(r.peer, r.status) for r in results.records]
    assert ("Keras", "missing") in rows


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


# Pictures: tiny sizes, without peers that are not there -------------------------------


@pytest.mark.beyond_core
def test_ten_calls(monkeypatch, tmp_path, capsys):
    """jxent is right in each; what is missing is said to be missing."""
    several = ten_calls.calls(classes=64)
    assert len(several) == 10
    several = [several[i] for i in (3, 6, 9)]
    monkeypatch.setattr(ten_calls, "calls", lambda: several)
    absent = {"Keras": "no_such_module_as_keras", "PyTorch": "no_such_module_as_torch"}
    monkeypatch.setattr(ten_calls, "LIBRARIES", ten_calls.LIBRARIES | absent)
    assert ten_calls.main(["--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Missing here: Keras, PyTorch" in printed
    table = [line.split("|")[1:-1] for line in printed.splitlines() if "|" in line]
    marks = [[cell.strip(" *")[:1] for cell in line] for line in table[2:]]
    assert [line[2] for line in marks] == ["✓"] * 3
    assert "".join(line[3] for line in marks) == "✓✗–"  # Optax's
    assert {path.name for path in tmp_path.iterdir()} == {
        "ten_calls.md",
        "ten_calls.svg",
        "ten_calls_phone.svg",
    }
    assert ten_calls.main(["--output", str(tmp_path), "--stored"]) == 0
    rows = ten_calls.stored((tmp_path / "ten_calls.md").read_text(encoding="utf-8"))
    texts = [row.answers[0].text for row in rows]
    assert texts == [line[2].strip(" ✓") for line in table[2:]]


@pytest.mark.beyond_core
def test_a_verdict_takes_value_and_gradient():
    """Neither a wrong gradient nor an undocumented number passes."""
    plain = ten_calls.calls(classes=8)[0]
    right = plain.losses["jxent"]

    def verdict(loss, **of):
        call = plain._replace(losses={"jxent": loss}, **of)
        return ten_calls.answer(call, "jxent").verdict

    def stopped(module, z, y):
        return jax.lax.stop_gradient(right(module, z, y))

    def doubled(module, z, y):
        return 2 * right(module, z, y)

    documented = {"jxent": lambda z, y: 2 * ten_calls.mean(z, y)}
    assert verdict(right) == ten_calls.RIGHT
    assert verdict(stopped) == verdict(doubled) == ten_calls.WRONG
    assert verdict(doubled, documented=documented) == ten_calls.DIFFERS
    assert verdict(right, truth=None) == ten_calls.WRONG


@pytest.mark.beyond_core
def test_the_stored_table_is_the_picture_s():
    """And jxent is right in all of its rows."""
    text = (pictures.FOLDER / "ten_calls.md").read_text(encoding="utf-8")
    for call in ten_calls.calls(classes=8):
        assert call.text.replace("8 classes", "131,072 classes") in text
    lines = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    assert all(line[3].strip().startswith("✓") for line in lines[2:])


@pytest.mark.beyond_core
def test_errors_are_measured_and_drawn(monkeypatch, tmp_path):
    libraries = {"jxent": "jxent", "optax": "Optax"}
    monkeypatch.setattr(pictures, "LIBRARIES", libraries)
    records = pictures.measure_errors(Console(quiet=True), ["8x4x32"], ["bfloat16"])
    assert {r.name for r in records} == {"jxent", "Optax", "Optax, cast to float32"}
    assert all(r.error is not None for r in records)
    device = {"kind": "A processor", "platform": "cpu"}
    results = record.Results("", "", {}, device, {}, tuple(records))
    record.save(results, tmp_path / "accuracy")
    assert pictures.main(["accuracy", "--stored", "--output", str(tmp_path)]) == 0
    for name in ("accuracy.svg", "accuracy_phone.svg"):
        assert (tmp_path / name).read_text().count("<svg") == 1


@pytest.mark.beyond_core
def test_memory_is_compiled_and_drawn(monkeypatch):
    """Here for the processor; where no compiler is, it is said which brings it."""
    local: Any = SimpleNamespace(devices=jax.devices("cpu"))

    def none(count):
        raise MissingCompilerError("pip install it")

    here = TARGETS["h100"]._replace(
        platform="cpu", lowering="cpu", files=(), topology=lambda count: local
    )
    targets = {"h100": here, "tpu-v5e": here._replace(topology=none)}
    for module in (pictures, pictures.compiled):
        monkeypatch.setattr(module, "TARGETS", targets)
    progress = Console(record=True, width=200)
    monkeypatch.setattr(pictures, "VARIANTS", {"jxent": ("materialized", "streamed")})
    records = pictures.compile_heads(progress, (16,), (8, 64))
    assert "tpu-v5e: skipped, pip install it" in progress.export_text()
    assert [(r.rows, r.variant, r.status) for r in records] == [
        (16, "materialized", "ok"),
        (16, "streamed", "ok"),
    ]
    figure = pictures.draw_memory(record.Results("", "", {}, {}, {}, tuple(records)))
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert {"jxent, materialized", "jxent, streamed", "the logits"} <= set(texts)
    pictures.plt.close(figure)


@pytest.mark.beyond_core
def test_growth_is_measured_and_drawn(monkeypatch):
    """The plan's choice beside the quickest layout, at every size that is timed."""
    monkeypatch.setattr(growth, "VARIANTS", {"jxent": ("materialized", "streamed")})
    monkeypatch.setattr(growth, "TOKENS", (8, 16))
    monkeypatch.setattr(growth, "CLASSES", (32, 64))
    here = growth.sweeps(4, 8, 32, "float32")
    records = growth.measure(Console(quiet=True), here, [], [])
    assert len(records) == 6  # of three sizes: one is in both sweeps
    found = growth.choices(records)
    assert [(c.rows, c.classes) for c in found] == [(8, 32), (8, 64), (16, 32)]
    assert all(c.chosen.variant == "materialized" and c.ratio >= 1 for c in found)
    results = record.Results("", "", {}, {}, {}, tuple(records))
    assert growth.table(results).count("| materialized |") >= 3
    figure = growth.draw(results)
    assert len(figure.axes) == 4
    assert all(axes.lines for axes in figure.axes)
    pictures.plt.close(figure)


@pytest.mark.beyond_core
def test_the_first_picture_has_three_lines(tmp_path):
    """Memory and time of the stored run, each line with its name, light and dark."""
    results = record.load(vocabulary.HERE / "results" / "cpu-head")
    figure = vocabulary.draw(results)
    for axes in figure.axes:
        names = {text.get_text() for text in axes.texts}
        assert {
            "Optax, logits in memory",
            "jxent, by default",
            "jxent, streamed",
        } <= names
        assert axes.get_xlabel() == "classes in the vocabulary"
    pictures.plt.close(figure)
    titles = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center")]
    assert [*filter(None, titles)] == [
        "Temporary memory",
        "Time, as a multiple of Optax’s",
    ]
    vocabulary.main(tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in pictures.FOLDER.glob("vocabulary*.svg")}
    assert "#ffffff" not in (tmp_path / "vocabulary_dark.svg").read_text("utf-8")


CUT = re.compile(r'.which-loss img\[src\$="/(\w+).png".*{ --from: (.+); --to: (.+); }')


@pytest.mark.beyond_core
def test_a_phone_shows_whole_panels():
    """Where the site's style cuts a picture of the table of troubles, it is blank."""
    docs = Path(__file__).parent.parent / "docs"
    cuts = CUT.findall((docs / "_static/site.css").read_text(encoding="utf-8"))
    table = (docs / "which-loss.md").read_text(encoding="utf-8")
    shown = re.findall(r"\(pictures/(\w+).png\)", table)
    assert {name for name, *_ in cuts} == {*shown}
    for name, *ends in cuts:
        picture = pictures.plt.imread(docs / "pictures" / f"{name}.png")
        for end in map(float, ends):
            column = picture[:, min(int(end * picture.shape[1]), picture.shape[1] - 1)]
            assert np.ptp(column, axis=0).max() < 0.02, (name, end)


@pytest.mark.beyond_core
def test_labels_keep_their_distance():
    moved = plots.apart([0.0, 3.0, 2.0, 40.0], 10)
    assert np.allclose(moved, [-25 / 3, 35 / 3, 5 / 3, 40])
    assert np.allclose(plots.apart([0.0, 3.0, 2.0, 40.0], 10, 0, 40), [0, 20, 10, 40])
    assert plots.apart([5.0], 10) == [5.0]


@pytest.mark.beyond_core
@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize("name", pictures.PICTURES)
def test_committed_pictures_are_those_of_the_stored_numbers(name, phone):
    """By their words: a version of matplotlib draws the same line in other digits."""
    results = record.load(pictures.FOLDER / name)
    assert results.command == f"python -m benchmarks.pictures {name}"
    file = f"{name}_phone.svg" if phone else f"{name}.svg"
    svg = (pictures.FOLDER / file).read_text(encoding="utf-8")
    with pictures.plt.rc_context(pictures.STYLE):
        figure = pictures.PICTURES[name][1](results, phone=phone)
    texts = [t for axes in figure.axes for t in (*axes.texts, axes.xaxis.label)]
    words = [text for t in texts if (text := t.get_text())]
    pictures.plt.close(figure)
    written = re.findall(r"<!-- (.*?) -->", svg)
    assert words
    assert {line for w in words for line in w.split("\n")} <= set(written)
