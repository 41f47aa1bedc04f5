"""Tables of public names, a line and a link each: of a page, or of all."""

import inspect
import re
from collections.abc import Iterable, Iterator
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
_TABLE = re.compile(r"^```\{name-table\} ?(\S*)\n(.*?)^```", re.M | re.S)


def of_module(name: str) -> list[str]:
    return [f"{name}.{x}" for x in (MODULES | FACADES)[name].__all__]


def everything() -> list[str]:
    """Every public name with its module, in the order of the alphabet."""
    names = [name for module in MODULES for name in of_module(module)]
    return sorted(names, key=lambda name: name.rpartition(".")[2].lower())


def of_page(text: str) -> Iterator[str]:
    """The names that a page of the reference lists, in its order."""
    for module, names in _TABLE.findall(text):
        if module != "all":
            yield from of_module(module) if module else of_lines(names.split())


def of_lines(names: Iterable[str]) -> list[str]:
    return [f"jxent.{name}" for name in names]


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
    """`{name-table}`: the names in its lines, or of the module that is named, or `all`.

    It leads to a page for each (reference.py), except the table of all.
    """

    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        whole = self.arguments == ["all"]
        if whole:
            names = everything()
        elif self.arguments:
            names = of_module(self.arguments[0])
        else:
            names = of_lines(self.content)
        if len({*map(line, names)}) < len(names):
            raise self.error("two names of this table have the same line")
        text = "\n".join(["| name | what it is |", "|---|---|", *map(row, names)])
        table = nodes.container(classes=["name-table"])
        table += self.parse_text_to_nodes(text)
        if whole:
            return [table]
        pages = "\n".join(f"names/{name}" for name in names)
        tree = f"```{{toctree}}\n:hidden:\n\n{pages}\n```"
        return [table, *self.parse_text_to_nodes(tree)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("name-table", NameTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
