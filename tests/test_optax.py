"""Calls written for Optax: the same values and gradients, or a stated difference."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.losses
import pytest

import jxent
from tests import comparing, oracles
from tests.pages import defaults


INF = np.inf
NAMES = sorted(n for n in jxent.__all__ if hasattr(optax.losses, n))
OF_IDS = "softmax_cross_entropy_with_integer_labels"


def of_optax(name):
    """Optax's function, called under JAX's default promotion, which it relies on."""
    function = getattr(optax.losses, name)

    @functools.wraps(function)
    def call(*args, **kwargs):
        with defaults():
            return function(*args, **kwargs)

    return call


RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3, 5)).astype(np.float32)
Q = np.exp(oracles.log_softmax(RNG.normal(size=(4, 3, 5)))).astype(np.float32)
IDS = RNG.integers(0, 5, (4, 3)).astype(np.int32)
ONE_HOT = np.eye(5, dtype=np.float32)[IDS]
LOG_P = oracles.log_softmax(X).astype(np.float32)
ROWS = RNG.random((4, 3)) > 0.4
SOME = RNG.random((4, 3, 5)) > 0.4
SOME[0, 0] = False
ALLOWED = SOME | (ONE_HOT > 0)  # never the label's own class


def ids(axes, shape):
    """Flat ids over `axes` of X, and a mask of its shape that spares them."""
    classes = int(np.prod([X.shape[a] for a in axes]))
    labels = RNG.integers(0, classes, shape).astype(np.int32)
    one_hot = np.eye(classes)[labels].reshape(*shape, *(X.shape[a] for a in axes))
    rest = [a for a in range(3) if a % 3 not in {a % 3 for a in axes}]
    order = np.argsort([a % 3 for a in (*rest, *axes)])
    return labels, SOME | (one_hot.transpose(*order) > 0)


BY_IDS, BY_IDS_MASK = ids((1, 2), (4,))
PERMUTED, PERMUTED_MASK = ids((-1, 0), (3,))
FIRST = RNG.integers(0, 4, (3, 5)).astype(np.int32)
EVERYTHING = np.int32(7)
ALPHAS = np.linspace(0, 1, 5, dtype=np.float32)
VECTORS, PAIRED = X.reshape(12, 5), np.arange(12, dtype=np.int32) // 3

# (name, what is special, arguments after the first); the first is X or LOG_P.
CALLS = [
    ("softmax_cross_entropy", "", (Q,), {}),
    ("softmax_cross_entropy", "axis", (Q, 1), {}),
    ("softmax_cross_entropy", "rows", (Q, -1, ROWS), {}),
    ("softmax_cross_entropy", "classes", (Q, -1, SOME), {}),
    ("softmax_cross_entropy", "axis, classes", (Q, 0, SOME), {}),
    ("softmax_cross_entropy", "kept axis", (Q,), {"where": ROWS[..., None]}),
    ("softmax_cross_entropy", "axes", (Q, (1, 2)), {}),
    ("softmax_cross_entropy", "axes permuted", (Q, (-1, 0)), {"where": SOME}),
    ("softmax_cross_entropy", "axes, rows", (Q, (0, 1)), {"where": SOME[0, 1]}),
    ("softmax_cross_entropy", "all axes", (Q, None), {"where": SOME}),
    ("softmax_cross_entropy", "int one-hot", (ONE_HOT.astype(np.int32),), {}),
    ("softmax_cross_entropy", "bool one-hot", (ONE_HOT > 0,), {"where": SOME}),
    ("softmax_cross_entropy", "mass", (3 * Q,), {}),
    (OF_IDS, "", (IDS,), {}),
    (OF_IDS, "axis", (FIRST, 0), {}),
    (OF_IDS, "rows", (IDS, -1, ROWS), {}),
    (OF_IDS, "classes", (IDS, 2, ALLOWED), {}),
    (OF_IDS, "axes", (BY_IDS, (1, 2)), {}),
    (OF_IDS, "axes, classes", (BY_IDS, (-2, -1), BY_IDS_MASK), {}),
    (OF_IDS, "axes permuted", (PERMUTED, (-1, 0), PERMUTED_MASK), {}),
    (OF_IDS, "all", (EVERYTHING, (0, 1, 2)), {}),
    (OF_IDS, "uint8", (IDS.astype(np.uint8),), {}),
    ("safe_softmax_cross_entropy", "", (Q,), {}),
    ("poly_loss_cross_entropy", "", (Q,), {}),
    ("poly_loss_cross_entropy", "axis", (Q,), {"axis": 1, "epsilon": -0.5}),
    ("poly_loss_cross_entropy", "rows", (Q,), {"where": ROWS[..., None]}),
    ("poly_loss_cross_entropy", "classes", (Q,), {"where": SOME}),
    ("poly_loss_cross_entropy", "axes", (Q,), {"axis": (0, -1), "where": SOME}),
    ("poly_loss_cross_entropy", "all axes", (Q,), {"axis": None}),
    ("sigmoid_binary_cross_entropy", "", (Q,), {}),
    ("sigmoid_binary_cross_entropy", "int", (ONE_HOT.astype(np.int32),), {}),
    ("sigmoid_binary_cross_entropy", "bool", (ONE_HOT > 0,), {}),
    ("sigmoid_binary_cross_entropy", "one label", (1.0,), {}),
    ("sigmoid_binary_cross_entropy", "one soft label", (np.float32(0.9),), {}),
    ("sigmoid_focal_loss", "", (Q,), {}),
    ("sigmoid_focal_loss", "one label", (0,), {"alpha": 0.3}),
    ("sigmoid_focal_loss", "bool", (ONE_HOT > 0,), {}),
    ("sigmoid_focal_loss", "alpha", (Q,), {"alpha": 0.3, "gamma": 1.5}),
    ("sigmoid_focal_loss", "gamma 0", (Q,), {"gamma": 0.0}),
    ("sigmoid_focal_loss", "gamma < 1", (Q,), {"gamma": np.float32(0.5)}),
    ("sigmoid_focal_loss", "alphas", (Q,), {"alpha": ALPHAS}),
    ("ntxent", "", (PAIRED,), {}),
    ("ntxent", "temperature", (PAIRED, np.float32(0.5)), {}),
    ("smooth_labels", "", (0.1,), {}),
    ("smooth_labels", "axis", (0.3,), {"axis": 0}),
    ("smooth_labels", "axes", (np.float32(0.3),), {"axis": (0, -1)}),
    ("smooth_labels", "all axes", (0.0,), {"axis": None}),
    ("kl_divergence", "", (Q,), {}),
    ("kl_divergence", "axis, where", (Q, 1, SOME), {}),
    ("kl_divergence", "axes", (Q, (-1, 0)), {"where": SOME}),
    ("kl_divergence", "all axes", (Q, None), {}),
    ("kl_divergence_with_log_targets", "", (np.log(Q),), {}),
    ("kl_divergence_with_log_targets", "axis, where", (np.log(Q), 0, SOME), {}),
    ("kl_divergence_with_log_targets", "all axes", (np.log(Q), None, SOME), {}),
    ("generalized_kl_divergence", "", (2 * Q,), {}),
    ("generalized_kl_divergence", "axis, where", (Q, -2, SOME), {}),
    ("generalized_kl_divergence", "axes", (Q, (0, 1)), {}),
]


same = functools.partial(comparing.same, rtol=1e-5, atol=2e-6)


def test_every_shared_name_is_called():
    """Each function that both libraries have stands in the table."""
    assert {*NAMES} == {name for name, *_ in CALLS}


@pytest.mark.every_value
@pytest.mark.parametrize("name", NAMES)
def test_the_same_parameters(name):
    """By the same names, at the same places, with the same defaults."""
    ours = inspect.signature(getattr(jxent, name)).parameters
    theirs = inspect.signature(getattr(optax.losses, name)).parameters
    for place, (parameter, wanted) in enumerate(theirs.items()):
        assert ours[parameter].default == wanted.default
        if wanted.kind is not inspect.Parameter.KEYWORD_ONLY:
            assert ours[parameter].kind is wanted.kind
            assert list(ours)[place] == parameter


def is_float(a):
    return isinstance(a, np.ndarray | np.generic) and a.dtype == np.float32


def both(name):
    return getattr(jxent, name), of_optax(name)


def of_both(name, *args, moved=(0,), **options):
    """(losses, gradients of a weighted sum), here and in Optax: one program.

    The gradients are those in the arguments at the places `moved`.
    """

    def of_one(function, arrays):
        def total(*moving):
            full = arrays | dict(zip(moved, moving, strict=True))
            losses = function(*(full[i] for i in range(len(args))), **options)
            weights = jnp.cos(jnp.arange(losses.size, dtype=losses.dtype))
            return jnp.sum(losses * weights.reshape(losses.shape)), losses

        both = jax.value_and_grad(total, tuple(range(len(moved))), has_aux=True)
        (_, losses), gradients = both(*(arrays[i] for i in moved))
        return losses, gradients

    fixed = {i: x for i, x in enumerate(args) if not hasattr(x, "shape")}
    arrays = {i: x for i, x in enumerate(args) if i not in fixed}
    run = jax.jit(lambda arrays: [of_one(f, fixed | arrays) for f in both(name)])
    return jax.device_get(run(arrays))


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [(name, args, options) for name, _, args, options in CALLS],
    ids=[f"{name}-{special}" for name, special, *_ in CALLS],
)
def test_the_same_call(name, args, options):
    """The same values and gradients, arguments by position where Optax has them so."""
    first = {"kl": LOG_P, "smooth_labels": Q, "ntxent": VECTORS}.get(
        "kl" if "kl_divergence" in name else name, X
    )
    args = (first, *args)
    moved = tuple(i for i in (0, 1) if is_float(args[i]))
    (losses, grads), (expected, expected_grads) = of_both(
        name, *args, moved=moved, **options
    )
    assert losses.shape == expected.shape
    assert losses.dtype == expected.dtype
    same(losses, expected)
    assert len(grads) == len(expected_grads) > 0
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        known = ~np.isnan(expected_grad)  # Optax has NaN for labels of masked classes
        assert not np.isnan(grad).any()
        assert known.any()
        same(np.where(known, grad, 0), np.where(known, expected_grad, 0))


def test_every_derivative_of_the_hessian():
    """Second order too, where both have it."""
    x, q = X[0, 0], Q[0, 0]
    for name in ("softmax_cross_entropy", "sigmoid_binary_cross_entropy"):
        ours, theirs = (
            jax.jit(jax.hessian(lambda x, f=f: jnp.sum(f(x, q))))(x)
            for f in (getattr(jxent, name), of_optax(name))
        )
        same(ours, theirs)


# Where the two differ -----------------------------------------------------------------


def test_half_precision():
    """Optax computes in bfloat16; here it is float32, in and out."""
    x = (8 * X).astype(jnp.bfloat16)
    ours, theirs = both(OF_IDS)
    run = jax.jit(lambda x, y: (ours(x, y), theirs(x, y), ours(x.astype("float32"), y)))
    narrow, of_optax, truth = jax.device_get(run(x, IDS))
    assert of_optax.dtype == jnp.bfloat16
    assert narrow.dtype == jnp.float32
    same(narrow, truth, rtol=1e-6)
    assert np.max(np.abs(of_optax.astype(np.float32) - truth)) > 0.01


def test_a_label_out_of_range():
    """Optax wraps −1 to the last class, and has a finite gradient where it has NaN."""
    labels = np.array([-1, -5, 5, 100, 4, 0])
    ids = np.stack([0 * labels, labels, 2 + 0 * labels], axis=-1)
    x = np.broadcast_to(X[0], (6, 3, 5))
    results = of_both(OF_IDS, x, ids)
    (losses, (grad,)), (theirs, (of_theirs,)) = results
    assert np.isnan(losses[:4]).tolist() == [[False, True, False]] * 4
    assert np.isnan(grad[:4, 1]).all()
    assert np.isfinite(of_theirs).all()
    same(theirs[:2], theirs[4:])  # of −1 and −5, of 4 and 0


def test_the_label_on_a_masked_class():
    """Optax's loss turns negative; here it is NaN."""
    x, where = np.array([[0, 0, 3]], np.float32), np.array([[True, True, False]])
    name = OF_IDS
    (ours, _), (theirs, _) = of_both(name, x, np.array([2]), where=where)
    assert theirs < 0
    assert np.isnan(ours)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "poly_loss_cross_entropy"])
def test_a_logit_of_minus_inf(name):
    """0 · (−inf) is NaN in Optax's plain losses; here it is 0."""
    x, q = np.array([[-INF, 0, 0], [0, 1, 0]], np.float32)[:, None]
    (ours, gradients), (theirs, _) = of_both(name, x, q)
    assert np.isnan(theirs).all()
    assert np.isfinite([*ours, *gradients[0].flat]).all()


def test_the_safe_loss_in_forward_mode():
    """Optax's Jacobian at −inf is NaN; here it is that of reverse mode."""
    x, q = np.array([[-INF, 0, 0], [0, 1, 0]], np.float32)
    losses = both("safe_softmax_cross_entropy")
    each = jax.jit(lambda x: [(f(x, q), jax.jacfwd(f)(x, q)) for f in losses])
    (value, jacobian), (theirs, of_theirs) = jax.device_get(each(x))
    same(value, theirs)
    assert np.isnan(of_theirs).any()
    same(jacobian, [0.0, -0.5, 0.5])


def test_the_focal_loss_at_a_hard_label():
    """Its slope in a label of 0 or 1 is off in Optax; here it is the formula's."""

    def textbook(z, y):
        p = jax.nn.sigmoid(z)
        miss = 1 - (y * p + (1 - y) * (1 - p))
        return -jnp.square(miss) * (y * jnp.log(p) + (1 - y) * jnp.log(1 - p))

    losses = *both("sigmoid_focal_loss"), textbook
    slopes = jax.jit(lambda *x: [jax.grad(f, 1)(*x) for f in losses])
    for y in (0.0, 1.0):
        ours, theirs, expected = jax.device_get(slopes(np.float32(0.7), np.float32(y)))
        same(ours, expected)
        assert abs(theirs - expected) > 0.1


@pytest.mark.parametrize(
    ("name", "x", "labels", "shape"),
    [
        ("sigmoid_binary_cross_entropy", (4, 1), (4,), (4, 4)),
        ("sigmoid_focal_loss", (4,), (4, 1), (4, 4)),
        ("softmax_cross_entropy", (4, 3), (3,), (4,)),
        ("poly_loss_cross_entropy", (4, 3), (1, 3), (4,)),
        ("kl_divergence", (4, 3), (3,), (4,)),
    ],
)
def test_labels_of_another_shape(name, x, labels, shape):
    """Optax broadcasts them, here only a scalar in a binary loss; else an error."""
    ours, theirs = both(name)
    given = np.zeros(x, np.float32), np.ones(labels, np.float32)
    assert jax.eval_shape(theirs, *given).shape == shape
    with pytest.raises(ValueError, match="expected"):
        ours(*given)


def test_one_class():
    """Optax returns 0; here it is an error."""
    ours, theirs = both("softmax_cross_entropy")
    given = np.ones((2, 4, 1), np.float32)
    assert not np.any(jax.jit(theirs)(*given))
    with pytest.raises(ValueError, match="at least two classes"):
        ours(*given)


def test_an_infinite_logit_of_a_sigmoid():
    """NaN in Optax; here the mathematical value."""
    x, labels = np.array([[INF, -INF], [1, 0]], np.float32)
    (ours, _), (theirs, _) = of_both("sigmoid_binary_cross_entropy", x, labels)
    assert np.isnan(theirs).all()
    same(ours, [0.0, 0.0])


def test_smoothing_with_masked_classes():
    """Optax leaves them a share of the mass; here they get none."""
    labels, where = np.array([[1, 0, 0]], np.float32), np.array([[True, True, False]])
    (ours, _), (theirs, _) = of_both("smooth_labels", labels, 0.2, where=where)
    same(theirs, [[0.9, 0.1, 0.1]])
    same(ours, [[0.9, 0.1, 0.0]])


@pytest.mark.parametrize("name", ["kl_divergence", "generalized_kl_divergence"])
def test_a_target_of_0(name):
    """Optax's gradient in the target is NaN, and so is its value at log q = −inf."""
    t = np.array([[1, 0], [1, 0]], np.float32)
    log_q = np.array([np.log([0.5, 0.5]), [0, -INF]], np.float32)
    (ours, gradients), (theirs, of_theirs) = of_both(name, log_q, t, moved=(1,))
    same(ours, [theirs[0], 0.0])
    assert np.isnan(theirs[1])
    assert np.isnan(of_theirs[0][0]).any()
    assert np.isfinite(gradients[0][0]).all()


def test_log_targets_of_minus_inf():
    """NaN in Optax; here they count nothing."""
    log_q = np.array([0, -INF], np.float32)
    (ours, _), (theirs, _) = of_both("kl_divergence_with_log_targets", log_q, log_q)
    assert np.isnan(theirs).all()
    same(ours, 0.0)


def test_where_of_the_rows_rank_in_a_divergence():
    """Optax broadcasts it against the classes; here it means rows, as in every loss."""
    log_q, t = LOG_P[:3, 0, :3], Q[:3, 0, :3]
    where = np.array([True, False, False])
    classes = np.broadcast_to(where, (3, 3))
    ours, theirs = both("kl_divergence")

    @jax.jit
    def run(log_q, t):
        of_rows, of_classes = (ours(log_q, t, where=w) for w in (where, classes))
        return of_rows, theirs(log_q, t), theirs(log_q, t, where=where), of_classes

    of_rows, full, of_optax, of_classes = jax.device_get(run(log_q, t))
    same(of_rows, np.where(where, full, 0.0))
    same(of_optax, of_classes)


def test_probabilities_in_half_precision():
    """Divergences too are summed in float32 here, in the inputs' dtype in Optax."""
    given = LOG_P.astype(jnp.bfloat16), Q.astype(jnp.bfloat16)
    ours, theirs = (jax.eval_shape(f, *given) for f in both("kl_divergence"))
    assert theirs.dtype == jnp.bfloat16
    assert ours.dtype == jnp.float32
