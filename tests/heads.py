"""Heads for tests: layouts, arguments by name, derivatives of every order."""

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

    implementation: str | None
    vocab_axis: int = -1
    block_sizes: tuple[int | None, int | None] | None = (3, 4)

    def head(self, hidden, kernel, bias=None):
        """The logits of a kernel (D, V); in memory their array."""
        if self.implementation == "in memory":
            logits = jnp.matmul(hidden, kernel)
            return (
                logits
                if bias is None
                else logits + jnp.broadcast_to(bias, logits.shape)
            )
        kernel = kernel if self.vocab_axis else kernel.T
        return jxent.LinearLogits(hidden, kernel, bias, **self._asdict())


IN_MEMORY, MATERIALIZED = Layout("in memory"), Layout("materialized")
STREAMED, STREAMED_TABLE = Layout("streamed"), Layout("streamed", 0)
TILED, TILED_TABLE = Layout("tiled"), Layout("tiled", 0)


def of_layout(layout, blocks=None) -> Callable[..., Any]:
    """Logits as a function of hidden states, a kernel and a bias."""
    return Layout(layout, block_sizes=blocks).head


def name_of(x):
    if isinstance(x, Layout):
        return f"{x.implementation}" + ("" if x.vocab_axis else "-table")
    return None


def over(*layouts):
    return pytest.mark.parametrize("layout", layouts, ids=name_of)


def problem(rng, rows=(6,), features=3, classes=8):
    """float64 arrays; the last class is in no label, and one row is ignored."""
    ids = rng.integers(0, max(classes - 1, 1), rows)
    ids.flat[1:2] = -100
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
        "where": rng.random(rows) < 0.8,
        "class_where": class_where,
        "weights": rng.uniform(0.5, 2, rows),
        "class_weights": rng.uniform(0.5, 2, classes),
        "class_mask": np.arange(classes) < classes - 1,
        "temperature": rng.uniform(0.5, 2, rows),
        "margin": rng.uniform(0.1, 0.5, classes),
        "label_smoothing": np.float64(0.1),
        "z_loss": np.float64(0.01),
        "logit_soft_cap": np.float64(5),
    }


def pick(arrays, names):
    return {k: arrays[k] for k in names.split()}


def call(layout, arguments, function=jxent.softmax_cross_entropy, **options):
    """A function of logits, its arguments by name: labels by that of their kind."""
    rest = arguments | options
    logits = layout.head(rest.pop("hidden"), rest.pop("kernel"), rest.pop("bias", None))
    labels = [rest.pop(k) for k in ("ids", "distributions") if k in rest]
    if "several_ids" in rest:
        labels = [jxent.SparseLabels(rest.pop("several_ids"), rest.pop("values"))]
    if "class_where" in rest:
        rest["where"] = rest.pop("class_where")
    return function(logits, *labels, **rest)


def floats_of(arguments):
    """Those with derivatives."""
    return {k: x for k, x in arguments.items() if x.dtype.kind == "f"}


def value_and_gradient(f, x):
    return f(x), jax.grad(lambda x: weighed(f(x)))(x)


def every_order(f, x, direction):
    """Results, gradient, and the tangents of both: jvp, hessian-vector product."""
    gradient = jax.grad(lambda x: weighed(f(x)))
    return [jax.jvp(g, (x,), (direction,)) for g in (f, gradient)]


def in_layouts(results, layouts, *x):
    """What `results` says of each of these layouts, as one program; NumPy."""
    run = jax.jit(lambda *x: [results(layout, *x) for layout in layouts])
    return jax.device_get(run(*x))
