"""The documentation site: ``python -m sphinx -W -b html docs build/site``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import funksvd

project = "funksvd"
author = "The funksvd developers"
release = funksvd.__version__
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "directives"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "code"
smartquotes = False  # they would change the quotes and dashes of options

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the numpydoc sections name the types in words
autosummary_generate = False  # numpydoc loads autosummary, which finds nothing to do
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "funksvd"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Pages without pages below them have an empty list of those.
LONELY = ("get-started", "how-it-works", "benchmarks", "gallery", "changelog", "contributing")
html_sidebars = {page: [] for page in LONELY}
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "header_links_before_dropdown": 5,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "The funksvd developers"
