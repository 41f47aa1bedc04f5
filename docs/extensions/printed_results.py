"""At a build, what a cell prints is what the comments beside its prints say.

A cell that prints something else is a warning, and so is one that prints without saying
what. Output that agrees is left out: the reader has it in the comment.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from docs.extensions.prints import expected_prints, says


_log = logging.getLogger(__name__)


def _check(app: Sphinx, doctree: nodes.document) -> None:
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code":
            continue
        source, printed = "", []
        for part in cell.findall(nodes.container):
            if part.get("nb_element") == "cell_code_source":
                source = part.astext()
            elif part.get("nb_element") == "cell_code_output":
                printed = [
                    block
                    for block in part.findall(nodes.literal_block)
                    if "stream" in block.get("classes", [])
                ]
        if not source.strip():
            continue
        want = "\n".join(expected_prints(source).values())
        got = "\n".join(block.astext() for block in printed)
        if not says(want, got):
            _log.warning(
                "this cell prints\n%s\nand its comments say\n%s",
                got,
                want,
                location=cell,
            )
        for block in printed:
            block.parent.remove(block)
        for part in list(cell.findall(nodes.container)):
            if part.get("nb_element") == "cell_code_output" and not part.children:
                part.parent.remove(part)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
