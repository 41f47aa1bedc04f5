"""The fused head: losses of hidden @ kernel, and their peers."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jxent


IGNORED = -100


class Problem(NamedTuple):
    hidden: jax.Array
    kernel: jax.Array
    labels: jax.Array


Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def optax_materialized(hidden, kernel, labels):
    """Float32 logits of a product in the operands' dtype."""
    logits = (hidden @ kernel).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def jxent_plain(hidden, kernel, labels, **options):
    return jxent.linear_softmax_cross_entropy(
        hidden, kernel, labels, reduction="mean", **options
    )


def jxent_everything(hidden, kernel, labels, **options):
    classes = kernel.shape[1]
    return jxent_plain(
        hidden,
        kernel,
        labels,
        bias=jnp.zeros(classes),
        class_weights=jnp.linspace(0.5, 1.5, classes),
        ignore_index=IGNORED,
        label_smoothing=0.1,
        z_loss=1e-4,
        logit_soft_cap=30.0,
        **options,
    )


def optax_table(hidden, table, labels):
    """The same on an embedding table, (classes, features)."""
    return optax_materialized(hidden, table.T, labels)


def hessian_vector_product(loss: Loss) -> Callable[..., Any]:
    """In the direction of hidden and kernel themselves."""

    def product(hidden, kernel, labels):
        def gradient(hidden, kernel):
            return jax.grad(loss, (0, 1))(hidden, kernel, labels)

        return jax.jvp(gradient, (hidden, kernel), (hidden, kernel))[1]

    return product


def three_products(hidden, kernel, labels):
    """What no loss can do without: the logits, and the two gradients of a product."""
    del labels
    logits = hidden @ kernel
    return logits[0, 0], (logits @ kernel.T, hidden.T @ logits)


def tokamax_chunked(hidden, kernel, labels):
    from tokamax import linear_softmax_cross_entropy_loss

    return linear_softmax_cross_entropy_loss(
        hidden, labels, kernel, reduction="mean", implementation="chunked_xla"
    )


def has_chunked_tokamax() -> bool:
    """Whether the installed tokamax has the implementation; not all releases do."""
    if importlib.util.find_spec("tokamax") is None:
        return False
    from tokamax._src.ops.linear_softmax_cross_entropy_loss import api

    return "chunked_xla" in api.IMPLEMENTATIONS


def torch_chunked(problem: Problem) -> Callable[[], Any]:
    """A call of PyTorch's chunked loss with both gradients."""
    import numpy as np
    import torch

    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    dtype = kind[str(problem.hidden.dtype)]

    def tensor(x: jax.Array) -> torch.Tensor:
        copy = np.array(x.astype(jnp.float32))
        return torch.tensor(copy).to(dtype).requires_grad_()

    hidden, kernel = tensor(problem.hidden), tensor(problem.kernel.T)
    labels = torch.tensor(np.array(problem.labels)).long()
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=512)

    def call() -> None:
        hidden.grad = kernel.grad = None
        torch.nn.functional.linear_cross_entropy(
            hidden, kernel, labels, options=options
        ).backward()

    return call


def has_chunked_torch() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return hasattr(torch.nn, "LinearCrossEntropyOptions")


def inputs(rows: int, features: int, classes: int, dtype: str) -> Problem:
    """Hidden states of variance 1 and a kernel that gives logits of variance 1."""
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (rows, features))
    kernel = jax.random.normal(keys[1], (features, classes)) / features**0.5
    labels = jax.random.randint(keys[2], (rows,), 0, classes)
    return Problem(hidden.astype(dtype), kernel.astype(dtype), labels)


def ignored(labels: jax.Array, share: float) -> jax.Array:
    """Labels of which a share, spread evenly at random, is ignored."""
    dropped = jax.random.uniform(jax.random.key(1), labels.shape) < share
    return jnp.where(dropped, IGNORED, labels)
