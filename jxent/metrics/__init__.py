"""Metrics of classifiers: pure functions of logits, and sums of them that add up.

>>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
>>> labels = jnp.array([0, 1, -100])
>>> print(jxent.metrics.accuracy(logits, labels, ignore_index=-100))
0.5

Each takes the losses' arguments: `(logits, labels, axis=-1, where=None, *,
weights=None, ignore_index=None, …)`. Logits are an array or `jxent.LinearLogits`, but
for the Brier score; labels are class ids. With axis=() there is no axis of classes, but
one logit for each binary label. A dropped row counts nothing, and a bad label makes the
result NaN. Of equal logits the first class is predicted. Nothing left gives 0, or a
perplexity of 1.

**Of one batch.** `accuracy`, `top_k_accuracy`, `perplexity`, `brier_score`,
`calibration_error`, `confusion_matrix`; `reliability_bins` for a diagram.

**Of many.** A mean of the batches' means gives rows of small batches more weight. What
adds up are sums: a function with `_sums` in its name returns a NamedTuple whose + adds
field by field, over batches, micro-batches and devices, and which has `compute()`.

>>> first, second = (
...     jxent.metrics.accuracy_sums(logits[i], labels[i], ignore_index=-100)
...     for i in (slice(0, 2), slice(2, 3)))
>>> print((first + second).compute())
0.5
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .._checks import no_attribute as _no_attribute
from .._signatures import (
    make_serializable as _make_serializable,
    print_as_written as _print_as_written,
)
from ._accuracy import AccuracySums, accuracy, accuracy_sums
from ._bins import CalibrationErrorSums, ReliabilityBins
from ._brier_score import BrierScoreSums, brier_score, brier_score_sums
from ._calibration import calibration_error, calibration_error_sums, reliability_bins
from ._confusion import confusion_matrix
from ._perplexity import PerplexitySums, perplexity, perplexity_sums
from ._top_k_accuracy import top_k_accuracy, top_k_accuracy_sums


__docformat__ = "google"

__all__ = [
    "AccuracySums",
    "BrierScoreSums",
    "CalibrationErrorSums",
    "PerplexitySums",
    "ReliabilityBins",
    "accuracy",
    "accuracy_sums",
    "brier_score",
    "brier_score_sums",
    "calibration_error",
    "calibration_error_sums",
    "confusion_matrix",
    "perplexity",
    "perplexity_sums",
    "reliability_bins",
    "top_k_accuracy",
    "top_k_accuracy_sums",
]

_print_as_written(globals(), __all__)
_make_serializable(__name__, {name: globals()[name] for name in __all__})


if not _TYPE_CHECKING:

    def __getattr__(name: str) -> None:
        raise _no_attribute(__name__, name, __all__)
