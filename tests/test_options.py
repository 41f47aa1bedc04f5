"""Every option of the softmax losses, alone and together."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
import jxent._solve.layout
from tests import oracles
from tests.cases import CLASSES, EACH_LOSS, MASKED, REAL, WEIGHTS, one_hot
from tests.comparing import close, untyped


ROWS = 6


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


def test_weights_of_classes_where_rows_are_as_many(x64, rng):
    """They belong to the last axis."""
    calls = [
        (case, case.inputs(rng, rows=(CLASSES,)))
        for case in EACH_LOSS
        if case.takes("elementwise") and "class_weights" in case.options
    ]
    got = jax.jit(lambda: [case(*inputs) for case, inputs in calls])()
    close(got, [case.oracle(*inputs) for case, inputs in calls])


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


# Checks -------------------------------------------------------------------------------


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
