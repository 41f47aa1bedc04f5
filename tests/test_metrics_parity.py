"""jxent.metrics beside torchmetrics, Keras and scikit-learn: the same numbers, or a
stated difference."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

import jxent
from jxent import metrics
from tests.comparing import close
from tests.facades import installed


CLASSES, ROWS, IGNORED = 6, 240, -100
SINGLE = 2e-6  # torchmetrics and Keras compute in float32


@pytest.fixture(scope="module")
def torch():
    """PyTorch, once torchmetrics is imported."""
    installed("torchmetrics")
    return installed("torch")


@pytest.fixture(scope="module")
def torchmetrics(torch):
    """Its functions of classifiers."""
    return installed("torchmetrics.functional.classification")


@pytest.fixture(scope="module")
def keras():
    return installed("keras").metrics


@pytest.fixture(autouse=True)
def _x64(x64):
    """The libraries are compared with float64, whose error is none beside theirs."""


def together(results):
    """What a function of no arguments gives, from one program."""
    return jax.device_get(jax.jit(results)())


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def rows_of(rng, *shape):
    """Logits without ties, and labels drawn from their softmax."""
    z = 2 * rng.normal(size=(*shape, CLASSES))
    return z, (z + rng.gumbel(size=z.shape)).argmax(-1)


def yes_no(rng, *shape):
    """Logits of yes, and labels drawn from their sigmoid."""
    z = 2 * rng.normal(size=shape)
    return z, (rng.random(shape) < sigmoid(z)).astype(int)


# torchmetrics -------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [None, IGNORED, 2])
def test_torchmetrics_accuracy(ignore_index, torch, torchmetrics, rng):
    """average="micro" counts rows as `accuracy` does; its default, "macro", counts
    classes: class weights make that. Confusion matrices have labels in rows."""
    z, y = rows_of(rng, ROWS)
    y[::7] = y[::7] if ignore_index is None else ignore_index
    of = {"num_classes": CLASSES, "ignore_index": ignore_index}
    given = torch.tensor(z), torch.tensor(y)

    def theirs(**options):
        return torchmetrics.multiclass_accuracy(*given, **of, **options).numpy()

    kept = np.ones(ROWS, bool) if ignore_index is None else y != ignore_index
    counts = np.bincount(y[kept], minlength=CLASSES)
    balance = np.asarray(jxent.class_weights_of_counts(counts))
    weights = np.where(kept, balance[np.where(kept, y, 0)], 0)
    options = {"ignore_index": ignore_index}
    shares, matrix, ours = together(
        lambda: (
            [metrics.top_k_accuracy(z, y, k=k, **options) for k in (1, 2, 3)]
            + [metrics.accuracy(z, y, **options)],
            metrics.confusion_matrix(z, y, **options),
            metrics.accuracy(z, y, weights=weights),
        )
    )
    wanted = [theirs(average="micro", top_k=k) for k in (1, 2, 3, 1)]
    close(shares, wanted, SINGLE)
    of_torch = torchmetrics.multiclass_confusion_matrix(*given, **of)
    np.testing.assert_array_equal(matrix, of_torch)
    if ignore_index is None or ignore_index < 0:
        close(ours, theirs(average="macro"), SINGLE)
    else:
        # It counts the class that is ignored as one that is never found.
        found = theirs(average="none")
        assert found[ignore_index] == 0
        close(theirs(average="macro"), found.mean(), SINGLE)
        close(ours, np.delete(found, ignore_index).mean(), SINGLE)


@pytest.mark.parametrize("bins", [1, 7, 15, 200])
def test_torchmetrics_calibration_error(bins, torch, torchmetrics, rng):
    """Also with bins that are empty: no gap. Of classes, and of yes and no."""
    (z, y), (z2, y2) = rows_of(rng, ROWS), yes_no(rng, ROWS)
    y[::7] = y2[::7] = IGNORED
    norms = "l1", "l2", "max"

    @jax.jit
    def ours(z, y, z2, y2):
        of = metrics.calibration_error
        ignored = {"bins": bins, "ignore_index": IGNORED}
        weight = metrics.reliability_bins(z, y, **ignored).weight
        kept, yes = y2 != IGNORED, jnp.where(y2 == 1, 1, 0)
        return weight, [
            (of(z, y, norm=n, **ignored), of(z2, yes, (), kept, bins=bins, norm=n))
            for n in norms
        ]

    weight, found = jax.device_get(ours(z, y, z2, y2))
    assert np.any(weight == 0) == (bins > 6)
    several, two = ((torch.tensor(a), torch.tensor(b)) for a, b in ((z, y), (z2, y2)))
    for norm, got in zip(norms, found, strict=True):
        options = {"n_bins": bins, "norm": norm, "ignore_index": IGNORED}
        wanted = (
            torchmetrics.multiclass_calibration_error(*several, CLASSES, **options),
            torchmetrics.binary_calibration_error(*two, **options),
        )
        close(got, tuple(x.numpy() for x in wanted), SINGLE)


def test_torchmetrics_bins_hold_their_lower_edge(torch, torchmetrics):
    """(low, high] here and in the paper of Guo et al. (2017), [low, high) there; and
    there a confidence of exactly 1 has a bin of its own."""
    z, y = np.array([-1.0, 0.0, 1.0]), np.array([0, 1, 1])
    p = sigmoid(z)
    assert p[1] == 0.5

    def gap(*rows):
        rows = list(rows)
        return abs(p[rows].mean() - y[rows].mean())

    got = metrics.calibration_error(z, y, (), bins=2, norm="max")
    close(got, max(gap(0, 1), gap(2)))
    given = torch.tensor(p), torch.tensor(y)
    theirs = torchmetrics.binary_calibration_error(*given, 2, "max")
    close(theirs.numpy(), max(gap(0), gap(1, 2)), SINGLE)
    assert abs(got - float(theirs)) > 0.005

    z = np.array([[80.0, 0.0], [80.0, 0.0], [3.0, 0.0]])
    y = np.array([0, 0, 1])
    given = torch.tensor(z), torch.tensor(y)
    got = metrics.calibration_error(z, y, bins=1, norm="max")
    p = softmax(z)[:, 0]
    close(got, abs(p.mean() - 2 / 3))
    own = torchmetrics.multiclass_calibration_error(*given, 2, 1, norm="max").numpy()
    close(own, abs(p[2] - 0), SINGLE)


def test_torchmetrics_takes_some_logits_for_probabilities(torch, torchmetrics, rng):
    """Those that all lie between 0 and 1. Here logits are logits."""
    z, y = rng.random((ROWS, CLASSES)), rng.integers(0, CLASSES, ROWS)
    ours = metrics.calibration_error(z, y)

    def theirs(preds):
        given = torch.tensor(preds), torch.tensor(y)
        return torchmetrics.multiclass_calibration_error(*given, CLASSES).numpy()

    close(ours, theirs(softmax(z)), SINGLE)
    close(ours, theirs(z - 1), SINGLE)  # not all in [0, 1]: logits
    assert abs(float(theirs(z)) - ours) > 0.3


def test_torchmetrics_of_many_axes(torch, torchmetrics, rng):
    """Its class axis is 1."""
    z, y = rows_of(rng, 8, 30)
    z = np.moveaxis(z, -1, 1)
    given = torch.tensor(z), torch.tensor(y), CLASSES
    names = "accuracy", "calibration_error", "confusion_matrix"
    ours = together(lambda: [getattr(metrics, name)(z, y, 1) for name in names])
    micro = {"accuracy": {"average": "micro"}}
    for name, got in zip(names, ours, strict=True):
        theirs = getattr(torchmetrics, f"multiclass_{name}")
        close(np.float64(got), theirs(*given, **micro.get(name, {})).numpy(), SINGLE)


def test_torchmetrics_of_yes_and_no(torch, torchmetrics, rng):
    """A logit of 0 is a no in both."""
    z, y = yes_no(rng, ROWS)
    z[::5] = 0
    z[0] = 9  # a logit: not all are probabilities
    given = torch.tensor(z), torch.tensor(y)
    theirs = torchmetrics.binary_accuracy(*given)
    close(metrics.accuracy(z, y, ()), theirs.numpy(), SINGLE)
    matrix = torchmetrics.binary_confusion_matrix(*given)
    np.testing.assert_array_equal(metrics.confusion_matrix(z, y, ()), matrix)


def test_torchmetrics_perplexity(torch, rng):
    """The same, until a probability is 0 in its dtype: exp and log are apart there."""
    perplexity = installed("torchmetrics.functional.text").perplexity
    z, y = rows_of(rng, 8, 30)
    y[:, -3:] = IGNORED
    theirs = perplexity(torch.tensor(z), torch.tensor(y), ignore_index=IGNORED)
    close(metrics.perplexity(z, y, ignore_index=IGNORED), theirs.numpy(), 1e-10)

    z = np.zeros((1, 10, 2), np.float32)
    z[0, :, 0] = 150
    y = np.zeros((1, 10), int)
    y[0, 0] = 1
    assert perplexity(torch.tensor(z), torch.tensor(y)) == np.inf
    close(metrics.perplexity(z, y), np.exp(np.float32(15)), SINGLE)


def test_torchmetrics_adds_up_batches_as_sums_do(torch, rng):
    classification = installed("torchmetrics.classification")
    modules = {
        "accuracy": classification.MulticlassAccuracy(CLASSES, average="micro"),
        "top_k_accuracy": classification.MulticlassAccuracy(
            CLASSES, average="micro", top_k=5
        ),
        "calibration_error": classification.MulticlassCalibrationError(CLASSES),
    }
    batches = [rows_of(rng, rows) for rows in (20, 100, 3)]
    for module in modules.values():
        for z, y in batches:
            module.update(torch.tensor(z), torch.tensor(y))

    def total(name):
        parts = [getattr(metrics, f"{name}_sums")(z, y) for z, y in batches]
        return jax.tree.map(lambda *x: sum(x), *parts).compute()

    wanted = {name: module.compute().numpy() for name, module in modules.items()}
    close(together(lambda: {name: total(name) for name in modules}), wanted, SINGLE)


def test_torchmetrics_of_no_rows(torch, torchmetrics):
    """0 in both, but for its calibration error: NaN."""
    z, y = np.zeros((3, CLASSES)), np.full(3, IGNORED)
    given = torch.tensor(z), torch.tensor(y), CLASSES
    of: Any = {"ignore_index": IGNORED}
    assert torchmetrics.multiclass_accuracy(*given, average="micro", **of) == 0
    assert metrics.accuracy(z, y, **of) == 0
    assert torch.isnan(torchmetrics.multiclass_calibration_error(*given, **of))
    assert metrics.calibration_error(z, y, **of) == 0


# Keras --------------------------------------------------------------------------------


def keras_value(metric, *batches):
    """Of batches of (y_true, y_pred, sample_weight)."""
    for batch in batches:
        metric.update_state(*batch)
    return np.asarray(metric.result())


def test_keras_accuracy(keras, as_users_have_it, rng):
    """With weights, over batches; its one-hot labels are class ids here."""
    batches = [(*rows_of(rng, n), rng.uniform(0.5, 2, n)) for n in (20, 100, 3)]
    sparse = [(y, z, w) for z, y, w in batches]
    one_hot = [(np.eye(CLASSES)[y], z, w) for z, y, w in batches]

    def ours(sums_of, **options):
        parts = [sums_of(z, y, weights=w, **options) for y, z, w in sparse]
        return jax.tree.map(lambda *x: sum(x), *parts).compute()

    accuracy, *top = together(
        lambda: (
            ours(metrics.accuracy_sums),
            *(ours(metrics.top_k_accuracy_sums, k=k) for k in (2, 5)),
        )
    )
    close(keras_value(keras.SparseCategoricalAccuracy(), *sparse), accuracy, SINGLE)
    close(keras_value(keras.CategoricalAccuracy(), *one_hot), accuracy, SINGLE)
    for k, share in zip((2, 5), top, strict=True):
        theirs = keras.SparseTopKCategoricalAccuracy(k)
        close(keras_value(theirs, *sparse), share, SINGLE)
        theirs = keras.TopKCategoricalAccuracy(k)
        close(keras_value(theirs, *one_hot), share, SINGLE)


def test_keras_binary_accuracy(keras, as_users_have_it, rng):
    """Its threshold is one of probabilities unless told otherwise: 0 of logits."""
    z, y = yes_no(rng, ROWS, 1)
    z[::5] = 0
    accuracy = metrics.accuracy(z, y, ())
    close(keras_value(keras.BinaryAccuracy(threshold=0.0), (y, z)), accuracy, SINGLE)
    close(keras_value(keras.BinaryAccuracy(), (y, sigmoid(z))), accuracy, SINGLE)


def test_keras_counts_ties_as_found(keras, as_users_have_it):
    """A label is among its top k where fewer than k logits are larger: with all of
    them equal always. Here the first k classes are the top k, as `lax.top_k` has it."""
    z, y = np.zeros((CLASSES, CLASSES)), np.arange(CLASSES)
    assert keras_value(keras.SparseTopKCategoricalAccuracy(2), (y, z)) == 1
    close(metrics.top_k_accuracy(z, y, k=2), 2 / CLASSES)
    top = np.asarray(jax.lax.top_k(jnp.asarray(z), 2)[1])
    np.testing.assert_array_equal(top, [[0, 1]] * CLASSES)


# scikit-learn -------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_scikit_learn(weighted, rng):
    z, y = rows_of(rng, ROWS)
    w = rng.uniform(0.5, 2, ROWS) if weighted else None
    theirs: Any = {"sample_weight": w}
    classes, predicted, p = range(CLASSES), z.argmax(-1), softmax(z)
    of = sklearn.metrics
    close(
        together(
            lambda: {
                "accuracy": metrics.accuracy(z, y, weights=w),
                "top k": metrics.top_k_accuracy(z, y, k=3, weights=w),
                "perplexity": jnp.log(metrics.perplexity(z, y, weights=w)),
                "confusion": metrics.confusion_matrix(z, y, weights=w),
            }
        ),
        {
            "accuracy": of.accuracy_score(y, predicted, **theirs),
            "top k": of.top_k_accuracy_score(y, z, k=3, labels=classes, **theirs),
            "perplexity": of.log_loss(y, p, labels=classes, **theirs),
            "confusion": of.confusion_matrix(y, predicted, labels=classes, **theirs),
        },
    )
    balance = jxent.class_weights_of_counts(np.bincount(y))
    close(
        metrics.accuracy(z, y, weights=np.asarray(balance)[y]),
        of.balanced_accuracy_score(y, predicted),
    )


def test_scikit_learn_brier_score(rng):
    """Of yes and no it is (p − y)²; of classes, which it takes from release 1.7 on, the
    sum of all squares, if there are three or more: of two it takes half of that."""
    z, y = yes_no(rng, ROWS)
    w = rng.uniform(0.5, 2, ROWS)
    brier_score_loss = sklearn.metrics.brier_score_loss
    theirs = brier_score_loss(y, sigmoid(z), sample_weight=w)
    close(metrics.brier_score(z, y, (), weights=w), theirs)
    two = np.stack([np.zeros(ROWS), z], -1)
    close(metrics.brier_score(two, y, weights=w), 2 * theirs)
    if "scale_by_half" in inspect.signature(brier_score_loss).parameters:
        close(brier_score_loss(y, softmax(two), sample_weight=w), theirs)
        z, y = rows_of(rng, ROWS)
        theirs = brier_score_loss(y, softmax(z), sample_weight=w, labels=range(CLASSES))
        close(metrics.brier_score(z, y, weights=w), theirs)


def test_scikit_learn_clips_its_log_loss():
    """At the log of its dtype's epsilon, 36 nats. Nothing is clipped here."""
    z, y = np.array([[100.0, 0.0], [0.0, 100.0]]), np.array([0, 0])
    theirs = sklearn.metrics.log_loss(y, softmax(z), labels=[0, 1])
    close(theirs, -np.log(np.finfo(float).eps) / 2, 1e-9)
    close(jnp.log(metrics.perplexity(z, y)), 50.0)


def test_scikit_learn_names_the_last_of_equals():
    """Its top k are the last of equal scores, its argmax, as NumPy's, the first."""
    z, y = np.zeros((CLASSES, CLASSES)), np.arange(CLASSES)
    top = sklearn.metrics.top_k_accuracy_score
    assert top(y, z, k=2, labels=y, normalize=False) == 2  # the labels 4 and 5
    last = np.arange(CLASSES) >= CLASSES - 2
    assert top(y, z, k=2, labels=y, sample_weight=last) == 1
    assert metrics.top_k_accuracy(z, y, k=2, weights=last) == 0
    assert metrics.top_k_accuracy(z, y, k=2, weights=~last) == 0.5


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_scikit_learn_calibration_curve(strategy, rng):
    """It leaves out empty bins; its quantiles lie between two rows, ours are rows, and
    the bins hold the same ones."""
    z, y = yes_no(rng, ROWS)
    if strategy == "uniform":
        z = np.where(np.abs(z) < 1, 3 * z, z)  # few near 1/2
        z = z[np.abs(sigmoid(z) - 0.55) > 0.05]
        y = y[: len(z)]
    shares, confidence = sklearn.calibration.calibration_curve(
        y, sigmoid(z), n_bins=10, strategy=strategy
    )
    bins = metrics.reliability_bins(z, y, (), bins=10, strategy=strategy)
    seen = np.asarray(bins.weight) > 0
    assert seen.sum() == (9 if strategy == "uniform" else 10)
    close(np.asarray(bins.accuracy)[seen], shares)
    close(np.asarray(bins.confidence)[seen], confidence)
    if strategy == "quantile":
        np.testing.assert_array_equal(bins.weight, [ROWS / 10] * 10)
        assert set(np.asarray(bins.edges[1:-1])) <= set(np.asarray(jax.nn.sigmoid(z)))


def test_scikit_learn_bins_hold_their_upper_edge():
    """As here."""
    z, y = np.array([-np.inf, -1.0, 0.0, 1.0, np.inf]), np.array([0, 0, 1, 1, 1])
    p = np.array([0.0, *sigmoid(z[1:4]), 1.0])
    shares, confidence = sklearn.calibration.calibration_curve(y, p, n_bins=2)
    bins = metrics.reliability_bins(z, y, (), bins=2)
    close(np.asarray(bins.accuracy), shares)
    close(np.asarray(bins.confidence), confidence)
    np.testing.assert_array_equal(bins.weight, [3, 2])
