"""sum_over_tiles and map_over_tiles: any head, in every order, one tile at a time."""

import functools
import gc
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

import jxent
from tests import comparing, oracles
from tests.comparing import weighed
from tests.compiling import as_users_jit


pytestmark = pytest.mark.newest_jax

ROWS, FEATURES, CLASSES, TILE = 4, 3, 8, 2
ONE = jax.sharding.AxisType.Auto


def close(got, wanted, tolerance=1e-11):
    """And of the same dtypes."""
    comparing.close(got, wanted, tolerance)
    dtypes = [[x.dtype for x in jax.tree.leaves(tree)] for tree in (got, wanted)]
    assert dtypes[0] == dtypes[1]


# Heads --------------------------------------------------------------------------------
#
# Functions of params that give (fn, params): fn(params, rows) gives what each row has,
# and may close over some of the params that were there.


def batch(rng, rows=ROWS):
    """Hidden states, ids of which one is ignored, and distributions."""
    ids = rng.integers(0, CLASSES, rows)
    ids[1:2] = -1
    return {
        "hidden": rng.normal(size=(rows, FEATURES)),
        "ids": ids,
        "distributions": rng.uniform(size=(rows, CLASSES)),
    }


def params_of(rng):
    shapes = {
        "kernel": (FEATURES, CLASSES),
        "bias": (CLASSES,),
        "scale": (FEATURES,),
        "a": (FEATURES, 2),
        "b": (2, CLASSES),
    }
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


cross_entropy = functools.partial(jxent.softmax_cross_entropy, ignore_index=-1)


def dense(params):
    def fn(params, rows):
        logits = rows["hidden"] @ params["kernel"] + params["bias"][None]
        return cross_entropy(logits, rows["ids"])

    return fn, {n: params[n] for n in ("kernel", "bias")}


def tied(params):
    def fn(table, rows):
        count = (rows["ids"] >= 0).astype(jnp.int32)
        return cross_entropy(rows["hidden"] @ table.T, rows["ids"]), count

    return fn, params["kernel"].T


def two_heads(params):
    def fn(kernels, rows):
        first, second = (rows["hidden"] @ kernel for kernel in kernels)
        of_second = jxent.softmax_cross_entropy(second, rows["distributions"])
        return {"ids": cross_entropy(first, rows["ids"]), "distributions": of_second}

    return fn, (params["kernel"], 2 * params["kernel"])


def soft_rows(kernel, rows):
    logits = jnp.tanh(rows["hidden"] @ kernel)
    return jxent.softmax_cross_entropy(logits, rows["distributions"])


def focal_rows(kernel, rows):
    logits = rows["hidden"] @ kernel
    return jxent.softmax_focal_loss(logits, rows["ids"], ignore_index=-1)


def soft(params):
    return soft_rows, params["kernel"]


def focal(params):
    return focal_rows, params["kernel"]


def adapted(params):
    """A low-rank change of a kernel that fn closes over."""

    def fn(low_rank, rows):
        kernel = params["kernel"] + low_rank["a"] @ low_rank["b"]
        return cross_entropy(rows["hidden"] @ kernel, rows["ids"])

    return fn, {n: params[n] for n in "ab"}


def capped(params):
    """Several results, an integer among them, of a head that no kernel describes."""

    def fn(scale, rows):
        squares = jnp.sum(rows["hidden"] ** 2, -1, keepdims=True)
        normed = rows["hidden"] * lax.rsqrt(squares) * scale[None]
        logits = 2 * jnp.tanh(normed @ params["kernel"])
        real = rows["ids"] >= 0
        return jax.tree.map(
            lambda x: jnp.where(real if x.ndim == 1 else real[:, None], x, 0),
            {
                "entropy": jxent.softmax_entropy(logits),
                "argmax": jnp.argmax(logits, -1),
                "pair": logits[:, :2],
            },
        ) | {"log_prob": jxent.softmax_log_prob(logits, rows["ids"], ignore_index=-1)}

    return fn, params["scale"]


def summed(fn):
    """A loss of tiles: what sum_over_tiles takes."""

    def loss(params, rows):
        return jax.tree.map(lambda x: jnp.sum(x, dtype=x.dtype), fn(params, rows))

    return loss


def as_it_is(fn):
    return fn


OVER = {"sum": (jxent.sum_over_tiles, summed), "map": (jxent.map_over_tiles, as_it_is)}
over_both = pytest.mark.parametrize("over", OVER)


def of_tiles(over, fn, params, rows, **options):
    over_tiles, made = OVER[over]
    return over_tiles(made(fn), params, rows, **options)


def of_whole(over, fn, params, rows, **options):
    return OVER[over][1](fn)(params, rows)


def both_ways(results):
    """What `results` says of tiles, and of the whole, as one program."""
    run = jax.jit(lambda *x: [results(run, *x) for run in (of_tiles, of_whole)])
    return lambda *x: jax.device_get(run(*x))


# In every order -----------------------------------------------------------------------

CASES = [
    *(("sum", f, ROWS, TILE, False) for f in (dense, tied, adapted, two_heads, soft)),
    *((over, focal, ROWS, TILE, False) for over in OVER),
    # A smaller last tile, one tile, a tile larger than all rows, no rows.
    *((over, capped, 7, 3, dropped) for over in OVER for dropped in (False, True)),
    *(
        (over, (tied, capped)[over == "map"], rows, tile, rows == 3)
        for over in OVER
        for rows, tile in ((4, 4), (2, 5), (3, 1), (0, 2))
    ),
]


@pytest.mark.parametrize(("over", "head", "rows", "tile", "dropped"), CASES)
def test_every_order(over, head, rows, tile, dropped, x64, rng):
    """Results; their gradient in params, in rows and in what the head closes over; its
    jvp; the gradient of the gradient. A `where` changes nothing but the work."""
    params, inputs = params_of(rng), batch(rng, rows)
    moving = {n: x for n, x in inputs.items() if x.dtype.kind == "f"}
    where = inputs["ids"] >= 0 if dropped else None
    point = params, moving
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), point)

    def every_order(run, point):
        def results(params, moving):
            fn, given = head(params)
            return run(over, fn, given, inputs | moving, tile=tile, where=where)

        gradient = jax.grad(lambda *point: weighed(results(*point)), (0, 1))
        of_gradient = jax.grad(lambda *point: weighed(gradient(*point)), (0, 1))
        return results(*point), jax.jvp(gradient, point, direction), of_gradient(*point)

    close(*both_ways(every_order)(point), tolerance=1e-10)


@over_both
def test_vmap_and_scan(over, x64, rng):
    """Several kernels at once, and several batches in a checkpointed scan."""
    rows, kernels = batch(rng), rng.normal(size=(2, FEATURES, CLASSES))
    batches = rng.normal(size=(2, ROWS, FEATURES))

    def each(run, kernels):
        def one(kernel, rows):
            return weighed(run(over, focal_rows, kernel, rows, tile=TILE))

        def scanned(kernel):
            @jax.checkpoint
            def step(total, hidden):
                here = one(kernel, rows | {"hidden": hidden})
                return total + jnp.cos(total) * here, None

            return lax.scan(step, jnp.zeros_like(kernel[0, 0]), batches)[0]

        gradient = jax.grad(scanned)
        mapped = jax.vmap(jax.value_and_grad(one), (0, None))(kernels, rows)
        return mapped, jax.jvp(gradient, (kernels[0],), (kernels[1],))

    close(*both_ways(each)(kernels))


@over_both
def test_outside_of_jit(over, x64, rng):
    """What fn closes over, under vmap, jvp and scan, of the second order too."""
    rows, kernel = batch(rng), rng.normal(size=(FEATURES, CLASSES))

    def total(run, scale):
        fn = lambda kernel, rows: soft_rows(jnp.sin(scale) * kernel, rows)
        return weighed(run(over, fn, kernel, rows, tile=3))

    def derivatives(run):
        slope = jax.value_and_grad(functools.partial(total, run))
        return (
            jax.vmap(jax.grad(lambda scale: slope(scale)[1]))(scales),
            lax.scan(lambda _, scale: (None, slope(scale)), None, scales)[1],
            jax.jvp(functools.partial(total, run), (scales[0],), (scales[1],)),
        )

    scales = jnp.asarray(rng.normal(size=2))
    close(derivatives(of_tiles), jax.jit(derivatives, static_argnums=0)(of_whole))


# Rows that count for nothing ----------------------------------------------------------


def test_tiles_of_dropped_rows_are_not_run():
    """A loss that breaks its promise shows which rows are looked at: 2 tiles of 4."""
    where = np.array([True, False, False, True, False, False, True, False])
    one, rows = np.float32(1), np.arange(8, dtype=np.float32)
    loss = lambda scale, rows: jnp.sum(scale * jnp.ones_like(rows))
    f = lambda scale, where: jxent.sum_over_tiles(
        loss, scale, rows, tile=2, where=where
    )

    @jax.jit
    def run(where):
        of_scale = functools.partial(f, where=where)
        return jax.value_and_grad(of_scale)(one), jax.jvp(of_scale, (one,), (one,))

    assert jax.device_get(run(where)) == ((4, 4), (4, 4))
    assert run(np.zeros(8, bool))[0][0] == 0
    assert f(one, None) == 8


def test_rows_that_are_dropped_have_results_of_0():
    ones = lambda one, rows: one * jnp.ones_like(rows)
    where = np.arange(8) % 3 == 0
    got = jxent.map_over_tiles(ones, 1.0, np.arange(8.0), tile=2, where=where)
    np.testing.assert_array_equal(got, where)


def test_a_dropped_row_may_hold_anything(x64, rng):
    """In reverse and in forward mode."""
    rows, where = batch(rng, 7), np.arange(7) % 3 != 1
    spoilt = {"ids": np.where(where, rows["ids"], -7)}
    spoilt["hidden"] = np.where(where[:, None], rows["hidden"], np.nan)
    kernel = rng.normal(size=(FEATURES, CLASSES))

    def fn(kernel, rows):
        logits = 2 * jnp.tanh(rows["hidden"] @ kernel)
        return jxent.softmax_log_prob(logits, rows["ids"]), logits[:, :2]

    @jax.jit
    def run(rows):
        f = lambda kernel: weighed(
            jxent.map_over_tiles(fn, kernel, rows, tile=3, where=where)
        )
        return jax.value_and_grad(f)(kernel), jax.jvp(f, (kernel,), (kernel,))

    close(run(rows | spoilt), run(rows))


@over_both
def test_a_condition_only_with_where(over):
    """Without it the program has none, its derivative neither."""
    rows, where = np.ones(8, np.float32), np.ones(8, bool)

    def text(where):
        run = functools.partial(of_tiles, over, lambda scale, rows: scale * rows)
        f = lambda scale: weighed(run(scale, rows, tile=2, where=where))
        return jax.jit(jax.grad(f)).lower(np.float32(1)).as_text()

    assert "stablehlo.case" in text(where)
    assert "stablehlo.case" not in text(None)


# Accuracy -----------------------------------------------------------------------------


@over_both
def test_error_does_not_grow_with_the_tiles(over, rng):
    """bfloat16 params: tiles of their gradient, rounded each, are summed in float32."""
    rows, features, classes = 128, 16, 64
    hidden = rng.normal(size=(rows, features)).astype(ml_dtypes.bfloat16)
    kernel = rng.normal(size=(features, classes)).astype(ml_dtypes.bfloat16)
    ids = rng.integers(0, classes, rows)

    def fn(kernel, rows):
        logits = jnp.matmul(rows[0], kernel, preferred_element_type=jnp.float32)
        return cross_entropy(logits, rows[1])

    h, k = hidden.astype(np.float64), kernel.astype(np.float64)
    truth = h.T @ oracles.softmax_cross_entropy_gradient(h @ k, ids)

    def error(run, tile):
        f = lambda kernel: jnp.sum(run(over, fn, kernel, (hidden, ids), tile=tile))
        slope = as_users_jit(jax.grad(f))(kernel)
        assert slope.dtype == jnp.bfloat16
        gap = np.asarray(slope, np.float64) - truth
        return np.linalg.norm(gap) / np.linalg.norm(truth)

    usual = error(of_whole, rows)
    errors = [error(of_tiles, rows // tiles) for tiles in (1, 8, 128)]
    assert max(errors) <= 1.5 * usual + np.finfo(np.float32).eps


# Called again -------------------------------------------------------------------------

COMPILED = "/jax/core/compile/backend_compile_duration"
soft_loss, focal_loss = summed(soft_rows), summed(focal_rows)


def tiled(loss, tile, params, rows):
    return jxent.sum_over_tiles(loss, params, rows, tile=tile)


def kernel_of(rng):
    return jnp.asarray(rng.normal(size=(FEATURES, CLASSES)))


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
        return soft_loss(kernel, rows)


counter = Counter()
jax.monitoring.register_event_duration_secs_listener(counter.on_event)


def counted_loss():
    """A function of its own for each test: nothing is known of it yet."""
    counter.new()
    return lambda kernel, rows: counter.loss(kernel, rows)


def test_a_second_call_neither_traces_nor_compiles(rng):
    """Outside of jit, for the value and for each derivative."""
    loss, rows = counted_loss(), jax.device_put(batch(rng, 7))
    kernel, other = kernel_of(rng), kernel_of(rng)
    where = rows["ids"] > 0
    value = functools.partial(tiled, loss, 3, rows=rows)
    gradient = jax.grad(value)
    ways = [
        value,
        gradient,
        lambda k: jax.jvp(gradient, (k,), (k,)),
        lambda k: jxent.sum_over_tiles(loss, k, rows, tile=3, where=where),
    ]
    counter.new()
    for n, way in enumerate(ways):
        way(kernel)
        compiled, sizes = counter.new()
        assert compiled
        assert sizes == ([] if n else [3, 1])
        way(other)
        assert counter.new() == (0, [])
    value = jax.eval_shape(functools.partial(tiled, loss, 2), kernel, rows)
    assert counter.new()[1] == [2]  # of one row it is known


@pytest.mark.parametrize(
    ("rows", "sizes"), [(6, [3]), (7, [3, 1]), (2, [2]), (0, [0])], ids=str
)
def test_the_loss_sees_no_tile_that_is_not_there(rows, sizes, rng):
    """Some losses have no value for no rows: a maximum, say."""
    loss, kernel = counted_loss(), kernel_of(rng)
    jax.eval_shape(functools.partial(tiled, loss, 3), kernel, batch(rng, rows))
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
    rows, kernel = jax.device_put(batch(rng)), kernel_of(rng)
    gone = []

    def step(scale):
        def loss(kernel, rows):
            return soft_loss(scale * kernel, rows)

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
    rows, kernel = jax.device_put(batch(rng)), kernel_of(rng)

    def both():
        f = lambda kernel: tiled(focal_loss, TILE, kernel, rows)
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
        return focal_loss(kernel, rows)

    __call__ = method


class WithoutHash(Head):
    __hash__ = None  # pyright: ignore[reportAssignmentType]


class WithoutWeakReferences:
    __slots__ = ()

    def __call__(self, kernel, rows):
        return focal_loss(kernel, rows)


@pytest.mark.parametrize(
    "loss",
    [
        Head(),
        Head().method,
        WithoutHash(),
        WithoutWeakReferences(),
        functools.partial(focal_loss),
        jax.jit(focal_loss),
    ],
    ids=lambda x: type(x).__name__,
)
def test_anything_that_can_be_called(loss, x64, rng):
    """Twice, with gradients, whether or not it can be known again."""
    rows, kernel = jax.device_put(batch(rng)), kernel_of(rng)
    whole = jax.jit(jax.value_and_grad(focal_loss))
    for k in (kernel, 2 * kernel):
        f = functools.partial(tiled, loss, TILE, rows=rows)
        close(jax.value_and_grad(f)(k), whole(k, rows))


def test_what_the_loss_closes_over_is_read_once():
    """As under `jax.jit`: arrays, NumPy's too, keys and numbers are those of then."""
    key, ones = jax.random.key(0), np.ones(3, np.float32)
    outside = {"scale": jnp.float32(2)}

    def loss(kernel, rows):
        noise = jax.random.normal(key, (3,))
        return jnp.sum(outside["scale"] * (rows @ kernel + (noise + ones)[None]))

    rows, kernel = np.ones((4, 2), np.float32), np.ones((2, 3), np.float32)
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


# Models -------------------------------------------------------------------------------


def log_probs(logits, rows):
    return jxent.softmax_log_prob(logits, rows["ids"], ignore_index=-1)


def test_a_linen_head(as_users_have_it, rng):
    """`model.apply` of a method is the function, its variables are the params."""

    class Model(nn.Module):
        def setup(self):
            self.embed = nn.Embed(CLASSES, FEATURES)
            self.norm = nn.RMSNorm()

        def __call__(self, hidden):
            return self.embed.attend(self.norm(hidden)) / FEATURES**0.5

    model, rows = Model(), jax.device_put(batch(rng))
    variables = jax.jit(model.init)(jax.random.key(0), rows["hidden"])

    def gradient(run, variables):
        fn = lambda v, rows: log_probs(model.apply(v, rows["hidden"]), rows)
        return jax.grad(lambda v: weighed(run("map", fn, v, rows, tile=3)))(variables)

    close(*both_ways(gradient)(variables), tolerance=1e-5)


def test_an_nnx_head(as_users_have_it, rng):
    """`nnx.split` takes the arrays out of a model, `nnx.merge` puts a tile's back."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.RMSNorm(FEATURES, rngs=rngs)
            self.head = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

        def __call__(self, hidden):
            return self.head(self.norm(hidden))

    rows, model = jax.device_put(batch(rng)), Model(nnx.Rngs(0))

    def total(run, model):
        graph, state = nnx.split(model)
        fn = lambda state, rows: log_probs(
            nnx.merge(graph, state)(rows["hidden"]), rows
        )
        return weighed(run("map", fn, state, rows, tile=3))

    ours = nnx.grad(functools.partial(total, of_tiles))(model)
    theirs = nnx.jit(nnx.grad(functools.partial(total, of_whole)))(model)
    close(jax.tree.leaves(ours), jax.tree.leaves(theirs), 1e-5)


# Devices ------------------------------------------------------------------------------


def of_devices(run, over, closing):
    """Of rows that each device has itself; scales are closed over, or in params."""
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(ONE,))
    specs = {"in_specs": (P(), P(), P("rows")), "out_specs": P()}

    @functools.partial(jax.shard_map, mesh=mesh, **specs)
    def total(kernel, scale, rows):
        def fn(params, rows):
            kernel, given = params
            return focal_rows((scale if closing else given)[:, None] * kernel, rows)

        where = None if closing else rows["ids"] >= 0
        found = run(over, fn, (kernel, scale), rows, tile=3, where=where)
        return lax.psum(weighed(found), "rows")

    return total


def on_devices(rng):
    rows, params = jax.device_put((batch(rng, 8), params_of(rng)))
    return params["kernel"], params["scale"], rows.pop("hidden"), rows


@pytest.mark.parametrize(
    ("over", "closing", "moving"),
    [("sum", False, (0, 1, 2)), ("map", False, (0, 1, 2)), ("sum", True, (0, 2))],
)
def test_rows_of_devices(over, closing, moving, x64, rng):
    """Inside shard_map: each derivative in params and rows, and its own."""
    *point, rest = on_devices(rng)
    direction = tuple(rng.normal(size=x.shape) for x in point)

    def every_order(run, point, direction):
        def f(kernel, scale, hidden):
            rows = rest | {"hidden": hidden}
            return jnp.sin(of_devices(run, over, closing)(kernel, scale, rows))

        return jax.jvp(jax.value_and_grad(f, moving), point, direction)

    run = jax.jit(every_order, static_argnums=0)
    close(*(run(of, tuple(point), direction) for of in (of_tiles, of_whole)))


def test_params_of_devices(x64, rng):
    """Each device its own kernel, and all of them the same rows and scale."""
    mesh = jax.make_mesh((2,), ("heads",), axis_types=(ONE,))
    kernels = jax.device_put(rng.normal(size=(2, FEATURES, CLASSES)))
    rows = jax.device_put(batch(rng))
    hidden = rows.pop("hidden")

    def gradients(run):
        specs = {"in_specs": (P("heads"), P(), P()), "out_specs": P()}

        @functools.partial(jax.shard_map, mesh=mesh, **specs)
        def total(kernels, scale, hidden):
            fn = lambda params, rows: soft_rows(params[1] * params[0][0], rows)
            here = rows | {"hidden": hidden}
            return lax.psum(run("sum", fn, (kernels, scale), here, tile=3), "heads")

        return jax.grad(total, (0, 1, 2))(kernels, jnp.float64(1.5), hidden)

    run = jax.jit(gradients, static_argnums=0)
    close(run(of_tiles), run(of_whole))


@pytest.mark.parametrize(
    ("over", "differs", "closes"),
    [("sum", "sums differ", "loss"), ("map", "results differ", "function")],
)
def test_a_derivative_in_what_devices_share(over, differs, closes, rng):
    """A device's own part of it is not to be had once the function is traced."""
    kernel, scale, hidden, rest = on_devices(rng)
    f = of_devices(of_tiles, over, closing=True)
    with pytest.raises(ValueError, match="over_tiles") as error:
        jax.eval_shape(jax.grad(f, 1), kernel, scale, rest | {"hidden": hidden})
    assert str(error.value) == (
        f"{over}_over_tiles: expected no derivative in an array of shape (3,) that is "
        f"the same on all devices along ['rows'], where the {differs}. If the {closes} "
        "closes over it, give it as one of params."
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
