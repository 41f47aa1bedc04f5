"""The README's section Reference, from the signatures: `python -m tests.reference`."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import jxent


README = Path(__file__).parent.parent / "README.md"

# Functions that take nearly the same options share a column; with each goes the word
# that tells it from the others there.
COLUMNS = {
    "loss": {
        "softmax_cross_entropy": "",
        "softmax_cross_entropy_with_integer_labels": "",
        "safe_softmax_cross_entropy": "",
        "softmax_focal_loss": "focal",
        "poly_loss_cross_entropy": "poly",
        "linear_softmax_cross_entropy": "linear",
        "linear_softmax_focal_loss": "linear focal",
        "linear_poly_loss_cross_entropy": "linear poly",
    },
    "log-prob": {"softmax_log_prob": "", "linear_softmax_log_prob": "linear"},
    "entropy": {"softmax_entropy": "", "linear_softmax_entropy": "linear"},
    "statistics": {"softmax_statistics": "", "linear_softmax_statistics": "linear"},
    "categorical": {"categorical_cross_entropy": ""},
    "yes/no": {
        "sigmoid_binary_cross_entropy": "",
        "sigmoid_focal_loss": "focal",
        "binary_cross_entropy": "binary",
    },
}

TORCH = "https://docs.pytorch.org/docs/stable/generated/torch.nn.{path}{name}.html"
KERAS = "https://keras.io/api/losses/probabilistic_losses/#{anchor}-{kind}"


def parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(jxent, name)).parameters)


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def takers(option: str, column: dict[str, str]) -> str:
    """A dot where all of them take the option, else those that do, or do not."""
    taking = [word for f, word in column.items() if option in parameters(f)]
    missing = [word for f, word in column.items() if option not in parameters(f)]
    if not taking or not missing:
        return "●" if taking else ""
    words = " ".join(taking) if all(taking) else f"not {' '.join(missing)}"
    assert all(taking) or all(missing), f"{option}: no word for who takes it"
    return words


def shown(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is None or default is inspect.Parameter.empty:
        return f"`{parameter.name}`"
    return f"`{parameter.name}={default!r}`".replace("'", '"')


def options() -> Iterator[str]:
    """Rows of the table; options that the same functions take share one."""
    rows: dict[tuple[str, ...], list[str]] = {}
    seen = set()
    for functions in COLUMNS.values():
        for function in functions:
            for name, parameter in parameters(function).items():
                if name not in seen:
                    seen.add(name)
                    marks = tuple(takers(name, of) for of in COLUMNS.values())
                    rows.setdefault(marks, []).append(shown(parameter))
    yield f"| | {' | '.join(COLUMNS)} |"
    yield f"|---|{':-:|' * len(COLUMNS)}"
    for marks, names in rows.items():
        yield f"| {', '.join(names)} | {' | '.join(marks)} |"


def signature(name: str) -> str:
    bare = inspect.signature(getattr(jxent, name))
    bare = bare.replace(
        parameters=[
            p.replace(annotation=inspect.Parameter.empty)
            for p in bare.parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    text = f"{name}{bare}".replace("'", '"')
    return textwrap.fill(text, 88, subsequent_indent="    ")


def mirrored(module: str, page: str) -> str:
    """The facade's names, each linked to what it mirrors."""
    facade = getattr(jxent, module)
    links = []
    for name in facade.__all__:
        is_function = inspect.isfunction(getattr(facade, name))
        link = page.format(
            name=name,
            path="functional." if is_function else "",
            anchor=name.lower(),
            kind="function" if is_function else "class",
        )
        links.append(f"[`{name}`]({link})")
    return ",\n".join(links)


SECTION = """\
The losses and their options, with the defaults that are not None. ● stands for all
functions of a column; a word for those that have it in their names.

{columns}

{table}

Everything else, with all of its arguments:

```text
{others}
```

Named tuples: {results}.

`jxent.torch`, each with what it mirrors: {torch}.

`jxent.keras`: {keras}.\
"""


def section() -> str:
    """What stands below the heading."""
    in_table = {name for column in COLUMNS.values() for name in column}
    public = {name: getattr(jxent, name) for name in jxent.__all__}
    functions = [name for name, value in public.items() if inspect.isfunction(value)]
    return SECTION.format(
        columns="\n".join(f"- **{head}**: {code(of)}" for head, of in COLUMNS.items()),
        table="\n".join(options()),
        others="\n".join(signature(name) for name in functions if name not in in_table),
        results=code(name for name in public if name not in functions),
        torch=mirrored("torch", TORCH),
        keras=mirrored("keras", KERAS),
    )


def placed(readme: str) -> str:
    """The README with the section as it should be."""
    return re.sub(
        r"(?<=^## Reference\n\n).*?(?=\n\n## )",
        lambda _: section(),
        readme,
        flags=re.MULTILINE | re.DOTALL,
    )


if __name__ == "__main__":
    README.write_text(placed(README.read_text(encoding="utf-8")), encoding="utf-8")
