"""Losses of many labels against PyTorch's libraries: timm and torchvision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests.compiling import as_users_jit
from tests.facades import installed


@pytest.fixture(scope="module")
def torch():
    return installed("torch")


@pytest.fixture(scope="module")
def timm(torch):
    return installed("timm.loss")


@pytest.fixture(scope="module")
def torchvision(torch):
    return installed("torchvision.ops")


ROWS, CLASSES = 40, 7
WEIGHTS = np.linspace(0.5, 2.0, CLASSES)


def logits_and_labels(rng):
    """Logits at which the 1 − p of timm, a difference in float32, is accurate."""
    z = np.clip(3 * rng.normal(size=(ROWS, CLASSES)), -6, 6).astype(np.float32)
    return z, (rng.uniform(size=z.shape) < 0.3).astype(np.float32)


def theirs(torch, loss, z, y):
    """Their losses, and the gradient of their sum."""
    logits = torch.tensor(z, requires_grad=True)
    losses = loss(logits, torch.tensor(y))
    losses.sum().backward()
    return losses.detach().numpy(), logits.grad.numpy()


def ours(loss, z, y):
    both = jax.grad(lambda z: (jnp.sum(x := loss(z, y)), x), has_aux=True)
    gradient, losses = jax.device_get(as_users_jit(both)(z))
    return losses, gradient


def agree(ours, theirs, rtol=2e-5):
    for a, b in zip(ours, theirs, strict=True):
        assert np.any(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-6)


ASYMMETRIC: dict[str, dict[str, Any]] = {
    "timm's defaults": {"gamma_pos": 1.0},
    "paper": {"gamma_pos": 0.0},
    "wide clip": {"gamma_pos": 0.5, "gamma_neg": 2.0, "clip": 0.3},
    "no clip": {"gamma_pos": 1.0, "gamma_neg": 2.0, "clip": 0.0},
    "off": {"gamma_pos": 0.0, "gamma_neg": 0.0, "clip": 0.0},
}


@pytest.mark.parametrize("options", ASYMMETRIC.values(), ids=ASYMMETRIC.keys())
def test_timms_asymmetric_loss(torch, timm, options, rng):
    """Each element, and each slope."""
    z, y = logits_and_labels(rng)
    reference = timm.AsymmetricLossMultiLabel(reduction="none", **options)
    agree(
        ours(lambda z, y: jxent.asymmetric_loss(z, y, **options), z, y),
        theirs(torch, reference, z, y),
    )


@pytest.mark.parametrize(
    ("timms", "options"),
    [
        ("sum", {"reduction": "sum"}),
        ("mean", {"reduction": "mean"}),
        # The sum over classes, as a mean over the batch.
        ("batchmean", {"reduction": "mean", "normalizer": ROWS}),
    ],
    ids=["sum", "mean", "batchmean"],
)
def test_timms_reductions_and_weights(torch, timm, timms, options, rng):
    """With a weight for each class, which does not divide timm's mean."""
    z, y = logits_and_labels(rng)
    weights = torch.tensor(WEIGHTS, dtype=torch.float32)
    reference = timm.AsymmetricLossMultiLabel(
        gamma_pos=1.0, reduction=timms, weight=weights, pos_weight=weights.flip(0)
    )
    if timms == "mean":
        options = options | {"normalizer": z.size}

    def loss(z, y):
        given = {"class_weights": WEIGHTS, "pos_weight": WEIGHTS[::-1].copy()}
        return jxent.asymmetric_loss(z, y, gamma_pos=1.0, **given, **options)

    agree(ours(loss, z, y), theirs(torch, reference, z, y))


def test_labels_between_0_and_1_are_a_mixture_here(torch, timm, rng):
    """Linear in y; timm mixes the probabilities and the γ instead."""
    z, y = logits_and_labels(rng)
    soft = 0.9 * y + 0.05
    reference = timm.AsymmetricLossMultiLabel(gamma_pos=1.0, reduction="none")
    loss = lambda z, y: jxent.asymmetric_loss(z, y, gamma_pos=1.0)
    hard = [theirs(torch, reference, z, np.full_like(y, label))[0] for label in (1, 0)]
    mixed = soft * hard[0] + (1 - soft) * hard[1]
    np.testing.assert_allclose(loss(z, soft), mixed, rtol=2e-5, atol=2e-6)
    assert np.max(np.abs(theirs(torch, reference, z, soft)[0] - mixed)) > 0.1


def test_timms_floor_stops_the_gradient(torch, timm):
    """Below a probability of 1e-8; the loss goes on, and so does its slope."""
    z, y = np.array([-30.0], np.float32), np.array([1.0], np.float32)
    reference = timm.AsymmetricLossMultiLabel(gamma_pos=0.0, reduction="none")
    value, slope = theirs(torch, reference, z, y)
    np.testing.assert_allclose(value, -np.log(1e-8), rtol=1e-6)
    assert slope == 0
    value, slope = ours(jxent.asymmetric_loss, z, y)
    np.testing.assert_allclose(value, 30, rtol=1e-6)
    np.testing.assert_allclose(slope, -1, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"alpha": -1.0}, {"alpha": 0.4, "gamma": 1.5}, {"gamma": 0.0}],
    ids=str,
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_torchvisions_focal_loss(torch, torchvision, options, soft, rng):
    """Its alpha is 0.25 by default, and −1 for none; labels may be probabilities."""
    z, y = logits_and_labels(rng)
    y = rng.uniform(0.05, 0.95, y.shape).astype(np.float32) if soft else y
    alpha = options.get("alpha", 0.25)
    given = {"alpha": None if alpha < 0 else alpha, "gamma": options.get("gamma", 2.0)}
    reference = lambda z, y: torchvision.sigmoid_focal_loss(z, y, **options)
    agree(
        ours(lambda z, y: jxent.sigmoid_focal_loss(z, y, **given), z, y),
        theirs(torch, reference, z, y),
    )
