"""Which rows count, and the class ids that are scored: resolved once for each row."""

from typing import NamedTuple

from jax import Array, lax

from .._arrays import over_classes, select
from .bundles import Maybe


# An id that names no class. It matches none in any block, and the loss and the gradient
# of its row are NaN.
NO_CLASS = -(2**31)
# An id that is in no block, and so adds nothing to a row's labels.
NOWHERE = -1


class Resolved(NamedTuple):
    """Which rows count, and the class ids that are scored. No field has a tangent.

    A row is *kept* unless `where`, `ignore_index` or a mask of all its classes drops
    it. It is *weighted* if it is kept and its weight is not 0. A row that is not
    weighted has loss and gradient 0; but a row that is kept has a derivative in its
    weight, if its logits are finite.
    """

    # int32 (rows,) or (rows, k): global, NO_CLASS if bad, 0 if not weighted
    ids: Maybe = None
    scored: Maybe = None  # (rows, k): False for padding and masked classes
    keep: Maybe = None  # (rows,); None: all
    weighted: Maybe = None  # (rows,); None: all. False where keep is
    classes: Maybe = None  # how many are possible, () or (rows,); None: all


def computable(resolved: Resolved, x: Array, axis: int | None = None) -> Array:
    """`x` (rows,), or with `axis` beside the rows, and 0 for what is not finite in a
    row that is not weighted: a derivative would multiply it by 0."""
    weighted = resolved.weighted
    if weighted is None:
        return x
    weighted = weighted if axis is None else over_classes(weighted, axis, x)
    return select(lax.bitwise_or(weighted, lax.is_finite(x)), x)


def is_class(ids: Array) -> Array:
    """False where an id is NO_CLASS."""
    return lax.ne(ids, lax.full_like(ids, NO_CLASS))


def both(a: Maybe, b: Maybe) -> Maybe:
    return b if a is None else a if b is None else lax.bitwise_and(a, b)
