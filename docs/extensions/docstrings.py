"""Docstrings as pages: formulas are set; functions link to their guides."""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from docs.extensions.formulas import CODE, tex
from docs.extensions.parameters import with_headings


DOCS = Path(__file__).parent.parent
# An asterisk that opens a word, as in *batch: emphasis if it were not escaped.
_STAR = re.compile(r"(?<![*\w])\*(?=\w)(?!\w+\*)")


# A formula in a sentence: q_c = w_c (…), up to the sentence's end.
_INLINE = re.compile(r"(?<![`\w])[a-z]_[a-z] = [^.,;`]+(?=[.,;])")


def guides() -> dict[str, list[str]]:
    """The pages whose code calls a public name: {"jxent.reduce": ["recipes", …]}."""
    found: dict[str, list[str]] = {}
    for page in sorted(DOCS.rglob("*.md")):
        code = re.findall(r"^```\{code-cell\}.*?^```", page.read_text(), re.M | re.S)
        for name in sorted(set(re.findall(r"\bjxent(?:\.\w+)+", "\n".join(code)))):
            found.setdefault(name, []).append(
                page.relative_to(DOCS).with_suffix("").as_posix()
            )
    return found


def with_formulas(lines: list[str]) -> list[str]:
    """Marks what is indented below a paragraph: as formulas, or as text to keep."""
    made: list[str] = []
    depth = 0
    formulas = False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip():
            starts = number and not lines[number - 1].strip() and indent >= depth + 4
            if starts and not line.lstrip().startswith((">>>", "..", "- ")):
                formulas = not CODE.search(line)
                made += [] if formulas else [" " * depth + ".. code-block:: text", ""]
            elif indent < depth + 4:
                depth, formulas = indent, False
        if formulas and line.strip():
            made += [" " * depth + ".. math:: " + tex(line.strip()), ""]
        else:
            made.append(line)
    return made


def with_inline_formulas(lines: list[str]) -> list[str]:
    """What the paragraphs before the parameters define, set as the formulas are."""
    end = lines.index("Args:") if "Args:" in lines else 0
    set_ = [
        x if x.startswith(" ") else _INLINE.sub(lambda m: f":math:`{tex(m[0])}`", x)
        for x in lines[:end]
    ]
    return set_ + lines[end:]


def _docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    pages = app.config.guides.get(name, [])
    lines[:] = with_formulas(with_inline_formulas(with_headings(lines)))
    lines[:] = [_STAR.sub(r"\\*", line) for line in lines]
    if pages:
        lines += ["", "Used in: " + ", ".join(f":doc:`/{page}`" for page in pages)]


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, *of_sphinx: Any
) -> tuple[str, str] | None:
    """The signature as it is written, and not with its aliases spelled out."""
    if what == "function" or hasattr(obj, "__dataclass_fields__"):
        signature = inspect.signature(obj)
        arguments = " ".join(str(signature).partition(" -> ")[0].split())
        arguments = arguments.replace("( ", "(").replace(", )", ")")
        returned = signature.return_annotation
        return arguments, "" if what == "class" else str(returned)
    return None


def _without_overloads(app: Sphinx) -> None:
    """The signature below the overloads says the same, and names every option."""
    for module in ("jxent", "jxent.keras", "jxent.metrics", "jxent.torch"):
        import_module(module)
    for name in [name for name in sys.modules if name.partition(".")[0] == "jxent"]:
        analyzer = ModuleAnalyzer.for_module(name)
        analyzer.analyze()
        analyzer.overloads.clear()


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("guides", guides(), "env")
    app.connect("builder-inited", _without_overloads)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
