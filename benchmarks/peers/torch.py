"""PyTorch, on a CUDA device where JAX is on one; its matrices as a layer has them."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..case import Case
from ..measure import Prepared
from ..operations import IGNORED, OPERATIONS, SMOOTHING, Z_LOSS


NAME, MODULE = "PyTorch", "torch"


def available() -> bool:
    return importlib.util.find_spec(MODULE) is not None


def logits(logits, labels):
    from torch.nn import functional as F

    return F.cross_entropy(logits, labels, ignore_index=IGNORED)


def logits_every(logits, labels, class_weights):
    import torch
    from torch.nn import functional as F

    class_weights = class_weights.to(logits.dtype)
    loss = F.cross_entropy(
        logits,
        labels,
        class_weights,
        ignore_index=IGNORED,
        label_smoothing=SMOOTHING,
    )
    kept = labels != IGNORED
    weights = class_weights[torch.where(kept, labels, 0)] * kept
    square = (torch.logsumexp(logits, -1) ** 2 * weights).sum() / weights.sum()
    return loss + Z_LOSS * square


def head(hidden, kernel, labels):
    return logits(hidden @ kernel, labels)


def head_every(hidden, kernel, labels, class_weights):
    return logits_every(hidden @ kernel, labels, class_weights)


def head_table(hidden, table, labels):
    return head(hidden, table.T, labels)


def chunked_table(hidden, table, labels, **options):
    import torch

    return torch.nn.functional.linear_cross_entropy(
        hidden,
        table,
        labels,
        ignore_index=IGNORED,
        options=torch.nn.LinearCrossEntropyOptions(**options),
    )


def chunked(hidden, kernel, labels):
    return chunked_table(hidden, kernel.T, labels)


def chunked_by_512(hidden, kernel, labels):
    return chunked_table(hidden, kernel.T, labels, batch_chunk_size=512)


def rows(logits, labels):
    from torch.nn import functional as F

    return F.cross_entropy(logits, labels, reduction="none")


def sigmoid(logits, targets):
    from torch.nn import functional as F

    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _tensor(name: str, x: jax.Array) -> Any:
    """A copy; a kernel is held as (classes, features), which PyTorch's layers have."""
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    device = "cpu"
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        device = "cuda"
    if x.dtype == np.int32:
        return torch.tensor(np.array(x), device=device).long()
    copy = np.array(x.astype("float32"))
    if name == "kernel":
        copy = np.ascontiguousarray(copy.T)
    return torch.tensor(copy).to(device, kinds[str(x.dtype)])


def _derived(case: Case, loss: Callable[..., Any], tensors: list[Any]) -> Any:
    """A call of the loss or its derivative at the tensors."""
    import torch

    operation = OPERATIONS[case.operation]
    turned = [name == "kernel" for name in operation.arguments]

    def seen(*tensors):
        return loss(*(x.T if t else x for t, x in zip(turned, tensors, strict=True)))

    def direct(*gradients):
        """Gradients as the operation's arguments lie."""
        return [
            x.T if turned[i] else x
            for i, x in zip(operation.differentiated, gradients, strict=True)
        ]

    point = tuple(tensors[i] for i in operation.differentiated)

    def backward():
        for x in point:
            x.grad = None
        value = seen(*tensors)
        value.backward()
        return value.detach(), direct(*(x.grad for x in point))

    def of_some(*some):
        whole = list(tensors)
        for i, x in zip(operation.differentiated, some, strict=True):
            whole[i] = x
        return seen(*whole)

    def forward():
        with torch.no_grad():
            return seen(*tensors)

    def jvp():
        return torch.func.jvp(of_some, point, point)

    def second():
        gradient = torch.func.grad(of_some, tuple(range(len(point))))
        first, product = torch.func.jvp(gradient, point, point)
        return direct(*first), direct(*product)

    def each():
        def of_row(hidden, label):
            f = lambda kernel: seen(hidden[None], kernel, label[None])
            return torch.func.grad(f)(tensors[1])

        return torch.func.vmap(of_row)(tensors[0], tensors[2]).mT

    if case.derivative == "value and gradient":
        for x in point:
            x.requires_grad_()
    return {
        "forward": forward,
        "value and gradient": backward,
        "jvp": jvp,
        "hessian-vector product": second,
        "per-example gradients": each,
    }[case.derivative]


def prepare(case: Case, loss: Callable[..., Any], arguments: Any) -> Prepared:
    """A call, which waits for its device; and the time of the first one."""
    import torch

    names = OPERATIONS[case.operation].arguments
    tensors = [_tensor(name, x) for name, x in zip(names, arguments, strict=True)]
    call = _derived(case, loss, tensors)

    def waited():
        result = call()
        if tensors[0].is_cuda:
            torch.cuda.synchronize()
        return result

    numbers: dict[str, Any] = {}
    start = time.perf_counter()
    if tensors[0].is_cuda:
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    waited()
    numbers["compile_s"] = time.perf_counter() - start
    if tensors[0].is_cuda:
        numbers["temporary_bytes"] = torch.cuda.max_memory_allocated() - held
    return Prepared(waited, numbers)


def leaf(x: Any) -> Any:
    """A tensor as NumPy has it."""
    return x.detach().float().cpu().numpy() if hasattr(x, "detach") else x


LOSSES = {
    "logits": {"": logits},
    "logits, every option": {"": logits_every},
    "head": {
        "materialized": head,
        "linear_cross_entropy": chunked,
        "linear_cross_entropy in chunks of 512": chunked_by_512,
    },
    "head, every option": {"materialized": head_every},
    "head, embedding table": {
        "materialized": head_table,
        "linear_cross_entropy": chunked_table,
    },
    "head, by blocks": {"linear_cross_entropy": chunked},
    "head, ignored": {"linear_cross_entropy": chunked},
    "rows": {"": rows},
    "rows, distributions": {"": rows},
    "rows, sigmoid": {"": sigmoid},
}
