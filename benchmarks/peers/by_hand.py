"""What a user writes: ten lines of jax.numpy, and for a head a scan over tokens."""

import jax
import jax.numpy as jnp

from .. import textbook
from ..operations import IGNORED, WIDER
from ..truth import BIAS, BONUS, PLACES


NAME, MODULE = "by hand", ""
TILE = 512


def available() -> bool:
    return True


def logits(logits, labels):
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, labels[:, None], -1).mean()


def head(hidden, kernel, labels):
    """Tiles of tokens, each recomputed for its derivative by `jax.checkpoint`."""

    @jax.checkpoint
    def step(total, tile):
        h, y = tile
        z = (h @ kernel.astype(h.dtype)).astype(jnp.float32)
        kept = y != IGNORED
        picked = jnp.take_along_axis(z, jnp.where(kept, y, 0)[:, None], -1)[:, 0]
        losses = jax.nn.logsumexp(z, -1) - picked
        return total + jnp.sum(losses * kept), None

    size = _tile_size(len(labels))
    tiles = hidden.reshape(-1, size, hidden.shape[-1]), labels.reshape(-1, size)
    total, _ = jax.lax.scan(step, jnp.float32(0), tiles)
    return total / jnp.sum(labels != IGNORED)


def _tile_size(rows):
    return next(n for n in range(min(TILE, rows), 0, -1) if rows % n == 0)


def policy(log_p, entropy):
    return jnp.mean(-log_p - BONUS * entropy)


def policy_head(hidden, kernel, labels):
    """Log-probability and entropy of every token, tiles of tokens recomputed."""

    @jax.checkpoint
    def of_tile(tile):
        h, y = tile
        log_p = jax.nn.log_softmax((h @ kernel.astype(h.dtype)).astype(jnp.float32))
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
        return jnp.take_along_axis(log_p, y[:, None], -1)[:, 0], entropy

    size = _tile_size(len(labels))
    tiles = hidden.reshape(-1, size, hidden.shape[-1]), labels.reshape(-1, size)
    return policy(*jax.lax.map(of_tile, tiles))


def _means(of_row, *rows):
    """The mean of a function of tiles of tokens, recomputed for its derivative."""
    size = _tile_size(len(rows[0]))
    tiles = [x.reshape(-1, size, *x.shape[1:]) for x in rows]
    sums = jax.lax.map(jax.checkpoint(lambda tile: jnp.sum(of_row(*tile))), tiles)
    return jnp.sum(sums) / len(rows[0])


def _log_softmax(hidden, kernel):
    product = hidden @ kernel.astype(hidden.dtype)
    return jax.nn.log_softmax(product.astype(jnp.float32))


def several_ids(hidden, kernel, ids, values):
    def of_tile(h, ids, values):
        log_p = _log_softmax(h, kernel)
        return -values * jnp.take_along_axis(log_p, ids, -1)

    return _means(of_tile, hidden, ids, values)


def replay(hidden, kernel, labels, kept):
    def of_tile(h, y, kept):
        log_p = _log_softmax(h, kernel)
        among = (kept >= 0) & (kept != y[:, None])
        others = jnp.take_along_axis(log_p, jnp.where(among, kept, 0), -1)
        label = jnp.take_along_axis(log_p, y[:, None], -1)
        z = jnp.concatenate([label, jnp.where(among, others, -jnp.inf)], axis=-1)
        return jax.nn.logsumexp(z, -1) - label[:, 0]

    return _means(of_tile, hidden, labels, kept)


def top_k(hidden, kernel):
    return _means(lambda h: jax.lax.top_k(_log_softmax(h, kernel), PLACES)[0], hidden)


def two_heads_kl(hidden, kernel, target_hidden, target_kernel):
    def of_tile(h, t):
        log_p, log_q = _log_softmax(h, kernel), _log_softmax(t, target_kernel)
        return jnp.exp(log_q) * (log_q - log_p)

    return _means(of_tile, hidden, target_hidden)


def two_heads_jensen_shannon(hidden, kernel, target_hidden, target_kernel):
    def of_tile(h, t):
        log_p, log_q = _log_softmax(h, kernel), _log_softmax(t, target_kernel)
        log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
        return sum(jnp.exp(x) * (x - log_m) for x in (log_p, log_q)) / 2

    return _means(of_tile, hidden, target_hidden)


def pairs(x, y, logit_scale):
    z = logit_scale * (x @ y.T).astype(jnp.float32)
    own = jnp.diagonal(z)
    halves = jax.nn.logsumexp(z, 1) - own, jax.nn.logsumexp(z, 0) - own
    return sum(halves).mean() / 2


def pairs_one_way(x, y, logit_scale):
    z = logit_scale * (x @ y.T).astype(jnp.float32)
    return (jax.nn.logsumexp(z, 1) - jnp.diagonal(z)).mean()


def pairs_sigmoid(x, y, logit_scale):
    z = logit_scale * (x @ y.T).astype(jnp.float32) + BIAS
    signs = 2 * jnp.eye(len(x)) - 1
    return -jax.nn.log_sigmoid(signs * z).sum(-1).mean()


def head_table(hidden, table, labels):
    return head(hidden, table.T, labels)


LOSSES = {
    "logits": {"": logits},
    "head": {"scan and checkpoint": head},
    "head, embedding table": {"scan and checkpoint": head_table},
    "head, by blocks": {"scan and checkpoint": head},
    "head, ignored": {"scan and checkpoint": head},
    "pairs": {"materialized": pairs},
    "pairs, one direction": {"materialized": pairs_one_way},
    "pairs, sigmoid": {"materialized": pairs_sigmoid},
    "head, split": {"scan and checkpoint": head},
    "head, log-probabilities and entropies": {"map and checkpoint": policy_head},
    "head, several ids": {"map and checkpoint": several_ids},
    "head, sampling replay": {"map and checkpoint": replay},
    "head, top k": {"map": top_k},
    "two heads, KL": {"map and checkpoint": two_heads_kl},
    WIDER: {"map and checkpoint": two_heads_kl},
    "two heads, Jensen-Shannon": {"map and checkpoint": two_heads_jensen_shannon},
}
LOSSES |= {name: {"": row.by_hand} for name, row in textbook.ROWS.items()}
