"""Losses of pairs and of batches: a matrix of similarities, a block at a time."""

from .cross_entropy import contrastive_cross_entropy as contrastive_cross_entropy
from .sigmoid_loss import sigmoid_contrastive_loss as sigmoid_contrastive_loss
from .supervised import (
    ntxent as ntxent,
    supervised_contrastive_cross_entropy as supervised_contrastive_cross_entropy,
)
