"""Programs that are exported for every batch size, and run at several."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import jxent
from tests import comparing


pytestmark = pytest.mark.newest_jax


FEATURES, CLASSES = 3, 12
IMPLEMENTATIONS = [None, "streamed", "tiled", "materialized"]


def exported(f, *shapes, constraints=()):
    """`f` as a program of symbolic shapes: float32, but for "ids ", which are int32."""
    scope = export.SymbolicScope(constraints)
    arguments = [
        jax.ShapeDtypeStruct(
            export.symbolic_shape(shape.removeprefix("ids "), scope=scope),
            jnp.int32 if shape.startswith("ids ") else jnp.float32,
        )
        for shape in shapes
    ]
    return export.export(jax.jit(f))(*arguments)


close = functools.partial(comparing.close, tolerance=1e-5)


def head(rng, *rows):
    labels = rng.integers(0, CLASSES, rows)
    labels[..., -1] = -100
    return (
        rng.normal(size=(*rows, FEATURES)).astype(np.float32),
        rng.normal(size=(FEATURES, CLASSES)).astype(np.float32),
        labels.astype(np.int32),
        rng.uniform(size=rows).astype(np.float32),
    )


@pytest.mark.parametrize("block_sizes", [None, (2, 4)], ids=["planned", "given"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_head_of_any_batch(implementation, block_sizes, rng):
    layout = {"implementation": implementation, "block_sizes": block_sizes}

    def loss(hidden, kernel, labels, weights):
        return jxent.softmax_cross_entropy(
            jxent.LinearLogits(hidden, kernel, **layout),
            labels,
            ignore_index=-100,
            weights=weights,
            where=weights > 0.1,
            label_smoothing=0.1,
            reduction="mean",
        )

    f = jax.value_and_grad(loss, (0, 1))
    program = exported(f, f"b, {FEATURES}", f"{FEATURES}, {CLASSES}", "ids b", "b")
    for batch in (1, 5, 8):
        arrays = head(rng, batch)
        close(program.call(*arrays), jax.jit(f)(*arrays))


def test_rows_of_any_batch_and_time(rng):
    def f(hidden, kernel, labels):
        logits = jxent.LinearLogits(hidden, kernel)
        losses = jxent.softmax_cross_entropy, jxent.softmax_log_prob
        of_labels = [f(logits, labels, ignore_index=-100) for f in losses]
        return of_labels, jxent.softmax_entropy(logits)

    program = exported(f, f"b, t, {FEATURES}", f"{FEATURES}, {CLASSES}", "ids b, t")
    for rows in [(1, 4), (3, 2)]:
        *arrays, _ = head(rng, *rows)
        close(program.call(*arrays), jax.jit(f)(*arrays))


def in_memory(rng, batch):
    logits = rng.normal(size=(batch, CLASSES)).astype(np.float32)
    return logits, rng.integers(0, CLASSES, batch).astype(np.int32)


def test_losses_in_memory_of_any_batch(rng):
    def f(logits, labels):
        options = {"label_smoothing": 0.1, "reduction": "mean"}
        return (
            jxent.softmax_cross_entropy(logits, labels, ignore_index=-100, **options),
            jxent.softmax_focal_loss(logits, jax.nn.softmax(logits), **options),
            jxent.sigmoid_binary_cross_entropy(logits, logits > 0, **options),
            jxent.total_weight(labels, ignore_index=-100),
        )

    program = exported(f, f"b, {CLASSES}", "ids b")
    for batch in (1, 7):
        arrays = in_memory(rng, batch)
        close(program.call(*arrays), jax.jit(f)(*arrays))


def of_any_classes(logits, labels):
    """What needs no number of classes: values, and the gradients of losses."""
    options = {"label_smoothing": 0.1, "reduction": "mean"}
    losses = (
        functools.partial(jxent.softmax_cross_entropy, ignore_index=-100, **options),
        functools.partial(jxent.softmax_focal_loss, reduction="sum"),
        lambda z, y: jxent.softmax_kl_divergence(z, z, temperature=2.0).sum(),
        lambda z, y: jxent.softmax_entropy(z).sum(),
    )
    others = jxent.softmax_cross_entropy_sums, jxent.metrics.accuracy
    trained = [jax.value_and_grad(f)(logits, labels) for f in losses]
    return trained, [f(logits, labels) for f in others]


def in_memory_of_any_classes(logits, labels):
    """The same, and what takes an array alone."""

    def losses(logits):
        binary = functools.partial(jxent.sigmoid_binary_cross_entropy, axis=-1)
        return (
            jxent.softmax_cross_entropy(logits, jax.nn.softmax(logits)).sum()
            + binary(logits, logits > 0, reduction="mean")
            + jxent.categorical_cross_entropy(jax.nn.softmax(logits), labels).sum()
        )

    metrics = jxent.metrics.top_k_accuracy, jxent.metrics.confusion_matrix
    several = [metric(logits, labels) for metric in metrics]
    return of_any_classes(logits, labels), jax.value_and_grad(losses)(logits), several


def of_head_of_any_classes(hidden, kernel, labels):
    """The same, and the largest: there must be as many as are asked for."""
    logits = jxent.LinearLogits(hidden, kernel)
    return of_any_classes(logits, labels), jxent.softmax_top_k(logits, 2)


@pytest.mark.parametrize(
    ("f", "shapes", "constraints"),
    [
        (in_memory_of_any_classes, ["b, c"], []),
        (of_head_of_any_classes, ["b, 3", "3, c"], ["c >= 2"]),
    ],
    ids=["array", "head"],
)
def test_any_number_of_classes(f, shapes, constraints, rng):
    """The batch is symbolic too."""
    program = exported(f, *shapes, "ids b", constraints=constraints)
    for batch, classes in ((3, 5), (4, 40)):
        sizes = {"b": batch, "c": classes, "3": 3}
        arrays = [
            rng.normal(size=[sizes[n] for n in shape.split(", ")]).astype(np.float32)
            for shape in shapes
        ]
        labels = rng.integers(0, classes, batch).astype(np.int32)
        close(program.call(*arrays, labels), jax.jit(f)(*arrays, labels))


@pytest.mark.parametrize("implementation", ["streamed", "tiled"])
def test_blocks_of_symbolic_classes_are_refused(implementation):
    """How many blocks there are is part of the program."""

    def f(hidden, kernel, labels):
        logits = jxent.LinearLogits(hidden, kernel, implementation=implementation)
        return jxent.softmax_cross_entropy(logits, labels, reduction="mean")

    with pytest.raises(ValueError, match="expected a number of classes") as error:
        exported(f, "4, 3", "3, c", "ids 4")
    assert str(error.value) == (
        "softmax_cross_entropy: expected a number of classes that is known when the "
        f"program is traced, for implementation='{implementation}', got c. Give None "
        "or 'materialized', which forms the logits."
    )


@pytest.mark.parametrize("shift", [1, 3])
def test_labels_of_any_time(shift, rng):
    """Shorter than the shift, too."""

    def f(tokens, segment_ids):
        return jxent.next_token_labels(
            tokens, segment_ids=segment_ids, where=tokens != 4, shift=shift
        )

    program = exported(f, "ids b, t", "ids b, t")
    for time in (1, 2, 3, 9):
        tokens = rng.integers(0, 9, (2, time)).astype(np.int32)
        segments = np.cumsum(rng.random((2, time)) < 0.3, -1, dtype=np.int32)
        np.testing.assert_array_equal(
            program.call(tokens, segments), f(tokens, segments)
        )


def test_calibration_of_any_batch(rng):
    """Bins that hold equal weights of rows."""

    def f(logits, labels):
        options = {"bins": 3, "strategy": "quantile", "ignore_index": -100}
        return (
            jxent.metrics.calibration_error(logits, labels, **options),
            jxent.metrics.reliability_bins(logits, labels, **options).edges,
        )

    program = exported(f, f"b, {CLASSES}", "ids b")
    for batch in (1, 7, 40):
        arrays = in_memory(rng, batch)
        close(program.call(*arrays), jax.jit(f)(*arrays))


BUNDLES = {
    "LossSums": jxent.softmax_cross_entropy_sums,
    "SoftmaxStatistics": functools.partial(
        jxent.softmax_statistics, entropy=True, argmax=True
    ),
    "AccuracySums": jxent.metrics.accuracy_sums,
    "BrierScoreSums": jxent.metrics.brier_score_sums,
    "CalibrationErrorSums": jxent.metrics.calibration_error_sums,
    "PerplexitySums": jxent.metrics.perplexity_sums,
    "ReliabilityBins": jxent.metrics.reliability_bins,
    "SparseLabels": lambda _, labels: jxent.SparseLabels(labels),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_public_bundles_are_serialized(name, rng):
    """A program that returns one is written to bytes, and read again."""
    pytest.importorskip("flatbuffers")
    written = exported(BUNDLES[name], f"b, {CLASSES}", "ids b").serialize()
    arrays = in_memory(rng, 5)
    got: Any = export.deserialize(written).call(*arrays)
    wanted = jax.jit(BUNDLES[name])(*arrays)
    assert type(got) is type(wanted)
    assert type(got).__name__ == name
    close(got, wanted)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"block_sizes": (2, None), "implementation": "streamed"},
        {"precision": lax.Precision.HIGHEST, "implementation": "tiled"},
        {"precision": lax.DotAlgorithmPreset.F32_F32_F32, "vocab_axis": 0},
        {"precision": "highest"},
    ],
    ids=str,
)
def test_linear_logits_are_serialized(fields, rng):
    """A program that takes and returns them, with what says how they are taken."""
    pytest.importorskip("flatbuffers")
    kernel = rng.normal(size=(3, 3)).astype(np.float32)
    logits = jxent.LinearLogits(kernel[:2], kernel, **fields)
    program = export.export(jax.jit(lambda x: x[:1]))(logits)
    got: Any = export.deserialize(program.serialize()).call(logits)
    assert jax.tree.structure(got) == jax.tree.structure(logits)
    np.testing.assert_array_equal(got.hidden, kernel[:1])


def test_losses_of_torch_are_serialized():
    """A program that takes and returns them, with their options and their arrays."""
    pytest.importorskip("flatbuffers")
    losses = [
        jxent.torch.NLLLoss(weight=(0.5, 1.0, 2.0)),
        jxent.torch.CrossEntropyLoss(weight=np.arange(1.0, 4.0), ignore_index=1),
        jxent.torch.LinearCrossEntropyLoss(3, 4, key=jax.random.key(0)),
    ]
    program = export.export(jax.jit(lambda losses: losses))(losses)
    got: Any = export.deserialize(program.serialize()).call(losses)
    assert jax.tree.structure(got) == jax.tree.structure(losses)
    comparing.close(got, losses, 0)


def test_every_public_bundle_is_serialized():
    names = {
        name
        for module in (jxent, jxent.metrics)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, tuple) and name[0] != "_"
    }
    assert names - {"Plan"} == {*BUNDLES}


def test_tiles_of_a_symbolic_batch_are_refused():
    """How many tiles there are is part of the program."""

    def f(x):
        return jxent.sum_over_tiles(lambda p, x: jnp.sum(x), (), x, tile=2)

    with pytest.raises(ValueError, match="sum_over_tiles: expected a number of rows"):
        exported(f, "b, 3")
