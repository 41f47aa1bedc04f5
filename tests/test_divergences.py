"""Divergences between two softmaxes: their limits, and what both sides may be."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from jxent import LinearLogits
from tests import oracles
from tests.comparing import close
from tests.compiling import as_users_jit
from tests.meshes import KINDS, NAMES, on_mesh


pytestmark = pytest.mark.each_platform

ROWS, CLASSES, WIDTH, TARGET_WIDTH = 6, 8, 3, 5
KL = jxent.softmax_kl_divergence
JENSEN_SHANNON = jxent.softmax_jensen_shannon_divergence
TOTAL_VARIATION = jxent.softmax_total_variation
DIVERGENCES = {
    "KL": KL,
    "Jensen-Shannon": JENSEN_SHANNON,
    "total variation": TOTAL_VARIATION,
}
of_each = pytest.mark.parametrize("name", DIVERGENCES)
in_both_layouts = pytest.mark.parametrize("layout", ["streamed", "tiled"])


def heads(rng, rows=ROWS, classes=CLASSES):
    """Two of different widths: those of logits and of a target."""
    return tuple(
        LinearLogits(rng.normal(size=(rows, width)), rng.normal(size=(width, classes)))
        for width in (WIDTH, TARGET_WIDTH)
    )


def product(logits):
    return jnp.asarray(logits.hidden) @ jnp.asarray(logits.kernel)


def sides(rng, sort, layout, blocks, *sizes) -> tuple[Any, Any]:
    """Both sides: heads of this layout, or one of them an array."""
    logits, target = (
        x.replace(implementation=layout, block_sizes=blocks) for x in heads(rng, *sizes)
    )
    if sort == "an array and a head":
        return product(logits), target
    if sort == "a head and an array":
        return logits, product(target)
    return logits, target


def with_slopes(loss):
    """(logits, target) -> losses of rows, and the gradients of their sum; NumPy."""

    @as_users_jit
    def run(*arrays):
        value, pull = jax.vjp(loss, *arrays)
        return value, pull(jnp.ones_like(value))

    return lambda *arrays: jax.device_get(run(*arrays))


def test_impossible_classes(x64):
    """0 where the target has them; +inf where the logits alone do, with a gradient."""
    inf = np.inf
    target = np.array([[1.0, -inf, 0.5], [1.0, 0.0, 0.5], [1.0, -inf, 0.5]])
    logits = np.array([[0.0, 2.0, 1.0], [0.0, -inf, 1.0], [0.0, -inf, 1.0]])
    losses, (in_logits, in_target) = with_slopes(KL)(logits, target)
    np.testing.assert_array_equal(np.isinf(losses), [False, True, False])
    possible = oracles.softmax_kl_divergence(logits[2, ::2], target[2, ::2])
    close(losses[2], possible)
    assert np.isfinite(in_logits).all()
    assert np.isfinite(in_target[0::2]).all()
    losses, slopes = with_slopes(JENSEN_SHANNON)(logits, target)
    assert np.isfinite([losses.sum(), *(x.sum() for x in slopes)]).all()


@of_each
def test_equal_softmaxes(name, rng):
    """Exactly 0 with a gradient of 0, at any offset."""
    z = np.float32(np.round(16 * rng.normal(size=(ROWS, CLASSES))))
    run = with_slopes(DIVERGENCES[name])
    for offset in (0, 1024):
        losses, slopes = run(z + offset, z)
        assert not np.any(losses)
        assert max(np.abs(x).max() for x in slopes) < 1e-7


@pytest.mark.own_platform  # in other forms a CPU's sums round more
def test_no_further_from_the_truth_than_the_naive_code(rng):
    """Nearly equal softmaxes, and some that are far apart."""
    streamed = {"implementation": "streamed", "block_sizes": (64, 16)}
    eye = lambda x: LinearLogits(x, jnp.eye(64), **streamed)

    def naive(z, target):
        log_p, log_q = jax.nn.log_softmax(z), jax.nn.log_softmax(target)
        return jnp.sum(jnp.exp(log_q) * (log_q - log_p), -1)

    @as_users_jit
    def run(z, target):
        kl = KL(z, target), KL(eye(z), eye(target)), naive(z, target)
        return kl, (TOTAL_VARIATION(z, target), half_of_differences(z, target))

    for scale in (1e-3, 1.0, 30.0):
        z, target = (np.float32(scale * rng.normal(size=(256, 64))) for _ in range(2))
        target = target + np.float32(5 * rng.normal(size=(256, 1)))
        kl, variation = jax.device_get(run(z, target))
        truth = oracles.softmax_kl_divergence(z, target)
        *ours, usual = (np.sqrt(np.mean((x - truth) ** 2)) for x in kl)
        assert max(ours) <= 1.1 * usual + 1e-9
        truth = oracles.softmax_total_variation(z, target)
        ours, usual = (np.sqrt(np.mean((x - truth) ** 2)) for x in variation)
        last_bit = np.finfo(np.float32).eps * np.mean(truth)
        assert ours <= 1.1 * usual + last_bit / 8


@pytest.mark.parametrize("beta", [0.5, 0.1])
def test_nearly_equal_softmaxes(beta, rng):
    """Of the second order in the distance, and yet as float64 has it."""
    run = with_slopes(functools.partial(JENSEN_SHANNON, beta=beta))
    for scale in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0):
        target = np.float32(3 * rng.normal(size=(16, 64)))
        z = np.float32(target + scale * rng.normal(size=target.shape))
        value, gradients = run(z, target)
        with jax.enable_x64(True):
            arrays = np.float64(z), np.float64(target)
            wide, wide_gradients = run(*arrays)
        truth = oracles.softmax_jensen_shannon_divergence(*arrays, beta=beta)
        np.testing.assert_allclose(wide, truth, rtol=1e-5, atol=1e-16)
        np.testing.assert_allclose(value, wide, rtol=max(1e-5, 2e-7 / scale))
        for got, wanted in zip(gradients, wide_gradients, strict=True):
            np.testing.assert_allclose(got, wanted, atol=4e-6 * np.abs(wanted).max())


def test_softmaxes_further_apart_than_float32_reaches():
    """−log of the share of each, with gradients of 0."""
    z = np.array([[3e38, -3e38, 0.0], [3e38, 0.0, 0.0], [0.0, -3e38, 3e38]], np.float32)
    losses, slopes = with_slopes(JENSEN_SHANNON)(z, z[:, ::-1])
    np.testing.assert_allclose(losses.sum(), 3 * np.log(2), rtol=1e-6)
    assert not np.any(slopes)
    # The two rows' maxima have no finite difference.
    z, target = (
        np.array([[2e38, 0.0]], np.float32),
        np.array([[-2e38, -2e38]], np.float32),
    )
    for divergence, wanted in ((JENSEN_SHANNON, 0.21576154), (TOTAL_VARIATION, 0.5)):
        losses, slopes = with_slopes(divergence)(z, target)
        assert not np.any(slopes[0])
        np.testing.assert_allclose(losses[0], wanted, rtol=1e-6)


@of_each
def test_dropped_rows_have_second_derivatives_of_0(name):
    """In reverse mode twice, where they hold NaN."""
    z = np.array([[0.0, 1.0, 2.0], [0.0, np.nan, 2.0]], np.float32)
    target = np.array([[1.0, 0.0, 2.0], [np.inf, 3.0, 0.0]], np.float32)

    def total(*x):
        return jnp.sum(DIVERGENCES[name](*x, weights=jnp.array([1.0, 0.0])))

    slopes = jax.grad(total, (0, 1))
    square = lambda *x: sum(jnp.sum(slope**2) for slope in slopes(*x))
    for slope in jax.device_get(jax.jit(jax.grad(square, (0, 1)))(z, target)):
        assert np.all(np.isfinite(slope[0]))
        assert not np.any(slope[1])


def test_the_ends_of_beta(rng, x64):
    """Python's 0 and 1 are the two KL divergences, traced ones the formula's 0."""
    z, target = rng.normal(size=(2, ROWS, CLASSES))
    options: dict[str, Any] = {"logit_soft_cap": 2.0, "target_logit_soft_cap": 3.0}
    exchanged: dict[str, Any] = {"logit_soft_cap": 3.0, "target_logit_soft_cap": 2.0}
    a, b = heads(rng)
    a, b = a.replace(bias=z[0]), LinearLogits(b.hidden, b.kernel.T, z[1], vocab_axis=0)

    @jax.jit
    def python_numbers():
        pairs = [
            (JENSEN_SHANNON(z, target, beta=0, **options), KL(z, target, **options))
        ]
        for x, y in ((z, target), (a, b), (a, target), (z, b)):
            skewed = JENSEN_SHANNON(x, y, beta=1.0, **options)
            pairs.append((skewed, KL(y, x, **exchanged)))
        return pairs, JENSEN_SHANNON(z, target, beta=1e-6) / 1e-6, KL(z, target)

    pairs, nearly, kl = python_numbers()
    for got, wanted in pairs:
        close(got, wanted)
    close(nearly, kl, 1e-5)
    at = lambda z, beta: jnp.sum(JENSEN_SHANNON(z, target, beta=beta))
    traced = jax.jit(jax.value_and_grad(at, (0, 1)))
    apart = np.where(np.arange(CLASSES) % 2, z, -np.inf)
    for beta in (0.0, 1.0):
        value, slopes = traced(z, beta)
        close(value, 0.0)
        close(slopes[0], np.zeros_like(z))
        assert np.isfinite(traced(apart, beta)[1][0]).all()


def test_it_is_cross_entropy_without_the_targets_entropy(rng, x64):
    """Written with what there is besides, in memory and fused."""
    a, b = heads(rng)

    @jax.jit
    def run(a, b):
        z, target = product(a), product(b)
        entropy = jxent.softmax_entropy(target)
        wanted = jxent.softmax_cross_entropy(z, jax.nn.softmax(target)) - entropy
        return wanted, [KL(x, y) for x in (z, a) for y in (target, b)]

    wanted, every = run(a, b)
    close(every, [wanted] * 4)


# Total variation ----------------------------------------------------------------------


def half_of_differences(z, target):
    return jnp.sum(jnp.abs(jax.nn.softmax(z) - jax.nn.softmax(target)), -1) / 2


@pytest.mark.parametrize(
    "sort", ["two heads", "an array and a head", "a head and an array"]
)
@in_both_layouts
def test_total_variation_of_arrays_and_heads(layout, sort, rng, x64):
    """Its value and both gradients, at no point where p_c = q_c for some class."""
    operands = sides(rng, sort, layout, (4, 3))
    loss = functools.partial(TOTAL_VARIATION, reduction="sum")

    def truth(*operands):
        arrays = (product(x) if isinstance(x, LinearLogits) else x for x in operands)
        return jnp.sum(half_of_differences(*arrays))

    got, wanted = (
        jax.jit(jax.value_and_grad(f, (0, 1)))(*operands) for f in (loss, truth)
    )
    close(got, wanted)


def test_its_complement_is_the_rate_of_acceptance(rng, x64):
    """Σ min(p, q): between 1 for equal softmaxes and 0 where they share no class."""
    z, target = rng.normal(size=(2, ROWS, CLASSES))
    p, q = (np.exp(oracles.log_softmax(x)) for x in (z, target))
    run = with_slopes(TOTAL_VARIATION)
    losses, _ = run(z, target)
    close(1 - losses, np.minimum(p, q).sum(-1))
    close(run(target, z)[0], losses)
    odd = np.arange(CLASSES) % 2 == 1
    losses, slopes = run(np.where(odd, z, -np.inf), np.where(odd, -np.inf, target))
    close(losses, np.ones(ROWS))
    close(slopes, (np.zeros_like(z), np.zeros_like(z)))


def test_total_variation_where_two_probabilities_are_equal(x64):
    """p_0 = q_0 = ½, a kink: the derivative of their difference counts as 0."""
    inf = np.inf
    z, target = np.array([0.0, 0.0, -inf]), np.array([0.0, -inf, 0.0])
    value, slopes = with_slopes(TOTAL_VARIATION)(z, target)
    assert value == 0.5
    wanted = np.array([-1 / 8, 1 / 8, 0.0]), np.array([-1 / 8, 0.0, 1 / 8])
    close(slopes, wanted)


def test_total_variation_of_nearly_equal_rows(x64):
    """The derivative knows the sign of the least difference: ½ p (0, 1, −1)."""
    target, signs = np.array([3.0, 0.0, 0.0]), np.array([0, 1, -1])
    slope = as_users_jit(jax.grad(TOTAL_VARIATION))
    wanted = signs * np.exp(oracles.log_softmax(target)) / 2
    for step in (1e-30, 1e-50, 1e-300):
        close(slope(target + step * signs, target), wanted, 1e-9)


# Heads --------------------------------------------------------------------------------


@in_both_layouts
@of_each
def test_heads_of_different_dtypes(name, layout, rng):
    """bfloat16 beside float32: each gradient has its operand's dtype."""
    a, b = sides(rng, "two heads", layout, (4, 3))
    cast = lambda x, dtype: jnp.asarray(x, dtype)
    a = a.replace(
        hidden=cast(a.hidden, jnp.bfloat16), kernel=cast(a.kernel, jnp.float32)
    )
    table = {"kernel": cast(b.kernel.T, jnp.bfloat16), "vocab_axis": 0}
    b = b.replace(hidden=cast(b.hidden, jnp.float32), **table)
    loss = functools.partial(DIVERGENCES[name], reduction="mean")
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(a, b)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (a, b))
    logits = wide[0].hidden @ wide[0].kernel, wide[1].hidden @ wide[1].kernel.T
    truth = getattr(oracles, DIVERGENCES[name].__name__)
    close(value, truth(*logits, reduction="mean"), 2e-6)
    dtypes = lambda tree: jax.tree.map(lambda x: x.dtype, tree)
    assert jax.tree.leaves(dtypes(gradients)) == jax.tree.leaves(dtypes((a, b)))


AUTO, EXPLICIT = KINDS
ON_A_MESH = [  # each divergence with both kinds of axes, each sort with both layouts
    ("KL", "streamed", "two heads", AUTO),
    ("KL", "tiled", "two heads", EXPLICIT),
    ("KL", "tiled", "a head and an array", EXPLICIT),
    ("Jensen-Shannon", "tiled", "two heads", AUTO),
    ("Jensen-Shannon", "streamed", "a head and an array", EXPLICIT),
    ("Jensen-Shannon", "tiled", "an array and a head", AUTO),
    ("total variation", "streamed", "two heads", EXPLICIT),
    ("total variation", "tiled", "a head and an array", EXPLICIT),
    ("total variation", "streamed", "an array and a head", AUTO),
]


@pytest.mark.parametrize(("name", "layout", "sort", "kind"), ON_A_MESH)
def test_both_sides_on_a_mesh(name, layout, sort, kind, rng, x64):
    """Rows and classes split outside of shard_map; the values of one device."""
    operands = sides(rng, sort, layout, (2, 2), 8)
    loss = functools.partial(DIVERGENCES[name], reduction="mean")
    wanted = jax.jit(jax.value_and_grad(loss, (0, 1)))(*operands)
    specs = tuple(
        x.replace(hidden=P("data"), kernel=P(None, "model"))
        if isinstance(x, LinearLogits)
        else P("data", "model")
        for x in operands
    )
    f = jax.value_and_grad(functools.partial(loss, **NAMES), (0, 1))
    close(on_mesh(f, operands, specs, kind=kind), wanted)


@pytest.mark.compiles
@in_both_layouts
@of_each
def test_a_teacher_that_does_not_move_costs_no_gradient(name, layout, rng):
    """Two products of the logits' size with its features less."""
    rows, width, classes = 64, 48, 512
    shape = (rows, width), (width, classes)
    student, teacher = (
        LinearLogits(
            *(rng.normal(size=x).astype(np.float32) for x in shape),
            implementation=layout,
            block_sizes=(rows, classes),
        )
        for _ in range(2)
    )
    loss = functools.partial(DIVERGENCES[name], reduction="mean")

    def work(moving):
        both = as_users_jit(jax.value_and_grad(loss, moving))
        costs: Any = both.lower(student, teacher).compile().cost_analysis()
        return costs["flops"]

    product = 2 * rows * width * classes
    assert work((0, 1)) - work(0) > 1.9 * product
