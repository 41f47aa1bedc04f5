"""Every option of the losses in every layout, on one device and on four.

The options are those of the public signatures. One program a layout takes all of them
as arrays, most at a value that changes nothing: then each is given another value, and
must change the loss and have the derivative that it has in memory on one device.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import (
    AxisType,
    PartitionSpec as P,
)

import jxent
from tests import oracles


ROWS, FEATURES, CLASSES = 4, 3, 6
LABELS = np.array([0, 2, 3, 1], np.int32)
one, of_rows, of_classes = P(), P("data"), P("model")


class Option(NamedTuple):
    """A value that changes nothing, one that does, and how both are split."""

    off: Any
    on: Any
    spec: P


OPTIONS = {
    "bias": Option(np.zeros(CLASSES), np.linspace(-1, 1, CLASSES), of_classes),
    "where": Option(np.ones(ROWS, bool), np.arange(ROWS) != 1, of_rows),
    "weights": Option(np.ones(ROWS), np.array([0.5, 2, 1, 0.25]), of_rows),
    "class_weights": Option(np.ones(CLASSES), np.linspace(0.5, 2, CLASSES), of_classes),
    "class_mask": Option(np.ones(CLASSES, bool), np.arange(CLASSES) != 4, of_classes),
    "ignore_index": Option(np.int32(-100), np.int32(2), one),
    "label_smoothing": Option(np.float64(0), np.float64(0.3), one),
    "z_loss": Option(np.float64(0), np.float64(0.1), one),
    "logit_soft_cap": Option(np.float64(np.inf), np.float64(2), one),
    "temperature": Option(np.ones(ROWS), np.array([0.5, 2, 1.5, 0.75]), of_rows),
    "margin": Option(np.zeros(CLASSES), np.linspace(0.1, 0.9, CLASSES), of_classes),
    "normalizer": Option(np.float64(ROWS), np.float64(7), one),
    "gamma": Option(np.float64(0), np.float64(1.5), one),
    "epsilon": Option(np.float64(0), np.float64(0.75), one),
    "beta": Option(np.float64(0.3), np.float64(0.6), one),
    "alpha": Option(np.float64(0.1), np.float64(0.4), one),
    "log_zero": Option(np.float64(-4), np.float64(-2.5), one),
    "q": Option(np.float64(0.7), np.float64(0.3), one),
    "target_bias": Option(np.zeros(CLASSES), np.linspace(1, -2, CLASSES), of_classes),
    "target_logit_soft_cap": Option(np.float64(np.inf), np.float64(2), one),
    "pos_weight": Option(np.ones(CLASSES), np.linspace(2, 0.5, CLASSES), of_classes),
    "gamma_pos": Option(np.float64(0), np.float64(1.5), one),
    "gamma_neg": Option(np.float64(0), np.float64(2.5), one),
    "clip": Option(np.float64(0), np.float64(0.2), one),
}
# Arguments that say what the call is: operands, axes, results, layouts.
OTHER_ARGUMENTS = {
    *("logits", "hidden", "kernel", "labels", "axis", "vocab_axis", "reduction"),
    *("target_logits", "target_hidden", "target_kernel", "target_vocab_axis"),
    *("ids", "k", "order", "probs"),
    *("return_statistics", "entropy", "argmax", "class_axis_name", "batch_axis_name"),
    *("block_sizes", "implementation", "precision", "budget", "platform"),
}
FUNCTIONS = {
    "cross-entropy": ("softmax_cross_entropy", "linear_softmax_cross_entropy"),
    "focal": ("softmax_focal_loss", "linear_softmax_focal_loss"),
    "poly": ("poly_loss_cross_entropy", "linear_poly_loss_cross_entropy"),
    "sparse": ("softmax_cross_entropy", "linear_softmax_cross_entropy"),
    "sparse focal": ("softmax_focal_loss", "linear_softmax_focal_loss"),
    "generalized": ("generalized_cross_entropy",),
    "taylor": ("taylor_cross_entropy",),
    "symmetric": ("symmetric_cross_entropy",),
    "sparse symmetric": ("symmetric_cross_entropy",),
    "sparse ZLPR": ("zlpr_loss", "linear_zlpr_loss"),
    "KL": ("softmax_kl_divergence", "linear_softmax_kl_divergence"),
    "Jensen-Shannon": (
        "softmax_jensen_shannon_divergence",
        "linear_softmax_jensen_shannon_divergence",
    ),
    "sparse sigmoid": (
        "sigmoid_binary_cross_entropy",
        "linear_sigmoid_binary_cross_entropy",
    ),
    "sparse sigmoid focal": ("sigmoid_focal_loss", "linear_sigmoid_focal_loss"),
    "sparse asymmetric": ("asymmetric_loss", "linear_asymmetric_loss"),
    "sparse of shares": ("binary_cross_entropy",),
    "probabilities": ("categorical_cross_entropy",),
}
TWO_HEADS = ("KL", "Jensen-Shannon")
# Public functions that are in no program below, and why.
HELPERS = {
    *("class_weights_of_counts", "next_token_labels", "sequence_weights"),
    *("smooth_labels", "total_weight", "reduce", "map_over_tiles", "sum_over_tiles"),
    *("fit_temperature", "fit_vector_scaling"),
}
OF_PAIRS = {  # of vectors, not of classes: tests/test_contrastive.py
    *("contrastive_cross_entropy", "supervised_contrastive_cross_entropy"),
    *("sigmoid_contrastive_loss", "ntxent"),
}
OPTAX_NAMES = {  # of softmax_cross_entropy
    *("safe_softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels"),
}
WHERE_ALONE = {  # no other option, and no argument for devices
    *("entropy", "generalized_kl_divergence"),
    *("kl_divergence", "kl_divergence_with_log_targets"),
}
OTHER_RESULTS = {  # of the same logits, not a loss: their files go over the options
    *("softmax_log_prob", "linear_softmax_log_prob"),  # tests/test_family.py
    *("softmax_entropy", "linear_softmax_entropy"),  # tests/test_family.py
    *("softmax_log_prob_at", "linear_softmax_log_prob_at"),  # test_several_ids.py
    "linear_softmax_top_k",  # tests/test_several_ids.py
    *("softmax_statistics", "linear_softmax_statistics"),  # tests/test_options.py
    "softmax_cross_entropy_sums",  # tests/test_sums.py
    "linear_softmax_cross_entropy_sums",  # tests/test_sums.py
    "linear_softmax_plan",  # tests/test_plan.py
}
PUBLIC = {n for n in jxent.__all__ if inspect.isfunction(getattr(jxent, n))}


def all_of(name):
    """The arguments in a public signature."""
    return set(inspect.signature(getattr(jxent, name)).parameters)


def options_of(name):
    return all_of(name) - OTHER_ARGUMENTS


def is_binary(name):
    """Whether each logit, or probability, has a loss of its own."""
    return "class_axis_name" not in all_of(name)


@pytest.mark.parametrize("name", sorted(PUBLIC - HELPERS - OF_PAIRS - WHERE_ALONE))
def test_the_table_has_every_option(name):
    assert options_of(name) <= {*OPTIONS}


def test_the_programs_have_every_public_loss():
    """A new public function is in a program, or is named with a reason."""
    here = {name for names in FUNCTIONS.values() for name in names}
    elsewhere = [HELPERS, OF_PAIRS, OPTAX_NAMES, WHERE_ALONE, OTHER_RESULTS]
    assert sorted(PUBLIC) == sorted([*here, *(n for names in elsewhere for n in names)])


@pytest.mark.parametrize("name", sorted(OPTAX_NAMES))
def test_the_names_of_optax_are_the_same_function(name):
    assert getattr(jxent, name) is jxent.softmax_cross_entropy


@pytest.mark.parametrize("name", sorted(WHERE_ALONE))
def test_a_where_is_their_only_option(name):
    assert options_of(name) & {*OPTIONS} == {"where"}
    assert not all_of(name) & {"class_axis_name", "batch_axis_name", "reduction"}


class Program(NamedTuple):
    """A loss in a layout, on one device or on 2 × 2 of them."""

    formula: str
    layout: str = "in memory"
    split: bool = False

    @property
    def options(self):
        options = set().union(*map(options_of, FUNCTIONS[self.formula]))
        if "focal" in self.formula or self.formula == "poly":
            if self.layout == "streamed":
                options -= {"label_smoothing"}  # it would need every log p of a row
        if "sparse" in self.formula:
            options -= {"margin"}  # for class ids
        return sorted(options)


@functools.cache
def operands():
    rng = np.random.default_rng(0)
    heads = [
        (rng.normal(size=(ROWS, width)), rng.normal(size=(width, CLASSES)))
        for width in (FEATURES, FEATURES + 1)
    ]
    return heads


def labels_of(formula):
    """Class ids, several of them a row, or another head; and how they are split."""
    if formula in TWO_HEADS:
        return operands()[1], (of_rows, P(None, "model"))
    if "sparse" not in formula:
        return LABELS, of_rows
    ids = np.stack([LABELS, (LABELS + 2) % CLASSES, np.full(ROWS, 2)], -1)
    values = np.linspace(0.2, 0.9, ids.size).reshape(ids.shape)
    labels = jxent.SparseLabels(ids=ids, values=values)
    return labels, jax.tree.map(lambda _: of_rows, labels)


def dense(labels, classes, ignore_index, class_axis_name):
    """The value of each class of a device."""
    ids = jnp.asarray(labels.ids, jnp.int32)
    of_device = jnp.arange(classes, dtype=jnp.int32)
    if class_axis_name:
        of_device += lax.axis_index(class_axis_name) * np.int32(classes)
    one_hot = ids[..., None] == of_device[None, None]
    if ignore_index is not None:
        one_hot &= (ids != ignore_index)[..., None]
    return jnp.sum(jnp.where(one_hot, labels.values[..., None], 0), -2)


def of_each_class(function, logits, labels, options):
    """A binary loss, whose rows are single logits: its sum, by the normalizer.

    What the fused head takes beside it stands here as its documentation has it.
    """
    given = dict(options)
    names = tuple(given.pop(f"{of}_axis_name", None) for of in ("batch", "class"))
    labels = dense(labels, logits.shape[1], given.pop("ignore_index", None), names[1])
    where, weights = (given.pop(name)[:, None] for name in ("where", "weights"))
    if "temperature" in given:
        cap = given.pop("logit_soft_cap")
        finite = jnp.where(jnp.isinf(cap), 1, cap)
        capped = finite * jnp.tanh(logits / finite)
        logits = jnp.where(jnp.isinf(cap), logits, capped)
        logits /= given.pop("temperature")[:, None]
        where &= given.pop("class_mask")[None]
    given |= {"batch_axis_name": names if all(names) else None}
    return function(logits, labels, where=where, weights=weights, **given)


@functools.cache
def compiled(program):
    """(options by name) -> the loss, and its gradients in those that have any."""
    in_memory, *fused = (getattr(jxent, name) for name in FUNCTIONS[program.formula])
    of_probabilities = "probs" in all_of(in_memory.__name__)
    binary = is_binary(in_memory.__name__)
    names = {"class_axis_name": "model", "batch_axis_name": "data"}
    labels, split_of_labels = labels_of(program.formula)
    two = program.formula in TWO_HEADS

    def loss(hidden, kernel, labels, options):
        given = options | {"reduction": "mean"} | (names if program.split else {})
        if program.layout == "in memory":
            logits = hidden @ kernel
            if fused:
                logits += given.pop("bias")[None]
            if two:
                other = labels[0] @ labels[1] + given.pop("target_bias")[None]
                return in_memory(logits, other, **given)
            if of_probabilities:
                logits = jax.nn.sigmoid(logits)
            if binary:
                return of_each_class(in_memory, logits, labels, given)
            return in_memory(logits, labels, **given)
        # Loops of whole blocks, of each device's part too.
        blocks = (1, 1) if program.split else (2, 3)
        given |= {"implementation": program.layout, "block_sizes": blocks}
        labels = labels if two else (labels,)
        return fused[0](hidden, kernel, *labels, **given)

    if program.split:
        specs = {name: OPTIONS[name].spec for name in program.options}
        kinds = (AxisType.Auto,) * 2
        mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds)
        in_specs = (of_rows, P(None, "model"), split_of_labels, specs)
        loss = jax.shard_map(loss, mesh=mesh, in_specs=in_specs, out_specs=one)

    @jax.jit
    def both(options):
        moving = {k: x for k, x in options.items() if x.dtype == jnp.float64}

        def of_moving(values):
            return loss(*operands()[0], labels, options | values)

        return jax.value_and_grad(of_moving)(moving)

    return both


def at(program, changed=None, value=None):
    options = {name: OPTIONS[name].off for name in program.options}
    if program.formula == "probabilities":  # else no term is of a masked class
        options["label_smoothing"] = np.float64(0.2)
    if changed is not None:
        options[changed] = OPTIONS[changed].on if value is None else value
    return compiled(program)(options)


PROGRAMS = [
    Program("cross-entropy", layout, split)
    for layout in ("in memory", "materialized", "streamed", "tiled")
    for split in (False, True)
] + [
    Program(formula, layout, True)
    for formula in FUNCTIONS
    if formula != "cross-entropy"
    for layout in ("in memory", "streamed", "tiled")
    if layout == "in memory" or FUNCTIONS[formula][1:]
]
PROGRAMS += [  # in memory these are of single logits
    Program(formula, "materialized", True)
    for formula, (in_memory, *fused) in FUNCTIONS.items()
    if fused and is_binary(in_memory)
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: "-".join(map(str, p)))
def test_every_option_has_an_effect_and_a_derivative(program, x64):
    reference = Program(program.formula)
    off, _ = at(program)
    for name in program.options:
        loss, gradients = at(program, name)
        wanted, slopes = at(reference, name)
        assert abs(loss - off) > 1e-3, f"{name} changes nothing"
        np.testing.assert_allclose(loss, wanted, rtol=1e-12, err_msg=name)
        for other, slope in gradients.items():
            wanted = slopes[other]
            message = f"the derivative in {other}, given {name}"
            np.testing.assert_allclose(slope, wanted, 1e-10, 1e-12, err_msg=message)
        assert name not in gradients or np.any(gradients[name]), name


@pytest.mark.parametrize("formula", FUNCTIONS)
def test_the_derivatives_in_memory(formula, x64):
    """Those of central differences."""
    program = Program(formula)
    for name, option in ((n, OPTIONS[n]) for n in program.options):
        _, gradients = at(program, name)
        if name in gradients:
            value = lambda x, name=name: at(program, name, x)[0]
            wanted = oracles.central_differences(value, option.on)
            np.testing.assert_allclose(gradients[name], wanted, 1e-7, 1e-9)
