"""What jxent.torch and jxent.keras have in common: the libraries' calls and numbers."""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jxent
from tests import facades
from tests.comparing import same
from tests.facades import installed, same_answers, value_and_grad


FACES = {"torch": jxent.torch, "keras": jxent.keras}
CALLS = {"torch": facades.TORCH, "keras": facades.KERAS}
of_each_face = pytest.mark.parametrize("face", FACES)


@of_each_face
@pytest.mark.parametrize("part", [0, 1])
def test_golden_values(x64, face, part):
    """Values and gradients of every call in the table, in float64."""
    calls = CALLS[face][part::2]
    expected = facades.golden(face, CALLS[face])[part::2]
    same_answers(calls, facades.of_jax(FACES[face], calls), expected)


@of_each_face
def test_every_name_is_called(face):
    """Each function and each class stands in the table, but the one with parameters."""
    called = {call.name for call in CALLS[face]}
    assert called == {*FACES[face].__all__} - {"LinearCrossEntropyLoss"}


@of_each_face
def test_the_installed_library_gives_the_golden_values(face, x64):
    """The committed file is what the library answers."""
    installed(face)
    answers = {"torch": facades.of_torch, "keras": facades.of_keras}[face](CALLS[face])
    same_answers(CALLS[face], answers, facades.golden(face, CALLS[face]))


@of_each_face
def test_signatures(face):
    """The same arguments in the same order with the same defaults."""
    library = installed(face)
    rooms = [library.losses] if face == "keras" else [library.nn.functional, library.nn]
    for name in FACES[face].__all__:
        original = next(getattr(room, name) for room in rooms if hasattr(room, name))
        theirs = inspect.signature(original).parameters.values()
        mine = inspect.signature(getattr(FACES[face], name)).parameters.values()
        ours = {"key"}  # for PyTorch's global generator
        if "sparse" in name.lower() and len(mine) > len(theirs):  # before Keras 3.16
            ours |= {"label_smoothing"}
        mine = [p for p in mine if p.name not in ours]
        pairs = [[(p.name, p.kind, p.default) for p in side] for side in (mine, theirs)]
        assert pairs[0] == pairs[1], name


# Where both differ from their libraries -----------------------------------------------

sparse = jxent.keras.sparse_categorical_crossentropy
WEIGHTED = {"weight": np.array([1.0, 0.0, 2.0], np.float32), "reduction": "none"}
OF_IDS = {
    "cross_entropy": lambda x, y: jxent.torch.cross_entropy(x, y, **WEIGHTED),
    "nll_loss": lambda x, y: jxent.torch.nll_loss(x, y, **WEIGHTED),
    "of probabilities": lambda x, y: sparse(y, x),
    "of logits": lambda x, y: sparse(y, x, from_logits=True),
}


@pytest.mark.parametrize("loss", OF_IDS.values(), ids=OF_IDS)
def test_an_id_out_of_range(loss):
    """NaN in value and gradient of its row alone, weighted or not."""
    x, y = facades.shares(3, 3).astype(np.float32), jnp.array([0, 3, -1])
    value, grad = value_and_grad(lambda x: loss(x, y), x)
    np.testing.assert_array_equal(np.isnan(value), [False, True, True])
    np.testing.assert_array_equal(np.isnan(grad).all(1), [False, True, True])
    assert np.isfinite(grad[0]).all()


def test_infinite_logits_of_a_sigmoid():
    """The mathematical value."""
    x = np.array([np.inf, np.inf, -np.inf, -np.inf], np.float32)
    y = np.array([0, 1, 0, 1], np.float32)
    of_torch = jxent.torch.binary_cross_entropy_with_logits(x, y, reduction="none")
    of_keras = jxent.keras.binary_crossentropy(y[:, None], x[:, None], from_logits=True)
    for value in (of_torch, of_keras):
        same(value, [np.inf, 0.0, 0.0, np.inf])


# The classes --------------------------------------------------------------------------

CLASSES = [
    kind
    for face in FACES.values()
    for name in face.__all__
    if inspect.isclass(kind := getattr(face, name)) and name[:6] != "Linear"
]


@pytest.mark.every_value
@pytest.mark.parametrize("make", CLASSES)
def test_a_loss_is_a_value(make):
    """Immutable, equal and hashed by its options, and a pytree without leaves."""
    loss, again = make(), make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.reduction = "sum"
    assert loss == again
    assert hash(loss) == hash(again)
    assert loss != make(reduction="sum")
    assert loss != "loss"
    assert jax.tree.leaves(loss) == []
    assert jax.tree.map(lambda x: x, loss) == loss
    assert dataclasses.replace(loss, reduction="none").reduction == "none"
    if hasattr(make, "from_config"):
        assert make(name=None) == loss
        assert make.from_config(loss.get_config()) == loss
        narrow = make(dtype="bfloat16")
        assert make.from_config(narrow.get_config()) == narrow


ARRAYS = np.array([[2, 0, 0], [0, 0, 3]], np.float32), np.array([0, 2])


@pytest.mark.parametrize(
    ("own", "order"),
    [
        (jxent.torch.CrossEntropyLoss(label_smoothing=0.1), 1),
        (jxent.keras.SparseCategoricalCrossentropy(from_logits=True), -1),
    ],
    ids=FACES,
)
def test_a_loss_goes_everywhere(own, order):
    """As an argument of jit, static or not, and as a field of what is trained."""

    def apply(loss, x, y):
        return loss(*(x, y)[::order])

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class State:
        step: jax.Array
        loss: Any = own

    class Nnx(nnx.Module):
        def __init__(self):
            self.loss = own
            self.linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, x, y):
            return apply(self.loss, self.linear(x), y)

    class Linen(linen.Module):
        loss: Any = own

        def __call__(self, x, y):
            return apply(self.loss, x, y)

    expected = apply(own, *ARRAYS)
    same(jax.jit(apply)(own, *ARRAYS), expected)
    same(jax.jit(apply, static_argnums=0)(own, *ARRAYS), expected)
    same(jax.jit(lambda s: apply(s.loss, *ARRAYS))(State(jnp.int32(0))), expected)
    same(Linen().apply({}, *ARRAYS), expected)
    loss, grads = nnx.jit(nnx.value_and_grad(lambda m: m(*ARRAYS)))(Nnx())
    assert jnp.isfinite(loss)
    assert jax.tree.leaves(grads)
