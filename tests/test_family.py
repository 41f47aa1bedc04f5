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
    CASES,
    CLASSES,
    EACH_LOSS,
    EVERY_LAYOUT,
    IN_MEMORY,
    LOSSES,
    MASKED,
    NO_ROW,
    OF_CLASSES,
    RAGGED,
    REAL,
    SMOOTHEST,
    TABLE,
    WEIGHTS,
    bare,
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
from tests.programs import floats, neutral, program, second_order


pytestmark = pytest.mark.each_platform

of_each_loss = pytest.mark.parametrize("case", SMOOTHEST, ids=str)


def those_that_take(*options, cases):
    chosen = [c for c in cases if all(c.takes(o) for o in options)]
    return pytest.mark.parametrize("case", chosen, ids=str)


in_every_layout = pytest.mark.parametrize("case", EVERY_LAYOUT, ids=str)


def for_each(cases, *dtypes):
    """A test of every one of these cases, beside the other tests of the same case.

    So a worker compiles a case's program once.
    """
    cases, names = tuple(cases), [dtype.__name__ for dtype in dtypes]

    def mark(test):
        if dtypes:
            test = pytest.mark.parametrize("dtype", dtypes, ids=names)(test)
        each = pytest.mark.parametrize("case", cases, ids=str, scope="module")
        return each(test)

    return mark


def slopes_of(f, inputs):
    """The gradient of f in every floating input, those of the parameters last."""
    values, all_of = floats(inputs)
    total = lambda *values: f(*all_of(*values))
    return jax.grad(total, tuple(range(len(values))))(*values)


def test_the_table_has_every_public_loss():
    """A new public function is a row of the table, or has a reason to have none."""
    rows = {loss.name.removesuffix("_of_rows") for loss in LOSSES}
    assert not rows & NO_ROW.keys()
    assert rows | NO_ROW.keys() == {*jxent.__all__}


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


@for_each(c for c in EACH_LOSS if c.takes("axis"))
def test_gradients_of_classes_that_are_first(case, x64, rng):
    """Those of classes that are last."""
    inputs = case.inputs(rng)
    first = [np.moveaxis(x, -1, 0) for x in inputs]
    values, all_of = floats(first)

    @jax.jit
    def run(*values):
        losses, pull = jax.vjp(lambda *x: case(*all_of(*x), axis=0), *values)
        return losses, pull(jnp.ones_like(losses))

    losses, gradients = jax.device_get(run(*values))
    wanted = program(case)(inputs)
    close(losses, wanted.losses["none"])
    moved = tuple(np.moveaxis(x, 0, -1) for x in gradients)
    close(moved, wanted.gradients["none"])


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


@for_each(c for c in CASES if c.takes("rows"))
def test_reductions(case, x64, rng):
    """Σ r loss / Σ r, with where and weights; the normalizer may be the caller's."""
    inputs = case.inputs(rng)
    rows = case.rows(inputs)
    options = {"where": rng.random(rows) < 0.7, "weights": rng.uniform(0.5, 2, rows)}
    got = program(case)(inputs, **options)
    wanted = {name: {"reduction": name} for name in case.reductions}
    wanted["normalized"] = {"reduction": "mean", "normalizer": 7.0}
    close(
        got.losses,
        {name: case.oracle(*inputs, **options, **x) for name, x in wanted.items()},
    )


@for_each(c for c in OF_CLASSES if c.takes("class_weights") and c.takes("axis"))
def test_total_weight_is_the_denominator(case, x64, rng):
    """Sum / total_weight = mean, where rows are dropped and where classes are."""
    inputs, weights = case.inputs(rng), np.array([1.0, 0.0, 2.0, 0.5])
    options = {k: x for k, x in case.options.items() if k == "class_weights"}
    if case.labels is ids:
        inputs[1][3], options["ignore_index"] = -100, -100
    of_classes = np.ones((4, CLASSES), bool)
    of_classes[0, MASKED] = of_classes[2] = False
    (_, labels, *rest), _ = case.apart(inputs)
    labels = jxent.SparseLabels(labels, *rest) if case.labels is places else labels
    mask = np.broadcast_to(case.options.get("class_mask", True), CLASSES)
    for where in (np.arange(4) != 0, of_classes):
        losses = program(case)(inputs, where=where, weights=weights).losses
        where = where if where.ndim == 2 else where[:, None]
        total = jxent.total_weight(
            labels, where=where & mask, weights=weights, **options
        )
        close(losses["sum"] / total, losses["mean"])


@pytest.mark.parametrize(
    "case",
    one_of_each(
        [c for c in EVERY_LAYOUT if c.takes("rows")], "layout", "loss.takes", "labels"
    ),
    ids=str,
)
def test_where_and_weights_of_fewer_axes(case, x64, rng):
    """They stand for arrays of the rows' shape."""
    inputs = case.inputs(rng, rows=(2, 3))
    rows = case.rows(inputs)
    weights = rng.uniform(0.5, 2, rows)
    thin = np.array([True, False])[(...,) + (None,) * (len(rows) - 1)]
    calls = [
        {"reduction": "sum", "where": thin, "weights": np.float64(0.5)},
        {"reduction": "sum", "where": np.bool_(True), "weights": weights[:, :1]},
    ]
    got = jax.jit(lambda: [case(*inputs, **options) for options in calls])()
    close(got, [case.oracle(*inputs, **options) for options in calls])


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


@for_each(CASES)
def test_derivatives_in_the_options(case, x64, rng):
    """Of the formula; forwards too, in all inputs and options at once."""
    inputs = case.inputs(rng)
    rows = case.rows(inputs)
    fixed = {"where": rng.random(rows) < 0.7}
    fixed |= {"weights": rng.uniform(0.5, 2, rows)} if case.takes("rows") else {}
    got = program(case)(inputs, **fixed)
    own = {k: neutral(case, rows)[k] for k in case.options if k != "order"}
    moving = {k: x for k, x in own.items() if x.dtype.kind == "f"}

    def oracle(name, inputs, options):
        reduction = {"reduction": name} if case.takes("rows") else {}
        return case.oracle(*inputs, **fixed, **options, **reduction)

    for name, slopes in got.slopes.items():
        assert slopes.keys() == moving.keys()
        for option, slope in slopes.items():
            truth = lambda x, n=name, o=option: oracle(n, inputs, {o: x}).sum()
            close(slope, oracles.central_differences(truth, moving[option]), 1e-8)

    values, all_of = floats(inputs)

    def along(t):
        moved = all_of(*(x + t for x in values))
        return oracle(case.reductions[0], moved, {k: x + t for k, x in moving.items()})

    close(got.tangent, oracles.central_differences(along, 0.0), 1e-8)


@for_each(c for c in CASES if {"label_smoothing", "class_weights"} & {*c.options})
def test_options_at_the_ends_of_their_ranges(case, x64, rng):
    """As arrays: a 0 leaves nothing of an option, and a label may be all smoothed."""
    inputs = case.inputs(rng)
    ends = {
        "label_smoothing": (0.0, 1.0),
        "z_loss": (0.0,),
        "logit_soft_cap": (1e6,),
        "class_weights": (np.where(np.arange(CLASSES) % 3 == 1, 0.0, WEIGHTS),),
    }
    for name in ends.keys() & case.options.keys():
        for end in ends[name]:
            losses = program(case)(inputs, **{name: np.asarray(end)}).losses
            for r in case.reductions:
                close(losses[r], case.oracle(*inputs, reduction=r, **{name: end}))


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
# Temperatures of the same rows, where a case has one.
NO_TEMPERATURES = (np.inf, -np.inf, np.nan, 0.0, -1.0)
ANYTHING = (
    *zip(GARBAGE, NO_TEMPERATURES, strict=True),
    # Where 1/T² is too large, and z/T is not.
    (1.0, 1e-300),
    (1e308, 3e38),
)


def all_garbage(case, inputs, dropped):
    """What dropped rows may hold, and an option with what it may be there."""
    own = neutral(case, case.rows(inputs)).get("temperature")
    for garbage, none in ANYTHING:
        options = {} if own is None else {"temperature": np.where(dropped, none, own)}
        yield spoiled(case, inputs, dropped, garbage), options


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


def ways_to_drop(case, inputs, dropped):
    """Functions of the inputs that give these, and the options that drop rows."""
    yield lambda inputs: (inputs, {"where": ~dropped})
    if case.takes("rows"):
        bad = np.resize([np.nan, np.inf], dropped.shape)
        zero, bad = (np.where(dropped, x, 1.0) for x in (0.0, bad))
        yield lambda inputs: (inputs, {"weights": zero})
        yield lambda inputs: (inputs, {"weights": bad, "where": ~dropped})
    if case.takes("ignore_index") and case.labels is ids:

        def ignored(inputs):
            x, y, *parameters = inputs
            return (x, np.where(dropped, -100, y).astype(y.dtype), *parameters), {}

        yield ignored


@for_each(CASES)
def test_dropped_rows_count_for_nothing(case, x64, rng):
    """Whatever they hold; loss, gradient and tangent of the others are right.

    They move no option. They add nothing to a parameter's gradient either, which is the
    sum of those of two halves of the rows.
    """
    inputs, run = case.inputs(rng), program(case)
    rows = case.rows(inputs)
    of_some, of_all = np.zeros(rows, bool), np.ones(rows, bool)
    of_some[1::2] = True
    count = len(floats(inputs)[0]) - len(case.parameters)
    others = run(inputs, where=of_some)
    whole = run(inputs)
    for drop, drop_all in zip(
        ways_to_drop(case, inputs, of_some),
        ways_to_drop(case, inputs, of_all),
        strict=True,
    ):
        given, options = drop(inputs)
        clean = run(given, **options)
        for name in {"none", "sum", "mean"} & {*clean.losses}:
            reduction = {"reduction": name} if case.takes("rows") else {}
            wanted = case.oracle(*inputs, where=~of_some, **reduction)
            close(clean.losses[name], wanted)
        for name, gradients in clean.gradients.items():
            assert not any(np.any(g[1::2]) for g in gradients[:count])
            every = whole.gradients[name]
            if name == "mean":
                share = clean.losses["mean"] / clean.losses["sum"]
                first = clean.gradients[case.reductions[0]]
                for i in (0, *range(count, len(gradients))):
                    close(gradients[i], share * first[i])
                continue
            close([g[::2] for g in gradients[:count]], [g[::2] for g in every[:count]])
            for i in range(count, len(gradients)):
                assert np.any(gradients[i])
                close(gradients[i] + others.gradients[name][i], every[i])
        if "none" in clean.losses:
            assert not np.any(clean.losses["none"][1::2])
            assert not np.any(clean.tangent[1::2])
        each = (all_garbage(case, inputs, which) for which in (of_some, of_all))
        for (some, of_bad), (every, of_every) in zip(*each, strict=True):
            given, options = drop(some)
            got = run(given, **options, **of_bad)
            close(got[:-1], clean[:-1])
            given, options = drop_all(every)
            nothing = run(given, **options, **of_every)
            assert not any(np.any(x) for x in jax.tree.leaves(nothing[:-1]))
            if "weights" not in options:
                close(got.in_weights, clean.in_weights)
                assert not any(np.any(x) for x in nothing.in_weights.values())


@for_each(c for c in CASES if c.takes("rows"))
def test_the_derivative_in_a_weight_is_the_loss(case, x64, rng):
    """Of its row or element, and where the weight is 0 too."""
    inputs = case.inputs(rng)
    rows = case.rows(inputs)
    weights = rng.uniform(0.5, 2, rows)
    weights[1::2] = 0
    got = program(case)(inputs, weights=weights).in_weights[case.reductions[0]]
    close(got, case.oracle(*inputs, reduction="none"))


@for_each(c for c in OF_CLASSES if c.options)
def test_an_excluded_class_may_have_any_factor(case, x64, rng):
    """Its class weight, and the like: excluded by `class_mask`, or by `where`."""
    inputs, run = case.inputs(rng), program(case)
    everywhere = np.ones((*case.rows(inputs)[:1], CLASSES), bool)
    ways = [{"where": everywhere & REAL}]
    if "class_mask" in case.options:
        no_mask = {"class_mask": np.ones(CLASSES, bool)}
        ways = [{"where": everywhere}, {"where": everywhere & REAL} | no_mask]
    factors = {k: x for k, x in case.options.items() if np.shape(x) == (CLASSES,)}
    for way in ways:
        clean = run(inputs, **way)
        for name in factors.keys() - {"class_mask"}:
            for garbage in (np.nan, np.inf):
                factor = np.where(REAL, factors[name], garbage)
                close(run(inputs, **way, **{name: factor}), clean)


@for_each(c for c in bare(TABLE) if c.takes("ignore_index") and c.labels is not ids)
def test_only_ids_can_be_ignored(case, rng):
    """ignore_index with distributions is an error that says what to do instead."""
    inputs = case.inputs(rng)
    if case.labels is places:  # none of them is this id: nothing changes
        got = case(*inputs, ignore_index=-100)
        np.testing.assert_allclose(got, case.oracle(*inputs), rtol=1e-5, atol=1e-5)
        return
    with pytest.raises(ValueError, match="needs integer class ids"):
        case(*inputs, ignore_index=-100)


@for_each(c for c in CASES if c.takes("mask") and not c.of_head)
def test_a_masked_class_holds_anything(case, x64, rng):
    """NaN, infinities and huge numbers there change no loss and no derivative."""
    inputs, run = case.inputs(rng), program(case)
    clean = run(inputs, class_mask=REAL)
    assert not any(np.any(g[0][:, MASKED]) for g in clean.gradients.values())
    for garbage in (*GARBAGE, -1e308):
        x = inputs[0].copy()
        x[:, MASKED] = garbage
        close(run((x, *inputs[1:]), class_mask=REAL), clean)


@for_each(c for c in CASES if c.takes("mask"))
def test_no_class_is_left(case, x64, rng):
    """0 with gradient 0 in every argument, in a mean too, whatever the rows hold."""
    inputs, rows = case.inputs(rng), np.ones(4, bool)
    none = np.zeros(CLASSES, bool)
    for bad, of_bad in all_garbage(case, inputs, rows):
        nothing = program(case)(bad, class_mask=none, **of_bad)
        assert not any(np.any(x) for x in jax.tree.leaves(nothing))


@for_each(c for c in OF_CLASSES if c.takes("mask"))
def test_every_class_masked_is_zero(case, x64, rng):
    """A row whose classes are all impossible: 0 with gradient 0, for ids too.

    Whatever the row holds. A label on a class that `where` excludes is bad.
    """
    inputs, run = case.inputs(rng), program(case)
    where = np.ones((4, CLASSES), bool)
    where[1] = False
    clean = run(inputs, where=where)
    for name in {"none", "sum", "mean"} & {*clean.losses}:
        reduction = {"reduction": name} if case.takes("rows") else {}
        close(clean.losses[name], case.oracle(*inputs, where=where, **reduction))
    finite = [clean.losses, clean.gradients, clean.slopes, clean.tangent]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(finite))
    for (bad, *_), of_bad in all_garbage(case, inputs, np.arange(4) == 1):
        got = run((bad, *inputs[1:]), where=where, **of_bad)
        close(got[:-1], clean[:-1])
        if "none" in got.losses:
            assert got.losses["none"][1] == 0
        for gradients in got.gradients.values():
            assert not np.any(gradients[0][1])
    nothing = run((np.full_like(inputs[0], np.nan), *inputs[1:]), where=where & False)
    assert not any(np.any(x) for x in jax.tree.leaves(nothing))
    if case.labels is ids:
        one = np.ones((4, CLASSES), bool)
        one[1, inputs[1][1]] = False
        losses, gradients, *_ = run(inputs, where=one)
        name = next(iter(gradients))
        np.testing.assert_array_equal(
            np.isnan(losses[name]), np.arange(4) == 1 if name == "none" else True
        )
        (slopes, *_) = gradients[name]
        real = one[1] & (REAL if "class_mask" in case.options else True)
        if not case.of_head:
            np.testing.assert_array_equal(np.isnan(slopes[1]), real)
        np.testing.assert_array_equal(np.isnan(slopes).any(1), np.arange(4) == 1)


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


@for_each(c for c in CASES if c.labels is ids)
def test_bad_ids_are_nan_and_never_wrap(case, x64, rng):
    """An id out of range or on a masked class: NaN loss and gradient, that row only.

    Though its class weighs nothing, or smoothing leaves it no share. The gradients in a
    head's kernel and bias are NaN but for the masked class.
    """
    inputs, run = case.inputs(rng), program(case)
    x, good, *parameters = inputs
    others = np.array([0, 2, 3])
    fixed = {"class_mask": REAL}
    if case.takes("ignore_index"):
        fixed["ignore_index"] = np.int32(-7)
    kinds = [{}]
    if "class_weights" in case.options:
        kinds.append({"class_weights": np.where(REAL, 1.0, 0.0)})
    if "label_smoothing" in case.options:
        kinds.append({"label_smoothing": np.float64(1)})
    for options in kinds:
        wanted = run(inputs, **fixed, **options)
        for bad in (-1, -CLASSES, -CLASSES - 1, -100, CLASSES, 255, 2**31 - 1, MASKED):
            y = good.copy()
            y[1] = bad
            got = run((x, y, *parameters), **fixed, **options)
            for name, losses in got.losses.items():
                if name != "none":
                    assert np.isnan(losses)
                    continue
                assert np.isnan(losses[1])
                close(losses[others], wanted.losses[name][others])
            for name, (slopes, *of_parameters) in got.gradients.items():
                assert np.all(np.isnan(slopes[1][REAL]))
                for of_parameter in of_parameters:
                    assert np.all(np.isnan(of_parameter[..., REAL]))
                    assert not np.any(of_parameter[..., MASKED])
                if name != "mean":
                    close(slopes[others], wanted.gradients[name][0][others])


def of_ids(case):
    """The case that differs in having class ids as labels."""
    same = lambda c: (c.loss, c.layout, bool(c.options))
    return next(c for c in CASES if c.labels is ids and same(c) == same(case))


OF_DISTRIBUTIONS = [
    c for c in CASES if c.labels is shares and c.takes("ignore_index") and not c.of_head
]


@for_each(OF_DISTRIBUTIONS)
def test_ids_and_one_hot_labels_agree(case, x64, rng):
    """Losses, and derivatives in all but the labels, under every reduction."""
    twin = of_ids(case)
    x, y, *parameters = twin.inputs(rng)
    wanted = program(twin)((x, y, *parameters))
    got = program(case)((x, np.eye(CLASSES)[y], *parameters))
    gradients = {name: (g[0], *g[2:]) for name, g in got.gradients.items()}
    close((got.losses, gradients), (wanted.losses, wanted.gradients))
    close((got.slopes, got.in_weights), (wanted.slopes, wanted.in_weights))


@for_each(c for c in OF_DISTRIBUTIONS if not c.options and c.takes("logits"))
def test_they_agree_where_float32_does_not_reach(case, x64):
    """Of logits further apart than its largest number, for each class."""
    x = np.zeros((4, CLASSES), np.float32)
    x[:, :5] = [3e38, -3e38, 0.0, 1e38, -1e38]
    for first in (0, 1):
        y = np.arange(first, first + 4, dtype=np.int32)
        wanted = second_order(of_ids(case))(x, y)
        got = second_order(case)(x, np.eye(CLASSES, dtype=np.float32)[y])
        close(got[:2], wanted[:2], 2e-6)
        assert not np.isnan(wanted[0]).any()
        assert np.isfinite(wanted[1]).all()


@for_each(c for c in OF_DISTRIBUTIONS if not c.options)
def test_a_distribution_without_mass(case, x64, rng):
    """A loss of 0, no pull on a logit, no share in a mean; the slopes in its shares are
    the losses of the classes."""
    x, q = case.inputs(rng)
    q[1] = 0
    got = program(case)((x, q))
    for name in case.reductions:
        close(got.losses[name], case.oracle(x, q, reduction=name))
    in_x, in_q = got.gradients["none"]
    assert got.losses["none"][1] == 0
    assert not np.any(in_x[1])
    if case.loss.function is not jxent.symmetric_cross_entropy:
        of_each_class = np.repeat(x[1:2], CLASSES, 0), np.arange(CLASSES)
        close(in_q[1], case.oracle(*of_each_class))


@for_each(
    c
    for c in BARE
    if c.labels is shares and yes_no in c.loss.labels
    if c.loss.name not in ("zlpr_loss", "sigmoid_focal_loss_of_rows")
)
def test_a_floating_binary_label_is_a_number_in_the_formula(case, x64, rng):
    """Outside of [0, 1] too."""
    x, y = case.inputs(rng)
    y[:] = np.array([-100.0, -0.2, 1.2, 2.0])[:, None]
    got = program(case)((x, y))
    close(got.losses["none"], case.oracle(x, y))
    slopes = oracles.central_differences(lambda x: case.oracle(x, y), x)
    of_losses = tuple(range(slopes.ndim - x.ndim))
    close(got.gradients["sum"][0], slopes.sum(of_losses), 1e-6)


@for_each(c for c in BARE if c.labels is ids and c.takes("axis"))
def test_ids_of_any_integer_dtype(case, x64, rng):
    """Also where the class count does not fit into the labels' dtype."""
    dtypes = "int8 uint8 int16 uint16 int32 uint32 int64 uint64".split()
    x = case.loss.x(rng, (4, 300), 1)
    losses = jax.jit(lambda labels: [case(x, y) for y in labels])
    largest = [int(np.iinfo(dtype).max) for dtype in dtypes]
    good = [
        np.array([0, 1, 100, min(most, 299)], dtype)
        for most, dtype in zip(largest, dtypes, strict=True)
    ]
    for y, got in zip(good, jax.device_get(losses(good)), strict=True):
        close(got, case.oracle(x, y.astype(np.int64)))
    for y, most in zip(good, largest, strict=True):
        y[0] = most
    firsts = [got[0] for got in jax.device_get(losses(good))]
    assert list(np.isnan(firsts)) == [most >= 300 for most in largest]


# Extreme logits -----------------------------------------------------------------------

EXTREMES = np.array(
    [
        row
        for row in itertools.product([-1e4, -100.0, 0.0, 1.0, 1e4], repeat=3)
        if len(set(row)) > 1
    ]
)
TOLERANCES = {np.float32: 2e-6, np.float64: 1e-12}


def cast(inputs, dtype):
    return tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs)


@for_each(
    (c for c in BARE if c.takes("logits")),
    *TOLERANCES,
)
def test_extreme_logits_keep_every_derivative_finite(case, dtype, x64, rng):
    """±1e4: the value is right, gradient and hessian are finite."""
    for rows in np.split(EXTREMES, len(EXTREMES) // 4):
        x, *labels = cast(case.inputs(rng), dtype)
        x[:] = rng.choice(np.unique(EXTREMES), x.shape)
        x[:, :3] = rows
        value, gradient, hessian = second_order(case)(x, *labels)
        close(value, case.oracle(x, *labels), TOLERANCES[dtype])
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


@for_each(
    (c for c in BARE if c.takes("logits") and c.takes("axis")),
    *TOLERANCES,
)
def test_impossible_classes(case, dtype, x64, rng):
    """A logit of −inf takes no part, and 0 · (−inf) is 0; derivatives are finite."""
    x, *labels = cast(case.inputs(rng), dtype)
    x[:, 3] = -np.inf
    if case.labels in (shares, target):
        labels[0][:, 3] = 0 if case.labels is shares else -np.inf
    few = [np.delete(y, 3, 1) if y.shape == x.shape else y for y in labels]
    few = [y - (y > 3) if y.dtype.kind == "i" else y for y in few]
    losses, gradient, hessian = second_order(case)(x, *labels)
    rest = np.delete(x, 3, 1)
    close(losses, case.oracle(rest, *few), TOLERANCES[dtype])
    total = lambda rest: weighed_rows(case.oracle(rest, *few))
    truth = oracles.central_differences(total, np.float64(rest))
    close(np.delete(gradient, 3, 1), truth, 1e-8 if dtype == np.float64 else 1e-5)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(hessian))
    assert not np.any(gradient[:, 3])
    assert not np.any(hessian[:, 3])


@for_each(
    (
        c
        for c in BARE
        if c.takes("logits") and c.takes("axis") and c.takes("rows")
        if "jensen" not in c.loss.name
    ),
    *TOLERANCES,
)
def test_an_impossible_label_costs_infinity(case, dtype, x64, rng):
    """−inf at the label's own class: +inf, or the bound; with a finite gradient."""
    x, y, *values = cast(case.inputs(rng), dtype)
    x[:, 1] = -np.inf
    if case.labels in (ids, places):
        y[1] = 1
        y[[0, 2, 3]] = 0
    else:
        y[[0, 2, 3], 1] = -np.inf if case.labels is target else 0
    losses, gradient, _ = second_order(case)(x, y, *values)
    close(losses, case.oracle(x, y, *values), TOLERANCES[dtype])
    wanted = [False, not case.loss.bounded, False, False]
    np.testing.assert_array_equal(np.isinf(losses), wanted)
    assert np.all(np.isfinite(gradient))
    if case.labels is ids and case.loss.function is jxent.softmax_cross_entropy:
        truth = oracles.softmax_cross_entropy_gradient(x, y)
        close(gradient, factors_of(losses)[:, None] * truth, TOLERANCES[dtype])


@for_each(
    c
    for c in CASES
    if "label_smoothing" in c.options and c.labels in (ids, places, shares)
    if c.takes("logits") and c.takes("axis")
)
def test_smoothing_gives_an_impossible_class_its_share(case, x64, rng):
    """Which costs infinity, or the bound."""
    inputs = case.inputs(rng)
    inputs[0][:, MASKED] = -np.inf
    options = {"class_mask": np.ones(CLASSES, bool), "logit_soft_cap": np.inf}
    got = program(case)(inputs, **jax.tree.map(np.asarray, options))
    assert np.all(np.isinf(got.losses["none"]) != case.loss.bounded)


@for_each(c for c in CASES if not c.of_head and c.takes("logits") and c.takes("axis"))
def test_rows_of_infinities_are_nan(case, x64, rng):
    """A row of −inf only and a logit of +inf: NaN, in that row alone."""
    x, *labels = case.inputs(rng)
    x[0] = -np.inf
    x[1, 2] = np.inf
    # A cap makes −inf finite.
    no_cap = {k: np.float64(np.inf) for k in case.options if "soft_cap" in k}
    got = program(case)((x, *labels), **no_cap)
    wanted = [True, True, False, False]
    np.testing.assert_array_equal(np.isnan(got.losses["none"]), wanted)
    in_x = got.gradients["none"][0]
    possible = REAL if "class_mask" in case.options else np.ones(CLASSES, bool)
    assert np.isnan(in_x[:2, possible]).all()
    if case.labels is not shares:  # whose mass has a slope of 0 · NaN from the mean
        assert np.isfinite(in_x[2:]).all()
    if not case.options:
        _, gradient, _ = second_order(case)(x, *labels)
        assert np.isnan(gradient[:2]).all()
        assert np.isfinite(gradient[2:]).all()


@for_each(
    (
        c
        for c in BARE
        if c.takes("elementwise") and c.labels is yes_no and c.takes("logits")
    ),
    *TOLERANCES,
)
def test_infinite_logits_of_a_yes_no_label(case, dtype, x64, rng):
    """±inf: the limit of the formula, 0, +inf, or a clip's, with a finite gradient."""
    x, y = cast(case.inputs(rng), dtype)
    x[:, :4], y[:, :4] = [np.inf, np.inf, -np.inf, -np.inf], [1, 0, 1, 0]
    losses, gradient, _ = second_order(case)(x, y)
    close(losses, case.oracle(x, y), TOLERANCES[dtype])
    for row in losses:
        np.testing.assert_array_equal(row[[0, 2, 3]], [0, np.inf, 0])
    assert np.all(np.isfinite(gradient))
    if case.loss.function is not jxent.asymmetric_loss:
        wanted = np.array([0, 1, -1, 0]) * factors_of(losses)[:, :4]
        close(gradient[:, :4], wanted, TOLERANCES[dtype])


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

    losses, gradients = jax.device_get(both(*values))
    assert losses.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [x.dtype for x in values]
    rounded = [np.asarray(x, np.float64) if x.dtype == dtype else x for x in cast]
    close(losses, case.oracle(*rounded), 2e-6)
    if dtype == jnp.float16:  # bfloat16 has a test below
        values, all_of = floats(rounded)
        for i, value in enumerate(values):
            truth = oracles.central_differences(
                lambda x, i=i: case.oracle(*all_of(*values[:i], x, *values[i + 1 :])),
                value,
            )
            truth = np.tensordot(losses, truth, losses.ndim)
            largest = np.max(np.abs(truth))
            close(gradients[i] / largest, truth / largest, 2**-10)


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


@for_each(CASES)
def test_two_calls_give_identical_bits(case, x64, rng):
    inputs = case.inputs(rng)
    same_bits(program(case)(inputs), program(case)(inputs))


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
