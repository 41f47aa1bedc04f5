"""Losses of pairs and of labelled batches: what they promise, block by block."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)

import jxent
from jxent._contrastive import sides
from jxent._contrastive.arguments import Implementation
from tests.comparing import close, floats, ints, refuses, same_bits, weighed_rows
from tests.meshes import KINDS, mesh_of, on_mesh


BATCH, FEATURES, EXTRA = 16, 3, 8
BLOCKS = (5, 7)  # neither divides the batch
WHOLE = (8, 8)  # and programs of half the size


# Oracles ------------------------------------------------------------------------------


def lse(z, where):
    """log Σ exp over the last axis, −∞ of nothing."""
    z = np.where(where, z, -np.inf)
    top = np.max(z, -1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(z - top), -1)) + top[..., 0]


def pairs_of(batch, groups, where):
    """Rows and columns that are there, own pairs, and pairs of one group."""
    there = np.ones(batch, bool) if where is None else np.asarray(where)
    own = np.eye(batch, dtype=bool)
    same = own if groups is None else groups[:, None] == groups[None]
    return there, there[:, None] & there[None], own, same


def contrastive(
    x,
    y,
    logit_scale=1.0,
    candidate_bias=None,
    extra_candidates=None,
    *,
    groups=None,
    where=None,
    symmetric=True,
):
    there, both, own, same = pairs_of(len(x), groups, where)
    candidates = both & (own | ~same)
    plain = logit_scale * x @ y.T
    z, allowed = plain, candidates
    if extra_candidates is not None:
        z = np.concatenate([z, logit_scale * x @ extra_candidates.T], 1)
        more = np.broadcast_to(there[:, None], (len(x), len(extra_candidates)))
        allowed = np.concatenate([candidates, more], 1)
    if candidate_bias is not None:
        z = z + candidate_bias
    loss = lse(z, allowed) - np.diagonal(z)
    if symmetric:
        loss = (loss + lse(plain.T, candidates.T) - np.diagonal(plain)) / 2
    return np.where(there, loss, 0)


def sigmoid(x, y, logit_scale=1.0, logit_bias=0.0, *, groups=None, where=None):
    _, both, own, same = pairs_of(len(x), groups, where)
    z = logit_scale * x @ y.T + logit_bias
    losses = np.logaddexp(0, np.where(own, -z, z))
    return np.sum(np.where(both & (own | ~same), losses, 0), 1)


def supervised(x, temperature=0.1, *, labels, where=None, log="outside"):
    _, both, own, same = pairs_of(len(x), labels, where)
    z = x @ x.T / temperature
    others, positives = both & ~own, both & same & ~own
    count = positives.sum(1)
    some = np.maximum(count, 1)
    mean = np.sum(np.where(positives, z, 0), 1) / some
    if log == "inside":
        mean = lse(z, positives) - np.log(some)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, lse(z, others) - mean, 0)


def ntxent(x, temperature=0.07, *, labels):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    _, _, own, same = pairs_of(len(x), labels, None)
    z = x @ x.T / temperature
    losses = np.logaddexp(0, lse(z, ~same)[:, None] - z)
    positives = same & ~own
    return np.sum(np.where(positives, losses, 0)) / np.sum(positives)


# Cases --------------------------------------------------------------------------------


class Case(NamedTuple):
    """A loss with the arrays it has derivatives in, and its other options.

    Attributes:
      function: the loss, called with the arrays by name.
      oracle: the same in NumPy, called with the arrays in their order.
      shapes: of the arrays, by name.
      given: names of the others: groups, labels, where.
      options: what is no array.
    """

    function: Callable[..., Any]
    oracle: Callable[..., Any]
    shapes: dict[str, tuple[int, ...]]
    given: tuple[str, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012

    def arrays(self, rng) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those with derivatives, and the others."""
        moving = {n: np.asarray(rng.normal(size=s)) for n, s in self.shapes.items()}
        for name in ("temperature", "logit_scale"):
            if name in moving:
                moving[name] = np.asarray(rng.uniform(0.5, 1.5))
        others = {
            "groups": rng.integers(0, 6, BATCH),
            "labels": np.arange(BATCH) // 3 % 5,  # the last one's alone
            "where": np.arange(BATCH) % 5 != 2,
        }
        return moving, {name: others[name] for name in self.given}


PAIRS = {"x": (BATCH, FEATURES), "y": (BATCH, FEATURES), "logit_scale": ()}
RICH = PAIRS | {"candidate_bias": (BATCH + EXTRA,)}
RICH |= {"extra_candidates": (EXTRA, FEATURES)}
LABELLED = {"x": (BATCH, FEATURES), "temperature": ()}
CASES = {
    "pairs": Case(jxent.contrastive_cross_entropy, contrastive, PAIRS),
    "pairs, every option": Case(
        jxent.contrastive_cross_entropy, contrastive, RICH, ("groups", "where")
    ),
    "one direction, every option": Case(
        jxent.contrastive_cross_entropy,
        contrastive,
        RICH,
        ("groups", "where"),
        {"symmetric": False},
    ),
    "sigmoid": Case(
        jxent.sigmoid_contrastive_loss,
        sigmoid,
        PAIRS | {"logit_bias": ()},
        ("groups", "where"),
    ),
    "outside": Case(
        jxent.supervised_contrastive_cross_entropy,
        supervised,
        LABELLED,
        ("labels", "where"),
    ),
    "inside": Case(
        jxent.supervised_contrastive_cross_entropy,
        supervised,
        LABELLED,
        ("labels", "where"),
        {"log": "inside"},
    ),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
some = pytest.mark.parametrize(
    "case", [CASES["pairs, every option"], CASES["sigmoid"], CASES["inside"]]
)


def loss_of(case, given, **options):
    """The loss as a function of a dictionary of its arrays."""
    return lambda moving: case.function(**moving, **given, **case.options, **options)


@every
def test_equals_its_oracle_in_every_derivative(case, x64, rng):
    """Values, forward mode, reverse mode and one over the other, in uneven blocks."""
    moving, given = case.arrays(rng)
    along = {n: np.asarray(rng.normal(size=x.shape)) for n, x in moving.items()}
    loss = loss_of(case, given, block_sizes=BLOCKS)
    gradient = jax.grad(lambda moving: weighed_rows(loss(moving)))

    @jax.jit
    def program(moving):
        values, tangents = jax.jvp(loss, (moving,), (along,))
        gradients, products = jax.jvp(gradient, (moving,), (along,))
        return values, tangents, gradients, products

    everything = lambda moving: jax.tree.map(np.asarray, program(moving))
    values, tangents, gradients, products = everything(moving)

    def shifted(step):
        return {n: x + step * along[n] for n, x in moving.items()}

    def oracle(moving):
        return case.oracle(*moving.values(), **given, **case.options)

    close(values, oracle(moving))
    slopes = (oracle(shifted(1e-6)) - oracle(shifted(-1e-6))) / 2e-6
    close(tangents, slopes, 1e-6)
    by_reverse = sum(np.sum(gradients[n] * along[n]) for n in moving)
    close(by_reverse, weighed_rows(tangents))
    ahead, behind = (everything(shifted(step))[2] for step in (1e-6, -1e-6))
    second = jax.tree.map(lambda a, b: (a - b) / 2e-6, ahead, behind)
    close(products, second, 1e-6)
    for name, x in gradients.items():
        assert np.any(x), f"no derivative in {name}"


@pytest.mark.newest_jax
@some
def test_jit_vmap_and_any_blocks(case, x64, rng):
    """Whatever the blocks: all in one, one entry each, those that are chosen."""
    moving, given = case.arrays(rng)
    wanted = case.oracle(*moving.values(), **given, **case.options)
    blocks = (None, (1, None), (100, 100), (None, 4), BLOCKS)
    losses = [loss_of(case, given, block_sizes=sizes) for sizes in blocks]

    @jax.jit
    def run(moving):
        two = jax.tree.map(lambda x: jnp.stack([x, x]), moving)
        return [loss(moving) for loss in losses], jax.vmap(losses[-1])(two)

    every, mapped = run(moving)
    close(every, [wanted] * len(blocks))
    close(mapped, np.stack([wanted, wanted]))


@pytest.mark.each_platform
def test_blocks_that_a_platform_chooses(x64, rng, monkeypatch):
    """Several blocks, which otherwise only a large matrix has."""
    monkeypatch.setattr(sides, "SMALL", 0)
    x, y = rng.normal(size=(2, 1100, FEATURES))

    @jax.jit
    def both(x, y):
        loss = functools.partial(jxent.contrastive_cross_entropy, reduction="mean")
        whole = functools.partial(loss, block_sizes=(1100, 1100))
        return [jax.value_and_grad(f, (0, 1))(x, y) for f in (loss, whole)]

    close(*both(x, y))


@some
def test_reductions(case, x64, rng):
    """mean = Σ r · loss / Σ r, over rows that count; or over a given normalizer."""
    moving, given = case.arrays(rng)
    weights = rng.uniform(0.5, 2, BATCH)
    calls: tuple[dict[str, Any], ...] = (
        {"reduction": "none"},
        {"reduction": "sum"},
        {"reduction": "mean"},
        {"reduction": "mean", "normalizer": 3},
    )

    @jax.jit
    def run(moving):
        weighted = [loss_of(case, given, weights=weights, **call) for call in calls]
        return loss_of(case, given)(moving), [loss(moving) for loss in weighted]

    losses, got = jax.device_get(run(moving))
    r = weights * (losses != 0)
    total = np.sum(r * losses)
    close(got, [r * losses, total, total / np.sum(r), total / 3])


def test_ntxent_is_optaxs(x64, rng):
    """tests/test_optax.py calls both; and with two views each it is SupCon."""
    x, labels = rng.normal(size=(BATCH, FEATURES)), np.arange(BATCH) // 3
    close(jxent.ntxent(x, labels, 0.3), ntxent(x, 0.3, labels=labels))
    views = np.arange(BATCH) // 2
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    supervised = jxent.supervised_contrastive_cross_entropy(
        unit, views, temperature=0.3, reduction="mean"
    )
    close(jxent.ntxent(x, views, 0.3), supervised)


def test_a_vector_of_zeros_has_the_gradient_0(rng):
    x = np.eye(4, 3, dtype=np.float32)
    gradient = jax.device_get(
        jax.jit(jax.grad(jxent.ntxent))(x, np.array([0, 0, 1, 1]))
    )
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient[2])
    assert not np.any(gradient[3])


@pytest.mark.parametrize("name", ["where", "weights"])
@some
def test_dropped_rows_are_not_there(case, name, x64, rng):
    """The others' losses and gradients are those of a batch without them, even if a
    dropped row holds NaN."""
    moving, given = case.arrays(rng)
    keep = given.pop("where")
    of_rows = [n for n in (*moving, *given) if np.shape({**moving, **given}[n])]
    of_rows = [n for n in of_rows if n != "extra_candidates"]

    def kept(tree):
        tail = np.ones(EXTRA, bool)
        return {
            n: x[np.concatenate([keep, tail])[: len(x)]] if n in of_rows else x
            for n, x in tree.items()
        }

    def poisoned(n, x):
        if n not in of_rows:
            return x
        x = x.copy()
        x[:BATCH][~keep] = np.nan
        return x

    loss = loss_of(case, given, **{name: keep}, block_sizes=WHOLE)
    small = loss_of(case, kept(given))
    gradient = lambda loss: jax.grad(lambda m: jnp.sum(jnp.sin(loss(m))))
    both = lambda loss: jax.jit(lambda m: (loss(m), gradient(loss)(m)))
    bad = {n: poisoned(n, x) for n, x in moving.items()}
    losses, gradients = jax.tree.map(np.asarray, both(loss)(bad))
    wanted, gradients_of_few = both(small)(kept(moving))
    close(losses[keep], wanted)
    assert not np.any(losses[~keep])
    close(kept(gradients), gradients_of_few)
    for n in of_rows:
        if n in gradients:
            assert not np.any(np.asarray(gradients[n])[:BATCH][~keep])


def test_the_derivative_in_weights(x64, rng):
    """A row's loss; 0 for a row that is not there."""
    moving, _ = CASES["pairs"].arrays(rng)
    weights = np.arange(BATCH) % 4 / 2
    loss = functools.partial(jxent.contrastive_cross_entropy, **moving)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(loss(weights=w))))(weights)
    close(gradient, contrastive(**moving, where=weights != 0))


def test_what_has_nothing_to_compare_is_0_with_gradient_0(rng):
    x = np.float32(rng.normal(size=(4, 3)))
    none, alone, one = np.zeros(4, bool), np.arange(4), np.zeros(4, np.int32)
    pairs = functools.partial(jxent.contrastive_cross_entropy, reduction="mean")
    sigmoid = functools.partial(jxent.sigmoid_contrastive_loss, reduction="mean")
    inside = functools.partial(
        jxent.supervised_contrastive_cross_entropy, log="inside", reduction="mean"
    )
    losses = {
        "every pair dropped": lambda x: pairs(x, x, where=none),
        "every pair dropped, sigmoid": lambda x: sigmoid(x, x, where=none),
        "no positives": lambda x: inside(x, alone),
        "no positives, NT-Xent": lambda x: jxent.ntxent(x, alone),
        "no negatives, NT-Xent": lambda x: jxent.ntxent(x, one),
        "no pair": lambda x: pairs(x[:0], x[:0]),
        "one pair": lambda x: pairs(x[:1], x[:1]),
    }
    each = {name: jax.value_and_grad(loss) for name, loss in losses.items()}
    found = jax.jit(lambda x: {name: both(x) for name, both in each.items()})(x)
    for name, (value, gradient) in jax.device_get(found).items():
        assert value == 0, name
        assert not np.any(gradient), name


# Numerics -----------------------------------------------------------------------------


def test_no_precision_is_lost_far_from_zero(x64, rng):
    """A bias shared by all candidates changes nothing, in float32 either."""
    x, y = rng.normal(size=(2, BATCH, FEATURES)).astype(np.float32)
    bias = np.where(np.arange(BATCH) == 3, np.float32(2), np.float32(0))
    options = {"block_sizes": BLOCKS, "symmetric": False}
    loss = functools.partial(jxent.contrastive_cross_entropy, x, y, **options)
    run = jax.jit(lambda bias: loss(candidate_bias=bias))
    exact = contrastive(np.float64(x), np.float64(y), 1.0, bias, symmetric=False)
    for offset, tolerance in ((0, 1e-6), (1e4, 2e-3)):
        got = run(bias + np.float32(offset))
        assert got.dtype == jnp.float32
        close(got, exact, tolerance)


def test_confident_pairs(x64):
    """Rows whose largest logits lie a thousand apart: neither direction underflows."""
    x = np.diag([1.0, 1e3, 1e-3, 0.0]).astype(np.float32)
    y = np.ones((4, 4), np.float32)
    got = jxent.contrastive_cross_entropy(x, y, block_sizes=(2, 2))
    close(got, contrastive(x.astype(float), y.astype(float)), 1e-6)
    loss = functools.partial(jxent.contrastive_cross_entropy, reduction="sum")
    gradients = jax.jit(jax.grad(loss, (0, 1)))(x, y)
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_impossible_candidates(x64, rng):
    """A bias of −∞ leaves a candidate out of x → y, and of nothing else."""
    moving, _ = CASES["pairs, every option"].arrays(rng)
    bias = moving.pop("candidate_bias")
    bias[BATCH:] = -np.inf
    few = dict(moving)
    del few["extra_candidates"]
    loss = functools.partial(jxent.contrastive_cross_entropy, reduction="sum")

    @jax.jit
    def run(moving, few):
        f, g = (
            functools.partial(loss, candidate_bias=of) for of in (bias, bias[:BATCH])
        )
        each = ((f, moving), (g, few))
        return [jax.value_and_grad(lambda m, f=f: f(**m))(x) for f, x in each]

    (value, gradients), wanted = run(moving, few)
    assert not np.any(gradients.pop("extra_candidates"))
    close((value, gradients), tuple(wanted))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype, rng):
    """Float32 out, as if the vectors were float32; gradients as the vectors."""
    x, y = jnp.asarray(rng.normal(size=(2, BATCH, FEATURES)), dtype)
    loss = lambda x, y: jnp.sum(
        jxent.contrastive_cross_entropy(x, y, logit_scale=10.0, block_sizes=BLOCKS)
    )
    both = jax.jit(jax.value_and_grad(loss, (0, 1)))
    value, gradients = both(x, y)
    wide, wide_gradients = both(*(v.astype(jnp.float32) for v in (x, y)))
    assert value.dtype == jnp.float32
    close(value, wide, 1e-5)
    for g, w in zip(gradients, wide_gradients, strict=True):
        assert g.dtype == dtype
        close(g.astype(jnp.float32), w, 1e-2)


def test_sides_of_two_dtypes(x64, rng):
    """The wider one's results; each gradient as its vectors, in both derivatives."""
    moving, _ = CASES["pairs"].arrays(rng)
    moving["extra_candidates"] = rng.normal(size=(EXTRA, FEATURES))
    dtypes = jnp.bfloat16, jnp.float32, jnp.float32, jnp.float64
    named = zip(moving.items(), dtypes, strict=True)
    moving = {n: jnp.asarray(x, dtype) for (n, x), dtype in named}
    loss = lambda m: jnp.sum(jxent.contrastive_cross_entropy(**m, block_sizes=WHOLE))
    both = lambda m: (jax.value_and_grad(loss)(m), jax.jvp(loss, (m,), (m,))[1])
    (value, gradients), tangent = jax.jit(both)(moving)
    assert value.dtype == jnp.float64
    inner = 0.0
    for n, g in gradients.items():
        assert g.dtype == moving[n].dtype
        inner += np.sum(np.float64(g) * np.float64(moving[n]))
    close(tangent, inner, 2e-2)  # a gradient in bfloat16


def test_derivative_in_one_argument_alone(x64, rng):
    moving, given = CASES["pairs, every option"].arrays(rng)
    loss = loss_of(CASES["pairs, every option"], given, reduction="sum")

    @jax.jit
    def run(moving):
        tangents, slopes = {}, {}
        for name, x in moving.items():
            one = lambda x, name=name: loss(moving | {name: x})
            tangents[name] = jax.jvp(one, (x,), (jnp.ones_like(x),))[1]
            slopes[name] = jnp.sum(jax.grad(one)(x))
        return tangents, slopes

    close(*run(moving), tolerance=1e-10)


def test_gradients_are_summed_in_float32():
    """Of bfloat16 vectors: the error does not grow with the number of blocks."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(2, 256, 4)), jnp.bfloat16)

    def gradient(x, size):
        loss = lambda x: jxent.sigmoid_contrastive_loss(
            x, y, block_sizes=size, reduction="mean"
        )
        return np.asarray(jax.jit(jax.grad(loss))(x), np.float32)

    exact = gradient(x.astype(jnp.float32), None)
    for size in (None, (256, 2)):
        error = np.linalg.norm(gradient(x, size) - exact) / np.linalg.norm(exact)
        assert error < 4e-3


# Arguments ----------------------------------------------------------------------------


def test_what_looks_like_an_array(rng):
    """Lists, NumPy's arrays and parameters of a model; two calls give the same bits."""
    x, y = rng.normal(size=(2, 4, 3)).astype(np.float32)
    scale = nnx.Param(jnp.float32(2.0))
    call = functools.partial(jxent.contrastive_cross_entropy, logit_scale=scale)
    wanted = call(jnp.asarray(x), jnp.asarray(y), groups=jnp.asarray([0, 0, 1, 2]))
    same_bits(call(nnx.Param(jnp.asarray(x)), y, groups=[0, 0, 1, 2]), wanted)


@pytest.mark.newest_jax
def test_a_symbolic_batch():
    """`jax.export` for any batch: then all of it is one block."""
    (batch,) = export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    loss = jax.jit(lambda x, y: jxent.contrastive_cross_entropy(x, y, reduction="mean"))
    exported = export.export(loss)(x, x)
    x = jnp.asarray(np.eye(5, 3), jnp.float32)
    close(exported.call(x, x), loss(x, x), 1e-6)


# Devices ------------------------------------------------------------------------------


ways = pytest.mark.parametrize("way", get_args(Implementation))
RING: dict[str, Any] = {"batch_axis_name": "data", "implementation": "ring"}


def split(tree, name: Any = "data"):
    """The specs of what has rows; numbers are shared by all devices."""
    return jax.tree.map(lambda x: P(name) if np.ndim(x) else P(), tree)


over_eight = functools.partial(on_mesh, shape=(8, 1))


@pytest.mark.newest_jax
@ways
@some
def test_split_over_devices_by_the_caller(case, way, x64, rng):
    """Inside shard_map: the losses of one device, and their gradients."""
    moving, given = case.arrays(rng)
    bias = moving.pop("candidate_bias", None)
    if bias is not None:  # a device has the biases of its own candidates
        moving["bias"], moving["extra_bias"] = bias[:BATCH], bias[BATCH:]

    def loss(moving, given, **options):
        moving = {**moving}
        if "bias" in moving:
            parts = moving.pop("bias"), moving.pop("extra_bias")
            moving["candidate_bias"] = jnp.concatenate(parts)
        return loss_of(case, given, reduction="mean", **options)(moving)

    here = functools.partial(
        loss, batch_axis_name="data", block_sizes=WHOLE, implementation=way
    )
    specs = split((moving, given))
    f = jax.value_and_grad(here)
    got = over_eight(f, (moving, given), specs, results=(P(), specs[0]))
    close(got, jax.jit(jax.value_and_grad(loss))(moving, given))


@pytest.mark.newest_jax
@pytest.mark.parametrize("kind", KINDS)
@ways
@some
def test_split_over_devices_by_the_arrays(case, way, kind, x64, rng):
    """Outside of shard_map: named automatic axes, and explicit ones."""
    moving, given = case.arrays(rng)

    def value_and_gradients(**options):
        options |= {"reduction": "mean"}
        loss = lambda moving, given: loss_of(case, given, **options)(moving)
        return jax.value_and_grad(loss)

    wanted = jax.jit(value_and_gradients())(moving, given)
    names = {} if kind == AxisType.Explicit else {"batch_axis_name": "data"}
    f = value_and_gradients(block_sizes=WHOLE, implementation=way, **names)
    arrays = moving, given
    close(over_eight(f, arrays, split(arrays), kind=kind), wanted)


@pytest.mark.newest_jax
@ways
def test_split_by_the_caller_and_by_the_arrays(way, x64, rng):
    """One axis bound by a shard_map of the caller's, one that the loss enters."""
    moving, _ = CASES["pairs"].arrays(rng)
    moving["extra_candidates"] = rng.normal(size=(6, FEATURES))  # 3 for 4 devices
    loss = functools.partial(jxent.contrastive_cross_entropy, reduction="mean")
    both = lambda **options: jax.value_and_grad(lambda m: loss(**m, **options))
    spec, options = split(moving), {"block_sizes": WHOLE, "implementation": way}

    def inside(moving):
        f = both(**options, batch_axis_name=("data", "model"))
        specs = {"in_specs": (spec,), "out_specs": (P(), spec)}
        return jax.shard_map(f, axis_names={"data"}, **specs)(moving)

    got = on_mesh(inside, (moving,), (split(moving, ()),), shape=(2, 4))
    close(got, jax.jit(both())(moving))


@pytest.mark.newest_jax
@ways
def test_an_axis_of_vmap(way, x64, rng):
    """An axis that vmap binds splits a batch as well."""
    x, y = rng.normal(size=(2, BATCH, FEATURES))
    loss = functools.partial(jxent.contrastive_cross_entropy, reduction="mean")
    here = functools.partial(loss, batch_axis_name="parts", implementation=way)
    part = jax.vmap(here, axis_name="parts")
    cut = lambda x: jnp.reshape(x, (4, -1, FEATURES))
    split_loss = lambda x: jnp.mean(part(cut(x), cut(y)))
    whole = lambda x: loss(x, y)
    close(
        *jax.jit(lambda x: [jax.value_and_grad(f)(x) for f in (split_loss, whole)])(x)
    )


@pytest.mark.newest_jax
@pytest.mark.parametrize("name", ["pairs, every option", "sigmoid"])
def test_every_derivative_in_a_ring(name, x64, rng):
    """Losses, tangents, gradients, and both second derivatives, as of one device."""
    case = CASES[name]
    moving, given = case.arrays(rng)
    along = {n: np.asarray(rng.normal(size=x.shape)) for n, x in moving.items()}

    def everything(moving, along, given, **options):
        loss = loss_of(case, given, block_sizes=(2, 2), **options)
        gradient = jax.grad(lambda moving: jnp.sum(jnp.sin(loss(moving))))
        product = lambda m: sum(
            map(jnp.vdot, *map(jax.tree.leaves, (gradient(m), along)))
        )
        tangents = jax.jvp(loss, (moving,), (along,))
        return (
            *tangents,
            jax.jvp(gradient, (moving,), (along,)),
            jax.grad(product)(moving),
        )

    arrays = moving, along, given
    specs = jax.tree.map(lambda _: P(), arrays)
    got = over_eight(functools.partial(everything, **RING), arrays, specs)
    close(got, jax.jit(everything)(*arrays))


@pytest.mark.newest_jax
def test_a_ring_under_vmap(x64, rng):
    """Over scales alone, and with vectors for each; and a ring of one device."""
    x, y = rng.normal(size=(2, 2, BATCH, FEATURES))
    scales = np.asarray([0.5, 1.5])

    def gradients(axes, **options):
        loss = lambda x, y, scale: jxent.contrastive_cross_entropy(
            x, y, logit_scale=scale, reduction="mean", **options
        )
        return jax.vmap(jax.value_and_grad(loss, (0, 1, 2)), axes)

    of_scales, of_all = (x[0], y[0], scales), (x, y, scales)
    for arrays, axes in ((of_scales, (None, None, 0)), (of_all, (0, 0, 0))):
        wanted, ring = jax.jit(gradients(axes))(*arrays), gradients(axes, **RING)
        close(over_eight(ring, arrays, (P(),) * 3), wanted)
    close(on_mesh(ring, of_all, (P(),) * 3, shape=(1, 1)), wanted)


@pytest.mark.parametrize(
    "loss",
    [
        jxent.contrastive_cross_entropy,
        jxent.sigmoid_contrastive_loss,
        jxent.supervised_contrastive_cross_entropy,
    ],
)
def test_a_ring_without_devices_is_refused(loss):
    """Gathered in its place it would need the memory that it is to save."""
    x = floats(16, FEATURES)
    of_labels = loss is jxent.supervised_contrastive_cross_entropy
    call = lambda x, **options: loss(
        x, ints(len(x)) if of_labels else x, implementation="ring", **options
    )
    needs = (
        f"{loss.__name__}: implementation='ring' needs a batch that mesh axes split "
        "evenly, got "
    )
    unnamed = f"{needs}no batch_axis_name. Name the mesh axes that split the batch."
    refuses(lambda: call(x), ValueError, unnamed)
    here = mesh_of((8, 1))
    in_shard_map = jax.shard_map(call, mesh=here, in_specs=P("data"), out_specs=P())
    refuses(lambda: in_shard_map(x), ValueError, unnamed)
    for mesh_in_use in (
        here,
        mesh_of((8, 1), AxisType.Explicit),
    ):  # whole on each device
        with jax.set_mesh(mesh_in_use):
            refuses(lambda: call(x), ValueError, unnamed)
    with jax.set_mesh(here):
        refuses(
            lambda: call(x[:12], batch_axis_name="data"),
            ValueError,
            f"{needs}a batch of 12 for batch_axis_name='data'. Pad it to a multiple of "
            "the devices, and drop the padding with where.",
        )
