"""Sums over tiles of rows: each tile's gradient is formed together with its value.

A sum of losses over rows whose intermediate results are large, logits above all, need
never hold them for all rows: take a tile of rows, form value and gradient, keep the
gradient, forget the rest. What the sum's cotangent will be is not known then, but it is
one number, and a gradient is linear in it: it is multiplied on at the end.
"""
