"""What each operation takes, and its derivatives."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import (
    NamedSharding,
    PartitionSpec as P,
)

from . import textbook, truth
from .case import Case


Loss = Callable[..., Any]

# Every option: class weights, ignored labels, smoothing and z-loss.
SMOOTHING, Z_LOSS, IGNORED = 0.1, 1e-4, -100
PADDING = -1  # in place of an id
EVERY_OPTION = {"label_smoothing": SMOOTHING, "z_loss": Z_LOSS}


class Operation(NamedTuple):
    """Arguments of a loss by name, its truth, and where the arguments are split."""

    arguments: tuple[str, ...]
    truth: Loss
    differentiated: tuple[int, ...] = (0,)


_SEVERAL = ("hidden", "kernel", "positives")
_PAIRS = ("x", "y", "logit_scale")
_head = Operation(("hidden", "kernel", "labels"), truth.head, (0, 1))
_TWO_HEADS = ("hidden", "kernel", "target_hidden", "target_kernel")
WIDER = "two heads, KL, the teacher twice as wide"
_every = functools.partial(truth.logits, **EVERY_OPTION)

OPERATIONS = {
    # Means over the rows.
    "logits": Operation(("logits", "labels"), truth.logits),
    "logits, every option": Operation(("logits", "labels", "class_weights"), _every),
    "head": _head,
    "head, every option": Operation(
        ("hidden", "kernel", "labels", "class_weights"),
        functools.partial(truth.head, **EVERY_OPTION),
        (0, 1),
    ),
    "head, embedding table": Operation(
        ("hidden", "table", "labels"), truth.table_head, (0, 1)
    ),
    "head, by blocks": _head,
    "head, ignored": _head,
    "head, sums": _head,
    # From results of rows.
    "head, log-probabilities and entropies": Operation(
        ("hidden", "kernel", "labels"), truth.policy_head, (0, 1)
    ),
    # Distributions at a few classes, and those of another head.
    "head, several ids": Operation(
        ("hidden", "kernel", "ids", "values"), truth.several_ids, (0, 1)
    ),
    "head, sampling replay": Operation(
        ("hidden", "kernel", "labels", "kept"), truth.replay, (0, 1)
    ),
    "head, top k": Operation(("hidden", "kernel"), truth.top_k, (0, 1)),
    "two heads, KL": Operation(_TWO_HEADS, truth.two_heads_kl, (0, 1)),
    WIDER: Operation(_TWO_HEADS, truth.two_heads_kl, (0, 1)),
    "two heads, Jensen-Shannon": Operation(
        _TWO_HEADS, truth.two_heads_jensen_shannon, (0, 1)
    ),
    # Binary losses of all classes, the positives as lists.
    "head, many labels": Operation(_SEVERAL, truth.many_labels, (0, 1)),
    "head, many labels, ZLPR": Operation(_SEVERAL, truth.many_labels_zlpr, (0, 1)),
    # Of two sides that are each other's candidates.
    "pairs": Operation(_PAIRS, truth.pairs, (0, 1, 2)),
    "pairs, one direction": Operation(_PAIRS, truth.pairs_one_way, (0, 1, 2)),
    "pairs, sigmoid": Operation(_PAIRS, truth.pairs_sigmoid, (0, 1, 2)),
    # On a mesh.
    "logits, split": Operation(("logits", "labels"), truth.logits),
    "head, split": _head,
    # One loss per row.
    "rows": Operation(("logits", "labels"), truth.rows),
    "rows, distributions": Operation(("logits", "distributions"), truth.distributions),
    "rows, sigmoid": Operation(("logits", "one_hot"), truth.sigmoid),
    # No loss at all.
    "import": Operation((), truth.rows),
    # What one writes by hand is its own truth, in float64.
    **{
        name + forms: Operation(row.arguments, row.by_hand, row.differentiated)
        for name, row in textbook.ROWS.items()
        for forms in ("", ", forms")
    },
}

SPLIT = {
    "logits": P("data", "model"),
    "hidden": P("data", None),
    "kernel": P(None, "model"),
    "labels": P("data"),
    "class_weights": P("model"),
}


def widths(dtype: str) -> tuple[str, str]:
    """The dtypes of hidden and kernel."""
    return ("bfloat16", "float32") if dtype == "mixed" else (dtype, dtype)


def array(name: str, case: Case) -> jax.Array:
    """An argument as it is in training: logits of a plausible spread."""
    rows, features, classes = case.shape
    key = functools.partial(jax.random.fold_in, jax.random.key(0))
    low, high = widths(case.dtype)
    normal = functools.partial(jax.random.normal, dtype=jnp.float32)
    logits = (rows, classes) if classes > 1 else (rows,)
    if name in ("logits", "target_logits"):
        return (3 * normal(key(13 if "target" in name else 0), logits)).astype(low)
    if name in ("binary", "yes"):
        labels = jax.random.bernoulli(key(14), 0.3, logits)
        return labels if name == "yes" else labels.astype(low)
    if name == "element_probs":
        return jax.nn.sigmoid(normal(key(15), logits) / 2).astype(low)
    if name in ("probs", "log_probs", "log_targets"):
        at = ("probs", "log_probs", "log_targets").index(name)
        log_probs = jax.nn.log_softmax(normal(key(16 + at), logits))
        return (log_probs if at else jnp.exp(log_probs)).astype(low)
    if name == "few_ids":
        return jax.random.randint(key(19), (rows, 4), 0, classes)
    if name == "groups":
        return jnp.arange(rows) // 2
    if name == "hidden":
        return normal(key(1), (rows, features)).astype(low)
    if name in ("kernel", "table"):
        kernel = normal(key(2), (features, classes)) / features**0.5
        return (kernel.T if name == "table" else kernel).astype(high)
    if name in ("target_hidden", "target_kernel"):
        width = features * (2 if case.operation == WIDER else 1)
        if name == "target_hidden":
            return normal(key(7), (rows, width)).astype(low)
        return (normal(key(8), (width, classes)) / width**0.5).astype(high)
    if name == "ids":
        return jax.random.randint(key(9), (rows, truth.PLACES), 0, classes)
    if name in ("positives", "kept"):  # different ones
        first = jax.random.randint(key(11), (rows, 1), 0, classes)
        most = truth.KEPT if name == "kept" else truth.POSITIVES
        count = min(most, max(classes // 4, 1))
        ids = (first + jnp.arange(count) * (classes // count)) % classes
        if name == "positives":
            return ids
        there = jax.random.randint(key(12), (rows, 1), 1, count + 1)
        return jnp.where(jnp.arange(count) < there, ids, PADDING)
    if name == "values":
        return jax.nn.softmax(normal(key(10), (rows, truth.PLACES)))
    if name in ("x", "y"):
        vectors = normal(key("xy".index(name)), (rows, features))
        return (vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)).astype(low)
    if name == "logit_scale":
        return jnp.float32(20)
    if name == "class_weights":
        return jax.random.uniform(key(3), (classes,), minval=0.5, maxval=1.5)
    labels = jax.random.randint(key(4), (rows,), 0, classes)
    if name == "labels":
        dropped = jax.random.uniform(key(5), (rows,)) < case.ignored
        return jnp.where(dropped, IGNORED, labels)
    if name == "one_hot":
        return jax.nn.one_hot(labels, classes, dtype=low)
    return jax.nn.softmax(normal(key(6), (rows, classes))).astype(low)


def arrays(case: Case) -> tuple[jax.Array, ...]:
    """The case's arguments and the directions of its derivative, in one compiled call.

    A direction is the point reversed: of the point itself XLA would form less, and what
    depends on no length would not move.
    """
    operation = OPERATIONS[case.operation]

    def made() -> tuple[jax.Array, ...]:
        given = tuple(array(name, case) for name in operation.arguments)
        if case.derivative not in DIRECTIONAL:
            return given
        return given + tuple(jnp.flip(given[i]) for i in operation.differentiated)

    return jax.jit(made)()


def split(case: Case, mesh: jax.sharding.Mesh) -> tuple[NamedSharding, ...]:
    """Rows over data, classes over model."""
    names = OPERATIONS[case.operation].arguments
    return tuple(NamedSharding(mesh, SPLIT[name]) for name in names)


def _of(loss: Loss, operation: Operation, arguments: tuple[Any, ...]) -> Loss:
    """The loss as a function of the differentiated arguments alone."""

    def function(*some):
        whole = list(arguments)
        for i, x in zip(operation.differentiated, some, strict=True):
            whole[i] = x
        return loss(*whole)

    return function


def _directional(loss: Loss, operation: Operation, *, second: bool) -> Loss:
    """The derivative, or that of the gradient, in the directions given last."""

    def function(*given):
        count = len(operation.arguments)
        arguments, directions = given[:count], given[count:]
        point = tuple(arguments[i] for i in operation.differentiated)
        f = _of(loss, operation, arguments)
        if second:
            f = jax.grad(f, tuple(range(len(point))))
        return jax.jvp(f, point, directions)

    return function


def _per_example(loss: Loss, operation: Operation) -> Loss:
    """Each row's own gradient in the kernel, as private training clips it."""

    def of_row(hidden, kernel, label):
        return jax.grad(loss, 1)(hidden[None], kernel, label[None])

    del operation
    return jax.vmap(of_row, in_axes=(0, None, 0))


DIRECTIONAL = ("jvp", "hessian-vector product")
DERIVATIVES: dict[str, Callable[[Loss, Operation], Loss]] = {
    "forward": lambda loss, _: loss,
    "value and gradient": lambda loss, op: jax.value_and_grad(loss, op.differentiated),
    "jvp": functools.partial(_directional, second=False),
    "hessian-vector product": functools.partial(_directional, second=True),
    "per-example gradients": _per_example,
}


def derived(case: Case, loss: Loss) -> Loss:
    """What is compiled for a case: the loss, or its derivative."""
    return DERIVATIVES[case.derivative](loss, OPERATIONS[case.operation])
