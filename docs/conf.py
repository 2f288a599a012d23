"""How the pages are built: Markdown by MyST, and the reference by autodoc from the faces.

The faces are where a public name lives for a reader, so each object is told that it lives there before autodoc looks at
it. A name that both faces give out is documented under `trio_sched`. Cross references must resolve (`-n -W`), except to
what is no part of a face: private helpers in signatures, and other projects, whose inventories would need a network.
"""

from __future__ import annotations

import inspect
import re

from sphinx.application import Sphinx

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
    (r"py:class", r"trio_sched\.testing\.T"),  # a type variable
    (r"py:.*", r"trio_sched\._.*"),
    (r"py:.*", r"(?!trio_sched)[\w.]+"),
]
suppress_warnings = ["misc.highlighting_failure"]

# In a docstring, `name` is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True}

for face in (testing, rehearsal, lowlevel, trio_sched):
    for name in face.__all__:
        thing = getattr(face, name)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("trio_sched."):
            thing.__module__ = face.__name__


def show_defaults(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Defaults as one would write them: functions by name, and `...` for what is made anew for each object."""
    if signature is not None:
        signature = re.sub(r"NOTHING|<function .*?<lambda>.*?>", "...", signature)
        signature = re.sub(r"<(?:built-in )?(?:function|class|method) '?([\w.]+)[^>]*>", r"\1", signature)
    return signature, returned


NAMED = re.compile(r"(?<![`\w.])((?:\w+, )*\w+):(?=\s)")
"""What may be a parameter that a docstring describes: `needs: the columns ...`."""


def list_parameters(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Where sentences of a docstring describe parameters, `needs: the columns ...`, make them a list, with types."""
    if what == "data" and lines and lines[0] == (inspect.getdoc(type(thing)) or "").partition("\n")[0]:
        lines.clear()  # Of its type, say of all unions, and not of this one.
    try:
        parameters = set(inspect.signature(thing).parameters) if callable(thing) else set[str]()
    except ValueError:
        return
    paragraphs = "\n".join(lines).split("\n\n")
    lines[:] = "\n\n".join(as_fields(paragraph, parameters) for paragraph in paragraphs).splitlines()
    lines.append("")


def as_fields(paragraph: str, parameters: set[str]) -> str:
    """A paragraph with a field for each of the parameters that it describes; any other as it is."""
    starts: list[re.Match[str]] = []
    for found in NAMED.finditer(paragraph):
        begins_sentence = found.start() == 0 or re.search(r"[.?!)]\s+$", paragraph[: found.start()])
        if begins_sentence and set(found[1].split(", ")) <= parameters:
            starts.append(found)
    if not starts:
        return paragraph
    ends = [*(found.start() for found in starts[1:]), len(paragraph)]
    before, fields, after = paragraph[: starts[0].start()].rstrip(), list[str](), ""
    for found, end in zip(starts, ends, strict=True):
        text, raises, rest = paragraph[found.end() : end].partition(" Raises `")
        fields += [f":param {each}: {' '.join(text.split())}" for each in found[1].split(", ")]
        after = raises.lstrip() + rest
    return "\n\n".join(part for part in (before, "\n".join(fields), " ".join(after.split())) if part)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", show_defaults)
    app.connect("autodoc-process-docstring", list_parameters)
