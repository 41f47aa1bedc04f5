"""The table of options, from the signatures: which functions take which."""

import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import jxent


def losses(first: str, *options: str, without: str | None = None) -> list[str]:
    """The losses of logits that take all of these options, this one in front."""
    needed = {"logits", "reduction", *options}
    names = []
    for name, function in inspect.getmembers(jxent, inspect.isfunction):
        parameters = {*inspect.signature(function).parameters}
        if needed <= parameters and without not in parameters:
            names.append(name)
    return sorted(names, key=lambda name: name != first)


# Functions that take nearly the same options, under the words that name them all.
GROUPS = {
    "softmax losses": losses("softmax_cross_entropy", "labels", "z_loss"),
    "sums for a log": ("softmax_cross_entropy_sums",),
    "divergences": losses("softmax_kl_divergence", "target_logits"),
    "log-probabilities": (
        "softmax_log_prob",
        "softmax_log_prob_at",
        "softmax_log_prob_among",
        "softmax_top_k",
        "softmax_entropy",
        "softmax_statistics",
    ),
    "binary losses": losses("sigmoid_binary_cross_entropy", "labels", without="z_loss"),
    "losses of probabilities": ("categorical_cross_entropy", "binary_cross_entropy"),
    "contrastive losses": (
        "contrastive_cross_entropy",
        "sigmoid_contrastive_loss",
        "supervised_contrastive_cross_entropy",
    ),
    "metrics": tuple(
        f"metrics.{name}"
        for name, value in vars(jxent.metrics).items()
        if name in jxent.metrics.__all__ and inspect.isfunction(value)
    ),
}


def parameters(name: str) -> dict[str, inspect.Parameter]:
    where: ModuleType = jxent.metrics if name.startswith("metrics.") else jxent
    function = getattr(where, name.removeprefix("metrics."))
    return dict(inspect.signature(function).parameters)


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def takers(option: str) -> str:
    """The groups whose functions take the option; of a group of which some do, those
    that do, or those that do not, whichever are fewer."""
    words = []
    for group, functions in GROUPS.items():
        taking = [f for f in functions if option in parameters(f)]
        others = [f for f in functions if f not in taking]
        if not others:
            words.append(group)
        elif taking and len(others) < len(taking):
            words.append(f"{group} but {code(others)}")
        elif taking:
            words.append(code(taking))
    return "; ".join(words)


def shown(name: str) -> str:
    """The argument with its default, if all functions that take it have the same."""
    functions = (f for group in GROUPS.values() for f in group)
    defaults = [parameters(f)[name].default for f in functions if name in parameters(f)]
    if len({*map(repr, defaults)}) > 1 or defaults[0] in (
        None,
        inspect.Parameter.empty,
    ):
        return f"`{name}`"
    return f"`{name}={defaults[0]!r}`".replace("'", '"')


def options() -> Iterator[str]:
    """Rows of the table; options that the same functions take share one."""
    rows: dict[str, list[str]] = {}
    seen = set()
    for functions in GROUPS.values():
        for function in functions:
            for name in parameters(function):
                if name not in seen:
                    seen.add(name)
                    rows.setdefault(takers(name), []).append(shown(name))
    yield "| argument | functions that take it |"
    yield "|---|---|"
    for functions, names in rows.items():
        yield f"| {', '.join(names)} | {functions} |"


class OptionTable(SphinxDirective):
    """`{option-table}`: the groups' functions, then the table."""

    def run(self) -> list[nodes.Node]:
        listed = {name for functions in GROUPS.values() for name in functions}
        for name, _ in inspect.getmembers(jxent, inspect.isfunction):
            if "reduction" in parameters(name) and name not in {*listed, "reduce"}:
                raise self.error(f"no group has {name}")
        groups = [f"- **{head}**: {code(of)}" for head, of in GROUPS.items()]
        text = "\n".join([*groups, "", *options()])
        table = nodes.container(classes=["option-table"])
        table += self.parse_text_to_nodes(text)
        return [table]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("option-table", OptionTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
