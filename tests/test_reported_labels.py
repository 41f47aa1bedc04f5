"""Under checkify a label that names no class is an error which has it by name."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jxent
from jxent import SparseLabels, metrics
from jxent._problem import bad_labels
from tests.cases import CLASSES, IN_MEMORY, MASKED, REAL, ids
from tests.compiling import as_users_jit
from tests.heads import of_layout


BAD = 9
LOGITS = np.random.default_rng(0).uniform(0.05, 0.9, (4, CLASSES)).astype(np.float32)
IDS = np.array([[0, 3, 1], [7, 2, 1], [5, 4, 4], [6, 6, 0]], np.int32)
OWN = np.array([0, 4, 2, 1], np.int32)
binary = functools.partial(jxent.sigmoid_binary_cross_entropy, axis=-1)
summed = functools.partial(binary, reduction="sum")
cross_entropy = jxent.softmax_cross_entropy


class Call(NamedTuple):
    """A program, arguments with which it says nothing, and some with a bad label."""

    run: Callable[..., Any]
    good: tuple[Any, ...]
    bad: tuple[tuple[int | None, tuple[Any, ...]], ...]
    classes: int = CLASSES


def sentence(label, classes=CLASSES):
    got = "" if label is None else f"{label}. Mark rows to skip with ignore_index or"
    return (
        f"expected labels in [0, {classes}) and on a class that is not masked, got "
        f"label {got}"
    )


def named(run, labels, place, *bad, classes=CLASSES):
    """Each of the bad labels at this place."""

    def with_one(label):
        changed = labels.copy()
        changed[place] = label
        return label, (changed,)

    return Call(run, ((labels,),), tuple(map(with_one, bad)), classes)


def head(layout="streamed"):
    """The logits as a product."""
    return of_layout(layout, (2, 4))(LOGITS, np.eye(CLASSES, dtype=np.float32))


def calls():
    several = {
        "several ids": lambda y: cross_entropy(LOGITS, SparseLabels(y)),
        "at ids": lambda y: jxent.softmax_log_prob_at(LOGITS, y),
        "at ids, head": lambda y: jxent.softmax_log_prob_at(head(), y),
        "among, kept": lambda y: jxent.softmax_log_prob_among(LOGITS, y[:, 0], y),
        "among, own": lambda y: jxent.softmax_log_prob_among(LOGITS, y[:, 1], y[:, :1]),
        "positives": lambda y: binary(LOGITS, SparseLabels(y)),
        "positives, streamed": lambda y: binary(head(), SparseLabels(y)),
        "positives, tiled": lambda y: summed(head("tiled"), SparseLabels(y)),
    }
    for name, run in several.items():
        yield name, named(run, IDS, (2, 1), BAD)

    for name in (
        *("accuracy", "top_k_accuracy", "perplexity", "brier_score"),
        *("confusion_matrix", "calibration_error"),
    ):
        metric = getattr(metrics, name)
        of_classes = functools.partial(metric, LOGITS)
        yes_no = functools.partial(metric, LOGITS[:, 0], axis=())
        yield name, named(of_classes, OWN, 2, BAD)
        yield f"{name} of yes and no", named(yes_no, OWN // 4, 2, BAD, classes=2)

    # Losses of ids, under all that drops a row or a class.
    for case in IN_MEMORY:
        names = "focal_loss", "log_prob", "categorical_cross_entropy", "softmax_cross"
        if case.labels is not ids or not any(n in case.loss.name for n in names):
            continue
        if case.options and case.loss.function is not cross_entropy:
            continue

        def step(y, case=case):
            options = {"where": np.arange(4) < 3, "ignore_index": -100}
            f = lambda x: case(x, y, class_mask=REAL, **options).sum()
            return jax.value_and_grad(f)(LOGITS)

        call = named(step, OWN, 1, CLASSES, 100, -1, -101, MASKED)
        good = np.array([[0, 5, 0, 1], [0, -100, 0, 1], [0, 5, 0, 77]], np.int32)
        yield str(case), call._replace(good=tuple((y,) for y in good))

    for axes in ((0, 0), (1, 0), (0, 1), (1, 1), (None, 1)):
        stacked = np.stack([LOGITS] * 2, axes[0] or 0)
        x, y = LOGITS if axes[0] is None else stacked, np.stack([OWN] * 2, axes[1])
        mapped = jax.vmap(functools.partial(cross_entropy, ignore_index=-100), axes)
        loss = lambda y, x, f=mapped: f(x, y).sum()
        both = jax.value_and_grad(loss, 1)
        yield f"vmap {axes}", named(lambda y, x=x, f=both: f(y, x), y, (1, 1), 8, -1)

    for axis in ((), -1):
        loss = functools.partial(
            jxent.sigmoid_binary_cross_entropy, LOGITS, axis=axis, reduction="sum"
        )
        y = np.zeros((4, CLASSES), np.int32)
        y[1, 2] = 7
        w = np.ones((4, CLASSES) if axis == () else 4, np.float32)
        none = w.copy()
        none[1] = 0
        weighed = lambda y, w, loss=loss: loss(y, weights=w)
        yield f"weight of 0 {axis}", Call(weighed, ((y, none),), ((7, (y, w)),), 2)
        for loss in (jxent.sigmoid_binary_cross_entropy, jxent.asymmetric_loss):
            total = jax.value_and_grad(
                functools.partial(loss, axis=axis, reduction="sum")
            )
            mapped = functools.partial(jax.vmap(total), np.stack([LOGITS] * 2))
            zeros = np.zeros((2, 4, CLASSES), np.int32)
            call = named(mapped, zeros, (1, 2, 3), 7, classes=2)
            yield f"vmap of {loss.__name__} {axis}", call

    def penalty(y):  # a step whose gradient goes on, and whose loss is not kept
        slopes = jax.jit(jax.grad(lambda x: cross_entropy(x, y).sum()))
        return jax.grad(lambda x: jnp.sum(slopes(x) ** 2))(LOGITS)

    yield "a gradient alone", named(penalty, OWN, 1, BAD)

    # As the loss does, a total has nothing to say of rows that are dropped.
    total = functools.partial(jxent.total_weight, class_weights=np.ones(CLASSES))
    bad, every = np.array([0, 9, 4, 1], np.int32), np.ones(4, np.float32)
    kept = (np.arange(4) != 1).astype(np.float32)
    for name, kind in (
        ("ids", lambda y: y),
        ("lists", lambda y: SparseLabels(y[:, None])),
    ):
        drop = lambda y, where, w, kind=kind: total(kind(y), where=where > 0, weights=w)
        good = (bad, kept, every), (bad, every, kept)
        yield f"total of {name}", Call(drop, good, ((9, (bad, every, every)),))
        ignore = lambda y, i, kind=kind: total(kind(y), ignore_index=i)
        good, one = ((bad, np.int32(9)),), ((9, (bad, np.int32(-1))),)
        yield f"total of {name}, ignored", Call(ignore, good, one)
    # Without class weights, which say how many classes there are, −1 is bad too.
    count = functools.partial(jxent.total_weight, ignore_index=-100)
    call = named(count, np.array([0, 9, -100], np.int32), 1, -1, classes=2**31 - 1)
    yield "a negative label of a total", call

    wide = lambda: cross_entropy(LOGITS[:2], np.array([0, 2**32]))
    yield "an id of 64 bits", Call(wide, (), ((None, ()),))
    # The sentence is about labels: a NaN logit, or a row of −inf, is none.
    no = [[np.nan, 0.0], [-np.inf, -np.inf], [np.inf, 0.0]]
    no = functools.partial(cross_entropy, np.array(no, np.float32))
    yield "bad logits", Call(no, ((np.array([0, 1, 1], np.int32),),), ())


CALLS = dict(calls())


def message_of(run):
    program = as_users_jit(checkify.checkify(jax.jit(run)))
    return lambda *arguments: program(*arguments)[0].get()


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_label_is_named(name):
    call = CALLS[name]
    message = message_of(call.run)
    for arguments in call.good:
        assert message(*arguments) is None
    for label, arguments in call.bad:
        assert sentence(label, call.classes) in (message(*arguments) or "")


def test_a_bad_label_is_named_outside_of_jit():
    """In a program that runs operation by operation, where values are at hand."""
    with jax.disable_jit():
        error, _ = checkify.checkify(cross_entropy)(LOGITS, np.array([0, 9, 4, 1]))
    assert sentence(9) in (error.get() or "")


def test_a_bad_label_is_named_without_private_help(monkeypatch):
    """A JAX whose private table of checks is gone: a debug_check names the label."""
    monkeypatch.setattr(bad_labels, "error_checks", None)
    x = np.ones((7, 6), np.float32)  # a shape that no other test has traced
    labels = np.array([0, 1, 2, 6, 4, 5, 0], np.int32)
    assert sentence(6, 6) in (message_of(cross_entropy)(x, labels) or "")
    assert jax.make_jaxpr(cross_entropy)(x, labels).effects


def test_an_infinite_logit_that_is_right_is_no_nan():
    x, y = LOGITS.copy(), np.zeros((4, CLASSES), np.int32)
    x[1, 1] = -np.inf
    losses = jxent.sigmoid_binary_cross_entropy, binary, jxent.asymmetric_loss

    def totals(x, y):
        sums = [functools.partial(f, labels=y, reduction="sum") for f in losses]
        return [jax.value_and_grad(total)(x) for total in sums]

    error, _ = checkify.checkify(jax.jit(totals), errors=checkify.nan_checks)(x, y)
    assert error.get() is None
