"""What a row is compared with: one object, in one file each.

A target is a bundle: its fields are arrays, declared with their axes as those of `Rows`
are, so that tiles, blocks, meshes and derivatives treat them without knowing it. Its
methods say what follows from it; those here are those of no target at all. Where they
take a problem, `problem.target` is the target itself.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import _checks
from .._arrays import Shape, Shaped, Size, compute_dtype
from .._problem.bundles import Maybe, bundle
from .._problem.problem import Problem, Shared
from .._problem.resolved import Resolved
from .._statistics.evenly import Evenly
from .._statistics.inputs import Part, effective_logits
from .._statistics.statistic import Statistic
from .._statistics.totals import Totals


class Losses(NamedTuple):
    """Unreduced losses (rows,), with what the reduction needs."""

    losses: Array
    class_factor: Maybe = None  # what the classes multiply a row with; None for 1
    statistics: Any = None  # public ones; None where a row has no one softmax


class Scored(NamedTuple):
    """A row's target q against its logits, from its statistics; (rows,) or as noted."""

    label: Any = None  # ⟨q, z − shift⟩; z_k − shift (rows, k) of `AskedIds`
    mass: Maybe = None  # Σ_c q_c; None for 1
    factor: Maybe = None  # what multiplies the row's loss; None for 1
    at_ids: Any = None  # z_k − shift of several ids, (rows, k)
    masses: Any = None  # and what q has at each of them, (rows, k)


@dataclasses.dataclass(frozen=True)
class Target:
    of_every_class: ClassVar[bool] = False  # has a number for every class of a row
    has_terms: ClassVar[bool] = False  # a loss sums one of each class, beside log p
    scattered: ClassVar[bool] = False  # its gradient is, into a block of logits
    drops: ClassVar[bool] = False  # its ignore_index drops rows

    # Before the rows --------------------------------------------------------------

    def ignore_index(self, function: str, index: Any) -> Maybe:
        """The checked option; None where it has no meaning."""
        return None

    def check_margin(self, function: str, margin: Any) -> None:
        _checks.margin_of_ids(function, margin, ids=False)

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        """What its losses are formulas on, beside Σ exp(z − shift)."""
        return ()

    def needs_every_log_p(self, problem: Problem) -> bool:
        """Whether the statistics of a row are not enough for its loss."""
        return False

    # The rows ---------------------------------------------------------------------

    def kept(self, shared: Shared) -> Maybe:
        """False in rows that the target itself drops; None for none."""
        return None

    def resolve(self, problem: Problem) -> Resolved:
        """Adds class ids, and which of them are scored, to what is resolved so far."""
        return problem.resolved

    def bad(self, problem: Problem) -> tuple[Array, Array, Size] | None:
        """Labels as the caller gave them, True for those that are none, and the number
        of which they have to be below."""
        return None

    def logits(self, part: Part) -> tuple[Array, Maybe]:
        """The block's effective logits, and those of a second softmax of the row."""
        return effective_logits(part), None

    # The losses -------------------------------------------------------------------

    def score(self, problem: Problem, t: Totals) -> Scored:
        """What public statistics and formulas need of the target."""
        return Scored()

    def factor(self, problem: Problem) -> Maybe:
        """What the classes multiply a row with, (rows,); None for 1."""
        return None

    def losses(self, problem: Problem) -> Losses:
        """The losses of the rows, by the problem's formula."""
        raise NotImplementedError

    def is_right(self, problem: Problem, predicted: Array) -> Array:
        """Whether the class of the largest logit is one of most mass, boolean (rows,).

        `predicted` (rows,) are the ids of the largest logits, of all devices together.
        """
        raise NotImplementedError


def evenly_if(option: Maybe) -> tuple[Statistic, ...]:
    """The statistic over all classes alike, if the option that needs it is on."""
    return () if option is None else (Evenly(),)


@bundle
class NoTarget(Target):
    """For statistics of logits alone."""

    def check_margin(self, function: str, margin: Any) -> None:
        pass

    def statistics(self, problem: Problem) -> tuple[Statistic, ...]:
        return evenly_if(problem.shared.class_weights)


class Like(NamedTuple):
    """The logits that a target is to fit, as the caller names them."""

    name: str
    x: Shaped
    axis: int | tuple[int, ...]
    axis_is_free: bool

    @property
    def dtype(self) -> jnp.dtype:
        return compute_dtype(self.x)

    @property
    def shape(self) -> Shape:
        """With the classes last, if they have several axes."""
        if not isinstance(self.axis, tuple):
            return self.x.shape
        rows = (n for a, n in enumerate(self.x.shape) if a not in self.axis)
        return (*rows, math.prod(self.x.shape[a] for a in self.axis))

    @property
    def classes_at(self) -> int:
        return len(self.shape) - 1 if isinstance(self.axis, tuple) else self.axis

    def classes_last(self, x: Array) -> Array:
        axis = self.axis
        return _checks.classes_last(x, axis) if isinstance(axis, tuple) else x
