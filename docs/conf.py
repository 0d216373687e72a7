"""How Sphinx makes the site. `make docs` writes what is generated first, then calls it."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

project, author = "clipdrift", "the clipdrift authors"
project_copyright = "the clipdrift authors, Apache-2.0"
version = release = version_of("clipdrift")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_llm.txt",
]
exclude_patterns = ["conf.py", "**/.ipynb_checkpoints"]
default_role = "code"  # one pair of backticks in a docstring is code, as in Markdown

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = "../build/notebooks"
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True
suppress_warnings = ["myst.xref_missing.external", "mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
autodoc_default_options = {"members": True, "show-inheritance": True}
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other packages; pages and sections are held

html_theme = "furo"
html_title = "clipdrift"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["../build/site-extra"]  # the gallery, with the report of each study
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"
llms_txt_description = "Matched fine-tuning studies of CLIP-style models."
llms_txt_full_build = True
llms_txt_suffix_mode = "replace"
llms_txt_suppress_unknown_node_warnings = True
llms_txt_build_parallel = False  # after the pages, so that notebooks run once

OUTSIDE = re.compile(r"\]\((?:\.\./)+(CHANGELOG|CONTRIBUTING|SECURITY)\.md")
RESULTS = "results/"


def read_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Point links at files beside docs/ to their pages; link each results page to its report."""
    depth = "../" * page.count("/")
    source[0] = OUTSIDE.sub(lambda m: f"]({depth}project/{m[1].lower()}.md", source[0])
    study = page.removeprefix(RESULTS)
    if page.startswith(RESULTS) and (Path(app.srcdir) / page / "records.tar.xz").exists():
        place = f"../gallery/studies/{study}/report.html"
        link = f'<p><a class="open-report" href="{place}">Open the report</a></p>'
        source[0] = re.sub(r"\A(# .+\n)", rf"\1\n{link}\n", source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read_source)
