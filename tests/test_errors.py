"""Every sentence with which the library refuses a call, word for word.

Most stand in `refusals.txt`, beside the call.
"""

import builtins
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jxent
from jxent import keras, metrics, torch
from tests import facades, refusals
from tests.cases import LOSSES, call_of
from tests.comparing import floats, ints, refuses, untyped
from tests.refusals import Layer, head


pytestmark = pytest.mark.every_value


@pytest.fixture(autouse=True)
def as_users_call_it(monkeypatch):
    """Without the type checker, which would speak before the library does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.newest_jax
@pytest.mark.parametrize(
    ("call", "error"), refusals.entries().items(), ids=refusals.entries()
)
def test_refusals(call, error):
    """`python -m tests.refusals` writes the errors."""
    kind, _, text = error.partition(": ")
    refuses(lambda: eval(call, refusals.NAMES), getattr(builtins, kind), text)


def test_the_file_is_as_the_command_writes_it():
    """No line of it is lost, and no call stands there twice."""
    text = refusals.FILE.read_text(encoding="utf-8")
    assert refusals.written(text, refusals.entries().__getitem__) == text
    calls = [call for _, calls, _ in refusals.paragraphs(text) for call in calls]
    assert len(calls) == len(refusals.entries())


# Any argument of any function ---------------------------------------------------------

LOGITS = {"logits": floats(4, 3)}
IDS = {"labels": ints(4)}
TWO = {"x": floats(4, 3), "y": floats(4, 3)}


def arguments(face, call):
    """Of a call in the table of a face, without the options that may be left out."""
    parameters = inspect.signature(getattr(face, call.name)).parameters
    needed = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    given = dict(zip(parameters, call.arrays, strict=False))
    return given | {n: x for n, x in call.options.items() if n in needed}


# The arrays of a valid call of every public function.
CALLS: dict[Any, dict[str, Any]] = {
    **{x.public: call_of(x) for x in LOSSES if x.public is x.function},
    **{
        getattr(metrics, name): LOGITS | IDS
        for name in metrics.__all__
        if inspect.isfunction(getattr(metrics, name))
    },
    jxent.softmax_cross_entropy_sums: LOGITS | IDS,
    jxent.softmax_log_prob_at: LOGITS | {"ids": ints(4, 2)},
    jxent.softmax_log_prob_among: LOGITS | {"ids": ints(4), "kept": ints(4, 2)},
    jxent.softmax_statistics: LOGITS | IDS,
    jxent.softmax_top_k: LOGITS | {"k": 2},
    jxent.plan: {"function": jxent.softmax_entropy},
    jxent.with_statistics: {"loss": jxent.softmax_focal_loss},
    jxent.smooth_labels: {"labels": floats(4, 3), "alpha": 0.1},
    jxent.reduce: {"losses": floats(4)},
    jxent.total_weight: IDS,
    jxent.next_token_labels: {"tokens": ints(4)},
    jxent.sequence_weights: {"segment_ids": ints(4)},
    jxent.class_weights_of_counts: {"counts": ints(4)},
    jxent.two_hot_labels: {"values": floats(4), "support": [0.0, 1.0]},
    jxent.fit_temperature: LOGITS | IDS,
    jxent.fit_vector_scaling: LOGITS | IDS,
    jxent.contrastive_cross_entropy: TWO,
    jxent.sigmoid_contrastive_loss: TWO,
    jxent.supervised_contrastive_cross_entropy: {"x": floats(4, 3)} | IDS,
    jxent.ntxent: {"embeddings": floats(4, 3)} | IDS,
    **{
        getattr(face, call.name): arguments(face, call)
        for face, calls in ((torch, facades.TORCH), (keras, facades.KERAS))
        for call in reversed(calls)  # the first of a function stays
        if not call.of_class
    },
}
ELSEWHERE = {jxent.sum_over_tiles, jxent.map_over_tiles}  # test_tiles


def test_every_function_is_called():
    functions = {
        value
        for face in (jxent, metrics, torch, keras)
        for name in face.__all__
        if inspect.isfunction(value := getattr(face, name))
    }
    assert CALLS.keys() == functions - ELSEWHERE


UNUSED = {"options"}  # by torch.linear_cross_entropy
FLAGS = {"entropy", "argmax", "log_target", "from_logits"}
FLAGS |= {"apply_class_balancing", "size_average", "reduce", "symmetric"}
LABELS = {"labels", "target", "y_true"}

# With the arguments that take it.
NONSENSE = [
    (object(), UNUSED),
    ("nonsense", UNUSED),
    ({"a": 1.0}, UNUSED),
    ({1, 2}, UNUSED),
    (Layer(), UNUSED),
    ([1.0, None], UNUSED),
    (np.array(["a", "b"]), UNUSED),
    (1j, UNUSED),
    (True, UNUSED | FLAGS | LABELS | {"where"}),
]


@pytest.mark.parametrize(
    "function", CALLS, ids=lambda f: f"{f.__module__.split('.')[1]}.{f.__name__}"
)
def test_nonsense_is_refused_in_words(function):
    """Whatever stands for an argument: a sentence that names function and argument."""
    for name in inspect.signature(function).parameters:
        for value, taken in NONSENSE:
            if name in taken:
                continue
            options = CALLS[function] | {name: value}
            if name == "normalizer":
                options["reduction"] = "mean"
            with pytest.raises((TypeError, ValueError)) as error:
                function(**options)
            text = str(error.value)
            assert text.startswith(f"{function.__name__}: "), (name, value, text)
            assert name in text or name in LABELS, (name, value, text)


@pytest.mark.parametrize("field", inspect.signature(jxent.LinearLogits).parameters)
def test_nonsense_in_a_field_is_refused_in_words(field):
    """When a loss takes them, and not before: JAX and its users build them of more."""
    for value, _ in NONSENSE:
        logits = head(**untyped({field: value}))
        with pytest.raises((TypeError, ValueError)) as error:
            jxent.softmax_cross_entropy(logits, ints(4))
        assert str(error.value).startswith("softmax_cross_entropy: ")
        assert field in str(error.value), (field, value, str(error.value))


# Axis names ---------------------------------------------------------------------------


def unknown_axis(argument, name, known):
    return (
        f"softmax_cross_entropy: {argument} {name!r} is neither bound by an enclosing "
        f"shard_map nor an axis of the mesh in use (axes: {known}). Set the mesh with "
        "jax.set_mesh, or correct the name; a legacy `with mesh:` is not seen."
    )


def mesh():
    automatic = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((2, 2), ("batch", "vocab"), axis_types=automatic)


@pytest.mark.parametrize("argument", ["class_axis_name", "batch_axis_name"])
def test_a_name_that_the_mesh_does_not_have(argument):
    """The sentence lists the names that the mesh does have."""
    with jax.set_mesh(mesh()), pytest.raises(ValueError, match="model") as error:
        jxent.softmax_cross_entropy(
            floats(4, 6), ints(4), **untyped({argument: "model"})
        )
    assert str(error.value) == unknown_axis(argument, "model", ["batch", "vocab"])


@pytest.mark.parametrize("argument", ["class_axis_name", "batch_axis_name"])
def test_a_name_that_shard_map_does_not_bind(argument):
    """The same where the caller's own shard_map runs over other names."""

    def loss(logits, labels):
        return jxent.softmax_cross_entropy(
            logits, labels, **untyped({argument: "model"})
        )

    split = jax.shard_map(
        loss, in_specs=(P("batch"), P("batch")), out_specs=P("batch"), mesh=mesh()
    )
    with pytest.raises(ValueError, match="model") as error:
        jax.jit(split)(floats(4, 6), ints(4))
    assert str(error.value) == unknown_axis(argument, "model", ["batch", "vocab"])


@pytest.mark.parametrize("implementation", ["streamed", "tiled", "materialized"])
def test_classes_that_do_not_divide_over_the_mesh(implementation):
    with jax.set_mesh(mesh()), pytest.raises(ValueError, match="divide") as error:
        jxent.softmax_cross_entropy(
            jxent.LinearLogits(
                floats(4, 3), floats(3, 7), implementation=implementation
            ),
            ints(4),
            reduction="mean",
            class_axis_name="vocab",
        )
    assert str(error.value) == (
        "softmax_cross_entropy: expected classes that divide evenly over the 2 devices "
        "of mesh axes ('vocab',), got 7. Pad the kernel by 1 classes, and give a "
        "class_mask that is False for them."
    )


@pytest.mark.parametrize(
    "function", [metrics.calibration_error, metrics.reliability_bins]
)
def test_quantiles_need_all_rows(function):
    """Which no device has that a bound name splits them over."""

    def of_part(hidden, labels):
        return function(
            head(hidden), labels, strategy="quantile", batch_axis_name="data"
        )

    with pytest.raises(ValueError, match="quantile") as error:
        jax.vmap(of_part, axis_name="data")(floats(2, 4, 3), ints(2, 4))
    assert str(error.value) == (
        f"{function.__name__}: strategy='quantile' needs all rows, and each device "
        "along ('data',) has a part of them. Give bins their edges, those of "
        "reliability_bins, say."
    )


# What is not refused ------------------------------------------------------------------


def with_arguments(names):
    """Each function of `CALLS` with each of these arguments that it has."""
    both = [
        (function, name)
        for function in CALLS
        for name in names
        if name in inspect.signature(function).parameters
    ]
    assert {name for _, name in both} == {*names}
    ids = [f"{function.__name__}-{name}" for function, name in both]
    return pytest.mark.parametrize(("function", "name"), both, ids=ids)


@with_arguments(["axis"])
def test_an_axis_may_be_an_integer_of_numpy(function, name):
    """It makes the same program."""
    arrays = dict(CALLS[function])
    static = {"k": arrays.pop("k")} if "k" in arrays else {}
    of_axis = lambda arrays, axis: function(**arrays, **static, **{name: axis})
    traced = jax.make_jaxpr(of_axis, static_argnums=1)
    assert str(traced(arrays, np.int64(-1))) == str(traced(arrays, -1))


OFF = {"label_smoothing": None, "z_loss": None, "logit_soft_cap": float("inf")}


@with_arguments(OFF)
def test_an_option_that_is_off_leaves_nothing(function, name):
    """The program is that of a call without the option."""
    f = functools.partial(function, **CALLS[function])
    off = functools.partial(f, **{name: OFF[name]})
    assert str(jax.make_jaxpr(off)()) == str(jax.make_jaxpr(f)())


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 1.5},
        {"z_loss": -1.0},
        {"temperature": -1.0},
        {"logit_soft_cap": -1.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_ranges_of_traced_numbers_are_the_callers(options):
    """A range is checked for Python numbers only, so that options may be traced."""
    ((name, value),) = options.items()

    def loss(value):
        return jxent.softmax_cross_entropy(
            floats(4, 3), ints(4), **untyped({name: value})
        )

    with pytest.raises(ValueError, match=f"expected {name}"):
        loss(value)
    assert jax.eval_shape(loss, jnp.float32(value)).shape == (4,)


@pytest.mark.parametrize(
    ("argument", "shape"),
    [("weights", (4, 1)), ("weights", (1, 5)), ("weights", ()), ("where", (4, 1))],
)
def test_axes_of_size_1_are_stretched(argument, shape):
    """The loss's rank with axes of size 1, or a scalar, is no error."""
    value = jnp.ones(shape, jnp.float32 if argument == "weights" else jnp.bool_)
    loss = jxent.softmax_cross_entropy(
        floats(4, 5, 3), ints(4, 5), **untyped({argument: value})
    )
    assert loss.shape == (4, 5)
