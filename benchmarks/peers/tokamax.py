"""tokamax: its chunked implementation, and what it takes by default."""

import functools
import importlib.util
import logging

from .. import operations
from ..case import Case


NAME, MODULE = "tokamax", "tokamax"


def available() -> bool:
    return importlib.util.find_spec(MODULE) is not None


def head(hidden, kernel, labels, *, implementation=None):
    from absl import flags
    from tokamax import linear_softmax_cross_entropy_loss

    # It warns of each shape that it was not tuned for.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if not flags.FLAGS.is_parsed():  # or it would parse this program's command line
        flags.FLAGS(["benchmarks"])
    return linear_softmax_cross_entropy_loss(
        hidden, labels, kernel, reduction="mean", implementation=implementation
    )


def derived(case: Case, loss):
    """By default it would look at where JAX runs, not at what is compiled for."""
    if case.platform == "tpu" and loss is head:
        loss = functools.partial(head, implementation="mosaic_tpu")
    return operations.derived(case, loss)


LOSSES = {
    "head": {
        "chunked_xla": functools.partial(head, implementation="chunked_xla"),
        "by default": head,
    },
    "head, by blocks": {
        "chunked_xla": functools.partial(head, implementation="chunked_xla"),
    },
}
