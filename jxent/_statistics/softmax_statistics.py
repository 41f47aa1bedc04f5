"""What the public functions return of a row's softmax."""

from typing import NamedTuple

from jax import Array

from .._compute.times import times


class _SoftmaxFields(NamedTuple):
    shift: Array
    log_sum: Array
    label_logit: Array | None = None
    label_mass: Array | None = None
    weighted_logit: Array | None = None
    expected_logit: Array | None = None
    argmax: Array | None = None


class SoftmaxStatistics(_SoftmaxFields):
    """Row statistics of logits, in nats, relative to the row maximum `shift`.

    `shift` is a constant under differentiation; the other fields carry the derivative
    of `lse`. Fields that were not asked for are None; argmax and the properties raise a
    ValueError then.

    Attributes:
      shift: max_c z_c.
      log_sum: log Σ_c exp(z_c − shift).
      label_logit: z_y − shift for a class id y, ⟨q, z − shift⟩ for a distribution q.
      label_mass: Σ_c q_c for a distribution.
      weighted_logit: Σ_c w_c (z_c − shift) for class weights w.
      expected_logit: Σ_c p_c (z_c − shift), where p = softmax(z).
      argmax: the class of the largest logit, the first of equals.
    """

    __slots__ = ()

    @property
    def lse(self) -> Array:
        """log Σ_c exp(z_c), the log-normalizer."""
        return self.shift + self.log_sum

    @property
    def log_prob(self) -> Array:
        """log p_y for a class id y, Σ_c q_c log p_c for a distribution q."""
        if self.label_logit is None:
            raise ValueError("log_prob: these statistics were taken without labels.")
        if self.label_mass is None:
            return self.label_logit - self.log_sum
        return self.label_logit - times(self.label_mass, self.log_sum)

    @property
    def entropy(self) -> Array:
        """−Σ_c p_c log p_c."""
        if self.expected_logit is None:
            raise ValueError("entropy: these statistics were taken with entropy=False.")
        return self.log_sum - self.expected_logit

    @property
    def argmax(self) -> Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The class of the largest logit, the first of equals."""
        argmax = self[_SoftmaxFields._fields.index("argmax")]
        if argmax is None:
            raise ValueError("argmax: these statistics were taken with argmax=False.")
        return argmax
