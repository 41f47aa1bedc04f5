"""Under checkify a label that names no class is an error which has it by name."""

import functools

import jax
import numpy as np
import pytest
from jax.experimental import checkify

import jxent
from jxent import SparseLabels, metrics
from tests.heads import of_layout


CLASSES, BAD = 8, 9
LOGITS = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)
IDS = np.array([[0, 3, 1], [7, 2, 1], [5, BAD, 4], [6, 6, 0]], np.int32)
binary = functools.partial(jxent.sigmoid_binary_cross_entropy, axis=-1)
summed = functools.partial(binary, reduction="sum")


def head(x, layout="streamed"):
    """Logits x as a product."""
    return of_layout(layout, (2, 4))(x, np.eye(CLASSES, dtype=np.float32))


CALLS = {
    "several ids": lambda x: jxent.softmax_cross_entropy(x, SparseLabels(IDS)),
    "at ids": lambda x: jxent.softmax_log_prob_at(x, IDS),
    "at ids, head": lambda x: jxent.softmax_log_prob_at(head(x), IDS),
    "among, kept": lambda x: jxent.softmax_log_prob_among(x, IDS[:, 0], IDS),
    "among, own": lambda x: jxent.softmax_log_prob_among(x, IDS[:, 1], IDS[:, :1]),
    "positives": lambda x: binary(x, SparseLabels(IDS)),
    "positives, streamed": lambda x: binary(head(x), SparseLabels(IDS)),
    "positives, tiled": lambda x: summed(head(x, "tiled"), SparseLabels(IDS)),
}
for name in (
    *("accuracy", "top_k_accuracy", "perplexity", "brier_score"),
    *("confusion_matrix", "calibration_error"),
):
    metric = getattr(metrics, name)
    CALLS[name] = lambda x, metric=metric: metric(x, IDS[:, 1])
    CALLS[f"{name} of yes and no"] = lambda x, metric=metric: metric(
        x[:, 0], IDS[:, 1] // BAD * BAD, axis=()
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_label_is_named(name):
    error, _ = checkify.checkify(jax.jit(CALLS[name]))(LOGITS)
    text = str(error.get())
    assert f"got label {BAD}" in text
    assert name.endswith("yes and no") or str(CLASSES) in text
