"""Configuration of Sphinx for the documentation site; `build.py` runs it."""

import re
from pathlib import Path

project = "adaptive_nets"
author = "the authors of adaptive_nets"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "adaptive_nets"
html_static_path = [str(Path(__file__).parent / "_static")]
html_css_files = ["wide.css"]
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "ref.python"]
# The papers' symbols and single back quotes in docstrings are code.
default_role = "code"
autodoc_member_order = "alphabetical"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "imported-members": True}
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_attr_annotations = False
nitpicky = False
maximum_signature_line_length = 88


# Absolute values, products, and names that end in "_".
_MARKUP = re.compile(r"(?<!\\)[|*]|(?<=\w)_(?=\W|$)")
_BULLET = re.compile(r"\s*\* ")


def _plain(app, what, name, obj, options, lines):
    """Keeps what is mathematics in our docstrings from being markup in theirs."""
    for number, line in enumerate(lines):
        bullet = _BULLET.match(line)
        start = bullet.end() if bullet else 0
        parts = re.split(r"(``.*?``|`[^`]*`)", line[start:])
        parts[::2] = [_MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
        lines[number] = line[:start] + "".join(parts)


def setup(app):
    """Registers the handler before the one of napoleon."""
    app.connect("autodoc-process-docstring", _plain, priority=100)
