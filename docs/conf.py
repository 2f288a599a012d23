"""How the pages are built: Markdown by MyST, and the reference by autodoc from the faces.

The faces are where a public name lives for a reader, so each object is told that it lives there before autodoc looks at
it. A name that both faces give out is documented under `trio_sched`. Cross references must resolve (`-n -W`), except to
what is no part of a face: private helpers in signatures, and other projects, whose inventories would need a network.
"""

from __future__ import annotations

import inspect

import trio_sched
from trio_sched import lowlevel, rehearsal, testing

project = "trio_sched"
author = "the authors of trio_sched"
version = release = trio_sched.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["newsfragments", "_build"]
myst_enable_extensions = ["attrs_block"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"trio_sched {release}"
html_copy_source = False
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"trio_sched\._.*"),
    (r"py:.*", r"(?!trio_sched)[\w.]+"),
]
suppress_warnings = ["misc.highlighting_failure"]

# In a docstring, `name` is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True

for face in (testing, rehearsal, lowlevel, trio_sched):
    for name in face.__all__:
        thing = getattr(face, name)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("trio_sched."):
            thing.__module__ = face.__name__
