"""The label of a call with its options: what its rows are compared with.

Each kind checks the label and makes a target of it.
"""

import dataclasses
from typing import Any

from jax import Array

from .. import _checks
from .._checks import ArrayLike, SparseLabels
from .._linear_logits import Logits
from .._problem.problem import Problem
from .binary import BinaryIds, BinaryLabels
from .distribution import Distribution
from .ids import Ids
from .several_ids import AmongIds, AskedIds, SeveralIds
from .softmax import Softmax
from .target import Like, NoTarget, Target


class Given:
    """A row's label, and its options behind it."""

    @property
    def operands(self) -> tuple[Any, ...]:
        """The label alone, of which its kind makes one without options."""
        return tuple(vars(self).values())[:1]

    @property
    def one_softmax(self) -> bool:
        """Whether the classes of a row share one softmax: of one class alone it would
        be 1, whatever its logit, and is refused."""
        return True

    @property
    def more_logits(self) -> dict[str, Logits]:
        """Logits beside the rows' own, by the names of their arguments."""
        return {}

    @property
    def array(self) -> Any:
        """What may have been exchanged with the logits; None for nothing."""
        return getattr(self, "labels", None)

    def target(self, function: str, like: Like) -> Target:
        """The target, checked to fit the logits."""
        raise NotImplementedError

    def arranged(self, problem: Problem) -> Problem:
        """The checked problem, as the formula takes it."""
        return problem


@dataclasses.dataclass
class NoLabel(Given):
    def target(self, function: str, like: Like) -> Target:
        return NoTarget()


@dataclasses.dataclass
class ClassIds(Given):
    """One class id a row."""

    labels: ArrayLike
    ignore_index: ArrayLike | None = None
    margin: ArrayLike | None = None

    def target(self, function: str, like: Like) -> Target:
        return _target_of_classes(function, self.labels, like, ids_only=True)


@dataclasses.dataclass
class RowLabels(Given):
    """The labels of softmax losses: ids, a distribution, or `SparseLabels`."""

    labels: ArrayLike | SparseLabels | None
    class_weights: ArrayLike | None = None
    ignore_index: ArrayLike | None = None
    margin: ArrayLike | None = None
    label_smoothing: ArrayLike | None = None
    z_loss: ArrayLike | None = None

    def target(self, function: str, like: Like) -> Target:
        return _target_of_classes(function, self.labels, like)


@dataclasses.dataclass
class RowLabelsIfAny(RowLabels):
    def target(self, function: str, like: Like) -> Target:
        return NoTarget() if self.labels is None else super().target(function, like)


@dataclasses.dataclass
class SetLabels(Given):
    """Labels of losses with several a row: one for every class, or ids of some."""

    labels: ArrayLike | SparseLabels
    ignore_index: ArrayLike | None = None
    label_smoothing: ArrayLike | None = None

    @property
    def one_softmax(self) -> bool:
        return False

    def target(self, function: str, like: Like) -> Target:
        if isinstance(self.labels, SparseLabels):
            return BinaryIds(**_several(function, self.labels, like))
        labels = _array(function, self.labels)
        _checks.labels_of_classes(function, like.name, like.x, labels, like.axis)
        return BinaryLabels(labels=like.classes_last(labels))


@dataclasses.dataclass
class BinaryAnswers(SetLabels):
    """Answers of yes or no, each with a weight."""

    class_weights: ArrayLike | None = None
    pos_weight: ArrayLike | None = None


@dataclasses.dataclass
class IdsOfRow(Given):
    """The ids whose log-probabilities are asked for."""

    ids: ArrayLike
    ignore_index: ArrayLike | None = None

    @property
    def array(self) -> Any:
        return self.ids

    def target(self, function: str, like: Like) -> Target:
        shape = like.shape, like.classes_at
        return AskedIds(ids=_checks.class_ids_at(function, "ids", self.ids, *shape))


@dataclasses.dataclass
class IdAmong(Given):
    """One id a row, and those that its probability is renormalized over."""

    ids: ArrayLike
    kept: ArrayLike
    ignore_index: ArrayLike | None = None

    @property
    def operands(self) -> tuple[Any, ...]:
        return self.ids, self.kept

    @property
    def array(self) -> Any:
        return self.ids

    def target(self, function: str, like: Like) -> Target:
        shape = like.shape, like.classes_at
        others = _checks.class_ids_at(function, "kept", self.kept, *shape)
        ids = _checks.class_ids_of_rows(function, "ids", self.ids, *shape)
        return AmongIds(ids=ids, others=others)


@dataclasses.dataclass
class OtherSoftmax(Given):
    """The target of divergences: the softmax of other logits."""

    target_logits: Logits
    target_logit_soft_cap: ArrayLike | None = None

    @property
    def more_logits(self) -> dict[str, Logits]:
        return {"target_logits": self.target_logits}

    def target(self, function: str, like: Like) -> Target:
        return Softmax()


@dataclasses.dataclass
class OtherSoftmaxInReverse(OtherSoftmax):
    def arranged(self, problem: Problem) -> Problem:
        """With the target's softmax for the logits', and the other way."""
        rows, shared = problem.pair
        rows = rows._replace(logits=rows.logits[::-1])
        return problem.with_pair((rows, shared._replace(heads=shared.heads[::-1])))


def _target_of_classes(
    function: str, given: Any, like: Like, *, ids_only: bool = False
) -> Target:
    if like.name == "probs" or ids_only:
        _checks.no_sparse_labels(function, given)
    if isinstance(given, SparseLabels):
        return SeveralIds(**_several(function, given, like))
    labels = _array(function, given)
    shapes = like.name, like.x, labels, like.axis
    how = {"ids_only": ids_only, "axis_is_free": like.axis_is_free}
    if _checks.are_class_ids(function, *shapes, **how):
        return Ids(labels=labels)
    _checks.fits(function, "labels", given)
    return Distribution(labels=like.classes_last(labels))


def _several(function: str, labels: SparseLabels, like: Like) -> dict[str, Any]:
    shapes = like.shape, like.classes_at, like.dtype
    ids, values = _checks.sparse_labels(function, labels, *shapes)
    return {"ids": ids, "values": values}


def _array(function: str, labels: Any) -> Array:
    if labels is None:
        raise TypeError(f"{function}: expected labels, got None.")
    return _checks.label_array(function, "labels", labels)
