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
napoleon_use_rtype = False
# Attributes are listed like parameters: fields of dataclasses and of named tuples.
napoleon_custom_sections = [("Attributes", "params_style")]
# Docstrings state shapes and units, which annotations of arrays would only repeat.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
default_role = "code"

html_theme = "furo"
html_title = f"Concord {release}"


def escape_prose(app, what, name, obj, options, lines):
    """Keep reStructuredText from reading |x| as a substitution and an initial as a numeral."""
    for index, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = re.split(r"(`+[^`]*`+)", line)
        escaped = "".join(p if p.startswith("`") else p.replace("|", r"\|") for p in parts)
        lines[index] = re.sub(r"^(\s*[A-Z])\.(?=\s|$)", r"\1\\.", escaped)


def setup(app):
    """Connect the hook; its priority puts it after napoleon."""
    app.connect("autodoc-process-docstring", escape_prose, priority=900)
