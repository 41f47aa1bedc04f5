"""map_over_tiles: results of rows of any head, in every order, one tile at a time."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

import jxent
from tests.comparing import close, weighed
from tests.compiling import as_users_jit, largest_array


FEATURES, CLASSES = 3, 5


def batch(rng, rows=7):
    hidden = jnp.asarray(rng.normal(size=(rows, FEATURES)))
    return {"hidden": hidden, "ids": jnp.asarray(rng.integers(0, CLASSES, rows))}


def capped(params, rows):
    """Several results, an integer among them, of a head that no kernel describes."""
    normed = rows["hidden"] * lax.rsqrt(jnp.sum(rows["hidden"] ** 2, -1, keepdims=True))
    logits = 2 * jnp.tanh((normed * params["scale"][None]) @ params["kernel"])
    return {
        "log_prob": jxent.softmax_log_prob(logits, rows["ids"]),
        "entropy": jxent.softmax_entropy(logits),
        "argmax": jnp.argmax(logits, -1),
        "pair": logits[:, :2],
    }


def params_of(rng):
    kernel = jnp.asarray(rng.normal(size=(FEATURES, CLASSES)))
    return {"kernel": kernel, "scale": jnp.asarray(rng.normal(size=FEATURES))}


def whole(fn, params, rows, *, tile=None, where=None):
    """The plain function; 0 where rows do not count."""
    results = fn(params, rows)
    if where is None:
        return results

    def counted(x):
        mask = where.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(mask, x, 0)

    return jax.tree.map(counted, results)


def every_order(run, fn, params, rows, direction, **options):
    """Results, gradients, tangents of both, and the gradient of a gradient."""

    def total(params, hidden):
        return weighed(run(fn, params, rows | {"hidden": hidden}, **options))

    gradient = jax.grad(total, (0, 1))
    point = params, rows["hidden"]
    of_gradient = jax.grad(lambda *point: weighed(gradient(*point)), (0, 1))
    return (
        run(fn, params, rows, **options),
        jax.jvp(gradient, point, direction),
        of_gradient(*point),
    )


@pytest.mark.parametrize(("rows", "tile"), [(7, 3), (4, 4), (2, 5), (3, 1), (0, 2)])
@pytest.mark.parametrize("dropped", [False, True])
def test_every_order(rows, tile, dropped, x64, rng):
    params, inputs = params_of(rng), batch(rng, rows)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape))
    direction = jax.tree.map(draw, (params, inputs["hidden"]))
    where = jnp.arange(rows) % 3 != 1 if dropped else None
    run = functools.partial(every_order, fn=capped, tile=tile, where=where)
    arguments = {"params": params, "rows": inputs, "direction": direction}
    got = jax.jit(functools.partial(run, jxent.map_over_tiles))(**arguments)
    wanted = jax.jit(functools.partial(run, whole))(**arguments)
    close(got, wanted, 1e-10)


def test_vmap_scan_and_outside_of_jit(x64, rng):
    params, rows = params_of(rng), batch(rng)

    def total(run, scale):
        changed = params | {"scale": scale * params["scale"]}
        return weighed(run(capped, changed, rows, tile=3))

    ours = jax.value_and_grad(functools.partial(total, jxent.map_over_tiles))
    theirs = jax.value_and_grad(functools.partial(total, whole))
    scales = jnp.array([0.5, 2.0])
    wanted = jax.jit(jax.vmap(theirs))(scales)
    close(jax.vmap(ours)(scales), wanted)
    close(lax.scan(lambda _, s: (None, ours(s)), None, scales)[1], wanted)


def test_a_dropped_row_may_hold_anything(x64, rng):
    """In reverse and in forward mode; and a tile of such rows is not run."""
    params, rows = params_of(rng), batch(rng)
    where = jnp.arange(7) % 3 != 1
    hidden = jnp.where(where[:, None], rows["hidden"], jnp.nan)
    spoilt = {"hidden": hidden, "ids": jnp.where(where, rows["ids"], -7)}

    @jax.jit
    def run(rows):
        f = lambda params: weighed(
            jxent.map_over_tiles(capped, params, rows, tile=3, where=where)
        )
        return jax.value_and_grad(f)(params), jax.jvp(f, (params,), (params,))

    close(run(spoilt), run(rows))

    visited = lambda one, rows: one * jnp.ones_like(rows)
    f = lambda one, where: jxent.map_over_tiles(
        visited, one, jnp.arange(8.0), tile=2, where=where
    )
    close(f(1.0, jnp.arange(8) % 3 == 0), jnp.arange(8) % 3 == 0)
    text = jax.jit(f).lower(1.0, jnp.ones(8, bool)).as_text()
    assert "stablehlo.case" in text
    assert "stablehlo.case" not in jax.jit(f).lower(1.0, None).as_text()


def test_closed_over_tracers_have_gradients(x64, rng):
    params, rows = params_of(rng), batch(rng)

    def total(run, kernel):
        fn = lambda scale, rows: capped({"kernel": kernel, "scale": scale}, rows)
        return weighed(run(fn, params["scale"], rows, tile=3))

    ours, theirs = (
        jax.grad(functools.partial(total, run)) for run in (jxent.map_over_tiles, whole)
    )
    close(ours(params["kernel"]), jax.jit(theirs)(params["kernel"]))


# Accuracy and memory ------------------------------------------------------------------


def test_error_does_not_grow_with_the_tiles(rng):
    """A bfloat16 kernel: its tiles' gradients are summed in float32, rounded once."""
    rows, features, classes = 128, 16, 64
    hidden = rng.normal(size=(rows, features)).astype(ml_dtypes.bfloat16)
    kernel = rng.normal(size=(features, classes)).astype(ml_dtypes.bfloat16)
    ids = rng.integers(0, classes, rows)

    def fn(kernel, rows):
        logits = jnp.matmul(rows[0], kernel, preferred_element_type=jnp.float32)
        return jxent.softmax_log_prob(logits, rows[1])

    def gradient(run, kernel, tile):
        f = lambda kernel: jnp.sum(run(fn, kernel, (hidden, ids), tile=tile))
        return as_users_jit(jax.grad(f))(kernel)

    truth = gradient(whole, kernel.astype(np.float32), rows)

    def error(gradient):
        return np.linalg.norm(np.asarray(gradient, np.float32) - truth)

    usual = error(gradient(whole, kernel, rows))
    for tiles in (1, 8, 128):
        ours = gradient(jxent.map_over_tiles, kernel, rows // tiles)
        assert ours.dtype == jnp.bfloat16
        assert error(ours) <= 1.5 * usual


@pytest.mark.compiles
@pytest.mark.parametrize("order", ["gradient", "forward-reverse"])
def test_one_tile_of_logits_at_a_time(order):
    """No array of all rows and classes in the program, in second order neither."""
    rows, features, classes, tile = 512, 32, 4096, 64

    def fn(kernel, rows):
        return jxent.softmax_log_prob(rows[0] @ kernel, rows[1])

    def total(kernel, hidden, ids):
        results = jxent.map_over_tiles(fn, kernel, (hidden, ids), tile=tile)
        return jnp.sum(jnp.sin(results))

    gradient = jax.grad(total, (0, 1))

    def forward_reverse(kernel, hidden, ids):
        f = lambda *point: gradient(*point, ids)
        return jax.jvp(f, (kernel, hidden), (kernel, hidden))

    program = as_users_jit(gradient if order == "gradient" else forward_reverse)
    arguments = (
        jax.ShapeDtypeStruct((features, classes), jnp.float32),
        jax.ShapeDtypeStruct((rows, features), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
    )
    compiled = program.lower(*arguments).compile()
    assert largest_array(str(compiled.as_text())) <= rows * classes // 4
    slab, kernel = 4 * tile * classes, 4 * features * classes
    memory = compiled.memory_analysis()
    assert memory is not None
    slabs = 2 if order == "gradient" else 6
    assert memory.temp_size_in_bytes <= slabs * slab + 4 * kernel


# Models and devices -------------------------------------------------------------------


@pytest.fixture
def defaults():
    """JAX as Flax has it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_a_linen_head(defaults, rng):
    """`model.apply` of a method is the function, its variables are the params."""

    class Model(nn.Module):
        def setup(self):
            self.embed = nn.Embed(CLASSES, FEATURES)
            self.norm = nn.RMSNorm()

        def __call__(self, hidden):
            return self.embed.attend(self.norm(hidden)) / FEATURES**0.5

    model, rows = Model(), batch(rng)
    variables = model.init(jax.random.key(0), rows["hidden"])

    def fn(variables, rows):
        logits = model.apply(variables, rows["hidden"])
        return jxent.softmax_log_prob(logits, rows["ids"])

    total = lambda run, v: weighed(run(fn, v, rows, tile=3))
    runs = jxent.map_over_tiles, whole
    each = lambda v: [jax.grad(functools.partial(total, run))(v) for run in runs]
    ours, theirs = jax.jit(each)(variables)
    close(ours, theirs, 1e-5)


def test_an_nnx_head(defaults, rng):
    """`nnx.split` takes the arrays out of a model, `nnx.merge` puts a tile's back."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.RMSNorm(FEATURES, rngs=rngs)
            self.head = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

        def __call__(self, hidden):
            return self.head(self.norm(hidden))

    rows = batch(rng)

    def total(run, model):
        graph, state = nnx.split(model)

        def fn(state, rows):
            logits = nnx.merge(graph, state)(rows["hidden"])
            return jxent.softmax_log_prob(logits, rows["ids"])

        return weighed(run(fn, state, rows, tile=3))

    model = Model(nnx.Rngs(0))
    ours = nnx.grad(functools.partial(total, jxent.map_over_tiles))(model)
    theirs = nnx.jit(nnx.grad(functools.partial(total, whole)))(model)
    close(jax.tree.leaves(ours), jax.tree.leaves(theirs), 1e-5)


def of_devices(run, closing=False):
    """Results on two devices, each with rows of its own, and what all of them share."""
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P("rows")), "out_specs": P("rows")}

    @functools.partial(jax.shard_map, mesh=mesh, **specs)
    def mapped(params, rows):
        where = rows["ids"] > 0
        if closing:
            fn = lambda kernel, rows: capped(params | {"kernel": kernel}, rows)
            return run(fn, params["kernel"], rows, tile=3, where=where)
        return run(capped, params, rows, tile=3, where=where)

    return mapped


def test_rows_of_devices(x64, rng):
    params, rows = params_of(rng), batch(rng, 8)

    def gradients(run):
        def total(params, hidden):
            return weighed(of_devices(run)(params, rows | {"hidden": hidden}))

        return jax.jit(jax.value_and_grad(total, (0, 1)))(params, rows["hidden"])

    close(gradients(jxent.map_over_tiles), gradients(whole))


# Refusals -----------------------------------------------------------------------------


def test_a_derivative_in_what_devices_share(rng):
    params, rows = params_of(rng), batch(rng, 8)
    f = lambda p: weighed(of_devices(jxent.map_over_tiles, closing=True)(p, rows))
    with pytest.raises(ValueError, match="map_over_tiles") as error:
        jax.eval_shape(jax.grad(f), params)
    assert str(error.value) == (
        "map_over_tiles: expected no derivative in an array of shape (3,) that is "
        "the same on all devices along ['rows'], where the results differ. If the "
        "function closes over it, give it as one of params."
    )
