"""open_clip's losses of pairs, which hold the matrix, once for each direction."""

import functools
import importlib.util
from typing import Any

from ..truth import BIAS
from .torch import (
    leaf as leaf,
    prepare as prepare,
)


NAME, MODULE = "open_clip", "open_clip"


def available() -> bool:
    return importlib.util.find_spec(MODULE) is not None


@functools.cache
def _loss(name: str) -> Any:
    from open_clip import loss

    return getattr(loss, name)()


def pairs(x, y, logit_scale):
    return _loss("ClipLoss")(x, y, logit_scale)


def pairs_sigmoid(x, y, logit_scale):
    return _loss("SigLipLoss")(x, y, logit_scale, BIAS)


LOSSES = {"pairs": {"": pairs}, "pairs, sigmoid": {"": pairs_sigmoid}}
