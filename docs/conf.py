"""The site: `python -m sphinx -E -W --keep-going -j 2 docs site`."""

import jxent
from docs.extensions.parameters import OPTIONS


project = "jxent"
copyright = "The jxent authors"
author = "The jxent authors"
release = jxent.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docs.extensions.docstrings",
    "docs.extensions.mathml",
    "docs.extensions.name_table",
    "docs.extensions.option_table",
    "docs.extensions.printed_results",
    "docs.extensions.reference",
]
exclude_patterns = ["extensions"]
nitpick_ignore_regex = [("py:.*", r"(?!jxent).*")]

# Pages are notebooks in text form. They run at every build.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_output_stderr = "show"

# The reference.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 1
python_trailing_comma_in_multi_line_signatures = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [
    "Numerics",
    "Source",
    "Differences",
    *((title, "params_style") for title in OPTIONS),
]
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "jxent"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = [(x, {"defer": "defer"}) for x in ("sliders.js", "scroll.js")]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
copybutton_exclude = ".linenos"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def _outputs_beside_the_pages(app):
    """Not into the checkout, where myst-nb writes what the notebooks draw."""
    folder = app.doctreedir / "jupyter_execute"
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=str(folder))


def setup(app):
    app.connect("builder-inited", _outputs_beside_the_pages, priority=900)
