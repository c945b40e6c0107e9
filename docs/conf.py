"""Sphinx configuration."""

import importlib.metadata
import re

project = "Concord"
copyright = "the Concord authors"
release = importlib.metadata.version("concord")
version = ".".join(release.split(".")[:2])

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", ".jupyter_cache"]
# Tables of benchmarks are written by `concord benchmark`; there may be none yet.
suppress_warnings = ["toc.empty_glob"]

# Notebooks run once and are then taken from the cache; a failing cell fails the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False
# Docstrings state shapes and units, which annotations of arrays would only repeat.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
default_role = "code"

html_theme = "furo"
html_title = f"Concord {release}"


def escape_bars(app, what, name, obj, options, lines):
    r"""Write | as \| outside code: docstrings mean norms and conditionals, not substitutions."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`+[^`]*`+)", line)
            lines[index] = "".join(
                part if part.startswith("`") else part.replace("|", r"\|") for part in parts
            )


def setup(app):
    """Connect the hook; priority above napoleon's, so that it sees the final text."""
    app.connect("autodoc-process-docstring", escape_bars, priority=900)
