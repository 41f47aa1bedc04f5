"""Calls of PyTorch's and Keras's losses, and what the originals answer.

    pip install -e ".[parity]"
    python -m tests.facades

writes tests/golden_torch.json and tests/golden_keras.json: for every call below the
value and the gradients in its floating arguments, in float64, from the installed
libraries. The tests compare with these files where the libraries are missing.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.comparing import same


HERE = Path(__file__).parent


def installed(name: str) -> Any:
    """A library or one of its modules, with the warnings of its own import."""
    os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            name,
            reason=f'needs {name}: pip install -e ".[parity]"',
            exc_type=ImportError,
        )


REDUCTIONS = ("none", "mean", "sum")


class Call(NamedTuple):
    """A function or class by name, its arrays in order, and its options."""

    name: str
    arrays: tuple[np.ndarray, ...]
    options: dict[str, Any] = {}  # noqa: RUF012
    of_class: bool = False  # options make the loss, arrays call it

    def __str__(self) -> str:
        options = ", ".join(f"{k}={_short(v)}" for k, v in self.options.items())
        arrays = ", ".join(_short(a) for a in self.arrays)
        return (
            f"{self.name}({options})({arrays})"
            if self.of_class
            else (f"{self.name}({arrays}{', ' if options else ''}{options})")
        )

    def __call__(self, module: Any, arrays: Any, convert: Callable[..., Any]) -> Any:
        options = {
            k: convert(v) if isinstance(v, np.ndarray) else v
            for k, v in self.options.items()
        }
        function = getattr(module, self.name)
        return (
            function(**options)(*arrays)
            if self.of_class
            else function(*arrays, **options)
        )

    def moved(self) -> list[int]:
        """The arguments that have gradients: the floating arrays."""
        moved = [i for i, x in enumerate(self.arrays) if x.dtype.kind == "f"]
        # of which PyTorch has only the first for this loss
        return (
            moved[:1] if self.name in ("soft_margin_loss", "SoftMarginLoss") else moved
        )


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.kind}{list(value.shape)}"
    return repr(value)


# Inputs, by a formula: no generator changes them --------------------------------------


def wave(*shape: int, scale: float = 2.0, seed: float = 0.0) -> np.ndarray:
    """Numbers between ±scale."""
    n = np.arange(np.prod(shape, dtype=int))
    return (scale * np.sin(1.7 * n + seed + 0.3 * n * n)).reshape(shape)


def shares(*shape: int, seed: float = 0.0) -> np.ndarray:
    """Numbers in (0, 1)."""
    return 0.5 + 0.49 * wave(*shape, scale=1.0, seed=seed)


def distributions(*shape: int, axis: int, seed: float = 0.0) -> np.ndarray:
    q = shares(*shape, seed=seed)
    return q / q.sum(axis, keepdims=True)


def indices(classes: int, *shape: int) -> np.ndarray:
    n = np.arange(np.prod(shape, dtype=int))
    return ((n * n + n // 2) % classes).astype(np.int32).reshape(shape)


# PyTorch ------------------------------------------------------------------------------


def _torch_classes() -> Iterator[Call]:
    """cross_entropy and nll_loss: shapes, then reductions by options."""
    weight = np.array([0.5, 2.0, 1.25])
    options = {"weight": weight, "label_smoothing": 0.15}
    for shape in ((3,), (4, 3), (2, 3, 2), (2, 3, 2, 2)):
        axis = 0 if len(shape) == 1 else 1
        x, y = wave(*shape), indices(3, *np.delete(shape, axis))
        yield Call("cross_entropy", (x, y), options)
        yield Call(
            "cross_entropy", (x, distributions(*shape, axis=axis, seed=1.0)), options
        )
        yield Call("nll_loss", (x, y), {"weight": weight})
    x, y, q = wave(4, 3), indices(3, 4), 3 * distributions(4, 3, axis=1, seed=1.0)
    yield Call("cross_entropy", (x, y))
    yield Call("cross_entropy", (x, y), {"label_smoothing": 0.15})
    yield Call("nll_loss", (x, y))
    for reduction in REDUCTIONS:
        options = {"reduction": reduction, "weight": weight, "ignore_index": 1}
        yield Call("nll_loss", (x, y), options)
        yield Call("cross_entropy", (x, y), options)
        yield Call("cross_entropy", (x, y), {**options, "label_smoothing": 0.15})
        yield Call("cross_entropy", (x, q), {"reduction": reduction})
    yield Call("CrossEntropyLoss", (x, y), options, True)
    yield Call("NLLLoss", (x, y), options, True)
    # Nothing to average, an index that never occurs, and logits far apart.
    ignored, none = np.full(4, -100, np.int32), np.zeros((0, 3))
    for name in ("cross_entropy", "nll_loss"):
        yield Call(name, (x, ignored))
        yield Call(name, (none, indices(3, 0)))
        yield Call(name, (x, y), {"ignore_index": 255})
    yield Call("cross_entropy", (none, none))
    yield Call("cross_entropy", (none, none), {"reduction": "none"})
    far = np.array([[1e4, -1e4, 0.0], [0.0, -np.inf, 1.0]])
    for y in ([1, 2], [0, 1]):
        y = np.array(y, np.int32)
        yield Call("cross_entropy", (far, y), {"reduction": "none"})


def _torch_binary() -> Iterator[Call]:
    weight, pos_weight = np.array([0.5, 2.0, 1.25]), np.array([3.0, 1.0, 0.5])
    x, p, y = wave(2, 3), shares(2, 3), shares(2, 3, seed=1.0)
    for w in (None, np.array(2.0), wave(2, 1, seed=2.0)):
        options = {"weight": w}
        yield Call("binary_cross_entropy", (p, y), options)
        options = {"weight": w, "pos_weight": pos_weight}
        yield Call("binary_cross_entropy_with_logits", (x, y), options)
    none = np.zeros((0, 3))
    for reduction in REDUCTIONS:
        options = {"reduction": reduction, "weight": weight}
        yield Call("binary_cross_entropy", (p, y), options)
        yield Call("binary_cross_entropy_with_logits", (x, y), options)
        yield Call("multilabel_soft_margin_loss", (x, y), options)
        options = {"reduction": reduction}
        yield Call("soft_margin_loss", (x, np.where(y > 0.5, 1.0, -1.0)), options)
    yield Call("multilabel_soft_margin_loss", (x, y))
    yield Call("multilabel_soft_margin_loss", (x[0], y[0]))
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        yield Call(name, (none, none))
    far = np.array([-120.0, 120.0, 0.0])
    yield Call("binary_cross_entropy_with_logits", (far, np.array([0.0, 1.0, 0.5])))
    yield Call("binary_cross_entropy_with_logits", (far, np.array([1.0, 0.0, 2.0])))
    yield Call("BCELoss", (p, y), {"weight": weight}, True)
    yield Call("BCEWithLogitsLoss", (x, y), {"pos_weight": pos_weight}, True)
    yield Call("SoftMarginLoss", (x, y), {}, True)
    yield Call("MultiLabelSoftMarginLoss", (x, y), {"weight": weight}, True)


def _torch_divergences() -> Iterator[Call]:
    q, t = distributions(2, 3, axis=1), distributions(2, 3, axis=1, seed=1.0)
    for reduction in (*REDUCTIONS, "batchmean"):
        yield Call("kl_div", (np.log(q), t), {"reduction": reduction})
    yield Call("kl_div", (np.log(q[0]), t[0]), {"reduction": "batchmean"})
    yield Call("kl_div", (np.log(q), t[:1]))
    yield Call("KLDivLoss", (np.log(q), np.log(t)), {"log_target": True}, True)


def _torch_linear() -> Iterator[Call]:
    """linear_cross_entropy: one head, and one for each of 2 places."""
    name, weight = "linear_cross_entropy", np.array([0.5, 2.0, 1.25])
    x, kernel, places = wave(4, 5), wave(3, 5, seed=1.0), wave(3, 2, 5, seed=1.0)
    y = indices(3, 4)
    options = {"weight": weight, "ignore_index": 1, "linear_bias": wave(3)}
    for reduction in REDUCTIONS:
        yield Call(name, (x, kernel, y), {**options, "reduction": reduction})
    options = {"weight": weight, "label_smoothing": 0.15}
    yield Call(name, (x[0], kernel, y[0]), options)
    yield Call(name, (x, kernel, distributions(4, 3, axis=1)), options)
    options = {**options, "linear_bias": wave(3, 2)}
    yield Call(name, (x, places, indices(3, 4, 2)), options)
    yield Call(name, (x, places, distributions(4, 3, 2, axis=1)), options)


TORCH = (
    *_torch_classes(),
    *_torch_binary(),
    *_torch_divergences(),
    *_torch_linear(),
)


# Keras --------------------------------------------------------------------------------


def _keras_functions() -> Iterator[Call]:
    """Shapes and axes, logits and probabilities, every option."""
    for logits in (False, True):
        kind = {"from_logits": logits}
        # Keras smooths over as many classes as the last axis has: as `axis` has here.
        for shape, axis in (((3,), -1), ((2, 3), -1), ((2, 3, 3), 1)):
            smoothed = {**kind, "axis": axis, "label_smoothing": 0.15}
            x = wave(*shape) if logits else shares(*shape)
            y, q = shares(*shape, seed=1.0), distributions(*shape, axis=axis, seed=1.0)
            yield Call("binary_crossentropy", (y, x), smoothed)
            yield Call("categorical_crossentropy", (q, x), smoothed)
            if len(shape) > 2:
                focal = {**smoothed, "gamma": 1.5, "alpha": 0.3}
                yield Call("binary_focal_crossentropy", (y, x), focal)
                yield Call("categorical_focal_crossentropy", (q, x), focal)
            else:
                y = indices(3, *shape[:-1])
                yield Call("sparse_categorical_crossentropy", (y, x), kind)
        x = wave(4, 3) if logits else shares(4, 3)
        y, q, ids = shares(4, 3, seed=1.0), np.eye(3)[indices(3, 4)], indices(3, 4)
        yield Call("binary_crossentropy", (y > 0.5, x), kind)
        balanced = {"apply_class_balancing": True, **kind}
        yield Call("binary_focal_crossentropy", (y, x), balanced)
        yield Call("categorical_crossentropy", (3 * y, x), kind)
        alphas = {"alpha": np.array([0.2, 0.5, 0.3]), "gamma": 3.0, **kind}
        yield Call("categorical_focal_crossentropy", (q, x), alphas)
        ignored = {"ignore_class": 1, **kind}
        yield Call("sparse_categorical_crossentropy", (ids, x), ignored)
        yield Call("sparse_categorical_crossentropy", (ids[:, None], x), kind)
    yield Call("sparse_categorical_crossentropy", (ids.astype(float), shares(4, 3)))
    yield Call("kl_divergence", (shares(2, 3), shares(2, 3, seed=1.0)))
    p = distributions(4, 3, axis=1)
    for q in (0.3, 0.8):
        yield Call("categorical_generalized_cross_entropy", (ids, p), {"q": q})


def _keras_classes() -> Iterator[Call]:
    """Reductions, by weights of every shape that Keras reads as it is meant."""
    double = {"dtype": "float64"}
    x, y, ids = wave(2, 3, 2), shares(2, 3, 2, seed=1.0), indices(2, 2, 3)
    rows, weight = distributions(4, 3, axis=1), shares(2, 3)
    for reduction in (
        "sum_over_batch_size",
        "sum",
        "mean",
        "mean_with_sample_weight",
        "none",
        None,
    ):
        options = {"reduction": reduction, "from_logits": True, **double}
        yield Call("BinaryCrossentropy", (y, x, weight), options, True)
        options = {**options, "ignore_class": 1}
        name = "SparseCategoricalCrossentropy"
        yield Call(name, (ids, x), options, True)
        yield Call(name, (ids, x, weight[..., None]), options, True)
    for weight in (np.array(2.3), shares(2, 1)):
        options = {"from_logits": True, **double}
        yield Call("BinaryCrossentropy", (y, x, weight), options, True)
    for weight in (shares(4), shares(4, 1)):
        options = {"reduction": "none", **double}
        yield Call("KLDivergence", (rows, rows[::-1].copy(), weight), options, True)
    name = "CategoricalGeneralizedCrossEntropy"
    yield Call(name, (indices(3, 4), rows), double, True)
    options = {"from_logits": True, "label_smoothing": 0.1, **double}
    for name in ("Categorical", "CategoricalFocal", "BinaryFocal"):
        yield Call(f"{name}Crossentropy", (y, x, shares(2, 3)), options, True)
    # Ranks that differ by one, a single example, nothing at all, and all ignored.
    name = "BinaryCrossentropy"
    yield Call(name, (shares(4), shares(4, 1)), double, True)
    yield Call(name, (shares(4, 1), shares(4)), double, True)
    yield Call(name, (shares(4), shares(4)), double, True)
    none, ignored = np.zeros((0, 3)), np.full((2, 3), -1, np.int32)
    yield Call("CategoricalCrossentropy", (none, none), double, True)
    options = {"ignore_class": -1, **double}
    yield Call("SparseCategoricalCrossentropy", (ignored, y), options, True)


KERAS = (*_keras_functions(), *_keras_classes())


# Answers ------------------------------------------------------------------------------


class Answer(NamedTuple):
    value: np.ndarray
    grads: list[np.ndarray]


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """What a result is multiplied with before its gradient is taken."""
    return np.cos(np.arange(np.prod(shape, dtype=int))).reshape(shape)


def of_jax(module: Any, calls: tuple[Call, ...], dtype: Any = np.float64) -> list[Any]:
    """Answers of a module on JAX arrays, from one compilation of all calls."""

    def convert(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x, dtype if x.dtype.kind == "f" else x.dtype)

    def answer(call: Call, arrays: list[jax.Array]) -> Any:
        moved = call.moved()

        def total(*values: jax.Array) -> Any:
            full = list(arrays)
            for i, value in zip(moved, values, strict=True):
                full[i] = value
            result = call(module, full, convert)
            cos = jnp.asarray(cotangent(result.shape), result.dtype)
            return jnp.sum(result * cos), result

        grad = jax.grad(total, tuple(range(len(moved))), has_aux=True)
        grads, value = grad(*(arrays[i] for i in moved))
        return value, grads

    def every(arrays: list[list[jax.Array]]) -> list[Any]:
        return [answer(c, a) for c, a in zip(calls, arrays, strict=True)]

    inputs = [[convert(x) for x in call.arrays] for call in calls]
    return [Answer(v, list(g)) for v, g in jax.jit(every)(inputs)]


def of_keras(calls: tuple[Call, ...], dtype: Any = np.float64) -> list[Answer]:
    """Keras's own answers, on its JAX backend."""
    keras = installed("keras")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return of_jax(keras.losses, calls, dtype)


def of_torch(calls: tuple[Call, ...], dtype: str = "float64") -> list[Answer]:
    """PyTorch's own answers."""
    torch = installed("torch")

    class Names:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch.nn.functional, name, None) or getattr(torch.nn, name)

    def convert(x: np.ndarray) -> Any:
        is_float = x.dtype.kind == "f"
        return torch.tensor(x).to(getattr(torch, dtype) if is_float else torch.long)

    def answer(call: Call) -> Answer:
        arrays = [convert(x) for x in call.arrays]
        moved = [arrays[i].requires_grad_() for i in call.moved()]
        value = call(Names(), arrays, convert)
        cos = torch.tensor(cotangent(value.shape)).to(value.dtype)
        grads = torch.autograd.grad(value, moved, cos)
        value, *grads = [x.detach().to(torch.float64).numpy() for x in (value, *grads)]
        return Answer(value, grads)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own defaults
        return [answer(call) for call in calls]


# Comparison ---------------------------------------------------------------------------


def same_answers(calls, answers, expected, **tolerance):
    for call, answer, truth in zip(calls, answers, expected, strict=True):
        assert answer.value.size == truth.value.size, call
        if truth.value.size:
            assert answer.value.shape == truth.value.shape, call
        try:
            same(answer.value.reshape(truth.value.shape), truth.value, **tolerance)
            for grad, true_grad in zip(answer.grads, truth.grads, strict=True):
                same(grad, true_grad, **tolerance)
        except AssertionError as error:
            raise AssertionError(f"{call}\n{error}") from None


def value_and_grad(function, x, *args, **options):
    """The losses, and the gradient of their sum, from one compilation."""

    def total(x):
        losses = function(x, *args, **options)
        return jnp.sum(losses), losses

    grad, value = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(x))
    return np.asarray(value), np.asarray(grad)


# Golden values ------------------------------------------------------------------------


def write(name: str, calls: tuple[Call, ...], answers: list[Answer]) -> None:
    def numbers(x: np.ndarray) -> Any:
        text = json.dumps(np.asarray(x, np.float64).tolist())
        return json.loads(
            text, parse_float=lambda number: float(f"{float(number):.9g}")
        )

    lines = [
        json.dumps([str(call), numbers(answer.value), *map(numbers, answer.grads)])
        for call, answer in zip(calls, answers, strict=True)
    ]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    (HERE / f"golden_{name}.json").write_text(text, encoding="utf-8")


def golden(name: str, calls: tuple[Call, ...]) -> list[Answer]:
    text = (HERE / f"golden_{name}.json").read_text(encoding="utf-8")
    stored = json.loads(text)
    assert [c for c, *_ in stored] == [str(c) for c in calls], (
        "the table of calls has changed: run python -m tests.facades"
    )
    return [
        Answer(
            np.asarray(value),
            [
                np.asarray(grad).reshape(call.arrays[i].shape)
                for i, grad in zip(call.moved(), grads, strict=True)
            ],
        )
        for call, (_, value, *grads) in zip(calls, stored, strict=True)
    ]


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    write("torch", TORCH, of_torch(TORCH))
    write("keras", KERAS, of_keras(KERAS))


if __name__ == "__main__":
    main()
