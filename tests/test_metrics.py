"""jxent.metrics: against NumPy, as sums that add up, of LinearLogits, on devices."""

import functools
import re
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)
from jax.test_util import check_grads

import jxent
from jxent import metrics
from jxent._measures.ranks import _count_ahead, _count_few_ahead
from jxent.metrics._bins import _quantiles
from tests.comparing import close, same_bits
from tests.compiling import as_users_jit
from tests.meshes import KINDS, NAMES, on_mesh


pytestmark = pytest.mark.newest_jax

CLASSES = 6
BINS = 5


# Oracles ------------------------------------------------------------------------------


def rows_of(logits, labels, axis=-1, where=None, weights=None, ignore_index=None):
    """Logits (rows, classes) or, of binary labels, (rows,); labels; r. Kept rows."""
    z = np.asarray(logits, np.float64)
    y = np.asarray(labels)
    r = np.ones(y.shape)
    if axis != ():
        z = np.moveaxis(z, axis, -1)
    if where is not None and np.ndim(where) == np.ndim(logits) and axis != ():
        z = np.where(
            np.moveaxis(np.broadcast_to(where, logits.shape), axis, -1), z, -np.inf
        )
    elif where is not None:
        r = r * where
    r = r * (1 if weights is None else weights)
    if ignore_index is not None:
        r = r * (y != ignore_index)
    return z[r != 0], y[r != 0].astype(int), r[r != 0]


def order_of(z):
    return np.argsort(-z, -1, kind="stable")


def probabilities(z):
    if z.ndim == 1:
        return 1 / (1 + np.exp(-z))
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def right(z, y, k=1):
    if z.ndim == 1:
        return ((z > 0) == (y == 1)) | (k > 1)
    return (order_of(z)[:, :k] == y[:, None]).any(-1)


def average(x, r):
    return float(np.sum(r * x) / np.sum(r)) if r.sum() else 0.0


def perplexity(z, y, r):
    p = probabilities(z)
    of_label = np.where(y == 1, p, 1 - p) if z.ndim == 1 else p[np.arange(len(y)), y]
    return np.exp(average(-np.log(of_label), r))


def brier_score(z, y, r):
    p = probabilities(z)
    if z.ndim == 1:
        return average((p - y) ** 2, r)
    return average(((p - np.eye(z.shape[-1])[y]) ** 2).sum(-1), r)


def confusion_matrix(z, y, r):
    predicted = (z > 0).astype(int) if z.ndim == 1 else order_of(z)[:, 0]
    matrix = np.zeros((2, 2) if z.ndim == 1 else z.shape[-1:] * 2)
    np.add.at(matrix, (y, predicted), r)
    return matrix


def bins_of(z, y, r, edges):
    """Sums of confidence, of what is right, and of weight, bin by bin."""
    p = probabilities(z)
    confidence, correct = (p, y) if z.ndim == 1 else (p.max(-1), right(z, y))
    which = np.clip(np.digitize(confidence, edges, right=True), 1, len(edges) - 1) - 1
    return [
        np.bincount(which, r * x, len(edges) - 1)
        for x in (confidence, correct, np.ones_like(r))
    ]


def calibration_error(z, y, r, norm, edges):
    confidence, correct, weight = bins_of(z, y, r, edges)
    filled = weight != 0
    gap = np.abs(confidence - correct)[filled] / weight[filled]
    share = weight[filled] / weight.sum()
    if norm == "max":
        return gap.max()
    return (share @ gap) if norm == "l1" else np.sqrt(share @ gap**2)


UNIFORM = np.arange(BINS + 1) / BINS
EDGES = np.array([0.0, 0.3, 0.45, 0.8, 1.0])
METRICS = {
    "accuracy": ({}, lambda z, y, r: average(right(z, y), r)),
    "top_k_accuracy": ({"k": 2}, lambda z, y, r: average(right(z, y, 2), r)),
    "perplexity": ({}, perplexity),
    "brier_score": ({}, brier_score),
    "confusion_matrix": ({}, confusion_matrix),
    "calibration_error": (
        {"bins": BINS},
        functools.partial(calibration_error, norm="l1", edges=UNIFORM),
    ),
}
SUMS = [name for name in METRICS if name != "confusion_matrix"]


def sums_of(name):
    options, _ = METRICS[name]
    return functools.partial(getattr(metrics, f"{name}_sums"), **options)


def metric(name):
    options, _ = METRICS[name]
    return functools.partial(getattr(metrics, name), **options)


def everything(z, y, axis: Any = -1, **options: Any):
    """{name: the metric}, and of those that add up {name: the sums}."""
    values = {name: metric(name)(z, y, axis, **options) for name in METRICS}
    return values, {name: sums_of(name)(z, y, axis, **options) for name in SUMS}


def batch(rng, rows: Any = (4, 5), axis: Any = -1) -> Any:
    """Logits, labels and options that drop rows; axis=() is of binary labels."""
    weights = rng.integers(1, 5, rows) / 4
    weights.reshape(-1)[::6] = 0
    options = {"where": rng.random(rows) < 0.8, "weights": weights}
    if axis == ():
        return 2 * rng.normal(size=rows), rng.integers(0, 2, rows), options
    z = np.moveaxis(2 * rng.normal(size=(*rows, CLASSES)), -1, axis)
    return z, rng.integers(0, CLASSES, rows), options | {"ignore_index": 3}


def spoilt(z, y, options, axis):
    """The same, garbage where a row is dropped by its mask or its weight."""
    kept = options["where"] & (options["weights"] != 0)
    z = np.where(kept if axis == () else kept[..., None], z, np.nan)
    return z, np.where(kept, y, 99), kept


# Values -------------------------------------------------------------------------------


@pytest.mark.each_platform
@pytest.mark.parametrize("axis", [-1, 1, ()], ids=str)
def test_equal_their_oracles(axis, x64, rng):
    """With rows dropped in every way, and without."""
    z, y, options = batch(rng, axis=axis)
    plain, masked = rows_of(z, y, axis), rows_of(z, y, axis, **options)

    @jax.jit
    def run(z, y, where, weights):
        given = options | {"where": where, "weights": weights}
        both = everything(z, y, axis), everything(z, y, axis, **given)
        return [(values, {n: sums[n].compute() for n in SUMS}) for values, sums in both]

    got = run(z, y, options["where"], options["weights"])
    for (values, computed), rows in zip(got, (plain, masked), strict=True):
        close(values, {n: of(*rows) for n, (_, of) in METRICS.items()}, 1e-10)
        close(computed, {name: values[name] for name in SUMS})


def test_map_over_batches(x64, rng):
    """vmap gives each batch its own."""
    z, y, _ = batch(rng)

    @jax.jit
    def run(z, y):
        values, sums = jax.vmap(everything)(z, y)
        return values, sums["accuracy"].compute()

    values, accuracy = jax.device_get(run(z, y))
    for i in range(len(z)):
        got = {name: x[i] for name, x in values.items()}
        wanted = {n: of(*rows_of(z[i], y[i])) for n, (_, of) in METRICS.items()}
        close(got, wanted, 1e-10)
    close(accuracy, values["accuracy"])


def test_where_masks_classes(x64, rng):
    """A mask of the logits' rank makes classes impossible, a label on one is bad."""
    z, y, _ = batch(rng)
    where = rng.random(z.shape) < 0.7
    np.put_along_axis(where, y[..., None], True, -1)
    run = jax.jit(everything)
    got, _ = run(z, y, where=where)
    rows = rows_of(z, y, where=where)
    close(got, {n: of(*rows) for n, (_, of) in METRICS.items()}, 1e-10)
    np.put_along_axis(where, y[..., None], False, -1)
    assert np.isnan(run(z, y, where=where)[0]["accuracy"])


def test_axes_that_make_up_the_classes(x64, rng):
    z, y = rng.normal(size=(4, 2, 3)), rng.integers(0, 6, 4)

    @jax.jit
    def run(z, y):
        pairs = []
        for f in (metrics.top_k_accuracy, metrics.brier_score):
            pairs.append((f(z, y, (1, 2)), f(z.reshape(4, 6), y)))
            pairs.append((f(z[0], y[0], None), f(z[:1].reshape(1, 6), y[:1])))
        return [list(side) for side in zip(*pairs, strict=True)]

    close(*run(z, y))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtypes(dtype, rng):
    """float32 or better, whatever the logits; labels of any integer dtype."""
    z, y = jnp.asarray(rng.normal(size=(8, 4)), dtype), rng.integers(0, 4, 8)
    f = jax.jit(everything)
    got, wanted = f(z, y.astype(np.uint8)), f(z.astype(jnp.float32), y)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    close(got, wanted, 1e-6)
    assert metrics.accuracy(nnx.Param(z), y).dtype == jnp.float32


OPTIONS = {"class_mask": np.arange(CLASSES) != 1, "logit_soft_cap": 3.0}


def test_options_of_logits(x64, rng):
    """A mask of classes, a soft cap and a temperature, as the losses have them."""
    z, y, options = batch(rng)
    y[y == 1] = 2
    of_rows = rng.uniform(0.5, 2, y.shape)
    changed = np.where(OPTIONS["class_mask"], 3 * np.tanh(z / 3), -np.inf)
    run = jax.jit(lambda z, t, **o: everything(z, y, temperature=t, **options, **o))
    got, sums = run(z, of_rows, **OPTIONS)
    rows = rows_of(changed / of_rows[..., None], y, **options)
    close(got, {n: of(*rows) for n, (_, of) in METRICS.items()}, 1e-10)
    close(sums["perplexity"].compute(), got["perplexity"])
    bad, _ = run(z, of_rows, class_mask=np.arange(CLASSES) != 2)
    assert all(np.isnan(x).any() for x in jax.tree.leaves(bad))


# Ranks --------------------------------------------------------------------------------


@pytest.mark.each_platform
@pytest.mark.parametrize("classes", [2, 130, 385])
def test_ranks_with_ties(classes, rng):
    """From maxima of blocks, and counted: as a stable sort has them, −inf last."""
    z = rng.integers(-3, 3, (200, classes)).astype(np.float32)
    z[rng.random(z.shape) < 0.1] = -np.inf
    z[:, 0] = 9  # something is possible
    z[::3, rng.integers(1, classes)] = 10
    y = rng.integers(0, classes, 200).astype(np.int32)
    some = np.arange(0, 200, 2)  # whose label is among the first
    y[some] = order_of(z)[some, rng.integers(0, min(8, classes), 100)]
    label = z[np.arange(200), y]
    ranks = np.argmax(order_of(z) == y[:, None], -1)
    ranks = np.where(label == -np.inf, (z > -np.inf).sum(-1), ranks)
    most = [n for n in (1, 2, 5) if 64 * n < classes]

    @jax.jit
    def run(z, label, y):
        def along(axis, z):
            few = [_count_few_ahead(axis, n, z, label, y) for n in most]
            share = metrics.top_k_accuracy(z, y, axis, k=3)
            return _count_ahead(axis, z, label, y), few, share

        return along(1, z), along(0, z.T)

    for counted, few, share in jax.device_get(run(z, label, y)):
        np.testing.assert_array_equal(counted, ranks)
        for n, found in zip(most, few, strict=True):
            np.testing.assert_array_equal(np.minimum(found, n), np.minimum(ranks, n))
        close(share, np.float32((ranks < 3).mean()), 1e-6)


def test_ties_go_to_the_first_class():
    z, y = np.zeros((3, 4), np.float32), np.array([0, 1, 3])

    @jax.jit
    def run(z, y):
        shares = [metrics.top_k_accuracy(z, y, k=k) for k in (2, 4, 9)]
        binary = metrics.accuracy(np.zeros(2, np.float32), np.array([0, 1]), ())
        column = metrics.confusion_matrix(z, y)[:, 0]
        return metrics.accuracy(z, y), shares, binary, column

    accuracy, shares, binary, column = run(z, y)
    np.testing.assert_allclose([accuracy, *shares], [1 / 3, 2 / 3, 1, 1], 1e-6)
    assert binary == 0.5
    np.testing.assert_array_equal(column, [1, 1, 0, 1])


# Bins ---------------------------------------------------------------------------------


def logit(p):
    p = np.asarray(p)
    return np.log(p) - np.log1p(-p)


def test_bins_have_their_upper_edge(x64):
    """And the outer ones what lies beyond them."""
    p = np.array([0.01, 0.25, 0.2500001, 0.5, 0.75, 0.99])
    y = np.array([0, 1, 1, 0, 1, 1])
    z = logit(p)
    p = np.asarray(jax.nn.sigmoid(z))  # as rounded there
    edges = np.array([0.1, p[1], p[3], p[4], 0.9])
    got = jax.jit(lambda z, y: metrics.reliability_bins(z, y, (), bins=edges))(z, y)
    close(got.edges, edges)
    close(got.weight, np.array([2.0, 2, 1, 1]))
    close(got.confidence, np.array([p[:2].mean(), p[2:4].mean(), p[4], p[5]]))
    close(got.accuracy, np.array([0.5, 0.5, 1, 1]))


@pytest.mark.parametrize("axis", [-1, ()], ids=str)
def test_bins_and_norms(axis, x64, rng):
    z, y, options = batch(rng, axis=axis)
    rows = rows_of(z, y, axis, **options)

    @jax.jit
    def run(z, y, edges):
        of = {"bins": edges} | options
        sums = metrics.calibration_error_sums(z, y, axis, **of)
        errors = [
            (metrics.calibration_error(z, y, axis, norm=norm, **of), sums.compute(norm))
            for norm in ("l1", "l2", "max")
        ]
        return metrics.reliability_bins(z, y, axis, **of), errors

    for edges in (UNIFORM, EDGES):
        bins, errors = run(z, y, edges)
        sums = bins_of(*rows, edges)
        filled = np.maximum(sums[2], 1e-300)
        close([*bins], [edges, sums[0] / filled, sums[1] / filled, sums[2]], 1e-10)
        wanted = [calibration_error(*rows, n, edges) for n in ("l1", "l2", "max")]
        close(errors, [(x, x) for x in wanted], 1e-10)


def test_bins_of_equal_weight(x64, rng):
    """Quantiles of the rows that count; equal probabilities stay together."""
    z, y = rng.normal(size=12), rng.integers(0, 2, 12)
    where = np.arange(12) < 9
    of: Any = {"bins": 3, "strategy": "quantile"}

    @jax.jit
    def run(z, y):
        bins = functools.partial(metrics.reliability_bins, z, y, (), **of)
        error = metrics.calibration_error(z, y, (), where, **of)
        weights = np.where(where, 2.0, 0.0)
        equal = np.zeros(4), np.ones(4, int), ()
        same = metrics.reliability_bins(*equal, strategy="quantile")
        return bins(where), bins(weights=weights), error, same

    got, again, error, same = jax.device_get(run(z, y))
    p = np.sort(probabilities(z[:9]))
    close(got.edges, p[[0, 2, 5, 8]])
    close(got.weight, np.array([3.0, 3, 3]))
    close(again.weight, 2 * got.weight)
    close(error, np.abs(got.confidence - got.accuracy).mean())
    close(np.sort(same.weight)[-2:], np.array([0.0, 4]))


def test_quantiles_end_at_rows_that_count(rng):
    """Whatever the sum of the weights rounds to."""
    z, y = rng.normal(size=(60, 30)).astype(np.float32), np.ones((60, 30), int)
    weights = rng.uniform(0.1, 2, z.shape).astype(np.float32)
    weights[:, 3] = 0

    @jax.jit
    @jax.vmap
    def last_edges(z, y, weights):
        of = {"weights": weights, "strategy": "quantile"}
        bins = (metrics.reliability_bins(z, y, (), bins=b, **of) for b in (1, 7, 13))
        return jnp.stack([b.edges[-1] for b in bins])

    largest = jax.nn.sigmoid(jnp.where(weights != 0, z, -jnp.inf)).max(-1)
    close(last_edges(z, y, weights), jnp.stack([largest] * 3, -1), 1e-6)


def test_quantiles_count_more_rows_than_floats_do():
    """In half precision, which counts no further than 2048."""
    rows = 6000
    p = np.arange(rows, dtype=np.int16).view(np.float16)  # each larger than the last
    keep = np.ones(rows, np.float16)
    keep[::3] = 0
    edges = jax.jit(functools.partial(_quantiles, bins=7, counted=True))(p, keep)
    kept = p[keep != 0]
    last = [-(-len(kept) * k // 7) - 1 for k in range(1, 8)]
    np.testing.assert_array_equal(edges, kept[[0, *last]])


def test_a_row_of_nan_may_be_in_any_bin():
    """So no bin is known, its weight neither; dropped it counts in none."""
    z, y = jnp.array([[0.0, 1, 2], [0, jnp.nan, 2], [0, 1, 0]]), jnp.array([0, 1, 2])

    @jax.jit
    def run(where):
        uniform = metrics.reliability_bins(z, y, where=where)
        equal = metrics.reliability_bins(z, y, where=where, strategy="quantile")
        sums = metrics.calibration_error_sums(z, y, where=where)
        return uniform[1:], equal, sums

    got = jax.tree.leaves(run(jnp.array([True, True, True])))
    assert all(np.isnan(x).all() for x in got)
    kept = run(jnp.array([True, False, True]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept))
    assert {float(of[-1].sum()) for of in kept} == {2.0}


# Sums ---------------------------------------------------------------------------------


@pytest.mark.newest_jax
@pytest.mark.parametrize("axis", [-1, ()], ids=str)
def test_sums_add_up_over_any_split(axis, x64, rng):
    """Weights of quarters to the bit, losses to the last digits."""
    z, y, options = batch(rng, (24,), axis)
    rows = {"where": options.pop("where"), "weights": options.pop("weights")}

    @jax.jit
    def of(z, y, where, weights):
        return everything(z, y, axis, **options, where=where, weights=weights)

    values, whole = of(z, y, **rows)
    halves = [
        of(z[i], y[i], **{n: x[i] for n, x in rows.items()})[1]
        for i in (slice(0, 12), slice(12, 24))
    ]
    part = rng.integers(0, 3, 24)
    thirds = [
        of(z, y, rows["where"] & (part == i), rows["weights"])[1] for i in range(3)
    ]
    exact = lambda sums: [
        (sums[name].correct, sums[name].weight)
        for name in ("accuracy", "top_k_accuracy", "calibration_error")
    ]
    for parts in (halves, thirds):
        total = jax.tree.map(lambda *xs: sum(xs[1:], xs[0]), *parts)
        close(total, whole)
        same_bits(exact(total), exact(whole))
        close(total["perplexity"].compute(), values["perplexity"])


@pytest.mark.newest_jax
def test_sums_over_devices(x64, rng):
    """Inside shard_map by psum or a name; whole arrays, split by types or not."""
    z, y, options = batch(rng, (16,))
    rows = {"where": options.pop("where"), "weights": options.pop("weights")}

    def of(z, y, where, weights, **names):
        given = options | {"where": where, "weights": weights} | names
        _, sums = everything(z, y, **given)
        return sums, metrics.confusion_matrix(z, y, **given)

    def on_device(*arrays):
        named = of(*arrays, batch_axis_name="data")
        return jax.lax.psum(of(*arrays), "data"), named

    arrays, spec = (z, y, *rows.values()), P("data")
    how: dict[str, Any] = {"shape": (4, 2)}
    wanted, specs = jax.jit(of)(*arrays), (spec,) * 4
    explicit = how | {"kind": AxisType.Explicit}
    twice = on_mesh(on_device, arrays, specs, results=P(), **explicit)
    close(twice, (wanted, wanted))
    close(on_mesh(of, arrays, specs, **explicit), wanted)
    close(on_mesh(of, arrays, (P("data", "model"), *specs[1:]), **how), wanted)
    quantile = functools.partial(metrics.calibration_error, strategy="quantile")
    close(on_mesh(quantile, (z, y), specs[:2], **explicit), quantile(z, y))


# Whatever rows hold -------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, ()], ids=str)
def test_dropped_rows_hold_anything(axis, x64, rng):
    """The others' values and sums stay; what is dropped has a gradient of 0."""
    z, y, options = batch(rng, (12,), axis)

    @jax.jit
    def run(z, y):
        of = lambda z, name: metric(name)(z, y, axis, **options)
        slopes = {name: jax.grad(of)(z, name) for name in SUMS}
        return everything(z, y, axis, **options), slopes

    clean, _ = run(z, y)
    z, y, kept = spoilt(z, y, options, axis)
    got, slopes = jax.device_get(run(z, y))
    close(got, clean)
    for name, slope in slopes.items():
        assert np.isfinite(slope).all(), name
        assert not slope[~kept].any(), name


@pytest.mark.each_platform
def test_bad_rows_give_nan():
    """A label outside of the classes; logits of which no loss is a number."""
    f, binary = (
        jax.jit(lambda z, y, axis=axis: everything(z, y, axis)[0]) for axis in (-1, ())
    )
    z, y = np.zeros((3, 4), np.float32), np.array([0, 1, 2])

    def changed(x, place, value):
        x = x.copy()
        x[place] = value
        return x

    spoilt = [(z, changed(y, 1, label)) for label in (-1, 4)]
    for place, value in (((1, 3), np.nan), ((1, 3), np.inf), (1, -np.inf)):
        spoilt.append((changed(z, place, value), y))
    for rows in spoilt:
        assert all(np.isnan(x).all() for x in f(*rows).values())
    z, y = np.zeros(3, np.float32), np.array([0, 1, 1])
    for label in (-1, 2):
        found = binary(z, changed(y, 1, label))
        assert all(np.isnan(x).any() for x in found.values())
    found = binary(changed(z, 1, np.nan), y)
    among = found.pop("top_k_accuracy")
    assert np.isnan(among) or among == 1
    assert all(np.isnan(x).any() for x in found.values())


def test_edges_that_fall_give_nan():
    """In a JAX array, whose values a call does not wait for; of NumPy's an error."""
    z, y = jnp.zeros((3, 4)), jnp.array([0, 1, 2])

    @jax.jit
    def run(edges):
        bins = metrics.reliability_bins(z, y, bins=edges)
        return metrics.calibration_error(z, y, bins=edges), bins.accuracy, bins.weight

    for edges in ([0, 0.5, 0.2], [0, np.nan, 1]):
        assert all(np.isnan(x).all() for x in run(jnp.array(edges)))
    assert all(np.isfinite(x).all() for x in run(jnp.array([0, 0.5, 0.5])))


def test_infinite_yes_and_no():
    """As the sigmoid family has it: certain, right or wrong."""
    z, y = np.array([np.inf, -np.inf], np.float32), np.array([True, False])
    names = "accuracy", "brier_score", "calibration_error", "perplexity"
    run = jax.jit(lambda y: [getattr(metrics, name)(z, y, ()) for name in names])
    assert jax.device_get(run(y)) == [1, 0, 0, 1]
    assert jax.device_get(run(~y)) == [0, 1, 1, np.inf]


@pytest.mark.each_platform
@pytest.mark.parametrize("shape", [(256, 32768), (16384, 10), (256, 1024), (9, 300)])
def test_a_nan_among_many_numbers(shape):
    """XLA on a CPU loses it in a maximum of long or of many rows."""
    rows, classes = shape
    z = np.ones(shape, np.float32)
    z[0, 0] = np.nan
    y = np.ones(rows, int)

    @as_users_jit
    def all_of(z, y):
        found = [metrics.accuracy(z, y), metrics.top_k_accuracy(z, y, k=5)]
        found += [jxent.softmax_cross_entropy_sums(z, y).correct]
        found += [jxent.softmax_top_k(z, 1)[0][0, 0]]
        if classes < 2**11:  # the matrix is their square
            found += [metrics.confusion_matrix(z, y)[1, 1]]
        return found

    assert np.isnan(all_of(z, y)).all()


def test_a_confusion_matrix_of_more_entries_than_int32_counts():
    """No axis of any array is longer than int32, in which places are counted."""
    classes = 2**16
    z = jax.ShapeDtypeStruct((2, classes), jnp.float32)
    y = jax.ShapeDtypeStruct((2,), jnp.int32)
    text = jax.jit(metrics.confusion_matrix).lower(z, y).as_text()
    shapes = re.findall(r"tensor<([0-9]+(?:x[0-9]+)*)x[a-z]", text)
    assert f"{classes}x{classes}" in shapes
    assert all(int(n) < 2**31 for shape in shapes for n in shape.split("x"))


def test_nothing_left():
    z, y = np.ones((2, 3), np.float32), np.array([-1, -1])

    @jax.jit
    def run(z, y):
        values, _ = everything(z, y, ignore_index=-1)
        sums = metrics.calibration_error_sums(z, y, ignore_index=-1)
        bins = [
            metrics.reliability_bins(z, y, ignore_index=-1, strategy=strategy)
            for strategy in ("uniform", "quantile")
        ]
        return values, [sums.compute(norm) for norm in ("l1", "l2", "max")], bins

    wanted = {name: 0.0 for name in METRICS} | {"perplexity": 1.0}
    for values, errors, bins in (run(z, y), run(z[:0], y[:0])):
        assert all(np.all(values[name] == value) for name, value in wanted.items())
        assert errors == [0, 0, 0]
        for some in bins:
            assert not any(x.any() for x in some[1:])
            assert np.isfinite(some.edges).all()


# Derivatives --------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, ()], ids=str)
def test_derivatives(axis, x64, rng):
    """Of perplexity and Brier score, of any order; those of counts are 0."""
    z, y, options = batch(rng, (3,), axis)
    for name in ("perplexity", "brier_score"):
        f = lambda z, name=name: metric(name)(z, y, axis, **options)
        check_grads(jax.jit(f), (z,), 2, ("rev",), rtol=1e-4, atol=1e-6)
    counts = ("accuracy", "top_k_accuracy", "confusion_matrix")
    total = lambda z, name: jnp.sum(metric(name)(z, y, axis, **options))
    slopes = jax.jit(lambda z: [jax.grad(total)(z, name) for name in counts])
    assert not np.any(slopes(z))


def test_brier_score_keeps_its_digits():
    """Where p is near 1 the naive 1 − p has none left."""
    z = jnp.array([[20.0, 0.0, 0.0]])
    p = np.exp(-20.0) / (1 + 2 * np.exp(-20.0))
    wanted = (2 * p) ** 2 + 2 * p**2
    close(
        as_users_jit(metrics.brier_score)(z, jnp.array([0])), np.float32(wanted), 1e-4
    )


# Fused heads --------------------------------------------------------------------------

HEADS = [
    {"implementation": "materialized"},
    {"implementation": "streamed", "block_sizes": (4, 3)},
]
FUSED = [name for name in METRICS if name != "brier_score"]  # that needs logits whole


def head(rng, rows=(3, 4), features=4, classes=12):
    hidden = rng.normal(size=(*rows, features))
    kernel = rng.normal(size=(features, classes))
    labels = rng.integers(0, classes - 1, rows)
    labels.reshape(-1)[::5] = -100
    return hidden, kernel, labels


def of_fused(logits, labels, **options):
    """{name: the metric}, and of those that add up {name: the sums}."""
    values = {name: metric(name)(logits, labels, **options) for name in FUSED}
    adding = [name for name in FUSED if name in SUMS]
    return values, {name: sums_of(name)(logits, labels, **options) for name in adding}


@pytest.mark.each_platform
@pytest.mark.parametrize("layout", HEADS, ids=lambda x: x["implementation"])
def test_fused_heads(layout, x64, rng):
    """The numbers of the logits in memory, under every option."""
    hidden, kernel, labels = head(rng)
    bias, weights = rng.normal(size=12), rng.uniform(0.5, 2, labels.shape)
    weights[0, 1] = 0
    mask = np.arange(12) < 11
    temperature = rng.uniform(0.5, 2, labels.shape)
    where = rng.random(labels.shape) < 0.9
    z = hidden @ kernel + bias
    options = {
        "class_mask": mask,
        "logit_soft_cap": 3.0,
        "temperature": temperature,
        "weights": weights,
        "where": where,
        "ignore_index": -100,
    }
    hidden[~where] = np.nan
    logits = jxent.LinearLogits(hidden, kernel.T, bias, vocab_axis=0, **layout)

    @jax.jit
    def run(logits, labels):
        bins = [
            metrics.reliability_bins(logits, labels, strategy=strategy, **options)
            for strategy in ("uniform", "quantile")
        ]
        return of_fused(logits, labels, **options), bins

    in_memory, got = run(z, labels), run(logits, labels)
    close(got, in_memory, 1e-10)
    for label in (12, 11):  # none, and one that is masked
        (bad, _), _ = run(logits, np.where(labels == -100, labels, label))
        assert all(np.isnan(value).all() for value in bad.values())


def test_fused_gradients(x64, rng):
    hidden, kernel, labels = head(rng)
    given: Any = {"labels": labels, "ignore_index": -100}
    fused: Any = {"implementation": "streamed", "block_sizes": (5, 5)}

    @jax.jit
    def gradients(*at):
        def linear(h, k):
            return jxent.LinearLogits(h, k, **fused)

        functions = (
            lambda h, k: metrics.perplexity(linear(h, k), **given),
            lambda h, k: metrics.perplexity(h @ k, **given),
            lambda h, k: metrics.calibration_error(linear(h, k), **given),
            lambda h, k: metrics.calibration_error(h @ k, **given),
            lambda h, k: metrics.top_k_accuracy(linear(h, k), **given),
        )
        return [jax.grad(f, (0, 1))(*at) for f in functions]

    perplexity, in_memory, calibration, of_array, of_counts = gradients(hidden, kernel)
    close(perplexity, in_memory, 1e-10)
    close(calibration, of_array, 1e-10)
    assert not any(g.any() for g in of_counts)


@pytest.mark.newest_jax
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_fused_heads_over_devices(kind, x64, rng):
    """Rows and classes split over a mesh, outside of shard_map and inside."""
    arrays, specs = head(rng, (16,)), (P("data"), P(None, "model"), P("data"))
    outside = NAMES if kind == AxisType.Auto else {}

    def of(layout, hidden, kernel, labels, **more):
        logits = hidden @ kernel
        if layout is not None:
            logits = jxent.LinearLogits(hidden, kernel, **layout)
        return of_fused(logits, labels, ignore_index=-100, **more)

    wanted = jax.jit(functools.partial(of, None))(*arrays)
    for layout in HEADS:
        for names, results in ((outside, None), (NAMES, P())):
            f = functools.partial(of, layout, **names)
            close(on_mesh(f, arrays, specs, results=results, kind=kind), wanted)


# Other libraries' containers ----------------------------------------------------------


class Sums(nnx.metrics.Metric):
    """Adds up the sums that `update` gets by the name of `argname`."""

    def __init__(self, argname, of_no_row):
        self.argname = argname
        self.sums = nnx.metrics.MetricState(of_no_row)

    def reset(self):
        self.sums.set_value(jax.tree.map(jnp.zeros_like, self.sums.get_value()))

    def update(self, **batch):
        self.sums.set_value(self.sums.get_value() + batch[self.argname])

    def compute(self):
        return self.sums.get_value().compute()


def test_flax_nnx_metrics(rng):
    """A MultiMetric of sums beside one of Flax's own, inside of jit."""

    def sums_of(z, y):
        return {
            "accuracy": metrics.accuracy_sums(z, y),
            "perplexity": metrics.perplexity_sums(z, y),
            "calibration": metrics.calibration_error_sums(z, y, bins=BINS),
        }

    z = jnp.asarray(rng.normal(size=(10, 4)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 4, 10), jnp.int32)
    no_row = sums_of(z[:0], y[:0])
    collected = nnx.metrics.MultiMetric(
        flax=nnx.metrics.Accuracy(),
        **{name: Sums(name, sums) for name, sums in no_row.items()},
    )

    @nnx.jit
    def step(collected, z, y):
        with jax.numpy_dtype_promotion("standard"):  # for Flax's own
            collected.update(logits=z, labels=y, **sums_of(z, y))

    for _ in range(2):
        for part in (slice(0, 5), slice(5, 10)):
            step(collected, z[part], y[part])
        with jax.numpy_dtype_promotion("standard"):
            got = collected.compute()
        close(got["accuracy"], got["flax"], 1e-6)
        close(got["perplexity"], metrics.perplexity(z, y), 1e-6)
        close(got["calibration"], metrics.calibration_error(z, y, bins=BINS), 1e-6)
        collected.reset()
