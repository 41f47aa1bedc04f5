"""Every option of the softmax losses, alone and together."""

import copy
import functools
import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jxent
import jxent._solve.layout
from tests import oracles
from tests.cases import CLASSES, MASKED, REAL, WEIGHTS
from tests.comparing import close, untyped


ROWS = 6
REDUCTIONS = "none", "sum", "mean"
with_both_labels = pytest.mark.parametrize(
    "hot", [False, True], ids=["ids", "distributions"]
)


def one_hot(y):
    return (np.arange(CLASSES) == y[..., None]).astype(np.float64)


@pytest.fixture
def batch(x64, rng):
    """Logits, ids that avoid the masked class, and distributions of any mass."""
    x = 3 * rng.normal(size=(ROWS, CLASSES))
    y = rng.choice(np.flatnonzero(REAL), ROWS)
    return x, y, rng.uniform(0, 1, (ROWS, CLASSES))


# The grid -----------------------------------------------------------------------------

SOME_ROWS = np.array([True, True, False, True, True, False])
SOME_CLASSES = np.ones((ROWS, CLASSES), bool)
SOME_CLASSES[0, MASKED] = SOME_CLASSES[1, MASKED] = False
SOME_CLASSES[2] = False
ROW_TEMPERATURE = np.array([0.5, 1.0, 1.5, 2.0, 0.75, 1.25])

GRID = {
    "class_weights": (None, WEIGHTS, np.array([0.5, 0, 1, 2, 0, 1.5, 0.25, 1])),
    "label_smoothing": (0.0, 0.1, 1.0),
    "z_loss": (0.0, 1e-2),
    "logit_soft_cap": (None, 5.0),
    "temperature": (None, 1.5, ROW_TEMPERATURE),
    "class_mask": (None, REAL),
    "where": (None, SOME_ROWS, SOME_CLASSES),
    "ignore_index": (None, -100),
    "weights": (None, np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])),
    "reduction": ("none", "sum", "mean"),
    "axis": (-1, 0),
}


def pairs(setting):
    """Every two options of a setting with the places of their values."""
    return set(itertools.combinations(sorted(setting.items()), 2))


def covering(grid):
    """Few settings, among which any values of any two options meet."""
    wanted = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(sorted(grid), 2)
        for i in range(len(grid[a]))
        for j in range(len(grid[b]))
    }
    settings = []
    while wanted:
        chosen = dict(min(wanted))
        for name in grid:
            if name not in chosen:
                trials = [chosen | {name: i} for i in range(len(grid[name]))]
                gains = [len(pairs(trial) & wanted) for trial in trials]
                chosen = trials[int(np.argmax(gains))]
        wanted -= pairs(chosen)
        settings.append(chosen)
    return settings


SETTINGS = covering(GRID)


@pytest.mark.parametrize(
    "setting", SETTINGS, ids=lambda s: "".join(map(str, (s[name] for name in GRID)))
)
def test_any_two_options_together(setting, batch):
    """Value and gradient equal the oracle's, for ids and for distributions.

    One-hot distributions give what their ids give.
    """
    x, ids, shares = batch
    options = {name: GRID[name][i] for name, i in setting.items()}
    of_ids, of_distributions = options, dict(options)
    one_hot_labels = one_hot(ids)
    if options["ignore_index"] is not None:
        # A distribution is ignored by a weight of 0, whatever it holds.
        keep = np.arange(ROWS) != 4
        weights = 1.0 if options["weights"] is None else options["weights"]
        of_distributions |= {"ignore_index": None, "weights": keep * weights}
        ids = np.where(keep, ids, -100)
        shares = np.where(keep[:, None], shares, np.nan)
    if options["axis"] == 0:
        x, one_hot_labels, shares = x.T, one_hot_labels.T, shares.T
        if np.ndim(options["where"]) == 2:
            of_ids = of_ids | {"where": options["where"].T}
            of_distributions |= {"where": options["where"].T}

    def total(loss, options, x, labels):
        losses = loss(x, labels, **options)
        return (losses * np.cos(np.arange(ROWS))).sum() if losses.ndim else losses

    def program(options):
        f = functools.partial(total, jxent.softmax_cross_entropy, options)
        run = jax.jit(jax.value_and_grad(f))
        return lambda labels: jax.device_get(run(x, labels))

    def oracle(options, labels):
        f = functools.partial(total, oracles.softmax_cross_entropy, options)
        slope = oracles.central_differences(lambda x: f(x, labels), x)
        return f(x, labels), slope

    def equal(got, wanted):
        close(got[0], wanted[0])
        close(got[1], wanted[1], 1e-9)

    of_labels = program(of_distributions)
    got = program(of_ids)(ids)
    equal(got, oracle(of_ids, ids))
    close(of_labels(one_hot_labels), got)
    equal(of_labels(shares), oracle(of_distributions, shares))


@with_both_labels
def test_traced_options_equal_python_numbers(hot, batch):
    """One compiled program for every value of every option, 0 included."""
    x, y, q = batch
    labels = q if hot else np.where(np.arange(ROWS) == 4, -100, y)
    grid = {
        "class_weights": (np.ones(CLASSES), GRID["class_weights"][2]),
        "label_smoothing": (0.0, 0.1, 1.0),
        "z_loss": (0.0, 1e-2),
        "logit_soft_cap": (5.0, 1e6),
        "temperature": (np.float64(1.5), np.float64(0.5)),
        "class_mask": (np.ones(CLASSES, bool), REAL),
        "where": (np.ones(ROWS, bool), SOME_ROWS),
        "weights": (np.ones(ROWS), GRID["weights"][1]),
    } | ({} if hot else {"ignore_index": (-100, -101)})

    def each(loss, options):
        return {r: loss(x, labels, reduction=r, **options) for r in REDUCTIONS}

    traced = jax.jit(functools.partial(each, jxent.softmax_cross_entropy))
    for setting in covering(grid):
        options = {name: grid[name][i] for name, i in setting.items()}
        close(traced(options), each(oracles.softmax_cross_entropy, options))


# Derivatives in the options -----------------------------------------------------------

PARAMETERS = {
    jxent.softmax_cross_entropy: {},
    jxent.softmax_focal_loss: {"gamma": 1.5},
    jxent.poly_loss_cross_entropy: {"epsilon": 0.75},
    jxent.generalized_cross_entropy: {"q": 0.4},
    jxent.symmetric_cross_entropy: {"alpha": 0.3, "beta": 0.75, "log_zero": -1.5},
}


@with_both_labels
@pytest.mark.parametrize("loss", PARAMETERS, ids=lambda f: f.__name__)
def test_derivatives_in_the_options(loss, hot, batch):
    """Forward and reverse mode in every option that has a derivative."""
    x, y, q = batch
    numbers = {"logit_soft_cap": 5.0, "z_loss": 0.01, "label_smoothing": 0.1}
    numbers |= PARAMETERS[loss]
    options = {
        "class_weights": WEIGHTS,
        "weights": np.array([1.0, 0.5, 2.0, 0.5, 1.0, 3.0]),
        "temperature": ROW_TEMPERATURE,
    } | {name: np.float64(number) for name, number in numbers.items()}
    if hot:
        options["labels"] = q

    def both(loss, options):
        """The sum and the mean."""
        given = {"labels": y, "where": SOME_ROWS, "class_mask": REAL} | options
        return jnp.stack([loss(x, reduction=r, **given) for r in ("sum", "mean")])

    f = functools.partial(both, loss)
    program = jax.jit(lambda options: (jax.jacrev(f)(options), jax.jacfwd(f)(options)))
    reverse, forward = jax.device_get(program(options))
    oracle = getattr(oracles, loss.__name__)
    for name, value in options.items():
        for i, reduction in enumerate(("sum", "mean")):

            def truth(v, name=name, reduction=reduction):
                given = {"labels": y, "where": SOME_ROWS, "class_mask": REAL}
                given |= options | {name: v}
                return oracle(x, reduction=reduction, **given)

            wanted = oracles.central_differences(truth, value)
            close(reverse[name][i], wanted, 1e-8)
            close(forward[name][i], wanted, 1e-8)


def test_slopes_where_a_weight_or_a_share_is_0(batch):
    """Of a weight the row's loss, of a share −log p; of the logits, mass · p − q."""
    x, y, q = batch
    weights = np.array([0.0, 1.0, 0.0, 2.0, 0.0, 0.0])
    loss = functools.partial(jxent.softmax_cross_entropy, reduction="sum")

    @jax.jit
    def slopes(x):
        return (
            jax.grad(lambda w: loss(x, y, weights=w))(weights),
            jax.grad(lambda q: loss(x, q))(np.zeros((ROWS, CLASSES))),
            jax.grad(loss)(x, q),
        )

    in_weights, in_shares, in_logits = slopes(x)
    log_p = oracles.log_softmax(x)
    close(in_weights, -log_p[np.arange(ROWS), y])
    close(in_shares, -log_p)
    close(in_logits, q.sum(-1, keepdims=True) * np.exp(log_p) - q)


# Infinite options ---------------------------------------------------------------------

BIAS = np.array([0.5, -1, 0, 2, -1.5, 1, 0.25, -np.inf])  # the last class is impossible
LABELS = np.array([0, 1, 2, -100, 1, 0])


LAYOUTS = {"in memory": lambda hidden, kernel: hidden @ kernel + BIAS[None]} | {
    name: functools.partial(
        jxent.LinearLogits, bias=BIAS, implementation=name, block_sizes=(3, 4)
    )
    for name in ("streamed", "tiled", "materialized")
}


@pytest.fixture(params=LAYOUTS)
def layout(request, x64, rng):
    """A loss of hidden states and a kernel in one layout, and these."""

    def loss(hidden, kernel, **options):
        options = {"ignore_index": -100, "class_mask": REAL, "z_loss": 0.1} | options
        logits, labels = LAYOUTS[request.param](hidden, kernel), jnp.asarray(LABELS)
        return jxent.softmax_cross_entropy(logits, labels, reduction="sum", **options)

    x = rng.normal(size=(ROWS, 3)), 3 * rng.normal(size=(3, CLASSES))
    return loss, tuple(map(jnp.asarray, x))


def test_an_infinite_soft_cap_is_no_cap(layout):
    """In value and gradient; that in the cap is 0. Traced, and as a number."""
    loss, x = layout

    def of_cap(cap, *x):
        return loss(*x, logit_soft_cap=cap, class_weights=WEIGHTS)

    no_cap = functools.partial(of_cap, None)

    @jax.jit
    def run(cap, *x):
        both = jax.value_and_grad(of_cap, (0, 1, 2))(cap, *x)
        return both, jax.value_and_grad(no_cap, (0, 1))(*x)

    (value, (in_cap, *gradient)), wanted = jax.device_get(run(jnp.inf, *x))
    close((value, tuple(gradient)), wanted)
    assert in_cap == 0
    (value, gradient), _ = run(20.0, *x)  # which makes −∞ finite
    assert abs(value - wanted[0]) > 1e-3
    assert all(np.isfinite(g).all() for g in gradient)
    infinite = functools.partial(of_cap, np.inf)
    assert str(jax.make_jaxpr(infinite)(*x)) == str(jax.make_jaxpr(no_cap)(*x))


def test_second_derivatives_at_infinite_options(x64, rng):
    """Those of no soft cap, and 0 in the cap; all 0 of a temperature."""
    z = 3 * rng.normal(size=(2, CLASSES))
    z[1, 4] = -np.inf

    def total(name, value, z):
        options = {name: value}
        losses = jxent.softmax_cross_entropy(z, np.arange(2), **options)
        return jnp.sum(losses)

    @jax.jit
    def hessians(infinity, z):
        cap, temperature = (
            jax.hessian(functools.partial(total, name), (0, 1))(infinity, z)
            for name in ("logit_soft_cap", "temperature")
        )
        no_cap = functools.partial(total, "logit_soft_cap", None)
        return cap, jax.hessian(no_cap)(z), temperature

    got, wanted, zeros = jax.device_get(hessians(jnp.inf, z))
    close(got[1][1], wanted)
    for zero in (*got[0], got[1][0], *jax.tree.leaves(zeros)):
        assert not np.any(zero)


def test_the_derivative_in_a_soft_cap_at_infinite_logits(x64):
    """−∞ becomes −c, whose derivative in c is −1."""
    z, cap = np.array([1.0, -np.inf, 0.5]), 2.0
    loss = functools.partial(jxent.softmax_cross_entropy, labels=0)
    got = jax.grad(lambda cap: loss(z, logit_soft_cap=cap))(cap)
    far = np.array([1.0, -1e6, 0.5])
    truth = lambda cap: oracles.softmax_cross_entropy(far, 0, logit_soft_cap=cap)
    close(got, oracles.central_differences(truth, cap), 1e-9)


def test_an_infinite_temperature_is_the_uniform_distribution(layout):
    """Over the classes that are possible; every derivative is 0."""
    loss, x = layout
    temperature = np.array([np.inf, 1, 1, 1, np.inf, np.inf])
    where = np.isinf(temperature)

    def of_temperature(temperature, *x):
        return loss(*x, temperature=temperature, where=where)

    @jax.jit
    def run(temperature, *x):
        both = jax.value_and_grad(of_temperature, (0, 1, 2))(temperature, *x)
        return of_temperature(np.inf, *x), both

    log_classes = np.log(CLASSES - 2)
    uniform = 3 * (log_classes + 0.1 * log_classes**2)
    as_number, (value, zeros) = jax.device_get(run(temperature, *x))
    close((value, as_number), (uniform, uniform))
    assert not any(np.any(zero) for zero in zeros)


# Padding and the mean -----------------------------------------------------------------


@with_both_labels
def test_padded_equals_unpadded(hot, batch):
    """N rows and M dropped rows of garbage give what the N rows give alone."""
    x, y, q = batch
    labels, every = q if hot else y, np.ones(ROWS, bool)
    weights, wide = np.array([1.0, 0.5, 2.0, 0.5, 1.0, 3.0]), np.ones(ROWS + 3, bool)
    options: dict[str, Any] = {"class_weights": WEIGHTS, "label_smoothing": 0.1}
    options |= {"z_loss": 0.01} if hot else {"z_loss": 0.01, "ignore_index": -100}

    @jax.jit
    def run(x, labels, where, weights):
        def f(x):
            loss = functools.partial(jxent.softmax_cross_entropy, x, labels, **options)
            given = {"where": where, "weights": weights}
            return {r: loss(reduction=r, **given) for r in REDUCTIONS}

        return f(x), jax.jacrev(f)(x)

    wanted, slopes = jax.device_get(run(x, labels, every, weights))
    far, ignored = [-100, 99, 2**31 - 1], [-100] * 3
    ways = [
        (far, np.arange(ROWS + 3) < ROWS, [2, np.nan, np.inf]),
        (far, wide, [0, 0, 0]),
        (ignored, wide, [2, 2, 2]),
    ]
    for ids, where, of_dropped in ways[: 2 if hot else 3]:
        for garbage in (0.0, np.nan, np.inf, -np.inf, 1e38):
            padding = np.full((3, CLASSES), garbage)
            pairs = (x, padding), (labels, padding if hot else ids)
            arrays = [np.concatenate(pair) for pair in pairs]
            more = np.concatenate([weights, of_dropped])
            got, slope = jax.device_get(run(*arrays, where, more))
            assert not np.any(got["none"][ROWS:])
            got["none"] = got["none"][:ROWS]
            close(got, wanted)
            assert not np.any(slope["none"][ROWS:])
            slope["none"] = slope["none"][:ROWS]
            assert not any(np.any(s[..., ROWS:, :]) for s in slope.values())
            close({r: s[..., :ROWS, :] for r, s in slope.items()}, slopes)


@with_both_labels
def test_the_mean_is_the_weighted_mean(hot, batch):
    """Σ r · loss / Σ r, its denominator `total_weight`, the sum `reduce`'s too."""
    x, y, q = batch
    labels, factor = (q, q.sum(-1)) if hot else (y, np.ones(ROWS))
    weights = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])
    plain, r = oracles.softmax_cross_entropy(x, labels), SOME_ROWS * weights
    options: dict[str, Any] = {"where": SOME_ROWS, "weights": weights}

    @jax.jit
    def run(x, labels):
        loss = functools.partial(jxent.softmax_cross_entropy, x, labels)
        reduced = functools.partial(jxent.reduce, loss(), **options)
        return (
            loss(reduction="mean", **options),
            loss(reduction="mean", normalizer=7.0, **options),
            jxent.total_weight(labels, **options),
            reduced(reduction="sum"),
            reduced(),
            reduced(reduction="none"),
        )

    total, count = (r * plain).sum(), (r * factor).sum()
    wanted = (total / count, total / 7, count, total, total / r.sum(), r * plain)
    close(run(x, labels), tuple(map(np.asarray, wanted)))


@with_both_labels
def test_total_weight_is_the_denominator(hot, batch):
    """Under every option that makes up r: sum / total_weight = mean."""
    x, y, q = batch
    labels = q if hot else np.where(np.arange(ROWS) == 4, -100, y)
    weights = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])
    options: dict[str, Any] = {"weights": weights, "class_weights": WEIGHTS}
    options |= {} if hot else {"ignore_index": -100}
    losses = {
        jxent.softmax_cross_entropy: x,
        jxent.softmax_focal_loss: x,
        jxent.poly_loss_cross_entropy: x,
        jxent.symmetric_cross_entropy: x,
        jxent.categorical_cross_entropy: np.exp(oracles.log_softmax(x)),
    }

    @jax.jit
    def run(where):
        given = options | {"where": where}
        sums, means = (
            [loss(x, labels, reduction=r, **given) for loss, x in losses.items()]
            for r in ("sum", "mean")
        )
        return sums, means, jxent.total_weight(labels, **given)

    for where in (SOME_ROWS, SOME_CLASSES):
        sums, means, denominator = jax.device_get(run(where))
        close(sums / denominator, np.asarray(means))


def test_micro_batches_sum_to_the_mean_of_all(batch):
    """With the whole batch's total_weight as normalizer; a mean of means is another."""
    x, y, _ = batch
    y = np.where(np.arange(ROWS) < 2, -100, y)
    options = {"ignore_index": -100, "class_weights": WEIGHTS}
    loss = functools.partial(
        jxent.softmax_cross_entropy, reduction="mean", z_loss=0.01, **options
    )
    total = jxent.total_weight(y, **options)

    @jax.jit
    def run(x, y):
        both = jax.value_and_grad(loss)(x, y, normalizer=total)
        return *both, loss(x, y)

    value, gradient, _ = run(x, y)
    for parts in (2, 3):
        few = zip(np.split(x, parts), np.split(y, parts), strict=True)
        values, slopes, means = zip(
            *(jax.device_get(run(*z)) for z in few), strict=True
        )
        close(sum(values), value)
        close(np.concatenate(slopes), gradient)
        assert abs(np.mean(means) - value) > 1e-3


@pytest.mark.parametrize(
    ("loss", "logits"),
    [
        (jxent.softmax_cross_entropy, jnp.matmul),
        (jxent.softmax_focal_loss, jnp.matmul),
        (jxent.poly_loss_cross_entropy, jnp.matmul),
        (jxent.categorical_cross_entropy, lambda *x: jax.nn.softmax(jnp.matmul(*x))),
        (jxent.softmax_cross_entropy, jxent.LinearLogits),
    ],
    ids=["cross-entropy", "focal", "poly", "probabilities", "head"],
)
def test_optax_multi_steps(loss, logits, rng):
    """It averages gradients: the total over k gives the whole batch's update."""
    k, kernel = 3, jnp.asarray(rng.normal(size=(4, CLASSES)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(ROWS, 4)), jnp.float32)
    y = jnp.asarray([0, 1, 2, -100, -100, -100])  # in threes of 2, 1 and 0
    # Of an array of NumPy that was traced under 64 bits JAX keeps those 64 bits.
    weights = jnp.asarray(WEIGHTS, jnp.float32)
    options: dict[str, Any] = {"ignore_index": -100, "class_weights": weights}

    def mean(kernel, x, y, normalizer=None):
        z = logits(x, kernel)
        return loss(z, y, reduction="mean", normalizer=normalizer, **options)

    def update(kernel, normalizer, **settings):
        """The k-th: the one that changes the parameters."""
        with jax.numpy_dtype_promotion("standard"):
            tx = optax.MultiSteps(optax.sgd(0.5), k, **settings)
            state, updates = tx.init(kernel), None
            for micro in zip(jnp.split(x, k), jnp.split(y, k), strict=True):
                slope = jax.grad(mean)(kernel, *micro, normalizer)
                updates, state = tx.update(slope, state)
        return updates, tx.has_updated(state)

    @jax.jit
    def run(kernel):
        total = jxent.total_weight(y, **options)
        updates = (
            update(kernel, total / k),
            update(kernel, total),
            update(kernel, total, use_grad_mean=False),
        )
        return jax.grad(mean)(kernel, x, y), updates

    gradient, updates = jax.device_get(run(kernel))
    whole = -0.5 * gradient
    # Without the division by k the step is too small, as the docstring warns.
    for (got, updated), wanted in zip(updates, (whole, whole / k, whole), strict=True):
        assert updated
        close(got, wanted, 1e-6)


def test_reduce(x64, rng):
    """Over any axes; where and weights drop NaN and infinities, gradient included."""
    losses = rng.normal(size=(2, 3, 4))
    where, weights = rng.random((2, 3, 4)) < 0.6, rng.uniform(0, 2, (2, 3, 4))
    weights[0, 0] = 0
    where[1] = False
    r = where * weights
    dirty = np.where(r == 0, rng.choice([np.nan, np.inf, -np.inf], r.shape), losses)
    axes: tuple[Any, ...] = (None, 0, -1, (0, 2), (0, 1, 2))
    calls = [{"axis": axis, "reduction": name} for axis in axes for name in REDUCTIONS]

    @jax.jit
    def run(losses):
        f = functools.partial(jxent.reduce, where=where, weights=weights)
        slope = lambda call: jax.grad(lambda x: jnp.sum(f(x, **call)))(losses)
        return [(f(losses, **call), slope(call)) for call in calls]

    clean = jax.device_get(run(losses))
    for call, got, plain in zip(calls, jax.device_get(run(dirty)), clean, strict=True):
        total, count = ((x * r).sum(call["axis"]) for x in (losses, np.ones(r.shape)))
        mean = np.where(count == 0, 0, total / np.where(count == 0, 1, count))
        wanted = {"none": r * losses, "sum": total, "mean": mean}[call["reduction"]]
        close(got[0], wanted)
        assert not np.any(got[1][r == 0])
        close(got[1], plain[1])
        if call["axis"] is None:
            close(got[1], r / (r.sum() if call["reduction"] == "mean" else 1))


# Statistics ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ids", "distributions"])
@pytest.mark.parametrize("options", [False, True], ids=["", "options"])
def test_statistics(kind, options, batch):
    """Every field and property equals its formula, and so does its gradient."""
    x, y, q = batch
    labels = y if kind == "ids" else q
    given: dict[str, Any] = {}
    keep, real = np.ones(ROWS, bool), np.ones(CLASSES, bool)
    if options:
        keep, real = SOME_ROWS, REAL
        given = {"logit_soft_cap": 5.0, "temperature": ROW_TEMPERATURE}
        given["class_mask"] = REAL

    def statistics(x):
        return jxent.softmax_statistics(
            x,
            labels,
            class_weights=WEIGHTS,
            entropy=True,
            argmax=True,
            where=keep,
            **given,
        )

    top = np.argmax(oracles.prepared(x, **given)[0], -1)

    def truth(name, x, shift_at=x):
        z, _, _ = oracles.prepared(x, **given)
        shift = oracles.prepared(shift_at, **given)[0].max(-1, keepdims=True)
        rel = np.where(real, z - shift, 0)
        log_p = np.where(real, oracles.log_softmax(z), 0)
        p = np.where(real, np.exp(log_p), 0)
        t = one_hot(y) if kind == "ids" else WEIGHTS * q * real
        lse = oracles.log_sum_exp(z)
        fields = {
            "shift": shift[:, 0],
            "log_sum": lse - shift[:, 0],
            "label_logit": (t * rel).sum(-1),
            "label_mass": t.sum(-1),
            "weighted_logit": (WEIGHTS * rel).sum(-1),
            "expected_logit": (p * rel).sum(-1),
            "lse": lse,
            "log_prob": (t * log_p).sum(-1),
            "entropy": -(p * log_p).sum(-1),
            "argmax": top,
        }
        return np.where(keep, fields[name], 0)

    absent = "label_mass" if kind == "ids" else "weighted_logit"
    floats = [*jxent.SoftmaxStatistics._fields, "lse", "log_prob", "entropy"]
    floats = [n for n in floats if n not in ("argmax", absent)]
    factors = np.cos(np.arange(ROWS))

    def total(x):
        s = statistics(x)
        return {n: jnp.sum(getattr(s, n) * factors) for n in floats}

    program = jax.jit(
        lambda x: (statistics(x), jax.jacrev(total)(x), jax.jacfwd(total)(x))
    )
    got, slopes, forward = jax.device_get(program(x))
    assert getattr(got, absent) is None
    np.testing.assert_array_equal(got.argmax, truth("argmax", x))
    for name in floats:
        close(getattr(got, name), truth(name, x))
        # the shift is a constant, which the properties make up for
        fixed = {} if name in ("lse", "log_prob", "entropy") else {"shift_at": x}
        f = lambda v, name=name, fixed=fixed: (factors * truth(name, v, **fixed)).sum()
        wanted = oracles.central_differences(f, x)
        if name == "shift":
            assert not np.any(slopes[name])
        elif name == "lse":
            wanted = oracles.central_differences(
                lambda v: (factors * truth("log_sum", v, x)).sum(), x
            )
        if name != "shift":
            close(slopes[name], wanted, 1e-9)
        close(forward[name], slopes[name])


OF_ONE_SOFTMAX = [
    jxent.softmax_cross_entropy,
    jxent.softmax_focal_loss,
    jxent.poly_loss_cross_entropy,
    jxent.generalized_cross_entropy,
    jxent.taylor_cross_entropy,
    jxent.symmetric_cross_entropy,
]
HEADS = {
    "in memory": lambda hidden, kernel: hidden @ kernel,
    **{
        layout: functools.partial(jxent.LinearLogits, implementation=layout)
        for layout in ("materialized", "streamed")
    },
}


@pytest.mark.parametrize(
    ("loss", "layout"),
    [(jxent.softmax_cross_entropy, layout) for layout in HEADS]
    + [(loss, list(HEADS)[i % 3]) for i, loss in enumerate(OF_ONE_SOFTMAX) if i],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_a_loss_with_its_statistics(loss, layout, batch):
    """Those of softmax_statistics, dropped rows included; the loss stays the same."""
    x, y, _ = batch
    y = np.where(np.arange(ROWS) == 4, -100, y)
    options = {"ignore_index": -100, "logit_soft_cap": 5.0, "class_mask": REAL}
    f = functools.partial(loss, z_loss=0.1, reduction="mean", **options)
    derivatives = functools.partial(jax.value_and_grad, allow_int=True)

    @jax.jit
    def run(x):
        logits = HEADS[layout](np.eye(ROWS), x)
        (value, s), slope = derivatives(jxent.with_statistics(f), has_aux=True)(
            logits, y
        )
        wanted = jxent.softmax_statistics(x, y, entropy=True, argmax=True, **options)
        pick = lambda s: (s.lse, s.log_prob, s.entropy, s.argmax)
        plain = derivatives(f)(logits, y)
        return ((value, slope), pick(s)), (plain, pick(wanted))

    close(*run(x))


def test_statistics_leave_no_trace(batch):
    """What is jitted, and called with statistics, returns the loss alone again."""
    x, y, _ = batch
    for f in (jax.jit(jxent.softmax_cross_entropy), jax.checkpoint(mean_loss)):
        with_statistics = jxent.with_statistics(f)
        first = f(x, y)
        for _ in range(2):
            loss, statistics = with_statistics(x, y)
            assert isinstance(statistics, jxent.SoftmaxStatistics)
            np.testing.assert_array_equal(loss, first)
            np.testing.assert_array_equal(f(x, y), first)
    with pytest.raises(ValueError, match="Labels never broadcast"):
        jxent.with_statistics(mean_loss)(x, y[:2])
    assert isinstance(mean_loss(x, y), jax.Array)


def mean_loss(x, y):
    return jxent.softmax_cross_entropy(x, y, reduction="mean")


def test_a_loss_with_its_statistics_keeps_its_signature():
    both = jxent.with_statistics(jxent.softmax_focal_loss)
    assert inspect.signature(both) == inspect.signature(jxent.softmax_focal_loss)
    assert both.__doc__ == jxent.softmax_focal_loss.__doc__


@pytest.mark.parametrize("argmax", [False, True])
def test_statistics_are_a_tuple_of_arrays(argmax, batch):
    """What was not asked for is None there, the argmax too, which raises by name."""
    x, y, _ = batch
    statistics = lambda x, y: jxent.softmax_statistics(x, y, argmax=argmax)
    s = statistics(x, y)
    assert isinstance(s, tuple)
    assert s._asdict() == dict(zip(s._fields, s, strict=True))
    assert (s[-1] is None) != argmax
    zeros = jnp.zeros(ROWS, jnp.int32)
    assert s._replace(argmax=zeros).argmax is zeros
    leaves, tree = jax.tree.flatten_with_path(s)
    names = [path[-1].name for path, _ in leaves]
    assert names == ["shift", "log_sum", "label_logit"] + ["argmax"] * argmax
    copies = [
        jax.tree.map(lambda x: x, s),
        jax.tree.unflatten(tree, [leaf for _, leaf in leaves]),
        copy.deepcopy(s),
        jax.jit(statistics)(x, y),
        jax.vmap(statistics)(x, y),
        jax.lax.map(lambda row: statistics(*row), (x, y)),
    ]
    for other in copies:
        assert type(other) is type(s) is jxent.SoftmaxStatistics
        close(other, s)
        if argmax:
            np.testing.assert_array_equal(other.argmax, np.argmax(x, -1))
        else:
            with pytest.raises(ValueError, match="taken with argmax=False"):
                _ = other.argmax


@pytest.mark.parametrize("loss", [jxent.kl_divergence, jxent.generalized_kl_divergence])
@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_integer_targets_of_a_divergence(loss, dtype, batch):
    """One-hot targets in integers are what they are in floats."""
    x, y, _ = batch
    log_q, targets = oracles.log_softmax(x), one_hot(y)
    f = lambda targets: jax.value_and_grad(lambda q: loss(q, targets).sum())(log_q)
    close(f(jnp.asarray(targets, dtype)), f(targets))


def test_next_token_labels_leave_out_document_ends(x64):
    """Shifted by one; no label across documents, nor for the last token."""
    tokens = np.array([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]])
    documents = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
    got = jxent.next_token_labels(tokens, segment_ids=documents, ignore_index=-1)
    np.testing.assert_array_equal(got, [[6, -1, 8, 9, -1], [-1, 3, -1, 5, -1]])
    got = jxent.next_token_labels(tokens[0].astype(np.uint8))
    np.testing.assert_array_equal(got, [6, 7, 8, 9, -100])


def labels_one_by_one(tokens, segments, where, shift):
    """What next_token_labels returns, said of each position on its own."""
    labels = np.full_like(tokens, -100)
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
    labels = functools.partial(jxent.next_token_labels, shift=shift)
    options: dict[str, Any]
    for options, told in (
        ({}, (one, whole)),
        ({"where": where}, (one, where)),
        ({"where": where[:1, :, :1]}, (one, where[:1, :, :1] & whole)),
        ({"segment_ids": segments}, (segments, whole)),
        ({"segment_ids": segments, "where": where}, (segments, where)),
    ):
        expected = labels_one_by_one(tokens, *told, shift)
        np.testing.assert_array_equal(labels(tokens, **options), expected)
    mapped = jax.vmap(lambda t, s, w: labels(t, segment_ids=s, where=w))
    np.testing.assert_array_equal(mapped(tokens, segments, where), expected)


@pytest.mark.parametrize("length", [0, 1])
def test_next_token_labels_of_hardly_any_tokens(length):
    """They have none."""
    x = np.ones((2, length), np.int32)
    for shift in (1, 2):
        got = jxent.next_token_labels(x, segment_ids=x, where=x > 0, shift=shift)
        np.testing.assert_array_equal(got, -100 * x)


def test_next_token_labels_take_any_integer_as_shift():
    """NumPy's and JAX's as well as Python's."""
    for two in (2, np.int64(2), jnp.int32(2)):
        got = jxent.next_token_labels(jnp.array([5, 6, 7]), shift=two)
        assert got.tolist() == [7, -100, -100]


@pytest.mark.parametrize("axis", [-1, 0, (0, 1)])
def test_smooth_labels(axis, x64, rng):
    """(1 − α) t + α/K over the allowed classes."""
    t = rng.uniform(0, 1, (4, CLASSES))
    where = rng.random((4, CLASSES)) < 0.7
    count = where.sum(axis, keepdims=True)
    wanted = where * (0.9 * t + 0.1 / np.maximum(count, 1))
    close(jxent.smooth_labels(t, 0.1, axis=axis, where=where), wanted)
    even = 0.1 / np.ones_like(t).sum(axis, keepdims=True)
    close(jxent.smooth_labels(t, 0.1, axis=axis), 0.9 * t + even)


def test_names_of_parameters():
    """No from_logits switch: the first is named for what it is. What is easily
    exchanged, α and γ, are keywords."""
    for name in jxent.__all__:
        function = getattr(jxent, name)
        if not inspect.isfunction(function):
            continue
        parameters = inspect.signature(function).parameters
        first = next(iter(parameters))
        assert "from_logits" not in parameters
        if name.startswith(("softmax", "safe_softmax", "sigmoid", "poly_loss")):
            assert first == ("x" if "contrastive" in name else "logits")
        if name in ("binary_cross_entropy", "categorical_cross_entropy", "entropy"):
            assert first == "probs"
        for of_formula in {"alpha", "gamma", "gamma_pos", "gamma_neg"} & {*parameters}:
            kind = parameters[of_formula].kind
            assert name == "smooth_labels" or kind is inspect.Parameter.KEYWORD_ONLY


@pytest.fixture
def checked(monkeypatch):
    """The arguments of every call that is checked."""
    calls = []
    room = jxent._solve.layout
    check = room.checked_problem
    monkeypatch.setattr(
        room, "checked_problem", lambda *a, **k: calls.append(a) or check(*a, **k)
    )
    return calls


def test_outside_jit_a_call_is_checked_once(checked):
    """For its shapes, and the names and types of what is no array: 1 equals True."""
    x, labels = jnp.arange(33.0).reshape(3, 11), jnp.arange(3)
    first = jxent.softmax_cross_entropy(x, labels, axis=1)
    again = jxent.softmax_cross_entropy(2 * x, labels, axis=1)
    assert len(checked) == 1
    assert not np.array_equal(first, again)
    with pytest.raises(TypeError, match="got True"):
        jxent.softmax_cross_entropy(x, labels, axis=True)
    with pytest.raises(ValueError, match="to be one of"):
        jxent.softmax_cross_entropy(x, labels, reduction=untyped(["none"]))
    jxent.softmax_cross_entropy(x, labels, axis=1, weights=np.ones(3, np.float32))
    jxent.softmax_cross_entropy(x, labels, axis=1, weights=np.ones(3, np.float32))
    assert len(checked) == 5
    jxent.softmax_cross_entropy(x, labels, axis=(1,))
    for equal in (True, 1.0):
        with pytest.raises(TypeError, match=rf"got \({equal},\)"):
            jxent.softmax_cross_entropy(x, labels, axis=untyped((equal,)))


def test_outside_jit_linear_logits_are_checked_once(checked):
    """For their static fields too, those of a second head among them."""
    kernel, labels = jnp.arange(33.0).reshape(3, 11), jnp.arange(2)
    head = jxent.LinearLogits(jnp.ones((2, 3)), kernel, block_sizes=(1, None))
    array = head.materialize()
    losses = (
        lambda head: jxent.softmax_cross_entropy(head, labels),
        lambda head: jxent.softmax_kl_divergence(array, head),
    )
    for loss in losses:
        before = len(checked)
        loss(head)
        loss(head.replace(hidden=2 * head.hidden))
        assert len(checked) == before + 1
        with pytest.raises(ValueError, match=r"got \(True, None\)"):
            loss(head.replace(block_sizes=(True, None)))
        loss(head.replace(kernel=kernel.T, vocab_axis=0))
        with pytest.raises(TypeError, match="vocab_axis to be an int, got False"):
            loss(head.replace(kernel=kernel.T, vocab_axis=False))
