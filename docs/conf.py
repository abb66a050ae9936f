"""Sphinx: the pages of this folder and the reference from the docstrings, by `make docs`."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

import nearcache

project = "nearcache"
author = "nearcache maintainers"
copyright = f"the {author}"  # noqa: A001  # Sphinx reads it by this name
version = release = nearcache.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_block", "attrs_inline"]  # anchors of errors, classes of tables
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"nearcache {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sourcelink = False
html_show_copyright = False
pygments_style = "friendly"


def name_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Show a link that is named by its file, as in the repository, by the title of its page or section."""
    del app, page
    source[0] = re.sub(r"\[[\w/.-]+\.md\]\((?=[\w/.-]+\.md)", "[](", source[0])


def keep_returns(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """Let napoleon take no sentence with a colon for the type of what is returned; signatures have the types."""
    del app, what, name, of, options
    for at, line in enumerate(lines[:-1]):
        if line == "Returns:":
            lines[at + 1] = re.sub(r"(?=\S)", ": ", lines[at + 1], count=1)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_returns, priority=400)  # before napoleon
    app.connect("source-read", name_pages)
