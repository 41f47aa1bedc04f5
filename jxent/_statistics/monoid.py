"""Row statistics of logits: a commutative monoid, its derivative, and layout 1.

Every softmax loss is a formula on a few numbers per row of logits z, all relative to
the row's maximum, its *shift*:

    sum         Σ_c exp(z_c − shift)
    label       z_y − shift, for a class id y
    weighted    Σ_c w_c (z_c − shift), for class weights or a distribution w
    expected    Σ_c exp(z_c − shift) (z_c − shift)
    argmax      the first c with z_c = shift

The statistics of two blocks of classes merge into those of both (`merge`), so that a
row may be taken in one piece, streamed block by block, or split over devices. Kept
relative, they lose nothing where logits are large: around 1e4 in float32 the form
lse − z_y is off by 5e-4.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .._arrays import masked
from .._reduction import times


class Totals(NamedTuple):
    """Statistics of one or more blocks of classes; None where not asked for.

    While blocks are merged, `label` is z_y itself, 0 where y lies in another block, and
    `weight` is the Σ_c w_c that `weighted` needs when its shift moves. `finite` comes
    last: whether the row has a finite maximum and no NaN.
    """

    maximum: Array
    sum: Array
    label: Array | None = None
    label_weight: Array | None = None
    weighted: Array | None = None
    weight: Array | None = None
    expected: Array | None = None
    argmax: Array | None = None
    finite: Array | None = None


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

    Every field is differentiable; `shift` counts as a constant, and what it takes from
    the slope of `lse` the other fields have. Those that were not asked for are None,
    but for argmax and the properties, which raise a ValueError then.

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


def _rescale(t: Totals, maximum: Array) -> Totals:
    """The same statistics relative to a maximum that is no smaller."""
    gap = t.maximum - maximum
    gap = masked(gap, t.maximum != maximum)  # −inf − −inf = 0
    factor = jnp.exp(gap)
    moved = t._replace(maximum=maximum, sum=t.sum * factor)
    step = masked(gap, gap != -jnp.inf)  # 0 · −inf = 0, in slopes too
    if t.weighted is not None and t.weight is not None:
        weighted = t.weighted + t.weight * step
        lost = (gap == -jnp.inf) & (t.weight != 0)
        moved = moved._replace(weighted=masked(weighted, ~lost, -jnp.inf))
    if t.expected is not None:
        moved = moved._replace(expected=(t.expected + t.sum * step) * factor)
    return moved


def _add(a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None else a + b


def merge(a: Totals, b: Totals) -> Totals:
    """The statistics of two blocks of classes together."""
    maximum = lax.max(a.maximum, b.maximum)
    argmax = None
    if a.argmax is not None and b.argmax is not None:
        first = (a.maximum > b.maximum) | (
            (a.maximum == b.maximum) & (a.argmax < b.argmax)
        )
        argmax = jnp.where(first, a.argmax, b.argmax)
    a, b = _rescale(a, maximum), _rescale(b, maximum)
    return Totals(
        maximum=maximum,
        sum=a.sum + b.sum,
        label=_add(a.label, b.label),
        label_weight=_add(a.label_weight, b.label_weight),
        weighted=_add(a.weighted, b.weighted),
        weight=_add(a.weight, b.weight),
        expected=_add(a.expected, b.expected),
        argmax=argmax,
    )


def merge_devices(t: Totals, classes: int, names: tuple[str, ...]) -> Totals:
    """`merge` over the mesh axes that split the classes: one pmax, one psum."""
    maximum = lax.pmax(t.maximum, names)
    argmax = None
    if t.argmax is not None:
        here = t.argmax + lax.axis_index(names) * classes
        here = jnp.where(t.maximum == maximum, here, 2**31 - 1)
        argmax = lax.pmin(here, names)
    t = _rescale(t, maximum)
    summed = lax.psum((t.sum, t.label, t.label_weight, t.weighted, t.expected), names)
    total, label, label_weight, weighted, expected = summed
    return Totals(maximum, total, label, label_weight, weighted, None, expected, argmax)
