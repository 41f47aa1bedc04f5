"""What public modules do with their names: signatures as written, and their export."""

import contextlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from jax import export


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
    """Lets `jax.export` serialize programs that take or return public NamedTuples."""
    for name, value in module.items():
        bundle = isinstance(value, type) and issubclass(value, tuple)
        if bundle and not name.startswith("_"):
            # A package that is imported anew finds its names taken.
            with contextlib.suppress(ValueError):
                export.register_namedtuple_serialization(
                    value, serialized_name=f"{package}.{name}"
                )
