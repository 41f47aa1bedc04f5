"""No product that is not the caller's own may round its factors on an accelerator.

On a CUDA device a float32 product without a precision may take its factors in TF32,
which has 10 bits; on a TPU in bfloat16, which has 8.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jxent
from tests.cases import CLASSES, IN_MEMORY, TABLE, richest, target_head


def products(jaxpr):
    """Every dot_general of a program, those of its branches and loops included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def is_exact(product):
    precision = product.params["precision"]
    return precision is not None and set(precision) == {lax.Precision.HIGHEST}


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("case", IN_MEMORY, ids=str)
def test_losses_in_memory_have_no_products(case, axis, rng):
    """A product would round: its precision is for users to set."""
    if not case.takes("axis"):
        axis = -1
    x, *labels = (jnp.asarray(a) for a in case.inputs(rng, axis=axis))
    options = {"axis": axis} if case.takes("axis") else {}
    smooths = (
        case.takes("logits") and case.takes("label_smoothing") and not case.options
    )
    if smooths:
        options["label_smoothing"] = 0.1

    def total(x):
        return jnp.sum(case(x.astype(jnp.float32), *labels, **options))

    program = jax.make_jaxpr(jax.value_and_grad(total))(x)
    assert not list(products(program.jaxpr))


@pytest.mark.newest_jax
@pytest.mark.parametrize("implementation", ["materialized", "streamed", "tiled"])
def test_a_head_has_no_products_of_vectors(implementation):
    """But those of hidden, kernel and the logits' gradient, whose precision the user
    sets."""
    hidden, kernel = jnp.ones((4, 3)), jnp.ones((3, CLASSES))

    def loss(hidden, kernel):
        layout = {"implementation": implementation, "block_sizes": (2, 4)}
        return jxent.softmax_cross_entropy(
            jxent.LinearLogits(hidden, kernel, **layout),
            np.arange(4),
            label_smoothing=0.1,
            reduction="sum",
        )

    program = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(hidden, kernel)
    found = list(products(program.jaxpr))
    assert found
    assert not [e for e in found if 1 in [v.aval.ndim for v in e.invars]]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("case", [c for c in richest(TABLE) if c.of_head], ids=str)
def test_products_with_the_kernel(case, dtype, rng):
    """As the caller asks, in the value, its gradients and their derivatives."""
    case = dataclasses.replace(case, head=case.head | {"precision": "highest"})
    inputs = [jnp.asarray(x) for x in case.inputs(rng)]
    moving = 1 if case.labels is not target_head else 2  # x is an array there
    heads, labels = [x.astype(dtype) for x in inputs[:moving]], inputs[moving:]

    def total(heads):
        return jnp.sum(case(*heads, *labels))

    def second(heads):
        return jax.jvp(jax.value_and_grad(total), (heads,), (heads,))

    found = list(products(jax.make_jaxpr(second)(heads).jaxpr))
    assert len(found) >= 3
    assert all(map(is_exact, found)), found
