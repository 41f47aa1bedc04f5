"""Every sentence with which the library refuses a call, word for word."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from jxent import keras, metrics, torch
from tests.comparing import floats, ints, refuses, untyped


pytestmark = pytest.mark.every_value


@pytest.fixture(autouse=True)
def as_users_call_it(monkeypatch):
    """Without the type checker, which would speak before the library does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def sparse(ids, values=None):
    return jxent.SparseLabels(ids=ids, values=values)


def bools(*shape):
    return jax.device_put(np.zeros(shape, np.bool_))


def wide(*shape):
    """NumPy integers that int32 does not hold."""
    return np.full(shape, 2**32)


reverse = functools.partial(jxent.softmax_jensen_shannon_divergence, beta=1)


def one_loss(x):
    return jxent.softmax_cross_entropy(x, ints(4))


def with_sums(x):
    return jxent.softmax_cross_entropy_sums(x, ints(4))


REFUSED = [
    (
        lambda: jxent.softmax_cross_entropy(ints(4, 3), ints(4)),
        TypeError,
        "softmax_cross_entropy: expected floating logits, got dtype int32. Cast "
        "them, logits.astype(jnp.float32).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(jnp.zeros((4, 3), jnp.complex64), ints(4)),
        TypeError,
        "softmax_cross_entropy: expected floating logits, got dtype complex64. "
        "Cast them, logits.astype(jnp.float32).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(bools(4), bools(4)),
        TypeError,
        "sigmoid_binary_cross_entropy: expected floating logits, got dtype bool. "
        "Cast them, logits.astype(jnp.float32).",
    ),
    (
        lambda: jxent.binary_cross_entropy(ints(4), ints(4)),
        TypeError,
        "binary_cross_entropy: expected floating probs, got dtype int32. Cast "
        "them, probs.astype(jnp.float32).",
    ),
    (
        lambda: jxent.categorical_cross_entropy(ints(4, 3), ints(4)),
        TypeError,
        "categorical_cross_entropy: expected floating probs, got dtype int32. "
        "Cast them, probs.astype(jnp.float32).",
    ),
    (
        lambda: jxent.reduce(ints(4)),
        TypeError,
        "reduce: expected floating losses, got dtype int32. Cast them, "
        "losses.astype(jnp.float32).",
    ),
    (
        lambda: jxent.smooth_labels(ints(4, 3), 0.1),
        TypeError,
        "smooth_labels: expected floating labels, got dtype int32. Cast them, "
        "labels.astype(jnp.float32).",
    ),
    (
        lambda: jxent.kl_divergence(floats(4, 3), bools(4, 3)),
        TypeError,
        "kl_divergence: expected floating targets, got dtype bool. Cast them, "
        "targets.astype(jnp.float32).",
    ),
    (
        lambda: jxent.kl_divergence(ints(4, 3), floats(4, 3)),
        TypeError,
        "kl_divergence: expected floating log_predictions, got dtype int32. Are "
        "log_predictions and targets exchanged? The call is "
        "kl_divergence(log_predictions, targets).",
    ),
    (
        lambda: jxent.kl_divergence_with_log_targets(floats(4, 3), ints(4, 3)),
        TypeError,
        "kl_divergence_with_log_targets: expected floating log_targets, got dtype "
        "int32. For targets that are no logarithms, one-hot say, call kl_divergence.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), sparse(floats(4, 2))),
        TypeError,
        "softmax_cross_entropy: expected SparseLabels.ids to be integer class ids, got "
        "float32 of shape (4, 2). Cast ids with .astype(jnp.int32).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), sparse(ints(4))),
        ValueError,
        "softmax_cross_entropy: expected SparseLabels.ids of shape (4, K), K ids in "
        "place of the classes of logits of shape (4, 3), got (4,). For one id a row, "
        "jnp.expand_dims(ids, 1).",
    ),
    (
        lambda: jxent.softmax_log_prob_at(floats(4, 3, 5), ints(4, 2, 4), axis=1),
        ValueError,
        "softmax_log_prob_at: expected ids of shape (4, K, 5), K ids in place of the "
        "classes of logits of shape (4, 3, 5), got (4, 2, 4). Ids never broadcast; "
        "every row has its own.",
    ),
    (
        lambda: jxent.softmax_log_prob_among(floats(4, 3), ints(4, 1), ints(4, 2)),
        ValueError,
        "softmax_log_prob_among: expected ids of shape (4,), one id for each row of "
        "logits of shape (4, 3), got (4, 1). Drop the axis of the classes, "
        "ids.squeeze(1).",
    ),
    (
        lambda: jxent.softmax_log_prob_among(floats(4, 3), ints(1), ints(4, 2)),
        ValueError,
        "softmax_log_prob_among: expected ids of shape (4,), one id for each row of "
        "logits of shape (4, 3), got (1,). Ids never broadcast; every row has its own.",
    ),
    (
        lambda: jxent.softmax_log_prob_among(floats(4, 3), ints(4), floats(4, 2)),
        TypeError,
        "softmax_log_prob_among: expected kept to be integer class ids, got float32 of "
        "shape (4, 2). Cast ids with .astype(jnp.int32).",
    ),
    (
        lambda: jxent.softmax_log_prob_at(floats(4, 3), ints(4, 0)),
        ValueError,
        "softmax_log_prob_at: expected ids with at least one id a row, got shape "
        "(4, 0). A row without labels is dropped with where.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), sparse(ints(4, 2), floats(4, 1))
        ),
        ValueError,
        "softmax_cross_entropy: expected SparseLabels.values of the shape of its ids, "
        "(4, 2), got (4, 1). Every id has a value of its own.",
    ),
    (
        lambda: jxent.softmax_log_prob(floats(4, 3), untyped(sparse(ints(4, 2)))),
        TypeError,
        "softmax_log_prob: expected an array of labels, got SparseLabels. "
        "softmax_cross_entropy and its formulas take these; for log-probabilities at "
        "several ids call softmax_log_prob_at.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), sparse(ints(4, 2)), margin=0.1
        ),
        ValueError,
        "softmax_cross_entropy: margin needs class ids, got distributions: it is "
        "subtracted from the logit of a row's label.",
    ),
    *(
        (
            lambda k=k: jxent.softmax_top_k(floats(4, 3), k),
            ValueError,
            f"softmax_top_k: expected k between 1 and the 3 classes, got {k}.",
        )
        for k in (0, 4)
    ),
    *(
        (
            lambda loss=loss: loss(floats(4, 3), ints(4)),
            TypeError,
            f"{loss.__name__}: expected floating target_logits, got dtype int32. For "
            "class ids call softmax_cross_entropy.",
        )
        for loss in (
            jxent.softmax_kl_divergence,
            jxent.softmax_jensen_shannon_divergence,
            jxent.softmax_total_variation,
        )
    ),
    (
        lambda: jxent.softmax_kl_divergence(floats(4, 3), ints(4, 3)),
        TypeError,
        "softmax_kl_divergence: expected floating target_logits, got dtype int32. Cast "
        "them, target_logits.astype(jnp.float32).",
    ),
    # Of the reverse divergence each argument keeps its name.
    (
        lambda: reverse(floats(4, 3), floats(4, 5)),
        ValueError,
        "softmax_jensen_shannon_divergence: expected target_logits of the logits' "
        "shape (4, 3), got (4, 5). Every row is compared with one of its own; none "
        "broadcasts.",
    ),
    (
        lambda: reverse(ints(4, 3), floats(4, 3)),
        TypeError,
        "softmax_jensen_shannon_divergence: expected floating logits, got dtype int32. "
        "Cast them, logits.astype(jnp.float32).",
    ),
    (
        lambda: reverse(floats(4, 3), untyped(None)),
        TypeError,
        "softmax_jensen_shannon_divergence: expected target_logits to be an array of "
        "numbers, got None. Give an array.",
    ),
    (
        lambda: reverse(floats(4, 3), floats(4, 3), target_logit_soft_cap=-1.0),
        ValueError,
        "softmax_jensen_shannon_divergence: expected target_logit_soft_cap above 0, "
        "got -1.0.",
    ),
    (
        lambda: reverse(floats(4, 3), jxent.LinearLogits(floats(4, 2), floats(3, 2))),
        ValueError,
        "softmax_jensen_shannon_divergence: expected target_logits.hidden of shape "
        "(..., 3) for target_logits.kernel of shape (3, 2) with vocab_axis=-1, got "
        "(4, 2). A kernel is (features, classes). For its transpose give vocab_axis=0.",
    ),
    (
        lambda: jxent.softmax_kl_divergence(floats(4, 3), floats(4, 1)),
        ValueError,
        "softmax_kl_divergence: expected target_logits of the logits' shape (4, 3), "
        "got (4, 1). Every row is compared with one of its own; none broadcasts.",
    ),
    (
        lambda: jxent.softmax_total_variation(floats(4, 3), floats(5, 3)),
        ValueError,
        "softmax_total_variation: expected target_logits of the logits' shape (4, 3), "
        "got (5, 3). Every row is compared with one of its own; none broadcasts.",
    ),
    (
        lambda: jxent.softmax_jensen_shannon_divergence(
            floats(4, 3), floats(4, 3), beta=1.5
        ),
        ValueError,
        "softmax_jensen_shannon_divergence: expected beta between 0 and 1, got 1.5.",
    ),
    (
        lambda: jxent.entropy(ints(4, 3)),
        TypeError,
        "entropy: expected floating probs, got dtype int32. Cast them, "
        "probs.astype(jnp.float32).",
    ),
    (
        lambda: jxent.kl_divergence_with_log_targets(ints(4, 3), ints(4, 3)),
        TypeError,
        "kl_divergence_with_log_targets: expected floating log_predictions, got "
        "dtype int32. Cast them, log_predictions.astype(jnp.float32).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4), floats(4, 1)),
        ValueError,
        "sigmoid_binary_cross_entropy: expected labels of the logits' shape (4,),"
        " got (4, 1). Drop the last axis, labels.squeeze(-1).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4, 1), floats(4)),
        ValueError,
        "sigmoid_binary_cross_entropy: expected labels of the logits' shape (4, "
        "1), got (4,). Drop the last axis, logits.squeeze(-1).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4, 3), floats(3)),
        ValueError,
        "sigmoid_binary_cross_entropy: expected labels of the logits' shape (4, "
        "3), got (3,). Only a scalar broadcasts; give every element its own label.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 3), floats(4, 1)),
        ValueError,
        "sigmoid_focal_loss: expected labels of the logits' shape (4, 3), got (4,"
        " 1). Only a scalar broadcasts; give every element its own label.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 1, 1), floats(4, 1)),
        ValueError,
        "sigmoid_focal_loss: expected labels of the logits' shape (4, 1, 1), got "
        "(4, 1). Drop the last axis, logits.squeeze(-1).",
    ),
    (
        lambda: jxent.binary_cross_entropy(floats(4, 1), ints(4)),
        ValueError,
        "binary_cross_entropy: expected labels of the probs' shape (4, 1), got "
        "(4,). Drop the last axis, probs.squeeze(-1).",
    ),
    (
        lambda: jxent.binary_cross_entropy(floats(4, 1), ints(5)),
        ValueError,
        "binary_cross_entropy: expected labels of the probs' shape (4, 1), got "
        "(5,). Only a scalar broadcasts; give every element its own label.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4), floats(5, 1)),
        ValueError,
        "sigmoid_binary_cross_entropy: expected labels of the logits' shape (4,),"
        " got (5, 1). Only a scalar broadcasts; give every element its own label.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(), ints()),
        ValueError,
        "softmax_cross_entropy: expected logits with at least one axis, got a scalar.",
    ),
    (
        lambda: jxent.entropy(floats()),
        ValueError,
        "entropy: expected probs with at least one axis, got a scalar.",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 3), True),
        TypeError,
        "softmax_entropy: expected axis to be an int, a tuple of ints or None, "
        "got True.",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 3), untyped((0, 1.5))),
        TypeError,
        "softmax_entropy: expected axis to be an int, a tuple of ints or None, "
        "got (0, 1.5).",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 3), 2),
        ValueError,
        "softmax_entropy: axis 2 is out of range for logits of shape (4, 3).",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 3), (0, -3)),
        ValueError,
        "softmax_entropy: axis -3 is out of range for logits of shape (4, 3).",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 3), (1, -1)),
        ValueError,
        "softmax_entropy: expected different axes, got axis=(1, -1) for logits of"
        " shape (4, 3).",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 3), ()),
        ValueError,
        "softmax_entropy: expected at least one axis, got axis=() for logits of "
        "shape (4, 3).",
    ),
    (
        lambda: jxent.reduce(floats(4, 3), axis=2),
        ValueError,
        "reduce: axis 2 is out of range for losses of shape (4, 3).",
    ),
    (
        lambda: jxent.smooth_labels(floats(4, 3), 0.1, axis=5),
        ValueError,
        "smooth_labels: axis 5 is out of range for labels of shape (4, 3).",
    ),
    (
        lambda: jxent.total_weight(ints(4, 3), axis=3),
        ValueError,
        "total_weight: axis 3 is out of range for labels of shape (4, 3).",
    ),
    (
        lambda: jxent.total_weight(floats(4, 3), axis=2),
        ValueError,
        "total_weight: axis 2 is out of range for labels of shape (4, 3).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 1), ints(4)),
        ValueError,
        "softmax_cross_entropy: expected at least two classes, got logits of "
        "shape (4, 1) with 1 along axis 1. Such a loss is always 0. For one "
        "number per binary label call sigmoid_binary_cross_entropy.",
    ),
    (
        lambda: jxent.categorical_cross_entropy(floats(1, 4), ints(4), axis=0),
        ValueError,
        "categorical_cross_entropy: expected at least two classes, got probs of "
        "shape (1, 4) with 1 along axis 0. Such a loss is always 0. For one "
        "number per binary label call binary_cross_entropy.",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 1, 1), axis=(1, 2)),
        ValueError,
        "softmax_entropy: expected at least two classes, got logits of shape (4, "
        "1, 1) with 1 along axis (1, 2). Such a loss is always 0. For one number "
        "per binary label call sigmoid_binary_cross_entropy.",
    ),
    (
        lambda: jxent.softmax_focal_loss(floats(4, 0), ints(4)),
        ValueError,
        "softmax_focal_loss: expected at least two classes, got logits of shape "
        "(4, 0) with 0 along axis 1. Is this the class axis?",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 0), floats(4, 0)),
        ValueError,
        "softmax_cross_entropy: expected at least two classes, got logits of "
        "shape (4, 0) with 0 along axis 1. Is this the class axis?",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), floats(1, 3)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (1, "
        "3). Labels never broadcast; every row has its own.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), floats(4, 1)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (4, "
        "1). If these are class ids, drop that axis: labels.squeeze(1).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4, 1)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (4, "
        "1). If these are class ids, drop that axis: labels.squeeze(1).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), floats(3, 4)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (3, "
        "4). If only the order of axes differs, jnp.moveaxis(labels, 0, 1).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 3, 4), ints(2, 1, 4), axis=1),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 4), the logits' "
        "shape (2, 3, 4) without axis 1, or distributions of shape (2, 3, 4), got"
        " (2, 1, 4). If these are class ids, drop that axis: labels.squeeze(1).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(3)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (3,)."
        " Labels never broadcast; every row has its own.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), floats(3)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (3,)."
        " Labels never broadcast; every row has its own.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(5)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (5,)."
        " Labels never broadcast; every row has its own.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints()),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (). "
        "Labels never broadcast; every row has its own.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4, 3, 1)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (4, "
        "3, 1). If only the axes differ, labels.reshape(4, 3).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 3, 4), ints(2, 3), axis=1),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 4), the logits' "
        "shape (2, 3, 4) without axis 1, or distributions of shape (2, 3, 4), got"
        " (2, 3). Class ids of this shape fit with axis=2.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(3, 3, 4), ints(3, 3), axis=1),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (3, 4), the logits' "
        "shape (3, 3, 4) without axis 1, or distributions of shape (3, 3, 4), got"
        " (3, 3). Class ids of this shape fit with axis=2.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 3, 4), ints(2, 3), axis=(0, 1)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (2, 3, 4) without axis (0, 1), or distributions of shape (2, 3, "
        "4), got (2, 3). Class ids of this shape fit with axis=2.",
    ),
    (
        lambda: jxent.softmax_log_prob(floats(4, 3), ints(4, 1)),
        ValueError,
        "softmax_log_prob: expected class ids of shape (4,), the logits' shape "
        "(4, 3) without axis 1, got (4, 1). If these are class ids, drop that "
        "axis: labels.squeeze(1).",
    ),
    (
        lambda: jxent.softmax_log_prob(floats(4, 3), ints(4, 3)),
        ValueError,
        "softmax_log_prob: expected class ids of shape (4,), the logits' shape "
        "(4, 3) without axis 1, got (4, 3). For distributions call "
        "softmax_cross_entropy.",
    ),
    (
        lambda: jxent.softmax_log_prob(floats(4, 3), floats(4, 3)),
        ValueError,
        "softmax_log_prob: expected class ids of shape (4,), the logits' shape "
        "(4, 3) without axis 1, got (4, 3). For distributions call "
        "softmax_cross_entropy.",
    ),
    (
        lambda: jxent.softmax_log_prob(floats(4, 3), floats(4)),
        TypeError,
        "softmax_log_prob: expected integer class ids, got float32 labels of "
        "shape (4,). Cast ids with labels.astype(jnp.int32).",
    ),
    (
        lambda: jxent.categorical_cross_entropy(floats(4, 3), ints(4, 1)),
        ValueError,
        "categorical_cross_entropy: expected class ids of shape (4,), the probs' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (4, "
        "1). If these are class ids, drop that axis: labels.squeeze(1).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), floats(4)),
        TypeError,
        "softmax_cross_entropy: expected integer class ids, got float32 labels of"
        " shape (4,). Cast ids with labels.astype(jnp.int32). Distributions need "
        "the logits' shape (4, 3).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), bools(4)),
        TypeError,
        "softmax_cross_entropy: expected integer class ids, got boolean labels of"
        " shape (4,). For binary labels call sigmoid_binary_cross_entropy, or "
        "cast them, labels.astype(jnp.int32).",
    ),
    (
        lambda: jxent.categorical_cross_entropy(floats(4, 3), floats(4)),
        TypeError,
        "categorical_cross_entropy: expected integer class ids, got float32 "
        "labels of shape (4,). Cast ids with labels.astype(jnp.int32). "
        "Distributions need the probs' shape (4, 3).",
    ),
    (
        lambda: jxent.poly_loss_cross_entropy(floats(4, 3), floats(4)),
        TypeError,
        "poly_loss_cross_entropy: expected integer class ids, got float32 labels "
        "of shape (4,). Cast ids with labels.astype(jnp.int32). Distributions "
        "need the logits' shape (4, 3).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), floats(4, 3), ignore_index=0),
        ValueError,
        "softmax_cross_entropy: ignore_index=0 needs integer class ids, got "
        "distributions of shape (4, 3). Drop rows with where instead.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), jnp.zeros(4, jnp.uint8), ignore_index=-100
        ),
        ValueError,
        "softmax_cross_entropy: ignore_index=-100 cannot occur among labels of "
        "dtype uint8, which hold 0 to 255. Give the id that marks ignored labels "
        "there, 255 in many uint8 masks.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), jnp.zeros(4, jnp.int8), ignore_index=255
        ),
        ValueError,
        "softmax_cross_entropy: ignore_index=255 cannot occur among labels of "
        "dtype int8, which hold -128 to 127. Give the id that marks ignored "
        "labels there, 255 in many uint8 masks.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), ignore_index=2**31),
        ValueError,
        "softmax_cross_entropy: ignore_index=2147483648 cannot occur among labels"
        " of dtype int32, which hold -2147483648 to 2147483647. Give the id that "
        "marks ignored labels there, 255 in many uint8 masks.",
    ),
    (
        lambda: jxent.total_weight(floats(4, 3), ignore_index=-100),
        ValueError,
        "total_weight: ignore_index=-100 needs integer class ids, got "
        "distributions of shape (4, 3). Drop rows with where instead.",
    ),
    (
        lambda: jxent.total_weight(jnp.zeros(4, jnp.uint8), ignore_index=-100),
        ValueError,
        "total_weight: ignore_index=-100 cannot occur among labels of dtype "
        "uint8, which hold 0 to 255. Give the id that marks ignored labels there,"
        " 255 in many uint8 masks.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), ignore_index=-100.0),
        TypeError,
        "softmax_cross_entropy: expected ignore_index to be one integer, got "
        "float32 of shape ().",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), ignore_index=True),
        TypeError,
        "softmax_cross_entropy: expected ignore_index to be one integer, got bool"
        " of shape ().",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), ignore_index=(0, 1)),
        TypeError,
        "softmax_cross_entropy: expected ignore_index to be one integer, got "
        "int32 of shape (2,).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), where=floats(4)),
        TypeError,
        "softmax_cross_entropy: expected boolean where, got dtype float32. Give "
        "factors as weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), class_mask=floats(3)
        ),
        TypeError,
        "softmax_cross_entropy: expected boolean class_mask, got dtype float32. "
        "Give factors as weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4), floats(4), where=floats(4)
        ),
        TypeError,
        "sigmoid_binary_cross_entropy: expected boolean where, got dtype float32."
        " Give factors as weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.reduce(floats(4), where=floats(4)),
        TypeError,
        "reduce: expected boolean where, got dtype float32. Give factors as "
        "weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.entropy(floats(4, 3), where=floats(4, 3)),
        TypeError,
        "entropy: expected boolean where, got dtype float32. Give factors as "
        "weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.total_weight(ints(4), where=floats(4)),
        TypeError,
        "total_weight: expected boolean where, got dtype float32. Give factors as"
        " weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.smooth_labels(floats(4, 3), 0.1, where=floats(4, 3)),
        TypeError,
        "smooth_labels: expected boolean where, got dtype float32. Give factors "
        "as weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), weights=floats(3)),
        ValueError,
        "softmax_cross_entropy: expected weights to be a scalar or of the losses'"
        " shape (4,), got (3,). Factors of the classes are class_weights.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 2, 3), ints(4, 2), weights=floats(4)
        ),
        ValueError,
        "softmax_cross_entropy: expected weights to be a scalar or of the losses'"
        " shape (4, 2), got (4,). Add the missing axes, weights[:, None].",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 2, 3), ints(4, 2), weights=floats(2)
        ),
        ValueError,
        "softmax_cross_entropy: expected weights to be a scalar or of the losses'"
        " shape (4, 2), got (2,). Axes of size 1 are stretched, missing ones are "
        "not.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), weights=floats(4, 3)
        ),
        ValueError,
        "softmax_cross_entropy: expected weights to be a scalar or of the losses'"
        " shape (4,), got (4, 3). Axes of size 1 are stretched, missing ones are "
        "not.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), temperature=floats(3)
        ),
        ValueError,
        "softmax_cross_entropy: expected temperature to be a scalar or of the "
        "losses' shape (4,), got (3,). Axes of size 1 are stretched, missing ones"
        " are not.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4, 3), floats(4, 3), where=bools(4)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected where to be a scalar or of the "
        "losses' shape (4, 3), got (4,). Add the missing axes, where[:, None].",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4, 3), floats(4, 3), weights=floats(4)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected weights to be a scalar or of the "
        "losses' shape (4, 3), got (4,). Add the missing axes, weights[:, None].",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4, 3), floats(4, 3), weights=floats(3)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected weights to be a scalar or of the "
        "losses' shape (4, 3), got (3,). Factors of the classes are class_weights.",
    ),
    (
        lambda: jxent.reduce(floats(4, 3), where=bools(4)),
        ValueError,
        "reduce: expected where to be a scalar or of the losses' shape (4, 3), "
        "got (4,). Add the missing axes, where[:, None].",
    ),
    (
        lambda: jxent.reduce(floats(4, 3), weights=floats(3)),
        ValueError,
        "reduce: expected weights to be a scalar or of the losses' shape (4, 3), "
        "got (3,). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.smooth_labels(floats(4, 3), 0.1, where=bools(4)),
        ValueError,
        "smooth_labels: expected where to be a scalar or of the labels' shape (4,"
        " 3), got (4,). Add the missing axes, where[:, None].",
    ),
    (
        lambda: jxent.smooth_labels(floats(4, 3), 0.1, where=bools(3)),
        ValueError,
        "smooth_labels: expected where to be a scalar or of the labels' shape (4,"
        " 3), got (3,). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.entropy(floats(4, 3, 2), axis=(1, 2), where=bools(4)),
        ValueError,
        "entropy: expected where to be a scalar or of the probs' shape (4, 3, 2),"
        " got (4,). Add the missing axes, where[:, None, None].",
    ),
    (
        lambda: jxent.total_weight(ints(4), weights=floats(3)),
        ValueError,
        "total_weight: expected weights to be a scalar or of the losses' shape "
        "(4,), got (3,). Factors of the classes are class_weights.",
    ),
    (
        lambda: jxent.total_weight(ints(4, 3), weights=floats(4)),
        ValueError,
        "total_weight: expected weights to be a scalar or of the losses' shape "
        "(4, 3), got (4,). Add the missing axes, weights[:, None].",
    ),
    (
        lambda: jxent.total_weight(ints(4, 3), where=bools(4)),
        ValueError,
        "total_weight: expected where to be a scalar or of the losses' shape (4, "
        "3), got (4,). Add the missing axes, where[:, None].",
    ),
    (
        lambda: jxent.total_weight(floats(4, 3), weights=floats(4, 3)),
        ValueError,
        "total_weight: expected weights to be a scalar or of the losses' shape "
        "(4,), got (4, 3). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.total_weight(ints(4), where=bools(2, 5)),
        ValueError,
        "total_weight: expected a where of shape (4,) (rows) or (4, 5) (classes),"
        " got (2, 5). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), where=bools(3)),
        ValueError,
        "softmax_cross_entropy: expected a where of shape (4,) (rows) or (4, 3) "
        "(classes), got (3,). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), where=bools(3, 4)),
        ValueError,
        "softmax_cross_entropy: expected a where of shape (4,) (rows) or (4, 3) "
        "(classes), got (3, 4). Axes of size 1 are stretched, missing ones are "
        "not.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 2, 3), ints(4, 2), where=bools(4)
        ),
        ValueError,
        "softmax_cross_entropy: expected a where of shape (4, 2) (rows) or (4, 2,"
        " 3) (classes), got (4,). Add the missing axes, where[:, None].",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 3), where=bools(4, 2)),
        ValueError,
        "softmax_entropy: expected a where of shape (4,) (rows) or (4, 3) "
        "(classes), got (4, 2). Axes of size 1 are stretched, missing ones are "
        "not.",
    ),
    (
        lambda: jxent.entropy(floats(4, 3), where=bools(3)),
        ValueError,
        "entropy: expected a where of shape (4,) (rows) or (4, 3) (classes), got "
        "(3,). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.entropy(floats(4, 3), where=bools(2, 3)),
        ValueError,
        "entropy: expected a where of shape (4,) (rows) or (4, 3) (classes), got "
        "(2, 3). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), class_weights=floats(4)
        ),
        ValueError,
        "softmax_cross_entropy: expected class_weights of shape (3,), one for "
        "each class, got (4,).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), class_mask=bools(4)),
        ValueError,
        "softmax_cross_entropy: expected class_mask of shape (3,), one for each "
        "class, got (4,).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), class_mask=bools(4, 3)
        ),
        ValueError,
        "softmax_cross_entropy: expected class_mask of shape (3,), one for each "
        "class, got (4, 3).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4, 3), floats(4, 3), class_weights=floats(4)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected class_weights of shape (3,), one "
        "for each class, got (4,).",
    ),
    (
        lambda: jxent.total_weight(floats(4, 3), class_weights=floats(4)),
        ValueError,
        "total_weight: expected class_weights of shape (3,), one for each class, "
        "got (4,).",
    ),
    (
        lambda: jxent.total_weight(ints(4), class_weights=floats(4, 1)),
        ValueError,
        "total_weight: expected class_weights of shape (classes,), got (4, 1).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), label_smoothing=1.5),
        ValueError,
        "softmax_cross_entropy: expected label_smoothing between 0 and 1, got 1.5.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), label_smoothing=-0.1
        ),
        ValueError,
        "softmax_cross_entropy: expected label_smoothing between 0 and 1, got -0.1.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), z_loss=-1e-4),
        ValueError,
        "softmax_cross_entropy: expected z_loss of at least 0, got -0.0001.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), z_loss=float("nan")),
        ValueError,
        "softmax_cross_entropy: expected z_loss of at least 0, got nan.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), temperature=0),
        ValueError,
        "softmax_cross_entropy: expected temperature above 0, got 0.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), logit_soft_cap=0.0),
        ValueError,
        "softmax_cross_entropy: expected logit_soft_cap above 0, got 0.0.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), temperature=1e-46),
        ValueError,
        "softmax_cross_entropy: expected temperature of at least 1.18e-38, the least "
        "number that float32 keeps from 0, got 1e-46.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), logit_soft_cap=1e-39
        ),
        ValueError,
        "softmax_cross_entropy: expected logit_soft_cap of at least 1.18e-38, the "
        "least number that float32 keeps from 0, got 1e-39.",
    ),
    (
        lambda: jxent.softmax_focal_loss(floats(4, 3), ints(4), gamma=-1),
        ValueError,
        "softmax_focal_loss: expected gamma of at least 0, got -1.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4), floats(4), gamma=-0.5),
        ValueError,
        "sigmoid_focal_loss: expected gamma of at least 0, got -0.5.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4), floats(4), alpha=2),
        ValueError,
        "sigmoid_focal_loss: expected alpha between 0 and 1, got 2.",
    ),
    (
        lambda: jxent.asymmetric_loss(floats(4), floats(4), gamma_pos=-0.5),
        ValueError,
        "asymmetric_loss: expected gamma_pos of at least 0, got -0.5.",
    ),
    (
        lambda: jxent.asymmetric_loss(floats(4), floats(4), gamma_neg=-4),
        ValueError,
        "asymmetric_loss: expected gamma_neg of at least 0, got -4.",
    ),
    (
        lambda: jxent.asymmetric_loss(floats(4), floats(4), clip=1.05),
        ValueError,
        "asymmetric_loss: expected clip between 0 and 1, got 1.05.",
    ),
    (
        lambda: jxent.asymmetric_loss(floats(4), floats(4), clip=untyped(None)),
        TypeError,
        "asymmetric_loss: expected clip to be a number, got None. Give the number "
        "itself.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4), floats(4), label_smoothing=2
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected label_smoothing between 0 and 1, "
        "got 2.",
    ),
    (
        lambda: jxent.smooth_labels(floats(4, 3), 1.5),
        ValueError,
        "smooth_labels: expected alpha between 0 and 1, got 1.5.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), label_smoothing=floats(4)
        ),
        ValueError,
        "softmax_cross_entropy: expected label_smoothing to be a number, got "
        "shape (4,).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), logit_soft_cap=floats(4)
        ),
        ValueError,
        "softmax_cross_entropy: expected logit_soft_cap to be a number, got shape"
        " (4,).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), z_loss=floats(4)),
        ValueError,
        "softmax_cross_entropy: expected z_loss to be a number, got shape (4,).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), normalizer=floats(4), reduction="mean"
        ),
        ValueError,
        "softmax_cross_entropy: expected normalizer to be a number, got shape (4,).",
    ),
    (
        lambda: jxent.softmax_focal_loss(floats(4, 3), ints(4), gamma=floats(4)),
        ValueError,
        "softmax_focal_loss: expected gamma to be a number, got shape (4,).",
    ),
    (
        lambda: jxent.poly_loss_cross_entropy(floats(4, 3), ints(4), epsilon=floats(3)),
        ValueError,
        "poly_loss_cross_entropy: expected epsilon to be a number, got shape (3,).",
    ),
    (
        lambda: jxent.generalized_cross_entropy(floats(4, 3), ints(4), q=floats(3)),
        ValueError,
        "generalized_cross_entropy: expected q to be a number, got shape (3,).",
    ),
    (
        lambda: jxent.generalized_cross_entropy(floats(4, 3), ints(4), q=-0.1),
        ValueError,
        "generalized_cross_entropy: expected q between 0 and 1, got -0.1.",
    ),
    (
        lambda: jxent.generalized_cross_entropy(floats(4, 3), ints(4), q=1.5),
        ValueError,
        "generalized_cross_entropy: expected q between 0 and 1, got 1.5.",
    ),
    (
        lambda: jxent.taylor_cross_entropy(floats(4, 3), ints(4), order=0),
        ValueError,
        "taylor_cross_entropy: expected order of at least 1, got 0.",
    ),
    (
        lambda: jxent.taylor_cross_entropy(floats(4, 3), ints(4), order=untyped(2.5)),
        TypeError,
        "taylor_cross_entropy: expected order to be a Python integer of at least 1, "
        "got 2.5.",
    ),
    (
        lambda: jxent.symmetric_cross_entropy(floats(4, 3), ints(4), alpha=-1),
        ValueError,
        "symmetric_cross_entropy: expected alpha of at least 0, got -1.",
    ),
    (
        lambda: jxent.symmetric_cross_entropy(floats(4, 3), ints(4), beta=-0.5),
        ValueError,
        "symmetric_cross_entropy: expected beta of at least 0, got -0.5.",
    ),
    (
        lambda: jxent.symmetric_cross_entropy(floats(4, 3), ints(4), log_zero=4.0),
        ValueError,
        "symmetric_cross_entropy: expected log_zero of at most 0, got 4.0.",
    ),
    (
        lambda: jxent.symmetric_cross_entropy(
            floats(4, 3), ints(4), log_zero=untyped(None)
        ),
        TypeError,
        "symmetric_cross_entropy: expected log_zero to be a number, got None. Give the "
        "number itself.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4), floats(4), gamma=floats(4)),
        ValueError,
        "sigmoid_focal_loss: expected gamma to be a number, got shape (4,).",
    ),
    (
        lambda: jxent.asymmetric_loss(floats(4, 3), floats(4, 3), clip=floats(3)),
        ValueError,
        "asymmetric_loss: expected clip to be a number, got shape (3,).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4), floats(4), label_smoothing=floats(4)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected label_smoothing to be a number, "
        "got shape (4,).",
    ),
    (
        lambda: jxent.reduce(floats(4), normalizer=floats(4)),
        ValueError,
        "reduce: expected normalizer to be a number, got shape (4,).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), reduction=untyped("avg")
        ),
        ValueError,
        "softmax_cross_entropy: expected reduction to be one of ('none', 'mean', "
        "'sum'), got 'avg'.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), normalizer=8),
        ValueError,
        "softmax_cross_entropy: normalizer is what reduction='mean' divides by, "
        "got reduction='none'. Ask for the mean, or divide the sum yourself.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), normalizer=8, reduction="sum"
        ),
        ValueError,
        "softmax_cross_entropy: normalizer is what reduction='mean' divides by, "
        "got reduction='sum'. Ask for the mean, or divide the sum yourself.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4), floats(4), reduction=untyped("batchmean")
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected reduction to be one of ('none', "
        "'mean', 'sum'), got 'batchmean'.",
    ),
    (
        lambda: jxent.reduce(floats(4), reduction="sum", normalizer=4),
        ValueError,
        "reduce: normalizer is what reduction='mean' divides by, got "
        "reduction='sum'. Ask for the mean, or divide the sum yourself.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), reduction=untyped(None)
        ),
        ValueError,
        "softmax_cross_entropy: expected reduction to be one of ('none', 'mean', "
        "'sum'), got None.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), class_axis_name="model"
        ),
        ValueError,
        "softmax_cross_entropy: class_axis_name 'model' is neither bound by an "
        "enclosing shard_map nor an axis of the mesh in use (axes: []). Set the "
        "mesh with jax.set_mesh, or correct the name; a legacy `with mesh:` is "
        "not seen.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), batch_axis_name=("data", "model")
        ),
        ValueError,
        "softmax_cross_entropy: batch_axis_name 'data' is neither bound by an "
        "enclosing shard_map nor an axis of the mesh in use (axes: []). Set the "
        "mesh with jax.set_mesh, or correct the name; a legacy `with mesh:` is "
        "not seen.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), batch_axis_name=untyped(["data"])
        ),
        ValueError,
        "softmax_cross_entropy: expected batch_axis_name to be the name of a mesh axis "
        "or a tuple of different ones, got ['data'].",
    ),
    (
        lambda: jxent.reduce(floats(4), batch_axis_name=untyped(["data"])),
        ValueError,
        "reduce: expected batch_axis_name to be the name of a mesh axis or a tuple of "
        "different ones, got ['data'].",
    ),
    (
        lambda: jxent.reduce(floats(4), batch_axis_name="data"),
        ValueError,
        "reduce: batch_axis_name 'data' is neither bound by an enclosing "
        "shard_map nor an axis of the mesh in use (axes: []). Set the mesh with "
        "jax.set_mesh, or correct the name; a legacy `with mesh:` is not seen.",
    ),
    (
        lambda: jxent.total_weight(ints(4), batch_axis_name="data"),
        ValueError,
        "total_weight: batch_axis_name 'data' is neither bound by an enclosing "
        "shard_map nor an axis of the mesh in use (axes: []). Set the mesh with "
        "jax.set_mesh, or correct the name; a legacy `with mesh:` is not seen.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4), floats(4), batch_axis_name="data"
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: batch_axis_name 'data' is neither bound by"
        " an enclosing shard_map nor an axis of the mesh in use (axes: []). Set "
        "the mesh with jax.set_mesh, or correct the name; a legacy `with mesh:` "
        "is not seen.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4, 3), floats(4, 3), pos_weight=floats(4)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected pos_weight to be a number, or of "
        "shape (3,), one for each class of the last axis, got (4,). Add the missing "
        "axes, pos_weight[:, None].",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(3), floats(3), pos_weight=floats(4, 3)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected pos_weight to be a number, or of "
        "shape (3,), one for each class of the last axis, got (4, 3). Any shape that "
        "broadcasts to (3,) will do.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 3), floats(4, 3), alpha=floats(2)),
        ValueError,
        "sigmoid_focal_loss: expected alpha to be a number, or of shape (3,), one for "
        "each class of the last axis, got (2,). Any shape that broadcasts to (4, 3) "
        "will do.",
    ),
    (
        lambda: jxent.binary_cross_entropy(
            floats(4, 3), floats(4, 3), pos_weight=floats(4)
        ),
        ValueError,
        "binary_cross_entropy: expected pos_weight to be a number, or of shape (3,), "
        "one for each class of the last axis, got (4,). Add the missing axes, "
        "pos_weight[:, None].",
    ),
    (
        lambda: jxent.sequence_weights(),
        TypeError,
        "sequence_weights: expected where (the tokens that count), segment_ids (packed "
        "sequences), or both, got neither.",
    ),
    (
        lambda: jxent.sequence_weights(floats(4)),
        TypeError,
        "sequence_weights: expected boolean where, got dtype float32. Give factors as "
        "weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.sequence_weights(segment_ids=floats(4)),
        TypeError,
        "sequence_weights: expected integer segment_ids, got dtype float32.",
    ),
    (
        lambda: jxent.sequence_weights(bools()),
        ValueError,
        "sequence_weights: expected where of shape (..., time), got a scalar.",
    ),
    (
        lambda: jxent.sequence_weights(bools(2, 4), segment_ids=ints(4)),
        ValueError,
        "sequence_weights: expected where and segment_ids of one shape, got (2, 4) and "
        "(4,).",
    ),
    (
        lambda: jxent.next_token_labels(floats(4)),
        TypeError,
        "next_token_labels: expected integer tokens, got dtype float32.",
    ),
    (
        lambda: jxent.next_token_labels(ints()),
        ValueError,
        "next_token_labels: expected tokens of shape (..., time), got a scalar.",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), segment_ids=floats(4)),
        TypeError,
        "next_token_labels: expected integer segment_ids, got dtype float32.",
    ),
    (
        lambda: jxent.next_token_labels(ints(2, 4), segment_ids=ints(4)),
        ValueError,
        "next_token_labels: expected segment_ids of the tokens' shape (2, 4), got"
        " (4,).",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), where=floats(4)),
        TypeError,
        "next_token_labels: expected boolean where, got dtype float32. Give "
        "factors as weights, or compare, mask > 0.",
    ),
    (
        lambda: jxent.next_token_labels(ints(2, 4), where=bools(2)),
        ValueError,
        "next_token_labels: expected where to be a scalar or of the tokens' shape "
        "(2, 4), got (2,). Add the missing axes, where[:, None].",
    ),
    (
        lambda: jxent.next_token_labels(ints(2, 4), where=bools(2, 3)),
        ValueError,
        "next_token_labels: expected where to be a scalar or of the tokens' shape "
        "(2, 4), got (2, 3). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), shift=0),
        ValueError,
        "next_token_labels: expected shift of at least 1, got 0.",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), shift=-1),
        ValueError,
        "next_token_labels: expected shift of at least 1, got -1.",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), shift=True),
        TypeError,
        "next_token_labels: expected shift to be a Python integer of at least 1, "
        "got True.",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), shift=untyped(2.0)),
        TypeError,
        "next_token_labels: expected shift to be a Python integer of at least 1, "
        "got 2.0.",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), shift=untyped(None)),
        TypeError,
        "next_token_labels: expected shift to be a Python integer of at least 1, "
        "got None.",
    ),
    (
        lambda: jxent.next_token_labels(ints(4), ignore_index=2**40),
        ValueError,
        "next_token_labels: ignore_index=1099511627776 cannot occur among labels "
        "of dtype int32, which hold -2147483648 to 2147483647. Give the id that "
        "marks ignored labels there, 255 in many uint8 masks.",
    ),
    (
        lambda: jxent.total_weight(bools(4)),
        TypeError,
        "total_weight: expected class ids or distributions, got boolean labels. "
        "For losses of binary labels the total is that of where and weights: "
        "jxent.reduce(jnp.ones(labels.shape), reduction='sum', where=…).",
    ),
    (
        lambda: jxent.kl_divergence(floats(4, 3), floats(3)),
        ValueError,
        "kl_divergence: expected targets of the shape of log_predictions, (4, 3),"
        " got (3,). Neither broadcasts.",
    ),
    (
        lambda: jxent.generalized_kl_divergence(floats(4, 3), floats(4)),
        ValueError,
        "generalized_kl_divergence: expected targets of the shape of "
        "log_predictions, (4, 3), got (4,). Neither broadcasts.",
    ),
    (
        lambda: jxent.kl_divergence_with_log_targets(floats(4, 3), floats(4, 1)),
        ValueError,
        "kl_divergence_with_log_targets: expected log_targets of the shape of "
        "log_predictions, (4, 3), got (4, 1). Neither broadcasts.",
    ),
    (
        lambda: jxent.softmax_statistics(floats(4, 3)).log_prob,
        ValueError,
        "log_prob: these statistics were taken without labels.",
    ),
    (
        lambda: jxent.softmax_statistics(floats(4, 3)).entropy,
        ValueError,
        "entropy: these statistics were taken with entropy=False.",
    ),
    (
        lambda: jxent.softmax_statistics(floats(4, 3)).argmax,
        ValueError,
        "argmax: these statistics were taken with argmax=False.",
    ),
    (
        lambda: metrics.accuracy(floats(4, 1), ints(4)),
        ValueError,
        "accuracy: expected at least two classes, got logits of shape (4, 1) with 1 "
        "along axis -1. For one logit per binary label give axis=(), and logits and "
        "labels of one shape.",
    ),
    (
        lambda: metrics.brier_score(floats(4), floats(4), ()),
        TypeError,
        "brier_score: expected binary labels as booleans or as the integers 0 and 1, "
        "got dtype float32. Compare them, labels > 0.5.",
    ),
    (
        lambda: metrics.accuracy(floats(4), ints(4, 1), ()),
        ValueError,
        "accuracy: expected labels of the logits' shape (4,), got (4, 1). Drop the "
        "last axis, labels.squeeze(-1).",
    ),
    (
        lambda: metrics.top_k_accuracy(floats(4, 3), ints(4), k=0),
        ValueError,
        "top_k_accuracy: expected k of at least 1, got 0.",
    ),
    (
        lambda: jxent.total_weight(floats(4, 3), weights=floats(3)),
        ValueError,
        "total_weight: expected weights to be a scalar or of the losses' shape (4,), "
        "got (3,). Factors of the classes are class_weights.",
    ),
    (
        lambda: metrics.accuracy(floats(4, 3), ints(4), weights=floats(3)),
        ValueError,
        "accuracy: expected weights to be a scalar or of the losses' shape (4,), got "
        "(3,). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: metrics.accuracy(ints(4), ints(4)),
        TypeError,
        "accuracy: expected floating logits, got dtype int32 and the shape of the "
        "labels, (4,). Of predicted classes in place of logits the accuracy is "
        "jnp.mean(predicted == labels).",
    ),
    (
        lambda: metrics.confusion_matrix(ints(4), ints(4), axis=()),
        TypeError,
        "confusion_matrix: expected floating logits, got dtype int32 and the shape of "
        "the labels, (4,). Of predicted classes in place of logits it is "
        "jnp.zeros((classes, classes)).at[labels, predicted].add(1).",
    ),
    (
        lambda: metrics.perplexity(ints(4), ints(4)),
        TypeError,
        "perplexity: expected floating logits, got dtype int32 and the shape of the "
        "labels, (4,). Predicted classes have no probabilities: give the logits that "
        "they came from.",
    ),
    (
        lambda: jxent.contrastive_cross_entropy(
            floats(4, 3), floats(4, 3), **untyped({"temperature": 0.1})
        ),
        TypeError,
        "contrastive_cross_entropy: got an unexpected argument 'temperature'. Give "
        "logit_scale=1 / temperature.",
    ),
    (
        lambda: jxent.sigmoid_contrastive_loss(
            floats(4, 3), floats(4, 3), **untyped({"temperature": 0.1})
        ),
        TypeError,
        "sigmoid_contrastive_loss: got an unexpected argument 'temperature'. Give "
        "logit_scale=1 / temperature.",
    ),
    (
        lambda: jxent.supervised_contrastive_cross_entropy(
            floats(4, 3), ints(4), **untyped({"logit_scale": 10.0})
        ),
        TypeError,
        "supervised_contrastive_cross_entropy: got an unexpected argument "
        "'logit_scale'. Give temperature=1 / logit_scale.",
    ),
    (
        lambda: jxent.ntxent(floats(4, 3), ints(4), **untyped({"logit_scale": 10.0})),
        TypeError,
        "ntxent: got an unexpected argument 'logit_scale'. Give temperature=1 / "
        "logit_scale.",
    ),
    (
        lambda: jxent.ntxent(ints(4), floats(4, 3)),
        TypeError,
        "ntxent: expected floating embeddings, got dtype int32. Are embeddings and "
        "labels exchanged? The call is ntxent(embeddings, labels).",
    ),
    (
        lambda: jxent.supervised_contrastive_cross_entropy(ints(4), floats(4, 3)),
        TypeError,
        "supervised_contrastive_cross_entropy: expected floating x, got dtype int32. "
        "Are x and labels exchanged? The call is "
        "supervised_contrastive_cross_entropy(x, labels).",
    ),
    (
        lambda: metrics.calibration_error(
            floats(4, 3), ints(4), bins=untyped([0.0, 0.5, 0.2])
        ),
        ValueError,
        "calibration_error: expected edges of bins that do not fall, got "
        "[0.0, 0.5, 0.2]. Sort them, np.sort(bins).",
    ),
    (
        lambda: metrics.reliability_bins(
            floats(4, 3), ints(4), bins=untyped(np.array([0.0, np.nan, 1.0]))
        ),
        ValueError,
        "reliability_bins: expected edges of bins that do not fall, got an array of "
        "shape (3,) and dtype float64. Sort them, np.sort(bins).",
    ),
    (
        lambda: metrics.calibration_error(floats(4, 3), ints(4), bins=2.5),
        ValueError,
        "calibration_error: expected bins to be their number, an int, or their edges, "
        "of shape (bins + 1,), got 2.5.",
    ),
    (
        lambda: metrics.calibration_error(
            floats(4, 3), ints(4), bins=floats(3), strategy="quantile"
        ),
        ValueError,
        "calibration_error: strategy='quantile' finds the edges itself: expected bins "
        "to be their number, got an array of shape (3,) and dtype float32.",
    ),
    (
        lambda: metrics.calibration_error(floats(4, 3), ints(4), norm=untyped("L1")),
        ValueError,
        "calibration_error: expected norm to be one of ('l1', 'l2', 'max'), got 'L1'.",
    ),
    (
        lambda: metrics.calibration_error_sums(floats(4, 3), ints(4)).compute(
            untyped("l3")
        ),
        ValueError,
        "compute: expected norm to be one of ('l1', 'l2', 'max'), got 'l3'.",
    ),
    (
        lambda: jxent.class_weights_of_counts(ints(2, 3)),
        ValueError,
        "class_weights_of_counts: expected counts of shape (classes,), got (2, 3).",
    ),
    (
        lambda: jxent.class_weights_of_counts(ints(3), beta=1.0),
        ValueError,
        "class_weights_of_counts: expected beta in [0, 1), got 1.0.",
    ),
    (
        lambda: jxent.two_hot_labels(floats(4), floats(1)),
        ValueError,
        "two_hot_labels: expected a support of shape (classes,) with at least two "
        "points, got (1,).",
    ),
    (
        lambda: jxent.two_hot_labels(floats(4), [0.0, 2.0, 2.0]),
        ValueError,
        "two_hot_labels: expected a support of finite points in ascending order, no "
        "two of them equal in float32. Sort them and drop doubles by "
        "np.unique(support).",
    ),
    (
        lambda: jxent.two_hot_labels(floats(4), [-3e38, 3e38]),
        ValueError,
        "two_hot_labels: expected a support whose gaps are finite in float32, got one "
        "that overflows. Divide values and support by the same number.",
    ),
]


class Layer:
    """A module of some framework, in place of its array."""

    def __init__(self):
        self.name = "head"
        self.kernel = floats(2, 3)
        self.bias = np.zeros(3)


# What is no array, no number, no flag; and hints of what it may have been meant to be.
REFUSED += [
    (
        lambda: jxent.softmax_cross_entropy(untyped(None), ints(4)),
        TypeError,
        "softmax_cross_entropy: expected logits to be an array of numbers, got None. "
        "Give an array.",
    ),
    (
        lambda: jxent.softmax_entropy(
            untyped(jax.ShapeDtypeStruct((4, 3), jnp.float32))
        ),
        TypeError,
        "softmax_entropy: expected logits to be an array of numbers, got a shape "
        "without values. For the result's shape alone, "
        "jax.eval_shape(softmax_entropy, …).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), untyped("cat")),
        TypeError,
        "softmax_cross_entropy: expected labels to be an array of numbers, got 'cat'. "
        "Names of classes become class ids by "
        "np.unique(labels, return_inverse=True)[1].",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(2), ["yes", "no"]),
        TypeError,
        "sigmoid_binary_cross_entropy: expected labels to be an array of numbers, got "
        "a list that holds 'yes'. Names of classes become class ids by "
        "np.unique(labels, return_inverse=True)[1].",
    ),
    (
        lambda: jxent.total_weight(np.array(["cat", "dog"])),
        TypeError,
        "total_weight: expected labels to be an array of numbers, got an array of "
        "shape (2,) and dtype <U3. Names of classes become class ids by "
        "np.unique(labels, return_inverse=True)[1].",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), [0, 1, None, 2]),
        TypeError,
        "softmax_cross_entropy: expected labels to be an array of numbers, got a list "
        "that holds None. Put a number in every place.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 3), [[0, 1], [2]]),
        TypeError,
        "softmax_cross_entropy: expected labels to be an array of numbers, got "
        "[[0, 1], [2]]. Rows need one length.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 3), [0, 10**40]),
        TypeError,
        "softmax_cross_entropy: expected labels to be an array of numbers, got "
        "[0, 10000000000000000000000000000000000000000]. No integer of JAX is wide "
        "enough.",
    ),
    (
        lambda: jxent.class_weights_of_counts(np.array([3_000_000_000, 10])),
        ValueError,
        "class_weights_of_counts: expected counts of integers that 32 bits hold, got "
        "3000000000. Give floats, np.asarray(counts, float), or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.class_weights_of_counts([3_000_000_000, 10]),
        ValueError,
        "class_weights_of_counts: expected counts of integers that 32 bits hold, got "
        "3000000000. Give floats, np.asarray(counts, float), or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 2), wide(2, 2)),
        ValueError,
        "softmax_cross_entropy: expected labels of integers that 32 bits hold, got "
        "4294967296. Give floats, np.asarray(labels, float), or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 2), ints(2), weights=wide(2)),
        ValueError,
        "softmax_cross_entropy: expected weights of integers that 32 bits hold, got "
        "4294967296. Give floats, np.asarray(weights, float), or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 2), ints(2), where=wide(2)),
        ValueError,
        "softmax_cross_entropy: expected where of integers that 32 bits hold, got "
        "4294967296. Compare, where != 0, or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(2, 2), sparse(ints(2, 1), wide(2, 1))
        ),
        ValueError,
        "softmax_cross_entropy: expected SparseLabels.values of integers that 32 "
        "bits hold, got 4294967296. Give floats, np.asarray(SparseLabels.values, "
        "float), or switch 64 bits on, jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.next_token_labels(wide(3)),
        ValueError,
        "next_token_labels: expected tokens of integers that 32 bits hold, got "
        "4294967296. Number them anew, np.unique(tokens, return_inverse=True)[1], or "
        "switch 64 bits on, jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.next_token_labels(ints(3), segment_ids=wide(3)),
        ValueError,
        "next_token_labels: expected segment_ids of integers that 32 bits hold, got "
        "4294967296. Number them anew, np.unique(segment_ids, "
        "return_inverse=True)[1], or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.sequence_weights(segment_ids=-wide(3)),
        ValueError,
        "sequence_weights: expected segment_ids of integers that 32 bits hold, got "
        "-4294967296. Number them anew, np.unique(segment_ids, "
        "return_inverse=True)[1], or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.contrastive_cross_entropy(
            floats(2, 2), floats(2, 2), groups=wide(2)
        ),
        ValueError,
        "contrastive_cross_entropy: expected groups of integers that 32 bits hold, "
        "got 4294967296. Number them anew, np.unique(groups, "
        "return_inverse=True)[1], or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.supervised_contrastive_cross_entropy(floats(2, 2), wide(2)),
        ValueError,
        "supervised_contrastive_cross_entropy: expected labels of integers that 32 "
        "bits hold, got 4294967296. Number them anew, np.unique(labels, "
        "return_inverse=True)[1], or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.ntxent(floats(2, 2), [np.array(2**32), 0]),
        ValueError,
        "ntxent: expected labels of integers that 32 bits hold, got 4294967296. "
        "Number them anew, np.unique(labels, return_inverse=True)[1], or switch 64 "
        "bits on, jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.sum_over_tiles(jnp.dot, floats(2), wide(2), tile=1),
        ValueError,
        "sum_over_tiles: expected rows of integers that 32 bits hold, got "
        "4294967296. Give floats, np.asarray(rows, float), or switch 64 bits on, "
        "jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: keras.categorical_crossentropy(wide(2, 2), floats(2, 2)),
        ValueError,
        "categorical_crossentropy: expected y_true of integers that 32 bits hold, "
        "got 4294967296. Give floats, np.asarray(y_true, float), or switch 64 bits "
        "on, jax.config.update('jax_enable_x64', True).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), jnp.zeros((4, 3), jnp.complex64)
        ),
        TypeError,
        "softmax_cross_entropy: expected labels to be real numbers, got dtype "
        "complex64.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), class_weights=untyped({0: 1.0, 1: 2.0})
        ),
        TypeError,
        "softmax_cross_entropy: expected class_weights to be an array of numbers, got "
        "a dict. Give its values as an array, in the order of its keys.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), weights=untyped(["1", "2"])
        ),
        TypeError,
        "softmax_cross_entropy: expected weights to be an array of numbers, got a list "
        "that holds '1'. Convert strings to numbers first, np.asarray(weights, float).",
    ),
    (
        lambda: jxent.entropy(untyped(max)),
        TypeError,
        "entropy: expected probs to be an array of numbers, got an object of type "
        "builtin_function_or_method. Give an array.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), z_loss=True),
        TypeError,
        "softmax_cross_entropy: expected z_loss to be a number, got True. Give the "
        "number itself.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), label_smoothing=jnp.array(True)
        ),
        TypeError,
        "softmax_cross_entropy: expected label_smoothing to be a number, got an array "
        "of shape () and dtype bool. Give the number itself.",
    ),
    (
        lambda: jxent.softmax_focal_loss(floats(4, 3), ints(4), gamma=untyped(None)),
        TypeError,
        "softmax_focal_loss: expected gamma to be a number, got None. Give the number "
        "itself.",
    ),
    (
        lambda: jxent.poly_loss_cross_entropy(
            floats(4, 3), ints(4), epsilon=untyped("2")
        ),
        TypeError,
        "poly_loss_cross_entropy: expected epsilon to be a number, got '2'. Give the "
        "number itself.",
    ),
    (
        lambda: jxent.smooth_labels(floats(4, 3), untyped(None)),
        TypeError,
        "smooth_labels: expected alpha to be a number, got None. Give the number "
        "itself.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), weights=True),
        TypeError,
        "softmax_cross_entropy: expected weights to be real numbers, got True. Give "
        "the numbers themselves.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), temperature=bools(4)
        ),
        TypeError,
        "softmax_cross_entropy: expected temperature to be real numbers, got dtype "
        "bool. Give the numbers themselves.",
    ),
    (
        lambda: jxent.reduce(floats(4), normalizer=True),
        TypeError,
        "reduce: expected normalizer to be real numbers, got True. Give the numbers "
        "themselves.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), where=2),
        TypeError,
        "softmax_cross_entropy: expected boolean where, got 2. Give True, False, or an "
        "array of these, mask > 0.",
    ),
    (
        lambda: jxent.softmax_statistics(floats(4, 3), argmax=untyped("yes")),
        TypeError,
        "softmax_statistics: expected argmax to be True or False, got 'yes'.",
    ),
    (
        lambda: jax.eval_shape(jxent.softmax_cross_entropy, floats(4, 3), ints(4), -1),
        TypeError,
        "softmax_cross_entropy: expected axis to be an int, a tuple of ints or None, "
        "got an array of shape () and dtype int32. Give jax.jit "
        "static_argnames='axis'.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), ints(4), untyped(floats(3))),
        TypeError,
        "softmax_cross_entropy: expected axis to be an int, a tuple of ints or None, "
        "got an array of shape (3,) and dtype float32. Weights of classes are "
        "class_weights=, those of rows weights=.",
    ),
    (
        lambda: jxent.categorical_cross_entropy(
            floats(4, 3), ints(4), untyped((0.5, 0.25, 0.25))
        ),
        TypeError,
        "categorical_cross_entropy: expected axis to be an int, a tuple of ints or "
        "None, got (0.5, 0.25, 0.25). Weights of classes are class_weights=, those of "
        "rows weights=.",
    ),
    (
        lambda: jxent.total_weight(ints(4), axis=untyped(None)),
        TypeError,
        "total_weight: expected axis to be an int, got None.",
    ),
    # Logits and labels exchanged.
    (
        lambda: jxent.softmax_cross_entropy(ints(4), floats(4, 3)),
        TypeError,
        "softmax_cross_entropy: expected floating logits, got dtype int32. Are logits "
        "and labels exchanged? The call is softmax_cross_entropy(logits, labels).",
    ),
    (
        lambda: jxent.categorical_cross_entropy(ints(4, 3), floats(4, 3)),
        TypeError,
        "categorical_cross_entropy: expected floating probs, got dtype int32. Are "
        "probs and labels exchanged? The call is "
        "categorical_cross_entropy(probs, labels).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(bools(4), floats(4)),
        TypeError,
        "sigmoid_binary_cross_entropy: expected floating logits, got dtype bool. Are "
        "logits and labels exchanged? The call is "
        "sigmoid_binary_cross_entropy(logits, labels).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(ints(4, 3), floats(4)),
        TypeError,
        "softmax_cross_entropy: expected floating logits, got dtype int32. Cast them, "
        "logits.astype(jnp.float32).",
    ),
    # Axes elsewhere, or flattened.
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 5, 7), ints(10)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 5), the logits' shape "
        "(2, 5, 7) without axis 2, or distributions of shape (2, 5, 7), got (10,). If "
        "only the axes differ, labels.reshape(2, 5).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 5, 7), floats(2, 7, 5)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 5), the logits' shape "
        "(2, 5, 7) without axis 2, or distributions of shape (2, 5, 7), got (2, 7, 5). "
        "If only the order of axes differs, jnp.moveaxis(labels, 1, 2).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 7, 5), ints(2, 5, 7), axis=1),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 5), the logits' shape "
        "(2, 7, 5) without axis 1, or distributions of shape (2, 7, 5), got (2, 5, 7). "
        "If only the order of axes differs, jnp.moveaxis(labels, 2, 1).",
    ),
    (
        lambda: jxent.softmax_log_prob(floats(10, 7), ints(2, 5)),
        ValueError,
        "softmax_log_prob: expected class ids of shape (10,), the logits' shape "
        "(10, 7) without axis 1, got (2, 5). If only the axes differ, "
        "labels.reshape(10).",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(2, 5, 7), ints(5, 2)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 5), the logits' shape "
        "(2, 5, 7) without axis 2, or distributions of shape (2, 5, 7), got (5, 2). If "
        "only the order of axes differs, jnp.moveaxis(labels, 0, 1).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4, 3), ints(12)),
        ValueError,
        "sigmoid_binary_cross_entropy: expected labels of the logits' shape (4, 3), "
        "got (12,). If only the axes differ, labels.reshape(4, 3).",
    ),
    (
        lambda: jxent.kl_divergence(floats(4, 3), floats(3, 4)),
        ValueError,
        "kl_divergence: expected targets of the shape of log_predictions, (4, 3), got "
        "(3, 4). If only the order of axes differs, jnp.moveaxis(targets, 0, 1).",
    ),
    # Several labels a row.
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4, 3), ints(4), axis=-1),
        ValueError,
        "sigmoid_binary_cross_entropy: expected a label for every class, of the "
        "logits' shape (4, 3), or SparseLabels, got (4,). For one class id a row call "
        "softmax_cross_entropy; for lists of the positive classes give "
        "SparseLabels(ids).",
    ),
    (
        lambda: jxent.zlpr_loss(floats(4, 3), ints(3, 4)),
        ValueError,
        "zlpr_loss: expected a label for every class, of the logits' shape (4, 3), or "
        "SparseLabels, got (3, 4). If only the order of axes differs, "
        "jnp.moveaxis(labels, 0, 1).",
    ),
    (
        lambda: jxent.zlpr_loss(floats(4, 3), ints(4, 1)),
        ValueError,
        "zlpr_loss: expected a label for every class, of the logits' shape (4, 3), or "
        "SparseLabels, got (4, 1). Labels never broadcast; every class of every row "
        "has its own.",
    ),
    (
        lambda: jxent.asymmetric_loss(floats(4, 3), ints(4, 3), -1, clip=1.5),
        ValueError,
        "asymmetric_loss: expected clip between 0 and 1, got 1.5.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 3), ints(4, 3), -1, gamma=-1.0),
        ValueError,
        "sigmoid_focal_loss: expected gamma of at least 0, got -1.0.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 3), ints(4, 3), -1, alpha=floats(3)),
        ValueError,
        "sigmoid_focal_loss: expected alpha to be a number, got shape (3,).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(4, 3), ints(4, 3), -1, pos_weight=floats(4, 3)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected pos_weight of shape (3,), one for each "
        "class, got (4, 3).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4, 3), 1.0, axis=-1),
        ValueError,
        "sigmoid_binary_cross_entropy: expected a label for every class, of the "
        "logits' shape (4, 3), or SparseLabels, got (). Labels never broadcast; every "
        "class of every row has its own.",
    ),
    # What needs an axis of classes, without one.
    *(
        (
            lambda f=f, option=option: f(
                floats(4, 3), ints(4, 3), axis=(), **untyped(option)
            ),
            ValueError,
            f"{f.__name__}: {name} needs an axis of classes, got axis=(), for which "
            "every element is a row by itself. Give the axis of the classes, axis=-1.",
        )
        for f, option in (
            (jxent.sigmoid_binary_cross_entropy, {"class_mask": bools(3)}),
            (jxent.asymmetric_loss, {"logit_soft_cap": 3.0}),
            (jxent.sigmoid_binary_cross_entropy, {"temperature": 2.0}),
            (jxent.sigmoid_focal_loss, {"class_axis_name": "model"}),
            (metrics.accuracy, {"class_mask": bools(3)}),
            (metrics.perplexity_sums, {"logit_soft_cap": 3.0}),
            (metrics.brier_score, {"temperature": 2.0}),
            (metrics.calibration_error, {"class_axis_name": "model"}),
        )
        for name in option
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 3), sparse(ints(4, 2))),
        ValueError,
        "sigmoid_focal_loss: SparseLabels need an axis of classes, got axis=(), for "
        "which every element is a row by itself. Give the axis of the classes, "
        "axis=-1.",
    ),
    # Pairs and batches.
    (
        lambda: jxent.contrastive_cross_entropy(floats(2, 4, 3), floats(2, 4, 3)),
        ValueError,
        "contrastive_cross_entropy: expected x of shape (batch, features), got "
        "(2, 4, 3). Map over further axes with jax.vmap.",
    ),
    (
        lambda: jxent.contrastive_cross_entropy(floats(4, 3), floats(6, 3)),
        ValueError,
        "contrastive_cross_entropy: expected x and y of one shape, pair i being x[i] "
        "and y[i], got (4, 3) and (6, 3). Vectors without a partner are "
        "extra_candidates.",
    ),
    (
        lambda: jxent.sigmoid_contrastive_loss(floats(4, 3), floats(3, 4)),
        ValueError,
        "sigmoid_contrastive_loss: expected x and y of one shape, pair i being x[i] "
        "and y[i], got (4, 3) and (3, 4). If only the order of axes differs, "
        "jnp.moveaxis(y, 0, 1).",
    ),
    (
        lambda: jxent.sigmoid_contrastive_loss(floats(4, 3), floats(4, 5)),
        ValueError,
        "sigmoid_contrastive_loss: expected x and y of one shape, pair i being x[i] "
        "and y[i], got (4, 3) and (4, 5). Project them to the same features.",
    ),
    (
        lambda: jxent.contrastive_cross_entropy(
            floats(4, 3), floats(4, 3), extra_candidates=floats(2, 5)
        ),
        ValueError,
        "contrastive_cross_entropy: expected extra_candidates with the 3 features of "
        "y, got shape (2, 5).",
    ),
    (
        lambda: jxent.contrastive_cross_entropy(
            floats(4, 3),
            floats(4, 3),
            extra_candidates=floats(2, 3),
            candidate_bias=floats(4),
        ),
        ValueError,
        "contrastive_cross_entropy: expected candidate_bias of shape (6,), one number "
        "for each y and each of extra_candidates, got (4,).",
    ),
    (
        lambda: jxent.contrastive_cross_entropy(
            floats(4, 3), floats(4, 3), groups=ints(4, 1)
        ),
        ValueError,
        "contrastive_cross_entropy: expected groups of shape (4,), one for each row of "
        "the batch, got (4, 1).",
    ),
    (
        lambda: jxent.contrastive_cross_entropy(
            floats(4, 3), floats(4, 3), block_sizes=untyped((0, 4))
        ),
        ValueError,
        "contrastive_cross_entropy: expected block_sizes to be a pair (rows, columns) "
        "of positive ints, None where any will do, got (0, 4).",
    ),
    (
        lambda: jxent.sigmoid_contrastive_loss(
            floats(4, 3), floats(4, 3), implementation=untyped("rings")
        ),
        ValueError,
        "sigmoid_contrastive_loss: expected implementation to be one of ('gathered', "
        "'ring') or None, got 'rings'.",
    ),
    (
        lambda: jxent.supervised_contrastive_cross_entropy(
            floats(4, 3), ints(4), log=untyped("between")
        ),
        ValueError,
        "supervised_contrastive_cross_entropy: expected log to be one of ('outside', "
        "'inside'), got 'between'.",
    ),
    (
        lambda: jxent.ntxent(floats(4, 3), ints(4), 0.0),
        ValueError,
        "ntxent: expected temperature above 0, got 0.0.",
    ),
    (
        lambda: jxent.ntxent(floats(4, 3), ints(4), 1e-40),
        ValueError,
        "ntxent: expected temperature of at least 1.18e-38, the least number that "
        "float32 keeps from 0, got 1e-40.",
    ),
    (
        lambda: jxent.with_statistics(untyped(3)),
        TypeError,
        "with_statistics: expected a loss, such as jxent.softmax_cross_entropy, got 3. "
        "Its arguments follow: with_statistics(loss)(*arguments).",
    ),
    *(
        (
            functools.partial(jxent.with_statistics(untyped(loss)), floats(4, 3)),
            TypeError,
            "with_statistics: expected a function that returns one loss of one "
            f"softmax, got {came}. Call it with the loss itself, loss, rows = "
            "jxent.with_statistics(jxent.softmax_cross_entropy)(logits, labels); "
            "jxent.softmax_statistics(logits) gives the statistics of any logits.",
        )
        for loss, came in (
            (
                lambda x: jxent.softmax_kl_divergence(x, x),
                "softmax_kl_divergence, whose rows have two",
            ),
            (
                lambda x: jxent.sigmoid_focal_loss(x, bools(4, 3), axis=-1),
                "sigmoid_focal_loss, whose rows have none",
            ),
            (
                lambda x: jxent.zlpr_loss(x, bools(4, 3)),
                "zlpr_loss, whose rows have none",
            ),
            (with_sums, "with_sums, which returns something else"),
            (jxent.softmax_entropy, "softmax_entropy, which returns something else"),
            (
                jxent.softmax_statistics,
                "softmax_statistics, which returns something else",
            ),
            (
                lambda x: jxent.metrics.accuracy(x, ints(4)),
                "<lambda>, which returns something else",
            ),
            (
                jxent.with_statistics(one_loss),
                "one_loss, which returns something else",
            ),
            *(
                (loss, "one that computes with a loss")
                for loss in (
                    lambda x: one_loss(x) + one_loss(x),
                    lambda x: 2 * one_loss(x),
                    lambda x: x[0, 0] + one_loss(x) / 2,
                    lambda x: jnp.mean(untyped(one_loss(x))),
                )
            ),
        )
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "text"), REFUSED, ids=[text[:70] for *_, text in REFUSED]
)
def test_refusals(call, kind, text):
    refuses(call, kind, text)


# Any argument of any function ---------------------------------------------------------

LOGITS = {"logits": floats(4, 3)}
IDS = {"labels": ints(4)}
PROBS = {"probs": floats(4, 3)}
YES_NO = {"labels": ints(4, 3)}
INPUT = {"input": floats(4, 3)}
Y_PRED = {"y_pred": floats(4, 3)}
TARGET = {"target_logits": floats(4, 3)}
LOG_Q = {"log_predictions": floats(4, 3)}
TWO = {"x": floats(4, 3), "y": floats(4, 3)}

# The arrays of a valid call of every public function.
CALLS: dict[Any, dict[str, Any]] = {
    jxent.softmax_cross_entropy: LOGITS | IDS,
    jxent.softmax_cross_entropy_sums: LOGITS | IDS,
    jxent.softmax_focal_loss: LOGITS | IDS,
    jxent.poly_loss_cross_entropy: LOGITS | IDS,
    jxent.generalized_cross_entropy: LOGITS | IDS,
    jxent.taylor_cross_entropy: LOGITS | IDS,
    jxent.symmetric_cross_entropy: LOGITS | IDS,
    jxent.softmax_log_prob: LOGITS | IDS,
    jxent.softmax_log_prob_at: LOGITS | {"ids": ints(4, 2)},
    jxent.softmax_log_prob_among: LOGITS | {"ids": ints(4), "kept": ints(4, 2)},
    jxent.softmax_kl_divergence: LOGITS | TARGET,
    jxent.softmax_jensen_shannon_divergence: LOGITS | TARGET,
    jxent.softmax_total_variation: LOGITS | TARGET,
    jxent.softmax_entropy: LOGITS,
    jxent.softmax_statistics: LOGITS | IDS,
    jxent.softmax_top_k: LOGITS | {"k": 2},
    jxent.plan: {"function": jxent.softmax_entropy},
    jxent.with_statistics: {"loss": jxent.softmax_focal_loss},
    jxent.sigmoid_binary_cross_entropy: LOGITS | YES_NO,
    jxent.sigmoid_focal_loss: LOGITS | YES_NO,
    jxent.zlpr_loss: LOGITS | YES_NO,
    jxent.asymmetric_loss: LOGITS | YES_NO,
    jxent.binary_cross_entropy: PROBS | YES_NO,
    jxent.categorical_cross_entropy: PROBS | IDS,
    jxent.entropy: PROBS,
    jxent.kl_divergence: LOG_Q | {"targets": floats(4, 3)},
    jxent.kl_divergence_with_log_targets: LOG_Q | {"log_targets": floats(4, 3)},
    jxent.generalized_kl_divergence: LOG_Q | {"targets": floats(4, 3)},
    jxent.smooth_labels: {"labels": floats(4, 3), "alpha": 0.1},
    jxent.reduce: {"losses": floats(4)},
    jxent.total_weight: IDS,
    jxent.next_token_labels: {"tokens": ints(4)},
    jxent.sequence_weights: {"segment_ids": ints(4)},
    jxent.class_weights_of_counts: {"counts": ints(4)},
    jxent.two_hot_labels: {"values": floats(4), "support": [0.0, 1.0]},
    jxent.fit_temperature: LOGITS | IDS,
    jxent.fit_vector_scaling: LOGITS | IDS,
    metrics.accuracy: LOGITS | IDS,
    metrics.accuracy_sums: LOGITS | IDS,
    metrics.top_k_accuracy: LOGITS | IDS,
    metrics.top_k_accuracy_sums: LOGITS | IDS,
    metrics.perplexity: LOGITS | IDS,
    metrics.perplexity_sums: LOGITS | IDS,
    metrics.brier_score: LOGITS | IDS,
    metrics.brier_score_sums: LOGITS | IDS,
    metrics.calibration_error: LOGITS | IDS,
    metrics.calibration_error_sums: LOGITS | IDS,
    metrics.reliability_bins: LOGITS | IDS,
    metrics.confusion_matrix: LOGITS | IDS,
    jxent.contrastive_cross_entropy: TWO,
    jxent.sigmoid_contrastive_loss: TWO,
    jxent.supervised_contrastive_cross_entropy: {"x": floats(4, 3)} | IDS,
    jxent.ntxent: {"embeddings": floats(4, 3)} | IDS,
    torch.cross_entropy: INPUT | {"target": ints(4)},
    torch.nll_loss: INPUT | {"target": ints(4)},
    torch.linear_cross_entropy: {
        "input": floats(4, 2),
        "linear_weight": floats(3, 2),
        "target": ints(4),
    },
    torch.kl_div: INPUT | {"target": floats(4, 3)},
    torch.binary_cross_entropy: INPUT | {"target": floats(4, 3)},
    torch.binary_cross_entropy_with_logits: INPUT | {"target": floats(4, 3)},
    torch.soft_margin_loss: INPUT | {"target": floats(4, 3)},
    torch.multilabel_soft_margin_loss: INPUT | {"target": floats(4, 3)},
    keras.binary_crossentropy: Y_PRED | {"y_true": ints(4, 3)},
    keras.binary_focal_crossentropy: Y_PRED | {"y_true": ints(4, 3)},
    keras.categorical_crossentropy: Y_PRED | {"y_true": ints(4, 3)},
    keras.categorical_focal_crossentropy: Y_PRED | {"y_true": ints(4, 3)},
    keras.sparse_categorical_crossentropy: Y_PRED | {"y_true": ints(4)},
    keras.categorical_generalized_cross_entropy: Y_PRED | {"y_true": ints(4), "q": 0.5},
    keras.kl_divergence: Y_PRED | {"y_true": floats(4, 3)},
}
ELSEWHERE = {jxent.sum_over_tiles, jxent.map_over_tiles}  # test_tiles, test_maps


def test_every_function_is_called():
    functions = {
        value
        for face in (jxent, metrics, torch, keras)
        for name in face.__all__
        if inspect.isfunction(value := getattr(face, name))
    }
    assert CALLS.keys() == functions - ELSEWHERE


UNUSED = {"options"}  # by torch.linear_cross_entropy
FLAGS = {"entropy", "argmax", "log_target", "from_logits"}
FLAGS |= {"apply_class_balancing", "size_average", "reduce", "symmetric"}
LABELS = {"labels", "target", "y_true"}

# With the arguments that take it.
NONSENSE = [
    (object(), UNUSED),
    ("nonsense", UNUSED),
    ({"a": 1.0}, UNUSED),
    ({1, 2}, UNUSED),
    (Layer(), UNUSED),
    ([1.0, None], UNUSED),
    (np.array(["a", "b"]), UNUSED),
    (1j, UNUSED),
    (True, UNUSED | FLAGS | LABELS | {"where"}),
]


@pytest.mark.parametrize(
    "function", CALLS, ids=lambda f: f"{f.__module__.split('.')[1]}.{f.__name__}"
)
def test_nonsense_is_refused_in_words(function):
    """Whatever stands for an argument: a sentence that names function and argument."""
    for name in inspect.signature(function).parameters:
        for value, taken in NONSENSE:
            if name in taken:
                continue
            options = CALLS[function] | {name: value}
            if name == "normalizer":
                options["reduction"] = "mean"
            with pytest.raises((TypeError, ValueError)) as error:
                function(**options)
            text = str(error.value)
            assert text.startswith(f"{function.__name__}: "), (name, value, text)
            assert name in text or name in LABELS, (name, value, text)


# Axis names ---------------------------------------------------------------------------


def unknown_axis(argument, name, known):
    return (
        f"softmax_cross_entropy: {argument} {name!r} is neither bound by an enclosing "
        f"shard_map nor an axis of the mesh in use (axes: {known}). Set the mesh with "
        "jax.set_mesh, or correct the name; a legacy `with mesh:` is not seen."
    )


def mesh():
    automatic = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((2, 2), ("batch", "vocab"), axis_types=automatic)


@pytest.mark.parametrize("argument", ["class_axis_name", "batch_axis_name"])
def test_a_name_that_the_mesh_does_not_have(argument):
    """The sentence lists the names that the mesh does have."""
    with jax.set_mesh(mesh()), pytest.raises(ValueError, match="model") as error:
        jxent.softmax_cross_entropy(
            floats(4, 6), ints(4), **untyped({argument: "model"})
        )
    assert str(error.value) == unknown_axis(argument, "model", ["batch", "vocab"])


@pytest.mark.parametrize("argument", ["class_axis_name", "batch_axis_name"])
def test_a_name_that_shard_map_does_not_bind(argument):
    """The same where the caller's own shard_map runs over other names."""

    def loss(logits, labels):
        return jxent.softmax_cross_entropy(
            logits, labels, **untyped({argument: "model"})
        )

    split = jax.shard_map(
        loss, in_specs=(P("batch"), P("batch")), out_specs=P("batch"), mesh=mesh()
    )
    with pytest.raises(ValueError, match="model") as error:
        jax.jit(split)(floats(4, 6), ints(4))
    assert str(error.value) == unknown_axis(argument, "model", ["batch", "vocab"])


@pytest.mark.parametrize("implementation", ["streamed", "tiled", "materialized"])
def test_classes_that_do_not_divide_over_the_mesh(implementation):
    with jax.set_mesh(mesh()), pytest.raises(ValueError, match="divide") as error:
        jxent.softmax_cross_entropy(
            jxent.LinearLogits(
                floats(4, 3), floats(3, 7), implementation=implementation
            ),
            ints(4),
            reduction="mean",
            class_axis_name="vocab",
        )
    assert str(error.value) == (
        "softmax_cross_entropy: expected classes that divide evenly over the 2 devices "
        "of mesh axes ('vocab',), got 7. Pad the kernel by 1 classes, and give a "
        "class_mask that is False for them."
    )


# What is not refused ------------------------------------------------------------------


def with_arguments(names):
    """Each function of `CALLS` with each of these arguments that it has."""
    both = [
        (function, name)
        for function in CALLS
        for name in names
        if name in inspect.signature(function).parameters
    ]
    assert {name for _, name in both} == {*names}
    ids = [f"{function.__name__}-{name}" for function, name in both]
    return pytest.mark.parametrize(("function", "name"), both, ids=ids)


@with_arguments(["axis"])
def test_an_axis_may_be_an_integer_of_numpy(function, name):
    """It makes the same program."""
    arrays = dict(CALLS[function])
    static = {"k": arrays.pop("k")} if "k" in arrays else {}
    of_axis = lambda arrays, axis: function(**arrays, **static, **{name: axis})
    traced = jax.make_jaxpr(of_axis, static_argnums=1)
    assert str(traced(arrays, np.int64(-1))) == str(traced(arrays, -1))


OFF = {"label_smoothing": None, "z_loss": None, "logit_soft_cap": float("inf")}


@with_arguments(OFF)
def test_an_option_that_is_off_leaves_nothing(function, name):
    """The program is that of a call without the option."""
    f = functools.partial(function, **CALLS[function])
    off = functools.partial(f, **{name: OFF[name]})
    assert str(jax.make_jaxpr(off)()) == str(jax.make_jaxpr(f)())


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 1.5},
        {"z_loss": -1.0},
        {"temperature": -1.0},
        {"logit_soft_cap": -1.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_ranges_of_traced_numbers_are_the_callers(options):
    """A range is checked for Python numbers only, so that options may be traced."""
    ((name, value),) = options.items()

    def loss(value):
        return jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), **untyped({name: value})
        )

    with pytest.raises(ValueError, match=f"expected {name}"):
        loss(value)
    assert jax.eval_shape(loss, jnp.float32(value)).shape == (4,)


@pytest.mark.parametrize(
    ("argument", "shape"),
    [("weights", (4, 1)), ("weights", (1, 5)), ("weights", ()), ("where", (4, 1))],
)
def test_axes_of_size_1_are_stretched(argument, shape):
    """The loss's rank with axes of size 1, or a scalar, is no error."""
    value = jnp.ones(shape, jnp.float32 if argument == "weights" else jnp.bool_)
    loss = jxent.softmax_cross_entropy(
        floats(4, 5, 3), ints(4, 5), **untyped({argument: value})
    )
    assert loss.shape == (4, 5)
