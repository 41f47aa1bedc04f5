"""The planner: what it chooses, and the memory it predicts."""

import functools

import jax
import jax.numpy as jnp
import pytest

import jxent
from benchmarks.targets import TARGETS
from tests.compiling import as_users_jit


def shapes(rows, features, classes, hidden=jnp.float32, kernel=jnp.float32):
    return (
        jax.ShapeDtypeStruct((rows, features), hidden),
        jax.ShapeDtypeStruct((features, classes), kernel),
    )


def test_what_is_asked_for_decides():
    """One number is tiled, rows and statistics are streamed, the small materialized."""
    large, small = shapes(2048, 512, 32768), shapes(64, 32, 1000)
    plan = jxent.linear_softmax_plan
    assert plan(*large, reduction="mean").implementation == "tiled"
    assert plan(*large).implementation == "streamed"
    statistics = plan(*large, reduction="mean", return_statistics=True)
    assert statistics.implementation == "streamed"
    assert plan(*small, reduction="mean").implementation == "materialized"
    assert plan(*large, reduction="sum", budget=2**20).implementation == "streamed"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_few_rows_are_materialized_where_that_takes_less(platform):
    """The gradient of a bfloat16 kernel in float32 is 1 GiB, whatever the rows."""
    few, many = (
        jxent.linear_softmax_plan(
            *shapes(rows, 2048, 131072, jnp.bfloat16, jnp.bfloat16),
            reduction="mean",
            platform=platform,
        )
        for rows in (1024, 8192)
    )
    assert few[:2] == ("materialized", (1024, 131072))
    assert few.temporary_bytes == 2**29
    assert many.implementation == "tiled"


def test_rows_that_may_be_dropped_are_tiled():
    """Tiles of dropped rows are skipped, which materialized logits cannot."""
    hidden, kernel = shapes(512, 4096, 4352)
    labels = jax.ShapeDtypeStruct((512,), jnp.int32)

    def loops(**options):
        f = lambda *x: jxent.linear_softmax_cross_entropy(
            *x, reduction="mean", **options
        )
        return "while" in jax.jit(jax.grad(f)).lower(hidden, kernel, labels).as_text()

    assert loops(ignore_index=-100)
    assert not loops()


def test_what_is_settled_is_kept():
    """Block sizes and the implementation given are those of the plan."""
    plan = jxent.linear_softmax_plan(
        *shapes(100, 8, 50), implementation="streamed", block_sizes=(None, 7)
    )
    assert plan[:2] == ("streamed", (100, 7))


def test_the_loss_follows_the_plan():
    """The loss compiles to what the plan says, given or not."""
    hidden, kernel = shapes(1024, 32, 8192)
    plan = jxent.linear_softmax_plan(hidden, kernel, reduction="mean")
    labels = jax.ShapeDtypeStruct((1024,), jnp.int32)

    def text(**options):
        def loss(hidden, kernel, labels):
            return jxent.linear_softmax_cross_entropy(
                hidden, kernel, labels, reduction="mean", **options
            )

        return jax.jit(jax.grad(loss)).lower(hidden, kernel, labels).as_text()

    given = text(implementation=plan.implementation, block_sizes=plan.block_sizes)
    assert text() == given


BIAS = jnp.zeros(16384)
REAL = jnp.arange(16384) < 16380
MANY = {
    "bias": BIAS,
    "class_mask": REAL,
    "label_smoothing": 0.1,
    "logit_soft_cap": 30.0,
    "ignore_index": -100,
}


@pytest.mark.parametrize(
    ("implementation", "dtype", "options"),
    [
        ("tiled", jnp.float32, {}),
        ("tiled", jnp.bfloat16, {}),
        ("tiled", jnp.float32, {"ignore_index": -100}),
        ("tiled", jnp.float32, {"bias": BIAS}),
        ("tiled", jnp.float32, {"class_mask": REAL}),
        ("tiled", jnp.float32, {"label_smoothing": 0.1}),
        ("tiled", jnp.float32, MANY),
        ("streamed", jnp.float32, {}),
        ("streamed", jnp.bfloat16, {}),
        ("streamed", jnp.bfloat16, {"ignore_index": -100}),
        ("streamed", jnp.float32, {"class_mask": REAL}),
        ("streamed", jnp.float32, {"ignore_index": -100}),
        ("materialized", jnp.bfloat16, {}),
        ("materialized", jnp.float32, {"logit_soft_cap": 30.0}),
    ],
    ids=lambda x: "+".join(x) or "plain" if isinstance(x, dict) else None,
)
def test_the_compiler_agrees_on_memory(implementation, dtype, options):
    """The predicted bytes are within 15 % of the compiler's report."""
    hidden, kernel = shapes(1024, 256, 16384, dtype)
    labels = jax.ShapeDtypeStruct((1024,), jnp.int32)
    asked = {"reduction": "mean", "implementation": implementation} | options
    plan = jxent.linear_softmax_plan(hidden, kernel, labels, **asked)

    def loss(hidden, kernel, labels):
        return jxent.linear_softmax_cross_entropy(hidden, kernel, labels, **asked)

    both = as_users_jit(jax.value_and_grad(loss, (0, 1)))
    report = both.lower(hidden, kernel, labels).compile().memory_analysis()
    assert report is not None
    taken = report.temp_size_in_bytes
    assert abs(plan.temporary_bytes - taken) <= 0.15 * taken


def test_options_that_are_off_change_no_plan():
    """None and the number that switches an option off; shapes stand for arrays."""
    large = shapes(2048, 512, 32768)
    plan = functools.partial(jxent.linear_softmax_plan, *large, implementation="tiled")
    plan = functools.partial(plan, reduction="mean")
    assert plan(label_smoothing=None, logit_soft_cap=jnp.inf, bias=None) == plan()
    one = jax.ShapeDtypeStruct((32768,), jnp.float32)
    assert plan(bias=one) == plan(bias=jnp.zeros(32768))
    assert plan(bias=one).temporary_bytes > plan().temporary_bytes
    soft = jax.ShapeDtypeStruct((2048, 32768), jnp.float32)
    assert plan(soft).temporary_bytes > plan().temporary_bytes


def temporaries_on_tpu(function, *operands):
    """Bytes, as the compiler for a TPU v5e that need not be there reports them."""
    pytest.importorskip("libtpu")
    (chip,) = TARGETS["tpu-v5e"].devices(1)
    place = jax.sharding.SingleDeviceSharding(chip)
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), operands
    )
    program = jax.jit(function).trace(*placed).lower(lowering_platforms=("tpu",))
    report = program.compile().memory_analysis()
    assert report is not None
    return report.temp_size_in_bytes


def test_a_smaller_last_block_costs_no_copy_of_the_kernel():
    """Llama 3's vocabulary, streamed on a TPU."""
    labels = jax.ShapeDtypeStruct((8192,), jnp.int32)

    def loss(hidden, kernel, labels):
        return jxent.linear_softmax_cross_entropy(
            hidden,
            kernel,
            labels,
            reduction="mean",
            implementation="streamed",
            block_sizes=(None, 1024),
        )

    taken = temporaries_on_tpu(
        jax.value_and_grad(loss, (0, 1)),
        *shapes(8192, 2048, 128256, jnp.bfloat16, jnp.bfloat16),
        labels,
    )
    assert taken < 16 * 2**20  # of a kernel of 501 MiB


def test_several_ids_cost_a_tpu_no_second_slab(monkeypatch):
    """Tiled: a scatter into a copy of a group of rows, not of the tile's logits."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    rows, places = 8192, 16
    operands = shapes(rows, 256, 131072, jnp.bfloat16, jnp.bfloat16)
    ids, values = jnp.zeros((rows, places), jnp.int32), jnp.ones((rows, places))

    def loss(hidden, kernel, labels):
        return jxent.linear_softmax_cross_entropy(
            hidden, kernel, labels, reduction="mean", implementation="tiled"
        )

    both = jax.value_and_grad(loss, (0, 1))
    several = temporaries_on_tpu(both, *operands, jxent.SparseLabels(ids, values))
    one = temporaries_on_tpu(both, *operands, jax.ShapeDtypeStruct((rows,), jnp.int32))
    assert several - one < 64 * 2**20  # of a slab of 512 MiB


def test_the_largest_logits_are_found_in_small_blocks_on_a_tpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    taken = temporaries_on_tpu(
        lambda hidden, kernel: jxent.linear_softmax_top_k(hidden, kernel, 64),
        *shapes(8192, 256, 32768, jnp.bfloat16, jnp.bfloat16),
    )
    results = 8192 * 64 * (4 + 4)
    assert taken < 4 * results  # of 1 GiB of logits
