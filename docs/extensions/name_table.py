"""Tables of public names, a line and a link each: of a page, or of all."""

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import jxent


MODULES: dict[str, ModuleType] = {"jxent": jxent, "jxent.metrics": jxent.metrics}
ALIASES = {
    "jxent.safe_softmax_cross_entropy": "logits that may be −inf",
    "jxent.softmax_cross_entropy_with_integer_labels": "class ids",
}
FACADES = {"jxent.torch": jxent.torch, "jxent.keras": jxent.keras}
_ENTRY = re.compile(r"^\.\. (?:(currentmodule)|auto(?:function|class)):: (\S+)", re.M)


def of_module(name: str) -> list[str]:
    return [f"{name}.{x}" for x in (MODULES | FACADES)[name].__all__]


def everything() -> list[str]:
    """Every public name with its module, in the order of the alphabet."""
    names = [name for module in MODULES for name in of_module(module)]
    return sorted(names, key=lambda name: name.rpartition(".")[2].lower())


def of_page(text: str) -> Iterator[str]:
    """The names that a page of the reference documents, in its order."""
    module = "jxent"
    for is_module, name in _ENTRY.findall(text):
        if is_module:
            module = name
        else:
            yield f"{module}.{name}"


def value_of(name: str) -> Any:
    module, _, own = name.rpartition(".")
    return getattr((MODULES | FACADES)[module], own)


def line(name: str) -> str:
    """The first sentence of its docstring; of an alias what it is an alias of."""
    value = value_of(name)
    if name in ALIASES:
        return f"`{value.__name__}`, under Optax's name for {ALIASES[name]}"
    summary = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    return summary.partition(". ")[0].removesuffix(".")


def row(name: str) -> str:
    module, _, own = name.rpartition(".")
    role = "class" if inspect.isclass(value_of(name)) else "func"
    shown = own if module in FACADES else name.removeprefix("jxent.")
    return f"| {{py:{role}}}`{shown} <{name}>` | {line(name)} |"


class NameTable(SphinxDirective):
    """`{name-table}`: names of this page, or of the module that is named, or `all`."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments == ["all"]:
            names = everything()
        elif self.arguments:
            names = of_module(self.arguments[0])
        else:
            names = of_page(self.env.doc2path(self.env.docname).read_text("utf-8"))
        names = list(names)
        if len({*map(line, names)}) < len(names):
            raise self.error("two names of this table have the same line")
        text = "\n".join(["| name | what it is |", "|---|---|", *map(row, names)])
        table = nodes.container(classes=["name-table"])
        table += self.parse_text_to_nodes(text)
        return [table]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("name-table", NameTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
