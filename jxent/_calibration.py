"""Calibration of a trained classifier: what makes its probabilities honest again.

A few numbers are fitted by L-BFGS: they minimize the mean cross-entropy of held-out
rows.
"""

# Sentences under Args are copies: tools/option_sentences.py has their homes.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from ._arrays import cast, over_rows, select, sum_over_devices, varying_of
from ._checks import ArrayLike, Axis
from ._compute.reading import is_label
from ._measures.batch import ids_of, is_binary, measured, metric_problem, total
from ._measures.rows import log_prob, logits_in_memory
from ._problem.problem import Problem, RowLogits
from ._reduction import divided
from ._solve.call import RowOptions, Scores
from ._targets.given import ClassIds


_MOST_STEPS = 100


def fit_temperature(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Fits the temperature that makes a trained model's probabilities honest.

        T = argmin_T Σ r · (−log p_y) / Σ r,   p = softmax(z / T),   r = where · weights

    One number for all rows, fitted to logits of rows that the model was not trained on.
    It changes no prediction, only how sure the model is: above 1 less sure.

    Args:
      logits: floating, (..., classes, ...), at least two classes. With axis=() any
        shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis. A tuple names several that are the classes together, an id
        counts through them in order; None stands for all. () is for binary labels:
        every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      ignore_index: the class id that marks a dropped row.

    Returns:
      T, a positive scalar: the losses' `temperature`, or with axis=() what logits are
      divided by. float32, or float64 for float64 logits.

    Numerics:
      Fitted through log T, from the mean distance between the label's logit and the
      largest other, so that T grows with the logits' scale and is otherwise the same.
      It ends where the derivative of the loss in log T is below 3e-6 (1e-10 in
      float64), after 100 steps at most. Rows that are all right have no best T: it ends
      at a small one. A row whose loss is NaN makes T NaN. Nothing
      left gives 1. Works inside jit and vmap, and inside `jax.shard_map`, where it fits
      the rows of all devices together. It has no reverse-mode derivative.

    Raises:
      As `softmax_cross_entropy`, and ImportError without Optax.

    Example:
      >>> logits = 3 * jnp.log(jnp.array([[0.75, 0.25]] * 4))  # too sure of class 0
      >>> print(jxent.fit_temperature(logits, jnp.array([0, 0, 0, 1])))
      3.0

    Source:
      Guo et al. (2017), "On Calibration of Modern Neural Networks",
      https://arxiv.org/abs/1706.04599.

    See also:
      `fit_vector_scaling`, `softmax_cross_entropy`; `jxent.metrics.calibration_error`.
    """
    problem = metric_problem(
        "fit_temperature",
        Scores(logits, axis),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights),
        whole_logits=True,
    )
    _require_optax("fit_temperature")
    return measured(_temperature, problem)


def fit_vector_scaling(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    ignore_index: ArrayLike | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Fits a scale and a bias of each class's logit to held-out rows.

        (s, b) = argmin Σ r · (−log p_y) / Σ r,   p = softmax(s z + b)

    With axis=() both are one number, p = σ(s z + b): Platt scaling.

    Args:
      logits: floating, (..., classes, ...), at least two classes. With axis=() any
        shape: one a binary label, above 0 where yes is likelier.
      labels: integer class ids, of the logits' shape without `axis`. With axis=()
        booleans, or 0 and 1.
      axis: the class axis. A tuple names several that are the classes together, an id
        counts through them in order; None stands for all. () is for binary labels:
        every logit is a row.
      where: boolean. Of the rows' shape (axes of size 1 allowed) or a scalar: False
        drops the row. Of the logits' rank: False makes the class impossible there.
      weights: factors of the rows, a scalar or of the rows' rank (axes of size 1
        allowed). A weight of exactly 0 drops the row. Booleans count as 0 and 1.
      ignore_index: the class id that marks a dropped row.

    Returns:
      (scale, bias), each (classes,), with axis=() scalars; float32, or float64 for
      float64 logits. The calibrated logits are scale · logits + bias, the classes last.

    Numerics:
      As in `fit_temperature`, from whose temperature it starts: the loss is never above
      that of it. The problem is convex. Classes that no row has get less and less
      likely, as far as 100 steps go.

    Raises:
      As `fit_temperature`.

    Example:
      >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.8, 0.2]] * 5))
      >>> labels = jnp.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 1])
      >>> scale, bias = jxent.fit_vector_scaling(logits, labels)
      >>> calibrated = scale[None] * logits + bias[None]
      >>> print(jnp.mean(jax.nn.softmax(calibrated), 0))  # the labels' shares
      [0.7 0.3]

    Source:
      Guo et al. (2017), https://arxiv.org/abs/1706.04599; Platt (1999),
      "Probabilistic Outputs for Support Vector Machines", for axis=().

    See also:
      `fit_temperature`.
    """
    problem = metric_problem(
        "fit_vector_scaling",
        Scores(logits, axis),
        ClassIds(labels, ignore_index),
        RowOptions(where, weights),
        whole_logits=True,
    )
    _require_optax("fit_vector_scaling")
    return measured(_vector_scaling, problem)


def _require_optax(function: str) -> None:
    try:
        import optax  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{function}: needs Optax, whose L-BFGS it runs: pip install optax."
        ) from error


def _temperature(batch: Problem) -> Array:
    def loss(log_t: Array) -> Array:
        return _mean_loss(batch, lax.exp(-log_t), lax.full_like(log_t, 0))

    return lax.exp(_minimized(loss, lax.log(_typical_margin(batch))))


def _typical_margin(batch: Problem) -> Array:
    """Σ r |z_y − max_{c ≠ y} z_c| / Σ r, the scale of the logits; 1 if it is 0.

    In log T the fit from there is the same for logits of every scale. Classes that are
    hardly possible, −1e9 in place of a mask, do not change it.
    """
    z, axis = _logits(batch), batch.settings.axis
    if is_binary(batch):
        margin = lax.abs(z)
    else:
        own = is_label(ids_of(batch), axis, z)
        label = lax.reduce_sum(select(own, z), (axis,))
        others = select(lax.bitwise_not(own), z, -jnp.inf)
        margin = lax.abs(label - lax.reduce_max(others, (axis,)))
    known = lax.is_finite(margin)
    margin = _mean(batch, select(known, margin), cast(known, z.dtype))
    some = lax.bitwise_and(
        lax.is_finite(margin), lax.gt(margin, lax.full_like(margin, 0))
    )
    return select(some, margin, 1)


def _vector_scaling(batch: Problem) -> tuple[Array, Array]:
    z, axis = _logits(batch), batch.settings.axis
    shape = () if is_binary(batch) else (z.shape[axis],)
    inverse = 1 / _temperature(batch)

    def loss(parameters: tuple[Array, Array]) -> Array:
        scale, bias = parameters
        return _mean_loss(batch, inverse * scale, bias)

    start = jnp.ones(shape, z.dtype), jnp.zeros(shape, z.dtype)
    scale, bias = _minimized(loss, start)
    return inverse * scale, bias


def _logits(batch: Problem) -> Array:
    return cast(logits_in_memory(batch), batch.dtype)


def _mean_loss(batch: Problem, scale: Array, bias: Array) -> Array:
    """The mean cross-entropy of scale · z + bias, each a number or one a class.

    Inside of `shard_map` the mean is that of all devices: Optax's line search takes no
    value that differs between them.
    """
    z, axis = _logits(batch), batch.settings.axis
    if scale.ndim:
        scale, bias = over_rows(scale, axis, z), over_rows(bias, axis, z)
    # An infinite logit stays, and its product has no derivative, which would be NaN.
    finite = lax.is_finite(z)
    scaled = select(finite, select(finite, z) * scale + bias, z)
    rows = batch.rows._replace(logits=(RowLogits(array=scaled),))
    batch = batch.replace(rows=rows)
    losses = -log_prob(batch)
    return _mean(batch, losses, lax.full_like(losses, 1))


def _mean(batch: Problem, x: Array, counts: Array) -> Array:
    """Σ r x / Σ r counts, of arrays (rows,), over all devices."""
    sums = total(batch, x), total(batch, counts)
    names = tuple(sorted(varying_of(sums)))
    return divided(*sum_over_devices(sums, names))


def _minimized(loss: Callable[[Any], Array], start: Any) -> Any:
    """Where a loss is smallest, by L-BFGS; NaN where it is."""
    import optax

    dtype = jax.tree.leaves(start)[0].dtype
    small = jnp.finfo(dtype).eps ** 0.5 / 100
    # Optax's line search has numbers of the default dtype, float64 with 64 bits on.
    wide = jnp.result_type(float)

    def as_dtype(tree: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda x: cast(x, dtype), tree)

    def wide_loss(at: Any) -> Array:
        return as_dtype(loss(as_dtype(at, dtype)), wide)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(wide_loss)

    def step(carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
        at, state, count = carry
        value, gradient = value_and_grad(at, state=state)
        updates, state = solver.update(
            gradient, state, at, value=value, grad=gradient, value_fn=wide_loss
        )
        return optax.apply_updates(at, updates), state, count + 1

    def goes_on(carry: tuple[Any, Any, Array]) -> Array:
        _, state, count = carry
        slope = optax.tree.norm(optax.tree.get(state, "grad"))
        return (count == 0) | ((count < _MOST_STEPS) & (slope > small))

    # Optax mixes dtypes, which a caller's strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        start = as_dtype(start, wide)
        first = start, solver.init(start), jnp.zeros((), jnp.int32)
        at, *_ = lax.while_loop(goes_on, step, first)
    at = as_dtype(at, dtype)
    value = loss(at)
    known = lax.eq(value, value)
    return jax.tree.map(lambda x: select(known, x, jnp.nan), at)
