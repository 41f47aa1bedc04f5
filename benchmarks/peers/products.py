"""The matrix products alone, without which there are no logits and no gradients."""

from ..case import Case


NAME, MODULE = "bare products", ""
IS_LOSS = False


def available() -> bool:
    return True


def logits(hidden, kernel, labels):
    del labels
    return hidden @ kernel.astype(hidden.dtype)


def logits_and_gradients(hidden, kernel, labels):
    """The logits stand for their own cotangent."""
    z = logits(hidden, kernel, labels)
    return z[0, 0], z @ kernel.astype(z.dtype).T, hidden.T @ z


def derived(case: Case, loss):
    """None for a derivative of which there is no such floor."""
    functions = {"forward": loss, "value and gradient": logits_and_gradients}
    return functions.get(case.derivative)


LOSSES = {"head": {"": logits}}
