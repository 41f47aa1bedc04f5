"""What a call is made of: its logits, its label, and what is done with its rows.

A public function writes its signature out, with defaults, and hands each argument to
the part that it belongs to: `Scores`, one of the labels of `_targets/given.py`, and
`RowOptions`. A formula of a loss has its parameters.
"""

import dataclasses
from typing import Any, NamedTuple

from .._checks import ArrayLike, Axis, AxisName, Number, is_on
from .._linear_logits import Logits
from .._problem.bundles import STATIC, bundle
from .._problem.problem import CHECKS
from .._reduction import Reduction
from .._targets.given import Given


class Scores(NamedTuple):
    """Logits or probabilities, and what changes each of them or leaves it out."""

    logits: Logits
    axis: Axis
    class_mask: ArrayLike | None = None
    logit_soft_cap: ArrayLike | None = None
    temperature: ArrayLike | None = None
    class_axis_name: AxisName = None

    def of_classes(self) -> dict[str, Any]:
        """The options that need an axis of classes."""
        return dict(zip(self._fields[2:], self[2:], strict=True))


class RowOptions(NamedTuple):
    """Which rows count, how much, and what becomes of their losses."""

    where: ArrayLike | None
    weights: ArrayLike | None = None
    batch_axis_name: AxisName = None
    reduction: Reduction = "none"
    normalizer: ArrayLike | None = None


@bundle
class Formula:
    """A formula with its parameters by name, whose checks its annotations declare."""

    # Of log p, of a logit and its label, or of two softmaxes.
    function: Any = dataclasses.field(metadata=STATIC)
    parameters: dict[str, ArrayLike] = dataclasses.field(default_factory=dict)


# Options that are no arrays: they decide the program.
STATIC_OPTIONS = frozenset({"axis", "class_axis_name", "batch_axis_name", "reduction"})

_OPTIONS = Scores._fields[1:] + RowOptions._fields
_LABELS = {"labels", "ids", "kept", "target_logits"}
# The Python number that switches an option off, as None does.
_OFF = {name: check.off for name, check in CHECKS.items() if isinstance(check, Number)}
_OFF["target_logit_soft_cap"] = _OFF["logit_soft_cap"]


def asked(logits: Scores, label: Given, rows: RowOptions) -> dict[str, Any]:
    """The options of a call that are on: each part they go through looks at them."""
    named = dict(zip(_OPTIONS, (*logits[1:], *rows), strict=True)) | vars(label)
    known = {
        name: x
        for name, x in named.items()
        if x is not None
        and name not in _LABELS
        and (name not in _OFF or is_on(x, off=_OFF[name]))
    }
    known["reduction"] = rows.reduction  # which None does not switch off
    return known
