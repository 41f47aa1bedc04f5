"""Sums over tiles of rows: each tile's gradient is formed together with its value.

A sum of losses over rows whose intermediate results are large, logits above all, need
never hold them for all rows: take a tile of rows, form value and gradient, keep the
gradient, forget the rest. What the sum's cotangent will be is not known then, but it is
one number, and a gradient is linear in it: it is multiplied on at the end.
"""

from .loop import (
    live_first as live_first,
    over_blocks as over_blocks,
    over_tiles as over_tiles,
)
from .maps import map_over_tiles as map_over_tiles
from .rule import (
    Moving as Moving,
    Tiling as Tiling,
    tiled_sum as tiled_sum,
)
from .sums import sum_over_tiles as sum_over_tiles
