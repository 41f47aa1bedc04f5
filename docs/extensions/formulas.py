"""Formulas of docstrings, which are plain text, as TeX: set as those of the guides."""

import re
from collections.abc import Iterator


# What is left as it is: arrays with indices, calls with arrays, lists of words.
CODE = re.compile(r"\w\[|\w\(params|@|jxent\.|^ *\"")
_OPERATORS = "log|exp|max|min|cos"
_TOKEN = re.compile(
    rf"""(?P<operator>(?:{_OPERATORS})(?![A-Za-z]|_[a-z]{{3}}))
    |(?P<words>[a-z]{{2,}},?(?:\ (?!(?:{_OPERATORS})\b)[a-z]+,?)*\ [a-z]{{2,}}(?![\w(]))
    |(?P<name>[a-z]+(?:_[a-z]+)*_[a-z]{{3,}}|[A-Za-z]{{2,}}(?:-[a-z]{{2,}})?|"\w+")
    |(?P<script>[_^](?:{{[^}}]*}}|\w[a-z]*?[₊₋]?(?:_[a-z])?(?![a-z])))
    |(?P<power>1e-\d+)
    |(?P<space>\ +)
    |(?P<other>.)""",
    re.VERBOSE,
)
_SYMBOLS = {
    "Σ": r"\sum", "−": "-", "·": r"\cdot ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "≠": r"\neq ", "→": r"\to ", "‖": r"\parallel ", "½": r"\tfrac{1}{2}",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "ε": r"\varepsilon ",
    "σ": r"\sigma ", "⁺": "^{+}", "²": "^{2}", "₊": "_{+}", "₋": "_{-}",
}  # fmt: skip


def _pieces(formula: str) -> Iterator[str]:
    for match in _TOKEN.finditer(formula):
        kind, text = match.lastgroup, match[0]
        if kind == "script":
            inner = text[1:].removeprefix("{").removesuffix("}")
            short = inner.isalnum() and inner.isascii()
            yield f"{text[0]}{{{inner if short else tex(inner)}}}"
        elif kind == "operator":
            yield f"\\{text} "
        elif kind in ("words", "name"):
            yield rf"\text{{{text}}}"
        elif kind == "power":
            yield f"10^{{{text[2:]}}}"
        elif kind == "space":
            yield r"\," if len(text) == 1 else r"\quad "
        else:
            yield _SYMBOLS.get(text, text)


def tex(formula: str) -> str:
    """TeX of one line: `z_c − log Σ_k exp(z_k)`, two spaces between formulas."""
    root = re.match(r"√\((.*?)\)(?=  |$)", formula)
    if root:
        return rf"\sqrt{{{tex(root[1])}}}{tex(formula[root.end() :])}"
    text = "".join(_pieces(formula))
    # Operators bring their own space.
    operator = r"(?:[-+=/]|\\(?:cdot|neq|to|parallel) )"
    text = re.sub(rf"\\,(?={operator})|({operator})\\,", r"\1", text)
    return re.sub(rf"(\\(?:{_OPERATORS}) )\\,", r"\1", text)


# Where a formula may go on in another line: before these, in one bracket at most.
_BREAK = re.compile(r"=|\+|-|\\cdot |\\quad ")


def pieces(formula: str) -> list[str]:
    """A long formula in pieces that a narrow screen sets below each other."""
    found, start, depth, before = [], 0, {"{": 0, "(": 0}, ""
    place = 0
    while place < len(formula):
        sign = formula[place]
        depth["{"] += (sign == "{") - (sign == "}")
        depth["("] += (sign in "([") - (sign in ")]")
        here = _BREAK.match(formula, place)
        unary = sign in "+-" and before in ("", "(", "[", "=", ",", "-", "d")
        if here and not depth["{"] and depth["("] < 2 and not unary:
            found.append(formula[start:place])
            start = place
        place = here.end() if here else place + 1
        # The last letter of \cdot stands for the operator, whose spaces are dropped.
        before = "d" if here and sign == "\\" else sign.strip() or before
    found.append(formula[start:])
    return [piece for piece in found if piece.strip()]
