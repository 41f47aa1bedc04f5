"""What the fused head refuses, in words."""

import pytest

import jxent
from tests.comparing import floats, ints, refuses, untyped


def head(*arguments, function="cross_entropy", **options):
    name = f"linear_softmax_{function}"
    return lambda: getattr(jxent, name)(*arguments, **untyped(options))


H, K, Y = floats(4, 3), floats(3, 5), ints(4)
SIZES = (
    "linear_softmax_cross_entropy: expected block_sizes to be a pair (rows, classes) "
    "of positive ints, None where any will do, got "
)
ONE_NUMBER = (
    "linear_softmax_cross_entropy: implementation='tiled' gives one number, "
    "reduction='mean' or 'sum' without statistics. For results per row give "
    "'streamed'."
)
PRECISION = (
    "linear_softmax_cross_entropy: expected one precision as jnp.dot takes it, "
    "'highest' or jax.lax.DotAlgorithmPreset.BF16_BF16_F32 say, got "
)
REFUSED = [
    (head(H, K, Y, precision="best"), ValueError, PRECISION + "'best'."),
    (
        head(H, K, Y, precision=("high", "high")),
        ValueError,
        PRECISION + "('high', 'high').",
    ),
    (head(H, K, Y, precision=32), ValueError, PRECISION + "32."),
    (
        head(floats(4, 2), K, Y),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., 3) for a kernel "
        "of shape (3, 5) with vocab_axis=-1, got (4, 2). The kernel is (features, "
        "classes).",
    ),
    (
        head(H, K.T, Y),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., 5) for a kernel "
        "of shape (5, 3) with vocab_axis=-1, got (4, 3). The kernel is (features, "
        "classes). For its transpose give vocab_axis=0.",
    ),
    (
        head(H, K, Y, vocab_axis=0),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., 5) for a kernel "
        "of shape (3, 5) with vocab_axis=0, got (4, 3). With vocab_axis=0 the kernel "
        "is (classes, features). For its transpose give vocab_axis=-1.",
    ),
    (
        head(H, floats(3, 5, 2), Y),
        ValueError,
        "linear_softmax_cross_entropy: expected a kernel of two axes and their class "
        "axis, got shape (3, 5, 2) and vocab_axis=-1. Reshape a kernel of more.",
    ),
    (
        head(H, K, Y, vocab_axis=2),
        ValueError,
        "linear_softmax_cross_entropy: expected a kernel of two axes and their class "
        "axis, got shape (3, 5) and vocab_axis=2. Reshape a kernel of more.",
    ),
    (
        head(floats(), K, Y),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., features), got a "
        "scalar.",
    ),
    (
        head(ints(4, 3), K, Y),
        TypeError,
        "linear_softmax_cross_entropy: expected floating hidden, got dtype int32. Cast "
        "them, hidden.astype(jnp.float32).",
    ),
    (
        head(H, ints(3, 5), Y),
        TypeError,
        "linear_softmax_cross_entropy: expected floating kernel, got dtype int32. Cast "
        "them, kernel.astype(jnp.float32).",
    ),
    (
        head(H, K, Y, bias=floats(4)),
        ValueError,
        "linear_softmax_cross_entropy: expected bias of shape (5,), one for each "
        "class, got (4,).",
    ),
    (
        head(H, K, Y, bias=ints(5)),
        TypeError,
        "linear_softmax_cross_entropy: expected floating bias, got dtype int32. Cast "
        "them, bias.astype(jnp.float32).",
    ),
    (
        head(H, K, Y, implementation="fused"),
        ValueError,
        "linear_softmax_cross_entropy: expected implementation to be one of ('tiled', "
        "'streamed', 'materialized') or None, got 'fused'.",
    ),
    (head(H, K, Y, implementation="tiled"), ValueError, ONE_NUMBER),
    (
        head(H, K, Y, implementation="tiled", reduction="mean", return_statistics=True),
        ValueError,
        ONE_NUMBER,
    ),
    (
        head(H, K, function="entropy", implementation="tiled"),
        ValueError,
        ONE_NUMBER.replace("cross_entropy", "entropy"),
    ),
    (head(H, K, Y, block_sizes=(0, 4)), ValueError, SIZES + "(0, 4)."),
    (head(H, K, Y, block_sizes=(4,)), ValueError, SIZES + "(4,)."),
    (head(H, K, Y, block_sizes=(2.0, 4)), ValueError, SIZES + "(2.0, 4)."),
    (
        head(H, K, ints(3)),
        ValueError,
        "linear_softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 5) without axis 1, or distributions of shape (4, 5), got (3,). "
        "Labels never broadcast; every row has its own.",
    ),
    (
        head(H, K, floats(4)),
        TypeError,
        "linear_softmax_cross_entropy: expected integer class ids, got float32 labels "
        "of shape (4,). Cast ids with labels.astype(jnp.int32). Distributions need the "
        "logits' shape (4, 5).",
    ),
    (
        head(H, K, floats(4, 5), function="log_prob"),
        ValueError,
        "linear_softmax_log_prob: expected class ids of shape (4,), the logits' shape "
        "(4, 5) without axis 1, got (4, 5). For distributions call "
        "softmax_cross_entropy.",
    ),
    (
        head(H, floats(3, 1), Y),
        ValueError,
        "linear_softmax_cross_entropy: expected at least two classes, got logits of "
        "shape (4, 1) with 1 along axis 1. Such a loss is always 0. For one number per "
        "binary label call sigmoid_binary_cross_entropy.",
    ),
    (
        head(H, K, Y, weights=floats(3)),
        ValueError,
        "linear_softmax_cross_entropy: expected weights to be a scalar or of the "
        "losses' shape (4,), got (3,). Axes of size 1 are stretched, missing ones are "
        "not.",
    ),
    (
        head(H, K, Y, class_weights=floats(4)),
        ValueError,
        "linear_softmax_cross_entropy: expected class_weights of shape (5,), one for "
        "each class, got (4,).",
    ),
    (
        head(H, K, Y, class_axis_name="model"),
        ValueError,
        "linear_softmax_cross_entropy: class_axis_name 'model' is neither bound by an "
        "enclosing shard_map nor an axis of the mesh in use (axes: []). Set the mesh "
        "with jax.set_mesh, or correct the name; a legacy `with mesh:` is not seen.",
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "text"), REFUSED, ids=[text[29:90] for *_, text in REFUSED]
)
def test_refusals(call, kind, text):
    refuses(call, kind, text)
