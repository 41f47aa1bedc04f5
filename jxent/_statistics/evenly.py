"""Σ_c w_c (z_c − shift) and the mass Σ_c w_c over all possible classes, for smoothing.

w are the class weights, or 1.
"""

import dataclasses

from jax import Array, lax

from .._arrays import over_rows, select
from .inputs import Part
from .weighted import Weighted


# Class weights enter times this power of 2, which rounds nothing: smoothing wants the
# mean over the classes, which may be finite where the sum is not.
CLASS_SCALE = 2.0**-32


@dataclasses.dataclass(frozen=True)
class Evenly(Weighted):
    def given(self, part: Part) -> Array:
        z, axis = part.z, part.problem.axis
        weights = part.problem.shared.class_weights
        if weights is None:
            even = lax.full_like(z, CLASS_SCALE, shape=(z.shape[axis],))
        else:
            even = lax.mul(lax.full_like(weights, CLASS_SCALE), weights)
        if part.possible is None:
            return even
        return select(part.possible, over_rows(even, axis, z))
