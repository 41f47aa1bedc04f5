"""jxent itself: what is planned for each shape, and each implementation by name."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

import jxent
from jxent import LinearLogits
from jxent._compute.platform import assume_platform

from .. import operations, textbook
from ..case import Case
from ..operations import EVERY_OPTION, IGNORED, PADDING, SPLIT
from ..truth import BIAS, BONUS, PLACES
from .by_hand import TILE, policy


NAME, MODULE = "jxent", "jxent"
SPLIT_AXES = {"class_axis_name": "model", "batch_axis_name": "data"}


def available() -> bool:
    return True


def mean(logits, labels, **options):
    return jxent.softmax_cross_entropy(logits, labels, reduction="mean", **options)


def logits_every(logits, labels, class_weights):
    return mean(
        logits,
        labels,
        class_weights=class_weights,
        ignore_index=IGNORED,
        **EVERY_OPTION,
    )


def head(hidden, kernel, labels, *, blocks=1, implementation=None, **options):
    """With `blocks` of rows where the layout is tiled, of classes where it is not."""
    block_sizes = None
    if blocks > 1:
        tiled = implementation == "tiled"
        size = -(-(hidden.shape[0] if tiled else kernel.shape[1]) // blocks)
        block_sizes = (size, None) if tiled else (None, size)
    logits = LinearLogits(
        hidden, kernel, block_sizes=block_sizes, implementation=implementation
    )
    return mean(logits, labels, **options)


def head_table(hidden, table, labels, *, implementation=None):
    logits = LinearLogits(hidden, table, vocab_axis=0, implementation=implementation)
    return mean(logits, labels)


def head_every(hidden, kernel, labels, class_weights, **options):
    return head(
        hidden,
        kernel,
        labels,
        class_weights=class_weights,
        ignore_index=IGNORED,
        **EVERY_OPTION,
        **options,
    )


def _in(implementation, loss=head, **options):
    return functools.partial(loss, implementation=implementation, **options)


def head_sums(hidden, kernel, labels, **layout):
    logits = LinearLogits(hidden, kernel, **layout)
    sums = jxent.softmax_cross_entropy_sums(logits, labels)
    return sums.loss / sums.weight


def several_ids(hidden, kernel, ids, values, **layout):
    return head(hidden, kernel, jxent.SparseLabels(ids, values), **layout)


def replay(hidden, kernel, labels, kept, **layout):
    logits = LinearLogits(hidden, kernel, **layout)
    return -jnp.mean(
        jxent.softmax_log_prob_among(logits, labels, kept, ignore_index=PADDING)
    )


def replay_summed(hidden, kernel, labels, kept):
    def of_tile(kernel, rows):
        return replay(rows[0], kernel, *rows[1:], implementation="materialized") * len(
            rows[1]
        )

    rows = hidden, labels, kept
    return jxent.sum_over_tiles(of_tile, kernel, rows, tile=TILE) / len(labels)


def many_labels(hidden, kernel, positives, *, function, **layout):
    logits = LinearLogits(hidden, kernel, **layout)
    labels = jxent.SparseLabels(positives)
    return function(logits, labels, axis=-1, reduction="mean")


def top_k(hidden, kernel, **layout):
    log_probs, _ = jxent.softmax_top_k(LinearLogits(hidden, kernel, **layout), PLACES)
    return jnp.sum(log_probs) / len(hidden)


def two_heads(divergence, hidden, kernel, target_hidden, target_kernel, **layout):
    logits = LinearLogits(hidden, kernel, **layout)
    target_logits = LinearLogits(target_hidden, target_kernel)
    return divergence(logits, target_logits, reduction="mean")


def _policy_rows(kernel, rows):
    hidden, labels = rows
    logits = hidden @ kernel.astype(hidden.dtype)
    return jxent.softmax_log_prob(logits, labels), jxent.softmax_entropy(logits)


def policy_streamed(hidden, kernel, labels, **layout):
    logits = LinearLogits(hidden, kernel, **layout)
    rows = jxent.softmax_statistics(logits, labels, entropy=True)
    return policy(rows.log_prob, rows.entropy)


def policy_mapped(hidden, kernel, labels):
    rows = hidden, labels
    return policy(*jxent.map_over_tiles(_policy_rows, kernel, rows, tile=TILE))


def policy_summed(hidden, kernel, labels):
    def of_tile(kernel, rows):
        log_p, entropy = _policy_rows(kernel, rows)
        return jnp.sum(-log_p - BONUS * entropy)

    rows = hidden, labels
    return jxent.sum_over_tiles(of_tile, kernel, rows, tile=TILE) / len(labels)


def pairs(x, y, logit_scale, *, symmetric=True):
    return jxent.contrastive_cross_entropy(
        x, y, logit_scale=logit_scale, symmetric=symmetric, reduction="mean"
    )


def pairs_sigmoid(x, y, logit_scale):
    return jxent.sigmoid_contrastive_loss(
        x, y, logit_scale=logit_scale, logit_bias=BIAS, reduction="mean"
    )


def head_in_shard_map(hidden, kernel, labels, **options):
    """The same inside the `shard_map` that the call outside of it enters by itself."""
    return jax.shard_map(
        functools.partial(head, **SPLIT_AXES, **options),
        in_specs=tuple(SPLIT[x] for x in ("hidden", "kernel", "labels")),
        out_specs=P(),
    )(hidden, kernel, labels)


def derived(case: Case, loss):
    """Planned for what is compiled for, where that is not where JAX runs."""

    def planned(*arguments):
        with assume_platform({"cuda": "gpu"}.get(case.platform, case.platform)):
            return loss(*arguments)

    return operations.derived(case, planned if case.platform else loss)


KL, JENSEN_SHANNON = (
    functools.partial(two_heads, divergence)
    for divergence in (
        jxent.softmax_kl_divergence,
        jxent.softmax_jensen_shannon_divergence,
    )
)

LOSSES = {
    "logits": {"": mean},
    "logits, every option": {"": logits_every},
    "head": {
        "": head,
        "materialized": _in("materialized"),
        "tiled": _in("tiled"),
        "streamed": _in("streamed"),
    },
    "head, every option": {
        "": head_every,
        "tiled": _in("tiled", head_every),
        "streamed": _in("streamed", head_every),
    },
    "head, embedding table": {
        "": head_table,
        "streamed": _in("streamed", head_table),
    },
    "head, by blocks": {
        f"{layout} in {n}": _in(layout, blocks=n)
        for layout in ("tiled", "streamed")
        for n in (4, 16, 64)
    },
    "head, ignored": {
        "": functools.partial(head, ignore_index=IGNORED),
        "streamed": _in("streamed", ignore_index=IGNORED),
    },
    "head, sums": {
        "": _in("streamed", head_sums),
        "streamed, the loss alone": _in("streamed"),
        "the loss alone": head,
    },
    "head, log-probabilities and entropies": {
        "streamed": _in("streamed", policy_streamed),
        "map_over_tiles": policy_mapped,
        "sum_over_tiles": policy_summed,
    },
    "head, several ids": {
        "tiled": _in("tiled", several_ids),
        "streamed": _in("streamed", several_ids),
    },
    "head, sampling replay": {
        "streamed": _in("streamed", replay),
        "sum_over_tiles": replay_summed,
    },
    "head, many labels": {
        layout: _in(layout, many_labels, function=jxent.sigmoid_binary_cross_entropy)
        for layout in ("tiled", "streamed")
    },
    "head, many labels, ZLPR": {
        layout: _in(layout, many_labels, function=jxent.zlpr_loss)
        for layout in ("tiled", "streamed")
    },
    "head, top k": {"": _in("streamed", top_k)},
    "two heads, KL": {layout: _in(layout, KL) for layout in ("tiled", "streamed")},
    operations.WIDER: {layout: _in(layout, KL) for layout in ("tiled", "streamed")},
    "two heads, Jensen-Shannon": {
        layout: _in(layout, JENSEN_SHANNON) for layout in ("tiled", "streamed")
    },
    "pairs": {"": pairs},
    "pairs, one direction": {"": functools.partial(pairs, symmetric=False)},
    "pairs, sigmoid": {"": pairs_sigmoid},
    "head, split": {
        "plain jit": functools.partial(head, **SPLIT_AXES),
        "shard_map": head_in_shard_map,
        "tiled": _in("tiled", **SPLIT_AXES),
    },
    "logits, split": {"plain jit": mean},
    "rows": {"": jxent.softmax_cross_entropy},
    "rows, distributions": {"": jxent.softmax_cross_entropy},
    "rows, sigmoid": {"": jxent.sigmoid_binary_cross_entropy},
    "import": {"": None},
}
for name, row in textbook.ROWS.items():
    LOSSES[name] = LOSSES[f"{name}, forms"] = {"": textbook.ours(row)}
