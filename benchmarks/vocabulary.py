"""The first picture of README and site: a head's memory and time by its vocabulary.

    python -m benchmarks.vocabulary

draws it from the stored run on a processor: for a desktop, light and dark, and a phone.
"""

import colorsys
import re
from pathlib import Path
from typing import Any

from .plots import GRADIENT, MEMORY, PAPER, STYLE, picture, plt, sweep, time_panel
from .readme import processor
from .record import Results, load


HERE = Path(__file__).parent
# The lines, as their records are called, and what is written at their ends.
LINES = {
    "Optax, materialized": "Optax, logits in memory",
    "jxent": "jxent",
    "jxent, streamed": "jxent, streamed",
}


def draw(results: Results, *, phone: bool = False) -> Any:
    of = {"suite": "linear", "operation": "head", "derivative": GRADIENT}
    found = sweep(results.records, "classes", **of)
    found = [r for r in found if r.name in LINES]
    one = found[0]
    titles = (
        "Loss and gradients of an output layer",
        f"{one.rows:,} tokens of {one.features:,} features, {one.dtype}; "
        f"{processor(results)}",
    )
    panels = [MEMORY, time_panel(found, "classes")]
    label = "classes in the vocabulary"
    return picture(found, "classes", label, titles, panels, phone=phone, names=LINES)


def dark(svg: str) -> str:
    """The same picture for a dark page: light and dark change places, hues stay."""

    def turned(match: re.Match[str]) -> str:
        red, green, blue = bytes.fromhex(match[1])
        hue, light, full = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
        turned = colorsys.hls_to_rgb(hue, 0.92 - 0.85 * light, full)
        return "#" + bytes(round(255 * x) for x in turned).hex()

    return re.sub(r"#([0-9a-f]{6})\b", turned, svg)


def main(output: Path = HERE / "pictures") -> None:
    results = load(HERE / "results" / "cpu-head")
    with plt.rc_context(
        STYLE | {"text.color": "#111111", "axes.labelcolor": "#111111"}
    ):
        for name, phone in (("vocabulary", False), ("vocabulary_phone", True)):
            path = output / f"{name}.svg"
            figure = draw(results, phone=phone)
            figure.savefig(path, metadata={"Date": None}, **PAPER)
            plt.close(figure)
    light = (output / "vocabulary.svg").read_text("utf-8")
    (output / "vocabulary_dark.svg").write_text(dark(light), "utf-8")


if __name__ == "__main__":
    main()
