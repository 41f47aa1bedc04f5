"""Bad labels are told under `jax.experimental.checkify`, and cost nothing elsewhere.

A `checkify.debug_check` compiles to nothing, but is an effect, and JAX calls a jitted
function that has one by way of Python: a training step of 100 arrays would take ten
times as long to start. So the check is kept in a primitive without effects that
compiles to its first operand, and checkify is told what it stands for.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import checkify
from jax.interpreters import ad, batching, mlir
from jaxtyping import Bool, Integer


# The class is jax.extend.core.Primitive: to import that takes as long as half of jxent.
_checked_labels = type(lax.exp_p)("checked_labels")
_checked_labels.def_impl(lambda x, *_, classes: x)
_checked_labels.def_abstract_eval(lambda x, *_, classes: x)
mlir.register_lowering(_checked_labels, lambda _, x, *__, classes: [x])


# Linear in x, and so is its transpose. The tangent is checked as well: a program that
# takes the gradient alone does not keep the value.
def _jvp(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
    (_, labels, bad), (dot, *_) = primals, tangents
    if not isinstance(dot, ad.Zero) and dot.dtype != jax.dtypes.float0:
        dot = _checked_labels.bind(dot, labels, bad, **params)
    return _checked_labels.bind(*primals, **params), dot


def _transpose(
    cotangent: Any, _: Any, labels: Any, bad: Any, **params: Any
) -> list[Any]:
    if not isinstance(cotangent, ad.Zero):
        cotangent = _checked_labels.bind(cotangent, labels, bad, **params)
    return [cotangent, None, None]


def _batched(operands: Any, axes: Any, **params: Any) -> tuple[Any, Any]:
    """Labels and what is bad of them must still meet: new axes in front of both."""
    (x, *rest), (axis, *others) = operands, axes
    moved = [
        y if a is None else jnp.moveaxis(y, a, 0)
        for y, a in zip(rest, others, strict=True)
    ]
    return _checked_labels.bind(x, *moved, **params), axis


ad.primitive_jvps[_checked_labels] = _jvp
ad.primitive_transposes[_checked_labels] = _transpose
batching.primitive_batchers[_checked_labels] = _batched


def _check(
    labels: Integer[Array, "..."], bad: Bool[Array, "..."], *, classes: int
) -> None:
    shown = jnp.max(jnp.where(bad, labels, jnp.iinfo(labels.dtype).min), initial=0)
    worst = jnp.min(jnp.where(bad, labels, jnp.iinfo(labels.dtype).max), initial=0)
    checkify.debug_check(
        ~jnp.any(bad),
        "expected labels in [0, {classes}) and on a class that is not masked, got "
        "label {label}. Mark rows to skip with ignore_index or where.",
        classes=jnp.asarray(classes),
        label=jnp.where(worst < 0, worst, shown),
    )


try:
    from jax._src.checkify import error_checks
except ImportError:  # there is no public way to tell checkify of a primitive
    error_checks = None
else:

    def _error_check(*operands: Any, classes: int) -> tuple[Any, Any]:
        """What checkify does with a jitted check; `x` is handed on.

        What stands in front of a primitive's operands differs by JAX's version.
        """
        assert error_checks is not None
        *context, x, labels, bad = operands
        with jax.disable_jit(False):
            check = jax.jit(functools.partial(_check, classes=classes))
            (jitted,) = jax.make_jaxpr(check)(labels, bad).eqns
            rule = error_checks[jitted.primitive]
            error, _ = rule(*context, labels, bad, **jitted.params)
        return error, x

    error_checks[_checked_labels] = _error_check


def report_bad_labels(
    x: Array, labels: Integer[Array, "..."], bad: Bool[Array, "..."], classes: int
) -> Array:
    """`x`, and under `jax.experimental.checkify` an error that names a bad label.

    It is checked where `x` or its derivative goes into what a program returns.
    """
    if error_checks is None:
        _check(labels, bad, classes=classes)
        return x
    return _checked_labels.bind(x, labels, bad, classes=classes)
