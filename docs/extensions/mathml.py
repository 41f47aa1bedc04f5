"""Formulas as MathML, which browsers draw themselves: no script, no font to fetch."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from docs.extensions.formulas import pieces


# TeX sets a thin space between a function's name and its argument.
_FUNCTION = re.compile(r"<m[io]>(?:log|ln|exp|max|min)</m[io]>(?=<m(?!o))")


def _mathml(formula: str, display: str) -> str:
    mathml = convert(formula, display=display)
    return _FUNCTION.sub(r'\g<0><mspace width="0.17em"/>', mathml)


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _piece(formula: str) -> str:
    apart = formula.startswith(r"\quad ")
    mathml = _mathml(formula.removeprefix(r"\quad "), "block")
    mathml = re.sub(r"^(<math[^>]*><mrow>)<mo>", r'\1<mo form="infix">', mathml)
    return "&emsp;" * apart + mathml


def _block(translator: Any, node: nodes.math_block) -> None:
    tex = node.astext()
    breaks = translator.builder.current_docname.startswith("api/")
    formula = "&#8203;".join(map(_piece, pieces(tex) if breaks else [tex]))
    translator.body.append(f'<div class="math-block" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
