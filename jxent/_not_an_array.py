"""What to do in place of what arrays can, for logits that are not an array."""

from typing import TYPE_CHECKING, Any

import jax


_TEMPERATURE = "In place of logits / t give the loss temperature=t."
_BIAS = "In place of logits + b give LinearLogits bias=b."
_LARGEST = "jxent.softmax_top_k(logits, 1) finds the largest of each row."
_STATISTICS = "jxent.softmax_statistics(logits) has the maximum and lse of each row."
_RESHAPE = "Rows have the axes of logits.hidden: reshape that."
_MASK = "class_mask= of a loss excludes classes, where= drops rows."

# By an operator's sign its methods, without underscores.
_OPERATORS = {
    "/": ("truediv rtruediv", _TEMPERATURE),
    "*": ("mul rmul", _TEMPERATURE),
    "+": ("add radd", _BIAS),
    "-": ("sub rsub", _BIAS),
    "unary -": ("neg", "Negate hidden and bias."),
    "//": ("floordiv rfloordiv", ""),
    "%": ("mod rmod", ""),
    "**": ("pow rpow", ""),
    "@": ("matmul rmatmul", ""),
    "comparison": ("lt le gt ge", ""),
    "abs": ("abs", ""),
    "item assignment": ("setitem", _MASK),
}
_METHODS = {
    "argmax argmin argsort sort": _LARGEST,
    "max min mean sum std var prod": _STATISTICS,
    "astype": "Cast the hidden states or the kernel; logits are in float32 or float64.",
    "reshape ravel flatten squeeze transpose swapaxes T mT repeat": _RESHAPE,
    "at": _MASK,
    "clip": "logit_soft_cap= of a loss bounds its logits.",
}
_OF_METHOD = {name: text for names, text in _METHODS.items() for name in names.split()}
_FORM = "logits.materialize() forms an array, where it fits."


def _missing(name: str, advice: str) -> str:
    parts = f"LinearLogits are not an array, and have no {name}.", advice, _FORM
    return " ".join(filter(None, parts))


class NotAnArray:
    """A base of LinearLogits: what arrays can is an error that says what to do."""

    if not TYPE_CHECKING:  # type checkers refuse what is not there

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and hasattr(jax.Array, name):
                raise AttributeError(_missing(name, _OF_METHOD.get(name, "")))
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise TypeError(
                "LinearLogits are not an array: losses, metrics, … of jxent take them. "
                f"{_LARGEST} {_STATISTICS} {_TEMPERATURE} {_BIAS} {_FORM}"
            )

        __jax_array__ = __array__  # functions of JAX ask for it


def _operator(sign: str, advice: str) -> Any:
    def refuse(self: Any, *_: Any) -> Any:
        raise TypeError(_missing(sign, advice))

    return refuse


for sign, (names, advice) in _OPERATORS.items():
    for name in names.split():
        setattr(NotAnArray, f"__{name}__", _operator(sign, advice))
