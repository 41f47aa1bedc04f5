"""`softmax_statistics` and `with_statistics`: fields, gradients, and the tuple."""

import copy
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.cases import CLASSES, LAYOUTS, LOSSES, REAL, SOFTMAX, WEIGHTS, one_hot
from tests.comparing import close, weighed
from tests.heads import of_layout


ROWS = 6
SOME_ROWS = np.array([True, True, False, True, True, False])
ROW_TEMPERATURE = np.array([0.5, 1.0, 1.5, 2.0, 0.75, 1.25])


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


FIRST, *OTHERS = (x.function for x in LOSSES if x.takes == SOFTMAX)


@pytest.mark.parametrize(
    ("loss", "layout"),
    [(FIRST, layout) for layout in LAYOUTS[:3]]
    + [(loss, LAYOUTS[(i + 1) % 3]) for i, loss in enumerate(OTHERS)],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_a_loss_with_its_statistics(loss, layout, batch):
    """Those of softmax_statistics, with their gradients; the loss stays the same."""
    x, y, _ = batch
    y = np.where(np.arange(ROWS) == 4, -100, y)
    options = {"ignore_index": -100, "logit_soft_cap": 5.0, "class_mask": REAL}
    f = functools.partial(loss, labels=y, z_loss=0.1, reduction="mean", **options)
    pick = lambda s: (s.lse, s.log_prob, s.entropy, s.argmax)
    logits = functools.partial(of_layout(layout), np.eye(ROWS))

    @jax.jit
    def run(x):
        def both(x):
            value, s = jxent.with_statistics(f)(logits(x))
            return value + weighed(pick(s)), (value, pick(s))

        def singly(x):
            value = f(logits(x))
            s = jxent.softmax_statistics(x, y, entropy=True, argmax=True, **options)
            return value + weighed(pick(s)), (value, pick(s))

        return [jax.value_and_grad(way, has_aux=True)(x) for way in (both, singly)]

    close(*jax.device_get(run(x)))


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
