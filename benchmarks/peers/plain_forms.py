"""jxent with plain forms everywhere: those of no platform."""

from jxent._compute.platform import assume_platform

from .. import textbook
from ..operations import Loss


NAME, MODULE = "plain forms", "jxent"


def available() -> bool:
    return True


def _plain(loss: Loss) -> Loss:
    def plain(*arguments):
        with assume_platform("none"):
            return loss(*arguments)

    return plain


LOSSES = {
    f"{name}, forms": {"": _plain(textbook.ours(row))}
    for name, row in textbook.ROWS.items()
}
