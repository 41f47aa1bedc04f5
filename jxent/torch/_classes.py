"""PyTorch's loss classes: each holds a function's options until the arrays come."""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

import dataclasses
from dataclasses import InitVar, dataclass
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks as _core_checks
from .._checks import ArrayLike
from . import _binary, _checks, _divergence, _linear, _softmax
from ._loss import TorchLoss


@dataclass(frozen=True, eq=False)
class CrossEntropyLoss(TorchLoss):
    """`torch.nn.CrossEntropyLoss`: `cross_entropy` with its options.

    Args:
      weight: w, (C,).
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      ignore_index: the index that marks a row to drop. Class probabilities know none.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".
      label_smoothing: ε, between 0 and 1; None for 0.

    Example:
      >>> loss = jxent.torch.CrossEntropyLoss(label_smoothing=0.1)
      >>> input = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
      >>> print(loss(input, jnp.array([0, 2])))
      0.3339
      >>> jax.tree.leaves(loss)
      []
    """

    _function = staticmethod(_softmax.cross_entropy)

    weight: ArrayLike | None = None
    size_average: InitVar[bool | None] = None
    ignore_index: SupportsIndex = -100
    reduce: InitVar[bool | None] = None
    reduction: str = "mean"
    label_smoothing: ArrayLike | None = 0.0


@dataclass(frozen=True, eq=False)
class NLLLoss(TorchLoss):
    """`torch.nn.NLLLoss`: `nll_loss` with its options.

    Args:
      weight: w, (C,).
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      ignore_index: the index that marks a row to drop. Class probabilities know none.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Example:
      >>> loss = jxent.torch.NLLLoss(reduction="sum")
      >>> print(loss(jnp.log(jnp.array([[0.75, 0.25]])), jnp.array([1])))
      1.38629
    """

    _function = staticmethod(_softmax.nll_loss)

    weight: ArrayLike | None = None
    size_average: InitVar[bool | None] = None
    ignore_index: SupportsIndex = -100
    reduce: InitVar[bool | None] = None
    reduction: str = "mean"


@dataclass(frozen=True, eq=False)
class BCELoss(TorchLoss):
    """`torch.nn.BCELoss`: `binary_cross_entropy` with its options.

    Args:
      weight: w, of any shape that broadcasts to the target's.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Example:
      >>> loss = jxent.torch.BCELoss()
      >>> print(loss(jnp.array([0.9, 0.2]), jnp.array([1.0, 0.0])))
      0.16425
    """

    _function = staticmethod(_binary.binary_cross_entropy)

    weight: ArrayLike | None = None
    size_average: InitVar[bool | None] = None
    reduce: InitVar[bool | None] = None
    reduction: str = "mean"


@dataclass(frozen=True, eq=False)
class BCEWithLogitsLoss(TorchLoss):
    """`torch.nn.BCEWithLogitsLoss`: the function with logits and its options.

    Args:
      weight: w, of any shape that broadcasts to the target's.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".
      pos_weight: w⁺, of any shape that broadcasts to the target's.

    Example:
      >>> loss = jxent.torch.BCEWithLogitsLoss(pos_weight=jnp.array([3.0]))
      >>> print(loss(jnp.array([2.0, -1.0]), jnp.array([1.0, 1.0])))
      2.16028
    """

    _function = staticmethod(_binary.binary_cross_entropy_with_logits)

    weight: ArrayLike | None = None
    size_average: InitVar[bool | None] = None
    reduce: InitVar[bool | None] = None
    reduction: str = "mean"
    pos_weight: ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class KLDivLoss(TorchLoss):
    """`torch.nn.KLDivLoss`: `kl_div` with its options.

    Args:
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "batchmean", "mean" or "sum". The divergence of a batch of
        distributions is "batchmean"; "mean" divides by the classes too.
      log_target: whether the target holds log t.

    Example:
      >>> loss = jxent.torch.KLDivLoss(reduction="batchmean")
      >>> print(loss(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1.0, 0.0]])))
      0.69315
    """

    _function = staticmethod(_divergence.kl_div)
    _reductions = ("none", "batchmean", "mean", "sum")

    size_average: InitVar[bool | None] = None
    reduce: InitVar[bool | None] = None
    reduction: str = "mean"
    log_target: bool = False


@dataclass(frozen=True, eq=False)
class SoftMarginLoss(TorchLoss):
    """`torch.nn.SoftMarginLoss`: `soft_margin_loss` with its options.

    Args:
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Example:
      >>> loss = jxent.torch.SoftMarginLoss()
      >>> print(loss(jnp.array([2.0, -1.0]), jnp.array([1, -1])))
      0.22009
    """

    _function = staticmethod(_binary.soft_margin_loss)

    size_average: InitVar[bool | None] = None
    reduce: InitVar[bool | None] = None
    reduction: str = "mean"


@dataclass(frozen=True, eq=False)
class MultiLabelSoftMarginLoss(TorchLoss):
    """`torch.nn.MultiLabelSoftMarginLoss`: the function of that name with its options.

    Args:
      weight: w, of any shape that broadcasts to the target's; (C,) as a rule.
      size_average: PyTorch's older way to say reduction; a DeprecationWarning.
      reduce: PyTorch's older way to say reduction; a DeprecationWarning.
      reduction: "none", "mean" or "sum".

    Example:
      >>> loss = jxent.torch.MultiLabelSoftMarginLoss(weight=(1.0, 2.0, 1.0))
      >>> print(loss(jnp.array([[2.0, 0.0, -1.0]]), jnp.array([[1, 0, 1]])))
      0.94216
    """

    _function = staticmethod(_binary.multilabel_soft_margin_loss)

    weight: ArrayLike | None = None
    size_average: InitVar[bool | None] = None
    reduce: InitVar[bool | None] = None
    reduction: str = "mean"


@dataclass(frozen=True, eq=False)
class LinearCrossEntropyLoss(TorchLoss):
    """`torch.nn.LinearCrossEntropyLoss`: a linear layer and its `linear_cross_entropy`.

    The layer, linear_weight of shape (num_classes, *out_features, in_features) and
    linear_bias, are leaves of the loss: differentiate with respect to the loss itself.

    Args:
      in_features: features of the input.
      num_classes: C.
      out_features: (d1, …), further axes of the target; none by default.
      bias: whether the layer has a bias.
      device: unused.
      dtype: of the layer's parameters; float32 by default.
      reduction: "none", "mean" or "sum".
      weight: w, (C,).
      ignore_index: the index that marks a row to drop; None for -100. Class
        probabilities know none.
      label_smoothing: ε, between 0 and 1; None for 0.
      options: unused. PyTorch's chunking; jxent plans its own.
      key: a `jax.random.key` that the parameters are drawn with.

    Differences:
      key, a `jax.random.key`, stands for PyTorch's global generator. device and options
      are unused.

    Example:
      >>> loss = jxent.torch.LinearCrossEntropyLoss(2, 3, key=jax.random.key(0))
      >>> input, target = jnp.ones((4, 2)), jnp.array([0, 1, 2, 0])
      >>> grads = jax.grad(lambda loss: loss(input, target))(loss)
      >>> print(grads.linear_weight.shape)
      (3, 2)
    """

    _function = staticmethod(_linear.linear_cross_entropy)

    in_features: int
    num_classes: int
    _: dataclasses.KW_ONLY
    out_features: tuple[int, ...] = ()
    bias: InitVar[bool] = False
    device: InitVar[Any] = None
    dtype: InitVar[Any] = None
    reduction: str = "mean"
    weight: ArrayLike | None = None
    ignore_index: SupportsIndex | None = None
    label_smoothing: ArrayLike | None = 0.0
    options: InitVar[Any] = None
    key: InitVar[Array]
    linear_weight: Array = dataclasses.field(init=False)
    linear_bias: Array | None = dataclasses.field(init=False)

    def __post_init__(
        self, bias: bool, device: Any, dtype: Any, options: Any, key: Array
    ) -> None:
        super().__post_init__(None, None)
        name = type(self).__name__
        inputs = _core_checks.positive_integer(name, "in_features", self.in_features)
        outputs = _checks.outputs(name, self.num_classes, self.out_features)
        dtype = _core_checks.dtype(name, "dtype", dtype or jnp.float32)
        bound = inputs**-0.5

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        biased = _core_checks.flag(name, "bias", bias)
        of_weight, of_bias = jax.random.split(_checks.random_key(name, key))
        vars(self).update(
            linear_weight=uniform(of_weight, (*outputs, inputs)),
            linear_bias=uniform(of_bias, outputs) if biased else None,
        )

    def __call__(self, input: ArrayLike, target: ArrayLike) -> Float[Array, "..."]:
        return _linear.linear_cross_entropy(
            input,
            self.linear_weight,
            target,
            linear_bias=self.linear_bias,
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )
