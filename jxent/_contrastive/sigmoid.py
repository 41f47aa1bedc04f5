"""Sums of −log σ(± z) over the pairs of a row."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import select
from .._problem.bundles import Maybe
from .matrix import BlockLogits, MatrixBlock, Relation
from .statistics import Form, add


class PairSums(NamedTuple):
    """Statistics (rows,) of the pairs of a relation."""

    total: Array  # Σ −log σ(± z)
    pairs: Maybe = None  # how many, a constant


@functools.cache
def sigmoid_form(over: Relation, positive: Relation | None = None) -> Form:
    """The form with `PairSums` of rows: + where `positive` holds, − elsewhere.

    Without `positive` every sign is +, and the pairs are counted.
    """

    def signed(block: MatrixBlock, z: Array) -> Array:
        yes = None if positive is None else positive(block)
        return z if yes is None else lax.select(yes, z, lax.neg(z))

    def over_pairs(block: MatrixBlock, x: Array) -> Array:
        pairs = over(block)
        return lax.reduce_sum(x if pairs is None else select(pairs, x), (1,))

    def of_block(block: MatrixBlock, logits: BlockLogits) -> tuple[PairSums, None]:
        losses = jax.nn.softplus(lax.neg(signed(block, logits.biased)))
        pairs = None
        if positive is None:
            pairs = over_pairs(block, lax.full_like(losses, 1))
        return PairSums(total=over_pairs(block, losses), pairs=pairs), None

    # d −log σ(± z) = ∓ σ(∓ z) dz
    def tangent_of_block(
        block: MatrixBlock, logits: BlockLogits, moved: BlockLogits, t: Any
    ) -> tuple[PairSums, None]:
        wrong = lax.logistic(lax.neg(signed(block, logits.biased)))
        slopes = lax.mul(wrong, lax.neg(signed(block, moved.biased)))
        return PairSums(total=over_pairs(block, slopes)), None

    return Form(
        of_block=of_block,
        of_nothing=lambda sums: jax.tree.map(jnp.zeros_like, sums),
        merge=add,
        merge_devices=lambda sums, names: sums,
        tangent_of_block=tangent_of_block,
    )
