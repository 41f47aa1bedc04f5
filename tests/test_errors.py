"""Every sentence with which the library refuses a call, word for word."""

from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from jax.sharding import PartitionSpec as P

import jxent


@pytest.fixture(autouse=True)
def as_users_call_it(monkeypatch):
    """Without the type checker, which would speak before the library does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def untyped(x) -> Any:
    """Past the static type checker too."""
    return x


def floats(*shape):
    return jnp.zeros(shape, jnp.float32)


def ints(*shape):
    return jnp.zeros(shape, jnp.int32)


def bools(*shape):
    return jnp.zeros(shape, jnp.bool_)


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
        lambda: jxent.kl_divergence(floats(4, 3), ints(4, 3)),
        TypeError,
        "kl_divergence: expected floating targets, got dtype int32. Cast them, "
        "targets.astype(jnp.float32).",
    ),
    (
        lambda: jxent.entropy(ints(4, 3)),
        TypeError,
        "entropy: expected floating probs, got dtype int32. Cast them, "
        "probs.astype(jnp.float32).",
    ),
    (
        lambda: jxent.kl_divergence_with_log_targets(ints(4, 3), floats(4, 3)),
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
        "3), got (3,). Labels never broadcast; give every element its own label.",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 3), floats(4, 1)),
        ValueError,
        "sigmoid_focal_loss: expected labels of the logits' shape (4, 3), got (4,"
        " 1). Labels never broadcast; give every element its own label.",
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
        "(5,). Labels never broadcast; give every element its own label.",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(floats(4), floats(5, 1)),
        ValueError,
        "sigmoid_binary_cross_entropy: expected labels of the logits' shape (4,),"
        " got (5, 1). Labels never broadcast; give every element its own label.",
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
        "number per yes/no label call sigmoid_binary_cross_entropy.",
    ),
    (
        lambda: jxent.categorical_cross_entropy(floats(1, 4), ints(4), axis=0),
        ValueError,
        "categorical_cross_entropy: expected at least two classes, got probs of "
        "shape (1, 4) with 1 along axis 0. Such a loss is always 0. For one "
        "number per yes/no label call binary_cross_entropy.",
    ),
    (
        lambda: jxent.softmax_entropy(floats(4, 1, 1), axis=(1, 2)),
        ValueError,
        "softmax_entropy: expected at least two classes, got logits of shape (4, "
        "1, 1) with 1 along axis (1, 2). Such a loss is always 0. For one number "
        "per yes/no label call sigmoid_binary_cross_entropy.",
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
        "4). Labels never broadcast; every row has its own.",
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
        " Class ids of this shape fit with axis=0.",
    ),
    (
        lambda: jxent.softmax_cross_entropy(floats(4, 3), floats(3)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 3) without axis 1, or distributions of shape (4, 3), got (3,)."
        " Class ids of this shape fit with axis=0.",
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
        "3, 1). Labels never broadcast; every row has its own.",
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
        " shape (4,). For yes/no labels call sigmoid_binary_cross_entropy, or "
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
        " shape (4,), got (3,). Axes of size 1 are stretched, missing ones are "
        "not.",
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
        "losses' shape (4, 3), got (3,). Axes of size 1 are stretched, missing "
        "ones are not.",
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
        "(4,), got (3,). Axes of size 1 are stretched, missing ones are not.",
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
        lambda: jxent.sigmoid_focal_loss(floats(4), floats(4), gamma=floats(4)),
        ValueError,
        "sigmoid_focal_loss: expected gamma to be a number, got shape (4,).",
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
        lambda: jxent.linear_softmax_cross_entropy(
            floats(4, 3), floats(3, 5), ints(4), class_axis_name=("model", "model")
        ),
        ValueError,
        "linear_softmax_cross_entropy: expected class_axis_name to be the name of a "
        "mesh axis or a tuple of different ones, got ('model', 'model').",
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
        "sigmoid_binary_cross_entropy: expected pos_weight that broadcasts from "
        "the class axis, the last of (4, 3), got (4,).",
    ),
    (
        lambda: jxent.sigmoid_binary_cross_entropy(
            floats(3), floats(3), pos_weight=floats(4, 3)
        ),
        ValueError,
        "sigmoid_binary_cross_entropy: expected pos_weight that broadcasts from "
        "the class axis, the last of (3,), got (4, 3).",
    ),
    (
        lambda: jxent.sigmoid_focal_loss(floats(4, 3), floats(4, 3), alpha=floats(2)),
        ValueError,
        "sigmoid_focal_loss: expected alpha that broadcasts from the class axis, "
        "the last of (4, 3), got (2,).",
    ),
    (
        lambda: jxent.binary_cross_entropy(
            floats(4, 3), floats(4, 3), pos_weight=floats(4)
        ),
        ValueError,
        "binary_cross_entropy: expected pos_weight that broadcasts from the class"
        " axis, the last of (4, 3), got (4,).",
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
        lambda: jxent.total_weight(bools(4)),
        TypeError,
        "total_weight: expected class ids or distributions, got boolean labels. "
        "For losses of yes/no labels the total is that of where and weights: "
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
        lambda: jxent.linear_softmax_statistics(floats(4, 2), floats(2, 3)).argmax,
        ValueError,
        "argmax: these statistics were taken with argmax=False.",
    ),
]


RUNS = {
    "eager": lambda call: call(),
    "jit": lambda call: jax.jit(call)(),
    "eval_shape": lambda call: jax.eval_shape(call),
}


@pytest.mark.parametrize(
    ("call", "kind", "text"), REFUSED, ids=[text[:70] for *_, text in REFUSED]
)
def test_refusals(call, kind, text):
    """The same type and the same sentence in every mode: nothing waits for values."""
    for run in RUNS.values():
        with pytest.raises(kind) as error:
            run(call)
        assert type(error.value) is kind
        assert str(error.value) == text


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
        jxent.linear_softmax_cross_entropy(
            floats(4, 3),
            floats(3, 7),
            ints(4),
            reduction="mean",
            implementation=implementation,
            class_axis_name="vocab",
        )
    assert str(error.value) == (
        "linear_softmax_cross_entropy: expected classes that divide evenly over the 2 "
        "devices of mesh axes ('vocab',), got 7. Pad the kernel by 1 classes, and give "
        "a class_mask that is False for them."
    )


# What is not refused ------------------------------------------------------------------


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
