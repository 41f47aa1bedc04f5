"""PyTorch's cross-entropies, call for call, on JAX arrays.

The functions of `torch.nn.functional` and the classes of `torch.nn`: the same names,
the same arguments in the same order with the same defaults, the same numbers. Each
docstring lists under *Differences* where PyTorch's number is a plain defect, and this
one is right. Bad input is a ValueError or a TypeError, at trace time.

    loss_fn = jxent.torch.CrossEntropyLoss(weight=weight)  # torch.nn.CrossEntropyLoss
    loss = loss_fn(logits, labels)

A loss is immutable. Without array weights it is hashable and a pytree without leaves:
usable inside jit, as a static argument, as a field of a dataclass or of a Flax module.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .._checks import no_attribute as _no_attribute
from .._signatures import (
    make_serializable as _make_serializable,
    print_as_written as _print_as_written,
)
from ._binary import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    multilabel_soft_margin_loss,
    soft_margin_loss,
)
from ._classes import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    KLDivLoss,
    LinearCrossEntropyLoss,
    MultiLabelSoftMarginLoss,
    NLLLoss,
    SoftMarginLoss,
)
from ._divergence import kl_div
from ._linear import linear_cross_entropy
from ._softmax import cross_entropy, nll_loss


__docformat__ = "google"

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "KLDivLoss",
    "LinearCrossEntropyLoss",
    "MultiLabelSoftMarginLoss",
    "NLLLoss",
    "SoftMarginLoss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "kl_div",
    "linear_cross_entropy",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "soft_margin_loss",
]

_print_as_written(globals(), __all__)
_make_serializable(__name__, {name: globals()[name] for name in __all__})


if not _TYPE_CHECKING:

    def __getattr__(name: str) -> None:
        raise _no_attribute(__name__, name, __all__)
