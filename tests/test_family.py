"""What every loss promises, over every row of the table in `cases`."""

import dataclasses
import functools
import itertools

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

import jxent
from tests import oracles
from tests.cases import (
    BARE,
    CLASSES,
    EACH_LOSS,
    EVERY_LAYOUT,
    IN_MEMORY,
    LOSSES,
    MASKED,
    RAGGED,
    REAL,
    SMOOTHEST,
    TABLE,
    WEIGHTS,
    bare,
    every_kind,
    ids,
    one_of_each,
    places,
    positives,
    richest,
    shares,
    target,
    yes_no,
)
from tests.comparing import (
    close,
    factors_of,
    same_bits,
    weighed_rows,
)
from tests.compiling import as_users_jit


pytestmark = pytest.mark.each_platform

of_each_loss = pytest.mark.parametrize("case", SMOOTHEST, ids=str)


def those_that_take(*options, cases):
    chosen = [c for c in cases if all(c.takes(o) for o in options)]
    return pytest.mark.parametrize("case", chosen, ids=str)


in_every_layout = pytest.mark.parametrize("case", EVERY_LAYOUT, ids=str)
with_ids = pytest.mark.parametrize(
    "case",
    [c for c in bare(TABLE) if c.labels is ids and c.takes("losses")],
    ids=str,
)


def floats(inputs):
    """The inputs that a loss has derivatives in, and a function of these alone."""
    moving = [i for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]

    def all_of(*values):
        whole = list(inputs)
        for i, value in zip(moving, values, strict=True):
            whole[i] = value
        return whole

    return tuple(jnp.asarray(inputs[i]) for i in moving), all_of


def slopes_of(f, inputs):
    """The gradient of f in every floating input, those of the parameters last."""
    values, all_of = floats(inputs)
    total = lambda *values: f(*all_of(*values))
    return jax.grad(total, tuple(range(len(values))))(*values)


def test_the_table_has_every_public_loss():
    """A new public function is a row of the table, or is named here."""
    no_losses = {
        "LinearLogits",
        "LossSums",
        "Plan",
        "SoftmaxStatistics",
        "SparseLabels",
        "class_weights_of_counts",
        "fit_temperature",
        "fit_vector_scaling",
        "contrastive_cross_entropy",  # tests/test_contrastive.py
        "map_over_tiles",
        "next_token_labels",
        "ntxent",  # tests/test_contrastive.py
        "plan",
        "reduce",
        "sequence_weights",
        "sigmoid_contrastive_loss",  # tests/test_contrastive.py
        "smooth_labels",
        "softmax_cross_entropy_sums",  # tests/test_sums.py
        "softmax_log_prob_among",  # tests/test_several_ids.py
        "softmax_log_prob_at",  # tests/test_several_ids.py
        "softmax_statistics",
        "with_statistics",
        "softmax_top_k",  # tests/test_several_ids.py
        "sum_over_tiles",
        "supervised_contrastive_cross_entropy",  # tests/test_contrastive.py
        "total_weight",
        "two_hot_labels",  # tests/test_two_hot.py
    }
    functions = {loss.function for loss in LOSSES}
    missing = {
        name
        for name in jxent.__all__
        if name not in no_losses and getattr(jxent, name) not in functions
    }
    assert not missing


@of_each_loss
def test_a_jitted_step_has_no_effects(case, rng):
    """With one, a debug check say, JAX would call the step by way of Python."""
    inputs = case.inputs(rng)
    moving, all_of = floats(inputs)
    step = lambda *values: weighed_rows(case(*all_of(*values)))
    both = jax.value_and_grad(step, tuple(range(len(moving))))
    assert not jax.make_jaxpr(both)(*moving).effects


# Values -------------------------------------------------------------------------------


@pytest.mark.every_pair
@pytest.mark.parametrize("case", RAGGED, ids=str)
def test_values_and_gradients_equal_the_oracles(case, x64, rng):
    """Of the formula in float64, jitted and mapped, by central differences of it."""
    inputs = case.inputs(rng, rows=(2, 3))
    values, all_of = floats(inputs)

    @jax.jit
    def program(*values):
        losses, pull = jax.vjp(lambda *values: case(*all_of(*values)), *values)
        mapped = jax.vmap(case, case.in_axes(inputs))(*all_of(*values))
        return losses, pull(factors_of(losses)), mapped

    losses, gradients, mapped = program(*values)
    assert losses.dtype == jnp.float64
    close(losses, case.oracle(*inputs))
    each = [case.oracle(*case.select(inputs, i)) for i in range(2)]
    close(mapped, np.stack(each))
    if "class_mask" in case.options:
        for of_parameter in gradients[len(gradients) - len(case.parameters) :]:
            assert not np.any(of_parameter[..., MASKED])
            assert np.any(of_parameter[..., REAL])
    for i, gradient in enumerate(gradients):

        def truth(value, i=i):
            varied = values[:i] + (value,) + values[i + 1 :]
            return weighed_rows(case.oracle(*all_of(*varied)))

        close(gradient, oracles.central_differences(truth, values[i]), 1e-8)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@those_that_take("axis", cases=SMOOTHEST)
def test_any_rank_and_any_axis(case, rank, x64, rng):
    """The classes may lie along any axis of any rank, counted from either end."""
    for axis in range(rank):
        inputs = case.inputs(rng, rows=(2, 3, 2)[: rank - 1], axis=axis)
        wanted = case.oracle(*inputs, axis=axis)
        close(case(*inputs, axis=axis), wanted)
        close(case(*inputs, axis=axis - rank), wanted)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@those_that_take("elementwise", cases=richest(IN_MEMORY))
def test_any_rank(case, rank, x64, rng):
    inputs = case.inputs(rng, rows=(2, 3, 2)[: rank - 1])
    close(case(*inputs), case.oracle(*inputs))


@those_that_take("axis", cases=BARE)
def test_several_axes_make_up_the_classes(case, x64, rng):
    """A tuple of axes counts through the classes in the tuple's order; None is all."""
    inputs = case.inputs(rng, rows=(4,))
    x = inputs[0].reshape(4, CLASSES, 1)
    flat = case(*inputs)
    labels = [y.reshape(x.shape) if y.shape == (4, CLASSES) else y for y in inputs[1:]]
    close(case(x, *labels, axis=(1, 2)), flat)
    close(case(x, *labels, axis=(-1, 1)), flat)
    one = [y[2] for y in (x, *labels)]
    close(case(*one, axis=None), flat[2])


@those_that_take("rows", cases=EVERY_LAYOUT)
def test_reductions(case, x64, rng):
    """Σ r loss / Σ r, with where and weights of every allowed shape."""
    inputs = case.inputs(rng, rows=(2, 3))
    rows = case.rows(inputs)
    weights = rng.uniform(0.5, 2, rows)
    where = rng.random(rows) < 0.7
    thin = np.array([True, False])[(...,) + (None,) * (len(rows) - 1)]
    shapes = [
        {"where": where, "weights": weights},
        {"where": thin, "weights": np.float64(0.5)},
        {"where": np.bool_(True), "weights": weights[:, :1]},
    ]
    sums = {"reduction": "sum"}
    calls = [{"reduction": name} | shapes[0] for name in case.reductions]
    calls += [sums | options for options in shapes[1:]]
    run = lambda options: case(*inputs, **options)
    got = jax.jit(lambda: [run(options) for options in calls])()
    close(got, [case.oracle(*inputs, **options) for options in calls])
    got = case(*inputs, weights=weights, reduction="mean", normalizer=7.0)
    close(got, case.oracle(*inputs, weights=weights, **sums) / 7)


# One label for all --------------------------------------------------------------------


@those_that_take("elementwise", cases=SMOOTHEST)
def test_a_scalar_label_is_that_of_every_element(case, x64, rng):
    """A Python number or an array without axes, of any dtype, under every option."""
    x, _ = case.inputs(rng, rows=(2, 3))
    weights = rng.uniform(0.5, 2, x.shape)
    weights[0] = 0
    options = {"where": rng.random(x.shape) < 0.7, "weights": weights}
    python = True, False, 1, 0, 1.0, 0.25
    arrays = np.bool_(True), np.uint8(1), jnp.bfloat16(0.25), jnp.float64(0.25)
    for label in (*python, *map(jnp.asarray, arrays)):
        wanted = case.oracle(x, np.full(x.shape, float(label)), **options)
        close(case(x, label, **options), wanted)
    for reduction in ("sum", "mean"):
        got = case(x, 0.25, reduction=reduction, **options)
        every_one = np.full(x.shape, 0.25)
        close(got, case.oracle(x, every_one, reduction=reduction, **options))
    assert case(np.float32(x), 0.25).dtype == jnp.float32


@those_that_take("elementwise", cases=SMOOTHEST)
def test_derivatives_in_a_scalar_label(case, x64, rng):
    """Those in the labels of all elements, added up; of first and second order."""
    x = jnp.asarray(case.inputs(rng)[0]).at[1].set(jnp.nan)
    where, weights = np.ones(x.shape, bool), np.ones(x.shape)
    where[1, :3] = weights[1, 3:] = False
    dx = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)

    @jax.jit
    def two_orders(x, y):
        f = lambda x, y: weighed_rows(case(x, y, where=where, weights=weights))
        gradient = jax.grad(f, (0, 1))
        first, second = jax.jvp(gradient, (x, y), (dx, jnp.ones_like(y)))
        return [(in_x, jnp.sum(in_y)) for in_x, in_y in (first, second)]

    got = two_orders(x, jnp.asarray(0.3))
    wanted = two_orders(x, jnp.full_like(x, 0.3))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.all(np.isfinite(b))
        assert np.any(b != 0)
        close(a, b)


# Derivatives --------------------------------------------------------------------------


@in_every_layout
def test_every_order_in_both_modes(case, x64, rng):
    """Forward, reverse, and each over the other, in all inputs at once."""
    values, all_of = floats(case.inputs(rng))
    along = tuple(jnp.asarray(rng.normal(size=x.shape)) for x in values)
    total = lambda *values: weighed_rows(case(*all_of(*values)))
    gradient = jax.grad(total, tuple(range(len(values))))
    tangent = lambda *values: jax.jvp(total, values, along)[1]
    inner = lambda slopes: sum(map(jnp.vdot, slopes, along))

    @jax.jit
    def derivatives(*values):
        (slopes, forward), (curves, second) = jax.jvp(
            lambda *values: (gradient(*values), tangent(*values)), values, along
        )
        reverse_of_forward = jax.grad(tangent, tuple(range(len(values))))(*values)
        reverse_twice = jax.grad(
            lambda *values: inner(gradient(*values)), tuple(range(len(values)))
        )(*values)
        first = forward, inner(slopes)
        products = curves, reverse_of_forward, reverse_twice
        return slopes, first, (second, inner(curves)), products

    _, first, second, products = derivatives(*values)
    close(*first)
    close(*second)
    step = 1e-5
    far, ahead, behind, back = (
        derivatives(*(x + h * step * v for x, v in zip(values, along, strict=True)))[0]
        for h in (2, 1, -1, -2)
    )
    wanted = jax.tree.map(
        lambda a, b, c, d: (8 * (b - c) - (a - d)) / (12 * step),
        *(far, ahead, behind, back),
    )
    for product in products:
        close(product, wanted, 1e-7)


@in_every_layout
def test_per_example_gradients(case, x64, rng):
    """vmap of grad gives each row the gradients it has alone, in parameters too."""
    inputs = tuple(map(jnp.asarray, case.inputs(rng, rows=(4,))))
    gradient = lambda *row: slopes_of(lambda *row: weighed_rows(case(*row)), row)
    got = jax.jit(jax.vmap(gradient, case.in_axes(inputs)))(*inputs)
    alone = jax.jit(gradient)
    for i in range(4):
        close([x[i] for x in got], [*alone(*case.select(inputs, i))])


# Without a mask the sum over the classes that smoothing needs is a product of vectors.
SMOOTHED = next(
    dataclasses.replace(c, options={"label_smoothing": 0.1})
    for c in EVERY_LAYOUT
    if c.loss.name == "softmax_cross_entropy"
)


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=str(case)) for case in EVERY_LAYOUT),
        pytest.param(SMOOTHED, id="label_smoothing", marks=pytest.mark.keep),
    ],
)
def test_scan_equals_its_closed_form(case, x64, rng):
    """Value, gradient and both hessian-vector products, with and without checkpoint.

    In a scale of the rows, and in a head's parameters, which every step takes.
    """
    inputs, parameters = case.apart(case.inputs(rng, rows=(2, 2)))
    inputs = tuple(map(jnp.asarray, inputs))
    scale = rng.uniform(0.8, 1, inputs[0].shape[1:])
    point, unravel = ravel_pytree((scale, parameters))
    direction = jnp.asarray(rng.normal(size=point.shape))

    def step(total, row, point):
        scale, parameters = unravel(point)
        losses = case(scale * row[0], *row[1:], *parameters)
        return total + weighed_rows(losses) * (1 + total)

    def scan_of(step):
        def scanned(point):
            start = jnp.zeros_like(point, shape=())
            body = lambda total, row: (step(total, row, point), None)
            return lax.scan(body, start, inputs)[0]

        return scanned

    def forward(f):
        return jax.jvp(jax.value_and_grad(f), (point,), (direction,))

    def reverse(f):
        return jax.grad(lambda s: jnp.vdot(jax.grad(f)(s), direction))(point)

    @jax.jit
    def run():
        checkpointed = scan_of(jax.checkpoint(step))
        return forward(checkpointed), reverse(scan_of(step))

    @jax.jit
    def of_row(row):
        return forward(lambda point: step(jnp.zeros_like(point, shape=()), row, point))

    # The loop's result is a + b + ab, where a and b are the steps' alone.
    a, b = (of_row(tuple(x[i] for x in inputs)) for i in range(2))
    ((a, slope_a), (da, curve_a)), ((b, slope_b), (db, curve_b)) = a, b
    curve = (1 + b) * curve_a + (1 + a) * curve_b + db * slope_a + da * slope_b
    slope = (1 + b) * slope_a + (1 + a) * slope_b
    wanted = (a + b + a * b, slope), ((1 + b) * da + (1 + a) * db, curve)
    checkpointed, reversed_twice = run()
    close(checkpointed, wanted, 1e-11)
    close(reversed_twice, curve, 1e-11)


# Rows that count for nothing ----------------------------------------------------------

GARBAGE = (np.nan, np.inf, -np.inf, 1e38, 1e308)


def spoiled(case, inputs, dropped, garbage):
    """The same inputs, the dropped rows filled with what no loss is defined on."""
    of_rows, parameters = case.apart(inputs)
    made = []
    for x in of_rows:
        x = x.copy()
        if x.dtype.kind == "f":
            x[dropped] = garbage
        elif x.dtype.kind == "i":
            x[dropped] = 10**6
        made.append(x)
    return *made, *parameters


@functools.cache
def slopes_in_options(case):
    """(options, inputs, where, weights) -> the mean, and its derivatives in options."""
    numbers = {k: x for k, x in case.options.items() if k != "order"}

    @jax.jit
    def program(options, inputs, where, weights):
        masks = {k: x for k, x in options.items() if k == "class_mask"}
        values = {k: x for k, x in options.items() if k != "class_mask"}

        def mean(values):
            of_rows = {"where": where, "weights": weights, "reduction": "mean"}
            return case(*inputs, **masks, **values, **of_rows)

        return jax.value_and_grad(mean)(values)

    def run(inputs, where, weights, **changed):
        options = {k: np.asarray(x) for k, x in numbers.items()} | changed
        return program(options, inputs, where, weights)

    return run


with_options = those_that_take("rows", cases=[c for c in richest(TABLE) if c.options])


@functools.cache
def masked_program(case):
    """The loss under every reduction with its derivatives, of any where and weights."""

    @as_users_jit
    def program(inputs, where, weights, cotangents):
        values, all_of = floats(inputs)
        options = {"where": where}
        if case.takes("rows"):
            options["weights"] = weights

        def results(*values):
            loss = functools.partial(case, *all_of(*values), **options)
            if not case.takes("rows"):
                return {"none": loss()}
            return {name: loss(reduction=name) for name in case.reductions}

        losses, pull = jax.vjp(results, *values)
        tangents = jax.jvp(results, values, tuple(map(jnp.ones_like, values)))[1]
        return losses, pull(cotangents), tangents

    def run(inputs, where, weights):
        names = case.reductions if case.takes("rows") else ("none",)
        shapes = {name: case.rows(inputs) if name == "none" else () for name in names}

        def of(name):
            ones = {k: np.full(shape, float(k == name)) for k, shape in shapes.items()}
            return program(inputs, where, weights, ones)

        results = {name: of(name) for name in names}
        losses, _, tangents = results[names[0]]
        gradients = {name: of_it for name, (_, of_it, _) in results.items()}
        return losses, gradients, tangents

    return run


@pytest.mark.every_value
@in_every_layout
def test_dropped_rows_count_for_nothing(case, x64, rng):
    """Whatever they hold; loss, gradient and tangent of the others are right.

    They add nothing to a parameter's gradient either, which is the sum of those of two
    halves of the rows.
    """
    inputs = case.inputs(rng, rows=(4,))
    of_none, of_all = (np.full(case.rows(inputs), x) for x in (False, True))
    of_some = of_none.copy()
    of_some[1::2] = True
    count = len(floats(inputs)[0]) - len(case.parameters)

    def run(inputs, dropped, how):
        where = ~dropped if how == "where" else of_all
        weights = np.where(dropped & (how == "weights"), 0.0, 1.0)
        return masked_program(case)(inputs, where, weights)

    _, whole, _ = run(inputs, of_none, "where")
    for how in ["where", "weights"] if case.takes("rows") else ["where"]:
        clean = run(inputs, of_some, how)
        losses, gradients, tangents = clean
        others = run(inputs, ~of_some, how)[1] if case.parameters else {}
        for name, loss in losses.items():
            options = {"reduction": name} if case.takes("rows") else {}
            close(loss, case.oracle(*inputs, where=~of_some, **options))
            assert not any(np.any(g[1::2]) for g in gradients[name][:count])
        for name in {"none", "sum"} & {*losses}:
            got, every = gradients[name], whole[name]
            close([g[::2] for g in got[:count]], [g[::2] for g in every[:count]])
            for i in range(count, len(got)):
                assert np.any(got[i])
                close(got[i] + others[name][i], every[i])
        if "mean" in losses:
            share = losses["mean"] / losses["sum"]
            for i in (0, *range(count, len(gradients["mean"]))):
                close(gradients["mean"][i], share * gradients["sum"][i])
        if "none" in losses:
            assert not np.any(losses["none"][1::2])
            assert not np.any(tangents["none"][1::2])
        for garbage in GARBAGE:
            close(run(spoiled(case, inputs, of_some, garbage), of_some, how), clean)
            nothing = run(spoiled(case, inputs, of_all, garbage), of_all, how)
            assert not any(np.any(x) for x in jax.tree.leaves(nothing))


@with_options
def test_dropped_rows_move_no_option(case, x64, rng):
    """Whatever they hold, labels too: no option has a derivative from them."""
    inputs = case.inputs(rng)
    dropped = np.zeros(case.rows(inputs), bool)
    dropped[1::2] = True
    ones = np.ones(dropped.shape)
    for where, weights in ((~dropped, ones), (ones > 0, np.where(dropped, 0, ones))):
        clean = slopes_in_options(case)(inputs, where, weights)
        for garbage in GARBAGE:
            garbled = spoiled(case, inputs, dropped, garbage)
            close(slopes_in_options(case)(garbled, where, weights), clean)


@with_options
def test_an_excluded_class_may_have_any_factor(case, x64, rng):
    """Its class weight, and the like: excluded by `class_mask`, or by `where`."""
    inputs = case.inputs(rng)
    rows = case.rows(inputs)
    shape = rows if case.takes("elementwise") else (*rows, CLASSES)
    everywhere, ones = np.ones(shape, bool), np.ones(rows)
    ways = [(everywhere & REAL, {})]
    if "class_mask" in case.options:
        no_mask = {"class_mask": np.ones(CLASSES, bool)}
        ways = [(everywhere, {}), (everywhere & REAL, no_mask)]
    factors = {k: x for k, x in case.options.items() if np.shape(x) == (CLASSES,)}
    for where, mask in ways:
        clean = slopes_in_options(case)(inputs, where, ones, **mask)
        for name in factors.keys() - {"class_mask"}:
            for garbage in (np.nan, np.inf):
                factor = np.where(REAL, factors[name], garbage)
                options = mask | {name: factor}
                got = slopes_in_options(case)(inputs, where, ones, **options)
                close(got, clean)


@those_that_take("ignore_index", cases=bare(TABLE))
def test_only_ids_can_be_ignored(case, rng):
    """ignore_index with distributions is an error that says what to do instead."""
    inputs = case.inputs(rng)
    if case.labels is not shares:  # none of them is this id: nothing changes
        got = case(*inputs, ignore_index=-100)
        np.testing.assert_allclose(got, case.oracle(*inputs), rtol=1e-5, atol=1e-5)
        return
    with pytest.raises(ValueError, match="needs integer class ids"):
        case(*inputs, ignore_index=-100)


@with_ids
def test_ignored_ids_are_dropped(case, x64, rng):
    """Rows whose id is ignore_index count for nothing, whatever their logits hold."""
    x, y, *parameters = case.inputs(rng, rows=(4,))
    y[[0, 2]] = -100

    @jax.jit
    def both(*values):
        f = lambda x, *values: case(x, y, *values, ignore_index=-100)
        losses, pull = jax.vjp(f, *values)
        return losses, *pull(jnp.ones_like(losses))

    kept = x[1::2], y[1::2], *parameters
    total = lambda *kept: jnp.sum(case(*kept))
    wanted, *wanted_slopes = jax.jit(lambda *kept: slopes_of(total, kept))(*kept)
    for garbage in (1.0, *GARBAGE):
        bad = x.copy()
        bad[[0, 2]] = garbage
        losses, gradient, *slopes = map(np.asarray, both(bad, *parameters))
        assert not np.any(losses[::2])
        close(losses[1::2], case.oracle(*kept))
        assert not np.any(gradient[::2])
        close(gradient[1::2], wanted)
        close(slopes, wanted_slopes)


@those_that_take("mask", "losses", cases=EVERY_LAYOUT)
def test_every_class_masked_is_zero(case, x64, rng):
    """A row whose classes are all impossible: 0 with gradient 0, for ids too."""
    inputs = case.inputs(rng, rows=(4,))
    where = np.ones((4, CLASSES), bool)
    where[1] = False
    (_, *labels), parameters = case.apart(inputs)
    f = lambda x, *parameters: case(x, *labels, *parameters, where=where)
    jacobians = jax.jacrev(f, tuple(range(1 + len(parameters))))
    both = jax.jit(lambda *values: (f(*values), jacobians(*values)))
    wanted = case.oracle(*inputs, where=where)
    x = inputs[0].copy()
    losses, clean = both(x, *parameters)
    close(losses, wanted)
    assert all(np.all(np.isfinite(slopes)) for slopes in clean)
    for garbage in GARBAGE:
        x[1] = garbage
        losses, (slopes, *of_parameters) = both(x, *parameters)
        close(losses, wanted)
        assert losses[1] == 0
        assert not np.any(slopes[:, 1])
        assert not any(np.any(slopes[1]) for slopes in of_parameters)
        close([slopes, *of_parameters], [*clean])


@pytest.mark.parametrize(
    ("case", "rows"),
    [(c, (0,)) for c in SMOOTHEST] + [(c, (2, 0)) for c in EACH_LOSS],
    ids=str,
)
def test_no_rows(case, rows, rng):
    """N = 0: empty losses, or 0 where reduced; a gradient of 0 in parameters."""
    inputs = case.inputs(rng, rows=rows)
    names = ["sum", "mean"] if case.takes("rows") else []

    values, all_of = floats(inputs)

    @jax.jit
    def program(*values):
        losses, pull = jax.vjp(lambda *values: case(*all_of(*values)), *values)
        reduced = [case(*all_of(*values), reduction=name) for name in names]
        return losses, pull(jnp.ones_like(losses)), reduced

    losses, gradients, reduced = program(*values)
    assert losses.shape == (case.rows(inputs) if case.takes("losses") else ())
    assert [g.shape for g in gradients] == [x.shape for x in values]
    assert not any(np.any(x) for x in (*gradients, *reduced))


# Bad labels ---------------------------------------------------------------------------


@with_ids
def test_bad_ids_are_nan_and_never_wrap(case, x64, rng):
    """An id out of range or on a masked class: NaN loss and gradient, that row only.

    The gradients in a head's kernel and bias are NaN but for the masked class.
    """
    x, good, *parameters = case.inputs(rng, rows=(4,))
    others = np.array([0, 2, 3])
    kinds = [{}]
    if case.takes("class_weights"):
        kinds.append({"class_weights": np.where(REAL, 1.0, 0.0)})
    if case.takes("label_smoothing"):
        kinds.append({"label_smoothing": 1.0})
    for options in kinds:
        f = lambda *inputs, o=options: case(*inputs, class_mask=REAL, **o)
        total = lambda *inputs, f=f: jnp.sum(f(*inputs))
        both = jax.jit(
            lambda *inputs, f=f, total=total: (f(*inputs), slopes_of(total, inputs))
        )
        wanted, (wanted_slopes, *_) = both(x, good, *parameters)
        for bad in (-1, -CLASSES, -CLASSES - 1, -100, CLASSES, 255, 2**31 - 1, MASKED):
            y = good.copy()
            y[1] = bad
            losses, (slopes, *of_parameters) = both(x, y, *parameters)
            assert np.isnan(losses[1])
            assert np.all(np.isnan(slopes[1][REAL]))
            close(losses[others], wanted[others])
            close(slopes[others], wanted_slopes[others])
            for of_parameter in of_parameters:
                assert np.all(np.isnan(of_parameter[..., REAL]))
                assert not np.any(of_parameter[..., MASKED])


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.uint64]
)
@pytest.mark.parametrize(
    "case", [c for c in BARE if c.labels is ids and c.takes("axis")], ids=str
)
def test_ids_of_any_integer_dtype(case, dtype, x64, rng):
    """Also where the class count does not fit into the labels' dtype."""
    shape = (4, 300)
    x = case.loss.x(rng, shape, 1)
    info = np.iinfo(dtype)
    y = np.array([0, 1, 100, min(info.max, 299)], dtype)
    close(case(x, y), case.oracle(x, y.astype(np.int64)))
    y[0] = info.max
    assert np.isnan(case(x, y)[0]) == (int(info.max) >= 300)


# Extreme logits -----------------------------------------------------------------------

EXTREMES = [
    row
    for row in itertools.product([-1e4, -100.0, 0.0, 1.0, 1e4], repeat=3)
    if len(set(row)) > 1
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@those_that_take("logits", cases=every_kind(BARE))
def test_extreme_logits_keep_every_derivative_finite(case, dtype, x64, rng):
    """±1e4: the value is right, gradient and hessian are finite."""
    x = np.array(EXTREMES, dtype)
    rows = len(x)
    labels = () if case.labels is None else case.labels(rng, x.shape, 1)
    labels = labels if isinstance(labels, tuple) else (labels,)
    labels = tuple(y % 3 if y.dtype.kind == "i" else y for y in labels)

    def one(x, *labels):
        return jnp.sum(case(x, *labels))

    @as_users_jit
    def derivatives(x, *labels):
        of_rows = [
            jax.vmap(order(one))(x, *labels) for order in (jax.grad, jax.hessian)
        ]
        return case(x, *labels), *of_rows

    value, gradient, hessian = derivatives(x, *labels)
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    close(value, case.oracle(x, *labels), tolerance)
    assert gradient.shape == (rows, 3)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(hessian))


@pytest.mark.parametrize(
    "focal",
    [
        (jxent.softmax_focal_loss, oracles.softmax_focal_loss, np.array([[0], [1]])),
        (jxent.sigmoid_focal_loss, oracles.sigmoid_focal_loss, np.array([[0.0], [1]])),
    ],
    ids=["softmax", "sigmoid"],
)
def test_focal_derivatives_are_finite_for_every_gamma(focal, x64):
    """(1 − p)^γ itself has no slope at p = 1 for γ < 1, nor a second one for γ < 2."""
    loss, oracle, labels = focal
    z = np.array([-1e4, -800, -40, -1, 0, 1, 40, 800, 1e4])
    softmax = loss is jxent.softmax_focal_loss
    x = np.stack([np.zeros_like(z), z], -1) if softmax else z
    y = np.broadcast_to(labels, (2, len(z)))
    one = lambda x, y, gamma: loss(x, y, gamma=gamma)

    @as_users_jit
    @functools.partial(jax.vmap, in_axes=(None, 0, None))
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def every_order(*of):
        return [f(*of) for f in (one, jax.grad(one), jax.hessian(one))]

    for gamma in (0.0, 0.5, 1.0, 1.5, 2.0, 5.0):
        g = jnp.float64(gamma)
        wanted = np.stack([oracle(x, row, gamma=gamma) for row in y])
        value, gradient, hessian = every_order(x, y, g)
        close(value, wanted, 1e-11)
        assert np.all(np.isfinite(gradient))
        assert np.all(np.isfinite(hessian))


def softmax_options(case):
    """Options that leave a loss the same when all logits move together."""
    if not case.takes("class_weights"):
        return [{}]
    return [
        {},
        {"label_smoothing": 0.1},
        {"label_smoothing": 0.1} | dict(class_weights=WEIGHTS),
    ]


SHIFTED = [
    (case, options)
    for case in BARE
    if case.takes("logits") and case.takes("axis")
    for options in softmax_options(case)
]


@pytest.mark.parametrize(
    ("case", "options"),
    SHIFTED,
    ids=lambda x: "+".join(x) if isinstance(x, dict) else str(x),
)
def test_an_offset_of_all_logits_costs_no_precision(case, options, rng):
    """Logits around ±1e4 in float32, exact there, are as accurate as around 0."""
    eps = float(np.finfo(np.float32).eps)
    x, *labels = case.inputs(rng, rows=(40,))
    x = np.round(x * 64) / 64
    labels = [y.astype(np.float32) if y.dtype == np.float64 else y for y in labels]
    truth = case.oracle(x, *labels, **options)

    @as_users_jit
    def f(x):
        losses, pull = jax.vjp(lambda x: case(x, *labels, **options), x)
        return losses, *pull(factors_of(losses))

    near, near_slope = f(np.float32(x))
    error = np.max(np.abs(near - truth) / np.maximum(1, np.abs(truth)))
    for offset in (1e4, -1e4):
        far = np.float32(x + offset)
        assert np.all(far.astype(np.float64) == x + offset)
        got, slope = f(far)
        worst = np.max(np.abs(got - truth) / np.maximum(1, np.abs(truth)))
        assert worst <= error + 4 * eps
        np.testing.assert_allclose(slope, near_slope, rtol=8 * eps, atol=8 * eps)


@those_that_take("logits", "axis", cases=BARE)
def test_impossible_classes(case, x64, rng):
    """A logit of −inf takes no part, and 0 · (−inf) is 0; the gradient is finite."""
    x, *labels = case.inputs(rng)
    x[:, 3] = -np.inf
    if case.labels in (shares, target):
        labels[0][:, 3] = 0 if case.labels is shares else -np.inf
    few = [np.delete(y, 3, 1) if y.shape == x.shape else y for y in labels]
    few = [y - (y > 3) if y.dtype.kind == "i" else y for y in few]
    loss = lambda x: case(x, *labels)
    losses, slopes, curves = as_users_jit(
        lambda x: (
            loss(x),
            jax.jacrev(loss)(x),
            jax.hessian(lambda x: jnp.sum(loss(x)))(x),
        )
    )(x)
    close(losses, case.oracle(np.delete(x, 3, 1), *few))
    assert np.all(np.isfinite(slopes))
    assert np.all(np.isfinite(curves))
    assert not np.any(slopes[:, :, 3])


SCORED = [c for c in BARE if "jensen" not in c.loss.name]


BOUNDED = (
    jxent.generalized_cross_entropy,
    jxent.taylor_cross_entropy,
    jxent.softmax_total_variation,
)


@those_that_take("logits", "axis", "rows", cases=SCORED)
def test_an_impossible_label_costs_infinity(case, x64, rng):
    """−inf at the label's own class: +inf, or the bound; with a finite gradient."""
    x, y, *values = case.inputs(rng)
    x[:, 1] = -np.inf
    if case.labels in (ids, places):
        y[1] = 1
        y[[0, 2, 3]] = 0
    else:
        y[[0, 2, 3], 1] = -np.inf if case.labels is target else 0
    loss = lambda x: case(x, y, *values)
    losses, gradient = as_users_jit(
        lambda x: (loss(x), jax.grad(lambda x: jnp.sum(loss(x)))(x))
    )(x)
    close(losses, case.oracle(x, y, *values))
    infinite = case.loss.function not in BOUNDED
    wanted = [False, infinite, False, False]
    np.testing.assert_array_equal(np.isinf(losses), wanted)
    assert np.all(np.isfinite(gradient))


# With dense labels, which are floating: integers and booleans give other programs.
SUMMED = one_of_each(
    [c for c in BARE if c.labels not in (ids, places, positives, yes_no)], "loss"
)
# XLA on a CPU takes minima and maxima that a sum reads for numbers.
LOST = "sigmoid_binary_cross_entropy-shares", "sigmoid_focal_loss-shares"


@pytest.mark.keep(*LOST)
@pytest.mark.parametrize("case", SUMMED, ids=str)
def test_a_sum_of_many_rows_keeps_nan(case, rng):
    """Also where XLA sums as it computes: of more than ten thousand numbers."""
    x, *labels = (
        x.astype(np.float32) if x.dtype == np.float64 else x
        for x in case.inputs(rng, rows=(4096,))
    )
    x[0] = np.nan

    @as_users_jit
    def total(x, *labels):
        losses = lambda x: jnp.sum(case(x, *labels))
        return losses(x), *jax.value_and_grad(losses)(x)

    value, again, gradient = total(x, *labels)
    assert np.isnan([value, again]).all()
    assert np.isfinite(gradient[1:]).all()


def test_many_short_rows_are_as_few(x64, rng):
    """A CPU takes more than 2^15 numbers in short rows for one row."""
    names = "sigmoid_focal_loss", "sigmoid_focal_loss_of_rows", "kl_divergence"
    cases = [case for case in SUMMED if case.loss.name in names]
    inputs = [case.inputs(rng, rows=(2**15 // CLASSES + 1,)) for case in cases]
    few = [[x[:4] for x in given] for given in inputs]

    @jax.jit
    def results(inputs):
        """Losses, and gradients of their sum, for the first of the rows."""
        found = []
        for case, (x, *labels) in zip(cases, inputs, strict=True):
            losses = lambda x, case=case, labels=labels: case(x, *labels)
            total = lambda x, losses=losses: weighed_rows(losses(x))
            found.append((losses(x)[:4], jax.grad(total)(x)[:4]))
        return found

    assert len(cases) == len(names)
    close(results(inputs), results(few))


@those_that_take("logits", "axis", cases=BARE)
def test_rows_of_infinities_are_nan(case, rng):
    """A row of −inf only and a logit of +inf: NaN, in that row alone."""
    x, *labels = case.inputs(rng, rows=(4,))
    x[0] = -np.inf
    x[1, 2] = np.inf
    losses = case(x, *labels)
    np.testing.assert_array_equal(np.isnan(losses), [True, True, False, False])


@pytest.mark.parametrize(
    "case",
    [
        c
        for c in BARE
        if c.takes("elementwise") and c.labels is yes_no and c.takes("logits")
    ],
    ids=str,
)
def test_infinite_logits_of_a_yes_no_label(case, x64):
    """±inf: the limit of the formula, 0, +inf, or a clip's, with a finite gradient."""
    x, y = np.array([np.inf, np.inf, -np.inf, -np.inf]), np.array([1, 0, 1, 0])
    losses, gradient = as_users_jit(
        lambda x: (case(x, y), jax.grad(lambda x: jnp.sum(case(x, y)))(x))
    )(x)
    np.testing.assert_array_equal(losses[np.array([0, 2, 3])], [0, np.inf, 0])
    close(losses[1], case.oracle(x, y)[1], 1e-12)
    assert np.all(np.isfinite(gradient))


# Dtypes, bits, arrays -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(c, jnp.bfloat16) for c in richest(TABLE)] + [(c, jnp.float16) for c in EACH_LOSS],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_half_precision_in_float32_out(case, dtype, rng):
    """Computed and returned in float32; each gradient has its own input's dtype.

    A head's parameters are float32 here, as while a model trains; those of a test below
    are narrow too.
    """
    inputs, parameters = case.apart(case.inputs(rng))
    cast = [jnp.asarray(x, dtype if x.dtype.kind == "f" else x.dtype) for x in inputs]
    cast += [jnp.asarray(x, jnp.float32) for x in parameters]
    values, all_of = floats(cast)

    @jax.jit
    def both(*values):
        losses, pull = jax.vjp(lambda *values: case(*all_of(*values)), *values)
        return losses, pull(losses)

    losses, gradients = both(*values)
    assert losses.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [x.dtype for x in values]
    rounded = [np.asarray(x, np.float64) if x.dtype == dtype else x for x in cast]
    close(losses, case.oracle(*rounded), 2e-6)


@in_every_layout
def test_float32_stays_float32_where_float64_is_on(case, x64, rng):
    """The logits alone decide; float64 inputs stay float64. Both without jit."""
    inputs = case.inputs(rng)
    wanted = case.oracle(*inputs)
    cast = [np.float32(x) if x.dtype.kind == "f" else x for x in inputs]
    narrow, wide = case(*cast), case(*inputs)
    assert (narrow.dtype, wide.dtype) == (jnp.float32, jnp.float64)
    close(narrow, wanted, 1e-4)
    close(wide, wanted)


@in_every_layout
def test_gradients_of_narrow_inputs_where_float64_is_on(case, x64, rng):
    """Computed in float32; each has its input's dtype, and is that of the formula in
    float64 as far as this dtype holds it."""
    inputs = case.inputs(rng)
    inputs = [np.float64(jnp.bfloat16(x)) if x.dtype.kind == "f" else x for x in inputs]
    wide, all_of = floats(inputs)
    losses_of = lambda *values: case(*all_of(*values))
    dtypes = {jnp.float32: 1e-6, jnp.bfloat16: 2**-7}

    @jax.jit
    def program(*values):
        results = []
        for dtype in dtypes:
            losses, pull = jax.vjp(losses_of, *(x.astype(dtype) for x in values))
            results.append((losses, pull(factors_of(losses))))
        return results

    wanted = case.oracle(*inputs)
    truths = []
    for i, value in enumerate(wide):
        truth = lambda x, i=i: weighed_rows(
            case.oracle(*all_of(*wide[:i], x, *wide[i + 1 :]))
        )
        truths.append(oracles.central_differences(truth, value))
    for (losses, gradients), dtype in zip(program(*wide), dtypes, strict=True):
        assert losses.dtype == jnp.float32
        close(losses, wanted, 2e-6)
        for gradient, truth in zip(gradients, truths, strict=True):
            assert gradient.dtype == dtype
            largest = np.max(np.abs(truth))
            close(np.float64(gradient) / largest, truth / largest, dtypes[dtype])


@in_every_layout
def test_two_calls_give_identical_bits(case, rng):
    inputs = tuple(map(jnp.asarray, case.inputs(rng, rows=(8, 9))))
    total = lambda *inputs: jnp.sum(case(*inputs))
    f = jax.jit(lambda *inputs: (case(*inputs), slopes_of(total, inputs)))
    same_bits(f(*inputs), f(*inputs))


@of_each_loss
def test_accepts_what_looks_like_an_array(case, rng):
    """numpy arrays, lists and `nnx.Param` give what jax arrays give."""
    inputs = case.inputs(rng)
    wanted = case(*map(jnp.asarray, inputs))
    same_bits(case(*inputs), wanted)
    same_bits(case(*(x.tolist() for x in inputs)), wanted)
    same_bits(case(*(nnx.Param(jnp.asarray(x)) for x in inputs)), wanted)
    for name, option in case.options.items():
        if isinstance(option, np.ndarray):
            same_bits(case(*inputs, **{name: nnx.Param(jnp.asarray(option))}), wanted)
            same_bits(case(*inputs, **{name: option.tolist()}), wanted)
