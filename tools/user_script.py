"""A user's script, for a type checker: what it says of calls, right and wrong.

Pyright checks it here, and CI checks it against the installed wheel.
"""

from typing import Any, assert_type

import jax
import jax.numpy as jnp
from jax import Array

import jxent
import jxent.keras
import jxent.torch


logits, labels = jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32)
hidden, kernel = jnp.zeros((2, 4)), jnp.zeros((4, 3))
products = jxent.LinearLogits(hidden, kernel, block_sizes=(None, 2))

# A loss is an array; with its statistics it is a pair.
assert_type(jxent.softmax_cross_entropy(logits, labels), Array)
assert_type(jxent.softmax_focal_loss(logits, labels, gamma=1.0, axis=-1), Array)
assert_type(jxent.taylor_cross_entropy(logits, labels, order=3), Array)
assert_type(jxent.softmax_cross_entropy(products, labels), Array)
assert_type(jxent.softmax_kl_divergence(logits, products), Array)
assert_type(jxent.sigmoid_focal_loss(products, jnp.eye(2, 3), axis=-1), Array)
assert_type(jxent.softmax_top_k(products, 2), tuple[Array, Array])
assert_type(jxent.metrics.accuracy(products, labels), Array)
assert_type(products.materialize(), Array)
assert_type(products[0].replace(implementation="streamed"), jxent.LinearLogits)
assert_type(products.shape, tuple[Any, ...])
assert_type(
    jxent.with_statistics(jxent.softmax_cross_entropy)(logits, labels, axis=-1),
    tuple[Array, jxent.SoftmaxStatistics],
)
loss, statistics = jxent.with_statistics(jxent.softmax_focal_loss)(
    products, labels, gamma=1.0, class_weights=[1.0, 2.0, 3.0]
)
assert_type(loss, Array)
assert_type(statistics.entropy, Array)
assert_type(jxent.binary_cross_entropy(0.5 * jnp.ones(2), [True, False]), Array)
assert_type(jxent.entropy(jnp.ones(2) / 2), Array)
assert_type(jxent.total_weight(labels), Array)
assert_type(jxent.two_hot_labels([0.5], [0.0, 1.0]), jxent.SparseLabels)
plan = jxent.plan(jxent.softmax_cross_entropy, platform="tpu")(products, labels)
assert_type(plan.temporary_bytes(gradients=True), int | None)
assert_type(plan, jxent.Plan)
sums = jxent.metrics.accuracy_sums(logits, labels)
assert_type((sums + sums).compute(), Array)
jxent.LinearLogits(jax.ShapeDtypeStruct((2, 4), jnp.float32), kernel)
assert_type(jxent.torch.CrossEntropyLoss()(logits, labels), Array)
assert_type(
    jxent.keras.SparseCategoricalCrossentropy(from_logits=True)(labels, logits), Array
)


def of_rows(kernel: Array, rows: tuple[Array, Array]) -> Array:
    hidden, labels = rows
    return jxent.softmax_cross_entropy(hidden @ kernel, labels, reduction="sum")


# A model returns them where it would return logits.
def model(hidden: Array) -> jxent.LinearLogits:
    return jxent.LinearLogits(hidden, kernel)


def of_model(hidden: Array) -> Array:
    return jxent.softmax_cross_entropy(model(hidden), labels, reduction="mean")


value, gradient = jax.value_and_grad(of_model)(hidden)
assert_type(jxent.sum_over_tiles(of_rows, kernel, (hidden, labels), tile=1), Array)
value, gradient = jax.value_and_grad(of_rows)(kernel, (hidden, labels))

# Mistakes that a type checker finds; without one the comments would be errors.
untyped: Any = None
jxent.softmax_cross_entropy(logits, labels, reduction="average")  # pyright: ignore[reportArgumentType]
jxent.softmax_cross_entropy(logits, labels, weight=untyped)  # pyright: ignore[reportCallIssue]
jxent.with_statistics(jxent.softmax_focal_loss)(logits, labels, gama=untyped)  # pyright: ignore[reportCallIssue]
jxent.with_statistics(jxent.softmax_statistics)  # pyright: ignore[reportArgumentType]
jxent.softmax_cross_entropy(products)  # pyright: ignore[reportCallIssue]
jxent.metrics.brier_score(products, labels)  # pyright: ignore[reportArgumentType]
jxent.fit_temperature(products, labels)  # pyright: ignore[reportArgumentType]
jxent.contrastive_cross_entropy(products, hidden)  # pyright: ignore[reportArgumentType]
jxent.categorical_cross_entropy(products, labels)  # pyright: ignore[reportArgumentType]
jxent.torch.cross_entropy(products, labels)  # pyright: ignore[reportArgumentType]
jxent.LinearLogits(hidden, kernel, implementation="fused")  # pyright: ignore[reportArgumentType]
halves = products / 2.0  # pyright: ignore[reportOperatorIssue]
