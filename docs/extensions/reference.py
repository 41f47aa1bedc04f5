"""A page for each public name, made at the build: `docs/api/names`, not under git.

The pages of `docs/api` list the names, in `{name-table}`.
"""

import inspect
from pathlib import Path

from sphinx.application import Sphinx

from docs.extensions.name_table import FACADES, everything, of_page, value_of


FOLDER = "api/names"
# What a class's page shows beside the class.
MEMBERS = {
    "jxent.LinearLogits": "shape, ndim, dtype, __getitem__, replace, materialize",
    "jxent.Plan": "temporary_bytes",
    "jxent.SoftmaxStatistics": "lse, log_prob, entropy",
    "jxent.metrics.AccuracySums": "compute",
    "jxent.metrics.PerplexitySums": "compute",
    "jxent.metrics.BrierScoreSums": "compute",
    "jxent.metrics.CalibrationErrorSums": "compute",
}


def page(name: str) -> str:
    module, _, own = name.rpartition(".")
    title = name.removeprefix("jxent.")
    lines = [title, "=" * len(title), "", f".. currentmodule:: {module}", ""]
    if inspect.isclass(value_of(name)):
        lines.append(f".. autoclass:: {own}")
        if name in MEMBERS or module in FACADES:
            lines.append(f"   :members: {MEMBERS.get(name, '')}".rstrip())
    else:
        lines.append(f".. autofunction:: {own}")
    return "\n".join([*lines, ""])


def _write(app: Sphinx) -> None:
    """Every name's page; one that is as it was keeps its time."""
    source = Path(app.srcdir)
    listed = [
        name
        for path in sorted((source / "api").glob("*.md"))
        for name in of_page(path.read_text("utf-8"))
    ]
    missing = {*everything()} - {*listed}
    if missing or len(listed) > len({*listed}):
        raise ValueError(f"docs/api lists each name once; it misses {missing}")
    folder = source / FOLDER
    folder.mkdir(exist_ok=True)
    pages = {folder / f"{name}.rst": page(name) for name in listed}
    for path in {*folder.iterdir()} - {*pages}:
        path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
