"""The options of the losses, as types: for the overloads on `return_statistics`.

The losses themselves write their signatures out, with defaults.
"""

from typing import TypedDict

from .._checks import ArrayLike, AxisName
from .._reduction import Reduction


class LossOptions(TypedDict, total=False):
    """What every softmax loss takes by name."""

    weights: ArrayLike | None
    class_weights: ArrayLike | None
    class_mask: ArrayLike | None
    ignore_index: ArrayLike | None
    label_smoothing: ArrayLike | None
    z_loss: ArrayLike | None
    logit_soft_cap: ArrayLike | None
    temperature: ArrayLike | None
    margin: ArrayLike | None
    reduction: Reduction
    normalizer: ArrayLike | None
    class_axis_name: AxisName
    batch_axis_name: AxisName
