"""What is refused of LinearLogits, and how `plan` refuses, word for word."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from jxent import keras, metrics, torch
from tests.comparing import floats, ints, refuses, untyped
from tests.test_errors import Layer, bools


pytestmark = pytest.mark.every_value


H, K, Y, D = floats(4, 3), floats(3, 5), ints(4), floats(4, 5)
ce, kl, bce = (
    jxent.softmax_cross_entropy,
    jxent.softmax_kl_divergence,
    jxent.sigmoid_binary_cross_entropy,
)
focal, entropy = jxent.softmax_focal_loss, jxent.softmax_entropy


def head(hidden=H, kernel=K, bias=None, **options):
    return jxent.LinearLogits(hidden, kernel, bias, **untyped(options))


def streamed():
    return head(implementation="streamed")


def tiled():
    return head(implementation="tiled")


WEIGHTS = " Weights of classes are class_weights=, those of rows weights=."
REDUCTION = ", with reduction='mean' or 'sum'"
REDUCED = ", or ask for reduction='mean' or 'sum', without statistics"
STREAMED = "'streamed' or 'materialized'"
WHOLE = untyped(head())


# What arrays can ----------------------------------------------------------------------

FORM = "logits.materialize() forms an array, where it fits."
TEMPERATURE = "In place of logits / t give the loss temperature=t. "
BIAS = "In place of logits + b give LinearLogits bias=b. "
LARGEST = "jxent.softmax_top_k(logits, 1) finds the largest of each row. "
STATISTICS = "jxent.softmax_statistics(logits) has the maximum and lse of each row. "
RESHAPE = "Rows have the axes of logits.hidden: reshape that. "
MASK = "class_mask= of a loss excludes classes, where= drops rows. "
CAST = "Cast the hidden states or the kernel; logits are in float32 or float64. "


def assign():
    WHOLE[0] = 1


OPERATORS: list[Any] = [
    ("/", TEMPERATURE, [lambda: WHOLE / 2, lambda: 2 / WHOLE]),
    ("*", TEMPERATURE, [lambda: WHOLE * 2, lambda: 2 * WHOLE]),
    ("+", BIAS, [lambda: WHOLE + K[0], lambda: 1 + WHOLE, lambda: WHOLE + WHOLE]),
    ("-", BIAS, [lambda: WHOLE - K[0], lambda: 1 - WHOLE]),
    ("unary -", "Negate hidden and bias. ", [lambda: -WHOLE]),
    ("//", "", [lambda: WHOLE // 2, lambda: 2 // WHOLE]),
    ("%", "", [lambda: WHOLE % 2, lambda: 2 % WHOLE]),
    ("**", "", [lambda: WHOLE**2, lambda: 2**WHOLE]),
    ("@", "", [lambda: WHOLE @ WHOLE]),
    ("comparison", "", [lambda: WHOLE > 0, lambda: WHOLE <= 0, lambda: 0 > WHOLE]),
    ("abs", "", [lambda: abs(WHOLE)]),
    ("item assignment", MASK, [assign]),
]


@pytest.mark.parametrize(
    ("name", "advice", "call"),
    [(name, advice, call) for name, advice, calls in OPERATORS for call in calls],
)
def test_an_operator_of_arrays(name, advice, call):
    text = f"LinearLogits are not an array, and have no {name}. {advice}{FORM}"
    refuses(call, TypeError, text)


METHODS = {
    LARGEST: ("argmax", "argmin", "argsort", "sort"),
    STATISTICS: ("max", "min", "mean", "sum", "std", "var", "prod"),
    CAST: ("astype",),
    RESHAPE: ("reshape", "ravel", "flatten", "squeeze", "transpose", "swapaxes")
    + ("T", "mT", "repeat"),
    MASK: ("at",),
    "logit_soft_cap= of a loss bounds its logits. ": ("clip",),
    "": ("size", "item", "round", "dot", "sharding"),
}


@pytest.mark.parametrize(
    ("name", "advice"),
    [(name, advice) for advice, names in METHODS.items() for name in names],
)
def test_a_method_of_arrays(name, advice):
    """The name is missing for `hasattr` and `getattr`, as any other that is."""
    text = f"LinearLogits are not an array, and have no {name}. {advice}{FORM}"
    refuses(lambda: getattr(WHOLE, name), AttributeError, text)
    assert not hasattr(WHOLE, name)
    assert getattr(WHOLE, name, None) is None


@pytest.mark.parametrize(
    "function",
    [
        jnp.argmax,
        jnp.mean,
        jnp.exp,
        jax.nn.softmax,
        jax.nn.log_softmax,
        jax.nn.logsumexp,
        lambda x: jnp.float32(2) * x,
        lambda x: K[0] + x,
        lambda x: jnp.stack([x, x]),
        lambda x: jnp.where(True, x, 0),
        lambda x: optax.losses.softmax_cross_entropy_with_integer_labels(x, Y),
        jnp.asarray,
        np.asarray,
        np.argmax,
        np.exp,
        lambda x: np.float32(2) * x,
    ],
)
def test_a_function_of_arrays(function):
    text = "LinearLogits are not an array: losses, metrics, … of jxent take them. "
    advice = f"{LARGEST}{STATISTICS}{TEMPERATURE}{BIAS}{FORM}"
    refuses(lambda: function(WHOLE), TypeError, text + advice)


REFUSED: list[Any] = [
    (
        lambda: ce(untyped({"logits": [head()]}), Y),
        TypeError,
        "softmax_cross_entropy: expected logits to be an array of numbers, got a dict. "
        "Give an array.",
    ),
    (
        lambda: ce(untyped([head()]), Y),
        TypeError,
        "softmax_cross_entropy: expected logits to be an array of numbers, got a list "
        "that holds LinearLogits. Put a number in every place.",
    ),
    (
        lambda: ce(head(untyped(head())), Y),
        TypeError,
        "softmax_cross_entropy: expected logits.hidden to be an array of numbers, got "
        "LinearLogits. Give an array of them, .materialize() forms one.",
    ),
    # What does not fit.
    (
        lambda: ce(head(floats(4, 2)), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.hidden of shape (..., 3) for "
        "logits.kernel of shape (3, 5) with vocab_axis=-1, got (4, 2). A kernel is "
        "(features, classes).",
    ),
    (
        lambda: ce(head(kernel=K.T), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.hidden of shape (..., 5) for "
        "logits.kernel of shape (5, 3) with vocab_axis=-1, got (4, 3). A kernel is "
        "(features, classes). For its transpose give vocab_axis=0.",
    ),
    (
        lambda: ce(head(vocab_axis=0), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.hidden of shape (..., 5) for "
        "logits.kernel of shape (3, 5) with vocab_axis=0, got (4, 3). With "
        "vocab_axis=0 a kernel is (classes, features). For its transpose give "
        "vocab_axis=-1.",
    ),
    (
        lambda: ce(head(K, H), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.hidden of shape (..., 4) for "
        "logits.kernel of shape (4, 3) with vocab_axis=-1, got (3, 5). Are "
        "logits.hidden and logits.kernel exchanged? The call is LinearLogits(hidden, "
        "kernel).",
    ),
    (
        lambda: kl(head(), head(kernel=K.T)),
        ValueError,
        "softmax_kl_divergence: expected target_logits.hidden of shape (..., 5) for "
        "target_logits.kernel of shape (5, 3) with vocab_axis=-1, got (4, 3). A "
        "kernel is (features, classes). For its transpose give vocab_axis=0.",
    ),
    (
        lambda: kl(D, head(floats(4, 2))),
        ValueError,
        "softmax_kl_divergence: expected target_logits.hidden of shape (..., 3) for "
        "target_logits.kernel of shape (3, 5) with vocab_axis=-1, got (4, 2). A "
        "kernel is (features, classes).",
    ),
    (
        lambda: ce(head(floats(2, 4, 3), floats(2, 3, 5)), ints(2, 4)),
        ValueError,
        "softmax_cross_entropy: expected logits.kernel of shape (features, classes), "
        "or (classes, features) with vocab_axis=0, got (2, 3, 5) with vocab_axis=-1. "
        "A jax.vmap or scan that returns LinearLogits stacks their kernel: for one "
        "kernel give jax.vmap out_axes=LinearLogits(0, None); for a stack of heads, "
        "jax.vmap the loss.",
    ),
    (
        lambda: ce(head(kernel=floats(3, 5, 2, 2)), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.kernel of shape (features, classes), "
        "or (classes, features) with vocab_axis=0, got (3, 5, 2, 2) with "
        "vocab_axis=-1. Reshape it, or give vocab_axis -1 or 0.",
    ),
    (
        lambda: ce(head(kernel=floats(3)), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.kernel of shape (features, classes), "
        "or (classes, features) with vocab_axis=0, got (3,) with vocab_axis=-1. "
        "Reshape it, or give vocab_axis -1 or 0.",
    ),
    (
        lambda: ce(head(vocab_axis=2), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.kernel of shape (features, classes), "
        "or (classes, features) with vocab_axis=0, got (3, 5) with vocab_axis=2. "
        "Reshape it, or give vocab_axis -1 or 0.",
    ),
    (
        lambda: ce(head(vocab_axis="classes"), Y),
        TypeError,
        "softmax_cross_entropy: expected logits.vocab_axis to be an int, got "
        "'classes'.",
    ),
    (
        lambda: ce(head(vocab_axis=True), Y),
        TypeError,
        "softmax_cross_entropy: expected logits.vocab_axis to be an int, got True.",
    ),
    (
        lambda: ce(head(floats()), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.hidden of shape (..., features), got "
        "a scalar.",
    ),
    (
        lambda: ce(head(bias=floats(4)), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.bias of shape (5,), one for each "
        "class, got (4,).",
    ),
    (
        lambda: ce(head(bias=ints(5)), Y),
        TypeError,
        "softmax_cross_entropy: expected floating logits.bias, got dtype int32. Cast "
        "them, logits.bias.astype(jnp.float32).",
    ),
    (
        lambda: ce(head(ints(4, 3)), Y),
        TypeError,
        "softmax_cross_entropy: expected floating logits.hidden, got dtype int32. "
        "Cast them, logits.hidden.astype(jnp.float32).",
    ),
    (
        lambda: ce(head(kernel=ints(3, 5)), Y),
        TypeError,
        "softmax_cross_entropy: expected floating logits.kernel, got dtype int32. "
        "Cast them, logits.kernel.astype(jnp.float32).",
    ),
    (
        lambda: kl(head(), head(kernel=ints(3, 5))),
        TypeError,
        "softmax_kl_divergence: expected floating target_logits.kernel, got dtype "
        "int32. Cast them, target_logits.kernel.astype(jnp.float32).",
    ),
    (
        lambda: ce(head(kernel=untyped(Layer())), Y),
        TypeError,
        "softmax_cross_entropy: expected logits.kernel to be an array of numbers, got "
        "an object of type Layer. Give an array that it holds: logits.kernel.kernel "
        "or logits.kernel.bias.",
    ),
    (
        lambda: entropy(head(kernel=untyped({"embedding": K}))),
        TypeError,
        "softmax_entropy: expected logits.kernel to be an array of numbers, got a "
        "dict. Give an array that it holds: logits.kernel['embedding'].",
    ),
    (
        lambda: ce(head(kernel=untyped(None)), Y),
        TypeError,
        "softmax_cross_entropy: expected logits.kernel to be an array of numbers, got "
        "None. Give an array.",
    ),
    (
        lambda: ce(head(untyped(P("data"))), Y),
        TypeError,
        "softmax_cross_entropy: expected logits.hidden to be an array of numbers, got "
        "an object of type P. Give an array.",
    ),
    (
        lambda: head(kernel=K.T).materialize(),
        ValueError,
        "LinearLogits.materialize: expected hidden of shape (..., 5) for kernel of "
        "shape (5, 3) with vocab_axis=-1, got (4, 3). A kernel is (features, "
        "classes). For its transpose give vocab_axis=0.",
    ),
    # Exchanged.
    (
        lambda: ce(Y, untyped(head())),
        TypeError,
        "softmax_cross_entropy: expected floating logits, got dtype int32. Are logits "
        "and labels exchanged? The call is softmax_cross_entropy(logits, labels).",
    ),
    (
        lambda: ce(head(H, Y), K),
        TypeError,
        "softmax_cross_entropy: expected floating logits.kernel, got dtype int32. Are "
        "logits.kernel and labels exchanged? The call is "
        "softmax_cross_entropy(LinearLogits(hidden, kernel), labels).",
    ),
    (
        lambda: ce(head(Y, K), H),
        TypeError,
        "softmax_cross_entropy: expected floating logits.hidden, got dtype int32. Are "
        "logits.hidden and labels exchanged? The call is "
        "softmax_cross_entropy(LinearLogits(hidden, kernel), labels).",
    ),
    (
        lambda: kl(head(), Y),
        TypeError,
        "softmax_kl_divergence: expected floating target_logits, got dtype int32. For "
        "class ids call softmax_cross_entropy.",
    ),
    (
        lambda: ce(D, untyped(head())),
        TypeError,
        "softmax_cross_entropy: expected labels to be an array of numbers, got "
        "LinearLogits. Give an array of them, .materialize() forms one.",
    ),
    # Labels and options.
    (
        lambda: ce(head(), ints(3)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (4,), the logits' shape "
        "(4, 5) without axis 1, or distributions of shape (4, 5), got (3,). Labels "
        "never broadcast; every row has its own.",
    ),
    (
        lambda: ce(head(), floats(4)),
        TypeError,
        "softmax_cross_entropy: expected integer class ids, got float32 labels of "
        "shape (4,). Cast ids with labels.astype(jnp.int32). Distributions need the "
        "logits' shape (4, 5).",
    ),
    (
        lambda: ce(head(), untyped(None)),
        TypeError,
        "softmax_cross_entropy: expected labels, got None.",
    ),
    (
        lambda: ce(head(floats(2, 5, 3)), ints(2, 2)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 5), the logits' shape "
        "(2, 5, 5) without axis 2, or distributions of shape (2, 5, 5), got (2, 2). "
        "Labels never broadcast; every row has its own.",
    ),
    (
        lambda: ce(head(floats(2, 5, 3), floats(3, 4)), ints(2, 4)),
        ValueError,
        "softmax_cross_entropy: expected class ids of shape (2, 5), the logits' shape "
        "(2, 5, 4) without axis 2, or distributions of shape (2, 5, 4), got (2, 4). "
        "Labels never broadcast; every row has its own.",
    ),
    (
        lambda: jxent.softmax_log_prob(head(), D),
        ValueError,
        "softmax_log_prob: expected class ids of shape (4,), the logits' shape (4, 5) "
        "without axis 1, got (4, 5). For distributions call softmax_cross_entropy.",
    ),
    (
        lambda: ce(head(kernel=floats(3, 1)), Y),
        ValueError,
        "softmax_cross_entropy: expected at least two classes, got logits of shape "
        "(4, 1) with 1 along axis 1. Such a loss is always 0. For one number per "
        "binary label call sigmoid_binary_cross_entropy.",
    ),
    (
        lambda: ce(head(), Y, weights=floats(3)),
        ValueError,
        "softmax_cross_entropy: expected weights to be a scalar or of the losses' "
        "shape (4,), got (3,). Axes of size 1 are stretched, missing ones are not.",
    ),
    (
        lambda: ce(head(), Y, class_weights=floats(4)),
        ValueError,
        "softmax_cross_entropy: expected class_weights of shape (5,), one for each "
        "class, got (4,).",
    ),
    (
        lambda: ce(head(), Y, class_axis_name="model"),
        ValueError,
        "softmax_cross_entropy: class_axis_name 'model' is neither bound by an "
        "enclosing shard_map nor an axis of the mesh in use (axes: []). Set the mesh "
        "with jax.set_mesh, or correct the name; a legacy `with mesh:` is not seen.",
    ),
    (
        lambda: ce(head(), Y, class_axis_name=("model", "model")),
        ValueError,
        "softmax_cross_entropy: expected class_axis_name to be the name of a mesh "
        "axis or a tuple of different ones, got ('model', 'model').",
    ),
    (
        lambda: jxent.softmax_top_k(head(), 9),
        ValueError,
        "softmax_top_k: expected k between 1 and the 5 classes, got 9.",
    ),
    (
        lambda: jxent.softmax_statistics(head()).argmax,
        ValueError,
        "argmax: these statistics were taken with argmax=False.",
    ),
    (
        lambda: metrics.accuracy(head(), untyped(jxent.SparseLabels(ints(4, 2)))),
        TypeError,
        "accuracy: expected an array of labels, got SparseLabels. "
        "softmax_cross_entropy and its formulas take these; for log-probabilities at "
        "several ids call softmax_log_prob_at.",
    ),
    # Two.
    (
        lambda: kl(head(), head(floats(5, 3))),
        ValueError,
        "softmax_kl_divergence: expected target_logits of the logits' shape (4, 5), "
        "got (5, 5). Every row is compared with one of its own; none broadcasts.",
    ),
    (
        lambda: kl(floats(2, 5), head()),
        ValueError,
        "softmax_kl_divergence: expected target_logits of the logits' shape (2, 5), "
        "got (4, 5). Every row is compared with one of its own; none broadcasts.",
    ),
    (
        lambda: kl(head(), head(kernel=floats(3, 6))),
        ValueError,
        "softmax_kl_divergence: expected target_logits of the logits' shape (4, 5), "
        "got (4, 6). Pad the kernel of fewer classes, and give a class_mask that is "
        "False for the classes that only one of them has.",
    ),
    (
        lambda: jxent.softmax_jensen_shannon_divergence(head(), floats(4, 6)),
        ValueError,
        "softmax_jensen_shannon_divergence: expected target_logits of the logits' "
        "shape (4, 5), got (4, 6). Pad the kernel of fewer classes, and give a "
        "class_mask that is False for the classes that only one of them has.",
    ),
    (
        lambda: kl(head(block_sizes=(2, 2)), head(block_sizes=(4, 2))),
        ValueError,
        "softmax_kl_divergence: expected one block_sizes for logits and "
        "target_logits, got (2, 2) and (4, 2). Give it to one of them alone, or the "
        "same to both.",
    ),
    (
        lambda: kl(
            head(implementation="streamed"),
            head(implementation="tiled"),
            reduction="mean",
        ),
        ValueError,
        "softmax_kl_divergence: expected one implementation for logits and "
        "target_logits, got 'streamed' and 'tiled'. Give it to one of them alone, or "
        "the same to both.",
    ),
    # plan.
    (
        lambda: jxent.plan(untyped(3)),
        TypeError,
        "plan: expected a function, such as jxent.softmax_cross_entropy, got 3. Its "
        "arguments follow: plan(function)(*arguments).",
    ),
    (
        lambda: jxent.plan(untyped(head())),
        TypeError,
        "plan: expected a function, such as jxent.softmax_cross_entropy, got "
        "LinearLogits. Its arguments follow: plan(function)(*arguments).",
    ),
    (
        lambda: jxent.plan(entropy)(D),
        ValueError,
        "plan: expected a function in which one call of jxent takes LinearLogits, "
        "found none. Give LinearLogits where it takes logits.",
    ),
    (
        lambda: jxent.plan(lambda x: ce(x, Y) + entropy(x))(head()),
        ValueError,
        "plan: expected a function in which one call of jxent takes LinearLogits, "
        "found several: softmax_cross_entropy 'materialized' (4, 5), softmax_entropy "
        "'materialized' (4, 5). Plan each by itself.",
    ),
    (
        lambda: jxent.plan(ce)(head(kernel=K.T), Y),
        ValueError,
        "softmax_cross_entropy: expected logits.hidden of shape (..., 5) for "
        "logits.kernel of shape (5, 3) with vocab_axis=-1, got (4, 3). A kernel is "
        "(features, classes). For its transpose give vocab_axis=0.",
    ),
    (
        lambda: jxent.plan(ce)(head(implementation="tiled"), Y),
        ValueError,
        "softmax_cross_entropy: implementation='tiled' gives one number, the mean or "
        "the sum of a loss. Give LinearLogits implementation='streamed' or "
        "'materialized', or ask for reduction='mean' or 'sum', without statistics.",
    ),
    (
        lambda: jxent.plan(ce, platform="cuda"),
        ValueError,
        "plan: expected platform to be one of ('cpu', 'gpu', 'tpu') or None, got "
        "'cuda'.",
    ),
    (
        lambda: jxent.plan(ce)(head(), Y).temporary_bytes(gradients=untyped("yes")),
        TypeError,
        "temporary_bytes: expected gradients to be True or False, got 'yes'.",
    ),
    # Hidden states and a kernel, typed where logits and labels stand.
    *(
        (
            call,
            TypeError,
            f"{name}: expected axis to be an int, a tuple of ints or None, got an "
            f"array of shape {came.shape} and dtype {came.dtype}.{WEIGHTS * weights} "
            "For logits hidden @ kernel give LinearLogits(hidden, kernel).",
        )
        for call, name, came, weights in (
            (lambda: ce(H, K, untyped(Y)), "softmax_cross_entropy", Y, False),
            (lambda: ce(H, K, untyped(D)), "softmax_cross_entropy", D, True),
            (lambda: focal(H, K, untyped(Y)), "softmax_focal_loss", Y, False),
            (
                lambda: jxent.softmax_log_prob(H, K, untyped(Y)),
                "softmax_log_prob",
                Y,
                False,
            ),
            (lambda: entropy(H, untyped(K)), "softmax_entropy", K, False),
            (lambda: kl(H, K, untyped(H)), "softmax_kl_divergence", H, True),
            (
                lambda: bce(H, K, untyped(ints(4, 5))),
                "sigmoid_binary_cross_entropy",
                ints(4, 5),
                False,
            ),
            (lambda: metrics.accuracy(H, K, untyped(Y)), "accuracy", Y, False),
        )
    ),
    (
        lambda: jxent.softmax_top_k(H, untyped(K), 2),
        TypeError,
        "softmax_top_k: expected k to be an int, got an array of shape (3, 5) and "
        "dtype float32.",
    ),
    (
        lambda: bce(D, ints(4, 5), untyped(bools(4, 5))),
        TypeError,
        "sigmoid_binary_cross_entropy: expected axis to be an int, a tuple of ints or "
        "None, got an array of shape (4, 5) and dtype bool. A mask is where=.",
    ),
    # Another axis than the last.
    *(
        (
            call,
            ValueError,
            f"{name}: LinearLogits have their classes in the last axis, got "
            f"axis={axis} for logits of shape (4, 5). Give axis=-1, and labels in that "
            "order.",
        )
        for call, name, axis in (
            (lambda: ce(head(), ints(5), axis=0), "softmax_cross_entropy", 0),
            (lambda: ce(head(), ints(), (0, 1)), "softmax_cross_entropy", (0, 1)),
            (lambda: entropy(head(), axis=None), "softmax_entropy", None),
            (lambda: kl(D, head(), axis=0), "softmax_kl_divergence", 0),
            (
                lambda: bce(head(), ints(4, 5), axis=0),
                "sigmoid_binary_cross_entropy",
                0,
            ),
            (lambda: metrics.accuracy(head(), ints(5), axis=0), "accuracy", 0),
        )
    ),
    *(
        (
            call,
            ValueError,
            f"{name}: LinearLogits need an axis of classes, got axis=(), for which "
            "every element is a row by itself. Give the axis of the classes, axis=-1.",
        )
        for call, name in (
            (lambda: bce(head(), ints(4, 5)), "sigmoid_binary_cross_entropy"),
            (lambda: bce(D, untyped(head())), "sigmoid_binary_cross_entropy"),
            (lambda: jxent.asymmetric_loss(head(), ints(4, 5)), "asymmetric_loss"),
            (
                lambda: jxent.sigmoid_focal_loss(head(), ints(4, 5), axis=()),
                "sigmoid_focal_loss",
            ),
            (lambda: metrics.accuracy(head(), ints(4, 5), axis=()), "accuracy"),
        )
    ),
    # A layout that does not give the result.
    *(
        (
            call,
            ValueError,
            f"{name}: implementation='tiled' gives one number, the mean or the sum of "
            f"a loss. Give LinearLogits implementation={others}.",
        )
        for call, name, others in (
            (lambda: ce(tiled(), Y), "softmax_cross_entropy", STREAMED + REDUCED),
            (
                lambda: jxent.with_statistics(ce)(tiled(), Y, reduction="mean"),
                "softmax_cross_entropy",
                STREAMED + REDUCED,
            ),
            (
                lambda: focal(tiled(), D),
                "softmax_focal_loss",
                "'materialized'" + REDUCED,
            ),
            (lambda: entropy(tiled()), "softmax_entropy", STREAMED),
            (lambda: jxent.softmax_top_k(tiled(), 2), "softmax_top_k", STREAMED),
            (
                lambda: jxent.softmax_cross_entropy_sums(tiled(), Y),
                "softmax_cross_entropy_sums",
                STREAMED,
            ),
            (lambda: metrics.perplexity(tiled(), Y), "perplexity", STREAMED),
            (lambda: jxent.plan(entropy)(tiled()), "softmax_entropy", STREAMED),
        )
    ),
    *(
        (
            call,
            ValueError,
            f"{name}: label smoothing and distributions need every log p of a row, "
            "which a stream of blocks does not keep. Give LinearLogits "
            f"implementation='materialized' or 'tiled'{reduced}.",
        )
        for call, name, reduced in (
            (lambda: focal(streamed(), D), "softmax_focal_loss", REDUCTION),
            (
                lambda: jxent.generalized_cross_entropy(
                    streamed(), Y, label_smoothing=0.1, reduction="mean"
                ),
                "generalized_cross_entropy",
                "",
            ),
            (
                lambda: jxent.symmetric_cross_entropy(streamed(), D),
                "symmetric_cross_entropy",
                REDUCTION,
            ),
            (  # planned, as so many logits are not materialized unasked
                lambda: jxent.taylor_cross_entropy(
                    head(floats(1024, 3), floats(3, 8192)), floats(1024, 8192)
                ),
                "taylor_cross_entropy",
                REDUCTION,
            ),
        )
    ),
    # What layouts and precisions there are.
    (
        lambda: ce(head(implementation="fused"), Y),
        ValueError,
        "softmax_cross_entropy: expected implementation to be one of ('tiled', "
        "'streamed', 'materialized') or None, got 'fused'.",
    ),
    *(
        (
            lambda sizes=sizes: ce(head(block_sizes=sizes), Y),
            ValueError,
            "softmax_cross_entropy: expected block_sizes to be a pair (rows, classes) "
            f"of positive ints, None where any will do, got {sizes}.",
        )
        for sizes in ((0, 4), (4,), (2.0, 4), 4)
    ),
    *(
        (
            lambda precision=precision: ce(head(precision=precision), Y),
            ValueError,
            "softmax_cross_entropy: expected one precision as jnp.dot takes it, "
            "'highest' or jax.lax.DotAlgorithmPreset.BF16_BF16_F32 say, got "
            f"{precision!r}.",
        )
        for precision in ("best", ("high", "high"), 32)
    ),
    # What needs the logits as an array.
    *(
        (
            call,
            TypeError,
            f"{name}: expected {argument} to be an array of numbers, got LinearLogits. "
            "Give an array of them, .materialize() forms one.",
        )
        for call, name, argument in (
            (lambda: metrics.brier_score(WHOLE, Y), "brier_score", "logits"),
            (
                lambda: metrics.brier_score_sums(WHOLE, ints(4, 5), axis=()),
                "brier_score_sums",
                "logits",
            ),
            (lambda: jxent.fit_temperature(WHOLE, Y), "fit_temperature", "logits"),
            (
                lambda: jxent.fit_vector_scaling(WHOLE, Y),
                "fit_vector_scaling",
                "logits",
            ),
            (
                lambda: jxent.categorical_cross_entropy(WHOLE, Y),
                "categorical_cross_entropy",
                "probs",
            ),
            (lambda: jxent.entropy(WHOLE), "entropy", "probs"),
            (lambda: ce(D, WHOLE), "softmax_cross_entropy", "labels"),
            (
                lambda: jxent.contrastive_cross_entropy(WHOLE, H),
                "contrastive_cross_entropy",
                "x",
            ),
            (
                lambda: jxent.sigmoid_contrastive_loss(H, WHOLE),
                "sigmoid_contrastive_loss",
                "y",
            ),
            (
                lambda: jxent.supervised_contrastive_cross_entropy(WHOLE, Y),
                "supervised_contrastive_cross_entropy",
                "x",
            ),
            (lambda: jxent.ntxent(WHOLE, Y), "ntxent", "embeddings"),
            (lambda: torch.cross_entropy(WHOLE, Y), "cross_entropy", "input"),
            (
                lambda: torch.BCEWithLogitsLoss()(WHOLE, D),
                "binary_cross_entropy_with_logits",
                "input",
            ),
            (
                lambda: keras.sparse_categorical_crossentropy(Y, WHOLE, True),
                "sparse_categorical_crossentropy",
                "y_pred",
            ),
            (
                lambda: keras.CategoricalCrossentropy(True)(D, WHOLE),
                "CategoricalCrossentropy",
                "y_pred",
            ),
        )
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "text"), REFUSED, ids=[text[:90] for *_, text in REFUSED]
)
def test_refusals(call, kind, text):
    refuses(call, kind, text)


@pytest.mark.parametrize(
    "function", [metrics.calibration_error, metrics.reliability_bins]
)
def test_quantiles_need_all_rows(function):
    """Which no device has that a bound name splits them over."""

    def of_part(hidden, labels):
        logits = jxent.LinearLogits(hidden, K)
        return function(logits, labels, strategy="quantile", batch_axis_name="data")

    with pytest.raises(ValueError, match="quantile") as error:
        jax.vmap(of_part, axis_name="data")(floats(2, 4, 3), ints(2, 4))
    assert str(error.value) == (
        f"{function.__name__}: strategy='quantile' needs all rows, and each device "
        "along ('data',) has a part of them. Give bins their edges, those of "
        "reliability_bins, say."
    )


NONSENSE = (object(), "nonsense", {"a": 1.0}, {1, 2}, Layer(), [1.0, None], 1j, True)


@pytest.mark.parametrize("field", inspect.signature(jxent.LinearLogits).parameters)
def test_nonsense_in_a_field_is_refused_in_words(field, monkeypatch):
    """When a loss takes them, and not before: JAX and its users build them of more."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for value in (*NONSENSE, np.array(["a", "b"])):
        logits = head(**untyped({field: value}))
        with pytest.raises((TypeError, ValueError)) as error:
            ce(logits, Y)
        assert str(error.value).startswith("softmax_cross_entropy: ")
        assert field in str(error.value), (field, value, str(error.value))
