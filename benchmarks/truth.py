"""The formulas written out, in float64 and by rows: what every peer is held against."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


BONUS = 0.01  # of the entropy, for a policy
PLACES = 64  # classes at which a distribution is given, or that are found
KEPT = 512  # classes that a sampler keeps, at most
POSITIVES = 32  # classes whose label is yes
BIAS = -10.0  # of the logits of pairs, as SigLIP starts


def _row(z, label, class_weights=None, label_smoothing=0.0, z_loss=0.0):
    """A row's loss and its weight in the mean: 0 and 0 for a label below 0."""
    classes = z.shape[-1]
    w = jnp.ones_like(z) if class_weights is None else class_weights.astype(z.dtype)
    shift = jax.lax.stop_gradient(z.max())
    log_sum = jnp.log(jnp.exp(z - shift).sum())
    log_p, lse = z - shift - log_sum, shift + log_sum
    y = jnp.maximum(label, 0)
    loss = -(1 - label_smoothing) * w[y] * log_p[y]
    loss += -label_smoothing / classes * jnp.vdot(w, log_p) + z_loss * w[y] * lse**2
    kept = label >= 0
    return jnp.where(kept, loss, 0), jnp.where(kept, w[y], 0)


def _mean(of_row: Callable[..., Any], *rows: jax.Array) -> jax.Array:
    """By blocks of rows, so that no float64 array of logits is held."""
    block = jax.checkpoint(lambda x: of_row(*x))
    loss, weight = jax.lax.map(block, rows, batch_size=128)
    return loss.sum() / weight.sum()


def logits(logits, labels, class_weights=None, **options):
    return _mean(lambda z, y: _row(z, y, class_weights, **options), logits, labels)


def head(hidden, kernel, labels, class_weights=None, **options):
    kernel = kernel.astype(jnp.result_type(hidden, kernel))
    hidden = hidden.astype(kernel.dtype)

    def of_row(h, y):
        return _row(h @ kernel, y, class_weights, **options)

    return _mean(of_row, hidden, labels)


def policy_head(hidden, kernel, labels):
    """The mean of −log p_y − 0.01 H, as a policy with an entropy bonus has it."""
    kernel = kernel.astype(jnp.result_type(hidden, kernel))

    def of_row(h, y):
        log_p = jax.nn.log_softmax(h @ kernel)
        return -log_p[y] + BONUS * jnp.vdot(jnp.exp(log_p), log_p), jnp.ones_like(h[0])

    return _mean(of_row, hidden.astype(kernel.dtype), labels)


def several_ids(hidden, kernel, ids, values):
    """The mean cross-entropy with a distribution that is given at a few ids."""
    kernel = kernel.astype(jnp.result_type(hidden, kernel))

    def of_row(h, ids, values):
        return -jnp.vdot(values, jax.nn.log_softmax(h @ kernel)[ids]), jnp.ones_like(
            h[0]
        )

    return _mean(of_row, hidden.astype(kernel.dtype), ids, values)


def replay(hidden, kernel, labels, kept):
    """The mean of −log p of the labels, p renormalized over them and the kept ids."""
    kernel = kernel.astype(jnp.result_type(hidden, kernel))

    def of_row(h, y, kept):
        z, among = h @ kernel, (kept >= 0) & (kept != y)
        others = jnp.where(among, z[jnp.maximum(kept, 0)], -jnp.inf)
        lse = jax.nn.logsumexp(jnp.append(others, z[y]))
        return lse - z[y], jnp.ones_like(h[0])

    return _mean(of_row, hidden.astype(kernel.dtype), labels, kept)


def _of_many_labels(formula, hidden, kernel, positives):
    kernel = kernel.astype(jnp.result_type(hidden, kernel))

    def of_row(h, positives):
        y = jnp.zeros(kernel.shape[1], bool).at[positives].set(True)
        return formula(h @ kernel, y), jnp.ones_like(h[0])

    return _mean(of_row, hidden.astype(kernel.dtype), positives)


def many_labels(hidden, kernel, positives):
    """The mean of the rows' sums of binary cross-entropies."""

    def formula(z, y):
        return -jax.nn.log_sigmoid(jnp.where(y, z, -z)).sum()

    return _of_many_labels(formula, hidden, kernel, positives)


def many_labels_zlpr(hidden, kernel, positives):
    """The same with log(1 + Σ exp z) of the negatives + log(1 + Σ exp −z) of others."""

    def formula(z, y):
        low, high = jnp.where(y, -jnp.inf, z), jnp.where(y, -z, -jnp.inf)
        return sum(jax.nn.softplus(jax.nn.logsumexp(side)) for side in (low, high))

    return _of_many_labels(formula, hidden, kernel, positives)


def top_k(hidden, kernel):
    """The mean of the sums of the largest log-probabilities."""
    kernel = kernel.astype(jnp.result_type(hidden, kernel))

    def of_row(h):
        found, _ = jax.lax.top_k(jax.nn.log_softmax(h @ kernel), PLACES)
        return found.sum(), jnp.ones_like(h[0])

    return _mean(of_row, hidden.astype(kernel.dtype))


def _two_heads(divergence: Callable[..., Any]) -> Callable[..., jax.Array]:
    def mean(hidden, kernel, target_hidden, target_kernel):
        kernel, target_kernel = (
            k.astype(jnp.result_type(hidden, k)) for k in (kernel, target_kernel)
        )

        def of_row(h, t):
            log_p, log_q = (
                jax.nn.log_softmax(x @ k) for x, k in ((h, kernel), (t, target_kernel))
            )
            return divergence(log_p, log_q), jnp.ones_like(h[0])

        rows = (x.astype(kernel.dtype) for x in (hidden, target_hidden))
        return _mean(of_row, *rows)

    return mean


def _kl(log_p, log_q):
    return jnp.vdot(jnp.exp(log_q), log_q - log_p)


def _jensen_shannon(log_p, log_q):
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0).astype(log_p.dtype)
    return (_kl(log_m, log_q) + _kl(log_m, log_p)) / 2


two_heads_kl = _two_heads(_kl)
two_heads_jensen_shannon = _two_heads(_jensen_shannon)


def table_head(hidden, table, labels):
    return head(hidden, table.T, labels)


def pairs_one_way(x, y, logit_scale):
    def of_row(v, i):
        return _row(logit_scale * (y @ v), i)

    return _mean(of_row, x, jnp.arange(len(x)))


def pairs(x, y, logit_scale):
    both = pairs_one_way(x, y, logit_scale) + pairs_one_way(y, x, logit_scale)
    return both / 2


def pairs_sigmoid(x, y, logit_scale):
    def of_row(v, i):
        z = logit_scale * (y @ v) + BIAS
        signs = jnp.where(jnp.arange(len(y)) == i, 1, -1).astype(z.dtype)
        return -jax.nn.log_sigmoid(signs * z).sum(), jnp.ones_like(z[0])

    return _mean(of_row, x, jnp.arange(len(x)))


def rows(logits, labels):
    return jax.vmap(_row)(logits, labels)[0]


def distributions(logits, targets):
    return -jnp.sum(targets * jax.nn.log_softmax(logits), -1)


def sigmoid(logits, targets):
    return -targets * jax.nn.log_sigmoid(logits) - (1 - targets) * jax.nn.log_sigmoid(
        -logits
    )


def widened(arguments: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The same numbers in float64; float32 on a TPU, which has no float64 unit."""
    wide = jnp.float32 if jax.default_backend() == "tpu" else jnp.float64
    return tuple(
        x.astype(wide) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for x in arguments
    )
