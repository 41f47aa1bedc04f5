"""The asymmetric loss: its limits, its parameters, its precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.comparing import close
from tests.compiling import as_users_jit


INF = np.inf
LOGITS = np.array([-INF, -1e4, -100, -20, -3, -1, 0, 0.5, 3, 20, 100, 1e4, INF])
LABELS = np.array([0.0, 0.3, 1.0])
OFF = {"gamma_pos": 0.0, "gamma_neg": 0.0, "clip": 0.0}
PARAMETERS = {
    "paper": (0.0, 4.0, 0.05),
    "timm": (1.0, 4.0, 0.05),
    "roots": (0.5, 0.5, 0.05),
    "off": (0.0, 0.0, 0.0),
    "focal": (2.0, 2.0, 0.0),
    "wide": (1.0, 1.5, 0.9),
    "all": (0.0, 0.0, 1.0),
}


def asymmetric(z, y, gamma_pos=0.0, gamma_neg=4.0, clip=0.05):
    return jxent.asymmetric_loss(
        z, y, gamma_pos=gamma_pos, gamma_neg=gamma_neg, clip=clip
    )


def grid(dtype):
    """Every logit with every label."""
    z, y = np.meshgrid(LOGITS, LABELS)
    return z.ravel().astype(dtype), y.ravel().astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_formula_at_every_logit(dtype, x64):
    """±∞ and logits whose probability rounds to 0 or 1."""
    z, y = grid(dtype)
    run = as_users_jit(
        lambda z, y: [asymmetric(z, y, *given) for given in PARAMETERS.values()]
    )
    for got, given in zip(run(z, y), PARAMETERS.values(), strict=True):
        wanted = oracles.asymmetric_loss(z, y, **dict(zip(OFF, given, strict=True)))
        assert got.dtype == dtype
        close(got, wanted, 1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("off", [OFF, {k: jnp.float32(0) for k in OFF}], ids=str)
def test_with_everything_off_it_is_binary_cross_entropy(off):
    """To the bit, and its derivatives; for numbers of 0 and for arrays of 0.

    Second derivatives are compared at finite logits. At an infinite logit that agrees
    with its label, d²/dz dy is −1 for binary cross-entropy and 0 for this loss.
    """
    losses = (
        functools.partial(jxent.asymmetric_loss, **off),
        jxent.sigmoid_binary_cross_entropy,
    )

    @as_users_jit
    @jax.vmap
    def derivatives(z, y):
        gradients = [jax.grad(loss, (0, 1)) for loss in losses]
        return [(f(z, y), jax.jacfwd(f, (0, 1))(z, y)) for f in gradients]

    z, y = grid(np.float32)
    of_both = jax.tree.map(np.asarray, derivatives(z, y))
    values = (as_users_jit(loss)(z, y) for loss in losses)
    got, wanted = zip(values, of_both, strict=True)
    np.testing.assert_array_equal(got[0], wanted[0])
    (got_first, got_second), (first, second) = got[1], wanted[1]
    close(got_first, first, 1e-6)
    finite = np.isfinite(grid(np.float32)[0])
    at_finite = lambda tree: jax.tree.map(lambda x: x[finite], tree)
    close(at_finite(got_second), at_finite(second), 1e-6)
    np.testing.assert_array_equal(second[0][1], -1)


@pytest.mark.parametrize("axis", [(), -1])
def test_a_clip_that_rounds_to_0(axis):
    """Below the least normal number, by a Python number: as a clip of 0."""
    z, y = (x[:, None] for x in grid(np.float32))
    loss = functools.partial(jxent.asymmetric_loss, labels=y, axis=axis)

    @as_users_jit
    def both(clip):
        value = lambda z: loss(z, clip=clip)
        return value(z), jax.jvp(value, (z,), (np.ones_like(z),))[1]

    for clip in (1e-46, 1e-40, 1e-38):
        value = functools.partial(loss, clip=clip)
        got = value(z), jax.jvp(value, (z,), (np.ones_like(z),))[1]
        close(got, both(np.float32(0)), 1e-6)


def test_what_it_is_for_certain_parameters():
    """Without a clip and for equal γ it is the focal loss of labels 0 and 1.

    By hand at p = ½: 2^−γ₊ log 2, and (½ − m)^γ₋ · −log(½ + m). NaN is within no clip.
    """
    z, y = grid(np.float32)
    z, y = z[(y == 0) | (y == 1)], y[(y == 0) | (y == 1)]
    loss, nan = jxent.asymmetric_loss, np.full(2, np.nan, np.float32)

    @jax.jit
    def run(z, y):
        focal = jxent.sigmoid_focal_loss(z, y, gamma=2.0)
        by_hand = [loss(0.0, label, gamma_pos=1.0) for label in (1, 0)]
        equal = loss(z, y, gamma_pos=2.0, gamma_neg=2.0, clip=0.0)
        return equal, focal, jnp.stack(by_hand), loss(nan, np.array([0, 1]))

    got, focal, by_hand, of_nan = jax.device_get(run(z, y))
    close(got, focal, 1e-6)
    close(by_hand, np.array([0.5 * np.log(2), -(0.45**4) * np.log(0.55)]), 1e-6)
    assert np.isnan(of_nan).all()


def test_it_is_linear_in_the_labels(x64, rng):
    """y of the yes-loss and 1 − y of the no-loss, whatever γ and the clip."""
    z, y = rng.normal(size=50), rng.uniform(size=50)
    loss = functools.partial(jxent.asymmetric_loss, z, gamma_pos=1.5, clip=0.1)
    got, yes, no = jax.device_get(jax.jit(lambda y: [loss(y), loss(1.0), loss(0.0)])(y))
    close(got, y * yes + (1 - y) * no)


def test_a_no_within_the_clip_has_no_loss():
    """Exactly 0, with derivatives of 0, though 0^0 is 1; beyond it there is a loss."""
    z = np.array([-INF, -1e4, -20.0, -3.0, -2.9], np.float32)  # σ(−2.944) = 0.05

    @as_users_jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def all_of(z, gamma_neg):
        loss = lambda z, g, m: asymmetric(z, 0.0, 0.0, g, m)
        arguments = (z, gamma_neg, jnp.float32(0.05))
        return loss(*arguments), jax.grad(loss, (0, 1, 2))(*arguments)

    for gamma_neg in np.array([0.0, 0.5, 4.0], np.float32):
        loss, slopes = jax.device_get(all_of(z, gamma_neg))
        assert not any(np.any(x[:4]) for x in (loss, *slopes))
        assert loss[4] > 0
        assert slopes[0][4] > 0
        assert slopes[2][4] < 0


def test_derivatives_in_every_argument(x64):
    """Logits, labels, both γ and the clip: those of the oracle."""
    slopes_of = jax.jit(jax.grad(lambda *x: jnp.sum(asymmetric(*x)), range(5)))

    def oracle(z, y, *given):
        given = dict(zip(OFF, given, strict=True))
        return oracles.asymmetric_loss(z, y, **given).sum()

    for *gammas, clip in PARAMETERS.values():
        if clip in (0.0, 1.0):  # the oracle has no slope at an end of the clip
            clip = abs(clip - 1e-3)
        arguments = [np.array([-1.2, 0.4, 2.0]), np.array([0.0, 1.0, 0.3])]
        arguments += [*(max(g, 0.1) for g in gammas), clip]
        for place, slope in enumerate(jax.device_get(slopes_of(*arguments))):

            def of_one(x, place=place, arguments=arguments):
                return oracle(*arguments[:place], x, *arguments[place + 1 :])

            wanted = oracles.central_differences(of_one, arguments[place], 1e-5)
            np.testing.assert_allclose(slope, wanted, rtol=1e-6, atol=1e-8)


def test_no_derivative_is_infinite():
    """In any argument, to the second order, whatever is differentiated first."""
    places = tuple(range(5))
    direction = tuple(map(np.float32, (0.5, 0.25, 0.3, 0.2, 0.1)))

    @as_users_jit
    @functools.partial(jax.vmap, in_axes=(None, None, 0, 0, 0))
    @functools.partial(jax.vmap, in_axes=(0, 0, None, None, None))
    def all_of(*arguments):
        gradient = jax.grad(asymmetric, places)
        across = lambda *x: jnp.vdot(jnp.stack(gradient(*x)), jnp.stack(direction))
        along = lambda *x: jax.jvp(asymmetric, x, direction)[1]
        return (
            jax.jvp(gradient, arguments, direction),
            jax.grad(across, places)(*arguments),
            jax.grad(along, places)(*arguments),
        )

    parameters = np.array([*PARAMETERS.values()], np.float32).T
    for x in jax.tree.leaves(all_of(*grid(np.float32), *parameters)):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_logits_near_the_largest_number(clip):
    """On the wrong side, where a multiple of the loss is infinite: a slope of ±1."""

    @jax.jit
    @jax.vmap
    def run(z, y):
        loss = functools.partial(
            asymmetric, y=y, gamma_pos=4.0, gamma_neg=4.0, clip=clip
        )
        return loss(z), jax.grad(loss)(z), jax.grad(jax.grad(loss))(z)

    z = np.array([3e38, -3e38], np.float32)
    value, slope, second = jax.device_get(run(z, np.array([0, 1], np.float32)))
    # Of a no p_m = 1 − m, whose logarithm is finite.
    no = (-np.log(clip) * 0.95**4, 0) if clip else (3e38, 1)
    np.testing.assert_allclose(value, [no[0], 3e38], 1e-6)
    np.testing.assert_array_equal(slope, [no[1], -1])
    assert not np.any(second)


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_rounds_no_worse(dtype, scale, rng):
    """Against the code of the paper in float32: worst and mean error of the losses."""
    z = jnp.asarray(scale * rng.normal(size=2000), dtype)
    y = jnp.asarray(rng.integers(0, 2, 2000), jnp.float32)
    truth = oracles.asymmetric_loss(z, y)

    def of_the_paper(z):
        p = jax.nn.sigmoid(z.astype(jnp.float32))
        q = jnp.minimum(1 - p + 0.05, 1)
        log = y * jnp.log(jnp.maximum(p, 1e-8)) + (1 - y) * jnp.log(q)
        p_t = p * y + q * (1 - y)
        return -log * (1 - p_t) ** (4 * (1 - y))

    def errors(loss):
        return np.abs(np.asarray(as_users_jit(loss)(z), np.float64) - truth) / (
            1e-6 + truth
        )

    got, bar = errors(lambda z: jxent.asymmetric_loss(z, y)), errors(of_the_paper)
    eps = np.finfo(np.float32).eps
    assert got.max() <= bar.max() + 4 * eps
    assert got.mean() <= bar.mean() + eps
