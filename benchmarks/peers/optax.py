"""Optax behind the cast to float32 that training code puts before it."""

import importlib.util

import jax
import jax.numpy as jnp

from ..operations import IGNORED, SMOOTHING, WIDER, Z_LOSS
from ..truth import BIAS, BONUS, PLACES


NAME, MODULE = "Optax", "optax"


def available() -> bool:
    return importlib.util.find_spec(MODULE) is not None


def rows(logits, labels):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def logits(logits, labels):
    return rows(logits.astype(jnp.float32), labels).mean()


def logits_every(logits, labels, class_weights):
    """The options as they are written with Optax: one-hot, smoothed, masked."""
    import optax

    logits = logits.astype(jnp.float32)
    kept = labels != IGNORED
    ids = jnp.where(kept, labels, 0)
    targets = optax.smooth_labels(jax.nn.one_hot(ids, logits.shape[-1]), SMOOTHING)
    losses = optax.softmax_cross_entropy(logits, targets * class_weights)
    weights = class_weights[ids] * kept
    losses = losses * kept + Z_LOSS * weights * jax.nn.logsumexp(logits, -1) ** 2
    return jnp.sum(losses) / jnp.sum(weights)


def product(hidden, kernel):
    """Float32 logits of a product in hidden's dtype, as a layer of it has them."""
    return (hidden @ kernel.astype(hidden.dtype)).astype(jnp.float32)


def head(hidden, kernel, labels):
    kept = labels != IGNORED
    losses = rows(product(hidden, kernel), jnp.where(kept, labels, 0))
    return jnp.sum(losses * kept) / jnp.sum(kept)


def head_every(hidden, kernel, labels, class_weights):
    return logits_every(product(hidden, kernel), labels, class_weights)


def policy_head(hidden, kernel, labels):
    """Optax has no entropy: JAX's own, of the same logits."""
    logits = product(hidden, kernel)
    log_p = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
    return jnp.mean(rows(logits, labels) - BONUS * entropy)


def similarities(x, y, logit_scale):
    return logit_scale * product(x, y.T)


def pairs_one_way(x, y, logit_scale):
    return rows(similarities(x, y, logit_scale), jnp.arange(len(x))).mean()


def pairs(x, y, logit_scale):
    z, own = similarities(x, y, logit_scale), jnp.arange(len(x))
    return (rows(z, own) + rows(z.T, own)).mean() / 2


def pairs_sigmoid(x, y, logit_scale):
    z = similarities(x, y, logit_scale) + BIAS
    return sigmoid(z, jnp.eye(len(x))).sum(-1).mean()


def head_table(hidden, table, labels):
    return head(hidden, table.T, labels)


def distributions(logits, targets):
    import optax

    return optax.softmax_cross_entropy(logits, targets)


def sigmoid(logits, targets):
    import optax

    return optax.sigmoid_binary_cross_entropy(logits, targets)


def several_ids(hidden, kernel, ids, values):
    """A distribution over all classes, which Optax's loss asks for."""
    import optax

    logits = product(hidden, kernel)
    rows = jnp.arange(len(logits))[:, None]
    targets = jnp.zeros_like(logits).at[rows, ids].add(values)
    return optax.softmax_cross_entropy(logits, targets).mean()


def replay(hidden, kernel, labels, kept):
    """Optax's loss of the kept logits, the label's the first."""
    logits = product(hidden, kernel)
    among = (kept >= 0) & (kept != labels[:, None])
    others = jnp.take_along_axis(logits, jnp.where(among, kept, 0), -1)
    label = jnp.take_along_axis(logits, labels[:, None], -1)
    z = jnp.concatenate([label, jnp.where(among, others, -jnp.inf)], axis=-1)
    return rows(z, jnp.zeros_like(labels)).mean()


def _with_targets(hidden, kernel, positives):
    logits = product(hidden, kernel)
    rows = jnp.arange(len(logits))[:, None]
    return logits, jnp.zeros_like(logits).at[rows, positives].set(1)


def many_labels(*arguments):
    """An array of all labels, which Optax's loss asks for."""
    return sigmoid(*_with_targets(*arguments)).sum(-1).mean()


def many_labels_zlpr(*arguments):
    """Optax has none: its formula, of logits in memory."""
    logits, targets = _with_targets(*arguments)
    low = jnp.where(targets == 1, -jnp.inf, logits)
    high = jnp.where(targets == 1, -logits, -jnp.inf)
    sides = (jax.nn.softplus(jax.nn.logsumexp(side, -1)) for side in (low, high))
    return sum(sides).mean()


def top_k(hidden, kernel):
    """Optax has none: JAX's own, of the same logits."""
    log_p = jax.nn.log_softmax(product(hidden, kernel))
    return jnp.sum(jax.lax.top_k(log_p, PLACES)[0]) / len(hidden)


def _log_softmaxes(hidden, kernel, target_hidden, target_kernel):
    heads = (hidden, kernel), (target_hidden, target_kernel)
    return (jax.nn.log_softmax(product(*head)) for head in heads)


def two_heads_kl(*heads):
    import optax

    log_p, log_q = _log_softmaxes(*heads)
    return optax.losses.kl_divergence_with_log_targets(log_p, log_q).mean()


def two_heads_jensen_shannon(*heads):
    import optax

    log_p, log_q = _log_softmaxes(*heads)
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    kl = optax.losses.kl_divergence_with_log_targets
    return (kl(log_m, log_q) + kl(log_m, log_p)).mean() / 2


LOSSES = {
    "logits": {"": logits},
    "logits, every option": {"": logits_every},
    "head": {"materialized": head},
    "head, every option": {"materialized": head_every},
    "head, embedding table": {"materialized": head_table},
    "head, by blocks": {"materialized": head},
    "head, ignored": {"materialized": head},
    "head, sums": {"materialized, the loss alone": head},
    "head, log-probabilities and entropies": {"materialized": policy_head},
    "head, several ids": {"materialized": several_ids},
    "head, sampling replay": {"materialized": replay},
    "head, many labels": {"materialized": many_labels},
    "head, many labels, ZLPR": {"materialized": many_labels_zlpr},
    "head, top k": {"materialized": top_k},
    "two heads, KL": {"materialized": two_heads_kl},
    WIDER: {"materialized": two_heads_kl},
    "two heads, Jensen-Shannon": {"materialized": two_heads_jensen_shannon},
    "pairs": {"materialized": pairs},
    "pairs, one direction": {"materialized": pairs_one_way},
    "pairs, sigmoid": {"materialized": pairs_sigmoid},
    "head, split": {"materialized": head},
    "logits, split": {"": logits},
    "rows": {"": rows},
    "rows, distributions": {"": distributions},
    "rows, sigmoid": {"": sigmoid},
    "import": {"": None},
}
