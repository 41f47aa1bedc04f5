"""Every example runs to its end, prints its figures and draws its picture."""

import functools
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

import jxent
from tests.comparing import close
from tests.compiling import TO_RUN_LONG, as_flags
from tests.pages import defaults


EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = EXAMPLES.parent / "docs" / "pictures"


def run(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The example in a process of its own: without a display, warnings are errors."""
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": as_flags(TO_RUN_LONG)}
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def numbers(text: str, label: str) -> list[float]:
    """Those of the lines that begin with a label."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    rest = [line[len(label) :] for line in lines if line.startswith(f"{label} ")]
    found = re.findall(r"-?\d[\d,.]*(?:e-\d+)?", " ".join(rest))
    return [float(x.replace(",", "")) for x in found]


near = pytest.approx
FILE = Path(__file__).parent / "figures.toml"


def expected(found: dict[str, Any]) -> Any:
    """Numbers as the file has them: {is: numbers, rel or abs: how near}."""
    tolerance = {k: x for k, x in found.items() if k != "is"}
    return near(found["is"], **tolerance) if tolerance else found["is"]


EXAMPLES_OF: dict[str, dict[str, Any]] = tomllib.loads(FILE.read_text("utf-8"))


# What holds of the numbers beside each other, and what is no number.


def of_language_model(out, losses, figures):
    assert len(re.findall(r"\nwrites +In.+\n", out)) == 1
    assert int(figures["512"][1]) > 512 * 131072 * 4 / 2**20  # more than the logits


def of_many_labels(out, losses, figures):
    assert all(macro <= best for _, _, macro, _, best, _ in figures.values())
    assert all(np.isfinite(losses))


def of_textbook(out, losses, figures):
    worked = re.findall(r"  (-?\d\.\d{5})  ? ?(-?\d\.\d{5})\n", out)
    assert len(worked) == 19
    for by_hand, library in worked:
        assert float(library) == near(float(by_hand), abs=1e-5)


def of_classic_mistakes(out, losses, figures):
    assert len(re.findall(r" 1\.4612 ", out)) == 2  # ln(e + 9) − 1
    mistake, right, worth, best = figures["A mean of micro-batches' means"]
    assert mistake < right
    assert best < worth


def of_long_tailed_mnist(out, losses, figures):
    assert losses[74] < losses[0] / 2  # cross-entropy's own last step


def of_calibration(out, losses, figures):
    assert figures["temperature"][0] == figures["as trained"][0]


def of_noisy_labels(out, losses, figures):
    assert all(last <= best for best, last, *_ in figures.values())


def of_preference(out, losses, figures):
    dpo = [loss for loss in losses if loss < 1]  # those of pretraining are above 6
    assert dpo[0] == near(np.log(2), abs=1e-3)
    assert dpo[-1] < dpo[0]


CHECKS = {name[3:]: check for name, check in globals().items() if name[:3] == "of_"}


@pytest.fixture
def play(tmp_path, capsys):
    """Runs an example here, which saves a process, with jax as a user finds it.

    Its picture has the form of the site's, and ink in all of its panels.
    """

    def play(name: str) -> tuple[str, list[float]]:
        example, output = EXAMPLES_OF[name], tmp_path / f"{name}.png"
        options = [
            "--smoke",
            "--seed=1",
            f"--output={output}",
            *example.get("arguments", []),
        ]
        if "alone" in example:
            done = run(f"{name}.py", *options, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            out, err = done.stdout, done.stderr
        else:
            with defaults():
                importlib.import_module(name).main(options)
            out, err = capsys.readouterr()
        assert out.endswith(f"{output}\n")
        pixels, stored = imread(output), imread(PICTURES / output.name)
        (height, width), (high, wide) = pixels.shape[:2], stored.shape[:2]
        assert height > 600
        assert height / width == near(high / wide, rel=0.01)
        ink = np.any(pixels[..., :3] < 0.95, axis=-1)
        for panel in np.array_split(ink, example["panels"], axis=1):
            assert 0.01 < panel.mean() < 0.8
        return out, [float(x) for x in re.findall(r"loss ([\d.]+) nats", err)]

    return play


@pytest.mark.beyond_core
@pytest.mark.parametrize("name", EXAMPLES_OF)
def test_it_prints_its_figures(name, play):
    """Each number is near the one that is printed on another machine."""
    out, losses = play(name)
    example = EXAMPLES_OF[name]
    found = {label: numbers(out, label) for label in example["figures"]}
    for label, wanted in example["figures"].items():
        assert found[label] == expected(wanted), label
    assert losses[:1] + losses[-1:] == expected(example["bar"])
    if name in CHECKS:
        CHECKS[name](out, losses, found)


@pytest.mark.beyond_core
def test_sharded_language_model(tmp_path):
    """8 devices of the processor's own, and the losses of one."""
    done = run("sharded_language_model.py", "--smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no accelerators: 8 devices made of the processor" in done.stdout
    table = re.findall(r"\n +(?:step +\d|held out) +([\d.]+) +([\d.]+) ", done.stdout)
    assert len(table) == 4
    for one, mesh in table:
        assert float(mesh) == near(float(one), abs=3e-5)
    ((one, mesh),) = re.findall(r"\n +state +(\d+) +(\d+)\n", done.stdout)
    assert int(mesh) < int(one) / 3
    assert imread(tmp_path / "sharded_language_model.png").shape[0] > 600


def test_an_example_names_the_extra_that_it_needs():
    """The small one brings no data, and README's first command takes it."""
    sources = {p.stem: p.read_text("utf-8") for p in EXAMPLES.glob("*.py")}
    large = {
        name
        for name, text in sources.items()
        if re.search(r'^from mistral_common|(?:files|distribution)\("', text, re.M)
    }
    large |= {
        name
        for name, text in sources.items()
        if any(re.search(rf"^from {other} import", text, re.M) for other in large)
    }
    gallery = (EXAMPLES.parent / "docs" / "gallery.md").read_text("utf-8")
    for name, text in sources.items():
        if "pip install" in text:
            extra = "all-examples" if name in large else "examples"
            assert f'pip install -e ".[{extra}]"' in text
            assert f"[{name}.py](../examples/{name}.py) | {extra} |" in gallery


@pytest.mark.parametrize("name", EXAMPLES_OF)
def test_help(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(name).main(["--help"])
    out = capsys.readouterr().out
    assert "--no-progress" in out
    assert f"(default: {name}.png)" in " ".join(out.split())


def test_what_is_wrong_with_an_option_is_said(capsys):
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("digits").main(["--epochs=0"])
    wrong = capsys.readouterr().err
    assert "argument --epochs: expected 1 or more, got 0" in wrong


@pytest.mark.beyond_core
def test_long_tail():
    """Counts that fall by 100 : 1, and no digit in training and held out both."""
    example = importlib.import_module("long_tailed_mnist")
    counts = example.counts_of_classes()
    assert (counts[0], counts[-1]) == (400, 4)
    ratios = np.log(counts[:-1] / counts[1:])
    np.testing.assert_allclose(ratios, np.log(100) / 9, atol=0.15)
    training, held_out = example.load_data(range(2))
    for labels in training.labels:
        np.testing.assert_array_equal(np.bincount(labels), counts)
    assert np.any(training.images[0] != training.images[1])
    np.testing.assert_array_equal(np.bincount(held_out.labels), [100] * 10)
    seen = {image.tobytes() for image in training.images.reshape(-1, 784)}
    assert seen.isdisjoint(image.tobytes() for image in held_out.images)


@pytest.mark.beyond_core
def test_the_noise_is_symmetric(rng):
    """A share of the labels is wrong, and each other class alike."""
    example = importlib.import_module("noisy_labels")
    labels = jnp.asarray(rng.integers(0, 10, 50_000))
    moved = (example.with_noise(labels, 0.4, rng) - labels) % 10
    shares = np.bincount(np.asarray(moved), minlength=10) / len(labels)
    np.testing.assert_allclose(shares, [0.6, *[0.4 / 9] * 9], atol=0.01)


@pytest.mark.beyond_core
def test_ctc_is_that_of_optax(rng, x64, as_users_have_it):
    """Value and gradients, of logits and of a head: repeats, padding and no label.

    In frames that are padding, the logits or the hidden states are NaN.
    """
    example = importlib.import_module("digit_strings")
    hidden, kernel = rng.normal(size=(5, 9, 4)), rng.normal(size=(4, 6))
    labels = np.array([[1, 2, 3, 4], [2, 2, 5, 5], [3, 3, 3, 0], [0] * 4, [1] * 4])
    paddings = 1.0 * (np.arange(4) >= np.array([[4], [4], [3], [0], [4]]))

    def of(formula, of_logits, frames):
        def loss(hidden, kernel):
            ends = 1.0 * (np.arange(9) >= np.array(frames)[:, None])
            losses = formula(of_logits(hidden, kernel), ends, labels, paddings)
            return jnp.sum(losses * np.cos(np.arange(5))), losses

        both = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return jax.jit(both)(hidden, kernel)

    frames = [9, 7, 8, 5, 7]  # the last are as few as its repeats allow
    wanted = of(optax.ctc_loss, jnp.matmul, frames)
    assert np.all(wanted[0][1] > 0)
    layout = {"implementation": "streamed", "block_sizes": (None, 3)}
    streamed = functools.partial(jxent.LinearLogits, **layout)
    padding = np.arange(9)[:, None] >= np.array(frames)[:, None, None]
    unknown = lambda x: jnp.where(padding, jnp.nan, x)
    for of_logits in (
        lambda h, k: unknown(h @ k),
        lambda h, k: streamed(unknown(h), k),
    ):
        close(of(example.ctc_loss, of_logits, frames), wanted, 1e-10)

    (_, losses), gradients = of(example.ctc_loss, jnp.matmul, [3, 5, 5, 1, 6])
    assert np.isinf(losses).tolist() == [True, True, False, False, True]
    assert all(np.all(np.isfinite(x)) for x in gradients)


@pytest.mark.beyond_core
def test_strings_are_read_and_compared():
    example = importlib.import_module("digit_strings")
    assert example.read(np.array([0, 1, 1, 0, 1, 2, 2, 0, 0, 3])) == [1, 1, 2, 3]
    assert example.read(np.zeros(3, int)) == []
    pairs = {("", ""): 0, ("1", ""): 1, ("123", "13"): 1, ("12", "21"): 2}
    for (a, b), edits in pairs.items():
        assert example.distance(a, b) == example.distance(b, a) == edits


@pytest.mark.beyond_core
def test_preference_is_the_loss_of_dpo(rng):
    """By its formula in float64, from logits, for completions of different lengths."""
    example = importlib.import_module("preference")
    pairs, time, vocabulary, beta = 3, example.CONTEXT, 40, 0.3
    tokens = rng.integers(0, vocabulary, (pairs, 2, time)).astype(np.int32)
    ends = rng.integers(30, time, (pairs, 2, 1))
    completion = (np.arange(time) >= 20) & (np.arange(time) < ends)
    reference = rng.normal(-50, 5, (pairs, 2)).astype(np.float32)
    with defaults():
        model = example.LanguageModel(np.zeros(vocabulary), 1, example.nnx.Rngs(0))
        batch = example.Pairs(*map(jax.numpy.asarray, (tokens, completion, reference)))
        loss, margin = example.dpo_loss(model, batch, beta)
        hidden = np.asarray(model(batch.tokens).hidden, np.float64)

    table = np.asarray(model.tokens.embedding[...], np.float64)
    logits = hidden @ table.T
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    of_next = np.take_along_axis(log_p[:, :, :-1], tokens[:, :, 1:, None], axis=-1)
    summed = np.sum(of_next[..., 0], axis=-1, where=completion[:, :, 1:])
    ratio = summed - reference.astype(np.float64)
    expected = beta * (ratio[:, 0] - ratio[:, 1])
    np.testing.assert_allclose(margin, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loss, np.mean(np.log1p(np.exp(-expected))), rtol=1e-4)
