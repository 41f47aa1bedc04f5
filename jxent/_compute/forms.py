"""Forms for a CPU, which have the derivatives of the default form.

Some must see whole rows, and are chosen where nothing can split them. With automatic
axes of a mesh the types of arrays do not say what is split, and a gather or a sort of
what is split would move logits between devices. But when a program is lowered it is
known for how many devices.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax
from jax.interpreters import ad, batching, mlir

from .platform import by_platform


# The class is jax.extend.core.Primitive, whose import takes a quarter of jxent's time.
_forms = type(lax.exp_p)("of_a_platform")
_forms.multiple_results = True


def on_cpu(
    *operands: Any,
    form: Callable[..., Any],
    default: Callable[..., Any],
    alone: bool = False,
) -> Any:
    """`form` on a CPU, else `default`. Both give the same tree of arrays.

    With `alone` only where a program, or its part in `shard_map`, has one device.
    """
    leaves, tree = jax.tree.flatten(operands)

    def flat(form: Callable[..., Any]) -> Callable[..., list[Array]]:
        return lambda *leaves: jax.tree.leaves(form(*tree.unflatten(leaves)))

    # JAX keeps its trace, which shows the shapes of results, too.
    default = jax.jit(default, inline=True)
    shapes = jax.eval_shape(default, *operands)

    def chosen(*leaves: Array) -> list[Array]:
        return _forms.bind(*leaves, form=flat(form), default=flat(default), alone=alone)

    results = by_platform(*leaves, cpu=chosen, default=flat(default))
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _is_alone(context: Any) -> bool:
    mesh = getattr(context, "mesh", None)
    if mesh is not None:
        free = set(mesh.axis_names) - set(context.manual_axes)
        return all(mesh.shape[name] == 1 for name in free)
    return getattr(context, "num_devices", 1) == 1


def _lower(ctx: Any, *operands: Any, form: Any, default: Any, alone: bool) -> Any:
    if alone and not _is_alone(ctx.module_context.axis_context):
        form = default
    return mlir.lower_fun(form, multiple_results=True)(ctx, *operands)


def _forms_jvp(primals: Any, tangents: Any, *, default: Any, **rest: Any) -> Any:
    results = _forms.bind(*primals, default=default, **rest)
    moving = [ad.instantiate_zeros(t) for t in tangents]
    return results, jax.jvp(default, tuple(primals), tuple(moving))[1]


def _batched_forms(
    operands: Any, axes: Any, *, form: Any, default: Any, alone: bool
) -> Any:
    form, default = (jax.vmap(f, tuple(axes)) for f in (form, default))
    results = _forms.bind(*operands, form=form, default=default, alone=alone)
    return results, [0] * len(results)


_forms.def_impl(lambda *x, default, **_: default(*x))
_forms.def_abstract_eval(lambda *x, default, **_: jax.make_jaxpr(default)(*x).out_avals)
mlir.register_lowering(_forms, _lower, cacheable=False)
ad.primitive_jvps[_forms] = _forms_jvp
batching.primitive_batchers[_forms] = _batched_forms
