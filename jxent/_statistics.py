"""Row statistics of logits: a commutative monoid, its derivative, and layout 1.

Every softmax loss is a formula on a few numbers per row of logits z, all relative to
the row's maximum, its *shift*:

    sum         Σ_c exp(z_c − shift)
    label       z_y − shift, for a class id y
    weighted    Σ_c w_c (z_c − shift), for class weights or a distribution w
    expected    Σ_c exp(z_c − shift) (z_c − shift)
    argmax      the first c with z_c = shift

The statistics of two blocks of classes merge into those of both (`merge`), so that a
row may be taken in one piece, streamed block by block, or split over devices. Kept
relative, they lose nothing where logits are large: around 1e4 in float32 the form
lse − z_y is off by 5e-4.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from ._reduction import times


# An id that names no class. It matches none on any shard, and its label statistic and
# the derivatives of that are NaN.
NO_CLASS = -(2**31)


class Form(NamedTuple):
    """Which statistics are wanted, and along which axis: static under jit."""

    axis: int
    class_axis_name: tuple[str, ...] = ()  # bound mesh axes that split the classes
    weighted: bool = False
    expected: bool = False
    argmax: bool = False


class Inputs(NamedTuple):
    """The arrays that row statistics are functions of."""

    logits: Float[Array, "..."]
    labels: Int[Array, "..."] | None = None  # int32 global class ids, or NO_CLASS
    class_weights: Float[Array, " classes"] | None = None
    distribution: Float[Array, "..."] | None = None  # in place of both
    mask: Bool[Array, "..."] | None = None  # logits' rank; False: impossible class
    keep: Bool[Array, "..."] | None = None  # False: the row counts for nothing
    logit_soft_cap: Float[Array, ""] | None = None
    temperature: Float[Array, "..."] | None = None  # the rows' rank


class Totals(NamedTuple):
    """Statistics of one or more blocks of classes; None where not asked for.

    Before `_finish`, `label` is z_y itself (−inf where y lies in another block), and
    `weight` is the Σ_c w_c that `weighted` needs when its shift moves.
    """

    maximum: Array
    sum: Array
    label: Array | None = None
    label_weight: Array | None = None
    weighted: Array | None = None
    weight: Array | None = None
    expected: Array | None = None
    argmax: Array | None = None


class SoftmaxStatistics(NamedTuple):
    """Row statistics of logits, in nats, relative to the row maximum `shift`.

    Every field is differentiable; `shift` counts as a constant, and what it takes from
    the slope of `lse` the other fields have. None where not asked for.

    Attributes:
      shift: max_c z_c.
      log_sum: log Σ_c exp(z_c − shift).
      label_logit: z_y − shift for a class id y, ⟨q, z − shift⟩ for a distribution q.
      label_mass: Σ_c q_c for a distribution.
      weighted_logit: Σ_c w_c (z_c − shift) for class weights w.
      expected_logit: Σ_c p_c (z_c − shift), where p = softmax(z).
      argmax: the class of the largest logit, the first of equals.
    """

    shift: Array
    log_sum: Array
    label_logit: Array | None = None
    label_mass: Array | None = None
    weighted_logit: Array | None = None
    expected_logit: Array | None = None
    argmax: Array | None = None

    @property
    def lse(self) -> Array:
        """log Σ_c exp(z_c), the log-normalizer."""
        return self.shift + self.log_sum

    @property
    def log_prob(self) -> Array:
        """log p_y for a class id y, Σ_c q_c log p_c for a distribution q."""
        if self.label_logit is None:
            raise ValueError("log_prob: these statistics were taken without labels.")
        if self.label_mass is None:
            return self.label_logit - self.log_sum
        return self.label_logit - times(self.label_mass, self.log_sum)

    @property
    def entropy(self) -> Array:
        """−Σ_c p_c log p_c."""
        if self.expected_logit is None:
            raise ValueError("entropy: these statistics were taken with entropy=False.")
        return self.log_sum - self.expected_logit


# The monoid ---------------------------------------------------------------------------


def _rescale(t: Totals, maximum: Array) -> Totals:
    """The same statistics relative to a maximum that is no smaller."""
    gap = t.maximum - maximum
    gap = jnp.where(t.maximum == maximum, jnp.zeros_like(gap), gap)  # −inf − −inf = 0
    factor = jnp.exp(gap)
    moved = t._replace(maximum=maximum, sum=t.sum * factor)
    if t.weighted is not None and t.weight is not None:
        step = jnp.where(t.weight == 0, jnp.zeros_like(gap), t.weight * gap)
        moved = moved._replace(weighted=t.weighted + step)
    if t.expected is not None:
        nothing = factor == 0
        step = jnp.where(nothing, jnp.zeros_like(gap), t.sum * gap)
        moved = moved._replace(expected=(t.expected + step) * factor)
    return moved


def _add(a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None else a + b


def merge(a: Totals, b: Totals) -> Totals:
    """The statistics of two blocks of classes together."""
    maximum = lax.max(a.maximum, b.maximum)
    argmax = label = None
    if a.argmax is not None and b.argmax is not None:
        first = (a.maximum > b.maximum) | (
            (a.maximum == b.maximum) & (a.argmax < b.argmax)
        )
        argmax = jnp.where(first, a.argmax, b.argmax)
    if a.label is not None and b.label is not None:
        label = lax.max(a.label, b.label)
    a, b = _rescale(a, maximum), _rescale(b, maximum)
    return Totals(
        maximum=maximum,
        sum=a.sum + b.sum,
        label=label,
        label_weight=_add(a.label_weight, b.label_weight),
        weighted=_add(a.weighted, b.weighted),
        weight=_add(a.weight, b.weight),
        expected=_add(a.expected, b.expected),
        argmax=argmax,
    )


def _merge_devices(
    t: Totals, labels: Array | None, classes: int, names: tuple[str, ...]
) -> Totals:
    """`merge` over the mesh axes that split the classes: one pmax, one psum."""
    maximum = lax.pmax(t.maximum, names)
    argmax = None
    offset = lax.axis_index(names) * classes
    if t.argmax is not None:
        here = jnp.where(t.maximum == maximum, t.argmax + offset, 2**31 - 1)
        argmax = lax.pmin(here, names)
    t = _rescale(t, maximum)
    label = t.label
    if label is not None and labels is not None:
        mine = (labels >= offset) & (labels < offset + classes)
        label = jnp.where(mine, label, jnp.zeros_like(label))
    summed = lax.psum((t.sum, label, t.label_weight, t.weighted, t.expected), names)
    total, label, label_weight, weighted, expected = summed
    return Totals(
        maximum, total, label, label_weight, weighted, None, expected, argmax
    )


# What the statistics are taken of ------------------------------------------------------


def rows_to_classes(x: Array, axis: int) -> Array:
    """Rows with an axis of size 1 in the classes' place."""
    return lax.expand_dims(x, (axis,))


def along_classes(x: Array, axis: int, ndim: int) -> Array:
    """A vector over classes, shaped to meet logits of rank `ndim`."""
    return lax.expand_dims(x, tuple(a for a in range(ndim) if a != axis))


def effective_logits(form: Form, inputs: Inputs) -> Float[Array, "..."]:
    """The logits after cast, soft cap, temperature and mask, in this order."""
    z = inputs.logits
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    if inputs.logit_soft_cap is not None:
        z = inputs.logit_soft_cap * jnp.tanh(z / inputs.logit_soft_cap)
    if inputs.temperature is not None:
        # An infinite logit stays what it is, whatever the temperature: its own slope
        # in the temperature would be infinite and turn 0 · ∞ into NaN.
        temperature = rows_to_classes(inputs.temperature, form.axis)
        finite = jnp.isfinite(z)
        z = jnp.where(
            finite,
            jnp.where(finite, z, jnp.zeros_like(z)) / temperature,
            z / lax.stop_gradient(temperature),
        )
    if inputs.mask is not None:
        z = jnp.where(inputs.mask, z, jnp.full_like(z, -jnp.inf))
    return z


def _weights(form: Form, inputs: Inputs) -> Array:
    """What `weighted` is taken with, broadcast against the logits; 0 where masked."""
    ndim = inputs.logits.ndim
    dtype = jnp.promote_types(inputs.logits.dtype, jnp.float32)
    if inputs.distribution is not None:
        w = inputs.distribution.astype(dtype)
    elif inputs.class_weights is not None:
        w = along_classes(inputs.class_weights.astype(dtype), form.axis, ndim)
    else:
        w = jnp.ones((1,) * ndim, dtype)
    if inputs.mask is not None:
        w = jnp.where(inputs.mask, w, jnp.zeros_like(w))
    return w


def _base(maximum: Array) -> Array:
    return jnp.where(jnp.isfinite(maximum), maximum, jnp.zeros_like(maximum))


def _local_labels(form: Form, labels: Array, classes: int) -> Array:
    """Class ids as this shard counts them; out of its range where another holds them."""
    if not form.class_axis_name:
        return labels
    offset = lax.axis_index(form.class_axis_name) * classes
    return jnp.where(labels == NO_CLASS, labels, labels - offset)


def is_label(form: Form, labels: Array, shape: tuple[int, ...]) -> Array:
    """Compares every class with the row's label: a one-hot that is never stored."""
    local = _local_labels(form, labels, shape[form.axis])
    classes = along_classes(
        lax.iota(jnp.int32, shape[form.axis]), form.axis, len(shape)
    )
    return classes == rows_to_classes(local, form.axis)


# Layout 1: logits in memory ------------------------------------------------------------


def _two_pass(form: Form, inputs: Inputs) -> Totals:
    """The maximum first, then sums relative to it: what suits a CPU.

    exp(z − maximum) stands here as it stands in the derivative, so that a compiler
    which sees both computes it once.
    """
    axis = form.axis
    z = effective_logits(form, inputs)
    maximum = jnp.max(z, axis)
    rel = z - rows_to_classes(_base(maximum), axis)
    e = jnp.exp(rel)
    label = label_weight = weighted = weight = expected = argmax = None
    if inputs.labels is not None:
        label, label_weight = _pick(form, inputs, z)
    if form.weighted:
        w = _weights(form, inputs)
        weighted = _weighted_sum(form, inputs, z, w, _base(maximum))
        weight = jnp.sum(jnp.broadcast_to(w, z.shape), axis)
    if form.expected:
        expected = jnp.sum(jnp.where(e == 0, jnp.zeros_like(e), e * rel), axis)
    if form.argmax:
        classes = along_classes(lax.iota(jnp.int32, z.shape[axis]), axis, z.ndim)
        largest = z == rows_to_classes(maximum, axis)
        argmax = jnp.min(jnp.where(largest, classes, z.shape[axis] - 1), axis)
    return Totals(
        maximum,
        jnp.sum(e, axis),
        label,
        label_weight,
        weighted,
        weight,
        expected,
        argmax,
    )


def _is_explicitly_split(x: Array) -> bool:
    return any(names is not None for names in jax.typeof(x).sharding.spec)


def _pick(form: Form, inputs: Inputs, z: Array) -> tuple[Array, Array | None]:
    """The label's logit, NaN where its class is masked, and its class weight."""
    assert inputs.labels is not None
    axis, classes = form.axis, z.shape[form.axis]
    if _is_explicitly_split(z):
        return _pick_by_comparison(form, inputs, z)
    local = _local_labels(form, inputs.labels, classes)
    here = (local >= 0) & (local < classes)
    index = jnp.where(here, local, jnp.zeros_like(local))

    def take(x: Array) -> Array:
        at = rows_to_classes(index, axis)
        return jnp.take_along_axis(x, at, axis, mode="clip").squeeze(axis)

    label = take(z)
    if inputs.mask is not None:
        allowed = take(jnp.broadcast_to(inputs.mask, z.shape))
        label = jnp.where(allowed, label, jnp.full_like(label, jnp.nan))
    label = jnp.where(here, label, jnp.full_like(label, -jnp.inf))
    if inputs.class_weights is None:
        return label, None
    w = jnp.take(inputs.class_weights.astype(z.dtype), index, mode="clip")
    return label, jnp.where(here, w, jnp.zeros_like(w))


def _label_operands(
    form: Form, inputs: Inputs, z: Array
) -> tuple[Array, Array | None]:
    assert inputs.labels is not None
    is_label = is_label(form, inputs.labels, z.shape)
    label = z
    if inputs.mask is not None:
        label = jnp.where(inputs.mask, z, jnp.full_like(z, jnp.nan))
    label = jnp.where(is_label, label, jnp.full_like(z, -jnp.inf))
    if inputs.class_weights is None:
        return label, None
    w = along_classes(inputs.class_weights.astype(z.dtype), form.axis, z.ndim)
    return label, jnp.where(is_label, w, jnp.zeros_like(z))


def _pick_by_comparison(
    form: Form, inputs: Inputs, z: Array
) -> tuple[Array, Array | None]:
    label, weight = _label_operands(form, inputs, z)
    picked = jnp.max(label, form.axis)
    return picked, None if weight is None else jnp.sum(weight, form.axis)


def _weighted_sum(
    form: Form, inputs: Inputs, z: Array, w: Array, base: Array
) -> Array:
    """Σ_c w_c (z_c − base), exact for logits of any offset, without a temporary.

    The matrix product Σ_c w_c z_c − base · Σ_c w_c is the fastest form on a CPU, but
    where logits lie far from 0 it cancels. It is kept where no row loses more than two
    bits to that, which is so unless logits share a large offset; else, and where it is
    not finite, the terms are formed one by one.
    """
    axis = form.axis

    def one_by_one() -> Array:
        # The barrier keeps XLA from sharing z − base with the exponentials, which
        # would store it.
        rel = z - rows_to_classes(lax.optimization_barrier(base), axis)
        if inputs.class_weights is None and inputs.mask is None and plain:
            return jnp.sum(rel, axis)
        return jnp.sum(jnp.where(w == 0, jnp.zeros_like(rel), rel * w), axis)

    plain = inputs.distribution is None
    if not plain or inputs.mask is not None or inputs.class_weights is None:
        return one_by_one()
    if _is_explicitly_split(z):
        return one_by_one()
    vector = w.reshape(-1)
    offset = base * jnp.sum(vector)
    product = jnp.tensordot(z, vector, ((axis,), (0,))) - offset
    fine = jnp.abs(offset) <= 4 * jnp.abs(product)
    if inputs.keep is not None:
        fine |= ~inputs.keep
    return lax.cond(jnp.all(fine), lambda: product, one_by_one)


def _one_pass(form: Form, inputs: Inputs) -> Totals:
    """One variadic reduction that reads the logits once: what suits a TPU."""
    operands, identity = _single_classes(form, inputs)
    return Totals(*_reduce(operands, identity, (form.axis,)))


def _reduce(operands: Totals, identity: Totals, axes: tuple[int, ...]) -> Totals:
    return lax.reduce(operands, identity, merge, axes)


def _one_pass_gpu(form: Form, inputs: Inputs) -> Totals:
    """The same on a GPU, the last axis cut in 8, which keeps the partial results few.

    Along any other axis XLA would store the float32 operands: two passes there.
    """
    ndim, classes = inputs.logits.ndim, inputs.logits.shape[-1]
    if form.axis != ndim - 1:
        return _two_pass(form, inputs)
    operands, identity = _single_classes(form, inputs)
    if classes % 8 == 0:
        cut = (8, classes // 8)
        operands = jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *cut), operands)
        operands = _reduce(operands, identity, (ndim,))
    return _reduce(operands, identity, (ndim - 1,))


def _single_classes(form: Form, inputs: Inputs) -> tuple[Totals, Totals]:
    """Every class as a block of its own, and the identity of `merge`."""
    z = effective_logits(form, inputs)
    # Ones and zeros that depend on z, because jax 0.10 may differentiate this reduction
    # itself (second order through a scan) and then needs a tangent of every operand.
    zero = jnp.minimum(jnp.abs(z), jnp.zeros_like(z))
    label = label_weight = weighted = weight = expected = argmax = None
    if inputs.labels is not None:
        label, label_weight = _label_operands(form, inputs, z)
    if form.weighted:
        weighted, weight = zero, zero + _weights(form, inputs)
    if form.expected:
        expected = zero
    if form.argmax:
        argmax = lax.broadcasted_iota(jnp.int32, z.shape, form.axis)
    operands = Totals(
        z, zero + 1, label, label_weight, weighted, weight, expected, argmax
    )
    neutral = Totals(-jnp.inf, 0, -jnp.inf, 0, 0, 0, 0, 2**31 - 1)
    identity = Totals(
        *(
            None if x is None else jnp.asarray(n, x.dtype)
            for x, n in zip(operands, neutral, strict=True)
        )
    )
    return operands, identity


# The rule -----------------------------------------------------------------------------


def _live(maximum: Array, keep: Array | None) -> Array | None:
    """False where a row is dropped and cannot be computed; None if all are live."""
    return None if keep is None else keep | jnp.isfinite(maximum)


def _finish(inputs: Inputs, t: Totals) -> Totals:
    """Labels relative, and what a row without a finite maximum gets: NaN, or 0.

    `maximum` stays as it is: the derivative needs to know such rows.
    """
    finite = jnp.isfinite(t.maximum)
    nan = jnp.full_like(t.maximum, jnp.nan)
    zero = jnp.zeros_like(t.maximum)
    fill = nan
    if inputs.keep is not None:
        fill = jnp.where(inputs.keep, nan, zero)

    def where_finite(x: Array | None) -> Array | None:
        return None if x is None else jnp.where(finite, x, fill)

    label, label_weight = t.label, t.label_weight
    if label is not None:
        assert inputs.labels is not None
        nowhere = inputs.labels == NO_CLASS
        label = jnp.where(nowhere, nan, label - _base(t.maximum))
        label = jnp.where(finite, label, fill)
        if inputs.keep is not None:
            label = jnp.where(~inputs.keep & jnp.isnan(label), zero, label)
        if label_weight is not None:  # 1: a weight of 0 would hide the NaN
            label_weight = jnp.where(nowhere, zero + 1, label_weight)
    return t._replace(
        sum=jnp.where(finite, t.sum, fill if inputs.keep is None else fill + 1),
        label=label,
        label_weight=label_weight,
        weighted=where_finite(t.weighted),
        weight=None,
        expected=where_finite(t.expected),
    )


# The statistics are linear in e = exp(z − shift), and the shift is a constant:
#
#     d sum      = Σ e dz
#     d label    = dz_y
#     d weighted = Σ w dz + Σ dw (z − shift)
#     d expected = Σ e (1 + z − shift) dz
#
# JAX transposes this for reverse mode, into one elementwise pass over the logits:
#
#     dz = e (g_sum + g_expected (1 + z − shift)) + [c = y] g_label + w g_weighted
#
# and differentiates it again for higher orders. The maximum must not go through
# stop_gradient in it: jax 0.10 may differentiate the primal itself (see above), and
# then needs the maximum's own tangent there.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _totals(form: Form, inputs: Inputs) -> Totals:
    t = lax.platform_dependent(
        inputs,
        cpu=functools.partial(_two_pass, form),
        cuda=functools.partial(_one_pass_gpu, form),
        rocm=functools.partial(_one_pass_gpu, form),
        default=functools.partial(_one_pass, form),
    )
    if form.class_axis_name:
        classes = inputs.logits.shape[form.axis]
        t = _merge_devices(t, inputs.labels, classes, form.class_axis_name)
    return _finish(inputs, t)


@functools.partial(_totals.defjvp, symbolic_zeros=True)
def _totals_jvp(form: Form, primals: Any, tangents: Any) -> Any:
    (inputs,) = primals
    (dots,) = tangents
    totals = _totals(form, inputs)
    moved = {
        name: dot
        for name, dot in zip(Inputs._fields, dots, strict=True)
        if dot is not None
        and not isinstance(dot, jax.custom_derivatives.SymbolicZero)
        and dot.dtype != jax.dtypes.float0
    }
    # The checkpoint makes the raw inputs the only residuals: without it a bfloat16 loss
    # would keep float32 arrays of the logits' shape from forward to backward.
    # prevent_cse=False lets XLA still share the exponentials of value and gradient.
    tangent = jax.checkpoint(functools.partial(_tangent, form), prevent_cse=False)
    sums = tangent(inputs, moved, totals.maximum, totals.label)
    zeros = Totals(*(None if x is None else _zero_tangent(x) for x in totals))
    return totals, zeros._replace(**sums)


def _zero_tangent(x: Array) -> Any:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)


def _tangent(
    form: Form,
    inputs: Inputs,
    moved: dict[str, Array],
    maximum: Array,
    label: Array | None,
) -> dict[str, Array]:
    axis = form.axis
    live = _live(maximum, inputs.keep)

    def at_live_rows(x: Array) -> Array:
        if live is None:
            return x
        return jnp.where(rows_to_classes(live, axis), x, jnp.zeros_like(x))

    if inputs.logit_soft_cap is not None or inputs.temperature is not None:
        # These have slopes of their own, which must not meet what a dropped row holds.
        inputs = inputs._replace(logits=at_live_rows(inputs.logits))
    through = [n for n in ("logits", "logit_soft_cap", "temperature") if n in moved]

    def effective(*values: Array) -> Array:
        return effective_logits(
            form, inputs._replace(**dict(zip(through, values, strict=True)))
        )

    sums: dict[str, Array] = {}
    rows = {n: getattr(inputs, n) for n in through}
    if through:
        z, dz = jax.jvp(
            effective, tuple(rows.values()), tuple(moved[n] for n in through)
        )
        dz = at_live_rows(dz)
    else:
        z, dz = effective(), None
    rel = z - rows_to_classes(_base(maximum), axis)
    if dz is not None:
        e = at_live_rows(jnp.exp(rel))
        poison = jnp.where(
            jnp.isfinite(maximum) if live is None else jnp.isfinite(maximum) | ~live,
            jnp.ones_like(maximum),
            jnp.full_like(maximum, jnp.nan),
        )
        sums["sum"] = poison * jnp.sum(e * dz, axis)
        if label is not None:
            assert inputs.labels is not None
            pick = is_label(form, inputs.labels, z.shape).astype(z.dtype)
            nan = rows_to_classes(jnp.isnan(label), axis)
            pick = jnp.where(nan, jnp.full_like(pick, jnp.nan), pick)
            sums["label"] = jnp.sum(pick * dz, axis)
        if form.weighted:
            sums["weighted"] = jnp.sum(_weights(form, inputs) * dz, axis)
        if form.expected:
            slope = jnp.where(e == 0, jnp.zeros_like(e), e * (1 + rel))
            sums["expected"] = poison * jnp.sum(slope * dz, axis)
    if form.weighted and ("distribution" in moved or "class_weights" in moved):
        dw = _weights(
            form,
            inputs._replace(
                distribution=moved.get("distribution"),
                class_weights=moved.get("class_weights"),
            ),
        )
        slope = at_live_rows(jnp.maximum(rel, jnp.finfo(rel.dtype).min))
        step = jnp.sum(dw * slope, axis)
        sums["weighted"] = sums["weighted"] + step if "weighted" in sums else step
    if inputs.labels is not None and "class_weights" in moved:
        dw = along_classes(moved["class_weights"].astype(z.dtype), axis, z.ndim)
        pick = is_label(form, inputs.labels, z.shape).astype(z.dtype)
        sums["label_weight"] = jnp.sum(pick * dw, axis)
    if form.class_axis_name:
        sums = lax.psum(sums, form.class_axis_name)
    return sums


# From totals to statistics -------------------------------------------------------------


def in_memory(form: Form, inputs: Inputs) -> tuple[SoftmaxStatistics, Array | None]:
    """Statistics of logits in memory, and the class weight of each row's label."""
    t = _totals(form, inputs)
    label, mass, weighted = t.label, None, t.weighted
    if inputs.distribution is not None:
        label, weighted = t.weighted, None
        mass = jnp.sum(_weights(form, inputs), form.axis)
        if form.class_axis_name:
            mass = lax.psum(mass, form.class_axis_name)
    statistics = SoftmaxStatistics(
        shift=shift(inputs, t.maximum),
        log_sum=jnp.log(t.sum),
        label_logit=label,
        label_mass=mass,
        weighted_logit=weighted,
        expected_logit=None if t.expected is None else t.expected / t.sum,
        argmax=t.argmax,
    )
    return statistics, t.label_weight


def shift(inputs: Inputs, maximum: Array) -> Array:
    """The maximum; where it is not finite NaN, or 0 in a row that is dropped."""
    fill = jnp.full_like(maximum, jnp.nan)
    if inputs.keep is not None:
        fill = jnp.where(inputs.keep, fill, jnp.zeros_like(fill))
    return lax.stop_gradient(jnp.where(jnp.isfinite(maximum), maximum, fill))


def log_probabilities(
    form: Form, inputs: Inputs, statistics: SoftmaxStatistics
) -> Float[Array, "..."]:
    """log p of every class, for formulas that are not functions of the statistics."""
    if inputs.keep is not None:
        usable = rows_to_classes(inputs.keep, form.axis) | jnp.isfinite(inputs.logits)
        logits = jnp.where(usable, inputs.logits, jnp.zeros_like(inputs.logits))
        inputs = inputs._replace(logits=logits)
    z = effective_logits(form, inputs)
    rel = z - rows_to_classes(statistics.shift, form.axis)
    return rel - rows_to_classes(statistics.log_sum, form.axis)
