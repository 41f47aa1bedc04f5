"""The look of the examples' pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine


BLUE, ORANGE, GREY = "#2f6690", "#e4572e", "#6b7280"
SKY, PEACH, MIST = "#a9c9e3", "#f7b267", "#e5e7eb"
STYLE = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titlepad": 32,  # room for a legend below the title
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "legend.borderpad": 0.2,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "hatch.linewidth": 1.2,
}
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1.01), "ncols": 3}  # of a legend


@contextmanager
def picture(output: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure, in inches, that is written once it is drawn."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        # Opaque: read on a dark page too.
        figure.savefig(output, format="png", dpi=150, facecolor="white")
