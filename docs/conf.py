"""Settings of the documentation site: `make docs` builds build/docs, and build/docs/index.html opens without a server.

The source folder is the repository's root, so that READMEs are pages as they are: their links and pictures resolve, and
nothing is written twice. What is a page stands in `include_patterns`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

project = "Reprise"
author = "the Reprise contributors"
copyright = author
root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "docs/**.md",
    "docs/**.rst",
    "packages/*/README.md",
    "replications/*/README.md",
    "shared/**/README.md",
]
exclude_patterns = [".*", "**/.*", "build", "**/src", "**/results", "**/kept", "tests", "**/__pycache__", "docs/_ext"]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "docstrings", "mathml", "package_api", "pages"]

# Pages of Markdown. Tutorials are notebooks in text form; the others hold code that tests/docs runs.
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "docs-notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
# Warnings of other packages, which name paths of the machine that builds the site.
nb_output_stderr = "remove"

# The reference. Signatures are shown as the source has them: shapes in jaxtyping's form, defaults by their names.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Two packages may have a class of one name (`Head`); an annotation that names it is shown without a link.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "Reprise"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# A page opened as a file may not fetch others, so that excerpts under search results would be errors in the console.
html_show_search_summary = False
