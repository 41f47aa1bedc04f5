"""An option's sentence in docstrings has one home: `python -m tools.option_sentences`.

An editor shows the docstring of the function under the cursor and no other, so each
function explains all of its options. An option that several functions share is
explained in the first of them; this writes the same sentences into the others, and a
test holds that they agree.
"""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any


# A module with such copies says so in this line.
MARK = "# Sentences under Args are copies: tools/option_sentences.py has their homes."

# For each function or class: where its options are explained, and those that mean
# something else here. What its home does not have it explains itself. A loss of logits
# that is not listed is at home where most of its options are.
OF_LOSSES = (
    "softmax_cross_entropy",
    "softmax_kl_divergence",
    "sigmoid_binary_cross_entropy",
)
HOMES = {
    "jxent": {
        "softmax_log_prob": ("softmax_cross_entropy", "labels where batch_axis_name"),
        "softmax_log_prob_at": (
            "softmax_log_prob",
            "ids axis ignore_index class_axis_name",
        ),
        "softmax_log_prob_among": ("softmax_log_prob_at", "ids kept ignore_index"),
        "softmax_top_k": ("softmax_log_prob", "k class_axis_name"),
        "softmax_entropy": ("softmax_log_prob", "class_axis_name"),
        "softmax_statistics": (
            "softmax_log_prob",
            "labels class_weights entropy argmax",
        ),
        "softmax_cross_entropy_sums": (
            "softmax_cross_entropy",
            "where batch_axis_name",
        ),
        "softmax_kl_divergence": (
            "softmax_cross_entropy",
            "target_logits target_logit_soft_cap temperature reduction class_axis_name",
        ),
        "zlpr_loss": (
            "softmax_cross_entropy",
            "logits labels where ignore_index label_smoothing reduction "
            "class_axis_name",
        ),
        "categorical_cross_entropy": (
            "softmax_cross_entropy",
            "probs labels axis where class_axis_name batch_axis_name",
        ),
        "sigmoid_binary_cross_entropy": (
            "softmax_cross_entropy",
            "logits labels axis where pos_weight class_weights ignore_index "
            "label_smoothing reduction class_axis_name",
        ),
        "binary_cross_entropy": (
            "sigmoid_binary_cross_entropy",
            "probs labels where pos_weight class_weights ignore_index reduction "
            "batch_axis_name",
        ),
        "fit_temperature": ("jxent.metrics.brier_score", ""),
        "fit_vector_scaling": ("jxent.metrics.brier_score", ""),
        "sigmoid_contrastive_loss": ("contrastive_cross_entropy", "logit_bias"),
        "supervised_contrastive_cross_entropy": (
            "contrastive_cross_entropy",
            "x labels temperature log",
        ),
        "total_weight": (
            "categorical_cross_entropy",
            "labels axis where batch_axis_name",
        ),
        "kl_divergence": ("entropy", "log_predictions targets"),
        "kl_divergence_with_log_targets": ("entropy", "log_predictions log_targets"),
        "generalized_kl_divergence": ("entropy", "log_predictions targets"),
    },
    "jxent.metrics": {
        **{
            name: ("accuracy", "")
            for name in (
                "accuracy_sums perplexity perplexity_sums confusion_matrix"
            ).split()
        },
        "accuracy": (
            "jxent.softmax_cross_entropy",
            "logits labels axis where weights batch_axis_name",
        ),
        "brier_score": ("accuracy", "logits axis batch_axis_name"),
        "brier_score_sums": ("brier_score", ""),
        "top_k_accuracy": ("accuracy", "k"),
        "top_k_accuracy_sums": ("top_k_accuracy", ""),
        "calibration_error": ("accuracy", "bins norm strategy"),
        "calibration_error_sums": ("calibration_error", ""),
        "reliability_bins": ("calibration_error", ""),
    },
    "jxent.torch": {
        "nll_loss": ("cross_entropy", "input target"),
        "kl_div": ("cross_entropy", "input target reduction log_target"),
        "binary_cross_entropy": ("cross_entropy", "input target weight"),
        "binary_cross_entropy_with_logits": (
            "cross_entropy",
            "input target weight pos_weight",
        ),
        "soft_margin_loss": ("cross_entropy", "input target"),
        "multilabel_soft_margin_loss": ("cross_entropy", "input target weight"),
        "linear_cross_entropy": (
            "cross_entropy",
            "input linear_weight target linear_bias ignore_index options",
        ),
        "CrossEntropyLoss": ("cross_entropy", ""),
        "NLLLoss": ("nll_loss", ""),
        "BCELoss": ("binary_cross_entropy", ""),
        "BCEWithLogitsLoss": ("binary_cross_entropy_with_logits", ""),
        "KLDivLoss": ("kl_div", ""),
        "SoftMarginLoss": ("soft_margin_loss", ""),
        "MultiLabelSoftMarginLoss": ("multilabel_soft_margin_loss", ""),
        "LinearCrossEntropyLoss": (
            "linear_cross_entropy",
            "in_features num_classes out_features bias device dtype options key",
        ),
    },
    "jxent.keras": {
        "binary_focal_crossentropy": (
            "binary_crossentropy",
            "apply_class_balancing alpha gamma",
        ),
        "categorical_focal_crossentropy": ("categorical_crossentropy", "alpha gamma"),
        "BinaryCrossentropy": ("binary_crossentropy", "reduction name dtype"),
        "BinaryFocalCrossentropy": (
            "binary_focal_crossentropy BinaryCrossentropy",
            "",
        ),
        "CategoricalCrossentropy": ("categorical_crossentropy BinaryCrossentropy", ""),
        "CategoricalFocalCrossentropy": (
            "categorical_focal_crossentropy BinaryCrossentropy",
            "",
        ),
        "SparseCategoricalCrossentropy": (
            "sparse_categorical_crossentropy BinaryCrossentropy",
            "",
        ),
        "KLDivergence": ("BinaryCrossentropy", ""),
        "CategoricalGeneralizedCrossEntropy": (
            "categorical_generalized_cross_entropy BinaryCrossentropy",
            "",
        ),
    },
}

# Those that explain all of their options themselves.
AT_HOME = {
    "jxent": (
        "class_weights_of_counts contrastive_cross_entropy entropy map_over_tiles "
        "LinearLogits next_token_labels ntxent plan reduce safe_softmax_cross_entropy "
        "sequence_weights smooth_labels softmax_cross_entropy "
        "softmax_cross_entropy_with_integer_labels sum_over_tiles two_hot_labels "
        "with_statistics"
    ),
    "jxent.metrics": "",
    "jxent.torch": "cross_entropy",
    "jxent.keras": (
        "binary_crossentropy categorical_crossentropy kl_divergence "
        "categorical_generalized_cross_entropy sparse_categorical_crossentropy"
    ),
}

_ARGS = re.compile(r"(?<=^Args:\n).*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^  (\w+(?:,\s+\w+)*): (.*(?:\n    .*)*)", re.MULTILINE)


def entries(docstring: str) -> dict[str, str]:
    """{option: its sentences} of the section Args; names of one entry stay together."""
    section = _ARGS.search(docstring)
    if section is None:
        return {}
    return {
        " ".join(names.split()): " ".join(text.split())
        for names, text in _ENTRY.findall(section[0])
    }


def options(value: Any) -> list[str]:
    return list(inspect.signature(value).parameters)


def _public(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def homes(module: str) -> dict[str, tuple[str, str]]:
    """Those of `HOMES`, and of the losses of logits that are not listed."""
    found = dict(HOMES[module])
    for name in importlib.import_module(module).__all__:
        value = _public(module, name)
        if name in found or name in AT_HOME[module].split() or inspect.isclass(value):
            continue
        if {"logits", "reduction"} <= {*options(value)}:
            shared = [
                len(_parameters(value) & _parameters(_public(module, home)))
                for home in OF_LOSSES
            ]
            found[name] = OF_LOSSES[shared.index(max(shared))], ""
    return found


def _parameters(value: Any) -> set[str]:
    """With their defaults."""
    return {*map(str, inspect.signature(value).parameters.values())}


def expected_entries(module: str, name: str) -> dict[str, str]:
    """The entries that a function or class should have, in its signature's order."""
    value = _public(module, name)
    own = entries(inspect.getdoc(value) or "")
    places, explained_here = homes(module).get(name, ("", ""))
    shared: dict[str, str] = {}
    for home in places.split():
        there, _, home = home.rpartition(".")  # of this module if it is not named
        shared = {**expected_entries(there or module, home), **shared}
    here = {option: own.get(option, "") for option in explained_here.split()}
    every = own | shared | here
    return {option: every.get(option, "") for option in options(value)}


def section(sentences: dict[str, str], indent: int) -> str:
    lines = []
    for option, text in sentences.items():
        lines += textwrap.wrap(
            f"{option}: {text}",
            88,
            initial_indent=" " * (indent + 2),
            subsequent_indent=" " * (indent + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def rewritten(module: str, name: str) -> tuple[Path, str]:
    """The file of a function or class, and its text with the sentences of its home."""
    value = _public(module, name)
    path = Path(inspect.getsourcefile(inspect.unwrap(value)) or "")
    source = path.read_text(encoding="utf-8")
    found = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and node.name == value.__name__
        and ast.get_docstring(node) is not None
    ]
    (expression,) = [node.body[0] for node in found]
    assert isinstance(expression, ast.Expr)
    assert expression.end_lineno is not None
    lines = source.splitlines(keepends=True)
    first, last = expression.lineno - 1, expression.end_lineno
    text = "".join(lines[first:last])
    args = section(expected_entries(module, name), 4)
    if "\n    Args:\n" in text:
        text = re.sub(
            r"(?<=\n    Args:\n).*?(?=\n\n|\n    \"\"\")",
            lambda _: args,
            text,
            count=1,
            flags=re.DOTALL,
        )
    else:
        before = re.search(r"\n    (?:Differences|Example):\n", text)
        assert before is not None
        at = before.start() + 1
        text = f"{text[:at]}    Args:\n{args}\n\n{text[at:]}"
    return path, "".join([*lines[:first], text, *lines[last:]])


if __name__ == "__main__":
    for module in HOMES:
        for name in homes(module):
            path, text = rewritten(module, name)
            path.write_text(text, encoding="utf-8")
