"""map_over_tiles: models as functions of rows; what else it shares with sum_over_tiles
is in tests/test_tiles.py."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jxent
from tests.comparing import close, weighed


FEATURES, CLASSES = 3, 8


def batch(rng, rows=4):
    hidden = jnp.asarray(rng.normal(size=(rows, FEATURES)))
    return {"hidden": hidden, "ids": jnp.asarray(rng.integers(0, CLASSES, rows))}


def whole(fn, params, rows, *, tile):
    return fn(params, rows)


def test_a_dropped_row_may_hold_anything(x64, rng):
    """In reverse and in forward mode."""
    rows, where = batch(rng, 7), np.arange(7) % 3 != 1
    hidden = jnp.where(where[:, None], rows["hidden"], jnp.nan)
    spoilt = {"hidden": hidden, "ids": jnp.where(where, rows["ids"], -7)}
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

    close(run(spoilt), run(rows))


# Models -------------------------------------------------------------------------------


def test_a_linen_head(as_users_have_it, rng):
    """`model.apply` of a method is the function, its variables are the params."""

    class Model(nn.Module):
        def setup(self):
            self.embed = nn.Embed(CLASSES, FEATURES)
            self.norm = nn.RMSNorm()

        def __call__(self, hidden):
            return self.embed.attend(self.norm(hidden)) / FEATURES**0.5

    model, rows = Model(), batch(rng)
    variables = jax.jit(model.init)(jax.random.key(0), rows["hidden"])

    def fn(variables, rows):
        logits = model.apply(variables, rows["hidden"])
        return jxent.softmax_log_prob(logits, rows["ids"])

    total = lambda run, v: weighed(run(fn, v, rows, tile=3))
    runs = jxent.map_over_tiles, whole
    each = lambda v: [jax.grad(functools.partial(total, run))(v) for run in runs]
    ours, theirs = jax.jit(each)(variables)
    close(ours, theirs, 1e-5)


def test_an_nnx_head(as_users_have_it, rng):
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
