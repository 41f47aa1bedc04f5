"""Heads for tests: layouts, arguments by name, derivatives of every order."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests.comparing import weighed


class Layout(NamedTuple):
    """How LinearLogits are taken: kernels are (D, V), or (V, D) with vocab_axis 0."""

    implementation: str
    vocab_axis: int = -1
    block_sizes: tuple[int | None, int | None] = (3, 4)

    def head(self, hidden, kernel, bias=None):
        """The logits of a kernel (D, V)."""
        kernel = kernel if self.vocab_axis else kernel.T
        return jxent.LinearLogits(hidden, kernel, bias, **self._asdict())


MATERIALIZED = Layout("materialized")
STREAMED, STREAMED_TABLE = Layout("streamed"), Layout("streamed", 0)
TILED, TILED_TABLE = Layout("tiled"), Layout("tiled", 0)


def of_layout(layout, blocks=None) -> Callable[..., Any]:
    """Logits as a function of hidden states and a kernel; in memory their product."""
    if layout == "in memory":
        return jnp.matmul
    return functools.partial(
        jxent.LinearLogits, implementation=layout, block_sizes=blocks
    )


def name_of(x):
    if isinstance(x, Layout):
        return x.implementation + ("" if x.vocab_axis else "-table")
    return None


def over(*layouts):
    return pytest.mark.parametrize("layout", layouts, ids=name_of)


def problem(rng, rows=(6,), features=3, classes=8):
    """float64 arrays; the last class is in no label, and one row is ignored."""
    ids = rng.integers(0, max(classes - 1, 1), rows)
    ids.flat[1:2] = -100
    where = rng.random(rows) < 0.8
    class_where = rng.random((*rows, classes)) < 0.8
    np.put_along_axis(class_where, np.maximum(ids, 0)[..., None], True, -1)
    return {
        "hidden": rng.normal(size=(*rows, features)),
        "kernel": rng.normal(size=(features, classes)),
        "bias": rng.normal(size=classes),
        "ids": ids,
        "distributions": rng.uniform(size=(*rows, classes)),
        "several_ids": rng.integers(0, max(classes - 1, 1), (*rows, 3)),
        "values": rng.uniform(size=(*rows, 3)),
        "where": where,
        "class_where": class_where,
        "weights": rng.uniform(0.5, 2, rows),
        "class_weights": rng.uniform(0.5, 2, classes),
        "class_mask": np.arange(classes) < classes - 1,
        "temperature": rng.uniform(0.5, 2, rows),
        "label_smoothing": np.float64(0.1),
        "z_loss": np.float64(0.01),
        "logit_soft_cap": np.float64(5),
    }


# A call is a dictionary of arguments: labels under the name of their kind, the kernel
# as (D, V), whatever the layout.


def taken_apart(arguments):
    rest = dict(arguments)
    head = rest.pop("hidden"), rest.pop("kernel"), rest.pop("bias", None)
    labels = [rest.pop(k) for k in ("ids", "distributions") if k in rest]
    if "several_ids" in rest:
        labels = [jxent.SparseLabels(rest.pop("several_ids"), rest.pop("values"))]
    if "class_where" in rest:
        rest["where"] = rest.pop("class_where")
    return head, labels, rest


def fused(layout, arguments, function=jxent.softmax_cross_entropy, **options):
    head, labels, rest = taken_apart(arguments)
    return function(layout.head(*head), *labels, **rest, **options)


def in_memory(arguments, function=jxent.softmax_cross_entropy, **options):
    (hidden, kernel, bias), labels, rest = taken_apart(arguments)
    logits = jnp.asarray(hidden) @ jnp.asarray(kernel)
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, logits.shape)
    return function(logits, *labels, **rest, **options)


def of_floats(f, arguments):
    """f as a function of its floating arguments, and these."""
    moving = {k: jnp.asarray(x) for k, x in arguments.items() if x.dtype.kind == "f"}
    return lambda values: f(arguments | values), moving


def gradient_of(f):
    return jax.grad(lambda x: weighed(f(x)))


def value_and_gradient(f, x):
    return f(x), gradient_of(f)(x)


def every_order(f, x, direction):
    """Value and gradient, and the tangents of both: jvp, hessian-vector product."""

    def total(x):
        results = f(x)
        return weighed(results), results

    both = jax.value_and_grad(total, has_aux=True)
    return jax.jvp(both, (x,), (direction,))


def of_both(results, f, g):
    """What `results` says of two functions, as one program."""
    return jax.jit(lambda *x: [results(run, *x) for run in (f, g)])


def pick(arrays, names):
    return {k: arrays[k] for k in names.split()}
