"""The margin: subtracted from the logit of a row's own label."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.comparing import close


ROWS, CLASSES = 4, 8


@pytest.mark.parametrize("margin", [0.35, np.linspace(0.1, 0.9, CLASSES)], ids=np.ndim)
def test_it_is_subtracted_from_the_labels_own_logit(margin, rng, x64):
    """After the soft cap and before the temperature, exactly."""
    z = 3 * rng.normal(size=(ROWS, CLASSES))
    y = rng.integers(0, CLASSES, ROWS)
    capped = 2 * np.tanh(z / 2)
    capped[np.arange(ROWS), y] -= np.broadcast_to(margin, CLASSES)[y]
    options: dict[str, Any] = {"label_smoothing": 0.1, "z_loss": 0.1}
    on_logits = {"margin": margin, "logit_soft_cap": 2.0, "temperature": 1.5}

    @jax.jit
    def run(z):
        losses = jxent.softmax_cross_entropy(z, y, **options, **on_logits)
        return losses, jxent.softmax_log_prob(z, y, **on_logits)

    wanted = oracles.softmax_cross_entropy(capped / 1.5, y, **options)
    close(run(z), (wanted, oracles.softmax_log_prob(capped / 1.5, y)))


def test_a_python_0_leaves_nothing_in_the_program():
    z, y = jnp.ones((2, 3)), jnp.array([0, 1])
    f = functools.partial(jxent.softmax_cross_entropy, z, y)
    assert str(jax.make_jaxpr(f)()) == str(jax.make_jaxpr(lambda: f(margin=0.0))())


def test_beside_impossible_classes(x64):
    """−inf − m is −inf: the label's own class is impossible, or another one is."""
    z = np.array([[-np.inf, 0.0, 1.0], [0.5, 0.0, -np.inf]])
    loss = lambda z: jxent.softmax_cross_entropy(z, np.array([0, 0]), margin=0.5)
    run = jax.jit(lambda z: (loss(z), jax.grad(lambda z: loss(z)[1])(z)[1]))
    close(run(z), (np.array([np.inf, np.log(2)]), np.array([-0.5, 0.5, 0.0])))
