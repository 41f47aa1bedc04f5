"""What goes wrong around cross-entropy elsewhere: reductions.

One test a hazard; each says what this library does instead.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import jxent
from tests.compiling import as_users_jit
from tests.hazards import (
    ELEMENTWISE,
    NAN,
    OF_DISTRIBUTIONS,
    W,
    cross_entropy,
    options_of,
    partial,
    same,
    spread,
    table,
    value_and_grad,
    values_and_grads,
)


BATCH = spread(8, 5)
LABELS = np.array([0, -100, -100, -100, 3, 4, -100, 2], np.int32)  # unequal halves
WEIGHTS = spread(8, low=0.5, high=2.0)
ALL_OPTIONS: dict[str, Any] = {
    "class_weights": W,
    "ignore_index": -100,
    "label_smoothing": 0.1,
    "z_loss": 0.05,
}


def test_micro_batches_add_up_to_the_global_mean():
    """With total_weight as normalizer; a mean of means is something else."""
    loss = as_users_jit(
        jax.value_and_grad(partial(cross_entropy, **ALL_OPTIONS, reduction="mean"))
    )
    mean, grad = loss(BATCH, LABELS, weights=WEIGHTS)
    total = jxent.total_weight(
        LABELS, weights=WEIGHTS, class_weights=W, ignore_index=-100
    )
    halves = [slice(0, 4), slice(4, 8)]
    parts = [
        loss(BATCH[h], LABELS[h], weights=WEIGHTS[h], normalizer=total) for h in halves
    ]
    same(parts[0][0] + parts[1][0], mean)
    same(jnp.concatenate([g for _, g in parts]), grad)
    means = [loss(BATCH[h], LABELS[h], weights=WEIGHTS[h])[0] for h in halves]
    assert abs((means[0] + means[1]) / 2 - mean) > 0.01


def test_devices_add_up_to_the_global_mean():
    """With batch_axis_name inside shard_map: one mean over all, and its gradient."""
    split = P("batch")
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    @partial(jax.shard_map, mesh=mesh, in_specs=(split, split, split), out_specs=P())
    def mean(x, labels, weights):
        return cross_entropy(
            x,
            labels,
            **ALL_OPTIONS,
            weights=weights,
            reduction="mean",
            batch_axis_name="batch",
        )

    got = as_users_jit(jax.value_and_grad(mean))(BATCH, LABELS, WEIGHTS)
    loss = partial(cross_entropy, **ALL_OPTIONS, weights=WEIGHTS, reduction="mean")
    expected = as_users_jit(jax.value_and_grad(loss))(BATCH, LABELS)
    same(got[0], expected[0])
    same(got[1], expected[1])


def test_the_weighted_mean_divides_by_the_weights():
    """Σ w_y loss / Σ w_y, for ids and for their one-hot labels."""
    labels = jnp.array([0, 1, 2, 3, 4, 1, 1, 3])
    plain = cross_entropy(BATCH, labels)
    expected = jnp.sum(W[labels] * plain) / jnp.sum(W[labels])
    mean = partial(cross_entropy, class_weights=W, reduction="mean")
    same(mean(BATCH, labels), expected)
    same(mean(BATCH, jax.nn.one_hot(labels, 5)), expected)
    total = partial(jxent.total_weight, class_weights=W)
    same(total(labels), jnp.sum(W[labels]))
    same(total(jax.nn.one_hot(labels, 5)), jnp.sum(W[labels]))


@table(OF_DISTRIBUTIONS)
def test_padding_a_batch_changes_nothing(loss):
    """N rows and ignored rows give what N rows give, for every option at once."""
    keep = np.asarray(LABELS != -100)
    garbage = np.where(keep[:, None], BATCH, np.float32(NAN))
    loss = partial(loss, reduction="mean", ignore_index=-100)
    losses, inputs = [], []
    for weights in (None, WEIGHTS):
        few = None if weights is None else weights[keep]
        losses.append(lambda x, w=weights: loss(x, LABELS, weights=w))
        losses.append(lambda x, w=few: loss(x, LABELS[keep], weights=w))
        inputs += [garbage, BATCH[keep]]
    results = values_and_grads(losses, *inputs)
    for padded, few in zip(results[::2], results[1::2], strict=True):
        same(padded[0], few[0], rtol=1e-5)
        same(padded[1][keep], few[1], rtol=1e-5, atol=1e-6)
        assert np.all(padded[1][~keep] == 0)


def test_names_of_reductions():
    """Per-row losses unless asked; the sum is the sum and the mean the mean."""
    labels = jnp.array([0, 1, 2, 3, 4, 1, 1, 3])
    rows = cross_entropy(BATCH, labels)
    assert rows.shape == (8,)
    same(cross_entropy(BATCH, labels, reduction="none"), rows)
    same(cross_entropy(BATCH, labels, reduction="sum"), jnp.sum(rows))
    same(cross_entropy(BATCH, labels, reduction="mean"), jnp.mean(rows))


def test_z_loss_is_masked_weighted_and_reduced_with_its_row():
    """λ lse² with the row's weight and class weight; ignored rows add nothing."""
    keep = LABELS != -100
    lse = jax.nn.logsumexp(BATCH, -1)
    r = WEIGHTS * W[np.where(keep, LABELS, 0)] * np.asarray(keep, np.float32)

    def loss(x, **options):
        return cross_entropy(
            x, LABELS, class_weights=W, weights=WEIGHTS, ignore_index=-100, **options
        )

    added = loss(BATCH, z_loss=0.3) - loss(BATCH)
    same(added, 0.3 * r * lse**2, rtol=1e-4, atol=1e-6)
    mean = partial(loss, reduction="mean")
    added = mean(BATCH, z_loss=0.3) - mean(BATCH)
    same(added, 0.3 * jnp.sum(r * lse**2) / jnp.sum(r), rtol=1e-5)
    _, grad = value_and_grad(partial(loss, z_loss=0.3), BATCH)
    same(jnp.sum(grad, -1), 0.6 * r * lse, rtol=1e-4, atol=1e-5)


def test_token_means_and_sequence_means():
    """Both come from the losses of the tokens, and they differ."""
    x, labels = spread(2, 4, 5), jnp.array([[0, 1, 2, 3], [4, -100, -100, -100]])
    where = labels != -100
    tokens = cross_entropy(x, labels, ignore_index=-100)
    of_tokens = jxent.reduce(tokens, where=where)
    of_sequences = jxent.reduce(jxent.reduce(tokens, where=where, axis=-1))
    same(of_tokens, cross_entropy(x, labels, ignore_index=-100, reduction="mean"))
    same(of_sequences, (jnp.mean(tokens[0]) + tokens[1, 0]) / 2)
    assert abs(of_tokens - of_sequences) > 0.01


def test_divergences_sum_over_classes():
    """Per row, so that a mean over rows does not divide by the class count."""
    t, log_q = jnp.full((3, 8), 1 / 8), jnp.log(jax.nn.softmax(spread(3, 8)))
    expected = jnp.mean(jnp.sum(t * (jnp.log(t) - log_q), -1))
    same(jxent.reduce(jxent.kl_divergence(log_q, t)), expected, rtol=1e-4)
    log_form = jxent.kl_divergence_with_log_targets(log_q, jnp.log(t))
    same(jxent.reduce(log_form), expected, rtol=1e-4)


@table(ELEMENTWISE)
def test_many_rows_of_few_classes(loss):
    """They are one axis on a CPU, if nothing but the classes is shorter: the same."""
    x, y = spread(2, 3500, 5), spread(2, 3500, 5) > 0.5
    where = spread(2, 3500, 5) < 0.8

    @as_users_jit
    def both(x, y, where):
        rows = jax.value_and_grad(lambda x: jnp.sum(loss(x, y, where=where)))(x)
        mean = loss(x, y, where=where, reduction="mean")
        return loss(x, y, where=where), *rows, mean

    losses, total, gradient, mean = both(x, y, where)
    few, _, of_few, _ = both(x[:, :10], y[:, :10], where[:, :10])
    assert losses.shape == x.shape
    same(losses[:, :10], few, rtol=1e-6)
    same(gradient[:, :10], of_few, rtol=1e-6)
    same(total, np.asarray(losses, np.float64).sum(), rtol=1e-6)
    if "class_weights" not in options_of(loss):  # which a mean divides by
        same(mean, total / float(where.sum()), rtol=1e-6)
