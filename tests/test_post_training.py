"""The recipes of the site's page on post-training: each by its formula in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles
from tests.comparing import close


ROWS, FEATURES, CLASSES = 6, 3, 11
DROPPED = 2  # a row of the prompt
ANSWER = np.arange(ROWS) != DROPPED
LABELS = np.array([3, 0, 7, 5, 5, 10])
GIVEN = np.where(ANSWER, LABELS, -100)  # as `next_token_labels` has them


@pytest.fixture
def head(x64, rng):
    return rng.normal(size=(ROWS, FEATURES)), 2 * rng.normal(size=(FEATURES, CLASSES))


def at(x, y):
    return x[np.arange(len(y)), y]


def streamed(hidden, kernel):
    logits = functools.partial(jxent.LinearLogits, block_sizes=(None, 4))
    return logits(hidden, kernel, implementation="streamed")


def of_head(loss, head, answer=ANSWER):
    """Value and gradients in hidden, which is NaN outside of the answer, and kernel."""
    hidden, kernel = head
    both = jax.value_and_grad(lambda *x: loss(streamed(*x)), (0, 1))
    return jax.jit(both)(np.where(answer[:, None], hidden, np.nan), kernel)


def by_formula(loss, head):
    both = jax.value_and_grad(lambda h, w: loss(jax.nn.log_softmax(h @ w)), (0, 1))
    return jax.jit(both)(*head)


def both_equal(ours, textbook, head, answer=ANSWER):
    """Values and gradients in hidden and kernel: of a streamed head, and by formula."""
    wanted = by_formula(textbook, head)
    close(of_head(ours, head, answer), wanted, 1e-10)
    return wanted[0]


def test_replay_of_what_the_sampler_kept(head):
    """Of ids that are padded, with the sampled one among them or not."""
    kept = np.array(
        [
            [3, 1, 2, -1],
            [0, -1, -1, -1],  # greedy: certain
            [-1, -1, -1, -1],  # of the prompt
            [9, 8, 7, 5],
            [1, 2, -1, -1],
            [10, -1, 4, -1],
        ]
    )

    def ours(logits):
        losses = jxent.softmax_log_prob_among(
            logits, GIVEN, kept, where=ANSWER, temperature=0.7
        )
        return jnp.sum(losses * np.cos(np.arange(ROWS)))

    among = np.any(kept[:, :, None] == np.arange(CLASSES), axis=1)
    among |= LABELS[:, None] == np.arange(CLASSES)

    def textbook(log_p):
        z = jax.nn.log_softmax(log_p / 0.7)
        losses = at(z - jax.nn.logsumexp(z, 1, where=among, keepdims=True), LABELS)
        return jnp.sum(jnp.where(ANSWER, losses, 0) * np.cos(np.arange(ROWS)))

    both_equal(ours, textbook, head)


def test_dft_is_the_generalized_loss_of_q_1(head):
    """The gradient of −sg(p) log p, that of 1 − p, without stop_gradient."""

    def by_hand(logits):
        log_p = jxent.softmax_log_prob(logits, GIVEN, where=ANSWER)
        return jxent.reduce(
            -jax.lax.stop_gradient(jnp.exp(log_p)) * log_p, where=ANSWER
        )

    def bounded(logits):
        return jxent.generalized_cross_entropy(
            logits, GIVEN, q=1.0, where=ANSWER, reduction="mean"
        )

    def textbook(log_p):
        of_label = at(log_p, LABELS)
        return -jnp.mean((jax.lax.stop_gradient(jnp.exp(of_label)) * of_label)[ANSWER])

    wanted = by_formula(textbook, head)
    close(of_head(by_hand, head), wanted, 1e-10)
    close(of_head(bounded, head)[1], wanted[1], 1e-10)


def test_eaft_is_gated_by_the_entropy_of_the_likeliest(head):
    count = 4

    def ours(logits):
        log_q, _ = jxent.softmax_top_k(jax.lax.stop_gradient(logits), count)
        gate = jxent.softmax_entropy(log_q) / np.log(count)
        losses = jxent.softmax_cross_entropy(logits, GIVEN, where=ANSWER)
        return jxent.reduce(gate * losses, where=ANSWER)

    def textbook(log_p):
        q = jax.lax.stop_gradient(jnp.sort(jnp.exp(log_p))[:, -count:])
        q = q / q.sum(1, keepdims=True)
        gate = -jnp.sum(q * jnp.log(q), axis=1) / np.log(count)
        return jnp.mean((-gate * at(log_p, LABELS))[ANSWER])

    both_equal(ours, textbook, head)


def test_gspo_has_one_ratio_a_sequence(head):
    """Of sequences of two tokens: the first has one that is a prompt's."""
    old, advantage = np.linspace(-3, -1, ROWS), np.array([1.0, -0.5, 2.0])
    answer = np.roll(ANSWER, 1)
    given = np.where(answer, LABELS, -100)

    def ours(logits):
        log_probs = jxent.softmax_log_prob(logits, given, where=answer)
        change, mask = (x.reshape(3, 2) for x in (log_probs - old, answer))
        ratio = jnp.exp(jxent.reduce(change, where=mask, axis=-1))
        clipped = jnp.clip(ratio, 0.7, 1.3)
        return -jxent.reduce(jnp.minimum(ratio * advantage, clipped * advantage))

    def textbook(log_p):
        total = 0.0
        for s in range(3):
            rows = [r for r in (2 * s, 2 * s + 1) if answer[r]]
            change = sum(log_p[r, LABELS[r]] - old[r] for r in rows) / len(rows)
            ratio, a = jnp.exp(change), advantage[s]
            total -= jnp.minimum(ratio * a, jnp.clip(ratio, 0.7, 1.3) * a)
        return total / 3

    both_equal(ours, textbook, head, answer)


def test_the_clipped_loss_and_the_means_of_sequences(head):
    """DAPO's bounds and a bonus for entropy; the means by their names on the page.

    Of three sequences of two tokens, of which the second has one that is a prompt's.
    """
    answer, segments = np.roll(ANSWER, 1), np.array([[1, 1, 1, 0, 2, 2]])
    given = np.where(answer, LABELS, -100)
    off = np.array([-0.5, 0.1, 0.5, 0, -0.5, 0.1])  # clipped above, below and not
    old = at(oracles.log_softmax(head[0] @ head[1]), LABELS) + off
    advantage = np.repeat([1.0, -0.5, -2.0], 2)

    def ours(logits):
        rows = jxent.softmax_statistics(logits, given, where=answer, entropy=True)
        ratio = jnp.exp(rows.log_prob - old)
        clipped = jnp.clip(ratio, 0.8, 1.28)
        gain = jnp.minimum(ratio * advantage, clipped * advantage)
        losses = -(gain + 0.01 * rows.entropy).reshape(3, 2)
        labels, where = (x.reshape(3, 2) for x in (given, answer))
        weights = jxent.sequence_weights(where)
        packed = jxent.sequence_weights(answer[None], segment_ids=segments)

        def of_micro_batches(**options):
            of_all = jxent.total_weight(labels, where=where, **options)
            return sum(
                jxent.reduce(
                    losses[part],
                    where=where[part],
                    normalizer=of_all,
                    **{name: x[part] for name, x in options.items()},
                )
                for part in (slice(0, 1), slice(1, 3))
            )

        return total(
            [
                jxent.reduce(losses, where=where),
                of_micro_batches(),
                jxent.reduce(losses, where=where, weights=weights),
                of_micro_batches(weights=weights),
                jxent.reduce(losses, where=where, normalizer=3 * 2),
                jxent.reduce(losses.reshape(1, 6), where=answer[None], weights=packed),
            ]
        )

    def textbook(log_p):
        losses = []
        for r, a in enumerate(advantage):
            ratio = jnp.exp(log_p[r, LABELS[r]] - old[r])
            bounded = jnp.minimum(jnp.maximum(ratio, 0.8), 1.28)
            entropy = -jnp.sum(jnp.exp(log_p[r]) * log_p[r])
            losses.append(-jnp.minimum(ratio * a, bounded * a) - 0.01 * entropy)
        mean = lambda *rows: sum(losses[r] for r in rows) / len(rows)
        tokens = mean(0, 1, 2, 4, 5)  # 3 is the prompt's
        sequences = (mean(0, 1) + mean(2) + mean(4, 5)) / 3
        of_packed = (mean(0, 1, 2) + mean(4, 5)) / 2
        constant = tokens * 5 / (3 * 2)
        return total([tokens, tokens, sequences, sequences, constant, of_packed])

    def total(means):
        return sum(m * np.cos(i) for i, m in enumerate(means))

    both_equal(ours, textbook, head, answer)


def log1mexp(x):
    half = -jnp.log(2.0)
    near_0 = jnp.log(-jnp.expm1(jnp.maximum(x, half)))
    far = jnp.log1p(-jnp.exp(jnp.minimum(x, half)))
    return jnp.where(x > half, near_0, far)


def orpo(log_p, weight=0.1):
    """Of the mean log-probabilities (pairs, 2) of chosen and rejected answers."""
    uncertain = jnp.minimum(log_p, -1e-9)
    chosen, rejected = (uncertain - log1mexp(uncertain)).T
    penalty = jxent.sigmoid_binary_cross_entropy(chosen - rejected, 1.0)
    return jnp.mean(weight * penalty - log_p[:, 0])


def test_orpo(head):
    """By the odds of a likely and an unlikely answer, of three tokens and of two."""

    def ours(logits):
        log_probs = jxent.softmax_log_prob(logits, GIVEN, where=ANSWER).reshape(2, 3)
        log_p = jxent.reduce(log_probs, where=ANSWER.reshape(2, 3), axis=-1)
        both_ways = jnp.stack([log_p, 0.01 * log_p[::-1]])
        return orpo(both_ways)

    def textbook(log_p):
        of_label = at(log_p, LABELS)
        first, second = (of_label[0] + of_label[1]) / 2, of_label[3:].mean()
        total = 0.0
        for chosen, rejected in ((first, second), (0.01 * second, 0.01 * first)):
            c, r = jnp.exp(chosen), jnp.exp(rejected)
            ratio = c / (1 - c) / (r / (1 - r))
            total += -jnp.log(c) - 0.1 * jnp.log(ratio / (1 + ratio))
        return total / 2

    both_equal(ours, textbook, head)


def test_orpo_of_answers_that_are_certain():
    """In float32, where log p is 0: both finite, and gradients of the rest alone."""
    log_p = jnp.array([[0, -1], [-1, 0], [0, 0]], jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(orpo))(log_p)
    odds = np.log(1e9) - (-1 - np.log1p(-np.exp(-1)))  # of the certain, to the other
    penalties = np.logaddexp(0, [-odds, odds, 0])
    np.testing.assert_allclose(value, np.mean(0.1 * penalties + [0, 1, 0]), rtol=1e-6)
    slope = 1 / (1 - np.exp(-1)) / (1 + np.exp(-odds))  # of the penalty in log p = −1
    wanted = np.array([[-1, 0], [-1 - 0.1 * slope, 0], [-1, 0]]) / 3
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-8)


def test_estimators_of_the_kl_divergence(x64, rng):
    """The expectations of k1, k2 and k3 over all tokens, and their gradients."""
    z, z_ref = rng.normal(size=(2, CLASSES))
    log_q, tokens = oracles.log_softmax(z_ref), np.arange(CLASSES)
    p, q = np.exp(oracles.log_softmax(z)), np.exp(log_q)

    def expected(z):
        rows = jnp.broadcast_to(z, (CLASSES, CLASSES))
        d = log_q - jxent.softmax_log_prob(rows, tokens)
        estimators = jnp.stack([-d, d**2 / 2, jnp.expm1(d) - d])
        return estimators @ p, estimators @ p

    gradients, means = jax.jit(jax.jacrev(expected, has_aux=True))(z)
    ratio = np.log(p / q)
    exact = p @ ratio
    close(means, np.array([exact, p @ ratio**2 / 2, exact]))
    close(gradients, np.stack([0 * p, p * (ratio - exact), p - q]))


def importance(log_ratio, low, high, masked, of_sequence):
    if of_sequence:
        log_ratio = log_ratio.sum(axis=-1, keepdims=True)
    ratio = jax.lax.stop_gradient(jnp.exp(log_ratio))
    if masked:
        return jnp.where((ratio >= low) & (ratio <= high), ratio, 0)
    return jnp.minimum(ratio, high)


@pytest.mark.parametrize("of_sequence", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_sampler_is_corrected_for(masked, of_sequence, x64, rng):
    """By a factor that is a constant: of tokens, or of a sequence's product."""
    log_probs, sampler = rng.normal(size=(2, 3, 4))
    answer = np.arange(4) >= np.array([[0], [1], [2]])

    def loss(log_probs):
        log_ratio = jnp.where(answer, log_probs - sampler, 0)
        factor = importance(log_ratio, 0.5, 2.0, masked, of_sequence)
        return -jxent.reduce(factor * log_probs, where=answer)

    ratio = np.where(answer, np.exp(log_probs) / np.exp(sampler), 1)
    if of_sequence:
        ratio = np.repeat(ratio.prod(1, keepdims=True), 4, axis=1)
    factor = np.minimum(ratio, 2)
    if masked:
        factor = np.where((ratio < 0.5) | (ratio > 2), 0, ratio)
    value, gradient = jax.value_and_grad(loss)(log_probs)
    close(value, -np.sum((factor * log_probs)[answer]) / np.sum(answer))
    close(gradient, -factor * answer / np.sum(answer))


def with_tail(log_p):
    mass = jnp.minimum(jnp.exp(log_p).sum(-1, keepdims=True), 1 - 2**-23)
    return jnp.concatenate([log_p, jnp.log1p(-mass)], axis=-1)


def test_reverse_kl_of_the_likeliest_and_a_tail(head, rng):
    """KL(p ‖ q) of k + 1 classes; the whole one; what the truncated one tends to."""
    log_q = jax.nn.log_softmax(2 * rng.normal(size=(ROWS, CLASSES)))
    of_k, ids = jxent.softmax_top_k(log_q, 4)
    rest = np.ones((ROWS, CLASSES), bool)
    np.put_along_axis(rest, np.asarray(ids), False, 1)

    def ours(logits):
        log_p = with_tail(jxent.softmax_log_prob_at(logits, ids, where=ANSWER))
        kl = jxent.kl_divergence_with_log_targets(with_tail(of_k), log_p)
        whole = jxent.softmax_kl_divergence(log_q, logits, where=ANSWER)
        return jxent.reduce(kl + 0.1 * whole, where=ANSWER)

    def textbook(log_p):
        p, q = jnp.exp(log_p), jnp.exp(log_q)
        terms = jnp.where(rest, 0, p * (log_p - log_q)).sum(1)
        p_rest, q_rest = (jnp.where(rest, x, 0).sum(1) for x in (p, q))
        kl = terms + p_rest * jnp.log(p_rest / q_rest)
        return jnp.mean((kl + 0.1 * (p * (log_p - log_q)).sum(1))[ANSWER])

    assert both_equal(ours, textbook, head) > 0
    # Without the tail it is least where p = q/e: below 0, and no divergence.
    p = jnp.exp(of_k)
    slope = jax.grad(lambda p: jnp.sum(p * (jnp.log(p) - of_k)))
    np.testing.assert_allclose(slope(p / np.e), 0, atol=1e-12)


def test_a_tail_of_which_nothing_is_left():
    """Where the likeliest round to a mass of 1 or more, all is finite."""
    log_p = jnp.log(jnp.array([0.6, 0.4], jnp.float32)) + 1e-7
    assert jnp.exp(log_p).sum() >= 1
    value, slope = jax.value_and_grad(lambda x: with_tail(x)[-1])(log_p)
    assert jnp.isfinite(value)
    np.testing.assert_array_equal(slope, 0)


def test_the_loss_of_a_draft_head(head, rng):
    """−log of the rate of acceptance, Σ min(p, q), of two heads.

    In one row the two do not overlap: its loss is finite, and has no gradient.
    """
    (hidden, kernel), disjoint = head, 4
    teacher = rng.normal(size=(ROWS, 5)), rng.normal(size=(5, CLASSES))
    hidden[disjoint] *= 200
    teacher[0][disjoint] *= 200
    log_q = oracles.log_softmax(teacher[0] @ teacher[1])
    p = np.exp(oracles.log_softmax(hidden @ kernel))
    rates = np.minimum(p, np.exp(log_q)).sum(1)
    assert np.array_equal(rates < 1e-6, np.arange(ROWS) == disjoint)

    def ours(draft):
        distance = jxent.softmax_total_variation(
            draft, jxent.LinearLogits(*teacher), where=ANSWER
        )
        rate = jnp.maximum(1 - distance, 1e-6)
        return jxent.reduce(-jnp.log(rate), where=ANSWER)

    def textbook(log_p):
        rate = jnp.minimum(jnp.exp(log_p), np.exp(log_q)).sum(1)
        rate = jnp.where(np.arange(ROWS) == disjoint, 1e-6, rate)
        return -jnp.mean(jnp.log(rate)[ANSWER])

    both_equal(ours, textbook, head)
