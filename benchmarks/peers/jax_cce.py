"""jax-cce: blocks of the vocabulary; of an embedding table as it is."""

import importlib.util


NAME, MODULE = "jax-cce", "jax_cce"


def available() -> bool:
    return importlib.util.find_spec(MODULE) is not None


def head_table(hidden, table, labels):
    from jax_cce import linear_cross_entropy

    return linear_cross_entropy(hidden, table, labels)


def head(hidden, kernel, labels):
    return head_table(hidden, kernel.T, labels)


LOSSES = {
    "head": {"": head},
    "head, embedding table": {"": head_table},
    "head, by blocks": {"": head},
}
