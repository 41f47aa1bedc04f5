"""Choices by platform: which form is run, and which blocks are chosen.

Other tests run the forms of a GPU and a TPU on a CPU: see `each_platform`.
"""

import jax
import jax.numpy as jnp
import pytest

import jxent
from jxent._compute.platform import assume_platform, by_platform, platform_of


pytestmark = pytest.mark.newest_jax

PLATFORMS = "cpu", "gpu", "tpu"
NUMBERS = {"cpu": 1.25, "gpu": 2.25, "tpu": 3.25}


def number(x):
    """x times the number of the platform; its derivative says so too."""
    forms = {name: lambda x, n=n: n * x for name, n in NUMBERS.items()}
    return by_platform(x, default=lambda x: 4.25 * x, **forms)


def test_what_is_jitted_is_traced_again_for_another_platform():
    """Value and derivative; what was made before is used again where it fits."""
    traced = []

    @jax.jit
    def both(x):
        traced.append(x)
        return jax.value_and_grad(number)(x)

    def run():
        return tuple(map(float, both(1.0)))

    for _ in range(2):
        assert run() == (1.25, 1.25)
        for platform in PLATFORMS:
            with assume_platform(platform):
                assert run() == (NUMBERS[platform],) * 2
                with assume_platform(None):
                    assert run() == (NUMBERS[platform],) * 2
        assert run() == (1.25, 1.25)
    assert len(traced) == 4


@pytest.mark.every_value
@pytest.mark.parametrize("compiler", ["cpu", "cuda", "rocm", "tpu"])
def test_each_compiler_gets_its_form(compiler):
    numbers = NUMBERS | dict.fromkeys(("cuda", "rocm"), NUMBERS["gpu"])
    traced = jax.jit(number).trace(1.0)
    text = traced.lower(lowering_platforms=(compiler,)).as_text()
    found = [n for n in (*NUMBERS.values(), 4.25) if f"<{n:e}" in text]
    assert found == [numbers[compiler]]


def test_a_form_that_is_the_default_is_no_choice():
    same = lambda x: x
    f = lambda x: by_platform(x, cpu=same, tpu=same, default=same)
    assert "platform" not in str(jax.make_jaxpr(f)(1.0))


@pytest.mark.each_platform
def test_a_test_runs_the_forms_of_its_platform(request):
    """What it traces and what it compiles, without `assume_platform` of its own."""
    asked = request.node.callspec.params["platform"] or "cpu"
    assert platform_of(()) == asked
    assert jax.jit(number)(1.0) == NUMBERS[asked]


# Sizes, which are chosen when a program is traced -------------------------------------


@pytest.fixture
def beside_a_tpu(monkeypatch):
    """JAX runs on a TPU by default; these devices are CPUs."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")


def on_a_cpu(shape):
    return jax.device_put(jnp.ones(shape), jax.devices()[1])


def test_what_a_trace_knows_of_its_platform(beside_a_tpu):
    """Arrays that are bound to a device, the mesh in context, the default device."""
    bound = on_a_cpu((4,))
    free = jnp.ones(4)
    assert platform_of(free) == "tpu"
    assert platform_of((free, None, bound)) == "cpu"
    assert platform_of(jax.ShapeDtypeStruct((4,), jnp.float32)) == "tpu"
    found = []
    note = lambda x, y: found.append(platform_of((x, y))) or jnp.vdot(x, y)
    jax.jit(note)(free, bound)  # where it lies is no part of what jit traces for
    jax.grad(note)(free, bound)
    jax.grad(note)(bound, free)
    assert found == ["tpu", "cpu", "tpu"]
    devices = jax.devices()
    mesh = jax.sharding.Mesh(devices, "x", (jax.sharding.AxisType.Auto,))
    contexts = (
        jax.set_mesh(mesh),
        jax.default_device(devices[1]),
        jax.default_device("cpu"),
    )
    for context in contexts:
        with context:
            found.clear()
            jax.jit(lambda x: note(x, x))(free)
            assert (platform_of(free), found) == ("cpu", ["cpu"])
            with assume_platform("gpu"):
                assert platform_of(bound) == "gpu"


def blocks_of_a_head(hidden, kernel):
    labels = jnp.zeros(len(hidden), int)
    logits = jxent.LinearLogits(hidden, kernel)
    return jxent.plan(jxent.softmax_cross_entropy)(logits, labels).block_sizes


def blocks_of_pairs(x, y):
    """How many rows a block of the matrix has."""
    loss = lambda: jxent.contrastive_cross_entropy(x, y)
    text = str(jax.make_jaxpr(loss)())
    return [rows for rows in (512, 1024) if f"f32[{rows},2048]" in text]


@pytest.mark.every_value
@pytest.mark.parametrize("blocks", [blocks_of_a_head, blocks_of_pairs])
def test_blocks_are_those_of_the_device_that_computes(blocks, beside_a_tpu):
    sizes = ((2048, 4), (4, 8192)) if blocks is blocks_of_a_head else [(2048, 4)] * 2
    bound, free = ([*map(make, sizes)] for make in (on_a_cpu, jnp.ones))
    with assume_platform("cpu"):
        of_cpu = blocks(*free)
    assert blocks(*bound) == of_cpu != blocks(*free)
    assert blocks(bound[0], free[1]) == of_cpu
    with jax.default_device(jax.devices()[1]):
        assert blocks(*free) == of_cpu
    for platform in ("gpu", "tpu"):
        with assume_platform(platform):
            assert blocks(*bound) == blocks(*free) != of_cpu
