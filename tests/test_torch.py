"""jxent.torch: PyTorch's calls, PyTorch's numbers, or a stated difference."""

import functools
import inspect
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
import jxent.torch as ours
from tests import facades
from tests.comparing import same, untyped
from tests.facades import Call, installed, same_answers, value_and_grad


INF, NAN = jnp.inf, jnp.nan
FUNCTIONS = [n for n in ours.__all__ if inspect.isfunction(getattr(ours, n))]


@pytest.fixture(scope="module")
def torch():
    return installed("torch")


# The same numbers: the calls of the table are in tests/test_faces_parity.py -----------


def test_a_student_and_its_teacher(torch, x64, rng):
    """What jxent has beside PyTorch's own calls, as it is written with these."""
    logits, teacher = rng.normal(size=(2, 6, 9))
    z, t = map(torch.tensor, (logits, teacher))
    log_p, log_q = (x.log_softmax(-1) for x in (z, t))

    def kl(log_p, log_q):
        options = {"reduction": "none", "log_target": True}
        return torch.nn.functional.kl_div(log_p, log_q, **options).sum(-1)

    def close(got, wanted):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-12, atol=1e-14)

    close(jxent.softmax_kl_divergence(logits, teacher), kl(log_p, log_q))
    log_m = (0.3 * log_q.exp() + 0.7 * log_p.exp()).log()
    mixed = 0.3 * kl(log_m, log_q) + 0.7 * kl(log_m, log_p)
    close(jxent.softmax_jensen_shannon_divergence(logits, teacher, beta=0.3), mixed)
    found, at = torch.topk(log_q, 3)
    log_probs, ids = jxent.softmax_top_k(teacher, 3)
    close(log_probs, found)
    np.testing.assert_array_equal(ids, at.numpy())
    close(jxent.softmax_log_prob_at(logits, ids), log_p.gather(1, at))
    labels = jxent.SparseLabels(ids, jax.nn.softmax(log_probs))
    dense = torch.zeros_like(z).scatter_add(1, at, found.softmax(-1))
    wanted = torch.nn.functional.cross_entropy(z, dense, reduction="none")
    close(jxent.softmax_cross_entropy(logits, labels), wanted)


NARROW = (
    Call("cross_entropy", (facades.wave(4, 3), facades.indices(3, 4))),
    Call("nll_loss", (facades.wave(4, 3), facades.indices(3, 4))),
    Call("binary_cross_entropy", (facades.shares(4), facades.shares(4, seed=1.0))),
    Call("soft_margin_loss", (facades.wave(4), facades.wave(4, seed=1.0))),
    Call("kl_div", (facades.wave(4), facades.shares(4))),
)


@pytest.mark.every_value
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_narrow_dtypes(torch, dtype):
    """PyTorch's number without its rounding; each gradient in its input's dtype."""

    def rounded(x):
        return (
            np.asarray(jnp.asarray(x, dtype), np.float64) if x.dtype.kind == "f" else x
        )

    exact = [c._replace(arrays=tuple(map(rounded, c.arrays))) for c in NARROW]
    answers = facades.of_jax(ours, NARROW, dtype)
    for answer, truth in zip(answers, facades.of_torch(tuple(exact)), strict=True):
        assert answer.value.dtype == jnp.float32
        same(answer.value, truth.value, rtol=1e-5)
        for grad, true_grad in zip(answer.grads, truth.grads, strict=True):
            assert grad.dtype == dtype
            loose = (
                {"rtol": 1e-5} if dtype == "float32" else {"rtol": 1e-2, "atol": 1e-3}
            )
            same(grad.astype(jnp.float32), true_grad, **loose)


@pytest.mark.every_value
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_sample_inputs_of_torch(torch, x64, name):
    """PyTorch's own inputs for its own tests of the function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opinfo = pytest.importorskip(
            "torch.testing._internal.common_methods_invocations",
            reason="needs expecttest, as torch.testing._internal does",
            exc_type=ImportError,
        )
    (op,) = (
        op
        for op in opinfo.op_db
        if op.name == f"nn.functional.{name}" and not op.variant_test_name
    )

    def array(x: Any) -> Any:
        return x.detach().numpy() if isinstance(x, torch.Tensor) else x

    torch.manual_seed(0)
    calls = tuple(
        Call(
            name,
            tuple(array(x) for x in (sample.input, *sample.args)),
            {k: array(v) for k, v in sample.kwargs.items()},
        )
        for sample in op.sample_inputs("cpu", torch.float64)
    )
    assert len(calls) > 3
    calls = calls[:: len(calls) // 30 + 1]  # what is left out differs in values alone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = facades.of_torch(calls)
    same_answers(calls, facades.of_jax(ours, calls), expected)


# Differences --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_a_dropped_row(name):
    """Whatever it holds, its gradient is 0, and the mean is that of the others."""
    x = np.array([[1.0, 0.5, -1.0], [NAN, INF, -INF]], np.float32)
    function = getattr(ours, name)
    value, grad = value_and_grad(function, x, jnp.array([2, -100]))
    same(value, function(x[:1], jnp.array([2])))
    np.testing.assert_array_equal(grad[1], 0)


def test_infinite_logits_that_count_nothing():
    """0 · ∞ is 0: no probability there, or no weight."""
    x = np.array([[1.0, 0.0, -INF]], np.float32)
    q = jnp.array([[0.25, 0.75, 0.0]])
    value, grad = value_and_grad(ours.cross_entropy, x, q)
    two, two_grad = value_and_grad(ours.cross_entropy, x[:, :2], q[:, :2])
    same(value, two)
    same(grad, [[*two_grad[0], 0.0]])
    weight = jnp.array([1.0, 2.0, 0.0])
    smoothed = ours.cross_entropy(x, jnp.array([1]), weight, label_smoothing=0.1)
    assert jnp.isfinite(smoothed)


def test_certain_probabilities():
    """PyTorch's floor of −100, with slopes that still say which way to go."""
    p, y = np.array([0.0, 1.0, 0.0, 1.0], np.float32), jnp.array([1.0, 0.0, 0.0, 1.0])
    function = ours.binary_cross_entropy
    value, grad = value_and_grad(function, p, y, reduction="none")
    same(value, [100.0, 100.0, 0.0, 0.0])
    assert np.isfinite(grad).all()
    assert grad[0] < -1e12
    assert grad[1] > 1e12
    same(grad[2:], [1.0, -1.0])

    def through_sigmoid(z):
        return function(jax.nn.sigmoid(z), jnp.ones_like(z), reduction="none")

    value, grad = value_and_grad(through_sigmoid, np.array([-50.0, -80.0], np.float32))
    same(value, [50.0, 80.0])
    same(grad, [-1.0, -1.0], rtol=1e-5)


def test_what_is_no_probability():
    """NaN where PyTorch raises: values cannot be errors at trace time."""
    p = jnp.array([-0.1, 1.1, NAN])
    for label in (0.0, 1.0):
        y = jnp.full_like(p, label)
        assert jnp.isnan(ours.binary_cross_entropy(p, y, reduction="none")).all()


@pytest.mark.parametrize("log_target", [False, True])
def test_a_target_without_mass(log_target):
    """0 in value and gradient."""
    log_q, t = np.array([0.0, -INF], np.float32), jnp.array([1.0, 0.0])
    target = jnp.log(t) if log_target else t
    value, grad = value_and_grad(
        ours.kl_div, log_q, target, reduction="none", log_target=log_target
    )
    same(value, [0.0, 0.0])
    same(grad, [-1.0, 0.0])


def test_a_large_margin():
    """No overflow."""
    value, grad = value_and_grad(
        ours.soft_margin_loss, np.array([-200.0], np.float32), jnp.array([1])
    )
    same([value, grad[0]], [200.0, -1.0])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int64"])
def test_integer_dtypes(dtype):
    """Any holds indices, also one that cannot hold the default ignore_index."""
    x, y = facades.wave(4, 3), facades.indices(3, 4)
    with jax.enable_x64(True):
        expected = ours.cross_entropy(x, y)
        same(ours.cross_entropy(x, jnp.asarray(y, dtype)), expected)
        same(ours.cross_entropy(x, jnp.asarray(y, dtype), ignore_index=77), expected)


@pytest.mark.every_value
@pytest.mark.parametrize(
    ("older", "reduction"),
    [
        ({"size_average": True}, "mean"),
        ({"size_average": False}, "sum"),
        ({"reduce": True}, "mean"),
        ({"reduce": False}, "none"),
        ({"size_average": False, "reduce": True}, "sum"),
    ],
)
def test_the_older_arguments(older, reduction):
    """They count as in PyTorch, with a warning that says what to write."""
    text = (
        "BCELoss: size_average and reduce are deprecated in PyTorch. "
        f"Write reduction={reduction!r}."
    )
    with pytest.warns(DeprecationWarning, match=re.escape(text)):
        loss = ours.BCELoss(**older)
    assert loss == ours.BCELoss(reduction=reduction)


def test_the_differences_are_real(torch):
    """What the tests above expect is not what PyTorch gives."""
    F = torch.nn.functional

    def grad(function, x, *args, **options):
        x = torch.tensor(x, requires_grad=True)
        function(x, *args, **options).sum().backward()
        return x.grad

    nan_row = [[1.0, 0.5, -1.0], [NAN, INF, -INF]]
    assert grad(F.cross_entropy, nan_row, torch.tensor([2, -100]))[1].isnan().all()
    x, q = torch.tensor([[1.0, 0.0, -INF]]), torch.tensor([[0.25, 0.75, 0.0]])
    assert F.cross_entropy(x, q).isnan()
    sigmoid = lambda z: F.binary_cross_entropy(z.sigmoid(), torch.ones(1))
    assert abs(grad(sigmoid, [-50.0])) < 1e-9
    x, y = torch.tensor([INF, -INF]), torch.tensor([1.0, 0.0])
    assert F.binary_cross_entropy_with_logits(x, y, reduction="none").isnan().all()
    log_q = torch.tensor([0.0, -INF])
    assert F.kl_div(log_q, log_q, reduction="sum", log_target=True).isnan()
    assert F.soft_margin_loss(torch.tensor([-200.0]), torch.ones(1)).isinf()
    assert F.cross_entropy(torch.zeros(2, 1), torch.tensor([0, 0])) == 0
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert F.cross_entropy(x, y, label_smoothing=-0.1) == F.cross_entropy(x, y)


# The classes --------------------------------------------------------------------------

X, Y = np.array([[2, 0, 0], [0, 0, 3]], np.float32), np.array([0, 2])


def test_array_weights_are_leaves():
    """Then the loss is an ordinary argument, traced with its weights."""
    weight = jnp.array([1.0, 2.0, 3.0])
    loss = ours.CrossEntropyLoss(weight)
    assert [x is weight for x in jax.tree.leaves(loss)] == [True]
    assert loss == ours.CrossEntropyLoss(weight)
    assert loss != ours.CrossEntropyLoss(weight + 1)
    assert loss != ours.CrossEntropyLoss()
    grad = jax.jit(jax.grad(lambda loss: loss(X, Y)))(loss)
    assert type(grad) is ours.CrossEntropyLoss
    assert jnp.shape(untyped(grad.weight)) == (3,)
    with pytest.raises(TypeError) as error:
        hash(loss)
    assert str(error.value) == (
        "CrossEntropyLoss: expected a hashable loss, got an array as weight. Pass the "
        "loss as an argument of jit that is not static, or give a tuple of numbers."
    )


def test_weights_as_numbers():
    """A tuple or list keeps the loss hashable and without leaves."""
    loss = ours.CrossEntropyLoss([1.0, 2.0, 3.0])
    assert hash(loss) == hash(ours.CrossEntropyLoss((1.0, 2.0, 3.0)))
    assert jax.tree.leaves(loss) == []
    same(loss(X, Y), ours.CrossEntropyLoss(jnp.array([1.0, 2.0, 3.0]))(X, Y))


def test_the_loss_with_a_layer():
    """Its parameters are its leaves, and lie where PyTorch's begin."""
    key = jax.random.key(0)
    make = lambda **kw: ours.LinearCrossEntropyLoss(4, 3, key=key, **kw)
    loss = make(bias=True, out_features=(2,), dtype=jnp.bfloat16)
    assert [x.shape for x in jax.tree.leaves(loss)] == [(3, 2, 4), (3, 2)]
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(loss))
    assert all((abs(x) <= 0.5).all() for x in jax.tree.leaves(loss))
    loss = make(label_smoothing=0.1)
    x, y = facades.wave(5, 4).astype(np.float32), facades.indices(3, 5)
    value, grads = jax.jit(jax.value_and_grad(lambda loss: loss(x, y)))(loss)
    logits = x @ loss.linear_weight.T
    same(value, ours.cross_entropy(logits, y, label_smoothing=0.1))
    trained = jax.tree.map(lambda p, g: p - g, loss, grads)
    assert trained(x, y) < value


# Options ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cross_entropy", "linear_cross_entropy"])
def test_no_smoothing(name):
    """None is 0, and NumPy's integers are integers."""
    x, y = facades.wave(4, 3), jnp.array([0, 2, -1, 1])
    arrays = (x, y) if name == "cross_entropy" else (x, np.eye(3), y)
    loss = functools.partial(getattr(ours, name), *arrays, ignore_index=-1)
    assert loss(label_smoothing=None) == loss(label_smoothing=0.0)
    assert loss(ignore_index=np.int64(-1)) == loss()


def test_a_loss_with_an_integer_of_numpy():
    """It is an option like any other, not a leaf."""
    loss = ours.CrossEntropyLoss(ignore_index=np.int64(-1), label_smoothing=None)
    assert loss == ours.CrossEntropyLoss(ignore_index=-1, label_smoothing=None)
    assert not jax.tree.leaves(loss)
