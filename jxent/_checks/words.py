"""How an error names what came, and the errors that every module raises."""

from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any, NoReturn

import jax
import numpy as np
from jax import Array
from jax.core import Tracer


NUMBERS = (int, float, np.integer, np.floating)


# The losses whose rows are single logits unless they are given an axis of classes.
SIGMOID = ("sigmoid_binary_cross_entropy", "sigmoid_focal_loss")
SCALARS = (bool, np.bool_, complex, np.complexfloating, *NUMBERS)


# What short names stand for, in one module or another.
_BINARY = "binary_cross_entropy", "binary_crossentropy"
_OF_LOGITS = "sigmoid_binary_cross_entropy", "binary_cross_entropy_with_logits"
_CROSS_ENTROPY = "softmax_cross_entropy", "cross_entropy", "categorical_crossentropy"
_DIVERGENCE = "softmax_kl_divergence", "kl_divergence", "kl_div", "KLDivergence"
SHORT = {
    "ce": _CROSS_ENTROPY,
    "nll": ("softmax_cross_entropy", "nll_loss"),
    "bce": (*_OF_LOGITS, *_BINARY),
    "bce_with_logits": _OF_LOGITS,
    "kl": _DIVERGENCE,
    "kl_div": _DIVERGENCE,
    "jsd": ("softmax_jensen_shannon_divergence",),
    "tv": ("softmax_total_variation",),
    "focal": ("softmax_focal_loss", "sigmoid_focal_loss"),
    "gce": ("generalized_cross_entropy",),
    "sce": ("symmetric_cross_entropy",),
    "info_nce": ("contrastive_cross_entropy",),
    "infonce": ("contrastive_cross_entropy",),
    "clip_loss": ("contrastive_cross_entropy",),
    "siglip": ("sigmoid_contrastive_loss",),
    "supcon": ("supervised_contrastive_cross_entropy",),
    "ppl": ("perplexity",),
    "ece": ("calibration_error",),
}


def fail(function: str, message: str) -> NoReturn:
    raise ValueError(f"{function}: {message}")


def no_attribute(
    module: str, name: str, public: Sequence[str], other: ModuleType | None = None
) -> AttributeError:
    """The error for a name that a module does not have, with the nearest it has.

    `other` is a module that may have it, or a name that is near.
    """
    own = name.removeprefix("linear_")
    if own != name and own in (*public, "softmax_plan"):
        call = f"{own}(LinearLogits(hidden, kernel, bias), …)"
        if own in ("asymmetric_loss", *SIGMOID):
            call = f"{own}(LinearLogits(hidden, kernel, bias), labels, axis=-1)"
        if own == "softmax_plan":
            call = "plan(softmax_cross_entropy)(LinearLogits(hidden, kernel), labels)"
        return AttributeError(
            f"module {module!r} has no attribute {name!r}. Losses and metrics take "
            f"LinearLogits in place of logits: call {call}."
        )
    near = _nearest(name, public)
    meant = {name, *SHORT.get(name.lower(), ())}
    if other is not None and (not near or meant & {*other.__all__}):
        elsewhere = _nearest(name, other.__all__)
        elsewhere = [name] if name in elsewhere else elsewhere
        near = [f"{other.__name__}.{found}" for found in elsewhere]
    hint = f"Did you mean {' or '.join(near)}?"
    if not near:
        hint = f"It has {', '.join(public)}."
    return AttributeError(f"module {module!r} has no attribute {name!r}. {hint}")


def _nearest(name: str, public: Sequence[str]) -> list[str]:
    meant = [full for full in SHORT.get(name.lower(), ()) if full in public]
    if meant:
        return meant
    spelled = {public_name.lower(): public_name for public_name in public}
    return [spelled[n] for n in get_close_matches(name.lower(), spelled)]


def shown(x: Any) -> str:
    """An argument as an error names it, in a few words."""
    plain = x is None or isinstance(x, (str, *SCALARS))
    if plain or (isinstance(x, list | tuple) and len(repr(x)) <= 60):
        text = repr(x)
    elif isinstance(x, Array | np.ndarray):
        text = f"an array of shape {x.shape} and dtype {x.dtype}"
    elif isinstance(x, jax.ShapeDtypeStruct):
        text = "a shape without values"
    elif isinstance(x, list | tuple | dict | set):
        text = f"a {type(x).__name__}"
    elif hasattr(x, "materialize"):
        text = type(x).__name__
    else:
        text = f"an object of type {type(x).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def to_be_static(name: str, value: Any) -> str:
    """What to do about a traced value of an argument that decides the program."""
    if not isinstance(value, Tracer):
        return ""
    return f" Give jax.jit static_argnames={name!r}."
