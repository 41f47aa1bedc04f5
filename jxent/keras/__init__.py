"""Keras's cross-entropies, call for call, on JAX arrays.

The functions and classes of `keras.losses`: the same names, the same arguments in the
same order with the same defaults, the same numbers. Each docstring lists under
*Differences* where Keras's number is a plain defect, and this one is right. Bad input
is a ValueError or a TypeError, at trace time. An integer y_pred beside a floating
y_true, which Keras takes, is a UserWarning: the two may have been exchanged.

    loss_fn = jxent.keras.SparseCategoricalCrossentropy(from_logits=True)
    loss = loss_fn(y_true, y_pred, sample_weight)

A class reduces by one of

    "sum_over_batch_size", "mean"    Σ w · loss / number of losses, whatever the weights
    "mean_with_sample_weight"        Σ w · loss / Σ w
    "sum", "none", None

and leaves out of the number of losses what ignore_class drops. sample_weight is a
scalar or has the first axes of the losses' shape: weights of shape (batch,) are those
of the samples, also where the losses are (batch, time) with batch = time. In Σ w a
weight counts once for each loss that it multiplies. dtype names the dtype of the
result; no label or prediction is rounded to it.

A loss is immutable, hashable, and a pytree without leaves: usable inside jit, as a
static argument, as a field of a dataclass or of a Flax module.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .._checks import no_attribute as _no_attribute
from .._signatures import print_as_written as _print_as_written
from ._binary import binary_crossentropy, binary_focal_crossentropy
from ._categorical import (
    categorical_crossentropy,
    categorical_focal_crossentropy,
    kl_divergence,
)
from ._classes import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    KLDivergence,
    SparseCategoricalCrossentropy,
)
from ._sparse import (
    categorical_generalized_cross_entropy,
    sparse_categorical_crossentropy,
)


__docformat__ = "google"

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "KLDivergence",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "kl_divergence",
    "sparse_categorical_crossentropy",
]

_print_as_written(globals(), __all__)


if not _TYPE_CHECKING:

    def __getattr__(name: str) -> None:
        raise _no_attribute(__name__, name, __all__)
