"""sum_over_tiles: any head and any loss, in every order, one tile at a time."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import ml_dtypes
import numpy as np
import pytest
from jax import lax

import jxent
from tests import oracles
from tests.compiling import as_users_jit


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

    got = jax.jit(functools.partial(every_order, tiled))(point)
    close(got, jax.jit(functools.partial(every_order, whole))(point))


@pytest.mark.parametrize(("rows", "tile"), [(7, 3), (4, 4), (2, 5), (3, 1), (0, 2)])
def test_sizes(rows, tile, x64, rng):
    """A smaller last tile, one tile, a tile larger than all rows, no rows."""
    loss, params = head("tied", rng)
    rows = batch(rng, rows)

    def both(run):
        f = lambda params: run(loss, tile, params, rows)
        return f(params), jax.grad(lambda p: weighed(f(p)))(params)

    close(jax.jit(functools.partial(both, tiled))(), both(whole))


def test_gradient_of_a_gradient(x64, rng):
    """Reverse over reverse, in params, rows and what the loss closes over."""
    rows = batch(rng)
    a, b = normal(rng, FEATURES, 2), normal(rng, 2, CLASSES)

    def twice(run, base):
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

    base = normal(rng, FEATURES, CLASSES)
    got = jax.jit(functools.partial(twice, tiled))(base)
    close(got, jax.jit(functools.partial(twice, whole))(base))


def test_vmap_and_scan(x64, rng):
    """Several kernels at once, and several batches in a checkpointed scan."""
    rows = batch(rng)
    kernels = normal(rng, 2, FEATURES, CLASSES)
    hidden = normal(rng, 2, ROWS, FEATURES)

    def both(run):
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

    close(jax.jit(functools.partial(both, tiled))(), both(whole))


def test_closed_over_tracers_have_gradients(x64, rng):
    """A temperature that the loss closes over, under grad, jvp and jit."""
    rows, kernel = batch(rng), normal(rng, FEATURES, CLASSES)

    def total(run, scale):
        def loss(kernel, rows):
            return cross_entropy(
                scale * (rows["hidden"] @ kernel), rows["ids"], ignore_index=-1
            )

        return run(loss, 4, kernel, rows)

    scale = jnp.float64(1.5)
    got, wanted = (functools.partial(total, run) for run in (tiled, whole))
    close(jax.jit(jax.value_and_grad(got))(scale), jax.value_and_grad(wanted)(scale))
    close(jax.jvp(got, (scale,), (scale,)), jax.jvp(wanted, (scale,), (scale,)))


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


def largest_array(text):
    """The most elements that any array of a compiled program has."""
    shapes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]+)\]", text)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


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


# Refusals -----------------------------------------------------------------------------

X = jnp.ones((4, 3), jnp.float32)


def call(loss=lambda p, r: jnp.sum(r), rows: Any = X, **options):
    return lambda: jxent.sum_over_tiles(loss, X, rows, **{"tile": 2} | options)


REFUSED = [
    (
        call(loss=lambda p, r: jnp.sum(r, 1)),
        TypeError,
        "sum_over_tiles: expected a loss that returns scalars, sums over the tile's "
        "rows, got shapes [(2,)].",
    ),
    (
        call(loss=lambda p, r: {"a": jnp.sum(r), "b": r}),
        TypeError,
        "sum_over_tiles: expected a loss that returns scalars, sums over the tile's "
        "rows, got shapes [(), (2, 3)].",
    ),
    (
        call(rows=(X, X[:3])),
        ValueError,
        "sum_over_tiles: expected rows with the same number of rows along their first "
        "axis, got shapes [(4, 3), (3, 3)].",
    ),
    (
        call(rows=(X, X[0, 0])),
        ValueError,
        "sum_over_tiles: expected rows with the same number of rows along their first "
        "axis, got shapes [(4, 3), ()].",
    ),
    (
        call(rows=()),
        ValueError,
        "sum_over_tiles: expected rows with the same number of rows along their first "
        "axis, got shapes [].",
    ),
    (
        call(tile=0),
        ValueError,
        "sum_over_tiles: expected a tile of at least one row, got 0.",
    ),
    (
        call(where=jnp.ones(3, jnp.bool_)),
        ValueError,
        "sum_over_tiles: expected where of shape (4,), one for each row, got (3,).",
    ),
    (
        call(where=jnp.ones(4, jnp.float32)),
        TypeError,
        "sum_over_tiles: expected boolean where, got dtype float32. Give factors as "
        "weights, or compare, mask > 0.",
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "text"), REFUSED, ids=[text[16:80] for *_, text in REFUSED]
)
def test_refusals(call, kind, text, monkeypatch):
    """The same type and the same sentence, eagerly and under jit."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for run in (lambda call: call(), jax.eval_shape):
        with pytest.raises(kind) as error:
            run(call)
        assert type(error.value) is kind
        assert str(error.value) == text
