"""The pictures' commands, on tiny sizes and without peers that are not there."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks import growth, pictures, plots, record, ten_calls, vocabulary
from benchmarks.targets import TARGETS, MissingCompilerError


pytestmark = [pytest.mark.usefixtures("as_users_have_it"), pytest.mark.beyond_core]


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


def test_the_stored_table_is_the_picture_s():
    """And jxent is right in all of its rows."""
    text = (pictures.FOLDER / "ten_calls.md").read_text(encoding="utf-8")
    for call in ten_calls.calls(classes=8):
        assert call.text.replace("8 classes", "131,072 classes") in text
    lines = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    assert all(line[3].strip().startswith("✓") for line in lines[2:])


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


def test_labels_keep_their_distance():
    moved = plots.apart([0.0, 3.0, 2.0, 40.0], 10)
    assert np.allclose(moved, [-25 / 3, 35 / 3, 5 / 3, 40])
    assert np.allclose(plots.apart([0.0, 3.0, 2.0, 40.0], 10, 0, 40), [0, 20, 10, 40])
    assert plots.apart([5.0], 10) == [5.0]


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
