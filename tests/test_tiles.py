"""sum_over_tiles: any head and any loss, in every order, one tile at a time."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import jaxtyping
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import jxent
from tests import oracles
from tests.compiling import as_users_jit, largest_array


pytestmark = pytest.mark.newest_jax


def close(got, wanted, tolerance=1e-11):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def weighed(sums):
    """One number in which every floating sum counts, and not linearly."""
    floating = [
        x for x in jax.tree.leaves(sums) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    return sum(jnp.sin(x / (i + 3)) for i, x in enumerate(floating))


# Heads --------------------------------------------------------------------------------

ROWS, FEATURES, CLASSES, TILE = 6, 3, 5, 3


def batch(rng, rows=ROWS):
    """Hidden states, ids of which one is ignored, and distributions."""
    ids = rng.integers(0, CLASSES, rows)
    ids[1:2] = -1
    return {
        "hidden": jnp.asarray(rng.normal(size=(rows, FEATURES))),
        "ids": jnp.asarray(ids),
        "distributions": jnp.asarray(rng.uniform(size=(rows, CLASSES))),
    }


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape))


cross_entropy = functools.partial(jxent.softmax_cross_entropy, reduction="sum")


def dense(params, rows):
    logits = rows["hidden"] @ params["kernel"] + params["bias"][None]
    return cross_entropy(logits, rows["ids"], ignore_index=-1)


def tied(table, rows):
    logits = rows["hidden"] @ table.T
    count = jnp.sum(rows["ids"] >= 0, dtype=jnp.int32)
    return cross_entropy(logits, rows["ids"], ignore_index=-1), count


def two_heads(params, rows):
    first, second = (rows["hidden"] @ kernel for kernel in params)
    return {
        "ids": cross_entropy(first, rows["ids"], ignore_index=-1),
        "distributions": cross_entropy(second, rows["distributions"]),
        "count": jnp.sum(rows["ids"] >= 0, dtype=jnp.int32),
    }


def soft(kernel, rows):
    return cross_entropy(jnp.tanh(rows["hidden"] @ kernel), rows["distributions"])


def focal(kernel, rows):
    return jxent.softmax_focal_loss(
        rows["hidden"] @ kernel, rows["ids"], ignore_index=-1, reduction="sum"
    )


def adapted(base):
    """A low-rank change of a kernel that the loss closes over."""

    def loss(params, rows):
        kernel = base + params["a"] @ params["b"]
        return cross_entropy(rows["hidden"] @ kernel, rows["ids"], ignore_index=-1)

    return loss


def head(name, rng):
    """A loss and its params."""
    kernel = normal(rng, FEATURES, CLASSES)
    low_rank = {"a": normal(rng, FEATURES, 2), "b": normal(rng, 2, CLASSES)}
    return {
        "dense": (dense, {"kernel": kernel, "bias": normal(rng, CLASSES)}),
        "tied": (tied, kernel.T),
        "adapted": (adapted(kernel), low_rank),
        "two heads": (two_heads, (kernel, 2 * kernel)),
        "soft": (soft, kernel),
        "focal": (focal, kernel),
    }[name]


def split(rows):
    """The floating rows, which have a gradient, and the rest."""
    moving = {k: x for k, x in rows.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    return moving, {k: x for k, x in rows.items() if k not in moving}


def whole(loss, tile, params, rows):
    return loss(params, rows)


def tiled(loss, tile, params, rows):
    return jxent.sum_over_tiles(loss, params, rows, tile=tile)


def both_ways(results):
    """What `results` says of tiles, and of the whole, as one program."""
    return jax.jit(lambda *x: [results(run, *x) for run in (tiled, whole)])


@pytest.mark.parametrize(
    "name", ["dense", "tied", "adapted", "two heads", "soft", "focal"]
)
def test_heads_in_every_order(name, x64, rng):
    """Sums, gradients of params and rows, jvp and hessian-vector product."""
    loss, params = head(name, rng)
    moving, rest = split(batch(rng))
    point = params, moving
    direction = jax.tree.map(lambda x: normal(rng, *x.shape), point)

    def every_order(run, point):
        f = lambda params, moving: run(loss, TILE, params, moving | rest)
        total = lambda *point: weighed(f(*point))
        both = jax.value_and_grad(total, (0, 1))
        return f(*point), jax.jvp(both, point, direction)

    close(*both_ways(every_order)(point))


@pytest.mark.parametrize(("rows", "tile"), [(7, 3), (4, 4), (2, 5), (3, 1), (0, 2)])
def test_sizes(rows, tile, x64, rng):
    """A smaller last tile, one tile, a tile larger than all rows, no rows."""
    loss, params = head("tied", rng)
    rows = batch(rng, rows)

    def value_and_gradient(run, params):
        f = lambda params: run(loss, tile, params, rows)
        return f(params), jax.grad(lambda p: weighed(f(p)))(params)

    close(*both_ways(value_and_gradient)(params))


def test_gradient_of_a_gradient(x64, rng):
    """Reverse over reverse, in params, rows and what the loss closes over."""
    rows = batch(rng)
    a, b = normal(rng, FEATURES, 2), normal(rng, 2, CLASSES)

    def twice(run, base, a):
        def total(base, a, hidden):
            low_rank = {"a": a, "b": b}
            return weighed(
                run(adapted(base), TILE, low_rank, rows | {"hidden": hidden})
            )

        slopes = jax.grad(total, (0, 1, 2))
        size = lambda *x: sum(jnp.sum(jnp.sin(s)) for s in slopes(*x))
        return slopes(base, a, rows["hidden"]), jax.grad(size, (0, 1, 2))(
            base, a, rows["hidden"]
        )

    close(*both_ways(twice)(normal(rng, FEATURES, CLASSES), a))


def test_vmap_and_scan(x64, rng):
    """Several kernels at once, and several batches in a checkpointed scan."""
    rows = batch(rng)
    kernels = normal(rng, 2, FEATURES, CLASSES)
    hidden = normal(rng, 2, ROWS, FEATURES)

    def each(run, kernels):
        one = lambda kernel: weighed(run(focal, TILE, kernel, rows))

        def scanned(kernel):
            @jax.checkpoint
            def step(total, h):
                here = run(focal, TILE, kernel, rows | {"hidden": h})
                return total + jnp.cos(total) * here, None

            return lax.scan(step, jnp.zeros_like(kernel[0, 0]), hidden)[0]

        gradient = jax.grad(scanned)
        first, second = kernels
        return (
            jax.vmap(jax.value_and_grad(one))(kernels),
            jax.jvp(gradient, (first,), (second,)),
        )

    close(*both_ways(each)(kernels))


def test_closed_over_tracers_have_gradients(x64, rng):
    """A temperature that the loss closes over, under grad, jvp and jit."""
    rows, kernel = batch(rng), normal(rng, FEATURES, CLASSES)

    def total(run, scale):
        def loss(kernel, rows):
            return cross_entropy(
                scale * (rows["hidden"] @ kernel), rows["ids"], ignore_index=-1
            )

        return run(loss, 4, kernel, rows)

    @jax.jit
    def wanted(scale):
        f = functools.partial(total, whole)
        return jax.value_and_grad(f)(scale), jax.jvp(f, (scale,), (scale,))

    got, scale = functools.partial(total, tiled), jnp.float64(1.5)
    reverse, forward = wanted(scale)
    close(jax.jit(jax.value_and_grad(got))(scale), reverse)
    close(jax.jvp(got, (scale,), (scale,)), forward)


# Rows that count for nothing ----------------------------------------------------------


def test_where_changes_nothing_but_the_work(x64, rng):
    """The same sums and gradients, those of the rows in their own order."""
    loss, params = head("tied", rng)
    rows = batch(rng, 7)
    rows["ids"] = rows["ids"].at[jnp.array([0, 3, 5, 6])].set(-1)

    def both(where, hidden):
        def f(params, hidden):
            here = rows | {"hidden": hidden}
            return jxent.sum_over_tiles(loss, params, here, tile=2, where=where)

        total = lambda *point: weighed(f(*point))
        gradient = jax.grad(total, (0, 1))
        point = params, hidden
        return f(*point), jax.jvp(gradient, point, point)

    got = jax.jit(both)(rows["ids"] >= 0, rows["hidden"])
    close(got, jax.jit(functools.partial(both, None))(rows["hidden"]))


def test_tiles_of_dropped_rows_are_not_run():
    """A loss that breaks its promise shows which rows are looked at: 2 tiles of 4."""
    where = jnp.array([True, False, False, True, False, False, True, False])
    rows = jnp.arange(8, dtype=jnp.float32)
    loss = lambda scale, rows: jnp.sum(scale * jnp.ones_like(rows))
    f = lambda scale, where: jxent.sum_over_tiles(
        loss, scale, rows, tile=2, where=where
    )
    one = jnp.float32(1)
    assert f(one, where) == 4
    value, slope = jax.value_and_grad(f)(one, where)
    assert value == slope == 4
    assert jax.jvp(lambda s: f(s, where), (one,), (one,)) == (4, 4)
    assert f(one, jnp.zeros(8, jnp.bool_)) == 0
    assert f(one, None) == 8


def test_a_condition_only_with_where():
    """Without it the program has none."""
    rows, scale = jnp.ones(8), jnp.float32(1)

    def text(where):
        f = lambda scale: jxent.sum_over_tiles(
            lambda scale, rows: jnp.sum(scale * rows), scale, rows, tile=2, where=where
        )
        return jax.jit(jax.grad(f)).lower(scale).as_text()

    assert "stablehlo.case" in text(rows > 0)
    assert "stablehlo.case" not in text(None)


# Accuracy and memory ------------------------------------------------------------------


def test_error_does_not_grow_with_the_tiles(rng):
    """bfloat16 params: tiles of their gradient, rounded each, are summed in float32."""
    rows, features, classes = 128, 16, 64
    hidden = rng.normal(size=(rows, features)).astype(ml_dtypes.bfloat16)
    kernel = rng.normal(size=(features, classes)).astype(ml_dtypes.bfloat16)
    ids = rng.integers(0, classes, rows)

    def loss(kernel, rows):
        logits = jnp.matmul(rows[0], kernel, preferred_element_type=jnp.float32)
        return cross_entropy(logits, rows[1])

    h, k = hidden.astype(np.float64), kernel.astype(np.float64)
    truth = h.T @ oracles.softmax_cross_entropy_gradient(h @ k, ids)

    def error(run, tile):
        f = functools.partial(run, loss, tile)
        slope = as_users_jit(jax.grad(f))(kernel, (hidden, ids))
        assert slope.dtype == jnp.bfloat16
        gap = np.asarray(slope, np.float64) - truth
        return np.linalg.norm(gap) / np.linalg.norm(truth)

    usual = error(whole, rows)
    errors = [error(tiled, rows // tiles) for tiles in (1, 8, 128)]
    rounding = float(np.finfo(np.float32).eps)
    assert max(errors) <= 1.5 * usual + rounding


@pytest.mark.compiles
@pytest.mark.parametrize("order", ["gradient", "forward-reverse", "reverse-reverse"])
def test_one_tile_of_logits_at_a_time(order):
    """No array of all rows and classes in the program, in second order neither."""
    rows, features, classes, tile = 512, 32, 4096, 64

    def total(kernel, hidden, ids):
        def loss(kernel, rows):
            return cross_entropy(rows[0] @ kernel, rows[1])

        return jxent.sum_over_tiles(loss, kernel, (hidden, ids), tile=tile)

    gradient = jax.grad(total, (0, 1))

    def forward_reverse(kernel, hidden, ids):
        f = lambda *point: gradient(*point, ids)
        return jax.jvp(f, (kernel, hidden), (kernel, hidden))

    def reverse_reverse(kernel, hidden, ids):
        def size(*point):
            return sum(jnp.sum(jnp.sin(x)) for x in gradient(*point, ids))

        return jax.grad(size, (0, 1))(kernel, hidden)

    f = {
        "gradient": gradient,
        "forward-reverse": forward_reverse,
        "reverse-reverse": reverse_reverse,
    }[order]
    compiled = (
        as_users_jit(f)
        .lower(
            jax.ShapeDtypeStruct((features, classes), jnp.float32),
            jax.ShapeDtypeStruct((rows, features), jnp.float32),
            jax.ShapeDtypeStruct((rows,), jnp.int32),
        )
        .compile()
    )
    assert largest_array(str(compiled.as_text())) <= rows * classes // 4
    slab, kernel = 4 * tile * classes, 4 * features * classes
    bound = (2 * slab if order == "gradient" else 6 * slab) + 4 * kernel
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= bound


# Called again -------------------------------------------------------------------------

COMPILED = "/jax/core/compile/backend_compile_duration"


class Counter:
    """How often XLA has compiled, and on how many rows the loss has been traced."""

    def __init__(self):
        self.compiled, self.sizes = 0, []

    def on_event(self, event, duration_secs, **_):
        self.compiled += event == COMPILED

    def new(self):
        """What was counted since the last look."""
        found = self.compiled, self.sizes
        self.compiled, self.sizes = 0, []
        return found

    def loss(self, kernel, rows):
        self.sizes.append(len(rows["ids"]))
        return soft(kernel, rows)


counter = Counter()
jax.monitoring.register_event_duration_secs_listener(counter.on_event)


def counted_loss():
    """A function of its own for each test: nothing is known of it yet."""
    counter.new()
    return lambda kernel, rows: counter.loss(kernel, rows)


def test_a_second_call_neither_traces_nor_compiles(rng):
    """Outside of jit, for the value and for each derivative."""
    loss, rows = counted_loss(), batch(rng, 7)
    kernel, other = normal(rng, FEATURES, CLASSES), normal(rng, FEATURES, CLASSES)
    value = functools.partial(tiled, loss, TILE, rows=rows)
    gradient = jax.grad(value)
    ways = [
        value,
        gradient,
        lambda k: jax.jvp(gradient, (k,), (k,)),
        lambda k: jxent.sum_over_tiles(loss, k, rows, tile=TILE, where=rows["ids"] > 0),
    ]
    for n, way in enumerate(ways):
        way(kernel)
        compiled, sizes = counter.new()
        assert compiled
        assert sizes == ([] if n else [TILE, 1])
        way(other)
        assert counter.new() == (0, [])
    value = jax.eval_shape(functools.partial(tiled, loss, 2), kernel, rows)
    assert counter.new()[1] == [2]  # of one row it is known


@pytest.mark.parametrize(
    ("rows", "sizes"), [(6, [3]), (7, [3, 1]), (2, [2]), (0, [0])], ids=str
)
def test_the_loss_sees_no_tile_that_is_not_there(rows, sizes, rng):
    """Some losses have no value for no rows: a maximum, say."""
    loss, kernel = counted_loss(), normal(rng, FEATURES, CLASSES)
    jax.eval_shape(functools.partial(tiled, loss, TILE), kernel, batch(rng, rows))
    assert counter.new()[1] == sizes


@pytest.fixture
def only_new_objects():
    """The collector leaves alone what other tests left in memory: it is a lot."""
    gc.freeze()
    yield
    gc.unfreeze()


def executables():
    gc.collect()
    return len(jax.devices()[0].client.live_executables())


@pytest.mark.usefixtures("only_new_objects")
def test_a_loss_leaves_nothing_behind(rng):
    """Neither itself nor its programs, whether or not it closes over a tracer."""
    rows, kernel = batch(rng), normal(rng, FEATURES, CLASSES)
    gone = []

    def step(scale):
        def loss(kernel, rows):
            return soft(scale * kernel, rows)

        gone.append(weakref.ref(loss))
        return tiled(loss, TILE, kernel, rows)

    def both():
        return step(1.5), jax.grad(step)(1.5)

    both()
    before = executables()
    both()
    assert executables() <= before
    assert [loss() for loss in gone] == [None] * 4


@pytest.mark.usefixtures("only_new_objects")
def test_calls_leave_nothing_behind(rng):
    """Of the same loss, called and differentiated again and again."""
    rows, kernel = batch(rng), normal(rng, FEATURES, CLASSES)

    def both():
        f = lambda kernel: tiled(focal, TILE, kernel, rows)
        return f(kernel), jax.grad(f)(kernel)

    def objects():
        gc.collect()
        return sum(str(type(x)).startswith("<class 'jax") for x in gc.get_objects())

    both()
    before = objects()
    for _ in range(5):
        both()
    assert objects() < before + 5  # less than one a call


class Head:
    """Losses that are no plain functions."""

    def method(self, kernel, rows):
        return focal(kernel, rows)

    __call__ = method


class WithoutHash(Head):
    __hash__ = None  # pyright: ignore[reportAssignmentType]


class WithoutWeakReferences:
    __slots__ = ()

    def __call__(self, kernel, rows):
        return focal(kernel, rows)


@pytest.mark.parametrize(
    "loss",
    [
        Head(),
        Head().method,
        WithoutHash(),
        WithoutWeakReferences(),
        functools.partial(focal),
        jax.jit(focal),
    ],
    ids=lambda x: type(x).__name__,
)
def test_anything_that_can_be_called(loss, x64, rng):
    """Twice, with gradients, whether or not it can be known again."""
    rows, kernel = batch(rng), normal(rng, FEATURES, CLASSES)
    both = lambda run: jax.value_and_grad(functools.partial(run, loss, TILE))
    for k in (kernel, 2 * kernel):
        close(both(tiled)(k, rows), both(whole)(k, rows))


def test_what_the_loss_closes_over_is_read_once():
    """As under `jax.jit`: arrays, NumPy's too, keys and numbers are those of then."""
    key, ones = jax.random.key(0), np.ones(3, np.float32)
    outside = {"scale": jnp.float32(2)}

    def loss(kernel, rows):
        noise = jax.random.normal(key, (3,))
        return jnp.sum(outside["scale"] * (rows @ kernel + (noise + ones)[None]))

    rows, kernel = jnp.ones((4, 2)), jnp.ones((2, 3))
    results = []
    for scale in (2, 3):
        outside["scale"] = jnp.float32(scale)
        value = functools.partial(jxent.sum_over_tiles, loss, rows=rows, tile=3)
        results.append(
            (value(kernel), jax.grad(value)(kernel), jax.jit(loss)(kernel, rows))
        )
    then, now = results
    np.testing.assert_allclose(then[0], then[2], rtol=1e-6)
    for a, b in zip(then, now, strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = lambda *arguments: loss(*arguments)
    new = jxent.sum_over_tiles(fresh, kernel, rows, tile=3)
    np.testing.assert_allclose(new, 1.5 * then[0], rtol=1e-6)


def test_closed_over_tracers_outside_of_jit(x64, rng):
    """Second order, and under vmap."""
    rows, kernel = batch(rng, 4), normal(rng, FEATURES, CLASSES)

    def total(run, scale):
        return run(lambda k, r: soft(jnp.sin(scale) * k, r), 3, kernel, rows)

    def second(run):
        return jax.vmap(jax.grad(jax.grad(functools.partial(total, run))))

    scales = normal(rng, 3)
    close(second(tiled)(scales), jax.jit(second(whole))(scales))


# Devices ------------------------------------------------------------------------------


def of_devices(run, closing):
    """Σ over devices with rows of their own; the scale is closed over, or in params."""
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("rows")), out_specs=P()
    )
    def total(kernel, scale, rows):
        def loss(params, rows):
            kernel, given = params
            return soft((scale if closing else given) * kernel, rows)

        return lax.psum(run(loss, TILE, (kernel, scale), rows), "rows")

    return total


def test_rows_of_devices(x64, rng):
    """Inside shard_map: sums, and each derivative in params and rows."""
    moving, rest = split(batch(rng, 8))
    point = normal(rng, FEATURES, CLASSES), jnp.float64(1.5), moving
    direction = jax.tree.map(lambda x: normal(rng, *x.shape), point)

    def every_order(run, closing, indices):
        def f(kernel, scale, moving):
            return jnp.sin(of_devices(run, closing)(kernel, scale, moving | rest))

        first = jax.grad(f, indices)
        return jax.value_and_grad(f, indices)(*point), jax.jvp(first, point, direction)

    for closing, indices in ((False, (0, 1, 2)), (True, (0, 2))):
        got, wanted = (
            jax.jit(functools.partial(every_order, run, closing, indices))()
            for run in (tiled, whole)
        )
        close(got, wanted)


def test_params_of_devices(x64, rng):
    """Each device its own kernel, and all of them the same rows and scale."""
    mesh = jax.make_mesh((2,), ("heads",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, kernels = batch(rng), normal(rng, 2, FEATURES, CLASSES)

    def gradients(run):
        @functools.partial(
            jax.shard_map, mesh=mesh, in_specs=(P("heads"), P(), P()), out_specs=P()
        )
        def total(kernels, scale, rows):
            loss = lambda params, rows: soft(params[1] * params[0][0], rows)
            return lax.psum(run(loss, TILE, (kernels, scale), rows), "heads")

        moving, rest = split(rows)
        f = lambda kernels, scale, moving: total(kernels, scale, moving | rest)
        return jax.grad(f, (0, 1, 2))(kernels, jnp.float64(1.5), moving)

    close(
        jax.jit(functools.partial(gradients, tiled))(),
        jax.jit(functools.partial(gradients, whole))(),
    )


# Refusals -----------------------------------------------------------------------------


def sum_of_ones(tile):
    ones = np.ones((4, 3), np.float32)
    return jxent.sum_over_tiles(lambda p, r: jnp.sum(r), None, ones, tile=tile)


@pytest.mark.parametrize("tile", [np.int64(2), np.uint8(2), np.array(2)], ids=repr)
def test_a_tile_of_any_integer_type(tile):
    assert sum_of_ones(tile) == 12


def test_a_traced_tile_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match="known when the program is traced, got") as e:
        jax.jit(sum_of_ones)(2)
    assert type(e.value) is TypeError


def test_a_derivative_in_what_devices_share(rng):
    """A device's own part of it is not to be had once the loss is traced."""
    point = normal(rng, FEATURES, CLASSES), jnp.float32(1.5), batch(rng, 8)
    with pytest.raises(ValueError, match="sum_over_tiles") as error:
        jax.eval_shape(jax.grad(of_devices(tiled, closing=True), 1), *point)
    assert str(error.value) == (
        "sum_over_tiles: expected no derivative in an array of shape () that is the "
        "same on all devices along ['rows'], where the sums differ. If the loss closes "
        "over it, give it as one of params."
    )
