"""Labels that are made: of the next token, smoothed, and two-hot ones of numbers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests.cases import CLASSES, dense
from tests.comparing import close
from tests.meshes import on_mesh
from tests.oracles import log_softmax


# Next tokens --------------------------------------------------------------------------


def labels_one_by_one(tokens, segments, where, shift):
    """What next_token_labels returns, said of each position on its own."""
    labels = np.full(tokens.shape, -100)
    for *row, t in np.ndindex(*tokens.shape[:-1], max(tokens.shape[-1] - shift, 0)):
        here, there = (*row, t), (*row, t + shift)
        documents = set(segments[*row, t : t + shift + 1])
        if len(documents) == 1 and where[there]:
            labels[here] = tokens[there]
    return labels


@pytest.mark.parametrize("shift", [1, 2, 3, 5, 6, 100])
def test_next_token_labels_at_any_shift(shift, rng):
    """No label in another document, in one that comes back, or that does not count."""
    tokens = rng.integers(0, 50, (2, 3, 6)).astype(np.int32)
    back = np.array([[1, 1, 2, 1, 1, 1], [1, 2, 1, 2, 1, 2], [3, 3, 3, 3, 3, 0]])
    segments = np.stack([back, np.sort(back)])
    where = rng.random(tokens.shape) < 0.7
    one, whole = np.ones_like(segments), np.full(tokens.shape, True)
    calls: list[tuple[dict[str, Any], Any, Any]] = [
        ({}, one, whole),
        ({"where": where}, one, where),
        ({"where": where[:1, :, :1]}, one, where[:1, :, :1] & whole),
        ({"segment_ids": segments}, segments, whole),
        ({"segment_ids": segments, "where": where}, segments, where),
    ]

    @jax.jit
    def run(tokens):
        def labels(tokens, **options):
            return jxent.next_token_labels(tokens, shift=shift, **options)

        mapped = jax.vmap(lambda t, s, w: labels(t, segment_ids=s, where=w))
        each = [labels(tokens, **options) for options, *_ in calls]
        return *each, mapped(tokens, segments, where)

    wanted = [
        labels_one_by_one(tokens, segments, counted, shift)
        for _, segments, counted in calls
    ]
    for got, expected in zip(run(tokens), [*wanted, wanted[-1]], strict=True):
        np.testing.assert_array_equal(got, expected)


PADDED = np.array([[5, 6, 0, 0], [0, 0, 5, 6]])
SEGMENTS = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
NEXT: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "one document": ([[3, 1, 4, 1, 0, 2]], {}, [[1, 4, 1, 0, 2, -100]]),
    "two documents, another index": (
        np.array([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]]),
        {
            "segment_ids": np.array([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]]),
            "ignore_index": -1,
        },
        [[6, -1, 8, 9, -1], [-1, 3, -1, 5, -1]],
    ),
    "uint8": (np.array([5, 6, 7, 8, 9], np.uint8), {}, [6, 7, 8, 9, -100]),
    # Pads share a segment in packed rows, and stand on the left in others.
    "padding": (
        PADDED,
        {"segment_ids": SEGMENTS, "where": SEGMENTS != 0},
        [[6, -100, -100, -100], [-100, -100, 6, -100]],
    ),
    # Without segments a pad may predict a token, as a prompt's last token does.
    "padding without segments": (
        PADDED,
        {"where": SEGMENTS != 0},
        [[6, -100, -100, -100], [-100, 5, 6, -100]],
    ),
    **{
        f"{length} tokens, shift {shift}": (
            x := np.ones((2, length), np.int32),
            {"segment_ids": x, "where": x > 0, "shift": shift},
            -100 * x,
        )
        for length in (0, 1)
        for shift in (1, 2)
    },
    **{
        f"shift of {type(two).__name__}": ([5, 6, 7], {"shift": two}, [7, -100, -100])
        for two in (2, np.int64(2), jax.device_put(np.int32(2)))
    },
}


@pytest.mark.parametrize("name", NEXT)
def test_next_token_labels(name):
    """Shifted once; no label across documents, of a pad, nor for the last token."""
    tokens, options, wanted = NEXT[name]
    got = jxent.next_token_labels(np.asarray(tokens), **options)
    np.testing.assert_array_equal(got, wanted)


# Smoothed -----------------------------------------------------------------------------


def test_smooth_labels(x64, rng):
    """(1 − α) t + α/K over the allowed classes, along any axes."""
    t, where = rng.uniform(0, 1, (4, CLASSES)), rng.random((4, CLASSES)) < 0.7
    axes, ways = (-1, 0, (0, 1)), (where, None)
    smooth = jax.jit(
        lambda t: [
            jxent.smooth_labels(t, 0.1, axis=axis, where=way)
            for axis in axes
            for way in ways
        ]
    )
    wanted = []
    for axis in axes:
        for allowed in (where, np.ones_like(where)):
            count = allowed.sum(axis, keepdims=True)
            wanted.append(allowed * (0.9 * t + 0.1 / np.maximum(count, 1)))
    close(smooth(t), wanted)


# Two-hot ------------------------------------------------------------------------------

f32 = functools.partial(np.asarray, dtype=np.float32)
EVEN = np.linspace(-3.0, 5.0, 9)
HALF = -np.expm1(-np.linspace(-4, 0, 7))
SYMEXP = np.concatenate([HALF, -HALF[-2::-1]])  # Dreamer's, of fewer points
VALUES = np.array([[-3.0, 0.25, 1.0], [5.0, -70.0, 70.0], [0.0, -1.75, 3.999]])


def of_rlax(value, support, epsilon=0.0):
    """By the place of the value on an even grid, rounded down and up.

    rlax divides by the gap + 1e-5, which is `epsilon`; jxent's shares are exact.
    """
    low, high, count = support[0], support[-1], len(support)
    value = min(max(value, low), high)
    place = (value - low) / (high - low) * (count - 1)
    below, above = int(np.floor(place)), int(np.ceil(place))
    ends = np.array([below, above]) / (count - 1) * (high - low) + low
    q = np.zeros(count)
    # At a point both ends are that point, and the gap is 0.
    gap = ends[1] - ends[0] + epsilon
    share = (ends[1] - value) / gap if above > below else 0
    q[below] += share
    q[above] += 1 - share
    return q


def of_dreamer(value, support):
    """By the distances from the last point that is not above, and the first above."""
    below = max(np.sum(support <= value) - 1, 0)
    above = min(len(support) - np.sum(support > value), len(support) - 1)
    q = np.zeros(len(support))
    if below == above:
        q[below] = 1
        return q
    to_below, to_above = abs(support[below] - value), abs(support[above] - value)
    q[below] = to_above / (to_below + to_above)
    q[above] += to_below / (to_below + to_above)
    return q


def ids_and_shares(values, support):
    labels = jxent.two_hot_labels(values, support)
    return jnp.asarray(labels.ids), jnp.asarray(labels.values)


@pytest.mark.newest_jax
@pytest.mark.parametrize(
    ("support", "definition"),
    [(EVEN, of_rlax), (EVEN, of_dreamer), (SYMEXP, of_dreamer)],
    ids=["rlax", "dreamer", "symexp"],
)
def test_shares_loss_and_gradients(support, definition, x64, rng):
    """The definitions of others in float64, and the loss's own derivatives."""
    q = np.stack([definition(v, support) for v in VALUES.ravel()]).reshape(3, 3, -1)
    logits = rng.normal(size=q.shape)

    def loss(logits, values):
        labels = jxent.two_hot_labels(values, support)
        return jxent.softmax_cross_entropy(logits, labels, reduction="sum")

    ids, shares = ids_and_shares(VALUES, support)
    assert ids.dtype == jnp.int32
    close(dense(ids, shares, len(support)), q)
    inside = np.clip(VALUES, support[0], support[-1])
    close(q @ support, inside)
    if definition is of_rlax:
        theirs = np.stack([definition(v, support, 1e-5) for v in VALUES.ravel()])
        off = np.abs(theirs.reshape(q.shape) - q).max()
        assert 0 < off < 1e-5 / np.diff(support).min()

    run = jax.jit(jax.value_and_grad(loss, (0, 1)))
    value, (in_logits, in_values) = run(logits, VALUES)
    log_p = log_softmax(logits)
    close(value, -np.sum(q * log_p))
    close(in_logits, np.exp(log_p) - q)
    # The slope of the loss between two points, 0 outside of them.
    i = np.clip(np.searchsorted(support, VALUES, "right") - 1, 0, len(support) - 2)
    step = np.diff(np.take_along_axis(log_p, i[..., None] + [0, 1], -1))[..., 0]
    wanted = np.where(inside == VALUES, -step / np.diff(support)[i], 0)
    close(in_values, wanted)


@pytest.mark.newest_jax
def test_bad_input_is_nan_in_its_row_alone():
    values, every = f32([np.nan, 0.5, np.inf, -np.inf]), np.ones(4, bool)

    def loss(logits, values, support, where):
        labels = jxent.two_hot_labels(values, support)
        losses = jxent.softmax_cross_entropy(logits, labels, where=where)
        return losses.sum(), (losses, jnp.asarray(labels.values))

    run = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    both = lambda *arrays: jax.device_get(run(*arrays))
    logits, support = np.zeros((4, 3), np.float32), f32([-1.0, 0.0, 1.0])
    (in_logits, _), (losses, shares) = both(logits, values, support, every)
    np.testing.assert_array_equal(np.isnan(losses), [True, False, False, False])
    assert np.isnan(in_logits[0]).all()
    np.testing.assert_array_equal(shares[1:], [[0.5, 0.5], [0, 1], [1, 0]])

    dropped, (losses, _) = both(logits, values, support, np.arange(4) > 0)
    assert losses[0] == 0
    np.testing.assert_array_equal(dropped[0][0], 0)
    assert dropped[1][0] == 0
    too_wide = f32([-3e38, 3e38, 3.2e38])  # a gap of 6e38 is inf in float32
    for bad in (support[::-1], too_wide):
        gradients, (losses, _) = both(logits, values, bad, every)
        assert all(np.isnan(x).all() for x in (losses, *gradients))


@pytest.mark.newest_jax
def test_dtypes_shapes_and_meshes():
    """float32 or better; any shape; split by a mesh as the values are."""
    support = np.array([0.0, 1.0, 3.0])
    for values in (2, jnp.zeros(4, jnp.bfloat16), np.zeros((2, 0), np.float32)):
        ids, shares = ids_and_shares(values, support)
        assert shares.dtype == jnp.float32
        assert shares.shape == ids.shape == (*np.shape(values), 2)
    values = np.linspace(-1, 4, 16, dtype=np.float32)
    whole = ids_and_shares(values, support)
    close(jax.vmap(lambda v: ids_and_shares(v, support))(values), whole)

    def results(values):
        ids, shares = ids_and_shares(values, support)
        second = lambda v: ids_and_shares(v, support)[1][:, 1].sum()
        return ids, shares, jax.grad(second)(values)

    kind = jax.sharding.AxisType.Explicit
    split = on_mesh(results, (values,), (jax.P("data"),), shape=(8, 1), kind=kind)
    assert jax.typeof(split[0]).sharding.spec == jax.P("data", None)
    ids, shares, gradient = split
    close((ids, shares), whole)
    inside = (values >= 0) & (values <= 3)
    close(gradient, inside / np.where(values < 1, 1.0, 2.0))
