"""Whom jxent is measured beside: one adapter each, of the same few names.

    NAME        as tables print it
    MODULE      what is imported, "" for none
    available() whether it can be
    LOSSES      operation → variant → a function of the operation's arguments
    prepare     optional: how a call is made ready, where it is no JAX function

A function of LOSSES imports its library itself, so that a library that is not there
still says which measurements lack it.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Protocol, cast

from ..operations import Loss
from . import (
    by_hand,
    jax_cce,
    jxent,
    keras,
    open_clip,
    optax,
    plain_forms,
    products,
    tokamax,
    torch,
)


class Peer(Protocol):
    NAME: str
    MODULE: str
    LOSSES: Mapping[str, Mapping[str, Loss]]

    def available(self) -> bool: ...


PEERS: dict[str, Peer] = {
    "jxent": cast(Any, jxent),
    "optax": cast(Any, optax),
    "by-hand": cast(Any, by_hand),
    "plain-forms": cast(Any, plain_forms),
    "products": cast(Any, products),
    "torch": cast(Any, torch),
    "keras": cast(Any, keras),
    "tokamax": cast(Any, tokamax),
    "jax-cce": cast(Any, jax_cce),
    "open_clip": cast(Any, open_clip),
}


def only(name: str, losses: dict[str, dict[str, Any]]) -> Peer:
    """A peer with these losses alone."""
    return cast(Peer, SimpleNamespace(**vars(PEERS[name]) | {"LOSSES": losses}))


def heads(variants: Mapping[str, tuple[str, ...]]) -> list[Peer]:
    """Peers with these variants of the fused head alone."""
    found = []
    for name, names in variants.items():
        losses = PEERS[name].LOSSES["head"]
        found.append(only(name, {"head": {v: losses[v] for v in names}}))
    return found
