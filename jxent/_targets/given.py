"""Arguments as a public function takes them: what its rows are compared with.

Each kind checks them and makes a target of them.
"""

import dataclasses
from typing import Any

from jax import Array

from .. import _checks
from .._checks import SparseLabels
from .._linear_logits import Logits
from .._problem.bundles import STATIC, bundle
from .._problem.problem import Problem
from .binary import BinaryIds, BinaryLabels
from .distribution import Distribution
from .ids import Ids
from .several_ids import AmongIds, AskedIds, SeveralIds
from .softmax import Softmax
from .target import Like, NoTarget, Target


@bundle
class Given:
    labels: Any = None

    @property
    def one_softmax(self) -> bool:
        """Whether the classes of a row share one softmax: of one class alone it would
        be 1, whatever its logit, and is refused."""
        return True

    @property
    def more_logits(self) -> dict[str, Logits]:
        """Logits beside the rows' own, by the names of their arguments."""
        return {}

    def target(self, function: str, like: Like) -> Target:
        """The target, checked to fit the logits."""
        raise NotImplementedError

    def arranged(self, problem: Problem) -> Problem:
        """The checked problem, as the formula takes it."""
        return problem


@bundle
class ClassLabels(Given):
    """The labels of softmax losses: ids, a distribution, or `SparseLabels`."""

    ids_only: bool = dataclasses.field(default=False, metadata=STATIC)
    optional: bool = dataclasses.field(default=False, metadata=STATIC)

    def target(self, function: str, like: Like) -> Target:
        if self.labels is None and self.optional:
            return NoTarget()
        if like.name == "probs" or self.ids_only:
            _checks.no_sparse_labels(function, self.labels)
        if isinstance(self.labels, SparseLabels):
            return SeveralIds(**_several(function, self.labels, like))
        labels = _array(function, self.labels)
        shapes = like.name, like.x, labels, like.axis
        how = {"ids_only": self.ids_only, "axis_is_free": like.axis_is_free}
        if _checks.are_class_ids(function, *shapes, **how):
            return Ids(labels=labels)
        _checks.fits(function, "labels", self.labels)
        return Distribution(labels=like.classes_last(labels))


@bundle
class BinaryAnswers(Given):
    """The labels of losses with several a row: one for every class, or ids of some."""

    @property
    def one_softmax(self) -> bool:
        return False

    def target(self, function: str, like: Like) -> Target:
        if isinstance(self.labels, SparseLabels):
            return BinaryIds(**_several(function, self.labels, like))
        labels = _array(function, self.labels)
        _checks.labels_of_classes(function, like.name, like.x, labels, like.axis)
        return BinaryLabels(labels=like.classes_last(labels))


@bundle
class AskedAt(Given):
    """The ids whose log-probabilities are asked for."""

    def target(self, function: str, like: Like) -> Target:
        shape = like.shape, like.classes_at
        return AskedIds(ids=_checks.class_ids_at(function, "ids", self.labels, *shape))


@bundle
class AskedAmong(Given):
    """One id a row (`labels`), and those that its probability is renormalized over."""

    kept: Any = None

    def target(self, function: str, like: Like) -> Target:
        shape = like.shape, like.classes_at
        others = _checks.class_ids_at(function, "kept", self.kept, *shape)
        ids = _checks.class_ids_of_rows(function, "ids", self.labels, *shape)
        return AmongIds(ids=ids, others=others)


@bundle
class OtherSoftmax(Given):
    """The target of divergences: the softmax of other logits."""

    logits: Logits | None = None
    reverse: bool = dataclasses.field(default=False, metadata=STATIC)

    @property
    def more_logits(self) -> dict[str, Logits]:
        return {} if self.logits is None else {"target_logits": self.logits}

    def target(self, function: str, like: Like) -> Target:
        if self.logits is None:
            raise TypeError(f"{function}: expected target_logits, got None.")
        return Softmax()

    def arranged(self, problem: Problem) -> Problem:
        """With the target's softmax for the logits', and the other way, in reverse."""
        if not self.reverse:
            return problem
        rows, shared = problem.pair
        rows = rows._replace(logits=rows.logits[::-1])
        return problem.with_pair((rows, shared._replace(heads=shared.heads[::-1])))


def _several(function: str, labels: SparseLabels, like: Like) -> dict[str, Any]:
    shapes = like.shape, like.classes_at, like.dtype
    ids, values = _checks.sparse_labels(function, labels, *shapes)
    return {"ids": ids, "values": values}


def _array(function: str, labels: Any) -> Array:
    if labels is None:
        raise TypeError(f"{function}: expected labels, got None.")
    return _checks.label_array(function, "labels", labels)
