"""What code prints, held against the comments beside its prints.

    print(jnp.exp(1.0))  # 2.71828

A result of several lines stands in the comment lines below the print. Numbers agree to
the digits that are written; after ≈, which stands where a training run or rounding
decides, to five units of the last digit.
"""

import ast
import io
import re
import tokenize


NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?!\w)")


def tolerance(number: str) -> float:
    """Half a unit of the last digit written, and a little; 0 for an integer."""
    digits, _, exponent = number.lower().partition("e")
    if "." not in digits and not exponent:
        return 0.0
    if digits.endswith("."):  # NumPy's sign that no digits but zeros follow
        return 1e-4 * max(1.0, abs(float(number)))
    decimals = len(digits.partition(".")[2])
    return 0.51 * 10.0 ** (int(exponent or 0) - decimals)


def says(want: str, got: str) -> bool:
    """Whether `got` is what `want` says, numbers to the precision that is written.

    White space counts only between words.
    """
    scale = 10 if "≈" in want else 1
    want = want.replace("≈", " ")

    def words(text: str) -> list[str]:
        text = re.sub(r"([\[\](),{}])", r" \1 ", NUMBER.sub(" # ", text))
        return text.split()

    if words(want) != words(got):
        return False
    pairs = zip(NUMBER.findall(want), NUMBER.findall(got), strict=True)
    return all(abs(float(a) - float(b)) <= scale * tolerance(a) for a, b in pairs)


def expected_prints(source: str) -> dict[int, str]:
    """The comments on prints: {the print's first line: the text that it prints}."""
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            own_line = not token.line[: token.start[1]].strip()
            comments[token.start[0]] = (own_line, token.string.removeprefix("#"))
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Expr) and ast.unparse(node).startswith("print(")):
            continue
        assert node.end_lineno is not None
        line = node.end_lineno
        text = [comments[line][1]] if line in comments else []
        while comments.get(line + 1, (False,))[0]:
            line += 1
            text.append(comments[line][1])
        if text:
            found[node.lineno] = "\n".join(text).strip()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and not ast.unparse(node).startswith("print("):
            own_line, text = comments.get(node.end_lineno, (True, ""))
            assert own_line or not NUMBER.match(text.strip()), (
                f"line {node.lineno}: print the result that the comment shows"
            )
    return dict(sorted(found.items()))
