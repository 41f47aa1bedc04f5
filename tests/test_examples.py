"""Every example runs to its end, prints its figures and draws its picture."""

import functools
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

import jxent
from tests.comparing import close
from tests.compiling import TO_RUN_LONG, as_flags


EXAMPLES = Path(__file__).parents[1] / "examples"


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


def number(text: str, pattern: str) -> float:
    """The one number in a text that a pattern's group finds."""
    (found,) = re.findall(pattern, text)
    return float(found.replace(",", ""))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A short run of digits.py, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("digits")
    done = run("digits.py", "--smoke", "--batch-size=32", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder


class TestDigits:
    def test_prints_what_was_learnt(self, smoke):
        out = smoke[0].stdout
        assert number(out, r"held-out accuracy +([\d.]+)%") > 90
        assert 0 < number(out, r"held-out cross-entropy +([\d.]+) nats") < 0.5
        assert 0 < number(out, r"expected calibration error +([\d.]+)\n") < 0.3

    def test_loss_falls_as_the_bar_tells(self, smoke):
        losses = [float(x) for x in re.findall(r"loss ([\d.]+) nats", smoke[0].stderr)]
        assert losses[0] > 2
        assert losses[-1] < losses[0] / 2

    def test_draws_a_picture(self, smoke):
        pixels = imread(smoke[1] / "digits.png")
        height, width, _ = pixels.shape
        assert height > 600
        assert 2 < width / height < 4
        ink = np.any(pixels[..., :3] < 0.95, axis=-1)
        panels = np.array_split(ink, 3, axis=1)
        assert all(0.02 < panel.mean() < 0.6 for panel in panels)

    def test_says_what_is_wrong_with_an_option(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            importlib.import_module("digits").main(["--epochs=0"])
        wrong = capsys.readouterr().err
        assert "argument --epochs: expected 1 or more, got 0" in wrong


@pytest.fixture(scope="module")
def few_steps(tmp_path_factory):
    """Four steps of language_model.py, four times, and the folder that they ran in."""
    folder = tmp_path_factory.mktemp("language_model")
    done = run("language_model.py", "--smoke", "--epochs=4", "--prompt=In", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder


@pytest.mark.beyond_core
class TestLanguageModel:
    def test_starts_from_the_frequencies(self, few_steps):
        out = few_steps[0].stdout
        unigram = number(out.replace(",", ""), r"by frequency alone +([\d.]+)\n")
        before = number(out.replace(",", ""), r"before training +([\d.]+)\n")
        after = number(out.replace(",", ""), r"after training +([\d.]+)\n")
        assert 500 < unigram < 3000
        assert before == pytest.approx(unigram, rel=0.05)
        assert after < 2 * unigram  # too little is read to do better

    def test_fused_head_saves_memory(self, few_steps):
        ((tokens, fused, whole),) = re.findall(
            r"\n +(\d+) +(\d+) MiB +(\d+) MiB\n", few_steps[0].stdout
        )
        logits = int(tokens) * 131072 * 4 / 2**20
        assert int(whole) > logits
        assert 0 < int(fused) < int(whole) / 2

    def test_loss_falls_as_the_bar_tells(self, few_steps):
        found = re.findall(r"loss ([\d.]+) nats", few_steps[0].stderr)
        losses = [float(x) for x in found]
        assert 4 < losses[0] < 9
        assert losses[-1] < losses[0] - 0.3

    def test_writes_on_from_the_prompt(self, few_steps):
        (line,) = re.findall(r"\nwrites +(.+)\n", few_steps[0].stdout)
        assert line.startswith("In")
        assert len(line) > len("In")

    def test_draws_a_picture(self, few_steps):
        pixels = imread(few_steps[1] / "language_model.png")
        height, width, _ = pixels.shape
        assert height > 600
        assert 2 < width / height < 4
        ink = np.any(pixels[..., :3] < 0.95, axis=-1)
        assert all(0.01 < panel.mean() < 0.6 for panel in np.array_split(ink, 2, 1))


class Played(NamedTuple):
    """What a short run of an example gave."""

    out: str
    losses: list[float]  # the bar's
    panels: list[float]  # the share of ink in each panel of the picture, side by side


@pytest.mark.beyond_core
def test_sharded_language_model(tmp_path):
    """8 devices of the processor's own, and the losses of one."""
    done = run("sharded_language_model.py", "--smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no accelerators: 8 devices made of the processor" in done.stdout
    table = re.findall(r"\n +(?:step +\d|held out) +([\d.]+) +([\d.]+) ", done.stdout)
    assert len(table) == 4
    for one, mesh in table:
        assert float(mesh) == pytest.approx(float(one), abs=3e-5)
    ((one, mesh),) = re.findall(r"\n +state +(\d+) +(\d+)\n", done.stdout)
    assert int(mesh) < int(one) / 3
    assert imread(tmp_path / "sharded_language_model.png").shape[0] > 600


@pytest.fixture
def play(tmp_path, capsys):
    """Runs an example here, which saves a process, with jax as a user finds it.

    One that computes for long runs alone, in programs that are compiled for that.
    """

    def play(name: str, *arguments: str, panels: int, alone: bool = False) -> Played:
        output = tmp_path / f"{name}.png"
        options = ["--smoke", "--seed=1", f"--output={output}", *arguments]
        if alone:
            done = run(f"{name}.py", *options, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            out, err = done.stdout, done.stderr
        else:
            with (
                jax.numpy_dtype_promotion("standard"),
                jax.numpy_rank_promotion("allow"),
            ):
                importlib.import_module(name).main(options)
            out, err = capsys.readouterr()
        assert out.endswith(f"{output}\n")
        pixels = imread(output)
        assert pixels.shape[0] > 600
        ink = np.any(pixels[..., :3] < 0.95, axis=-1)
        return Played(
            out,
            [float(x) for x in re.findall(r"loss ([\d.]+) nats", err)],
            [panel.mean() for panel in np.array_split(ink, panels, axis=1)],
        )

    return play


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


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "language_model",
        "breast_cancer",
        "many_labels",
        "textbook",
        "classic_mistakes",
        "mnist_linen",
        "segmentation",
        "policy_gradient",
        "preference",
        "distillation",
        "long_tailed_mnist",
        "calibration",
        "contrastive_digits",
        "noisy_labels",
        "digit_strings",
    ],
)
def test_help(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(name).main(["--help"])
    out = capsys.readouterr().out
    assert "--no-progress" in out
    assert f"(default: {name}.png)" in " ".join(out.split())


@pytest.mark.beyond_core
def test_breast_cancer(play):
    out, losses, panels = play("breast_cancer", panels=2)
    assert number(out, r"held-out accuracy +([\d.]+)%") > 90
    assert number(out, r"malignant tumours found +([\d.]+)%") > 80
    assert number(out, r"benign tumours spared +([\d.]+)%") > 90
    assert 0.02 < number(out, r"held-out cross-entropy +([\d.]+) nats") < 0.3
    assert losses[-1] < losses[0] / 1.5
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_many_labels(play):
    out, losses, panels = play("many_labels", panels=2)
    rows = re.findall(
        r"\n  (\S+) +([\d.]+) ± 0.0 +([\d.]+) ± 0.0 +([\d.]+) at [+-]\d.\d\d", out
    )
    scores = {name: [float(x) for x in numbers] for name, *numbers in rows}
    assert [*scores] == ["cross-entropy", "pos_weight", "asymmetric", "ZLPR"]
    assert all(macro <= best for _, macro, best in scores.values())
    assert all(30 < micro < 80 for micro, *_ in scores.values())
    assert scores["asymmetric"][1] > scores["cross-entropy"][1] + 5
    assert all(np.isfinite(losses))
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_textbook(play):
    out, losses, panels = play("textbook", panels=2)
    worked = re.findall(r"  (-?\d\.\d{5})  ? ?(-?\d\.\d{5})\n", out)
    assert len(worked) == 19
    for by_hand, library in worked:
        assert float(library) == pytest.approx(float(by_hand), abs=1e-5)
    assert number(out, r"a fair die, ln 6 +[\d.]+ +([\d.]+)\n") == 1.79176
    assert number(out, r"farthest from jax.grad +(\S+)\n") < 1e-6
    assert number(out, r"held-out cross-entropy +([\d.]+) nats") < 0.4
    assert number(out, r"held-out accuracy +([\d.]+)%") > 80
    assert losses[-1] < losses[0] / 1.5
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_classic_mistakes(play):
    out, losses, panels = play("classic_mistakes", panels=3)
    told = {
        name.strip(): [float(x) for x in numbers.split()]
        for name, numbers in re.findall(r"\n(\D{36})([\d. ]+)(?=\n)", out)
    }
    assert len(told) == 5
    for name in (
        "A softmax layer before the loss",
        "A mixture's probabilities as logits",
    ):
        mistake, right, floor, *_ = told[name]
        assert floor == 1.4612  # ln(e + 9) − 1
        assert right < mistake > floor
    mistake, right, floor, *_ = told["A sigmoid layer before the loss"]
    assert 0.5 < floor < 0.6
    assert right < mistake > floor - 0.05  # of one batch, with yes where all have some
    mistake, right, *_ = told["Padding counted"]
    assert mistake < right
    mistake, right, worth, best = told["A mean of micro-batches' means"]
    assert mistake < right < 3.4
    assert best < worth
    assert losses[0] > 2
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_mnist_linen(play):
    out, losses, panels = play("mnist_linen", panels=2)
    assert number(out, r"held-out accuracy +([\d.]+)%") > 50
    assert 0.1 < number(out, r"held-out cross-entropy +([\d.]+) nats") < 1.6
    assert losses[-1] < losses[0]
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_contrastive_digits(play):
    out, losses, panels = play("contrastive_digits", panels=3)
    first = number(out, r"found first +([\d.]+)%")
    assert 1 < first < number(out, r"among the first five +([\d.]+)%")  # 0.1 by chance
    assert number(out, r"first found, same digit +([\d.]+)%") > 20
    assert 0 < number(out, r"held-out loss +([\d.]+) nats") < np.log(1000)
    assert losses[-1] < losses[0]
    assert all(0.01 < panel < 0.8 for panel in panels)


@pytest.mark.beyond_core
def test_segmentation(play):
    out, losses, panels = play("segmentation", panels=3)
    assert number(out, r"held-out background IoU +([\d.]+)%") > 50
    mean = number(out, r"held-out mean IoU, 11 classes +([\d.]+)%")
    assert 5 < mean <= 100
    assert number(out, r"held-out pixels right +([\d.]+)%") > 50
    assert 0 < number(out, r"held-out cross-entropy +([\d.]+) nats") < 2
    assert losses[-1] < losses[0]
    assert all(0.01 < panel < 0.8 for panel in panels)


@pytest.mark.beyond_core
def test_policy_gradient(play):
    out, _, panels = play("policy_gradient", panels=2)
    assert number(out, r"with every sequence, weighted +(\S+) of its length") < 1e-5
    fair = number(out, r"sampled sequences +([\d.]+)°")
    assert fair < number(out, r"with a mean of their means +([\d.]+)°") < 60
    before, after, ideal = (
        number(out, rf"\n +{name} +([\d.]+)\n")
        for name in ("before", "after", "after, by the exact gradient")
    )
    assert before < 0.05
    assert after > 2 * before
    assert ideal > 2 * before
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_preference(play):
    out, losses, panels = play("preference", panels=2, alone=True)
    ((before, after),) = re.findall(r"on one line +([\d.]+)% +([\d.]+)%\n", out)
    assert 0 < float(before) < 100
    assert 0 < float(after) <= 100
    assert number(out, r"reward margin \(nats\) +0.00 +([\d.]+)\n") > 0
    assert number(out, r"reference, k3 \(nats\) +0.00 +([\d.]+)\n") > 0
    fused = number(out, r"fused head +(\d+) MiB")
    assert 0 < fused < number(out, r"materialized logits +(\d+) MiB") / 4
    dpo = [loss for loss in losses if loss < 1]  # those of pretraining are above 6
    assert dpo[0] == pytest.approx(np.log(2), abs=1e-3)
    assert dpo[-1] < dpo[0]
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_distillation(play):
    out, losses, panels = play("distillation", panels=2, alone=True)
    frequency = number(out, r"by frequency alone +([\d,.]+)\n")
    assert number(out, r"teacher, 64 features +([\d,.]+)\n") < 2 * frequency
    for way in ("cross-entropy", "KL", "top 32"):
        perplexity = number(out, rf"16 features, {way} +([\d,.]+)\n")
        assert 100 < perplexity < 2 * frequency
    fused = number(out, r"fused heads +([\d,]+) MiB")
    assert 0 < fused < number(out, r"materialized logits +([\d,]+) MiB") / 2
    assert all(np.isfinite(losses))
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_long_tailed_mnist(play):
    out, losses, panels = play("long_tailed_mnist", panels=2)
    found = {
        line[:31].strip(): [float(x) for x in re.findall(r"([\d.]+) ±", line)]
        for line in out.splitlines()
        if "±" in line
    }
    assert len(found) == 3
    every, frequent, rare = found["cross-entropy"]
    assert frequent > 80 > every > rare
    every, frequent, rare = found["cross-entropy, adjusted after"]
    assert rare > found["cross-entropy"][2] + 5
    assert losses[0] > 1.5
    assert losses[74] < losses[0] / 2  # cross-entropy's own last step
    assert all(0.01 < panel < 0.6 for panel in panels)


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
def test_calibration(play):
    out, losses, panels = play("calibration", panels=3)
    assert 1.1 < number(out, r"fitted temperature +([\d.]+)\n") < 3
    raw, temperature, vector = (
        [float(x) for x in re.findall(r"[\d.]+", line[20:])]
        for line in out.splitlines()[3:6]
    )
    assert temperature[0] == raw[0] > 75  # no prediction changes
    assert vector[0] > 75
    assert all(scaled[1] < raw[1] for scaled in (temperature, vector))
    assert all(scaled[3] < raw[3] / 1.5 for scaled in (temperature, vector))
    assert 0 < number(out, r"\ntemperature +([\d.]+)\n") < raw[3]
    assert losses[-1] < losses[0] / 4
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_noisy_labels(play):
    out, losses, panels = play("noisy_labels", panels=2)
    for name in ("cross-entropy", "generalized", "symmetric", "Taylor"):
        line = rf"  {name} +([\d.]+)% +([\d.]+)% ± 0.0% +([\d.]+)%\n"
        ((best, last, learnt),) = re.findall(line, out)
        assert 60 < float(last) <= float(best) < 100
        assert 0 < float(learnt) < 10  # hardly any in two epochs
    assert losses[-1] < losses[0]
    assert all(0.01 < panel < 0.6 for panel in panels)


@pytest.mark.beyond_core
def test_the_noise_is_symmetric(rng):
    """A share of the labels is wrong, and each other class alike."""
    example = importlib.import_module("noisy_labels")
    labels = jnp.asarray(rng.integers(0, 10, 50_000))
    moved = (example.with_noise(labels, 0.4, rng) - labels) % 10
    shares = np.bincount(np.asarray(moved), minlength=10) / len(labels)
    np.testing.assert_allclose(shares, [0.6, *[0.4 / 9] * 9], atol=0.01)


@pytest.mark.beyond_core
def test_digit_strings(play):
    out, losses, panels = play("digit_strings", "--steps=60", panels=3)
    assert 0 < number(out, r"cross-entropy of a string +([\d.]+) nats") < 10
    assert 0 <= number(out, r"strings read right +([\d.]+)%") <= 100
    assert 0 < number(out, r"wrong, missing or extra +([\d.]+)%") <= 100
    fused = number(out, r"CTC from hidden states +(\S+) MiB")
    assert 0 < fused < number(out, r"optax.ctc_loss of logits +(\S+) MiB") / 20
    assert losses[-1] < losses[0] / 2
    assert all(0.01 < panel < 0.8 for panel in panels)


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
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
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
