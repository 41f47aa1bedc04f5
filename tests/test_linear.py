"""The fused head: in every layout what the loss in memory gives, in less memory."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import jaxtyping
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify

import jxent
from tests import oracles
from tests.compiling import as_users_jit


class Layout(NamedTuple):
    """How the head is taken: kernels are (D, V), or (V, D) with vocab_axis 0."""

    implementation: str
    vocab_axis: int = -1
    block_sizes: tuple[int | None, int | None] = (3, 4)

    @property
    def options(self) -> dict[str, Any]:
        return self._asdict()

    def kernel(self, kernel):
        return kernel if self.vocab_axis else kernel.T


MATERIALIZED = Layout("materialized")
STREAMED, STREAMED_TABLE = Layout("streamed"), Layout("streamed", 0)
TILED, TILED_TABLE = Layout("tiled"), Layout("tiled", 0)


def name_of(x):
    if isinstance(x, Layout):
        return x.implementation + ("" if x.vocab_axis else "-table")
    return None


def over(*layouts):
    return pytest.mark.parametrize("layout", layouts, ids=name_of)


quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def close(got, wanted, tolerance=1e-11):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def problem(rng, rows=(6,), features=3, classes=8):
    """float64 arrays; the last class is in no label, and one row is ignored."""
    ids = rng.integers(0, max(classes - 1, 1), rows)
    ids.flat[1:2] = -100
    where = rng.random(rows) < 0.8
    class_where = rng.random((*rows, classes)) < 0.8
    np.put_along_axis(class_where, np.maximum(ids, 0)[..., None], True, -1)
    return {
        "hidden": rng.normal(size=(*rows, features)),
        "kernel": rng.normal(size=(features, classes)),
        "bias": rng.normal(size=classes),
        "ids": ids,
        "distributions": rng.uniform(size=(*rows, classes)),
        "where": where,
        "class_where": class_where,
        "weights": rng.uniform(0.5, 2, rows),
        "class_weights": rng.uniform(0.5, 2, classes),
        "class_mask": np.arange(classes) < classes - 1,
        "temperature": rng.uniform(0.5, 2, rows),
        "label_smoothing": np.float64(0.1),
        "z_loss": np.float64(0.01),
        "logit_soft_cap": np.float64(5),
    }


# A call is a dictionary of arguments: labels under the name of their kind, the kernel
# as (D, V), whatever the layout.


def taken_apart(arguments):
    rest = dict(arguments)
    hidden, kernel = rest.pop("hidden"), rest.pop("kernel")
    labels = [rest.pop(k) for k in ("ids", "distributions") if k in rest]
    if "class_where" in rest:
        rest["where"] = rest.pop("class_where")
    return hidden, kernel, labels, rest


def fused(layout, arguments, function=jxent.linear_softmax_cross_entropy, **options):
    hidden, kernel, labels, rest = taken_apart(arguments)
    rest |= layout.options | options
    return function(hidden, layout.kernel(kernel), *labels, **rest)


def in_memory(arguments, function=jxent.softmax_cross_entropy, **options):
    hidden, kernel, labels, rest = taken_apart(arguments)
    bias = rest.pop("bias", None)
    logits = jnp.asarray(hidden) @ jnp.asarray(kernel)
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, logits.shape)
    return function(logits, *labels, **rest, **options)


def weighed(results):
    """One number in which every floating result counts, and not linearly."""
    total = 0.0
    for x in jax.tree.leaves(results):
        if jnp.issubdtype(x.dtype, jnp.floating):
            factors = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
            total = total + jnp.sum(factors * jnp.sin(x))
    return total


def of_floats(f, arguments):
    """f as a function of its floating arguments, and these."""
    moving = {k: jnp.asarray(x) for k, x in arguments.items() if x.dtype.kind == "f"}
    return lambda values: f(arguments | values), moving


def gradient_of(f):
    return jax.grad(lambda x: weighed(f(x)))


def value_and_gradient(f, x):
    return f(x), gradient_of(f)(x)


def every_order(f, x, direction):
    """Value and gradient, and the tangents of both: jvp, hessian-vector product."""

    def total(x):
        results = f(x)
        return weighed(results), results

    both = jax.value_and_grad(total, has_aux=True)
    return jax.jvp(both, (x,), (direction,))


def pick(arrays, names):
    return {k: arrays[k] for k in names.split()}


# Values and gradients -----------------------------------------------------------------

EVERYTHING = (
    "hidden kernel bias class_mask class_weights weights temperature label_smoothing "
    "z_loss logit_soft_cap where "
)


@pytest.mark.parametrize("kind", ["ids", "distributions"])
@over(MATERIALIZED, STREAMED, TILED)
def test_every_option_in_every_order(layout, kind, x64, rng):
    """Forward, reverse and second order, in every floating argument at once."""
    arguments = pick(problem(rng), EVERYTHING + kind)
    options: dict[str, Any] = {"ignore_index": -100} if kind == "ids" else {}
    options["reduction"] = "none" if layout is STREAMED else "mean"
    if kind == "distributions":
        layout = layout._replace(vocab_axis=0)
    f, x = of_floats(functools.partial(fused, layout, **options), arguments)
    g, _ = of_floats(functools.partial(in_memory, **options), arguments)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), x)
    got = quick_jit(functools.partial(every_order, f))(x, direction)
    close(got, quick_jit(functools.partial(every_order, g))(x, direction))


OPTIONS = {
    "bare": ("ids", {}),
    "ignored": ("ids", {"ignore_index": -100, "reduction": "mean"}),
    "rows": ("bias ids where weights temperature", {"reduction": "sum"}),
    "soft rows": ("distributions where weights", {"reduction": "mean"}),
    "classes": (
        "bias ids class_where class_weights label_smoothing",
        {"ignore_index": -100, "reduction": "mean"},
    ),
    "soft classes": (
        "distributions class_where class_weights label_smoothing",
        {"reduction": "sum"},
    ),
    "numbers": (
        "bias ids z_loss logit_soft_cap",
        {"reduction": "mean", "normalizer": 7.0, "temperature": 1.5},
    ),
}


@functools.cache
def wanted_of(name):
    """Arguments and options of a call, and its value and gradient in memory."""
    names, options = OPTIONS[name]
    arrays = problem(np.random.default_rng(len(name)))
    if "ignore_index" not in options:
        arrays["ids"] = np.maximum(arrays["ids"], 0)
        np.put_along_axis(arrays["class_where"], arrays["ids"][:, None], True, -1)
    arguments = pick(arrays, "hidden kernel " + names)
    f, x = of_floats(functools.partial(in_memory, **options), arguments)
    return arguments, options, quick_jit(value_and_gradient, static_argnums=0)(f, x)


# Orientations of the kernel take turns: programs are slow to compile.
TURNS = [(MATERIALIZED, name) for name in ("rows", "soft classes", "numbers")]
for turn, name in enumerate(OPTIONS):
    pairs = ((STREAMED, TILED_TABLE), (STREAMED_TABLE, TILED))
    TURNS += [(layout, name) for layout in pairs[turn % 2]]


@pytest.mark.parametrize(("layout", "name"), TURNS, ids=name_of)
def test_options(layout, name, x64):
    """Few options at a time, every orientation of the kernel."""
    arguments, options, wanted = wanted_of(name)
    if layout.implementation == "tiled" and "reduction" not in options:
        options = options | {"reduction": "sum"}
        g, x = of_floats(functools.partial(in_memory, **options), arguments)
        wanted = value_and_gradient(g, x)
    f, x = of_floats(functools.partial(fused, layout, **options), arguments)
    close(quick_jit(value_and_gradient, static_argnums=0)(f, x), wanted)


SHAPES = {
    "ragged": ((7,), 3, 9, (3, 4)),
    "blocks of 1": ((3,), 2, 3, (1, 1)),
    "few rows": ((2,), 3, 8, (3, 4)),
    "no rows": ((0,), 3, 5, (3, 4)),
    "one row": ((), 3, 5, (3, 4)),
    "rank 3": ((2, 2), 3, 8, (2, 4)),
    "few classes": ((4,), 3, 2, (2, 4)),
    "many features": ((4,), 37, 6, (2, 3)),
    "no rows of several": ((2, 0), 3, 5, (3, 4)),
    "default blocks": ((5,), 3, 7, (None, None)),
}
# The first in both layouts, the rest in turns.
IN_TURNS = [(layout, shape) for layout in (STREAMED, TILED_TABLE) for shape in SHAPES]
IN_TURNS = [x for n, x in enumerate(IN_TURNS) if n % 10 < 4 or n % 2 == n // 10]


@pytest.mark.parametrize(("layout", "shape"), IN_TURNS, ids=name_of)
def test_shapes(layout, shape, x64, rng):
    """Blocks that do not divide, or are larger than what they are blocks of."""
    rows, features, classes, blocks = SHAPES[shape]
    arrays = problem(rng, rows, features, classes)
    arguments = pick(arrays, "hidden kernel bias ids")
    options: dict[str, Any] = {"ignore_index": -100} if rows == (7,) else {}
    if not options:
        arguments["ids"] = np.maximum(arguments["ids"], 0)
    if layout.implementation == "tiled":
        options["reduction"] = "mean"
    layout = layout._replace(block_sizes=blocks)
    f, x = of_floats(functools.partial(fused, layout, **options), arguments)
    g, _ = of_floats(functools.partial(in_memory, **options), arguments)
    got = quick_jit(functools.partial(value_and_gradient, f))(x)
    close(got, value_and_gradient(g, x))
    if layout.implementation == "streamed":
        assert got[0].shape == rows


@over(STREAMED)
def test_statistics(layout, x64, rng):
    """Each field of each row, with the ties of an argmax and a dropped row."""
    arrays = problem(rng)
    arrays["hidden"][2] = 0
    arrays["bias"][[1, 6]] = arrays["bias"].max()
    layout = layout._replace(block_sizes=(None, 4))
    base = "hidden kernel bias class_mask temperature "
    ids = {"ignore_index": -100}
    every = {"entropy": True, "argmax": True}
    calls = {
        "statistics": (base + "ids class_weights", every | ids),
        "soft statistics": (base + "distributions", every),
        "bare statistics": (base, {}),
        "log_prob": (base + "ids", ids),
        "entropy": (base, {}),
        "cross_entropy": (base + "ids", {"return_statistics": True} | ids),
    }

    def results(run, prefix):
        for name, (names, options) in calls.items():
            function = getattr(jxent, prefix + name.split()[-1])
            f = functools.partial(run, function=function, **options)
            yield name, *of_floats(f, pick(arrays, names))

    got = results(functools.partial(fused, layout), "linear_softmax_")
    for (name, f, x), (_, g, _) in zip(
        got, results(in_memory, "softmax_"), strict=True
    ):
        a, b = quick_jit(f)(x), g(x)
        close(a, b)
        if name == "statistics":
            slopes = (gradient_of(run) for run in (f, g))
            a, b = (quick_jit(slope)(x) for slope in slopes)
            close(a, b)


@over(STREAMED)
def test_formulas_of_log_probabilities(layout, x64, rng):
    """Focal and poly-1 loss from the fused head's log-probability."""
    arguments = pick(problem(rng), "hidden kernel bias ids")
    arguments["ids"][1] = 0
    log_prob = functools.partial(fused, layout, function=jxent.linear_softmax_log_prob)

    def formulas(x):
        log_p = log_prob(x)
        focal = -((-jnp.expm1(log_p)) ** 2) * log_p
        return focal, -log_p - 2 * jnp.expm1(log_p)

    def in_memory_formulas(x):
        losses = jxent.softmax_focal_loss, jxent.poly_loss_cross_entropy
        return tuple(in_memory(x, function) for function in losses)

    f, x = of_floats(formulas, arguments)
    g, _ = of_floats(in_memory_formulas, arguments)
    got = quick_jit(functools.partial(value_and_gradient, f))(x)
    close(got, value_and_gradient(g, x))


@over(STREAMED_TABLE, TILED)
def test_accepts_what_looks_like_an_array(layout, rng):
    """nnx.Param, numpy arrays and lists give what jax arrays give, to the bit."""
    arguments = pick(problem(rng), "hidden kernel bias ids class_weights weights")
    arguments = {
        k: x.astype(np.float32) if x.dtype.kind == "f" else x
        for k, x in arguments.items()
    }
    arguments["ids"][1] = 0
    hidden, kernel, (ids,), rest = taken_apart(arguments)

    def call(of):
        options = {k: of(x) for k, x in rest.items()}
        return jxent.linear_softmax_cross_entropy(
            of(hidden),
            of(layout.kernel(kernel)),
            of(ids),
            **options,
            reduction="sum",
            **layout.options,
        )

    wanted = call(jnp.asarray)
    for of in (lambda x: x, np.ndarray.tolist, lambda x: nnx.Param(jnp.asarray(x))):
        assert call(of).tobytes() == wanted.tobytes()


# Transformations ----------------------------------------------------------------------


@over(STREAMED, TILED)
def test_forward_mode(layout, x64, rng):
    """A tangent without any reverse mode around it."""
    arguments = pick(problem(rng), "hidden kernel bias ids class_weights z_loss")
    options: dict[str, Any] = {"ignore_index": -100}
    options["reduction"] = "none" if layout is STREAMED else "mean"

    def forward(run):
        f, x = of_floats(functools.partial(run, **options), arguments)
        return jax.jvp(f, (x,), (jax.tree.map(jnp.cos, x),))

    got = quick_jit(functools.partial(forward, functools.partial(fused, layout)))()
    close(got, forward(in_memory))


@over(STREAMED, TILED)
def test_vmap_of_gradients(layout, x64, rng):
    """Of several heads on the same rows, and of one head on several batches."""
    arrays = problem(rng)
    arguments = pick(arrays, "hidden kernel bias ids")
    options = {"ignore_index": -100, "reduction": "mean"}

    def gradients(run):
        f, x = of_floats(functools.partial(run, **options), arguments)
        axes = {"hidden": None, "kernel": 0, "bias": 0}
        stacked = {
            k: x[k] if a is None else jnp.stack([x[k], 2 * x[k]])
            for k, a in axes.items()
        }
        batches = x | {"hidden": jnp.stack([x["hidden"], -x["hidden"]])}
        each = functools.partial(value_and_gradient, f)
        one = {"hidden": 0, "kernel": None, "bias": None}
        return jax.vmap(each, (axes,))(stacked), jax.vmap(each, (one,))(batches)

    got = quick_jit(functools.partial(gradients, functools.partial(fused, layout)))()
    close(got, quick_jit(functools.partial(gradients, in_memory))())


@over(STREAMED, TILED)
def test_gradient_of_a_gradient(layout, x64, rng):
    """Reverse over reverse, in the arguments of a whole head."""
    arguments = pick(problem(rng), "hidden kernel bias ids weights z_loss")
    options = {"ignore_index": -100, "reduction": "mean"}

    def twice(run):
        f, x = of_floats(functools.partial(run, **options), arguments)
        return gradient_of(gradient_of(f))(x)

    got = quick_jit(functools.partial(twice, functools.partial(fused, layout)))()
    close(got, quick_jit(functools.partial(twice, in_memory))())


@over(STREAMED_TABLE, TILED)
def test_scan_equals_the_unrolled_loop(layout, x64, rng):
    """Two batches in a scan, checkpointed: value, gradient, hessian-vector product."""
    arrays = problem(rng, (2, 6))
    kernel = jnp.asarray(arrays["kernel"])
    batches = jnp.asarray(arrays["hidden"]), jnp.asarray(np.maximum(arrays["ids"], 0))

    def step(run, kernel, total, batch):
        arguments = {"hidden": batch[0], "kernel": kernel, "ids": batch[1]}
        return total + run(arguments, reduction="mean") * jnp.cos(total)

    def scanned(kernel):
        run = functools.partial(fused, layout)
        body = jax.checkpoint(functools.partial(step, run, kernel))
        start = jnp.zeros_like(kernel, shape=())
        return lax.scan(lambda c, x: (body(c, x), None), start, batches)[0]

    def unrolled(kernel):
        total = jnp.zeros_like(kernel, shape=())
        for i in range(2):
            total = step(in_memory, kernel, total, [x[i] for x in batches])
        return total

    direction = jnp.asarray(rng.normal(size=kernel.shape))
    got = quick_jit(functools.partial(every_order, scanned))(kernel, direction)
    close(got, every_order(unrolled, kernel, direction))


# Promises -----------------------------------------------------------------------------

PROMISED = "hidden kernel bias ids weights where class_mask"


@functools.cache
def promised(layout, reduction):
    """A loss with all that drops rows or classes, and its gradients in every float."""

    @quick_jit
    def run(arguments):
        options = {"ignore_index": -100, "reduction": reduction, "z_loss": 0.01}
        moving = [k for k, x in arguments.items() if x.dtype == jnp.float64]

        def f(values):
            return fused(layout, arguments | values, **options)

        value, pull = jax.vjp(f, {k: arguments[k] for k in moving})
        return value, pull(jnp.ones_like(value))[0]

    return run


def promising(rng, **changes):
    arguments = pick(problem(rng), PROMISED)
    arguments["where"][:] = True
    arguments["ids"][1] = 0
    return arguments | changes


def promises(layout):
    return promised(layout, "none" if layout.implementation == "streamed" else "sum")


def with_rows(x, rows, value):
    x = x.copy()
    x[rows] = value
    return x


DROPPED = np.array([1, 3, 4, 5])  # tile of 3: the second is empty after sorting
KEPT = np.array([0, 2])


@over(STREAMED, TILED)
def test_what_a_dropped_row_holds(layout, x64, rng):
    """NaN, infinities, huge numbers, garbage ids: 0, gradient 0, and the rest right."""
    run, arguments = promises(layout), promising(rng)
    drops = {
        "ignore_index": {"ids": with_rows(arguments["ids"], DROPPED, -100)},
        "where": {"where": with_rows(arguments["where"], DROPPED, False)},
        "weights": {"weights": with_rows(arguments["weights"], DROPPED, 0.0)},
    }
    few = {k: x[KEPT] if x.shape[:1] == (6,) else x for k, x in arguments.items()}
    f, x = of_floats(functools.partial(in_memory, reduction="none", z_loss=0.01), few)
    losses, pull = jax.vjp(f, x)
    (slopes,) = pull(jnp.ones_like(losses))
    for way, drop in drops.items():
        for garbage in (0.5, np.nan, np.inf, -np.inf, 1e308):
            bad = {"hidden": with_rows(arguments["hidden"], DROPPED, garbage)}
            if way != "ignore_index":
                bad["ids"] = with_rows(arguments["ids"], DROPPED, 10**6)
            value, gradients = run(arguments | bad | drop)
            if layout.implementation == "streamed":
                assert not np.any(value[DROPPED])
                close(value[KEPT], losses)
            else:
                close(value, jnp.sum(losses))
            for name, slope in slopes.items():
                got = gradients[name]
                if name in ("hidden", "weights"):
                    if name != "weights":
                        assert not np.any(got[DROPPED])
                    got = got[KEPT]
                close(got, slope)


@over(STREAMED, TILED)
def test_bad_labels_are_nan(layout, x64, rng):
    """Out of range or on a masked class: NaN in that row's loss and gradient alone."""
    run, arguments = promises(layout), promising(rng)
    clean, slopes = run(arguments)
    others = np.array([0, 1, 3, 4, 5])
    for bad in (-1, -8, -9, 8, 255, 7):
        ids = with_rows(arguments["ids"], 2, bad)
        value, gradients = run(arguments | {"ids": ids})
        if layout.implementation == "streamed":
            assert np.isnan(value[2])
            close(value[others], clean[others])
        else:
            assert np.isnan(value)
        assert np.all(np.isnan(gradients["hidden"][2]))
        close(gradients["hidden"][others], slopes["hidden"][others])


@over(STREAMED, TILED)
def test_every_class_masked_is_zero(layout, x64, rng):
    """0 with gradient 0 in every argument, whatever the hidden states hold."""
    arguments = promising(rng, class_mask=np.zeros(8, bool))
    for garbage in (0.5, np.nan, np.inf):
        hidden = np.full_like(arguments["hidden"], garbage)
        value, gradients = promises(layout)(arguments | {"hidden": hidden})
        assert not np.any(value)
        assert not any(np.any(x) for x in jax.tree.leaves(gradients))


@over(STREAMED, TILED)
def test_a_bias_of_minus_inf(layout, x64, rng):
    """An impossible class, gradient 0 there; as the label's own class +inf."""
    arguments = promising(rng)
    arguments["bias"][[2, 5]] = -np.inf
    arguments["ids"][:] = [0, 1, 3, 4, 6, 0]
    mask = arguments["class_mask"] & np.isfinite(arguments["bias"])
    run = promises(layout)
    value, gradients = run(arguments)
    finite = np.where(mask, arguments["bias"], 0)
    wanted, slopes = run(arguments | {"class_mask": mask, "bias": finite})
    close((value, gradients), (wanted, slopes))
    arguments["ids"][1] = 2
    value, gradients = run(arguments)
    one = value[1] if layout.implementation == "streamed" else value
    assert one == np.inf
    assert np.all(np.isfinite(gradients["hidden"]))
    assert np.all(np.isfinite(gradients["kernel"]))


@over(MATERIALIZED, STREAMED, TILED)
def test_a_masked_class_may_have_any_bias(layout, x64, rng):
    """NaN there changes no loss and no gradient, under a soft cap too."""
    arguments = promising(
        rng, class_mask=np.arange(8) != 7, logit_soft_cap=np.float64(5)
    )
    arguments["ids"] = np.array([0, 1, 3, 4, 6, 2])
    layout = layout._replace(block_sizes=(2, 3))

    def total(arguments):
        f, x = of_floats(lambda a: fused(layout, a, reduction="sum"), arguments)
        return jax.value_and_grad(f)(x)

    wanted = total(arguments)
    arguments["bias"][7] = np.nan
    close(total(arguments), wanted)


@over(MATERIALIZED, STREAMED, TILED)
def test_is_one_call(layout, rng):
    """Outside of jit one compiled function runs, whatever the shapes."""
    hidden, kernel = jnp.ones((2, 3, 4)), jnp.ones((4, 8))
    arguments = {"hidden": hidden, "kernel": kernel, "ids": jnp.zeros((2, 3), int)}
    arguments["where"] = jnp.ones((2, 1), bool)
    traced = jax.make_jaxpr(lambda a: fused(layout, a, reduction="mean"))(arguments)
    assert [str(eqn.primitive) for eqn in traced.eqns] in (["jit"], ["pjit"])


@over(STREAMED, TILED)
def test_a_hidden_state_of_nan_that_counts(layout, x64, rng):
    """NaN loss and gradient in its row."""
    arguments = promising(rng)
    arguments["hidden"][2, 1] = np.nan
    value, gradients = promises(layout)(arguments)
    others = np.array([0, 1, 3, 4, 5])
    assert np.all(np.isnan(gradients["hidden"][2]))
    assert np.all(np.isfinite(gradients["hidden"][others]))
    if layout.implementation == "streamed":
        np.testing.assert_array_equal(np.isnan(value), np.arange(6) == 2)
    else:
        assert np.isnan(value)


@over(STREAMED, TILED)
def test_a_weight_of_0_keeps_its_slope(layout, x64, rng):
    """The derivative in the weight is the row's loss."""
    arguments = promising(rng)
    arguments["weights"][[1, 4, 5]] = 0
    plain = {k: x for k, x in arguments.items() if k != "weights"}
    losses = in_memory(plain, z_loss=0.01)
    value, gradients = promises(layout)(arguments)
    close(gradients["weights"], losses)
    close(jnp.sum(value), jnp.sum(losses * jnp.asarray(arguments["weights"])))


@over(STREAMED, TILED)
def test_nothing_left_to_average(layout, x64, rng):
    """All ignored, dropped or of weight 0: the mean is 0 with gradient 0."""
    arguments = promising(rng)
    arguments["hidden"][2] = np.nan
    for change in (
        {"ids": np.full(6, -100)},
        {"where": np.zeros(6, bool)},
        {"weights": np.zeros(6)},
    ):
        value, gradients = promised(layout, "mean")(arguments | change)
        assert not np.any(value)
        if layout is STREAMED:  # the slope in a weight is its row's loss
            del gradients["weights"]
        assert not any(np.any(x) for x in jax.tree.leaves(gradients))


@over(STREAMED, TILED)
def test_half_of_the_rows_skipped(layout, x64, rng):
    """Values and gradients where most tiles are empty."""
    arguments = promising(rng)
    arguments["ids"][[0, 2, 4]] = -100
    reduction = "none" if layout.implementation == "streamed" else "mean"
    options = {"ignore_index": -100, "z_loss": 0.01, "reduction": reduction}
    f, x = of_floats(functools.partial(in_memory, **options), arguments)
    value, pull = jax.vjp(f, x)
    got = promised(layout, reduction)(arguments)
    close(got, (value, pull(jnp.ones_like(value))[0]))


@pytest.mark.parametrize("option", ["ignore_index", "where", "weights", "none"])
@over(STREAMED, TILED)
def test_a_condition_only_where_rows_can_be_dropped(layout, option, rng):
    """lax.cond around tiles, in the value and in the derivative, or none at all."""
    options: dict[str, Any] = {
        "ignore_index": {"ignore_index": -100},
        "where": {"where": np.ones(6, bool)},
        "weights": {"weights": np.ones(6, np.float32)},
        "none": {"z_loss": 0.1},
    }[option]
    h, k = jnp.ones((6, 3), jnp.float32), jnp.ones((3, 8), jnp.float32)

    def f(h, k):
        arguments = {"hidden": h, "kernel": k, "ids": jnp.zeros(6, jnp.int32)}
        return fused(layout, arguments | options, reduction="mean")

    for g in (f, jax.grad(f, (0, 1))):
        text = str(jax.make_jaxpr(g)(h, k))
        by_platform = text.count("branches_platforms=")
        assert (text.count(" cond[") > by_platform) == (option != "none")


@over(STREAMED, TILED)
def test_checkify_names_a_bad_label(layout, rng):
    """The label and the class count, with and without a gradient, or nothing."""
    h, k = jnp.ones((6, 3)), jnp.ones((3, 8))

    def step(hidden, labels):
        arguments = {"hidden": hidden, "kernel": k, "ids": labels}
        return fused(layout, arguments, ignore_index=-100, reduction="mean")

    programs: list[Callable[..., Any]] = [jax.value_and_grad(step)]
    if layout is TILED:  # its value alone is another program
        programs.append(step)
    for f in programs:
        assert not jax.make_jaxpr(f)(h, jnp.zeros(6, jnp.int32)).effects
        run = jax.jit(checkify.checkify(jax.jit(f)))
        for label in (8, -1, -100, 7):
            message = run(h, jnp.array([0, 1, label, 2, 3, 4]))[0].get()
            if label in (8, -1):
                assert (
                    "expected labels in [0, 8) and on a class that is not masked, got "
                    f"label {label}. Mark rows to skip with ignore_index or where."
                ) in (message or "")
            else:
                assert message is None


# Dtypes -------------------------------------------------------------------------------

BF16, F16, F32 = jnp.bfloat16, jnp.float16, jnp.float32


@pytest.mark.parametrize(
    ("of_hidden", "of_kernel"),
    [(BF16, F32), (F32, BF16), (F16, F16)],
    ids=lambda d: jnp.dtype(d).name,
)
@over(STREAMED_TABLE, TILED)
def test_each_gradient_has_its_own_dtype(layout, of_hidden, of_kernel, x64, rng):
    """The loss is float32; a gradient is that of its own operand, rounded once."""
    arrays = problem(rng)
    truth = pick(arrays, "hidden kernel bias ids")
    truth["ids"][1] = 0
    cast = dict(truth)
    cast["hidden"] = jnp.asarray(truth["hidden"], of_hidden)
    cast["kernel"] = jnp.asarray(truth["kernel"], of_kernel)
    cast["bias"] = jnp.asarray(truth["bias"], F32)
    low = of_hidden == BF16 and of_kernel == F32
    for k in ("hidden", "kernel", "bias"):
        of_layer = cast[k].astype(BF16) if low and k == "kernel" else cast[k]
        truth[k] = np.asarray(of_layer, np.float64)
    moving = pick(cast, "hidden kernel bias")

    def both(f, x):
        return jax.value_and_grad(lambda x: f(truth | x, reduction="mean"))(x)

    f = functools.partial(fused, layout)
    value, slopes = quick_jit(functools.partial(both, f))(moving)
    wanted, truths = both(
        in_memory, jax.tree.map(jnp.asarray, pick(truth, "hidden kernel bias"))
    )
    assert value.dtype == F32
    close(value, wanted, 1e-2 if low else 2e-6)
    for k, slope in slopes.items():
        assert slope.dtype == moving[k].dtype
        eps = float(jnp.finfo(slope.dtype).eps)
        tolerance = 2e-2 if of_hidden == BF16 else 2e-6 + eps
        close(np.asarray(slope, np.float64), truths[k], tolerance)


def test_float64_only_where_an_input_has_it(x64, rng):
    """float32 operands give float32 where float64 is on."""
    arrays = pick(problem(rng), "hidden kernel ids weights")
    total: dict[str, Any] = {"reduction": "sum"}
    for layout in (STREAMED, TILED):
        small = {k: np.float32(arrays[k]) for k in ("hidden", "kernel")}
        for given, dtype in ((arrays, jnp.float64), (arrays | small, jnp.float32)):
            f = functools.partial(fused, layout, **total)
            assert jax.eval_shape(f, given).dtype == dtype


# Accuracy -----------------------------------------------------------------------------

BLOCKS = (1, 8, 128)


def plain_loss(hidden, kernel, ids):
    """Logits in memory, in float32, whatever the operands."""
    logits = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)
    picked = jnp.take_along_axis(logits, ids[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, 1) - picked)


def true_loss(hidden, kernel, ids):
    """The same loss and its gradients in float64 NumPy."""
    h, k = hidden.astype(np.float64), kernel.astype(np.float64)
    loss = oracles.softmax_cross_entropy(h @ k, ids).mean()
    g = oracles.softmax_cross_entropy_gradient(h @ k, ids) / len(ids)
    return loss, (g @ k.T, h.T @ g)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@over(STREAMED, TILED)
def test_error_does_not_grow_with_the_blocks(layout, dtype, rng):
    """Against float64: 1, 8 and 128 blocks are no worse than logits in memory."""
    rows, features, classes = 128, 32, 256
    hidden = rng.normal(size=(rows, features)).astype(dtype)
    kernel = (rng.normal(size=(features, classes)) / 4).astype(dtype)
    ids = rng.integers(0, classes, rows)
    truth = true_loss(hidden, kernel, ids)

    def errors(f):
        got = as_users_jit(jax.value_and_grad(f, (0, 1)))(hidden, kernel, ids)
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(truth), strict=True)
        return np.array(
            [
                np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
                for a, b in pairs
            ]
        )

    def head(blocks):
        sizes = (None, classes // blocks)
        if layout.implementation == "tiled":
            sizes = (rows // blocks, None)

        def f(hidden, kernel, ids):
            arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
            cut = layout._replace(block_sizes=sizes)
            return fused(cut, arguments, reduction="mean")

        return f

    usual = errors(plain_loss)
    each = [errors(head(blocks)) for blocks in BLOCKS]
    slack = np.array([4, 1, 1]) * float(np.finfo(np.float32).eps)
    for error in each:
        assert np.all(error <= 1.1 * usual + slack)
    assert np.all(each[-1] <= 1.1 * each[0] + slack)


@pytest.mark.parametrize(("rows", "classes"), [(8, 9), (1, 9), (1, 8)])
@over(STREAMED, STREAMED_TABLE, TILED, TILED_TABLE)
def test_vectors_in_low_precision(layout, rows, classes, rng):
    """One row, or one class in the last block: compilers treat them otherwise."""
    hidden = rng.normal(size=(rows, 16)).astype(ml_dtypes.bfloat16)
    kernel = rng.normal(size=(16, classes)).astype(ml_dtypes.bfloat16)
    ids = rng.integers(0, classes, rows).astype(np.int32)

    def f(hidden, kernel):
        arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
        return fused(layout._replace(block_sizes=(8, 4)), arguments, reduction="mean")

    value, slopes = as_users_jit(jax.value_and_grad(f, (0, 1)))(hidden, kernel)
    truth, true_slopes = true_loss(hidden, kernel, ids)
    np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(slopes, true_slopes, strict=True):
        np.testing.assert_allclose(np.float64(got), wanted, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@over(STREAMED, TILED)
def test_a_confident_token_keeps_its_gradient(layout, dtype):
    """p_y > 0.999: p_y − 1 is formed in float32 and keeps its relative precision."""
    gaps = np.array([14.0, 15.0, 16.0, 18.0])
    classes = 1000
    hidden = jnp.asarray(np.eye(4) * gaps[:, None], dtype)
    kernel = jnp.zeros((4, classes), dtype).at[:, 7].set(1)
    layout = layout._replace(block_sizes=(2, 250))

    def loss(hidden, kernel):
        ids = jnp.full(4, 7)
        arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
        return fused(layout, arguments, reduction="sum")

    def plain(hidden, kernel):
        return 4 * plain_loss(hidden, kernel, jnp.full(4, 7))

    missing = (classes - 1) / (np.exp(gaps) + classes - 1)
    assert np.all(missing < 1e-3)

    def errors(f):
        value, slope = as_users_jit(jax.value_and_grad(f))(hidden, kernel)
        error = np.diag(np.asarray(slope, np.float64)) + missing
        return value, np.linalg.norm(error), np.max(np.abs(error / missing))

    eps = float(np.finfo(np.float32).eps)
    value, error, worst = errors(loss)
    np.testing.assert_allclose(value, -np.log1p(-missing).sum(), atol=16 * eps)
    rounding = float(jnp.finfo(dtype).eps) * np.linalg.norm(missing)
    assert error <= 1.25 * errors(plain)[1] + rounding + 2 * eps
    assert worst < 0.05


def test_a_loss_is_never_negative(rng):
    """−log p_y ≥ 0, the label of the largest logit included, in blocks that differ."""
    kernel = jnp.asarray(rng.normal(size=(16, 60)), jnp.bfloat16)

    @jax.jit
    def losses(hidden):
        results = []
        for classes in (7, 60):
            layout = STREAMED._replace(block_sizes=(None, classes))
            arguments = {"hidden": hidden, "kernel": kernel}
            statistics = jxent.linear_softmax_statistics
            best = fused(layout, arguments, statistics, argmax=True).argmax
            results.append(fused(layout, arguments | {"ids": best}))
        return results

    for scale in (1e-2, 1, 30, 1e3):
        hidden = jnp.asarray(scale * rng.normal(size=(256, 16)), jnp.bfloat16)
        for loss in losses(hidden):
            assert np.all(np.asarray(loss) >= 0)


@over(STREAMED, TILED)
def test_logits_around_10000_cost_no_precision(layout, rng):
    """An offset of all logits that float32 holds exactly changes next to nothing."""
    hidden = np.round(8 * rng.normal(size=(12, 4))).astype(np.float32) / 8
    kernel = np.round(8 * rng.normal(size=(4, 20))).astype(np.float32) / 8
    ids = jnp.asarray(rng.integers(0, 20, 12))
    layout = layout._replace(block_sizes=(4, 5))

    @jax.jit
    def run(bias):
        def loss(hidden, kernel):
            arguments = {"hidden": hidden, "kernel": kernel, "ids": ids, "bias": bias}
            return fused(layout, arguments, reduction="mean", label_smoothing=0.1)

        return jax.value_and_grad(loss, (0, 1))(hidden, kernel)

    near = run(jnp.zeros(20, jnp.float32))
    for offset in (1e4, -1e4):
        close(run(jnp.full(20, offset, jnp.float32)), near, 2e-6)


# Memory -------------------------------------------------------------------------------

ROWS, FEATURES, CLASSES = 512, 64, 8192
MIB = 2**20
WIDE = {"streamed": (None, 512), "tiled": (64, 512)}


def shapes_of(hidden=jnp.float32, kernel=jnp.float32):
    return (
        jax.ShapeDtypeStruct((ROWS, FEATURES), hidden),
        jax.ShapeDtypeStruct((FEATURES, CLASSES), kernel),
        jax.ShapeDtypeStruct((ROWS,), jnp.int32),
    )


def wide_loss(layout):
    layout = layout._replace(block_sizes=WIDE[layout.implementation])

    def loss(hidden, kernel, ids):
        arguments = {"hidden": hidden, "kernel": kernel, "ids": ids}
        return fused(layout, arguments, reduction="mean", z_loss=1e-4)

    return loss


def hessian_vector(loss):
    """Forward over reverse, in hidden and kernel together."""

    def product(hidden, kernel, ids):
        gradient = jax.grad(lambda h, k: loss(h, k, ids), (0, 1))
        return jax.jvp(gradient, (hidden, kernel), (hidden, kernel))

    return product


def gradient_of_gradient(loss):
    """Reverse over reverse."""

    def twice(hidden, kernel, ids):
        gradient = jax.grad(lambda h, k: loss(h, k, ids), (0, 1))
        return jax.grad(lambda *x: weighed(gradient(*x)), (0, 1))(hidden, kernel)

    return twice


def tangent_of(loss):
    def tangent(hidden, kernel, ids):
        f = lambda h, k: loss(h, k, ids)
        return jax.jvp(f, (hidden, kernel), (hidden, kernel))

    return tangent


def largest_array(text):
    """The most elements that any array of a compiled program has."""
    shapes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]+)\]", text)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


PROGRAMS = {
    "gradient": lambda loss: jax.value_and_grad(loss, (0, 1)),
    "tangent": tangent_of,
    "hessian-vector": hessian_vector,
    "reverse-reverse": gradient_of_gradient,
}
TEMPORARY_MIB = {  # the logits take 16, a gradient of the kernel 2
    ("streamed", "gradient"): 3,
    ("streamed", "tangent"): 4,
    ("streamed", "hessian-vector"): 10,
    ("streamed", "reverse-reverse"): 12,
    ("tiled", "gradient"): 5,
    ("tiled", "tangent"): 7,
    ("tiled", "hessian-vector"): 12,
    ("tiled", "reverse-reverse"): 14,
}


@pytest.mark.parametrize("program", PROGRAMS)
@over(STREAMED, TILED)
def test_the_logits_are_never_held(layout, program):
    """No array of N · V elements in the compiled program, and few temporaries."""
    f = PROGRAMS[program](wide_loss(layout))
    compiled = as_users_jit(f).lower(*shapes_of()).compile()
    assert largest_array(str(compiled.as_text())) < ROWS * CLASSES // 4
    memory = compiled.memory_analysis()
    assert memory is not None
    bound = TEMPORARY_MIB[layout.implementation, program] * MIB
    assert memory.temp_size_in_bytes <= bound


@pytest.mark.parametrize("rows", [(ROWS,), (4, ROWS // 4)])
def test_materialized_logits_are_held_once(rows):
    """With any number of axes of rows: their gradient takes their place."""

    def loss(hidden, kernel, ids):
        return jxent.linear_softmax_cross_entropy(
            hidden, kernel, ids, reduction="mean", implementation="materialized"
        )

    hidden, kernel, ids = shapes_of()
    hidden, ids = (
        jax.ShapeDtypeStruct((*rows, *x.shape[1:]), x.dtype) for x in (hidden, ids)
    )
    f = jax.value_and_grad(loss, (0, 1))
    memory = as_users_jit(f).lower(hidden, kernel, ids).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 1.1 * ROWS * CLASSES * 4


@over(STREAMED, TILED)
def test_the_kernel_is_never_cast_whole(layout):
    """A float32 kernel under bfloat16 hidden states: no copy of it in bfloat16."""
    f = jax.value_and_grad(wide_loss(layout), (0, 1))
    compiled = as_users_jit(f).lower(*shapes_of(jnp.bfloat16)).compile()
    text = str(compiled.as_text())
    assert largest_array(text) < ROWS * CLASSES // 4
    for shape in ((FEATURES, CLASSES), (CLASSES, FEATURES)):
        assert f"bf16[{shape[0]},{shape[1]}]" not in text


# Refusals -----------------------------------------------------------------------------


def floats(*shape):
    return jnp.zeros(shape, jnp.float32)


def ints(*shape):
    return jnp.zeros(shape, jnp.int32)


def untyped(x) -> Any:
    """Past the static type checker."""
    return x


def head(*arguments, function="cross_entropy", **options):
    name = f"linear_softmax_{function}"
    return lambda: getattr(jxent, name)(*arguments, **untyped(options))


H, K, Y = floats(4, 3), floats(3, 5), ints(4)
SIZES = (
    "linear_softmax_cross_entropy: expected block_sizes to be a pair (rows, classes) "
    "of positive ints, None where any will do, got "
)
ONE_NUMBER = (
    "linear_softmax_cross_entropy: implementation='tiled' gives one number, "
    "reduction='mean' or 'sum' without statistics. For results per row give "
    "'streamed'."
)
REFUSED = [
    (
        head(floats(4, 2), K, Y),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., 3) for a kernel "
        "of shape (3, 5) with vocab_axis=-1, got (4, 2). The kernel is (features, "
        "classes).",
    ),
    (
        head(H, K.T, Y),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., 5) for a kernel "
        "of shape (5, 3) with vocab_axis=-1, got (4, 3). The kernel is (features, "
        "classes). For its transpose give vocab_axis=0.",
    ),
    (
        head(H, K, Y, vocab_axis=0),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., 5) for a kernel "
        "of shape (3, 5) with vocab_axis=0, got (4, 3). With vocab_axis=0 the kernel "
        "is (classes, features). For its transpose give vocab_axis=-1.",
    ),
    (
        head(H, floats(3, 5, 2), Y),
        ValueError,
        "linear_softmax_cross_entropy: expected a kernel of two axes and their class "
        "axis, got shape (3, 5, 2) and vocab_axis=-1. Reshape a kernel of more.",
    ),
    (
        head(H, K, Y, vocab_axis=2),
        ValueError,
        "linear_softmax_cross_entropy: expected a kernel of two axes and their class "
        "axis, got shape (3, 5) and vocab_axis=2. Reshape a kernel of more.",
    ),
    (
        head(floats(), K, Y),
        ValueError,
        "linear_softmax_cross_entropy: expected hidden of shape (..., features), got a "
        "scalar.",
    ),
    (
        head(ints(4, 3), K, Y),
        TypeError,
        "linear_softmax_cross_entropy: expected floating hidden, got dtype int32. Cast "
        "them, hidden.astype(jnp.float32).",
    ),
    (
        head(H, ints(3, 5), Y),
        TypeError,
        "linear_softmax_cross_entropy: expected floating kernel, got dtype int32. Cast "
        "them, kernel.astype(jnp.float32).",
    ),
    (
        head(H, K, Y, bias=floats(4)),
        ValueError,
        "linear_softmax_cross_entropy: expected bias of shape (5,), one for each "
        "class, got (4,).",
    ),
    (
        head(H, K, Y, bias=ints(5)),
        TypeError,
        "linear_softmax_cross_entropy: expected floating bias, got dtype int32. Cast "
        "them, bias.astype(jnp.float32).",
    ),
    (
        head(H, K, Y, implementation="fused"),
        ValueError,
        "linear_softmax_cross_entropy: expected implementation to be one of ('tiled', "
        "'streamed', 'materialized') or None, got 'fused'.",
    ),
    (head(H, K, Y, implementation="tiled"), ValueError, ONE_NUMBER),
    (
        head(H, K, Y, implementation="tiled", reduction="mean", return_statistics=True),
        ValueError,
        ONE_NUMBER,
    ),
    (
        head(H, K, function="entropy", implementation="tiled"),
        ValueError,
        ONE_NUMBER.replace("cross_entropy", "entropy"),
    ),
    (head(H, K, Y, block_sizes=(0, 4)), ValueError, SIZES + "(0, 4)."),
    (head(H, K, Y, block_sizes=(4,)), ValueError, SIZES + "(4,)."),
    (head(H, K, Y, block_sizes=(2.0, 4)), ValueError, SIZES + "(2.0, 4)."),
    (
        head(H, K, ints(3)),
        ValueError,
        "linear_softmax_cross_entropy: expected class ids of shape (4,), the logits' "
        "shape (4, 5) without axis 1, or distributions of shape (4, 5), got (3,). "
        "Labels never broadcast; every row has its own.",
    ),
    (
        head(H, K, floats(4)),
        TypeError,
        "linear_softmax_cross_entropy: expected integer class ids, got float32 labels "
        "of shape (4,). Cast ids with labels.astype(jnp.int32). Distributions need the "
        "logits' shape (4, 5).",
    ),
    (
        head(H, K, floats(4, 5), function="log_prob"),
        ValueError,
        "linear_softmax_log_prob: expected class ids of shape (4,), the logits' shape "
        "(4, 5) without axis 1, got (4, 5). For distributions call "
        "softmax_cross_entropy.",
    ),
    (
        head(H, floats(3, 1), Y),
        ValueError,
        "linear_softmax_cross_entropy: expected at least two classes, got logits of "
        "shape (4, 1) with 1 along axis 1. Such a loss is always 0. For one number per "
        "yes/no label call sigmoid_binary_cross_entropy.",
    ),
    (
        head(H, K, Y, weights=floats(3)),
        ValueError,
        "linear_softmax_cross_entropy: expected weights to be a scalar or of the "
        "losses' shape (4,), got (3,). Axes of size 1 are stretched, missing ones are "
        "not.",
    ),
    (
        head(H, K, Y, class_weights=floats(4)),
        ValueError,
        "linear_softmax_cross_entropy: expected class_weights of shape (5,), one for "
        "each class, got (4,).",
    ),
    (
        head(H, K, Y, class_axis_name="model"),
        ValueError,
        "linear_softmax_cross_entropy: class_axis_name 'model' is neither bound by an "
        "enclosing shard_map nor an axis of the mesh in use (axes: []). Set the mesh "
        "with jax.set_mesh, or correct the name; a legacy `with mesh:` is not seen.",
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "text"), REFUSED, ids=[text[29:90] for *_, text in REFUSED]
)
def test_refusals(call, kind, text, monkeypatch):
    """The same type and the same sentence, eagerly and under jit."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for run in (lambda call: call(), jax.eval_shape):
        with pytest.raises(kind) as error:
            run(call)
        assert type(error.value) is kind
        assert str(error.value) == text
