"""Keras with JAX as its backend."""

import importlib.util
import os


NAME, MODULE = "Keras", "keras"

# Keras asks for its backend when it is imported.
os.environ.setdefault("KERAS_BACKEND", "jax")


def available() -> bool:
    return importlib.util.find_spec(MODULE) is not None


def rows(logits, labels):
    from keras import losses

    return losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def logits(logits, labels):
    return rows(logits.astype("float32"), labels).mean()


def distributions(logits, targets):
    from keras import losses

    return losses.categorical_crossentropy(targets, logits, from_logits=True)


LOSSES = {
    "logits": {"": logits},
    "rows": {"": rows},
    "rows, distributions": {"": distributions},
}
