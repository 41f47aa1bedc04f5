"""What every loss should give: float64 NumPy, straight from the formulas."""

import operator

import numpy as np


def times(a, b):
    """a · b, where 0 times anything is 0."""
    return np.where(np.asarray(a) == 0, 0.0, a * b)


def log_softmax(z):
    top = z.max(-1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(-1, keepdims=True))


def log_sum_exp(z):
    top = z.max(-1)
    return top + np.log(np.exp(z - top[..., None]).sum(-1))


def reduced(losses, r, reduction, normalizer):
    """mean = Σ r · loss / Σ r, with r already a factor of the losses."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    denominator = r.sum() if normalizer is None else normalizer
    return losses.sum() / denominator if denominator != 0 else np.float64(0)


# Softmax ------------------------------------------------------------------------------


def prepared(
    logits, axis=-1, where=None, class_mask=None, logit_soft_cap=None, temperature=None
):
    """Logits with the classes last, −inf where masked; what is allowed, and kept."""
    z = np.asarray(logits, np.float64)
    rows = np.moveaxis(z, axis, -1).shape[:-1]
    allowed, keep = np.ones(z.shape, bool), np.ones(rows, bool)
    if where is not None and np.ndim(where) == z.ndim:
        allowed = allowed & np.asarray(where, bool)
    elif where is not None:
        keep = keep & np.asarray(where, bool)
    z, allowed = np.moveaxis(z, axis, -1), np.moveaxis(allowed, axis, -1)
    if class_mask is not None:
        allowed = allowed & np.asarray(class_mask, bool)
    if logit_soft_cap is not None:
        z = logit_soft_cap * np.tanh(z / logit_soft_cap)
    if temperature is not None:
        z = z / np.broadcast_to(temperature, rows)[..., None]
    return np.where(allowed, z, -np.inf), allowed, keep & allowed.any(-1)


@np.errstate(all="ignore")
def softmax_loss(
    f,
    logits,
    labels,
    axis=-1,
    where=None,
    *,
    weights=None,
    class_weights=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    reduction="none",
    normalizer=None,
    of_row=None,
    log_probs=log_softmax,
    **prepare,
):
    """Σ_c w_c q_c f(log p_c) + Σ_c w_c t_c (z_loss · lse² + of_row(log p, q)).

    t is one-hot for an id, and q = (1 − ε) t + ε/K over the K allowed classes.
    """
    z, allowed, keep = prepared(logits, axis, where, **prepare)
    rows, classes = keep.shape, z.shape[-1]
    y = np.asarray(labels)
    ids = y.ndim == len(rows)
    if not ids:
        y = np.moveaxis(y.astype(np.float64), axis, -1)
    w = np.ones(classes) if class_weights is None else np.float64(class_weights)
    v = np.broadcast_to(1.0 if weights is None else np.float64(weights), rows)
    losses, r = np.zeros(rows), np.zeros(rows)
    for i in np.ndindex(rows):
        if not keep[i] or v[i] == 0 or (ids and y[i] == ignore_index):
            continue
        if ids and not (0 <= y[i] < classes and allowed[i][int(y[i])]):
            losses[i] = r[i] = np.nan
            continue
        t = (np.arange(classes) == y[i]) * 1.0 if ids else np.where(allowed[i], y[i], 0)
        even = allowed[i] / allowed[i].sum()
        q, log_p = (1 - label_smoothing) * t + label_smoothing * even, log_probs(z[i])
        r[i] = v[i] * (w * t).sum()
        losses[i] = v[i] * times(w * q, f(log_p)).sum()
        losses[i] += r[i] * times(z_loss, log_sum_exp(z[i]) ** 2)
        if of_row is not None:
            losses[i] += r[i] * of_row(log_p, q)
    return reduced(losses, r, reduction, normalizer)


def softmax_cross_entropy(logits, labels, axis=-1, where=None, **options):
    return softmax_loss(lambda log_p: -log_p, logits, labels, axis, where, **options)


def softmax_focal_loss(logits, labels, axis=-1, where=None, *, gamma=2.0, **options):
    def f(log_p):
        return times((-np.expm1(log_p)) ** gamma, -log_p)

    return softmax_loss(f, logits, labels, axis, where, **options)


def poly_loss_cross_entropy(
    logits, labels, axis=-1, where=None, *, epsilon=2.0, **options
):
    def f(log_p):
        return -log_p - epsilon * np.expm1(log_p)

    return softmax_loss(f, logits, labels, axis, where, **options)


def generalized_cross_entropy(logits, labels, axis=-1, where=None, *, q=0.7, **options):
    def f(log_p):
        return (1 - np.exp(times(q, log_p))) / q if q else -log_p

    return softmax_loss(f, logits, labels, axis, where, **options)


def taylor_cross_entropy(logits, labels, axis=-1, where=None, *, order=2, **options):
    def f(log_p):
        return sum((1 - np.exp(log_p)) ** i / i for i in range(1, order + 1))

    return softmax_loss(f, logits, labels, axis, where, **options)


def symmetric_cross_entropy(
    logits,
    labels,
    axis=-1,
    where=None,
    *,
    alpha=0.1,
    beta=1.0,
    log_zero=-4.0,
    **options,
):
    def f(log_p):
        return times(alpha, -log_p)

    def reverse(log_p, q):
        return -beta * (np.exp(log_p) * np.maximum(np.log(q), log_zero)).sum()

    return softmax_loss(f, logits, labels, axis, where, of_row=reverse, **options)


@np.errstate(all="ignore")
def divergence_loss(
    f,
    logits,
    target_logits,
    axis=-1,
    where=None,
    *,
    weights=None,
    logit_soft_cap=None,
    target_logit_soft_cap=None,
    reduction="none",
    normalizer=None,
    **prepare,
):
    """f(log p, log q), row by row: of the possible classes, and q the target's."""
    z, allowed, keep = prepared(
        logits, axis, where, logit_soft_cap=logit_soft_cap, **prepare
    )
    t, *_ = prepared(
        target_logits, axis, where, logit_soft_cap=target_logit_soft_cap, **prepare
    )
    rows = keep.shape
    v = np.broadcast_to(1.0 if weights is None else np.float64(weights), rows)
    losses = np.zeros(rows)
    for i in np.ndindex(rows):
        if keep[i] and v[i] != 0:
            log_p, log_q = (log_softmax(x[i][allowed[i]]) for x in (z, t))
            losses[i] = v[i] * f(log_p, log_q)
    return reduced(losses, np.where(keep, v, 0), reduction, normalizer)


def _kl(log_q, log_p):
    return times(np.exp(log_q), log_q - log_p).sum()


def softmax_kl_divergence(*arguments, **options):
    return divergence_loss(lambda p, q: _kl(q, p), *arguments, **options)


def softmax_jensen_shannon_divergence(*arguments, beta=0.5, **options):
    def f(log_p, log_q):
        log_m = np.log(beta * np.exp(log_q) + (1 - beta) * np.exp(log_p))
        return beta * _kl(log_q, log_m) + (1 - beta) * _kl(log_p, log_m)

    return divergence_loss(f, *arguments, **options)


def softmax_total_variation(*arguments, **options):
    def f(log_p, log_q):
        return np.abs(np.exp(log_q) - np.exp(log_p)).sum() / 2

    return divergence_loss(f, *arguments, **options)


def softmax_log_prob(logits, labels, axis=-1, where=None, **options):
    return 0.0 - softmax_cross_entropy(logits, labels, axis, where, **options)


@np.errstate(all="ignore")
def softmax_entropy(logits, axis=-1, where=None, **prepare):
    z, _, keep = prepared(logits, axis, where, **prepare)
    p = np.exp(log_softmax(z))
    return np.where(keep, -times(p, log_softmax(z)).sum(-1), 0)


@np.errstate(all="ignore")
def softmax_cross_entropy_gradient(logits, labels):
    """p − onehot(y), per row, with p_y − 1 formed without cancellation."""
    log_p = log_softmax(np.asarray(logits, np.float64))
    picked = np.arange(log_p.shape[-1]) == np.asarray(labels)[..., None]
    return np.where(picked, np.expm1(log_p), np.exp(log_p))


# Sigmoid ------------------------------------------------------------------------------


@np.errstate(all="ignore")
def binary_loss(
    f,
    x,
    labels,
    *,
    class_weights=None,
    label_smoothing=0.0,
    where=None,
    weights=None,
    reduction="none",
    normalizer=None,
):
    """f(x, y), element by element, with y moved towards ½."""
    x = np.asarray(x, np.float64)
    y = np.asarray(labels).astype(np.float64)
    y = (1 - label_smoothing) * y + label_smoothing / 2
    r = np.ones(x.shape)
    for factor in (class_weights, weights):
        if factor is not None:
            r = r * np.asarray(factor, np.float64)
    if where is not None:
        r = r * np.asarray(where, bool)
    return reduced(times(r, f(x, y)), r, reduction, normalizer)


def log_sigmoid(z):
    return -np.logaddexp(0, -z)


def sigmoid_binary_cross_entropy(logits, labels, *, pos_weight=1.0, **options):
    def f(z, y):
        positive = y * np.asarray(pos_weight)
        return times(positive, -log_sigmoid(z)) + times(1 - y, -log_sigmoid(-z))

    return binary_loss(f, logits, labels, **options)


def sigmoid_focal_loss(logits, labels, *, alpha=None, gamma=2.0, **options):
    def f(z, y):
        miss = y * np.exp(log_sigmoid(-z)) + (1 - y) * np.exp(log_sigmoid(z))
        loss = times(y, -log_sigmoid(z)) + times(1 - y, -log_sigmoid(-z))
        balance = 1.0 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
        return balance * miss**gamma * loss

    return binary_loss(f, logits, labels, **options)


def asymmetric_loss(
    logits,
    labels,
    *,
    gamma_pos=0.0,
    gamma_neg=4.0,
    clip=0.05,
    pos_weight=1.0,
    **options,
):
    def f(z, y):
        log_p, log_q = log_sigmoid(z), log_sigmoid(-z)
        p_m = np.maximum(np.exp(log_p) - clip, 0)
        log_rest = np.log(np.exp(log_q) + clip)
        log_rest = np.where(p_m < 0.5, np.log1p(-p_m), log_rest) if clip else log_q
        yes = times(np.exp(log_q) ** gamma_pos, -log_p)
        no = times(p_m**gamma_neg, -log_rest)
        return times(y * np.asarray(pos_weight), yes) + times(1 - y, no)

    return binary_loss(f, logits, labels, **options)


def binary_cross_entropy(probs, labels, *, pos_weight=1.0, **options):
    def f(p, y):
        positive = y * np.asarray(pos_weight)
        return times(positive, -np.log(p)) + times(1 - y, -np.log1p(-p))

    return binary_loss(f, probs, labels, **options)


# Several labels a row -----------------------------------------------------------------


@np.errstate(all="ignore")
def multi_label_loss(
    f,
    logits,
    labels,
    axis=-1,
    where=None,
    *,
    weights=None,
    label_smoothing=0.0,
    reduction="none",
    normalizer=None,
    **prepare,
):
    """f(z, y, allowed) of the allowed classes, row by row, with y moved towards ½."""
    z, allowed, keep = prepared(logits, axis, where, **prepare)
    y = np.moveaxis(np.asarray(labels).astype(np.float64), axis, -1)
    y = (1 - label_smoothing) * y + label_smoothing / 2
    v = np.broadcast_to(1.0 if weights is None else np.float64(weights), keep.shape)
    losses, r = np.zeros(keep.shape), np.where(keep, v, 0.0)
    for i in np.argwhere(r != 0):
        i, some = tuple(i), allowed[tuple(i)]
        losses[i] = v[i] * f(z[i][some], y[i][some], some)
    return reduced(losses, r, reduction, normalizer)


def sums_over_classes(f):
    """The loss whose rows are Σ_c w_c f(z_c, y_c), f a binary loss of this module."""

    def loss(logits, labels, axis=-1, *, class_weights=1.0, pos_weight=None, **options):
        own = {k: options.pop(k) for k in [*options] if k in PARAMETERS}
        w = np.broadcast_to(class_weights, np.shape(logits)[axis])

        def of_row(z, y, some):
            weigh = {} if pos_weight is None else {"pos_weight": pos_weight[some]}
            return times(w[some], f(z, y, **weigh, **own)).sum()

        return multi_label_loss(of_row, logits, labels, axis, **options)

    return loss


PARAMETERS = ("alpha", "gamma", "gamma_pos", "gamma_neg", "clip")


def zlpr_loss(logits, labels, axis=-1, where=None, **options):
    def f(z, y, some):
        low = np.where(y == 1, -np.inf, z + np.log1p(-y))
        high = np.where(y == 0, -np.inf, np.log(y) - z)
        zero = np.zeros(1)
        return sum(log_sum_exp(np.concatenate((zero, side))) for side in (low, high))

    return multi_label_loss(f, logits, labels, axis, where, **options)


# Probabilities ------------------------------------------------------------------------


@np.errstate(all="ignore")
def categorical_cross_entropy(probs, *arguments, **options):
    """−Σ_c q_c log p_c, with q as in `softmax_loss`; nothing normalizes p."""
    log_p = np.log(np.asarray(probs, np.float64))
    as_it_is = lambda log_p: log_p
    return softmax_loss(operator.neg, log_p, *arguments, log_probs=as_it_is, **options)


@np.errstate(all="ignore")
def sum_of_terms(terms, axis, where):
    """Σ_c of the terms, where `where` (rows or classes) allows."""
    terms = np.moveaxis(terms, axis, -1)
    if where is None:
        return terms.sum(-1)
    where = np.asarray(where, bool)
    if where.ndim == terms.ndim:
        return np.where(np.moveaxis(where, axis, -1), terms, 0).sum(-1)
    return np.where(where, terms.sum(-1), 0)


@np.errstate(all="ignore")
def entropy(probs, axis=-1, where=None):
    p = np.asarray(probs, np.float64)
    return sum_of_terms(times(p, -np.log(p)), axis, where)


@np.errstate(all="ignore")
def kl_divergence(log_predictions, targets, axis=-1, where=None):
    log_q, t = np.asarray(log_predictions, np.float64), np.asarray(targets, np.float64)
    return sum_of_terms(times(t, np.log(t) - log_q), axis, where)


@np.errstate(all="ignore")
def kl_divergence_with_log_targets(log_predictions, log_targets, axis=-1, where=None):
    log_q, log_t = np.float64(log_predictions), np.float64(log_targets)
    return sum_of_terms(times(np.exp(log_t), log_t - log_q), axis, where)


@np.errstate(all="ignore")
def generalized_kl_divergence(log_predictions, targets, axis=-1, where=None):
    log_q, t = np.asarray(log_predictions, np.float64), np.asarray(targets, np.float64)
    terms = times(t, np.log(t) - log_q) + np.exp(log_q) - t
    return sum_of_terms(terms, axis, where)


# Derivatives --------------------------------------------------------------------------


def central_differences(f, x, step=2e-5):
    """The derivative of f, an array or a number, in every element of x.

    Its shape is that of f's value followed by that of x. The four-point rule: an error
    of step⁴.
    """
    x = np.array(x, np.float64)
    slopes = []
    for i in np.ndindex(x.shape):

        def at(offset, i=i):
            moved = x.copy()
            moved[i] += offset
            return np.asarray(f(moved), np.float64)

        near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
        slopes.append((8 * near - far) / (12 * step))
    return np.stack(slopes, -1).reshape(slopes[0].shape + x.shape)
