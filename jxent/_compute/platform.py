"""Choices by platform: "cpu", "gpu" or "tpu", as `jax.default_backend` names them.

A form of a computation is chosen when a program is lowered, for what it is lowered for.
Sizes, such as those of blocks, are chosen when it is traced, by what is known then.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import Array, lax
from jax.core import Tracer


# A value of a user context is a part of the key by which JAX keeps traces and programs:
# none that was made for another platform is used again.
_assumed = jax.make_user_context(None)


def assume_platform(platform: str | None) -> AbstractContextManager[None]:
    """A context in which every choice is that of a platform, wherever programs run.

    What `plan` chooses for a platform is chosen in it. In tests it makes a CPU run the
    forms of a GPU and a TPU. "none" is that of no platform: plain forms, which
    benchmarks compare. None changes nothing.
    """
    return _assumed(_assumed.value if platform is None else platform)


def by_platform(*operands: Any, default: Callable[..., Any], **forms: Any) -> Any:
    """What the form for a platform gives, `cpu=`, `gpu=` or `tpu=`; else `default`."""
    if _assumed.value is not None:
        return forms.get(_assumed.value, default)(*operands)
    if "gpu" in forms:
        forms = forms | dict.fromkeys(("cuda", "rocm"), forms["gpu"])
        del forms["gpu"]
    forms = {name: form for name, form in forms.items() if form is not default}
    if not forms:
        return default(*operands)
    return lax.platform_dependent(*operands, default=default, **forms)


def platform_of(operands: Any) -> str:
    """The platform that computes with the arrays of a tree, as far as a trace knows it.

    Arrays outside of transformations say where they lie, if they are bound to it. Else
    the mesh in context does, then `jax.default_device`.
    """
    if _assumed.value is not None:
        return _assumed.value
    for x in jax.tree.leaves(operands):
        if isinstance(x, Array) and not isinstance(x, Tracer) and x.committed:
            return next(iter(x.sharding.device_set)).platform
    of_mesh = jax.sharding.get_abstract_mesh().abstract_device
    if of_mesh is not None:
        return of_mesh.platform
    config: Any = jax.config  # whose types lack this
    device = config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
