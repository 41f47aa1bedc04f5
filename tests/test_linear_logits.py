"""LinearLogits as a value: a pytree that models return and losses take."""

import copy
import dataclasses
import functools
import itertools
import pickle
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export
from jax.sharding import PartitionSpec as P

import jxent
from jxent import LinearLogits
from tests.comparing import close, same_bits
from tests.meshes import NAMES, on_mesh


pytestmark = pytest.mark.newest_jax

ROWS, TIME, FEATURES, CLASSES = 2, 3, 4, 5
LABELS = np.array([[0, 4, 2], [1, -100, 3]], np.int32)
mean_loss = functools.partial(
    jxent.softmax_cross_entropy, ignore_index=-100, reduction="mean"
)


@pytest.fixture
def logits(rng):
    """float32, with every field set."""
    shapes = (ROWS, TIME, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    return LinearLogits(
        *(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes),
        vocab_axis=0,
        precision="highest",
        block_sizes=(2, 4),
        implementation="streamed",
    )


def product(logits):
    """In NumPy, where the fields are its arrays."""
    kernel = logits.kernel.T if logits.vocab_axis == 0 else logits.kernel
    z = logits.hidden @ kernel
    return z if logits.bias is None else z + logits.bias[None, None]


# The value ----------------------------------------------------------------------------


def test_it_is_a_tree_of_its_arrays(logits):
    """The rest is static, and equal trees are those of equal fields."""
    paths, tree = jax.tree.flatten_with_path(logits)
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [
        ".hidden",
        ".kernel",
        ".bias",
    ]
    leaves = [x for _, x in paths]
    for field in dataclasses.fields(logits):
        assert getattr(jax.tree.unflatten(tree, leaves), field.name) is getattr(
            logits, field.name
        )
    assert len(jax.tree.leaves(logits.replace(bias=None))) == 2
    of = lambda **fields: jax.tree.structure(LinearLogits(1.0, 2.0, **fields))
    assert of(vocab_axis=1) == of(vocab_axis=-1) == of()
    assert of(vocab_axis=-2) == of(vocab_axis=np.int64(0)) != of()
    assert of(block_sizes=[2, None]) == of(block_sizes=(2, None))
    for name in ("vocab_axis", "precision", "block_sizes", "implementation"):
        other = logits.replace(**{name: None if name != "vocab_axis" else -1})
        assert jax.tree.structure(other) != tree


def test_it_holds_what_a_tree_may_hold(logits):
    """Specs, axes, shapes, booleans, None: nothing is checked when it is built."""
    for leaf in (P("data"), 0, None, True, jax.ShapeDtypeStruct((2,), jnp.int32)):
        made = LinearLogits(leaf, leaf, leaf)
        assert made.hidden is made.kernel is made.bias is leaf
    axes = logits.replace(hidden=0, kernel=None, bias=None)
    assert (axes.hidden, axes.kernel, axes.implementation) == (0, None, "streamed")


def test_it_cannot_be_changed_hashed_or_iterated(logits):
    with pytest.raises(dataclasses.FrozenInstanceError):
        logits.kernel = logits.hidden
    with pytest.raises(TypeError, match="unhashable type: 'LinearLogits'"):
        hash(logits)
    with pytest.raises(ValueError, match="Non-hashable static arguments"):
        jax.jit(jxent.softmax_entropy, static_argnums=0)(logits)
    for ask in (iter, list, len, reversed, lambda x: 0 in x, lambda x: x + 1):
        with pytest.raises(TypeError):
            ask(logits)


def test_its_text_has_shapes_and_what_differs_from_the_defaults(logits):
    assert repr(logits) == (
        "LinearLogits(hidden=float32[2,3,4], kernel=float32[5,4], bias=float32[5], "
        "vocab_axis=0, precision='highest', block_sizes=(2, 4), "
        "implementation='streamed')"
    )
    few = LinearLogits(P("data"), jax.ShapeDtypeStruct((3, 2), jnp.bfloat16))
    assert repr(few) == f"LinearLogits(hidden={P('data')!r}, kernel=bfloat16[3,2])"


def test_shape_and_dtype_are_those_of_the_logits(x64, logits):
    """float32, where a layer in bfloat16 gives bfloat16 logits; or float64."""
    single, double = jnp.float32, jnp.float64
    of = lambda x, dtype: jax.ShapeDtypeStruct(x.shape, dtype)
    dtypes = (jnp.bfloat16, single, double), (jnp.float16, single, double)
    for h, k in itertools.product(*dtypes):
        some = logits.replace(hidden=of(logits.hidden, h), kernel=of(logits.kernel, k))
        z = jax.eval_shape(LinearLogits.materialize, some)
        assert (some.shape, some.ndim, some.dtype) == (z.shape, z.ndim, z.dtype)
        assert z.dtype == (double if double in (h, k) else single)
        assert z.shape == (ROWS, TIME, CLASSES)
    table = logits.replace(kernel=logits.kernel.T, vocab_axis=-1)
    assert table.shape == logits.shape


EVERY, EVEN = slice(None), np.arange(6).reshape(2, 3) % 2 == 0
INDICES: list[Any] = [
    *(0, -1, np.int64(1), slice(1, None), None, Ellipsis, (), np.array([1, 0, 1])),
    *((0, 1), (0, ...), (..., EVERY), (EVERY, 0, EVERY), (..., 1, EVERY)),
    *((None, 0), (EVERY, None, 1), (EVERY, EVERY, None), (1, np.array([0, 2]))),
    *(EVEN, EVEN[:, 0], (EVERY, EVEN[0])),
]
OF_CLASSES: list[Any] = [
    *((0, 0, 0), (0, 0, 0, 0), (..., 0), (..., None), (..., EVERY, 0)),
    *((EVERY, EVERY, slice(1, None)), np.ones((2, 3, 4), bool)),
]


def test_an_index_takes_rows(logits):
    @jax.jit
    def run(logits):
        some = [logits[index] for index in INDICES]
        assert all(x.kernel is logits.kernel for x in some)
        assert {*map(jax.tree.structure, some)} == {jax.tree.structure(logits)}
        return [x.materialize() for x in some]

    z = product(jax.device_get(logits))
    for index, got in zip(INDICES, run(logits), strict=True):
        np.testing.assert_allclose(got, z[index], 1e-6, 1e-6, err_msg=repr(index))


@pytest.mark.every_value
@pytest.mark.parametrize("index", OF_CLASSES, ids=repr)
def test_an_index_takes_no_classes(index, logits):
    with pytest.raises(IndexError) as error:
        logits[index]
    assert str(error.value) == (
        "LinearLogits of shape (2, 3, 5) are indexed by rows, of shape (2, 3), got "
        f"{index!r}. To take classes, index kernel and bias."
    )


def test_rows_have_the_losses_of_all_rows(logits):
    losses = functools.partial(jxent.softmax_cross_entropy, ignore_index=-100)
    indices = (0, (slice(None), 1), LABELS == 3)
    run = jax.jit(
        lambda x: (losses(x, LABELS), [losses(x[i], LABELS[i]) for i in indices])
    )
    whole, some = jax.device_get(run(logits))
    close(some, [whole[i] for i in indices], 1e-6)


def test_replace(logits):
    other = logits.replace(kernel=logits.kernel.T, vocab_axis=1, bias=None)
    assert (other.vocab_axis, other.bias, other.precision) == (-1, None, "highest")
    assert logits.vocab_axis == 0
    with pytest.raises(TypeError, match="unexpected keyword argument 'kernels'"):
        logits.replace(kernels=1)


def test_materialized_it_is_the_product(logits):
    logits = jax.device_get(logits)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), logits)
    several = logits, LinearLogits(logits.hidden, logits.kernel.T), low
    total = lambda f: lambda x: jnp.sum(jnp.sin(f(x)))
    slopes = [jax.grad(total(f)) for f in (LinearLogits.materialize, product)]
    run = jax.jit(
        lambda several: (
            [x.materialize() for x in several],
            [slope(several[0]) for slope in slopes],
        )
    )
    formed, slopes = run(several)
    for z, some in zip(formed, several, strict=True):
        close(z, product(jax.tree.map(np.float32, some)), 1e-6)
    close(*slopes, tolerance=1e-5)
    with pytest.raises(ValueError, match="transpose give vocab_axis=0") as error:
        logits.replace(vocab_axis=-1).materialize()
    assert str(error.value).startswith("LinearLogits.materialize: expected hidden of ")


def test_it_becomes_no_array_in_silence(logits):
    """But for `jnp.zeros_like`, which asks for shape and dtype alone."""
    for to_array in (np.asarray, jnp.asarray, np.sum, jnp.exp):
        with pytest.raises(TypeError, match="LinearLogits are not an array: "):
            to_array(logits)
    assert jnp.zeros_like(logits).shape == jnp.shape(logits) == logits.shape


def test_copies(logits):
    """Of pickle, copy and jit, which returns the kernel too."""
    for make in (copy.copy, copy.deepcopy, jax.jit(lambda x: x)):
        same_bits(make(logits), logits)
    same_bits(pickle.loads(pickle.dumps(logits)), logits)
    traced = jax.make_jaxpr(lambda x: x)(logits)
    assert len(traced.out_avals) == 3


@pytest.mark.parametrize(
    "leaf",
    [lambda x: nnx.Param(x), lambda x: x.tolist(), np.asarray],
    ids=["parameter", "list", "numpy"],
)
def test_leaves_that_become_arrays(leaf, logits):
    made = jax.tree.map(leaf, logits)
    same_bits(jax.tree.map(jnp.asarray, made), logits)
    made = LinearLogits(
        **{k: leaf(getattr(logits, k)) for k in ("hidden", "kernel", "bias")},
        vocab_axis=0,
    )
    assert all(isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves(made))
    assert made.shape == logits.shape


def test_an_exported_program_takes_it(logits):
    loss, slope = jax.jit(jax.value_and_grad(mean_loss))(logits, LABELS)
    program = export.export(jax.jit(mean_loss))(logits, LABELS)
    close(program.call(logits, LABELS), loss)
    gradient = export.export(jax.jit(jax.grad(mean_loss)))(logits, LABELS)
    close(gradient.call(logits, LABELS), slope)


# Derivatives and transformations ------------------------------------------------------


def test_its_gradient_is_like_itself(x64, logits):
    """In each leaf what the product has; a step of an optimizer is a tree_map."""
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), logits)

    @jax.jit
    def of_both(x):
        in_memory = jax.grad(lambda x: mean_loss(product(x), LABELS))(x)
        return mean_loss(x, LABELS), jax.grad(mean_loss)(x, LABELS), in_memory

    loss, gradient, in_memory = of_both(wide)
    assert isinstance(gradient, LinearLogits)
    close(gradient, in_memory)
    stepped = jax.tree.map(lambda x, g: x - 0.1 * g, wide, gradient)
    assert of_both(stepped)[0] < loss
    mixed = wide.replace(hidden=logits.hidden.astype(jnp.bfloat16))
    gradient = jax.jit(jax.grad(mean_loss))(mixed, LABELS)
    assert jax.tree.map(lambda x: x.dtype, gradient).hidden == jnp.bfloat16
    assert gradient.kernel.dtype == jnp.float64


STACKED = (  # the end of an error whose whole text tests/refusals.txt has
    "A jax.vmap or scan that returns LinearLogits stacks their kernel: for one kernel "
    "give jax.vmap out_axes=LinearLogits(0, None); for a stack of heads, jax.vmap the "
    "loss."
)


def test_a_vmap_that_returns_it(logits):
    """It stacks the kernel, unless it is told that there is one."""
    kernel = logits.kernel.T
    of_row = lambda hidden: LinearLogits(hidden, kernel)
    one_kernel = jax.vmap(of_row, out_axes=LinearLogits(0, None))(logits.hidden)
    same_bits(one_kernel, LinearLogits(logits.hidden, kernel))
    each = [mean_loss(one_kernel[i], LABELS[i]) for i in range(ROWS)]
    stacks = [
        jax.vmap(of_row)(logits.hidden),
        jax.lax.scan(lambda c, h: (c, of_row(h)), None, logits.hidden)[1],
    ]
    for stack in stacks:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            jxent.softmax_cross_entropy(stack, LABELS)
        assert str(error.value).endswith(STACKED)
        close(jax.vmap(mean_loss)(stack, LABELS), jnp.stack(each), 1e-6)


def test_a_vmap_and_a_scan_that_take_it(logits):
    """The axes are those of the same static fields, and of the same bias."""
    losses = functools.partial(jxent.softmax_cross_entropy, ignore_index=-100)
    axes = logits.replace(hidden=0, kernel=None, bias=None)
    of_row = lambda c, x: (c, losses(logits.replace(hidden=x[0]), x[1]))
    of_step = lambda head, _: (jax.tree.map(jnp.cos, head), losses(head, LABELS))

    @jax.jit
    def run(logits):
        mapped = jax.vmap(losses, in_axes=(axes, 0))(logits, LABELS)
        rows = logits.hidden, jnp.asarray(LABELS)
        scanned = jax.lax.scan(of_row, None, rows)[1]
        head, steps = jax.lax.scan(of_step, logits, None, length=2)
        assert isinstance(head, LinearLogits)
        cosines = losses(jax.tree.map(jnp.cos, logits), LABELS)
        return losses(logits, LABELS), mapped, scanned, steps, cosines

    wanted, mapped, scanned, steps, cosines = jax.device_get(run(logits))
    close((mapped, scanned), (wanted, wanted), 1e-6)
    close(steps, np.stack([wanted, cosines]), 1e-5)
    with pytest.raises(ValueError, match="must be a tree prefix"):
        jax.vmap(losses, in_axes=(LinearLogits(0, None), 0))(logits, LABELS)


def test_shard_map_takes_it_by_specs(x64, logits):
    """`in_specs` are LinearLogits of specs; `replace` keeps the static fields."""
    kernel = logits.kernel.T[:, :4].astype(jnp.float64)
    head = LinearLogits(logits.hidden.astype(jnp.float64), kernel)
    streamed = head.replace(implementation="streamed")
    specs = LinearLogits(P("data"), P(None, "model"))
    labels = np.minimum(LABELS, 3)
    of_device = functools.partial(mean_loss, **NAMES)
    wanted = jax.jit(jax.value_and_grad(mean_loss))(head, labels)
    for whole, split in (
        (head, specs),
        (streamed, streamed.replace(hidden=P("data"), kernel=P(None, "model"))),
    ):
        in_specs = split, P("data")
        loss = lambda *x, specs=in_specs: jax.shard_map(
            of_device, in_specs=specs, out_specs=P()
        )(*x)
        value, slope = on_mesh(jax.value_and_grad(loss), (whole, labels), in_specs)
        close((value, slope.replace(implementation=None)), wanted)
    returned = on_mesh(lambda x: x, (head,), (specs,), results=specs)
    same_bits(returned, head)
    assert returned.kernel.sharding.spec == P(None, "model")


# Models that return it ----------------------------------------------------------------


class NnxModel(nnx.Module):
    def __init__(self, rngs):
        self.body = nnx.Linear(FEATURES, FEATURES, rngs=rngs)
        self.head = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, x, whole=False):
        hidden = self.body(x)
        if whole:
            return self.head(hidden)
        return LinearLogits(hidden, self.head.kernel, self.head.bias)


class LinenModel(nn.Module):
    """Its table is tied: the rows that embed tokens are the classes."""

    @nn.compact
    def __call__(self, tokens, whole=False):
        embed = nn.Embed(CLASSES, FEATURES)
        hidden = nn.Dense(FEATURES)(embed(tokens))
        if whole:
            return embed.attend(hidden)
        return LinearLogits(hidden, embed.embedding, vocab_axis=0)


def results(logits):
    """What a training loop asks of logits, whatever they are."""
    teacher = np.linspace(-1, 1, ROWS * TIME * CLASSES).reshape(ROWS, TIME, CLASSES)
    return {
        "loss": mean_loss(logits, LABELS),
        "accuracy": jxent.metrics.accuracy(logits, LABELS, ignore_index=-100),
        "distillation": jxent.softmax_kl_divergence(logits, teacher, reduction="mean"),
        "itself": jxent.softmax_kl_divergence(logits, logits, reduction="sum"),
        "top k": jxent.softmax_top_k(logits, 2),
    }


def test_an_nnx_model_returns_it(as_users_have_it, x64, rng):
    """Losses, metrics and distillation are those of the logits it would return."""
    model = NnxModel(nnx.Rngs(0, params=jax.random.key(1)))
    x = rng.normal(size=(ROWS, TIME, FEATURES))

    @functools.partial(nnx.jit, static_argnames="whole")
    def of_model(model, whole):
        loss = lambda model: results(model(x, whole))["loss"]
        return results(model(x, whole)), nnx.grad(loss)(model)

    fused, whole = of_model(model, whole=False), of_model(model, whole=True)
    close(fused[0], whole[0], 1e-5)
    close(nnx.to_pure_dict(fused[1]), nnx.to_pure_dict(whole[1]), 1e-5)
    axes = LinearLogits(0, None, None)
    mapped = nnx.vmap(lambda m, x: m(x), in_axes=(None, 0), out_axes=axes)
    close(results(mapped(model, x)), whole[0], 1e-5)


def test_a_linen_model_returns_it(as_users_have_it, x64, rng):
    model, tokens = LinenModel(), rng.integers(0, CLASSES, (ROWS, TIME))
    variables = model.init(jax.random.key(0), tokens)

    @functools.partial(jax.jit, static_argnames="whole")
    def of_model(variables, whole):
        loss = lambda v: results(model.apply(v, tokens, whole))["loss"]
        return results(model.apply(variables, tokens, whole)), jax.grad(loss)(variables)

    close(of_model(variables, whole=False), of_model(variables, whole=True), 1e-5)
