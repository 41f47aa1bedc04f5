"""Cross-entropy losses for JAX: exact, complete under every transformation, fast.

Pure functions of arrays. Each gives one loss per example, or with `reduction="mean"`
the loss to train on:

>>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
>>> labels = jnp.array([0, -100])
>>> print(jxent.softmax_cross_entropy(logits, labels, ignore_index=-100))
[0.23954 0.     ]
>>> loss = lambda logits: jxent.softmax_cross_entropy(
...     logits, labels, ignore_index=-100, label_smoothing=0.1, reduction="mean")
>>> print(jax.grad(loss)(logits))
[[-0.14635  0.07317  0.07317]
 [ 0.       0.       0.     ]]

**One class of many.** `softmax_cross_entropy` takes logits, and class ids or
distributions; its docstring explains every option that the others share.
`softmax_focal_loss` and `poly_loss_cross_entropy` weigh easy examples otherwise;
`generalized_cross_entropy`, `taylor_cross_entropy` and `symmetric_cross_entropy` bear
labels of which some are wrong. `softmax_log_prob`, `softmax_entropy` and
`softmax_statistics` are what policy gradients and losses of your own are made of;
`with_statistics` returns them beside a loss. `softmax_log_prob_at` takes several ids a
row, `softmax_log_prob_among` one among some, `softmax_top_k` finds the likeliest, and
`SparseLabels` are distributions that are given at a few. `softmax_kl_divergence` and
`softmax_jensen_shannon_divergence` compare two models' logits.

**A vocabulary too large to hold logits for.** `LinearLogits(hidden, kernel)` stand for
the logits hidden @ kernel, of which one block exists at a time. A model returns them
where it returned logits, and every loss, statistic, divergence and metric of logits
takes them. `plan` says how a call computes them, and the memory it needs.
`sum_over_tiles` and `map_over_tiles` do the same for a head or a formula of yours:
sums, and results of rows.

**Yes or no.** `sigmoid_binary_cross_entropy` and `sigmoid_focal_loss`, for one question
or many at once; `asymmetric_loss` for many labels of which few hold, and `zlpr_loss`, a
softmax's loss for several labels a row. With an axis of classes they give one loss a
row, and take `LinearLogits`, and labels as lists of positives.

**Pairs and batches.** `contrastive_cross_entropy` and `sigmoid_contrastive_loss` of
pairs, `supervised_contrastive_cross_entropy` and `ntxent` of labelled batches, in which
examples are each other's negatives; no matrix of their similarities is held.

**Probabilities.** `categorical_cross_entropy` and `binary_cross_entropy`, for models
that end in a softmax or sigmoid; `entropy`, `kl_divergence`,
`kl_divergence_with_log_targets` and `generalized_kl_divergence`.

**Labels and means.** `next_token_labels` and `smooth_labels` make labels. `reduce`
masks, weights and averages any losses as the ones here do; `total_weight` is what that
mean divides by, for batches that are taken in parts; `sequence_weights` make it a mean
of the sequences' means. `class_weights_of_counts` make up for rare classes, and
`two_hot_labels` make distributions of numbers.

**Evaluation.** `jxent.metrics` has accuracy, perplexity, calibration errors and more,
as numbers and as sums that add up over batches and devices. `fit_temperature` and
`fit_vector_scaling` calibrate a trained model.

**Other libraries' calls.** Optax's cross-entropies, its divergences and `smooth_labels`
have the same names here, and take the same calls. Some results differ on purpose:
labels that would broadcast are an error (but for a scalar in a binary loss), so is a
class axis of size 1, and class ids below 0 give NaN. `jxent.torch` and `jxent.keras`
take PyTorch's and Keras's calls.

In the formulas z are logits, p probabilities, y a class id or a binary label, q or t a
distribution of labels; log is the natural logarithm, so losses are in nats. A *row* is
what has one loss of its own: an example, a token, a pixel. To *drop* a row is to make
its loss and its gradient exactly 0 and to leave it out of the mean.
"""

from importlib import import_module as _import_module
from importlib.metadata import (
    PackageNotFoundError as _PackageNotFoundError,
    version as _version,
)
from typing import (
    TYPE_CHECKING as _TYPE_CHECKING,
    Any as _Any,
)

from ._calibration import fit_temperature, fit_vector_scaling
from ._checks import (
    SparseLabels,
    no_attribute as _no_attribute,
)
from ._contrastive.cross_entropy import contrastive_cross_entropy
from ._contrastive.sigmoid_loss import sigmoid_contrastive_loss
from ._contrastive.supervised import ntxent, supervised_contrastive_cross_entropy
from ._labels.class_weights import class_weights_of_counts
from ._labels.labels import next_token_labels, smooth_labels
from ._labels.sequences import sequence_weights
from ._labels.total_weight import total_weight
from ._labels.two_hot import two_hot_labels
from ._linear_logits import LinearLogits
from ._probabilities.cross_entropy import (
    binary_cross_entropy,
    categorical_cross_entropy,
)
from ._probabilities.divergence import (
    entropy,
    generalized_kl_divergence,
    kl_divergence,
    kl_divergence_with_log_targets,
)
from ._reduction import reduce
from ._sigmoid import asymmetric_loss, sigmoid_binary_cross_entropy, sigmoid_focal_loss
from ._signatures import (
    make_serializable as _make_serializable,
    print_as_written as _print_as_written,
)
from ._softmax.cross_entropy import (
    safe_softmax_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from ._softmax.divergence import (
    softmax_jensen_shannon_divergence,
    softmax_kl_divergence,
    softmax_total_variation,
)
from ._softmax.focal_and_poly import poly_loss_cross_entropy, softmax_focal_loss
from ._softmax.generalized_and_taylor import (
    generalized_cross_entropy,
    taylor_cross_entropy,
)
from ._softmax.several_ids import (
    softmax_log_prob_among,
    softmax_log_prob_at,
    softmax_top_k,
)
from ._softmax.statistics import softmax_entropy, softmax_log_prob, softmax_statistics
from ._softmax.sums import softmax_cross_entropy_sums
from ._softmax.symmetric import symmetric_cross_entropy
from ._softmax.zlpr import zlpr_loss
from ._solve.plan import Plan, plan
from ._solve.results import LossSums
from ._solve.with_statistics import with_statistics
from ._statistics.softmax_statistics import SoftmaxStatistics
from ._tiles.maps import map_over_tiles
from ._tiles.sums import sum_over_tiles


__docformat__ = "google"
try:
    __version__ = _version("jxent")
except _PackageNotFoundError:  # a copied folder, which no installer knows
    __version__ = "unknown"

__all__ = [
    "LinearLogits",
    "LossSums",
    "Plan",
    "SoftmaxStatistics",
    "SparseLabels",
    "asymmetric_loss",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "class_weights_of_counts",
    "contrastive_cross_entropy",
    "entropy",
    "fit_temperature",
    "fit_vector_scaling",
    "generalized_cross_entropy",
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "map_over_tiles",
    "next_token_labels",
    "ntxent",
    "plan",
    "poly_loss_cross_entropy",
    "reduce",
    "safe_softmax_cross_entropy",
    "sequence_weights",
    "sigmoid_binary_cross_entropy",
    "sigmoid_contrastive_loss",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_sums",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_entropy",
    "softmax_focal_loss",
    "softmax_jensen_shannon_divergence",
    "softmax_kl_divergence",
    "softmax_log_prob",
    "softmax_log_prob_among",
    "softmax_log_prob_at",
    "softmax_statistics",
    "softmax_top_k",
    "softmax_total_variation",
    "sum_over_tiles",
    "supervised_contrastive_cross_entropy",
    "symmetric_cross_entropy",
    "taylor_cross_entropy",
    "total_weight",
    "two_hot_labels",
    "with_statistics",
    "zlpr_loss",
]


_print_as_written(globals(), __all__)
_make_serializable(__name__, {name: globals()[name] for name in __all__})


# Loaded when they are first asked for.
_SUBPACKAGES = ("keras", "metrics", "torch")

if _TYPE_CHECKING:
    from . import (
        keras as keras,
        metrics as metrics,
        torch as torch,
    )
else:

    def __getattr__(name: str) -> _Any:
        if name in _SUBPACKAGES:
            return _import_module(f"{__name__}.{name}")
        elsewhere = None
        if not name.startswith("_"):
            elsewhere = _import_module(f"{__name__}.metrics")
        raise _no_attribute(__name__, name, [*__all__, *_SUBPACKAGES], elsewhere)


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBPACKAGES})
