"""What public modules do with their names: signatures as written, and their export."""

import contextlib
import dataclasses
import enum
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from jax import export, lax


class _Annotation(str):
    """An annotation as the source has it: its repr has no quotation marks."""

    def __repr__(self) -> str:
        return str(self)


class _Signature(inspect.Signature):
    """Prints one argument a line, where they do not fit one line."""

    def __str__(self) -> str:
        parts = []
        for parameter in self.parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
                parts.append("*")
            parts.append(str(parameter))
        returned = self.return_annotation
        arrow = "" if returned is self.empty else f" -> {returned!r}"
        one_line = f"({', '.join(parts)}){arrow}"
        if len(one_line) < 60:
            return one_line
        return "(\n" + "".join(f"    {part},\n" for part in parts) + f"){arrow}"

    def format(self, **options: Any) -> str:  # what help() calls from Python 3.13 on
        return str(self)


def _as_written(annotation: Any) -> Any:
    return _Annotation(annotation) if isinstance(annotation, str) else annotation


def print_as_written(module: Mapping[str, Any], names: Iterable[str]) -> None:
    """Makes `help()` show public functions and classes as the source has them.

    Their modules postpone annotations (`from __future__ import annotations`), which
    are then the strings of the source.
    """
    for name in names:
        value = module[name]
        function = vars(value).get("__init__") if isinstance(value, type) else value
        if function is None:  # a NamedTuple
            continue
        signature = inspect.signature(function)
        parameters = [
            p.replace(annotation=_as_written(p.annotation))
            for p in signature.parameters.values()
        ]
        returned = _as_written(signature.return_annotation)
        if isinstance(value, type):  # a call returns an instance
            returned = signature.empty
        function.__signature__ = _Signature(parameters, return_annotation=returned)


def make_serializable(package: str, module: Mapping[str, Any]) -> None:
    """Lets `jax.export` serialize programs that take or return public bundles."""
    for name, value in module.items():
        if not isinstance(value, type):
            continue
        full_name = f"{package}.{name}"
        # A package that is imported anew finds its names taken.
        with contextlib.suppress(ValueError):
            if issubclass(value, tuple):
                export.register_namedtuple_serialization(
                    value, serialized_name=full_name
                )
            elif dataclasses.is_dataclass(value):
                export.register_pytree_node_serialization(
                    value,
                    serialized_name=full_name,
                    serialize_auxdata=_static_fields_as_bytes,
                    deserialize_auxdata=_static_fields_of_bytes,
                )


def _static_fields_as_bytes(fields: tuple[Any, ...]) -> bytes:
    """Those of `LinearLogits`; a member of an enumeration of `lax` by its names."""
    plain = [
        {type(x).__name__: x.name} if isinstance(x, enum.Enum) else x for x in fields
    ]
    return json.dumps(plain).encode()


def _static_fields_of_bytes(data: bytes) -> tuple[Any, ...]:
    def static(x: Any) -> Any:
        if isinstance(x, dict):
            ((kind, member),) = x.items()
            return getattr(lax, kind)[member]
        return tuple(map(static, x)) if isinstance(x, list) else x

    return tuple(map(static, json.loads(data)))
