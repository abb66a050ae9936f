"""Sphinx: the pages of this folder and the reference from the docstrings, by `make docs`."""

from __future__ import annotations

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
autodoc_class_signature = "separated"
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
