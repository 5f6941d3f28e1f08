"""Sphinx configuration: scverse's look, notebooks shown as they were executed."""

import os
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "src"))

for made in ("generated", "tutorials"):  # by an earlier build; names may have gone since
    shutil.rmtree(HERE / made, ignore_errors=True)
# The tutorials live beside the docs; Sphinx wants its sources in one folder.
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", ignore=shutil.ignore_patterns(".*"))

project = "aeverse"
author = "The aeverse developers"
copyright = "2026, the aeverse developers"
release = version_of("aeverse")
version = release.split("+")[0]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
links_to_others = bool(os.environ.get("READTHEDOCS"))  # they need the network
if links_to_others:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

exclude_patterns = ["_build", "_templates", "paper.md"]
templates_path = ["_templates"]
default_role = "py:obj"

nitpicky = True
nitpick_ignore_regex = [
    ("py:(obj|class)", r"[a-z_]\w*"),  # parameters and attributes, which numpydoc writes as it writes references
    ("py:class", r"(choices|nn|np|pd|sp|torch)\..*"),  # names as the source abbreviates them
    ("py:class", r"AnnData|Axes|Colormap|Figure|MuData|Path|Tensor"),  # imported for type checkers only
    ("py:class", r"Array|Corruption|History|Palette|Penalty|Probabilities|Table"),  # aliases of types
    ("py:class", r"(aeverse\.(\w+\.)*_.*|Settings)"),  # what estimators keep, and has no page
]
if not links_to_others:
    others = "anndata|collections|matplotlib|mudata|numpy|pandas|pathlib|scanpy|scipy|torch"
    nitpick_ignore_regex += [("py:.*", rf"({others})\..*")]

autosummary_generate = True
autosummary_ignore_module_all = False  # the pages of modules list what __all__ does
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_custom_sections = ["Returns"]  # prose, which napoleon would take for the name of a type
napoleon_use_param = True
napoleon_use_ivar = True  # attributes are properties, which have an entry of their own

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # executed and committed; ci/run_tutorials.py --check executes them again
nb_merge_streams = True

html_theme = "sphinx_book_theme"
html_title = "aeverse"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_theme_options = {
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
}
pygments_style = "default"
