"""Contrastive losses beside open_clip's and pytorch-metric-learning's, in float64."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests.facades import installed


@pytest.fixture(scope="module")
def clip():
    """The module of open_clip's losses alone: the package's import takes long."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        pytest.skip('needs open-clip-torch: pip install -e ".[parity]"')
    path = Path(found.origin).with_name("loss.py")
    spec: Any = importlib.util.spec_from_file_location("open_clip_loss", path)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def metric_learning():
    return installed("pytorch_metric_learning.losses")


BATCH, FEATURES = 24, 6


def vectors(rng, count):
    x = rng.normal(size=(count, BATCH, FEATURES))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tensor(x, **options):
    torch: Any = importlib.import_module("torch")
    return torch.tensor(x, **options)


def same(ours, theirs, arrays):
    """The value, and the gradients in all arrays, of jxent's loss and of PyTorch's."""
    points = tuple(range(len(arrays)))
    value, gradients = jax.jit(jax.value_and_grad(ours, points))(*arrays)
    tensors = [tensor(x, requires_grad=True) for x in arrays]
    wanted = theirs(*tensors)
    wanted.backward()

    def close(got, x):
        np.testing.assert_allclose(got, x.detach().numpy(), rtol=1e-11, atol=1e-13)

    close(value, wanted)
    for gradient, x in zip(gradients, tensors, strict=True):
        close(gradient, x.grad)


def test_clip(clip, x64, rng):
    """With a learned logarithm of the scale."""
    images, texts = vectors(rng, 2)
    theirs = clip.ClipLoss()
    same(
        lambda x, y, log_scale: jxent.contrastive_cross_entropy(
            x,
            y,
            logit_scale=jnp.exp(log_scale),
            reduction="mean",
            block_sizes=(7, 5),
        ),
        lambda x, y, log_scale: theirs(x, y, log_scale.exp()),
        (images, texts, np.log(1 / 0.07)),
    )


def test_sigmoid(clip, x64, rng):
    images, texts = vectors(rng, 2)
    theirs = clip.SigLipLoss()
    same(
        lambda x, y, log_scale, bias: jxent.sigmoid_contrastive_loss(
            x,
            y,
            logit_scale=jnp.exp(log_scale),
            logit_bias=bias,
            reduction="mean",
            block_sizes=(7, 5),
        ),
        lambda x, y, log_scale, bias: theirs(x, y, log_scale.exp(), bias),
        (images, texts, np.log(10.0), np.asarray(-10.0)),
    )


def test_supervised(metric_learning, x64, rng):
    """Classes of several sizes; theirs takes vectors of any length."""
    (x,) = rng.normal(size=(1, BATCH, FEATURES))
    labels = rng.integers(0, 6, BATCH)
    labels[-1] = 6  # alone: dropped by both
    theirs = metric_learning.SupConLoss(temperature=0.2)

    def ours(x):
        x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        return jxent.supervised_contrastive_cross_entropy(
            x, labels, temperature=0.2, reduction="mean", block_sizes=(7, 5)
        )

    same(ours, lambda x: theirs(x, tensor(labels)), (x,))


@pytest.mark.parametrize(
    "labels", [np.arange(BATCH) % (BATCH // 2), np.arange(BATCH) ** 2 % 7]
)
def test_ntxent(metric_learning, labels, x64, rng):
    """Two views of each example, and classes of several sizes."""
    (x,) = rng.normal(size=(1, BATCH, FEATURES))
    theirs = metric_learning.NTXentLoss(temperature=0.3)
    same(
        lambda x: jxent.ntxent(x, labels, 0.3),
        lambda x: theirs(x, tensor(labels)),
        (x,),
    )
