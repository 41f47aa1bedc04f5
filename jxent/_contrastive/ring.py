"""Sums over all devices, whose shares of an array travel in a ring.

Each of g devices has a share of two arrays. One stays at *home*; the other is
*visiting*: it goes from device to device, and with it goes what is summed for it. After
g − 1 hops each share has met those of all other devices, none of which ever held more
than two, and the sums are back where they belong.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.interpreters import ad, batching, mlir

from .._arrays import like_moving, replaced, zeros_of


# (home, visiting) -> (for the home, for the visiting)
Body = Callable[[Any, Any], tuple[Any, Any]]


def over_others(
    body: Body,
    names: tuple[str, ...],
    merge: Callable[[Any, Any], Any],
    of_nothing: Callable[[Any], Any],
    home: Any,
    visiting: Any,
) -> tuple[Any, Any]:
    """What `body` gives for a device's share and those of all other devices, merged.

    The first result, of the home share, is merged over all shares that visit it; the
    second, of the visiting share, over all homes that it visits.
    """
    devices = lax.axis_size(names)
    hops = [(i, (i + 1) % devices) for i in range(devices)]
    body = jax.jit(body, inline=True)

    def sent(tree: Any) -> Any:
        return jax.tree.map(lambda x: lax.ppermute(x, names, hops), tree)

    def hop(carry: Any, _: None) -> tuple[Any, None]:
        visiting, of_home, of_visiting = carry
        visiting = sent(visiting)
        parts = body(home, visiting)
        of_visiting = sent(merge(of_visiting, parts[1]))
        return (visiting, merge(of_home, parts[0]), of_visiting), None

    nothing = map(of_nothing, zeros_of(body, home, visiting))
    (_, *merged), _ = lax.scan(hop, (visiting, *nothing), None, length=devices - 1)
    return merged[0], merged[1]


def sum_over_others(
    body: Body, names: tuple[str, ...], home: Any, visiting: Any
) -> tuple[Any, Any]:
    """`over_others` as a sum, whose derivatives are such sums: nothing is gathered."""
    operands, tree = jax.tree.flatten((home, visiting))
    body = jax.jit(body, inline=True)
    results = jax.tree.structure(jax.eval_shape(body, home, visiting))
    sums = _sum.bind(*operands, body=body, names=names, tree=tree)
    return jax.tree.unflatten(results, sums)


# JAX would transpose the scan over hops with all that ever visited kept. Written by its
# body, the transpose of a sum that is linear in some operands is again such a sum: of
# the transposed body, with cotangents in the place of these operands. Home shares stay
# at home there too, and visiting shares travel again.
_sum = type(lax.exp_p)("sum_over_others")
_sum.multiple_results = True


def _run(*operands: Any, body: Body, names: tuple[str, ...], tree: Any) -> list[Any]:
    def add(a: Any, b: Any) -> Any:
        return jax.tree.map(lax.add, a, b)

    home, visiting = jax.tree.unflatten(tree, operands)
    sums = over_others(body, names, add, lambda zeros: zeros, home, visiting)
    return jax.tree.leaves(sums)


def _types(*operands: Any, body: Body, names: tuple[str, ...], tree: Any) -> Any:
    return jax.make_jaxpr(body)(*jax.tree.unflatten(tree, operands)).out_avals


def _jvp(operands: Any, tangents: Any, *, body: Body, names: Any, tree: Any) -> Any:
    tangents = [None if isinstance(t, ad.Zero) else t for t in tangents]
    moving = jax.tree.unflatten(tree, tangents)

    def tangent(home: Any, visiting: Any) -> Any:
        points, tangents = zip(home, visiting, strict=True)

        def at(some: Any) -> Any:
            return body(*replaced(points, some))

        return jax.jvp(at, (like_moving(tangents, points),), (tangents,))[1]

    fixed = jax.tree.unflatten(tree, operands)
    home, visiting = zip(fixed, moving, strict=True)
    moved = sum_over_others(tangent, names, home, visiting)
    sums = _sum.bind(*operands, body=body, names=names, tree=tree)
    return sums, jax.tree.leaves(moved)


def _transpose(
    cotangents: Any, *operands: Any, body: Body, names: Any, tree: Any
) -> list[Any]:
    linear = [x.aval if ad.is_undefined_primal(x) else None for x in operands]
    known = [None if ad.is_undefined_primal(x) else x for x in operands]
    moving = jax.tree.unflatten(tree, linear)

    def transposed(home: Any, visiting: Any) -> Any:
        points, of_sums = zip(home, visiting, strict=True)

        def at(some: Any) -> Any:
            return body(*replaced(points, some))

        return jax.linear_transpose(at, moving)(of_sums)[0]

    fixed = jax.tree.unflatten(tree, known)
    shapes = jax.eval_shape(body, *replaced(fixed, moving))
    cotangents = map(ad.instantiate_zeros, cotangents)
    of_sums = jax.tree.unflatten(jax.tree.structure(shapes), cotangents)
    home, visiting = zip(fixed, of_sums, strict=True)
    results = iter(jax.tree.leaves(sum_over_others(transposed, names, home, visiting)))
    return [None if x is None else next(results) for x in linear]


def _batched(
    axis: Any, operands: Any, axes: Any, *, body: Body, names: Any, tree: Any
) -> tuple[Any, Any]:
    options = {"names": names, "tree": tree}
    if all(a is None for a in axes):
        sums = _sum.bind(*operands, body=body, **options)
        return sums, [None] * len(sums)
    if axis.name in names:  # the devices are those of a vmap
        run = functools.partial(_run, body=body, **options)
        mapped = jax.vmap(run, axes, axis_name=axis.name, axis_size=axis.size)
        sums = mapped(*operands)
        return sums, [0] * len(sums)

    def of_all(home: Any, visiting: Any) -> Any:
        def of_one(*operands: Any) -> Any:
            return body(*jax.tree.unflatten(tree, operands))

        return jax.vmap(of_one, axes)(*jax.tree.leaves((home, visiting)))

    sums = _sum.bind(*operands, body=jax.jit(of_all, inline=True), **options)
    return sums, [0] * len(sums)


_sum.def_impl(_run)
_sum.def_abstract_eval(_types)
mlir.register_lowering(_sum, mlir.lower_fun(_run, multiple_results=True))
ad.primitive_jvps[_sum] = _jvp
ad.primitive_transposes[_sum] = _transpose
batching.fancy_primitive_batchers[_sum] = _batched
