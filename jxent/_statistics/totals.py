"""Row statistics of logits: a commutative monoid.

Every softmax loss is a formula on a few numbers per row of logits z, all relative to
the row's maximum, its *shift*:

    sum         Σ_c exp(z_c − shift)
    label       z_y − shift, for a class id y
    target      Σ_c t_c (z_c − shift), and mass Σ_c t_c, for a distribution t
    even        Σ_c w_c (z_c − shift), and even_mass Σ_c w_c, for class weights w
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

from .._arrays import select, vary, varying_of
from .._problem import Maybe, Resolved, is_class


class Totals(NamedTuple):
    """Statistics (rows,) of one or more blocks of classes; None where not asked for.

    While blocks are merged, `label` is z_y itself, 0 where y lies in another block.
    `computable` comes last: False where the row holds NaN, or nothing finite.
    """

    maximum: Array
    sum: Array
    label: Maybe = None
    target: Maybe = None
    mass: Maybe = None
    even: Maybe = None
    even_mass: Maybe = None
    expected: Maybe = None
    argmax: Maybe = None
    computable: Maybe = None


def origin(maximum: Array) -> Array:
    """What statistics are relative to: the maximum, or 0 where it is not finite."""
    return select(lax.is_finite(maximum), maximum)


def of_no_class(like: Totals) -> Totals:
    """The identity of `merge`, for the fields that `like` has, in their dtypes."""
    values = {"maximum": -jnp.inf, "argmax": 2**31 - 1}  # above all classes
    return like._replace(
        **{
            name: jnp.asarray(values.get(name, 0), x.dtype)
            for name, x in like._asdict().items()
            if x is not None
        }
    )


def _rescale(t: Totals, maximum: Array) -> Totals:
    """Rescales statistics to a larger maximum."""
    gap = lax.sub(t.maximum, maximum)
    gap = select(lax.ne(t.maximum, maximum), gap)  # −inf − −inf = 0
    factor = lax.exp(gap)
    scaled = t._replace(maximum=maximum, sum=lax.mul(t.sum, factor))
    if t.target is None and t.even is None and t.expected is None:
        return scaled
    possible = lax.ne(gap, lax.full_like(gap, -jnp.inf))
    step = select(possible, gap)  # 0 · −inf = 0, in derivatives too

    def moved(x: Maybe, mass: Maybe) -> Maybe:
        if x is None or mass is None:
            return None
        no_mass = lax.eq(mass, lax.full_like(mass, 0))
        return select(possible | no_mass, x + lax.mul(mass, step), -jnp.inf)

    expected = None
    if t.expected is not None:
        expected = lax.mul(t.expected + lax.mul(t.sum, step), factor)
    return scaled._replace(
        target=moved(t.target, t.mass),
        even=moved(t.even, t.even_mass),
        expected=expected,
    )


def merge(a: Totals, b: Totals) -> Totals:
    """The statistics of two blocks of classes together."""
    maximum, argmax = lax.max(a.maximum, b.maximum), None
    if a.argmax is not None and b.argmax is not None:
        equal = lax.eq(a.maximum, b.maximum)
        first = lax.gt(a.maximum, b.maximum) | (equal & lax.lt(a.argmax, b.argmax))
        argmax = lax.select(first, a.argmax, b.argmax)
    a, b = _rescale(a, maximum), _rescale(b, maximum)
    sums = Totals._make(
        None if x is None or y is None else lax.add(x, y)
        for x, y in zip(a, b, strict=True)
    )
    return sums._replace(maximum=maximum, argmax=argmax)


def merge_devices(t: Totals, classes: int, names: tuple[str, ...]) -> Totals:
    """`merge` over the mesh axes that split the classes: one pmax, one psum."""
    maximum, argmax = lax.pmax(t.maximum, names), None
    if t.argmax is not None:
        here = t.argmax + lax.axis_index(names) * classes
        argmax = lax.pmin(select(t.maximum == maximum, here, 2**31 - 1), names)
    t = _rescale(t, maximum)
    sums = lax.psum(t._replace(maximum=None, argmax=None), names)
    return sums._replace(maximum=maximum, argmax=argmax)


def filled(t: Totals, x: Array, resolved: Resolved, unweighted: int = 0) -> Array:
    """`x` (rows,); in rows that are not computable NaN, or where these are not weighted
    a harmless number."""
    assert t.computable is not None
    fill = lax.full_like(x, jnp.nan)
    if resolved.weighted is not None:
        fill = select(resolved.weighted, fill, unweighted)
    return lax.select(t.computable, x, fill)


def finish(t: Totals, resolved: Resolved) -> Totals:
    """Makes labels relative, and fills rows that are not computable.

    A bad label makes its own statistic NaN. The maximum stays as it is: so the
    derivative forms the exponentials as the value does, and XLA computes both once.
    """
    # A NaN reaches the sum on every platform, the maximum not where it is merged over
    # devices.
    computable = lax.bitwise_and(lax.is_finite(t.maximum), lax.eq(t.sum, t.sum))
    if t.target is not None and t.mass is not None and resolved.weighted is not None:
        fine = lax.is_finite(t.target) & lax.is_finite(t.mass)
        computable &= resolved.weighted | fine
    t = t._replace(computable=computable)

    def maybe_filled(x: Maybe) -> Maybe:
        return None if x is None else filled(t, x, resolved)

    label = t.label
    if label is not None:
        assert resolved.ids is not None
        label = filled(t, lax.sub(label, origin(t.maximum)), resolved)
        label = select(is_class(resolved.ids), label, jnp.nan)
    t = t._replace(
        sum=filled(t, t.sum, resolved, 1),
        label=label,
        target=maybe_filled(t.target),
        mass=maybe_filled(t.mass),
        even=maybe_filled(t.even),
        even_mass=maybe_filled(t.even_mass),
        expected=maybe_filled(t.expected),
    )
    # A tangent of one may depend on what another depends on.
    return vary(t, varying_of((t, resolved.ids, resolved.weighted)))
