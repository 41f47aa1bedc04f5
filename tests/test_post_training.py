"""The recipes of the site's page on post-training, on a test's inputs: by formula.

What is compared is the page's own code, on a streamed head in float64.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jxent
from tests import oracles, pages
from tests.comparing import close


pytestmark = pytest.mark.usefixtures("as_users_have_it")
# The page's 16 sequences, of two tokens; its recipes take the 20 likeliest classes.
ROWS, FEATURES, CLASSES = (16, 2), 3, 24
ANSWER = np.arange(32).reshape(ROWS) % 5 != 2  # the rest is of prompts
LABELS = np.arange(32).reshape(ROWS) * 7 % CLASSES
GIVEN = {"tokens": np.where(ANSWER, LABELS, -100), "answer": ANSWER}
COUNTS = ANSWER.sum(1)
recipe = functools.partial(pages.recipe, "post-training.md", **GIVEN)


@pytest.fixture
def head(x64, rng):
    return rng.normal(size=(*ROWS, FEATURES)), 2 * rng.normal(size=(FEATURES, CLASSES))


def of_labels(x):
    return jnp.take_along_axis(x, LABELS[..., None], -1)[..., 0]


def mean(losses):
    """Of the tokens of answers."""
    return jnp.mean(losses[ANSWER])


def equal(losses, formula, head):
    """Values and gradients in hidden and kernel: of streamed heads, and by formula.

    The hidden states of prompts are NaN in the heads.
    """
    layout = {"implementation": "streamed", "block_sizes": (None, 8)}
    heads = functools.partial(jxent.LinearLogits, **layout)
    each = lambda f, *x: jax.value_and_grad(f, (0, 1))(*x)

    @jax.jit
    def run(hidden, kernel):
        unknown = jnp.where(ANSWER[..., None], hidden, jnp.nan)
        got = [each(lambda *x, f=f: f(heads(*x)), unknown, kernel) for f in losses]
        by_formula = lambda h, w: formula(jax.nn.log_softmax(h @ w))
        return got, each(by_formula, hidden, kernel)

    got, wanted = jax.device_get(run(*head))
    for value_and_gradients in got:
        close(value_and_gradients, wanted, 1e-10)
    return wanted[0]


def test_replay_of_what_the_sampler_kept(head, rng):
    """Of ids that are padded, with the sampled one among them or not."""
    kept = np.argsort(rng.random((*ROWS, CLASSES)))[..., :4]
    kept[rng.random(kept.shape) < 0.3] = -1
    kept[1, 1], kept[~ANSWER] = -1, -1  # greedy: certain
    kept[0, 1, 0] = LABELS[0, 1]
    factors = np.cos(np.arange(32)).reshape(ROWS)

    def loss(logits):
        given = {"logits": logits, "sampled": GIVEN["tokens"], "kept": kept}
        return jnp.sum(recipe("among_kept", **given)["among_kept"] * factors)

    among = np.any(kept[..., None] == np.arange(CLASSES), axis=-2)
    among |= LABELS[..., None] == np.arange(CLASSES)

    def formula(log_p):
        z = log_p / 0.5
        losses = of_labels(z) - jax.nn.logsumexp(z, -1, where=among)
        return jnp.sum(jnp.where(ANSWER, losses * factors, 0))

    equal([loss], formula, head)


def test_dft_is_the_generalized_loss_of_q_1(head):
    """The gradient of −sg(p) log p, that of 1 − p, without stop_gradient."""
    of_page = recipe("dft bounded")

    def formula(log_p):
        log_p = of_labels(log_p)
        return -mean(jax.lax.stop_gradient(jnp.exp(log_p)) * log_p)

    def of_its_value(logits):
        """The gradient of the bounded loss, whose value is another."""
        dft, bounded = of_page["dft"](logits), of_page["bounded"](logits)
        return bounded + jax.lax.stop_gradient(dft - bounded)

    equal([of_page["dft"], of_its_value], formula, head)


def test_eaft_is_gated_by_the_entropy_of_the_likeliest(head):
    def formula(log_p):
        q = jax.lax.stop_gradient(jnp.sort(jnp.exp(log_p))[..., -20:])
        q = q / q.sum(-1, keepdims=True)
        gate = -jnp.sum(q * jnp.log(q), axis=-1) / np.log(20)
        return mean(-gate * of_labels(log_p))

    # The page divides by a logarithm in float32.
    of_page = recipe("eaft", jnp=types.SimpleNamespace(**vars(jnp) | {"log": np.log}))
    equal([of_page["eaft"]], formula, head)


def clipped_gain(log_ratio, advantage, low, high):
    ratio = jnp.exp(log_ratio)
    bounded = jnp.minimum(jnp.maximum(ratio, low), high)
    return jnp.minimum(ratio * advantage, bounded * advantage)


@pytest.mark.parametrize("of_sequence", [False, True], ids=["PPO", "GSPO"])
def test_the_clipped_loss_of_a_policy(of_sequence, head):
    """With a bonus for entropy; or one ratio a sequence, and the mean of sequences.

    Ratios are clipped above, below and not, of advantages of both signs.
    """
    off = np.array([-0.5, 0.1, 0.5, 1e-4])[np.arange(32).reshape(ROWS) // 2 % 4]
    log_p = oracles.log_softmax(head[0] @ head[1])
    advantage = np.where(np.arange(16) < 8, 1.0, -0.5)[:, None]
    inputs = {"old": np.asarray(of_labels(log_p)) + off, "advantage": advantage}
    name = "gspo_loss" if of_sequence else "policy_loss"

    def formula(log_p):
        change = jnp.where(ANSWER, of_labels(log_p) - inputs["old"], 0)
        if of_sequence:
            change = change.sum(1) / COUNTS
            gain = clipped_gain(change, advantage[:, 0], 1 - 3e-4, 1 + 4e-4)
            return -jnp.mean(gain)
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
        return -mean(clipped_gain(change, advantage, 0.8, 1.2) + 0.01 * entropy)

    equal([recipe(name, **inputs)[name]], formula, head)


def test_the_means_of_sequences(x64, rng):
    """By their names on the page; of a whole batch, and of micro-batches.

    Of three sequences of two tokens, of which the second has one that is a prompt's.
    """
    where, segments = np.array([[1, 1], [1, 0], [1, 1]]) > 0, [[1, 1, 1, 0, 2, 2]]
    labels, x = np.where(where, 3, -100), rng.normal(size=(3, 2))

    def means(losses):
        weights = jxent.sequence_weights(where)
        flat = where.reshape(1, 6)
        packed = jxent.sequence_weights(flat, segment_ids=np.array(segments))

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

        return jnp.stack(
            [
                jxent.reduce(losses, where=where),
                of_micro_batches(),
                jxent.reduce(losses, where=where, weights=weights),
                of_micro_batches(weights=weights),
                jxent.reduce(losses, where=where, normalizer=3 * 2),
                jxent.reduce(losses.reshape(1, 6), where=flat, weights=packed),
            ]
        )

    tokens = where / 5
    sequences = where / where.sum(1, keepdims=True) / 3
    of_packed = np.array([[1 / 3, 1 / 3], [1 / 3, 0], [1 / 2, 1 / 2]]) / 2
    wanted = np.stack([tokens, tokens, sequences, sequences, where / 6, of_packed])
    of_both = jax.jacrev(lambda x: (means(x),) * 2, has_aux=True)
    slopes, values = jax.device_get(jax.jit(of_both)(x))
    close(slopes, wanted)
    close(values, (wanted * x).sum((1, 2)))


def test_orpo(head):
    """By the odds of chosen and rejected answers."""
    of_page = recipe("log1mexp log_odds orpo_loss")

    def formula(log_p):
        log_p = jnp.where(ANSWER, of_labels(log_p), 0).sum(1) / COUNTS
        chosen, rejected = jnp.exp(log_p.reshape(8, 2)).T
        ratio = chosen / (1 - chosen) / (rejected / (1 - rejected))
        return jnp.mean(-jnp.log(chosen) - 0.1 * jnp.log(ratio / (1 + ratio)))

    equal([of_page["orpo_loss"]], formula, head)


def of_log_probs(name):
    """jxent, but that a function of logits takes log-probabilities and returns them."""
    unchanged = {name: lambda log_p, *_, **__: log_p}
    return types.SimpleNamespace(**vars(jxent) | unchanged)


def test_orpo_of_answers_that_are_certain_or_unlikely():
    """In float32, where log p is 0: both finite, and gradients of the rest alone."""
    library, answer = of_log_probs("softmax_log_prob"), np.ones((16, 1), bool)
    of_page = recipe("log1mexp log_odds orpo_loss", jxent=library, answer=answer)
    pairs = [[0, -1], [-1, 0], [0, 0], [-1e-3, -20], [-20, -1e-3], [-1, -2]]
    log_p = np.array([*pairs, *pairs[:2]], np.float32)
    both = jax.jit(jax.value_and_grad(of_page["orpo_loss"]))
    value, gradient = jax.device_get(both(log_p.reshape(16, 1)))
    known = np.minimum(log_p, np.float64(-1e-9))  # a billion to one
    odds = known - np.log(-np.expm1(known))
    ratio = odds[:, 0] - odds[:, 1]
    losses = 0.1 * np.logaddexp(0, -ratio) - log_p[:, 0]
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-6)
    slope = 0.1 / (1 + np.exp(ratio))[:, None] * np.array([-1, 1])
    slope = slope / -np.expm1(known) * (log_p < 0)  # of the penalty
    wanted = (slope - np.array([1, 0])) / 8
    np.testing.assert_allclose(gradient.reshape(8, 2), wanted, rtol=1e-6, atol=1e-8)


def test_estimators_of_the_kl_divergence(x64, rng):
    """The expectations of k1, k2 and k3 over all tokens, and their gradients."""
    z, z_ref = rng.normal(size=(2, CLASSES))
    p, q = np.exp(oracles.log_softmax(z)), np.exp(oracles.log_softmax(z_ref))
    expected = recipe("expected", p=p, q=q)["expected"]
    of_both = jax.jacrev(lambda z: (expected(z),) * 2, has_aux=True)
    gradients, means = jax.device_get(jax.jit(of_both)(z))
    ratio = np.log(p / q)
    exact = p @ ratio
    close(means, np.array([exact, p @ ratio**2 / 2, exact]))
    close(gradients, np.stack([0 * p, p * (ratio - exact), p - q]))


@pytest.mark.parametrize("of_sequence", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_sampler_is_corrected_for(masked, of_sequence, x64, rng):
    """By a factor that is a constant: of tokens, or of a sequence's product."""
    log_probs, sampler = rng.normal(size=(2, *ROWS))
    importance = recipe("importance")["importance"]

    def loss(log_probs):
        options = {"masked": masked, "of_sequence": of_sequence}
        factor = importance(log_probs, sampler, **options)
        return -jxent.reduce(factor * log_probs, where=ANSWER)

    ratio = np.where(ANSWER, np.exp(log_probs) / np.exp(sampler), 1)
    if of_sequence:
        ratio = np.repeat(ratio.prod(1, keepdims=True), 2, axis=1)
    factor = np.minimum(ratio, 2)
    if masked:
        factor = np.where((ratio < 0.5) | (ratio > 2), 0, ratio)
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(loss))(log_probs))
    close(value, -np.mean((factor * log_probs)[ANSWER]))
    close(gradient, -factor * ANSWER / np.sum(ANSWER))


def test_reverse_kl_of_the_likeliest_and_a_tail(head, rng):
    """KL(p ‖ q) of k + 1 classes; the whole one; what the truncated one tends to."""
    log_q = oracles.log_softmax(2 * rng.normal(size=(*ROWS, CLASSES)))
    ids = np.argsort(-log_q)[..., :4]
    of_k = np.take_along_axis(log_q, ids, -1)
    rest = np.ones(log_q.shape, bool)
    np.put_along_axis(rest, ids, False, -1)
    names = "reverse_kl with_tail top_k_reverse_kl"
    inputs = {"teacher": log_q, "log_q": of_k, "ids": ids}
    of_page = recipe(names, **inputs)

    def loss(logits):
        return of_page["top_k_reverse_kl"](logits) + 0.1 * of_page["reverse_kl"](logits)

    def formula(log_p):
        p, q = jnp.exp(log_p), jnp.exp(log_q)
        terms = jnp.where(rest, 0, p * (log_p - log_q)).sum(-1)
        p_rest, q_rest = (jnp.where(rest, x, 0).sum(-1) for x in (p, q))
        kl = terms + p_rest * jnp.log(p_rest / q_rest)
        return mean(kl + 0.1 * (p * (log_p - log_q)).sum(-1))

    assert equal([loss], formula, head) > 0
    # Without the tail it is least where p = q/e: below 0, and no divergence.
    of_page = recipe(names, jxent=of_log_probs("softmax_log_prob_at"), **inputs)
    truncated = functools.partial(of_page["top_k_reverse_kl"], tail=False)
    value, slope = jax.device_get(jax.jit(jax.value_and_grad(truncated))(of_k - 1))
    assert value < 0
    np.testing.assert_allclose(slope, 0, atol=1e-12)


def test_a_tail_of_which_nothing_is_left():
    """Where the likeliest round to a mass of 1 or more, all is finite."""
    log_p = np.log(np.array([0.6, 0.4], np.float32)) + np.float32(1e-7)
    assert np.exp(log_p).sum() >= 1
    tail = lambda x: recipe("with_tail")["with_tail"](x)[-1]
    value, slope = jax.device_get(jax.jit(jax.value_and_grad(tail))(log_p))
    assert np.isfinite(value)
    np.testing.assert_array_equal(slope, 0)


def test_the_loss_of_a_draft_head(head, rng):
    """−log of the rate of acceptance, Σ min(p, q), of two heads.

    In one row the two do not overlap: its loss is finite, and has no gradient.
    """
    (hidden, kernel), disjoint = head, (4, 1)
    teacher = rng.normal(size=(*ROWS, 5)), rng.normal(size=(5, CLASSES))
    hidden[disjoint] *= 200
    teacher[0][disjoint] *= 200
    log_q = oracles.log_softmax(teacher[0] @ teacher[1])
    p = np.exp(oracles.log_softmax(hidden @ kernel))
    apart = np.minimum(p, np.exp(log_q)).sum(-1) < 1e-6
    assert np.argwhere(apart).tolist() == [[*disjoint]]

    def formula(log_p):
        rate = jnp.minimum(jnp.exp(log_p), np.exp(log_q)).sum(-1)
        return -mean(jnp.log(jnp.where(apart, 1e-6, rate)))

    of_page = recipe("accepted draft_loss", teacher=jxent.LinearLogits(*teacher))
    equal([of_page["draft_loss"]], formula, head)
