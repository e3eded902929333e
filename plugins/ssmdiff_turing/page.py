"""The page that readers open: one file, nothing from outside, its first line says what it holds."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources

import jinja2
from markupsafe import Markup
from ssmdiff import DataTerms

from ssmdiff_turing.study import PAIRS, Study, inline

TITLE = "Real or synthetic?"
_WORDS = {False: (("real", "Real", "R"), ("synthetic", "Synthetic", "S")),
          True: (("a", "Image A", "A"), ("b", "Image B", "B"))}  # fmt: skip


def study_page(
    study: Study,
    size: tuple[int, int],
    title: str = TITLE,
    is_open: bool = False,
    terms: DataTerms | None = None,
) -> str:
    """The HTML of a study.

    Args:
        study: What it shows.
        size: (H, W) of its images.
        title: Over it.
        is_open: The real images are open data.
        terms: On which they may be used.
    """
    pairs = study.key["design"] == PAIRS
    half = len(study.pictures) // 2
    holds = f"This page holds {half} real images"
    holds += " of open data." if is_open else ". Keep it where they may be kept."
    script = _part("study.js")
    data = {
        "study": study.commitment,
        "design": study.key["design"],
        "total": half if pairs else len(study.pictures),
        "height": size[0],
        "width": size[1],
        "pictures": [inline(picture) for picture in study.pictures],
    }
    return (
        environment()
        .get_template("study.html")
        .render(
            title=title,
            holds=holds,
            terms=terms,
            pairs=pairs,
            total=data["total"],
            words=_WORDS[pairs],
            policy=policy(script),
            style=Markup(_part("study.css")),
            script=Markup(script),
            data=Markup(json.dumps(data).replace("<", "\\u003c")),
        )
    )


def policy(script: str = "") -> str:
    """What the page may do: show its own pictures, run its own script, ask for nothing."""
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f" script-src 'sha256-{own}';" if script else ""
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline';{scripts} "
        "base-uri 'none'; form-action 'none'"
    )


def environment() -> jinja2.Environment:
    """Templates of this package; everything that is filled in is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ssmdiff_turing"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _part(name: str) -> str:
    text = resources.files("ssmdiff_turing").joinpath("templates", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")
