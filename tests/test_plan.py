"""The planner: what it chooses, that calls do it, and the memory the compiler tells."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from benchmarks.targets import TARGETS
from jxent import LinearLogits, metrics
from jxent._compute.platform import assume_platform
from tests.cases import LOSSES, call_of
from tests.comparing import floats, ints, same_bits
from tests.compiling import as_users_jit


ce = jxent.softmax_cross_entropy
Shape: Any = jax.ShapeDtypeStruct


def shapes(rows, features, classes, hidden=jnp.float32, kernel=jnp.float32, **options):
    """LinearLogits of no values, and class ids."""
    hidden = Shape((rows, features), hidden)
    kernel = Shape((features, classes), kernel)
    return LinearLogits(hidden, kernel, **options), Shape((rows,), jnp.int32)


def parts(plan):
    return plan.function, plan.implementation, plan.block_sizes


# What is chosen -----------------------------------------------------------------------


def test_what_is_asked_for_decides():
    """One number is tiled, rows and statistics are streamed, the small materialized."""
    large, small = shapes(2048, 512, 32768), shapes(64, 32, 1000)
    plan = jxent.plan(ce)
    assert plan(*large, reduction="mean").implementation == "tiled"
    assert plan(*large).implementation == "streamed"
    statistics = jxent.plan(jxent.with_statistics(ce))(*large, reduction="mean")
    assert statistics.implementation == "streamed"
    assert plan(*small, reduction="mean").implementation == "materialized"
    huge = shapes(2048, 4096, 131073, kernel=jnp.bfloat16)
    assert plan(*huge, reduction="sum").implementation == "streamed"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_few_rows_are_materialized_where_that_takes_less(platform):
    """The gradient of a bfloat16 kernel in float32 is 1 GiB, whatever the rows."""
    few, many = (
        jxent.plan(ce, platform=platform)(
            *shapes(rows, 2048, 131072, jnp.bfloat16, jnp.bfloat16), reduction="mean"
        )
        for rows in (1024, 8192)
    )
    assert parts(few) == (ce.__name__, "materialized", (1024, 131072))
    assert many.implementation == "tiled"


def test_platforms_have_blocks_of_their_own():
    logits, labels = shapes(8192, 64, 131072)
    sizes = {
        platform: jxent.plan(ce, platform=platform)(logits, labels).block_sizes
        for platform in ("cpu", "gpu", "tpu")
    }
    assert sizes == {"cpu": (8192, 512), "gpu": (8192, 1024), "tpu": (8192, 1024)}
    assert jxent.plan(ce)(logits, labels).block_sizes == sizes["cpu"]


def loops(function, logits, *labels, **options):
    f = lambda logits, *labels: function(logits, *labels, reduction="mean", **options)
    return "while" in jax.jit(jax.grad(f)).lower(logits, *labels).as_text()


def test_rows_that_may_be_dropped_are_tiled():
    """Tiles of dropped rows are skipped, which materialized logits cannot."""
    logits, labels = shapes(512, 4096, 4352)
    assert loops(ce, logits, labels, ignore_index=-100)
    assert not loops(ce, logits, labels)


def test_padding_of_lists_drops_no_row():
    """`ignore_index` marks places of `SparseLabels`, and changes no plan."""
    logits, _ = shapes(2048, 64, 32768)
    labels = jxent.SparseLabels(Shape((2048, 3), jnp.int32))
    for function, axis in ((ce, -1), (jxent.sigmoid_binary_cross_entropy, -1)):
        plan = functools.partial(jxent.plan(function), logits, labels, axis)
        assert plan(ignore_index=-1) == plan()


def test_what_is_given_is_kept():
    """The block sizes and the implementation of LinearLogits are those of the plan."""
    logits, labels = shapes(
        100, 8, 50, implementation="streamed", block_sizes=(None, 7)
    )
    assert parts(jxent.plan(ce)(logits, labels))[1:] == ("streamed", (100, 7))
    both = jxent.plan(jxent.softmax_kl_divergence)
    for pair in ((logits, shapes(100, 9, 50)[0]), (shapes(100, 9, 50)[0], logits)):
        assert parts(both(*pair))[1:] == ("streamed", (100, 7))


def test_options_that_are_off_change_no_plan():
    """None and the number that switches an option off; shapes stand for arrays."""
    logits, labels = shapes(400, 4096, 8192)
    plan = functools.partial(jxent.plan(ce), logits, labels, reduction="mean")
    off = plan(label_smoothing=None, logit_soft_cap=jnp.inf, class_weights=None)
    assert off == plan()
    assert plan().implementation == "materialized"
    assert plan(logit_soft_cap=30.0).implementation == "tiled"
    soft = jxent.plan(ce)(logits, Shape(logits.shape, jnp.float32), reduction="mean")
    assert soft.implementation == "materialized"
    biased = [
        jxent.plan(ce)(logits.replace(bias=bias), labels, reduction="mean")
        for bias in (Shape((8192,), jnp.float32), jnp.zeros(8192))
    ]
    assert biased[0] == biased[1] == plan()


# Of every function, and of those that call one ----------------------------------------

H, K, Y = floats(64, 16), floats(16, 100), ints(64)
LOGITS = LinearLogits(H, K)
OF_ROWS = {"logits": LOGITS, "labels": Y}
CALLS: dict[Any, dict[str, Any]] = {
    **{x.public: call_of(x, of_head=True) for x in LOSSES if len(x.layouts) > 1},
    jxent.softmax_cross_entropy_sums: OF_ROWS,
    jxent.softmax_statistics: OF_ROWS,
    jxent.softmax_log_prob_at: {"logits": LOGITS, "ids": ints(64, 2)},
    jxent.softmax_log_prob_among: {"logits": LOGITS, "ids": Y, "kept": ints(64, 2)},
    jxent.softmax_top_k: {"logits": LOGITS, "k": 2},
    **{
        getattr(metrics, name): OF_ROWS
        for name in metrics.__all__
        if inspect.isfunction(getattr(metrics, name)) and "brier" not in name
    },
}


def test_every_function_of_linear_logits_is_planned():
    takes = {
        f
        for face in (jxent, metrics)
        for name in face.__all__
        if inspect.isfunction(f := getattr(face, name))
        and next(iter(inspect.signature(f).parameters.values())).annotation == "Logits"
    }
    assert CALLS.keys() == takes


@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
def test_each_function_has_a_plan(function):
    """It names the function, and is that of arrays and of shapes, jitted or not."""
    logits = CALLS[function]["logits"]
    plan = jxent.plan(function)(**CALLS[function])
    assert parts(plan) == (function.__name__, "materialized", logits.shape)
    static = {n: x for n, x in CALLS[function].items() if isinstance(x, int)}
    arrays = {n: x for n, x in CALLS[function].items() if n not in static}
    of_shapes = jax.tree.map(lambda x: Shape(x.shape, x.dtype), arrays)
    f = functools.partial(function, **static)
    assert jxent.plan(f)(**of_shapes) == plan
    assert jxent.plan(jax.jit(f))(**of_shapes | {"logits": logits}) == plan
    of_shapes["logits"] = of_shapes["logits"].replace(
        implementation="streamed", block_sizes=(2, 4)
    )
    assert jxent.plan(f)(**of_shapes).implementation == "streamed"


def in_a_scan(logits, labels):
    def step(total, part):
        hidden, labels = part
        return total + ce(logits.replace(hidden=hidden), labels, reduction="sum"), None

    parts = logits.hidden.reshape(4, 16, -1), labels.reshape(4, 16)
    return jax.lax.scan(step, jnp.zeros(()), parts)[0]


def in_a_vmap(logits, labels):
    rows = logits.replace(hidden=0, kernel=None)
    return jax.vmap(ce, (rows, 0))(logits, labels)


def mean(logits, labels):
    return ce(logits, labels, reduction="mean")


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (mean, 64),
        (jax.grad(mean), 64),
        (jax.jit(jax.value_and_grad(mean)), 64),
        (jax.checkpoint(mean), 64),
        (jax.grad(jax.checkpoint(mean)), 64),
        (in_a_scan, 16),
        (jax.jit(jax.grad(in_a_scan)), 16),
        (in_a_vmap, 1),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_functions_that_call_one_have_its_plan(function, rows):
    plan = jxent.plan(function)(LOGITS, Y)
    assert parts(plan) == (ce.__name__, "materialized", (rows, 100))


def test_what_has_been_traced_before_is_heard():
    """JAX keeps traces of jitted functions: not that of another plan, or of none."""
    function = jax.jit(mean)
    large = shapes(2048, 16, 32768)
    first = function(LOGITS, Y)
    assert jxent.plan(function)(LOGITS, Y).implementation == "materialized"
    assert jxent.plan(function)(*large).implementation == "tiled"
    assert jxent.plan(function)(*large) == jxent.plan(function)(*large)
    platforms = {
        platform: jxent.plan(function, platform=platform)(*large).block_sizes
        for platform in ("cpu", "tpu")
    }
    assert platforms["cpu"] != platforms["tpu"]
    same_bits(function(LOGITS, Y), first)
    text = str(jax.make_jaxpr(function)(*jax.tree.map(np.zeros_like, (LOGITS, Y))))
    jxent.plan(function, platform="tpu")(LOGITS, Y)
    assert str(jax.make_jaxpr(function)(LOGITS, Y)) == text


def test_a_plan_computes_nothing():
    """Neither arrays nor effects: a callback of the function is not called."""
    called = []

    def function(logits, labels):
        jax.debug.callback(lambda: called.append(1))
        return mean(logits, labels)

    jxent.plan(function)(LOGITS, Y)
    jax.effects_barrier()
    assert not called


@pytest.mark.parametrize(
    ("function", "sizes", "options"),
    [
        (ce, (1024, 32, 8192), {"reduction": "mean"}),
        (ce, (1024, 32, 8192), {}),
        (ce, (2048, 32, 4352), {"reduction": "sum", "ignore_index": -100}),
        (jxent.softmax_entropy, (1024, 8, 4096), {}),
        (jxent.softmax_top_k, (1024, 8, 8192), {"k": 4}),
        (jxent.softmax_kl_divergence, (512, 8, 8192), {}),
        (jxent.asymmetric_loss, (512, 8, 8192), {"axis": -1, "reduction": "mean"}),
        (metrics.accuracy, (1024, 8, 8192), {}),
        (metrics.top_k_accuracy, (1024, 8, 8192), {}),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_call_does_what_was_planned(function, sizes, options):
    """It compiles to what it does when the plan is given to the LinearLogits."""
    logits, labels = shapes(*sizes)
    given: dict[str, Any] = {}
    if "labels" in inspect.signature(function).parameters:
        given["labels"] = labels
    if function is jxent.asymmetric_loss:
        given["labels"] = Shape(logits.shape, jnp.bool_)
    if function is jxent.softmax_kl_divergence:
        given["target_logits"] = Shape(logits.shape, jnp.float32)
    plan = jxent.plan(function)(logits, **given, **options)
    kept = logits.replace(
        implementation=plan.implementation, block_sizes=plan.block_sizes
    )

    def text(logits):
        f = jax.jit(functools.partial(function, **options))
        return f.lower(logits, **given).as_text()

    assert text(kept) == text(logits)
    assert jxent.plan(function)(kept, **given, **options) == plan


# Its memory ---------------------------------------------------------------------------


def as_compiled(function, *arrays):
    report = as_users_jit(function).lower(*arrays).compile().memory_analysis()
    assert report is not None
    return report.temp_size_in_bytes


@pytest.mark.compiles
@pytest.mark.parametrize("layout", ["tiled", "streamed", "materialized"])
def test_the_compiler_tells_the_memory(layout):
    """Of the value, and of value and gradients, as of a call that is jitted by hand."""
    logits, labels = shapes(512, 32, 4096, implementation=layout)
    plan = jxent.plan(mean)(logits, labels)
    both = jax.value_and_grad(mean)
    assert plan.temporary_bytes(gradients=False) == as_compiled(mean, logits, labels)
    assert plan.temporary_bytes(gradients=True) == as_compiled(both, logits, labels)


@pytest.mark.compiles
def test_memory_of_losses_of_rows_and_of_options():
    """Arrays of the call are operands; what is no array stays; any result is summed."""
    logits, labels = shapes(512, 32, 4096)
    options = {"class_mask": np.arange(4096) > 3, "label_smoothing": 0.1, "axis": -1}
    plan = jxent.plan(jxent.with_statistics(ce))(logits, labels, **options)
    value, both = (plan.temporary_bytes(gradients=g) for g in (False, True))
    assert value
    assert both
    by_name = jxent.plan(ce)(logits=logits, labels=labels)
    assert by_name.temporary_bytes(gradients=True)
    assert jxent.plan(jxent.softmax_top_k)(logits, 4).temporary_bytes(gradients=False)


def test_a_plan_compiles_nothing(monkeypatch):
    """Nor is memory guessed of what cannot be compiled: for another platform, or inside
    of `shard_map`."""
    logits, labels = shapes(2048, 32, 8192)
    found = []

    def inside(hidden):
        local = logits.replace(hidden=hidden)
        plan = jxent.plan(ce)(local, jnp.zeros(hidden.shape[0], jnp.int32))
        found.append((plan, plan.temporary_bytes(gradients=True)))
        return hidden

    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("rows")
    mapped = jax.shard_map(inside, mesh=mesh, in_specs=rows, out_specs=rows)
    with monkeypatch.context() as patched:
        compile_of = "jax.stages.Lowered.compile"
        patched.setattr(compile_of, lambda *_, **__: pytest.fail("compiled"))
        plan = jxent.plan(mean, platform="tpu")(logits, labels)
        assert plan.temporary_bytes(gradients=True) is None
        kernel = jnp.zeros(logits.kernel.shape)
        logits = logits.replace(kernel=kernel)
        jax.eval_shape(mapped, Shape((2048, 32), jnp.float32))
        jxent.plan(jax.jit(mean))(*shapes(2048, 32, 8192))
    ((plan, taken),) = found
    assert taken is None
    assert plan.temporary_bytes(gradients=True) is None
    assert plan.block_sizes[0] == 1024


def compiled_for_tpu(function, *operands):
    """By the compiler for a TPU v5e that need not be there."""
    pytest.importorskip("libtpu")
    (chip,) = TARGETS["tpu-v5e"].devices(1)
    place = jax.sharding.SingleDeviceSharding(chip)
    placed = jax.tree.map(lambda x: Shape(x.shape, x.dtype, sharding=place), operands)
    with assume_platform("tpu"):
        traced = jax.jit(function).trace(*placed)
    return traced.lower(lowering_platforms=("tpu",)).compile()


def temporaries_on_tpu(function, *operands):
    report = compiled_for_tpu(function, *operands).memory_analysis()
    assert report is not None
    return report.temp_size_in_bytes


@pytest.mark.compiles
@pytest.mark.newest_jax
@pytest.mark.parametrize(
    ("function", "times"),
    [
        (metrics.accuracy, 1),
        (functools.partial(ce, reduction="mean"), 1),
        (lambda logits, labels: jnp.mean(jxent.softmax_top_k(logits, 8)[0]), 2),
    ],
    ids=["accuracy", "cross-entropy", "top k"],
)
def test_how_often_a_tpu_reads_logits_in_memory(function, times):
    logits = Shape((1024, 32768), jnp.float32)
    labels = Shape((1024,), jnp.int32)
    cost = compiled_for_tpu(function, logits, labels).cost_analysis()
    assert cost is not None
    assert cost["bytes accessed"] < 1.05 * times * 4 * logits.size


@pytest.mark.compiles
@pytest.mark.newest_jax
def test_a_smaller_last_block_costs_no_copy_of_the_kernel():
    """Llama 3's vocabulary, streamed on a TPU."""
    logits, labels = shapes(
        8192,
        2048,
        128256,
        jnp.bfloat16,
        jnp.bfloat16,
        implementation="streamed",
        block_sizes=(None, 1024),
    )
    taken = temporaries_on_tpu(jax.value_and_grad(mean), logits, labels)
    assert taken < 16 * 2**20  # of a kernel of 501 MiB


@pytest.mark.compiles
@pytest.mark.newest_jax
def test_several_ids_cost_a_tpu_no_second_slab():
    """Tiled: a scatter into a copy of a group of rows, not of the tile's logits."""
    rows, places = 8192, 16
    logits, labels = shapes(
        rows, 256, 131072, jnp.bfloat16, jnp.bfloat16, implementation="tiled"
    )
    ids, values = jnp.zeros((rows, places), jnp.int32), jnp.ones((rows, places))
    both = jax.value_and_grad(mean)
    several = temporaries_on_tpu(both, logits, jxent.SparseLabels(ids, values))
    one = temporaries_on_tpu(both, logits, labels)
    assert several - one < 64 * 2**20  # of a slab of 512 MiB


@pytest.mark.compiles
@pytest.mark.newest_jax
def test_the_largest_logits_are_found_in_small_blocks_on_a_tpu():
    logits, _ = shapes(8192, 256, 32768, jnp.bfloat16, jnp.bfloat16)
    taken = temporaries_on_tpu(lambda x: jxent.softmax_top_k(x, 64), logits)
    results = 8192 * 64 * (4 + 4)
    assert taken < 4 * results  # of 1 GiB of logits
