"""`sequence_weights`: a sum over tokens that is a sum of the sequences' means."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import comparing


close = functools.partial(comparing.close, tolerance=1e-6)


def oracle(where, ids):
    """One run of equal ids after another."""
    weights = np.zeros(where.shape)
    time = where.shape[-1]
    for row in np.ndindex(where.shape[:-1]) if time else ():
        edges = [t for t in range(time) if t == 0 or ids[row][t] != ids[row][t - 1]]
        for start, stop in zip(edges, [*edges[1:], time], strict=True):
            here = where[row][start:stop]
            weights[row][start:stop] = here / max(here.sum(), 1)
    return weights


def random_sequences(seed, shape):
    random = np.random.default_rng(seed)
    return random.random(shape) < 0.6, np.cumsum(random.random(shape) < 0.3, -1) % 3


@pytest.mark.newest_jax
@pytest.mark.parametrize("shape", [(12,), (3, 17), (2, 3, 8), (2, 1), (2, 0), (0, 4)])
def test_every_sequence_counts_one(shape):
    """Also where an id comes back, and where no token of a sequence counts."""
    where, ids = random_sequences(0, shape)
    weights = jxent.sequence_weights(where, segment_ids=ids)
    close(weights, oracle(where, ids))
    close(jax.jit(jxent.sequence_weights)(where), oracle(where, np.zeros_like(ids)))
    everything = jxent.sequence_weights(segment_ids=ids)
    close(everything, oracle(np.ones_like(where), ids))


@pytest.mark.newest_jax
def test_the_mean_is_that_of_the_sequences():
    """Of an array and of a head, for the whole batch and added up over its halves."""
    where, ids = random_sequences(1, (4, 16))
    random = np.random.default_rng(0)
    hidden = random.normal(size=(4, 16, 8)).astype(np.float32)
    kernel = random.normal(size=(8, 32)).astype(np.float32)
    labels = random.integers(0, 32, (4, 16))
    logits = jxent.LinearLogits(hidden, kernel)

    @jax.jit
    def run():
        weights = jxent.sequence_weights(where, segment_ids=ids)
        options = {"where": where, "weights": weights, "reduction": "mean"}
        total = jxent.total_weight(labels, where=where, weights=weights)
        losses = jxent.softmax_cross_entropy(hidden @ kernel, labels)
        parts = [
            jxent.reduce(
                losses[half],
                where=where[half],
                weights=jxent.sequence_weights(where[half], segment_ids=ids[half]),
                normalizer=total,
            )
            for half in (slice(0, 2), slice(2, 4))
        ]
        of_array, of_head = (
            jxent.softmax_cross_entropy(x, labels, **options)
            for x in (hidden @ kernel, logits)
        )
        return losses, total, (of_array, of_head, sum(parts))

    losses, total, means = jax.device_get(run())
    shares = oracle(where, ids)
    close(total, np.sum(shares))
    close(means, (np.sum(shares * losses) / np.sum(shares),) * 3)


def test_it_maps():
    """tests/test_devices.py splits it."""
    where, ids = random_sequences(2, (8, 9))
    mapped = jax.vmap(lambda w, s: jxent.sequence_weights(w, segment_ids=s))
    close(mapped(where, ids), oracle(where, ids))


def test_its_dtype_is_the_default():
    where = np.ones(3, bool)
    assert jxent.sequence_weights(where).dtype == jnp.result_type(float)
    with jax.enable_x64(not jax.config.read("jax_enable_x64")):
        assert jxent.sequence_weights(where).dtype == jnp.result_type(float)
