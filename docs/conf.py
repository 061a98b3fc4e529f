"""The documentation site: ``make docs`` builds it into build/site, whose index.html opens without a web server.

The sources are read where they lie, from the root of the project, so that a link of a page to another, to a notebook
or to a file of source code is the same on the site as in the checkout. No page asks the network for anything: formulas
are MathML, which browsers draw themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for _mathml

import relprop

project = "relprop"
author = "The relprop authors"
copyright = author
version = release = relprop.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_external_toc",
    "_mathml",
]
external_toc_path = "docs/_toc.yml"
include_patterns = ["docs/**", "notebooks/**", "CONTRIBUTING.md", "CHANGELOG.md", "README.md"]
exclude_patterns = ["docs/_*", "**.ipynb_checkpoints"]
root_doc = "docs/index"

# Text: Markdown, with the anchors and formulas that GitHub knows as well.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["toc.empty_glob"]

# Notebooks run at every change of their code.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parents[1] / "build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# The reference, from docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "relprop"
html_math_renderer = "mathml"
html_extra_path = ["_root"]  # index.html, which leads to docs/
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
