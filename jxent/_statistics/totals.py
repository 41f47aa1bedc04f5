"""Row statistics of logits: a commutative monoid.

Every softmax loss is a formula on a few numbers per row of logits z, all relative to
the row's maximum, its *shift*:

    sum         Σ_c exp(z_c − shift)
    label       z_y − shift, for a class id y, or for several, (rows, places)
    target      Σ_c t_c (z_c − shift), and mass Σ_c t_c, for a distribution t
    even        Σ_c w_c (z_c − shift), and even_mass Σ_c w_c, for class weights w
    expected    Σ_c exp(z_c − shift) (z_c − shift)
    argmax      the first c with z_c = shift
    top         the k ids of the largest logits, (rows, k), and label their logits

and, where the row is compared with a target softmax of logits z', beside the target's
own maximum and sum

    cross       Σ_c exp(z'_c − shift') ((z'_c − shift') − (z_c − shift))

The statistics of two blocks of classes merge into those of both (`merge`), so that a
row may be taken in one piece, streamed block by block, or split over devices. Kept
relative, they lose nothing where logits are large: around 1e4 in float32 the form
lse − z_y is off by 5e-4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .._arrays import at_index, over_places, select, vary, varying_of
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
    top: Maybe = None
    target_maximum: Maybe = None
    target_sum: Maybe = None
    cross: Maybe = None
    computable: Maybe = None


def origin(maximum: Array) -> Array:
    """The shift (rows,): the maximum (rows,), or 0 where that is not finite."""
    return select(lax.is_finite(maximum), maximum)


def computed_rows(resolved: Resolved, t: Totals) -> Maybe:
    """Boolean (rows,), False where a row may hold anything; None where none may.

    A row that is not weighted is computed as well, if its statistics are finite: they
    are the derivative in its weight.
    """
    if resolved.weighted is None:
        return None
    assert t.computable is not None
    return lax.bitwise_or(resolved.weighted, t.computable)


def of_no_class(like: Totals) -> Totals:
    """The identity of `merge`: scalars, for the fields of `like`, in their dtypes."""
    last = 2**31 - 1  # above all classes
    values = {"maximum": -jnp.inf, "argmax": last, "top": last}
    values["target_maximum"] = -jnp.inf
    if like.top is not None:
        values["label"] = -jnp.inf
    return like._replace(
        **{
            name: jnp.asarray(values.get(name, 0), x.dtype)
            for name, x in like._asdict().items()
            if x is not None
        }
    )


def _gap(old: Array, new: Array) -> Array:
    """old − new of two maxima (rows,), where −inf − −inf = 0."""
    return select(lax.ne(old, new), lax.sub(old, new))


def _rescale(t: Totals, maximum: Array, target_maximum: Maybe = None) -> Totals:
    """Rescales statistics (rows,) to larger maxima (rows,)."""
    gap = _gap(t.maximum, maximum)
    factor = lax.exp(gap)
    scaled = t._replace(maximum=maximum, sum=lax.mul(t.sum, factor))
    if target_maximum is not None:
        scaled = _rescale_target(scaled, gap, target_maximum)
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


def _rescale_target(t: Totals, gap: Array, target_maximum: Array) -> Totals:
    """Rescales the statistics of the target to a larger maximum of the target.

    `gap` (rows,) is the logits' old maximum minus their new one; −inf if no class was
    possible.
    """
    assert t.target_maximum is not None
    assert t.target_sum is not None
    step = _gap(t.target_maximum, target_maximum)
    factor = lax.exp(step)
    target_sum, cross = lax.mul(t.target_sum, factor), t.cross
    if cross is not None:
        # What the target holds impossible adds nothing, 0 · ∞ = 0.
        some = lax.ne(t.target_maximum, lax.full_like(t.target_maximum, -jnp.inf))
        some &= lax.ne(target_sum, lax.full_like(target_sum, 0))
        moved = lax.mul(cross, factor) + lax.mul(target_sum, step - gap)
        cross = select(some, moved)
    return t._replace(target_maximum=target_maximum, target_sum=target_sum, cross=cross)


def merge(a: Totals, b: Totals) -> Totals:
    """The statistics (rows,) of two blocks of classes together.

    `lax.reduce` calls it on scalars.
    """
    maximum, argmax = lax.max(a.maximum, b.maximum), None
    if a.argmax is not None and b.argmax is not None:
        equal = lax.eq(a.maximum, b.maximum)
        first = lax.gt(a.maximum, b.maximum) | (equal & lax.lt(a.argmax, b.argmax))
        argmax = lax.select(first, a.argmax, b.argmax)
    top, label = None, None
    if a.top is not None and b.top is not None:
        top, label = _larger(a, b)
        a, b = (t._replace(top=None, label=None) for t in (a, b))
    target_maximum = None
    if a.target_maximum is not None and b.target_maximum is not None:
        target_maximum = lax.max(a.target_maximum, b.target_maximum)
    a, b = (_rescale(t, maximum, target_maximum) for t in (a, b))
    sums = jax.tree.map(
        lambda x, y: None if x is None or y is None else lax.add(x, y),
        a,
        b,
        is_leaf=lambda x: x is None,
    )
    if top is not None:
        sums = sums._replace(top=top, label=label)
    return sums._replace(maximum=maximum, argmax=argmax, target_maximum=target_maximum)


def _larger(a: Totals, b: Totals) -> tuple[Array, Array]:
    """The ids and logits (rows, k) of the k largest of both; of equals those of `a`
    first."""
    assert a.top is not None
    assert b.top is not None
    assert a.label is not None
    assert b.label is not None
    k, rows = a.top.shape[-1], a.top.ndim - 1
    logits = lax.concatenate((a.label, b.label), rows)
    ids = lax.concatenate((a.top, b.top), rows)
    label, order = lax.top_k(logits, k)
    top = at_index(ids, order, rows)
    if b.top.shape[-1] == k:  # the identity holds no classes, and loses to −inf, too
        nothing = lax.eq(a.top, lax.full_like(a.top, 2**31 - 1))
        label, top = (
            lax.select(nothing, b.label, label),
            lax.select(nothing, b.top, top),
        )
    return top, label


def merge_devices(
    t: Totals, classes: int, names: tuple[str, ...], top_k: int = 0
) -> Totals:
    """`merge` over the mesh axes that split the classes: one pmax, one psum."""
    maximum, argmax = lax.pmax(t.maximum, names), None
    if t.argmax is not None:
        here = t.argmax + lax.axis_index(names) * classes
        argmax = lax.pmin(select(t.maximum == maximum, here, 2**31 - 1), names)
    top, label = None, None
    if t.top is not None:
        assert t.label is not None
        label, top = largest_of_devices(t.label, t.top, classes, names, top_k)
        t = t._replace(top=None, label=None)
    target_maximum = None
    if t.target_maximum is not None:
        target_maximum = lax.pmax(t.target_maximum, names)
    t = _rescale(t, maximum, target_maximum)
    largest = {"maximum": maximum, "argmax": argmax, "target_maximum": target_maximum}
    sums = lax.psum(t._replace(**dict.fromkeys(largest)), names)
    if top is not None:
        sums = sums._replace(top=top, label=label)
    return sums._replace(**largest)


def largest_of_devices(
    logits: Array, ids: Array, classes: int, names: tuple[str, ...], top_k: int
) -> tuple[Array, Array]:
    """The k largest logits of all devices and their ids, (rows, k), on each device.

    `classes` is how many each device has.
    """
    device, rows, count = lax.axis_index(names), ids.ndim - 1, ids.shape[-1]

    def gathered(x: Array) -> Array:
        slots = jnp.zeros((*x.shape[:-1], lax.axis_size(names) * count), x.dtype)
        # A sum, not a gather: of that JAX does not know that all devices have the same.
        here = lax.dynamic_update_slice_in_dim(slots, x, device * count, rows)
        return lax.psum(here, names)

    every_id = gathered(ids + device * classes)
    largest, order = lax.top_k(gathered(logits), top_k)
    return largest, at_index(every_id, order, rows)


def filled(t: Totals, x: Array, resolved: Resolved, unweighted: int = 0) -> Array:
    """`x` (rows,) or (rows, places), with NaN in rows that are not computable, or with
    the number `unweighted` in those of them that are not weighted either."""
    assert t.computable is not None
    fill = lax.full_like(x, jnp.nan)
    if resolved.weighted is not None:
        fill = select(over_places(resolved.weighted, x), fill, unweighted)
    return lax.select(over_places(t.computable, x), x, fill)


def finish(t: Totals, resolved: Resolved) -> Totals:
    """Makes labels relative, and fills rows that are not computable.

    A bad label makes its own statistic NaN. The maximum stays as it is: so the
    derivative forms the exponentials as the value does, and XLA computes both once.
    """
    # Of the two sides that ZLPR has, one may be without a class: its maximum is −inf.
    two_sides = t.target_maximum is not None and t.cross is None

    def is_fine(maximum: Array) -> Array:
        if two_sides:
            return lax.lt(maximum, lax.full_like(maximum, jnp.inf))
        return lax.is_finite(maximum)

    # A NaN reaches the sum on every platform, the maximum not where it is merged over
    # devices.
    computable = lax.bitwise_and(is_fine(t.maximum), lax.eq(t.sum, t.sum))
    if t.target is not None and t.mass is not None and resolved.weighted is not None:
        fine = lax.is_finite(t.target) & lax.is_finite(t.mass)
        computable &= resolved.weighted | fine
    if t.target_maximum is not None and t.target_sum is not None:
        computable &= is_fine(t.target_maximum) & lax.eq(t.target_sum, t.target_sum)
    t = t._replace(computable=computable)

    def maybe_filled(x: Maybe) -> Maybe:
        return None if x is None else filled(t, x, resolved)

    label = t.label
    if label is not None:
        shift = over_places(origin(t.maximum), label)
        label = filled(t, lax.sub(label, shift), resolved)
    if label is not None and resolved.ids is not None:
        label = select(is_class(resolved.ids), label, jnp.nan)
    t = t._replace(
        sum=filled(t, t.sum, resolved, 1),
        label=label,
        target=maybe_filled(t.target),
        mass=maybe_filled(t.mass),
        even=maybe_filled(t.even),
        even_mass=maybe_filled(t.even_mass),
        expected=maybe_filled(t.expected),
        target_sum=None
        if t.target_sum is None
        else filled(t, t.target_sum, resolved, 1),
        cross=maybe_filled(t.cross),
    )
    # Each field's tangent may vary along every mesh axis that any field varies along.
    return vary(t, varying_of((t, resolved.ids, resolved.weighted)))
