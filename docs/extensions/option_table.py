"""The table of options, from the signatures: which functions take which."""

import inspect
from collections.abc import Iterable, Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import jxent


# Functions that take nearly the same options share a column; with each goes the word
# that tells it from the others there.
COLUMNS = {
    "loss": {
        "softmax_cross_entropy": "",
        "softmax_cross_entropy_with_integer_labels": "",
        "safe_softmax_cross_entropy": "",
        "softmax_focal_loss": "focal",
        "poly_loss_cross_entropy": "poly",
        "generalized_cross_entropy": "generalized",
        "taylor_cross_entropy": "taylor",
        "symmetric_cross_entropy": "symmetric",
        "linear_softmax_cross_entropy": "linear",
        "linear_softmax_focal_loss": "linear focal",
        "linear_poly_loss_cross_entropy": "linear poly",
    },
    "sums": {
        "softmax_cross_entropy_sums": "",
        "linear_softmax_cross_entropy_sums": "linear",
    },
    "divergence": {
        "softmax_kl_divergence": "",
        "softmax_jensen_shannon_divergence": "Jensen–Shannon",
        "linear_softmax_kl_divergence": "linear",
        "linear_softmax_jensen_shannon_divergence": "linear Jensen–Shannon",
    },
    "log-prob": {"softmax_log_prob": "", "linear_softmax_log_prob": "linear"},
    "log-prob at ids": {
        "softmax_log_prob_at": "",
        "linear_softmax_log_prob_at": "linear",
        "linear_softmax_top_k": "linear top-k",
    },
    "entropy": {"softmax_entropy": "", "linear_softmax_entropy": "linear"},
    "statistics": {"softmax_statistics": "", "linear_softmax_statistics": "linear"},
    "categorical": {"categorical_cross_entropy": ""},
    "binary": {
        "sigmoid_binary_cross_entropy": "",
        "sigmoid_focal_loss": "focal",
        "asymmetric_loss": "asymmetric",
        "binary_cross_entropy": "binary",
    },
    "linear binary": {
        "linear_sigmoid_binary_cross_entropy": "",
        "linear_sigmoid_focal_loss": "focal",
        "linear_asymmetric_loss": "asymmetric",
    },
    "ZLPR": {"zlpr_loss": "", "linear_zlpr_loss": "linear"},
    "contrastive": {
        "contrastive_cross_entropy": "softmax",
        "sigmoid_contrastive_loss": "sigmoid",
        "supervised_contrastive_cross_entropy": "supervised",
    },
}


def parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(jxent, name)).parameters)


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def takers(option: str, column: dict[str, str]) -> str:
    """● if all functions of the column take the option; else the word of those that
    do, or that do not."""
    taking = {f for f in column if option in parameters(f)}
    if not taking or taking == {*column}:
        return "●" if taking else ""
    for word in " ".join(column.values()).split():
        named = {f for f, words in column.items() if word in words.split()}
        if taking == named:
            return word
        if taking == {*column} - named:
            return f"not {word}"
    raise ValueError(f"{option}: no word for {taking}")


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


class OptionTable(SphinxDirective):
    """`{option-table}`: the columns' functions, then the table."""

    def run(self) -> list[nodes.Node]:
        listed = {name for functions in COLUMNS.values() for name in functions}
        for name, _ in inspect.getmembers(jxent, inspect.isfunction):
            if "z_loss" in parameters(name) and name not in listed:
                raise self.error(f"no column has {name}")
        columns = [f"- **{head}**: {code(of)}" for head, of in COLUMNS.items()]
        text = "\n".join([*columns, "", *options()])
        table = nodes.container(classes=["option-table"])
        table += self.parse_text_to_nodes(text)
        return [table]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("option-table", OptionTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
