"""LinearLogits: in every layout the loss that logits in memory give."""

import functools

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jxent
from jxent._layouts import choice
from tests.cases import FOCAL, LOSSES, ON_SOFTMAX, POLY, SOFTMAX, shares
from tests.comparing import close
from tests.heads import (
    IN_MEMORY,
    MATERIALIZED,
    STREAMED,
    STREAMED_TABLE,
    TILED,
    TILED_TABLE,
    call,
    every_order,
    floats_of,
    in_layouts,
    name_of,
    over,
    pick,
    problem,
    value_and_gradient,
)
from tests.meshes import mesh_of


EVERY = MATERIALIZED, STREAMED, TILED
NOT_LINEAR_IN_LOG_P = {
    jxent.softmax_focal_loss: FOCAL,
    jxent.poly_loss_cross_entropy: POLY,
}


# Values and gradients -----------------------------------------------------------------

IGNORED = {"ignore_index": -100}
EVERYTHING = (
    "hidden kernel bias class_mask class_weights weights temperature label_smoothing "
    "z_loss logit_soft_cap where "
)


@pytest.mark.newest_jax
@pytest.mark.parametrize("kind", ["ids", "distributions"])
@over(*EVERY)
def test_every_option_in_every_order(layout, kind, x64, rng):
    """Forward, reverse and second order, in every floating argument at once."""
    arguments = pick(problem(rng), EVERYTHING + kind)
    options = {"reduction": "none" if layout is STREAMED else "mean"}
    if kind == "ids":  # a smaller block after each loop
        options, layout = options | IGNORED, layout._replace(block_sizes=(4, 3))
    else:
        layout = layout._replace(vocab_axis=0)

    def results(layout, x, direction):
        return every_order(
            lambda x: call(layout, arguments | x, **options), x, direction
        )

    x = floats_of(arguments)
    direction = {k: rng.normal(size=value.shape) for k, value in x.items()}
    close(*in_layouts(results, (layout, IN_MEMORY), x, direction))


@pytest.mark.newest_jax
@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        (STREAMED, "ids margin"),
        (TILED, "ids margin"),
        (MATERIALIZED, "ids margin label_smoothing"),
        (TILED_TABLE, "ids margin label_smoothing"),
        (TILED, "distributions"),
    ],
    ids=name_of,
)
def test_formulas_in_every_order(layout, kind, x64, rng):
    """Those that are not linear in log p, in hidden states, kernel and bias."""
    fixed = EVERYTHING.replace(" label_smoothing", "") + kind
    arguments, options = pick(problem(rng, (4,)), fixed), {"reduction": "mean"}
    options |= IGNORED if "ids" in kind else {}
    layout = layout._replace(block_sizes=(2, 4))

    def results(layout, x, direction):
        def losses(x):
            each = NOT_LINEAR_IN_LOG_P.items()
            return [call(layout, arguments | x, f, **options, **own) for f, own in each]

        return every_order(losses, x, direction)

    x = pick(arguments, "hidden kernel bias")
    direction = {k: rng.normal(size=value.shape) for k, value in x.items()}
    close(*in_layouts(results, (layout, IN_MEMORY), x, direction))


@pytest.mark.newest_jax
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("kind", "platform"),
    [
        ("ids", None),
        ("distributions", None),
        ("several_ids values", None),
        pytest.param("several_ids values", "tpu", marks=pytest.mark.beyond_core),
    ],
    indirect=["platform"],
    ids=["ids", "distributions", "several ids", "several ids on a tpu"],
)
def test_a_tile_is_taken_by_groups_of_rows(kind, devices, x64, rng, monkeypatch):
    """On a CPU, where options act on logits; on a TPU, for several ids a row.

    On each of the devices, too.
    """
    # Groups as small as they come: of four rows, and of three, in each tile of seven.
    for name in choice.GROUP:
        monkeypatch.setitem(choice.GROUP, name, 0)
    names = EVERYTHING + "class_where " * (devices == 1) + kind
    arguments = pick(problem(rng, (14 * devices,), features=2), names)
    x, options = floats_of(arguments), {"reduction": "mean"}
    options |= IGNORED if kind == "ids" else {}

    def both(layout, **options):
        return jax.value_and_grad(lambda x: call(layout, arguments | x, **options))

    wanted = jax.jit(both(MATERIALIZED, **options))(x)
    options |= {"batch_axis_name": "data"} if devices > 1 else {}
    with jax.set_mesh(mesh_of((devices, 1))):
        tiled = TILED._replace(block_sizes=(7, 3))
        lowered = jax.jit(both(tiled, **options)).lower(x)
        close(lowered.compile()(x), wanted)
        text = lowered.as_text()
    assert all(f"tensor<{rows}x8xf64>" in text for rows in (4, 3))


SHAPES = {
    "blocks of 1": ((3,), 2, 3, (1, 1)),
    "few rows": ((2,), 3, 8, (3, 4)),
    "one row": ((), 3, 5, (3, 4)),
    "few classes": ((4,), 3, 2, (2, 4)),
    "many features": ((4,), 37, 6, (2, 3)),
    "no rows of several": ((2, 0), 3, 5, (3, 4)),
    "default blocks": ((5,), 3, 7, (None, None)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_any_size(shape, x64, rng):
    """Blocks that do not divide, or are larger than what they are blocks of."""
    *sizes, blocks = SHAPES[shape]
    arguments = pick(problem(rng, *sizes), "hidden kernel bias ids")
    reductions = {
        "streamed": ["none"],
        "tiled": ["mean"],
        "in memory": ["none", "mean"],
    }

    def results(layout, x):
        def each(reduction):
            how = {"ignore_index": -100, "reduction": reduction}
            cut = layout._replace(block_sizes=blocks)
            return value_and_gradient(lambda x: call(cut, arguments | x, **how), x)

        return {name: each(name) for name in reductions[layout.implementation]}

    layouts = STREAMED, TILED_TABLE, IN_MEMORY
    rows, mean, wanted = in_layouts(results, layouts, floats_of(arguments))
    close(rows | mean, wanted)


@pytest.mark.newest_jax
def test_statistics_of_a_stream(x64, rng):
    """Each field of each row, with the ties of an argmax and a dropped row."""
    arrays = problem(rng)
    arrays["hidden"][2] = 0
    arrays["bias"][[1, 6]] = arrays["bias"].max()
    base = pick(arrays, "hidden kernel bias class_mask temperature")
    of_ids = base | pick(arrays, "ids class_weights")
    every = {"entropy": True, "argmax": True}

    def results(layout):
        f = functools.partial(call, layout, function=jxent.softmax_statistics)
        ignored = functools.partial(f, ignore_index=-100, **every)
        return (
            value_and_gradient(lambda x: ignored(of_ids | x), floats_of(of_ids)),
            f(base | pick(arrays, "distributions"), **every),
            f(base),
        )

    close(*in_layouts(results, (STREAMED._replace(block_sizes=(None, 4)), IN_MEMORY)))


@pytest.mark.newest_jax
@over(STREAMED, TILED)
def test_vmap_of_gradients(layout, x64, rng):
    """Of several heads on the same rows, and of one head on several batches."""
    arguments = pick(problem(rng), "hidden kernel bias ids")
    x = floats_of(arguments)
    heads = {k: v if k == "hidden" else np.stack([v, 2 * v]) for k, v in x.items()}
    batches = x | {"hidden": np.stack([x["hidden"], -x["hidden"]])}

    def results(layout):
        how = {"ignore_index": -100, "reduction": "mean"}
        loss = lambda x: call(layout, arguments | x, **how)
        each = functools.partial(value_and_gradient, loss)
        axes = {k: None if k == "hidden" else 0 for k in x}
        others = {k: 0 if k == "hidden" else None for k in x}
        return jax.vmap(each, (axes,))(heads), jax.vmap(each, (others,))(batches)

    close(*in_layouts(results, (layout, IN_MEMORY)))


@pytest.mark.newest_jax
@over(STREAMED, TILED)
def test_gradient_of_a_gradient(layout, x64, rng):
    """Reverse over reverse, in the arguments of a whole head, weights and z_loss."""
    arguments = pick(problem(rng), "hidden kernel bias ids weights z_loss")

    def results(layout):
        how = IGNORED | {"reduction": "mean"}
        loss = lambda x: call(layout, arguments | x, **how)
        gradient = lambda x: value_and_gradient(loss, x)[1]
        return value_and_gradient(gradient, floats_of(arguments))[1]

    close(*in_layouts(results, (layout, IN_MEMORY)))


@over(STREAMED_TABLE, TILED)
def test_weights_that_look_like_an_array(layout, rng):
    """The inputs and the other options do in tests/test_family.py."""
    arguments = pick(problem(rng), "hidden kernel bias distributions")
    weights = np.linspace(0.5, 2, 6, dtype=np.float32)
    loss = functools.partial(call, layout, arguments, reduction="sum")
    of = (
        weights,
        weights.tolist(),
        nnx.Param(jnp.asarray(weights)),
        jnp.asarray(weights),
    )
    first, *others = (np.asarray(loss(weights=x)).tobytes() for x in of)
    assert others == [first] * 3


@over(*EVERY)
def test_is_one_call(layout):
    """Outside of jit one compiled function runs, whatever the shapes."""
    arguments = {"hidden": jnp.ones((2, 3, 4)), "kernel": jnp.ones((4, 8))}
    arguments |= {"ids": jnp.zeros((2, 3), int), "where": jnp.ones((2, 1), bool)}
    traced = jax.make_jaxpr(lambda a: call(layout, a, reduction="mean"))(arguments)
    assert [str(eqn.primitive) for eqn in traced.eqns] in (["jit"], ["pjit"])


# Rows and classes that hold anything --------------------------------------------------


@over(STREAMED, TILED)
def test_infinite_biases_and_a_hidden_state_of_nan(layout, x64, rng):
    """A bias of −inf is a class that is masked, and +inf as a label's own; with a
    gradient. A hidden state of NaN spoils the loss and the gradient of its row."""
    names = "hidden kernel bias ids weights where class_mask"
    arguments = pick(problem(rng), names)
    arguments["ids"][:] = [0, 1, 3, 4, 6, 0]
    arguments["where"][:] = True
    reduction = "none" if layout is STREAMED else "sum"

    @jax.jit
    def run(arguments):
        options = {"ignore_index": -100, "reduction": reduction, "z_loss": 0.01}
        loss = lambda x: call(layout, arguments | x, **options)
        moving = {k: x for k, x in arguments.items() if x.dtype == jnp.float64}
        value, pull = jax.vjp(loss, moving)
        return value, pull(jnp.ones_like(value))[0]

    arguments["bias"][[2, 5]] = -np.inf
    mask = arguments["class_mask"] & np.isfinite(arguments["bias"])
    finite = {"class_mask": mask, "bias": np.where(mask, arguments["bias"], 0)}
    close(run(arguments), run(arguments | finite))

    arguments["ids"][1] = 2
    value, gradients = jax.device_get(run(arguments))
    assert (value[1] if layout is STREAMED else value) == np.inf
    assert np.isfinite(gradients["hidden"]).all()
    assert np.isfinite(gradients["kernel"]).all()

    arguments["ids"][1] = 1
    arguments["hidden"][2, 1] = np.nan
    value, gradients = jax.device_get(run(arguments))
    is_bad = np.arange(6) == 2
    in_hidden = np.isnan(gradients["hidden"])
    np.testing.assert_array_equal(in_hidden, np.repeat(is_bad[:, None], 3, 1))
    assert np.isfinite(gradients["hidden"][~is_bad]).all()
    np.testing.assert_array_equal(
        np.isnan(value), is_bad if layout is STREAMED else True
    )


@pytest.mark.keep("tiled")
@over(*EVERY)
def test_a_masked_class_may_have_any_bias(layout, x64, rng):
    """NaN there changes no loss and no gradient, under a soft cap too."""
    names = "hidden kernel bias class_mask logit_soft_cap weights where"
    arguments = pick(problem(rng), names) | {"ids": np.array([0, 1, 3, 4, 6, 2])}
    layout = layout._replace(block_sizes=(2, 3))

    @jax.jit
    def run(x):
        loss = lambda x: call(layout, arguments | x, reduction="sum", z_loss=0.01)
        return jax.value_and_grad(loss)(x)

    x = floats_of(arguments)
    wanted = run(x)
    x["bias"][7] = np.nan
    close(run(x), wanted)


@pytest.mark.every_value
@pytest.mark.parametrize(
    "option", ["ignore_index", "where", "class_where", "weights", "none"]
)
@over(STREAMED, TILED)
def test_a_condition_only_where_rows_can_be_dropped(layout, option):
    """lax.cond around tiles, in the value and in the derivative, or none at all."""
    options = {
        "ignore_index": IGNORED,
        "where": {"where": np.ones(6, bool)},
        "class_where": {"where": np.ones((6, 8), bool)},
        "weights": {"weights": np.ones(6, np.float32)},
        "none": {"z_loss": 0.1},
    }[option]

    def loss(*head):
        arguments = dict(zip(("hidden", "kernel"), head, strict=True))
        arguments |= {"ids": jnp.zeros(6, jnp.int32), "reduction": "mean"}
        return call(layout, arguments | options)

    head = jnp.ones((6, 3), jnp.float32), jnp.ones((3, 8), jnp.float32)
    for f in (loss, jax.grad(loss, (0, 1))):
        text = str(jax.make_jaxpr(f)(*head))
        by_platform = text.count("branches_platforms=")
        assert (text.count(" cond[") > by_platform) == (option != "none")


@over(STREAMED, TILED)
def test_checkify_names_a_bad_label(layout):
    """The label and the class count, with and without a gradient, or nothing."""
    hidden, kernel = np.ones((6, 3), np.float32), np.ones((3, 8), np.float32)

    def step(hidden, labels):
        arguments = {"hidden": hidden, "kernel": kernel, "ids": labels}
        return call(layout, arguments, ignore_index=-100, reduction="mean")

    # A tiled value alone is another program.
    for f in (jax.value_and_grad(step), step)[: 1 + (layout is TILED)]:
        assert not jax.make_jaxpr(f)(hidden, np.zeros(6, np.int32)).effects
        run = jax.jit(checkify.checkify(jax.jit(f)))
        for label in (8, -1, -100, 7):
            labels = np.array([0, 1, label, 2, 3, 4], np.int32)
            message = run(hidden, labels)[0].get()
            if label in (8, -1):
                assert (
                    "expected labels in [0, 8) and on a class that is not masked, got "
                    f"label {label}. Mark rows to skip with ignore_index or where."
                ) in (message or "")
            else:
                assert message is None


@over(MATERIALIZED, STREAMED)
def test_top_1_is_accuracy(layout, rng):
    """It streams as accuracy does: no row needs all of its logits."""
    arguments = pick(problem(rng), "hidden kernel bias ids weights class_mask")
    z = arguments["hidden"] @ arguments["kernel"] + arguments["bias"]
    arguments["ids"][:3] = z[:3, :-1].argmax(-1)  # the last class is masked
    arguments["ids"][3:] = z[3:, :-1].argmin(-1)
    top_1 = functools.partial(jxent.metrics.top_k_accuracy, k=1)
    metrics = jxent.metrics.accuracy, top_1
    got = jax.jit(lambda: [call(layout, arguments, f) for f in metrics])()
    weights = arguments["weights"]
    close(got, [weights[:3].sum() / weights.sum()] * 2, 1e-6)


# What a layout cannot give ------------------------------------------------------------


@pytest.mark.parametrize("needs", ["label_smoothing", shares])
@pytest.mark.parametrize(
    "loss", [x for x in LOSSES if x.takes == SOFTMAX], ids=lambda x: x.name
)
def test_tiles_are_planned_where_a_stream_is_refused(loss, needs, rng):
    """Which has no sum over every log p of a row."""
    floats = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    own = {k: x for k, x in loss.options.items() if k not in ON_SOFTMAX}
    of_ids = needs == "label_smoothing"
    labels = floats((4096,), dtype=jnp.int32) if of_ids else floats((4096, 4096))
    f = functools.partial(loss.function, **own, label_smoothing=0.1 * of_ids)
    logits = jxent.LinearLogits(floats((4096, 8)), floats((8, 4096)))
    mean = functools.partial(f, reduction="mean")
    assert jxent.plan(mean)(logits, labels).implementation == "tiled"
    assert jax.eval_shape(mean, logits, labels).shape == ()
    streamed = logits.replace(implementation="streamed")
    if needs not in loss.not_streamed:
        assert jax.eval_shape(f, streamed, labels).shape == (4096,)
        return
    for of_rows in (f, mean):
        with pytest.raises(ValueError, match="need every log p of a row") as error:
            jax.eval_shape(of_rows, streamed, labels)
        assert str(error.value).startswith(f"{loss.name}: label smoothing and ")
